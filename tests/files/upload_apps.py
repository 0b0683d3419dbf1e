"""The file service beside a small site, for any host to load: what the suite of hosts uploads to.

The rule of this file: every limit that a host is measured against is set here, once for all hosts. What must never be
reached, because it stands in another request's body, counts who reached it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import falcon
import falcon.asgi

from streamware import Archiver, Policy
from streamware.edge_uploads import ExpectContinue
from streamware.filestore import FileStore
from streamware.resources import (
    AsyncFileResource,
    AsyncFilesResource,
    AsyncTusResource,
    FileResource,
    FilesResource,
    TusResource,
)

__all__ = ["KIND", "MOST", "SECONDS", "WORK"]

KIND = "STREAMWARE_TEST_KIND"  # the variable that says which app is served, "wsgi" or "asgi"
WORK = "STREAMWARE_TEST_FILES"  # the variable that names the folder of bytes and rows
MOST = 2_000_000  # bytes of one file
SECONDS = 1.0  # of waiting for 1,024 bytes each


def _archiver() -> Archiver:
    work = Path(os.environ[WORK])
    policy = Policy(max_upload_bytes=MOST, min_rate_bytes=1024, min_rate_seconds=SECONDS)
    (work / "store").mkdir(exist_ok=True)
    files = FileStore(f"file://{work}/store", f"sqlite:///{work}/files.sqlite3", policy=policy)
    return Archiver(policy, files=files)


class _Site:
    """``/reached`` says how often ``/never`` was asked; ``/healthz`` that the process answers."""

    def __init__(self) -> None:
        self.reached = 0

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        self.reached += req.path == "/never"
        resp.text = str(self.reached)


class _AsyncSite(_Site):
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:  # type: ignore[override]
        super().on_get(req, resp)


def _wsgi() -> Any:
    app, archiver, site = falcon.App(), _archiver(), _Site()
    app.add_route("/files", FilesResource(archiver))
    app.add_route("/files/{id}", FileResource(archiver))
    app.add_route("/uploads", tus := TusResource(archiver))
    app.add_route("/uploads/{id}", tus)
    for path in ("/healthz", "/never", "/reached"):
        app.add_route(path, site)
    return app


def _asgi() -> Any:
    app, archiver, site = falcon.asgi.App(), _archiver(), _AsyncSite()
    app.add_route("/files", AsyncFilesResource(archiver))
    app.add_route("/files/{id}", AsyncFileResource(archiver))
    app.add_route("/uploads", tus := AsyncTusResource(archiver))
    app.add_route("/uploads/{id}", tus)
    for path in ("/healthz", "/never", "/reached"):
        app.add_route(path, site)
    return ExpectContinue(app)  # type: ignore[arg-type]


# Only one of the two, for the other would have the same files.
if os.environ.get(KIND) == "asgi":
    asgi = _asgi()
elif os.environ.get(KIND) == "wsgi":
    wsgi = _wsgi()


if __name__ == "__main__":  # wsgiref has no command line of its own
    import sys
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIServer, make_server

    class _Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    make_server("127.0.0.1", int(sys.argv[1]), wsgi, _Server).serve_forever()
