"""A file service of the usual kind: aiohttp, whose chunks go into aiofiles and come out of there again.

The rule of this file: what one writes with both libraries' documentation at hand. BENCH_DIGEST adds a checksum of what
is taken in, BENCH_CHUNK makes the pieces larger, and BENCH_SEND=FileResponse hands files out as aiohttp itself does.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from uuid import uuid4

import aiofiles
from aiohttp import web

from bench.programs.given import CHUNK

__all__ = ["make"]

_CHUNK = int(os.environ.get("BENCH_CHUNK") or CHUNK)  # bytes at most
_FOLDER = Path(os.environ["BENCH_STORE"])
_DIGEST = os.environ.get("BENCH_DIGEST")
_FILE_RESPONSE = os.environ.get("BENCH_SEND") == "FileResponse"


async def _take(request: web.Request) -> web.Response:
    name = uuid4().hex
    digest = hashlib.new(_DIGEST) if _DIGEST else None
    async with aiofiles.open(_FOLDER / name, "wb") as file:
        async for chunk in request.content.iter_chunked(_CHUNK):
            if digest is not None:
                digest.update(chunk)
            await file.write(chunk)
    told = {"id": name, "digest": digest.hexdigest() if digest else None}
    return web.json_response(told, status=201, headers={"Location": f"/files/{name}"})


async def _give(request: web.Request) -> web.StreamResponse:
    path = _FOLDER / request.match_info["name"]
    if _FILE_RESPONSE:
        return web.FileResponse(path)
    response = web.StreamResponse(headers={"Content-Length": str(path.stat().st_size)})
    await response.prepare(request)
    async with aiofiles.open(path, "rb") as file:
        while chunk := await file.read(_CHUNK):
            await response.write(chunk)
    await response.write_eof()
    return response


def make(argv: list[str]) -> web.Application:
    """What ``python -m aiohttp.web`` calls."""
    app = web.Application()
    app.router.add_post("/files", _take)
    app.router.add_get("/files/{name:[0-9a-f]{32}}", _give)
    return app
