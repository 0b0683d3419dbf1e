"""aiohttp on both sides, and the standard library's zipfile writing into what is sent next.

The rule of this file: what one writes without any archive library.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from aiohttp import web

from bench.programs.given import CHUNK, Given, read_jobs

__all__ = ["make"]

_JOBS = read_jobs()
_SESSION = web.AppKey("session", aiohttp.ClientSession)


class _Sink(io.RawIOBase):
    """Keeps what zipfile writes until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


async def _pieces(app: web.Application, member: Given, local: bool) -> AsyncIterator[bytes]:
    if local:
        with Path(member.path).open("rb") as file:
            while piece := await asyncio.to_thread(file.read, CHUNK):
                yield piece
    else:
        async with app[_SESSION].get(member.url) as response:
            response.raise_for_status()
            async for piece in response.content.iter_chunked(CHUNK):
                yield piece


async def _archive(request: web.Request) -> web.StreamResponse:
    job = _JOBS[request.match_info["name"]]
    response = web.StreamResponse(headers={"Content-Type": "application/zip"})
    await response.prepare(request)
    sink = _Sink()
    method = zipfile.ZIP_DEFLATED if job.compress == "deflate" else zipfile.ZIP_STORED
    with zipfile.ZipFile(sink, "w", method, compresslevel=6) as archive:
        for member in job.members:
            with archive.open(zipfile.ZipInfo(member.name) if method == 0 else member.name, "w") as entry:
                async for piece in _pieces(request.app, member, job.local):
                    entry.write(piece)
                    if ready := sink.take():
                        await response.write(ready)
    await response.write(sink.take())
    await response.write_eof()
    return response


async def _session(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession() as app[_SESSION]:
        yield


def make(argv: list[str]) -> web.Application:
    """What ``python -m aiohttp.web`` calls."""
    app = web.Application()
    app.cleanup_ctx.append(_session)
    app.router.add_get("/{name}.zip", _archive)
    return app
