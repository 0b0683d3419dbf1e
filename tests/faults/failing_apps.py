"""Apps whose members fail, for servers to run: ``wsgi`` and ``asgi``, each behind its middleware.

The rule of this file: what a path does stands in its name. The log goes to the server's output, from INFO on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from streamware import Archiver, Policy
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware

TEXT = b"hello\n" * 1000
PIECE = bytes(64 * 1024)
PIECES = 1600  # more than any server takes in ahead of its client
ANNOUNCED = PIECES * len(PIECE)

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", force=True)


def _answer(path: str) -> tuple[list[tuple[str, str]], Iterator[bytes]]:
    if path == "/breaks":
        return [("Content-Length", str(ANNOUNCED)), ("ETag", '"1"')], _breaking()
    if path == "/long":
        return [("Content-Length", str(ANNOUNCED)), ("ETag", '"1"')], iter([PIECE] * PIECES)
    if path == "/unmeasured":
        return [("ETag", '"1"')], iter([TEXT])
    return [("Content-Length", str(len(TEXT))), ("ETag", '"1"')], iter([TEXT])


def _breaking() -> Iterator[bytes]:
    yield PIECE * 8
    raise ConnectionResetError("as an upstream's would be")


def _wsgi(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    headers, pieces = _answer(environ["PATH_INFO"])
    start_response("200 OK", headers)
    return pieces


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    headers, pieces = _answer(scope["path"])
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


_archiver = Archiver(Policy(allow_unframed=os.environ.get("ALLOW_UNFRAMED") == "1"))
wsgi = BundleMiddleware(_wsgi, archiver=_archiver)
asgi = AsyncBundleMiddleware(_asgi, archiver=_archiver)
