"""The wrapped apps of the resume trials: a site with files of its own, and lists of members that become archives.

``/lists/NAME`` answers with a manifest that was put there, as an app that uses ``X-Archive-Files`` does. Its members
are URLs, files below ``/tree/`` that the middleware takes from the disk, and sub-requests: ``/inner/PATH`` honours
Range, ``/whole/PATH`` does not, and ``/weak/PATH`` has a weak validator.

The rule of this file: the site itself knows nothing of streamware. Under gunicorn and uvicorn it is set up from the
variables INNER, ROOT, LISTS (folders), UPSTREAM (a URL) and LEDGER (a URL, or empty for memory).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import parse_qs, unquote

from streamware import Archiver, Policy
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware
from streamware.model import File, Member

__all__ = ["Site", "local_files", "make_asgi", "make_wsgi"]

_PIECE = 48 * 1024  # no divisor of anything that matters
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)\Z")


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    pieces: Iterable[bytes]


class Site:
    """The wrapped app, in both flavours. It closes a file when its last piece was taken or nobody wants more."""

    def __init__(self, inner: Path, lists: Path) -> None:
        self._inner = inner
        self._lists = lists

    def answer(self, method: str, path: str, query: str, asked: Callable[[str], str | None]) -> Answer:
        _, top, rest = path.split("/", 2) if path.count("/") > 1 else ("", path, "")
        if top == "lists" and (self._lists / rest).is_file():
            data = (self._lists / rest).read_bytes()
            form = parse_qs(query).get("as", ["zip"])[0]
            head = [("Content-Type", "application/json"), ("X-Archive-Files", form)]
            return Answer(200, [*head, ("Content-Length", str(len(data)))], [] if method == "HEAD" else [data])
        if top in ("inner", "whole", "weak") and (self._inner / rest).is_file():
            return self._file(method, top, self._inner / rest, asked)
        return Answer(404, [("Content-Length", "5")], [] if method == "HEAD" else [b"none\n"])

    def _file(self, method: str, top: str, path: Path, asked: Callable[[str], str | None]) -> Answer:
        file = path.open("rb")  # what the head says is said of this very version
        found = os.fstat(file.fileno())
        tag = f'{"W/" if top == "weak" else ""}"{found.st_mtime_ns:x}-{found.st_size:x}"'
        wanted = None if top == "whole" else asked("range")
        headers = [("ETag", tag), ("Last-Modified", formatdate(found.st_mtime, usegmt=True))]
        status, start, stop = 200, 0, found.st_size
        match = _RANGE.match(wanted or "")
        if match and asked("if-range") in (None, tag) and int(match[1]) < found.st_size:
            status, start = 206, int(match[1])
            stop = min(int(match[2] or found.st_size) + 1, found.st_size)
            headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{found.st_size}"))
        headers.append(("Content-Length", str(stop - start)))
        if method == "HEAD":
            file.close()
            return Answer(status, headers, [])
        return Answer(status, headers, _Pieces(file, start, stop))

    def wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].encode("latin-1").decode()
        shown = self.answer(
            method, path, environ["QUERY_STRING"], lambda n: environ.get(f"HTTP_{n.upper().replace('-', '_')}")
        )
        start_response(f"{shown.status} Whatever", shown.headers)
        return shown.pieces

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        asked = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        shown = self.answer(scope["method"], scope["path"], scope["query_string"].decode(), asked.get)
        headers = [(name.lower().encode(), value.encode()) for name, value in shown.headers]
        await send({"type": "http.response.start", "status": shown.status, "headers": headers})
        try:
            for piece in shown.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})
        finally:
            if isinstance(shown.pieces, _Pieces):
                shown.pieces.close()


class _Pieces:
    """Part of an open file, which it closes."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self._file = file
        self._left = stop - start
        file.seek(start)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self._file.read(min(_PIECE, self._left))
        if not piece:
            self.close()
            raise StopIteration
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        self._file.close()


def local_files(root: Path) -> Callable[[str], list[Member] | None]:
    """Files below ``/tree/`` without asking the app, as ``streamware serve`` does it."""

    def local(href: str) -> list[Member] | None:
        if not href.startswith("/tree/"):
            return None
        path = unquote(href.removeprefix("/tree/"))
        return [Member(path, File(path, root=str(root)))]

    return local


def make_wsgi(site: Site, root: Path, archiver: Archiver) -> BundleMiddleware:
    return BundleMiddleware(site.wsgi, archiver=archiver, local=local_files(root))


def make_asgi(site: Site, root: Path, archiver: Archiver) -> AsyncBundleMiddleware:
    return AsyncBundleMiddleware(site.asgi, archiver=archiver, local=local_files(root))


def wsgi() -> BundleMiddleware:
    return make_wsgi(*_settings())


def asgi() -> AsyncBundleMiddleware:
    return make_asgi(*_settings())


def _settings() -> tuple[Site, Path, Archiver]:
    archiver = Archiver(Policy(allow=(os.environ["UPSTREAM"],)), os.environ.get("LEDGER") or None)
    return Site(Path(os.environ["INNER"]), Path(os.environ["LISTS"])), Path(os.environ["ROOT"]), archiver
