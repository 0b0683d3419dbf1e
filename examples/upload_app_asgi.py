"""Uploads for those who have a token, of so much each; and a place for tus clients alone. Falcon, ASGI.

Try it:

    TOKENS=ann:GFuyQZkp0EW9,bob:xAIv4ykGHh2D uvicorn upload_app_asgi:app
    curl -H 'Authorization: Bearer GFuyQZkp0EW9' -F file=@a.log http://127.0.0.1:8000/files
    curl -H 'Authorization: Bearer GFuyQZkp0EW9' -OJ http://127.0.0.1:8000/files/ID

Everybody reads what they have stored themselves, and nobody lists. KEEP names the folder.
"""

import hmac
import os

import falcon.asgi

from streamware import Archiver, FileStore, Policy
from streamware.file_request import FileRequest
from streamware.middleware import ExpectContinue
from streamware.resources import AsyncFileResource, AsyncFilesResource, AsyncTusResource

KEEP = os.path.abspath(os.environ.get("KEEP", "kept"))
TOKENS = dict(pair.split(":") for pair in os.environ["TOKENS"].split(","))


def authorize(action: str, request: FileRequest) -> str | None:
    """Who asks, by name; None where they may not."""
    token = (request.header("authorization") or "").removeprefix("Bearer ").encode()
    name = next((name for name, each in TOKENS.items() if hmac.compare_digest(each.encode(), token)), None)
    if name is None or action == "list":
        return None
    if action == "download" and request.id is not None and store.file(request.id).owner != name:
        return None
    return name


policy = Policy(authorize=authorize, max_upload_bytes=10 << 30, max_bytes_per_identity=100 << 30)
os.makedirs(KEEP, exist_ok=True)
store = FileStore(f"file://{KEEP}/files", f"sqlite:///{KEEP}/files.sqlite3", policy=policy)
store.start()
archiver = Archiver(policy, files=store)
routes = falcon.asgi.App()
routes.add_route("/files", AsyncFilesResource(archiver))
routes.add_route("/files/{id}", AsyncFileResource(archiver))
routes.add_route("/uploads", AsyncTusResource(archiver))
routes.add_route("/uploads/{id}", AsyncTusResource(archiver))
app = ExpectContinue(routes)  # so that a refusal comes before the body, and a client that sends none is not waited for
