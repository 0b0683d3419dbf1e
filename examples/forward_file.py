"""One file of another server, passed on with its size, type, ETag and ranges, never held here. Falcon, ASGI.

Try it:

    STORE=http://10.0.0.7:8080/exports uvicorn forward_file:app
    curl -OJ http://127.0.0.1:8000/exports/2024.csv

With STORE_TOKEN set, the store sees it as a bearer token; the client never does.
"""

import os
from collections.abc import Mapping
from urllib.parse import quote

import falcon.asgi

from streamware import Archiver
from streamware.resources import AsyncProxyResource

STORE = os.environ.get("STORE", "http://127.0.0.1:8081")
TOKEN = os.environ.get("STORE_TOKEN")


class Export(AsyncProxyResource):
    async def make_url(self, req: falcon.asgi.Request, name: str) -> str:
        if name in (".", ".."):
            raise falcon.HTTPNotFound()
        return f"{STORE}/{quote(name, safe='')}"

    async def make_headers(self, req: falcon.asgi.Request, name: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}


app = falcon.asgi.App()
app.add_route("/exports/{name}", Export(Archiver()))
