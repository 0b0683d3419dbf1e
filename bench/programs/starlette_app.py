"""Starlette's StreamingResponse with stream-zip's asynchronous side, and httpx for upstreams.

The rule of this file: as the three libraries' documentation puts them together.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from stream_zip import async_stream_zip

from bench.programs.fields import stream_zip_fields
from bench.programs.given import CHUNK, Job, read_jobs

__all__ = ["asgi"]

_JOBS = read_jobs()
_client = httpx.AsyncClient(timeout=60, trust_env=False)


async def _file(path: str) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(CHUNK):
            yield piece


async def _body(url: str) -> AsyncIterator[bytes]:
    async with _client.stream("GET", url) as response:
        response.raise_for_status()
        async for piece in response.aiter_raw(CHUNK):
            yield piece


async def _members(job: Job) -> AsyncIterator[Any]:
    for member in job.members:
        yield (*stream_zip_fields(job, member), _file(member.path) if job.local else _body(member.url))


async def _archive(request: Request) -> StreamingResponse:
    job = _JOBS[request.path_params["name"]]
    pieces = async_stream_zip(_members(job), get_compressobj=lambda: zlib.compressobj(wbits=-zlib.MAX_WBITS, level=6))
    return StreamingResponse(pieces, media_type="application/zip")


asgi = Starlette(routes=[Route("/{name}.zip", _archive)])
