"""The one app of the host suite: the small site of ``inner_site`` under both middlewares, for any server to load.

The rule of this file: every limit that a host's behaviour is measured against is set here, once for all hosts.
"""

from __future__ import annotations

import os
from typing import Any

from streamware import Archiver, Policy
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware
from tests.hosts.inner_site import asgi_site, wsgi_site

__all__ = ["READ_SECONDS", "UPSTREAM", "asgi", "wsgi"]

UPSTREAM = "STREAMWARE_TEST_UPSTREAM"  # the variable that names the one upstream that manifests may use
READ_SECONDS = 1.0

# Nothing is tried again: these tests are about what a host makes of a failure, and want it soon.
_policy = Policy(
    allow=(os.environ.get(UPSTREAM, "http://127.0.0.1:1/"),), read_timeout_seconds=READ_SECONDS, max_tries=1
)

wsgi = BundleMiddleware(wsgi_site, archiver=Archiver(_policy))


async def _site(scope: Any, receive: Any, send: Any) -> None:
    """The site, for servers that also ask for a lifespan."""
    if scope["type"] != "lifespan":
        await asgi_site(scope, receive, send)
        return
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


asgi = AsyncBundleMiddleware(_site, archiver=Archiver(_policy))


if __name__ == "__main__":  # wsgiref has no command line of its own
    import sys
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIServer, make_server

    class _Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    make_server("127.0.0.1", int(sys.argv[1]), wsgi, _Server).serve_forever()
