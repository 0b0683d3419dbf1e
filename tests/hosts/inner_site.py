"""A small site for the middlewares to wrap, as a WSGI and as an ASGI app, with a diary of what was asked of it.

The rule of this file: it knows nothing of streamware. ``GET /diary`` gives what has happened as JSON, and forgets it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

__all__ = ["BIG", "FILES", "MODIFIED", "asgi_site", "lines", "wsgi_site"]

MODIFIED = "Tue, 05 Nov 2024 06:07:08 GMT"
BIG = bytes(range(256)) * 4096 * 3  # 3 MiB
FILES: dict[str, bytes] = {
    "/a.txt": b"the first\n" * 1000,
    "/b.bin": bytes(range(256)) * 1000,
    "/dir/c d.txt": b"a space\n",
    "/caf\u00e9": b"an accent\n",
    "/big": BIG,
    "/empty": b"",
}
PIECE = 32 * 1024

Headers = list[tuple[str, str]]


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Answer:
    status: int
    headers: Headers
    pieces: Iterable[bytes] = ()
    pause: float = 0.0


@dataclass
class Diary:
    lock: threading.Lock = field(default_factory=threading.Lock)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def note(self, what: str, request: Request, **more: Any) -> None:
        with self.lock:
            self.entries.append({"what": what, "path": request.path, "method": request.method, **more})

    def take(self) -> bytes:
        with self.lock:
            entries, self.entries = self.entries, []
        return json.dumps(entries).encode()


diary = Diary()


def lines(*members: tuple[str, str], crc: bool = True) -> bytes:
    """A file list with sizes, and checksums if wanted, of (path, name)."""
    made = []
    for path, name in members:
        if path == "@directory":
            made.append(f"0 0 @directory {name}")
        else:
            data = FILES[path]
            made.append(f"{zlib.crc32(data):08x} {len(data)} {path} {name}" if crc else f"- {len(data)} {path} {name}")
    return "\r\n".join(made).encode()


def answer(request: Request) -> Answer:
    if request.path == "/diary":
        return Answer(200, [("Content-Type", "application/json")], [diary.take()])
    diary.note("asked", request, headers=request.headers)
    if request.path in FILES:
        return _file(request, FILES[request.path])
    handler = _PAGES.get(request.path)
    return Answer(404, [("Content-Length", "4")], [b"none"]) if handler is None else handler(request)


def _pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), PIECE):
        yield data[at : at + PIECE]


def _file(request: Request, data: bytes) -> Answer:
    tag = f'"{zlib.crc32(data):08x}"'
    headers = [("ETag", tag), ("Last-Modified", MODIFIED), ("Content-Type", "text/plain")]
    asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", request.headers.get("range", ""))
    if request.headers.get("if-none-match") == tag:
        return Answer(304, headers)
    if asked and request.headers.get("if-range", tag) == tag:
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return Answer(416, [("Content-Range", f"bytes */{len(data)}"), ("Content-Length", "0")])
        content_range = ("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        return Answer(206, [*headers, content_range, ("Content-Length", str(stop - start))], _pieces(data[start:stop]))
    return Answer(200, [*headers, ("Content-Length", str(len(data)))], _pieces(data))


def _secret(request: Request) -> Answer:
    if request.headers.get("cookie") != "session=s3cret" and request.headers.get("authorization") != "Bearer t0ken":
        return Answer(403, [("Content-Length", "0")])
    return Answer(200, [("Content-Length", "6")], [b"secret"])


def _vault(request: Request) -> Answer:
    """A file with all that a file has, for those who may have it."""
    return _file(request, FILES["/b.bin"]) if _secret(request).status == 200 else Answer(403, [("Content-Length", "0")])


def _no_head(request: Request) -> Answer:
    if request.method == "HEAD":
        return Answer(405, [("Allow", "GET"), ("Content-Length", "0")])
    return Answer(200, [("Content-Length", "7")], [b"no head"])


def _head_of_nothing(request: Request) -> Answer:
    return Answer(200, [("Content-Length", "0" if request.method == "HEAD" else "7")], [b"7 bytes"])


def _unranged(request: Request) -> Answer:
    return Answer(200, [("ETag", '"u"'), ("Content-Length", str(len(BIG)))], _pieces(BIG))


def _echo(request: Request) -> Answer:
    data = json.dumps({"headers": request.headers, "query": request.query}).encode()
    return Answer(200, [("Content-Length", str(len(data)))], [data])


def _lengthed(length: int, data: bytes) -> Callable[[Request], Answer]:
    return lambda request: Answer(200, [("Content-Length", str(length))], _pieces(data))


def _fails_late(request: Request) -> Answer:
    def pieces() -> Iterator[bytes]:
        yield bytes(100_000)
        raise RuntimeError("the disk is on fire")

    return Answer(200, [("Content-Length", "200000")], pieces())


def _fails(request: Request) -> Answer:
    raise RuntimeError("the site is broken")


def _endless(request: Request) -> Answer:
    def pieces() -> Iterator[bytes]:
        while True:
            yield bytes(PIECE)

    return Answer(200, [("Content-Length", str(1 << 40))], pieces(), pause=0.01)


def _changing(request: Request) -> Answer:
    with diary.lock:
        _changing.version += 1  # type: ignore[attr-defined]
    tag = f'"v{_changing.version}"'  # type: ignore[attr-defined]
    return Answer(200, [("ETag", tag), ("Content-Length", "70000")], [bytes(70000)])


_changing.version = 0  # type: ignore[attr-defined]


def _edition(request: Request) -> Answer:
    """A file that stays the same until ``/next-edition`` is asked for."""
    return _file(request, FILES["/b.bin"] + str(_edition.number).encode())  # type: ignore[attr-defined]


_edition.number = 0  # type: ignore[attr-defined]


def _next_edition(request: Request) -> Answer:
    _edition.number += 1  # type: ignore[attr-defined]
    return Answer(204, [])


def _list(request: Request) -> Answer:
    """A list as the query wants it: ``body`` and any header; by default two files with checksums and a directory."""
    headers = [("X-Archive-Files", request.query.get("as", ["zip"])[0])]
    headers += [(name, value) for pair in request.query.get("h", []) for name, _, value in [pair.partition(":")]]
    status = int(request.query.get("status", ["200"])[0])
    default = lines(("/a.txt", "one/a.txt"), ("/b.bin", "b.bin"), ("@directory", "empty"))
    body = request.query["body"][0].encode() if "body" in request.query else request.body or default
    return Answer(status, [*headers, ("Content-Length", str(len(body)))], _pieces(body))


def _fussy_list(request: Request) -> Answer:
    """A list served like a file: with validators, ranges, conditions, and gzip for who takes it."""
    body = lines(("/a.txt", "a.txt"), ("/b.bin", "b.bin"))
    shown = _file(request, body)
    if "gzip" in request.headers.get("accept-encoding", "") and shown.status == 200:
        coded = gzip.compress(body)
        shown = Answer(200, [("Content-Encoding", "gzip"), ("Content-Length", str(len(coded)))], [coded])
    shown.headers.append(("X-Archive-Files", "zip"))
    return shown


_PAGES: dict[str, Callable[[Request], Answer]] = {
    "/changing": _changing,
    "/coded": lambda request: Answer(200, [("Content-Encoding", "gzip")], [gzip.compress(b"coded")]),
    "/echo": _echo,
    "/edition": _edition,
    "/endless": _endless,
    "/fails": _fails,
    "/fails-late": _fails_late,
    "/fussy-list": _fussy_list,
    "/gone": lambda request: Answer(410, [("Content-Length", "0")]),
    "/head-of-nothing": _head_of_nothing,
    "/list": _list,
    "/long": _lengthed(100_000, bytes(100_001)),
    "/moved": lambda request: Answer(302, [("Location", "/a.txt"), ("Content-Length", "0")]),
    "/next-edition": _next_edition,
    "/no-head": _no_head,
    "/page": lambda request: Answer(
        200, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Length", "4")], [b"page"]
    ),
    "/secret": _secret,
    "/short": _lengthed(100_000, bytes(99_999)),
    "/unmeasured": lambda request: Answer(200, [("ETag", '"un"')], _pieces(BIG)),
    "/unranged": _unranged,
    "/vault": _vault,
}


# --- WSGI --------------------------------------------------------------------------------------------------------


class _Pieces:
    """The body under WSGI; notes that it was closed."""

    def __init__(self, request: Request, shown: Answer) -> None:
        self._request = request
        self._pieces = iter(shown.pieces)
        self._wait = threading.Event()
        self._pause = shown.pause
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        assert not self.closed
        if self._pause:
            self._wait.wait(self._pause)
        return next(self._pieces)

    def close(self) -> None:
        diary.note("closed", self._request)
        self.closed = True


def wsgi_site(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    request = Request(
        environ["REQUEST_METHOD"],
        environ["PATH_INFO"].encode("latin-1").decode(),
        parse_qs(environ["QUERY_STRING"]),
        {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")},
        environ["wsgi.input"].read(length) if length else b"",
    )
    shown = answer(request)
    start_response(f"{shown.status} Whatever", shown.headers)
    if request.method == "HEAD":
        shown.pieces = ()
    return _Pieces(request, shown)


# --- ASGI --------------------------------------------------------------------------------------------------------


async def asgi_site(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message.get("body", b"")
    request = Request(
        scope["method"],
        scope["path"],
        parse_qs(scope["query_string"].decode()),
        {k.decode(): v.decode("latin-1") for k, v in scope["headers"]},
        body,
    )
    shown = answer(request)
    try:
        headers = [(k.lower().encode(), v.encode()) for k, v in shown.headers]
        await send({"type": "http.response.start", "status": shown.status, "headers": headers})
        if request.method != "HEAD":
            for piece in shown.pieces:
                if shown.pause:
                    await asyncio.sleep(shown.pause)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
    finally:
        diary.note("closed", request)
