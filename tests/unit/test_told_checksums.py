"""X-Archive-Crc32: what an app tells of its members' checksums, through both middlewares."""

from __future__ import annotations

import asyncio
import io
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from streamware import Archiver
from streamware.errors import ChecksumMismatch, StreamwareError
from streamware.inner import settle
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware
from streamware.model import Facts
from streamware.plan import Window

CONTENT = bytes(range(256)) * 1000  # more than is read along whole
SMALL = b"a few words"
Answer = tuple[int, dict[str, str], bytes]
Get = Callable[..., Answer]

# What each path says of its content.
TOLD = {
    "/right": f"{zlib.crc32(CONTENT):08x}",
    "/upper": f"{zlib.crc32(CONTENT):08X}",
    "/wrong": "00000001",
    "/malformed": "0x1",
    "/small": f"{zlib.crc32(SMALL):08x}",
    "/small-wrong": "00000001",
    "/empty-wrong": "00000001",
    "/empty": "00000000",
}


def content_of(path: str) -> bytes:
    return b"" if path.startswith("/empty") else SMALL if path.startswith("/small") else CONTENT


def answer_to(method: str, path: str, ranged: str | None) -> tuple[int, list[tuple[str, str]], bytes]:
    data = content_of(path)
    headers = [("ETag", f'"{path}"'), ("X-Archive-Crc32", TOLD[path])]
    status = 200
    if ranged is not None:
        start, _, last = ranged.removeprefix("bytes=").partition("-")
        low, high = int(start), int(last) + 1 if last else len(data)
        headers.append(("Content-Range", f"bytes {low}-{high - 1}/{len(data)}"))
        status, data = 206, data[low:high]
    headers.append(("Content-Length", str(len(data))))
    return status, headers, b"" if method == "HEAD" else data


def wsgi(asked: list[tuple[str, str, str | None]]) -> Get:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE")))
        status, headers, body = answer_to(*asked[-1])
        start_response(f"{status} OK", headers)
        return [body]

    wrapped = BundleMiddleware(app, path="/bundle", archiver=Archiver())

    def get(query: str, ranged: str | None = None) -> Answer:
        environ: dict[str, Any] = {"PATH_INFO": "/bundle", "QUERY_STRING": query, "wsgi.multithread": True}
        setup_testing_defaults(environ)
        if ranged is not None:
            environ["HTTP_RANGE"] = ranged
        head: list[Any] = []
        result = wrapped(environ, lambda status, headers, exc_info=None: head.extend((status, headers)))  # type: ignore
        try:
            body = b"".join(result)
        finally:
            result.close()  # type: ignore[attr-defined]
        return int(head[0][:3]), {name.lower(): value for name, value in head[1]}, body

    return get


def asgi(asked: list[tuple[str, str, str | None]]) -> Get:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        ranged = dict(scope["headers"]).get(b"range")
        asked.append((scope["method"], scope["path"], None if ranged is None else ranged.decode()))
        status, headers, body = answer_to(*asked[-1])
        coded = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": coded})
        await send({"type": "http.response.body", "body": body})

    wrapped = AsyncBundleMiddleware(app, path="/bundle", archiver=Archiver())  # type: ignore[arg-type]

    async def ask(query: str, ranged: str | None) -> Answer:
        headers = [(b"host", b"app")] + ([] if ranged is None else [(b"range", ranged.encode())])
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/bundle"}
        scope |= {"raw_path": b"/bundle", "query_string": query.encode(), "headers": headers}  # type: ignore[dict-item]
        messages: list[Any] = []

        async def receive() -> dict[str, Any]:
            if messages:
                await asyncio.Event().wait()  # the client stays
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        await wrapped(scope, receive, send)  # type: ignore[arg-type]
        head = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        return messages[0]["status"], head, b"".join(message.get("body", b"") for message in messages)

    return lambda query, ranged=None: asyncio.run(ask(query, ranged))


@pytest.fixture
def asked() -> list[tuple[str, str, str | None]]:
    return []


@pytest.fixture(params=[wsgi, asgi])
def get(request: pytest.FixtureRequest, asked: list[tuple[str, str, str | None]]) -> Get:
    made: Get = request.param(asked)
    return made


def test_a_member_whose_checksum_is_told_needs_no_descriptor(get: Get) -> None:
    status, headers, data = get("path=/right&path=/upper&path=/small&path=/empty&path=/malformed")
    assert status == 200
    assert headers["content-length"] == str(len(data))
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None
        for info in opened.infolist():
            assert opened.read(info) == content_of(f"/{info.filename}")
            assert bool(info.flag_bits & 8) is (info.filename == "malformed")


def test_it_is_resumed_without_being_read(get: Get, asked: list[tuple[str, str, str | None]]) -> None:
    data = get("path=/right&path=/upper")[2]
    start = len(data) - 140  # behind all content
    asked.clear()
    status, headers, rest = get("path=/right&path=/upper", f"bytes={start}-")
    assert (status, rest) == (206, data[start:])
    assert headers["content-range"] == f"bytes {start}-{len(data) - 1}/{len(data)}"
    assert {method for method, _, _ in asked} == {"HEAD"}
    start = len(CONTENT) - 1000
    asked.clear()
    assert get("path=/right&path=/upper", f"bytes={start}-")[2] == data[start:]
    assert not [ranged for method, path, ranged in asked if method == "GET" and path == "/right" and ranged is None]


@pytest.mark.parametrize("path", ["/wrong", "/small-wrong"])
def test_a_wrong_one_breaks_the_download(get: Get, path: str) -> None:
    with pytest.raises(ChecksumMismatch):
        get(f"path=/right&path={path}")


def test_a_wrong_one_of_nothing_is_told_at_once(get: Get) -> None:
    status, headers, _ = get("path=/right&path=/empty-wrong")
    assert status == 502
    assert headers["content-type"] == "application/problem+json"


# --- the head alone ----------------------------------------------------------------------------------------------


def told(status: int, value: str, **fields: str) -> int | None:
    headers = [("Content-Length", "10"), ("X-Archive-Crc32", value)]
    headers += [(name.replace("_", "-"), field) for name, field in fields.items()]
    return settle(status, headers, asked=Window(0, 10) if status == 206 else None).facts.crc32


def test_what_counts() -> None:
    assert told(200, "0000abCD") == 0xABCD
    assert told(200, "00000000") == 0
    for wrong in ("", "abcd", "0x00abcd", "0000abcd0", "0000abcg", "\u0660" * 8, "0000abcd, 0000abcd", "-000abcd"):
        assert told(200, wrong) is None
    part = "bytes 0-9/20"
    assert told(206, "0000abcd", Content_Range=part, ETag='"v"') == 0xABCD
    assert told(206, "0000abcd", Content_Range=part, ETag='W/"v"') is None
    assert told(206, "0000abcd", Content_Range=part) is None


def test_one_that_changes_is_another_version() -> None:
    headers = [("Content-Length", "10"), ("ETag", '"v"'), ("X-Archive-Crc32", "00000002")]
    with pytest.raises(StreamwareError) as caught:
        settle(200, headers, pinned=Facts(size=10, validator='"v"', crc32=1))
    assert caught.value.kind == "member-changed"
    assert settle(200, headers[:2], pinned=Facts(size=10, validator='"v"', crc32=1)).facts.crc32 is None
