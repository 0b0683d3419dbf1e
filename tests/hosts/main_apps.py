"""The apps of the main job: every file of an upstream, as one archive, through each way in.

``UPSTREAM`` is the upstream's URL, ``LISTING`` a file with one path a line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import falcon
import falcon.asgi

from streamware import Archiver, Bundle, Policy
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware
from streamware.resources import AsyncBundleResource, BundleResource

UPSTREAM = os.environ["UPSTREAM"]
PATIENCE = float(os.environ.get("READ_TIMEOUT", "30"))
ARCHIVER = Archiver(Policy(allow=(f"{UPSTREAM}/",), read_timeout_seconds=PATIENCE))


def everything(name: str) -> Bundle:
    bundle = Bundle(name)
    for path in Path(os.environ["LISTING"]).read_text().splitlines():
        bundle.add_url(f"{UPSTREAM}/{quote(path)}", name=path)
    return bundle


def plain_wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return []


async def plain_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Everything(BundleResource):
    def make_bundle(self, req: falcon.Request, **params: Any) -> Bundle:
        return everything(params["name"])


class AsyncEverything(AsyncBundleResource):
    async def make_bundle(self, req: falcon.asgi.Request, **params: Any) -> Bundle:
        return everything(params["name"])


wsgi_middleware = BundleMiddleware(plain_wsgi, path="/bundle", archiver=ARCHIVER)
asgi_middleware = AsyncBundleMiddleware(plain_asgi, path="/bundle", archiver=ARCHIVER)
falcon_wsgi = falcon.App()
falcon_wsgi.add_route("/{name}", Everything(ARCHIVER))
falcon_asgi = falcon.asgi.App()
falcon_asgi.add_route("/{name}", AsyncEverything(ARCHIVER))
