"""zipstream-ng and stream-zip in Falcon, for WSGI and ASGI: ``BENCH_LIBRARY`` says which.

The rule of this file: a length is told wherever the library can tell it.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import falcon
import falcon.asgi

from bench.programs.fields import stream_zip_fields
from bench.programs.given import CHUNK, Job, body_reader, read_jobs

__all__ = ["asgi", "wsgi"]

_JOBS = read_jobs()
_body = body_reader()


def _file(path: str) -> Iterator[bytes]:
    with Path(path).open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece


def _zipstream(job: Job) -> tuple[Iterator[bytes], int | None]:
    from zipstream import ZIP_DEFLATED, ZIP_STORED, ZipStream

    deflate = job.compress == "deflate"
    sized = not deflate
    archive = ZipStream(
        compress_type=ZIP_DEFLATED if deflate else ZIP_STORED, compress_level=6 if deflate else None, sized=sized
    )
    for member in job.members:
        if job.local:
            archive.add_path(member.path, member.name)
        else:
            archive.add(_body(member.url), member.name, size=member.size)
    return iter(archive), len(archive) if sized else None


def _stream_zip(job: Job) -> tuple[Iterator[bytes], int | None]:
    from stream_zip import stream_zip

    members = (
        (*stream_zip_fields(job, member), _file(member.path) if job.local else _body(member.url))
        for member in job.members
    )
    return iter(stream_zip(members, get_compressobj=lambda: zlib.compressobj(wbits=-zlib.MAX_WBITS, level=6))), None


_make = {"zipstream-ng": _zipstream, "stream-zip": _stream_zip}[os.environ["BENCH_LIBRARY"]]


class Archive:
    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        pieces, length = _make(_JOBS[name])
        resp.content_type = "application/zip"
        if length is None:
            resp.stream = pieces
        else:
            resp.set_stream(pieces, length)


class AsyncArchive:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        pieces, length = await asyncio.to_thread(_make, _JOBS[name])
        resp.content_type = "application/zip"
        if length is None:
            resp.stream = _hop(pieces)
        else:
            resp.set_stream(_hop(pieces), length)


async def _hop(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """A thread for each piece, as Starlette does it too: the event loop must not wait for a file or an upstream."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


wsgi = falcon.App()
wsgi.add_route("/{name}.zip", Archive())
asgi = falcon.asgi.App()
asgi.add_route("/{name}.zip", AsyncArchive())
