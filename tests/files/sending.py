"""An upload client that hides nothing: bytes of its own on a socket of its own, stopped at any of them.

The rule of this file: what goes out is exactly what is told; every wait has an end; nothing is retried.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import socket
import struct
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = [
    *("Answer", "Line", "Tus", "Unavailable", "ask", "available", "chunked", "content", "digest", "form"),
    *("listed", "names", "post", "whole"),
]

SECONDS = 30.0
_BOUNDARY = "a-line-that-no-file-holds"


def content(seed: object, size: int) -> bytes:
    """Bytes that no compressor shortens, the same for one seed."""
    return random.Random(str(seed)).randbytes(size)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Answer:
    """A response, read to its end. Names in lower case; repeated headers are joined."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    @property
    def problem(self) -> str:
        """The last part of a problem's type."""
        assert self.headers["content-type"] == "application/problem+json", (self.status, self.headers, self.body[:500])
        told = self.document
        assert told["status"] == self.status
        return str(told["type"]).rpartition("/")[2].rpartition(":")[2]


class _WholeLines:
    """A head that breaks off is none: the library would take what there is of it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(limit)
        if not line.endswith(b"\n"):
            raise http.client.IncompleteRead(line)
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Unavailable(OSError):
    """The service has answered that it cannot do anything at the moment."""


def available(answer: Answer) -> Answer:
    """:raises Unavailable: the answer says so."""
    if answer.status == 503:
        raise Unavailable(answer.problem)
    return answer


class Line:
    """One connection. Whoever opens it closes it, by ``close`` (in order) or ``reset`` (as a killed process)."""

    def __init__(self, port: int, seconds: float = SECONDS) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def head(self, method: str, path: str, headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()) -> None:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        lines = [f"{method} {path} HTTP/1.1", "Host: files.test", *(f"{k}: {v}" for k, v in pairs)]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, method: str = "POST") -> Answer:
        """What comes back. :raises OSError, http.client.HTTPException: nothing whole does."""
        response = http.client.HTTPResponse(self.socket, method=method)
        response.fp = _WholeLines(response.fp)  # type: ignore[assignment]
        try:
            response.begin()
            headers: dict[str, str] = {}
            for name, value in response.getheaders():
                key = name.lower()
                headers[key] = f"{headers[key]}, {value}" if key in headers else value
            return Answer(response.status, headers, response.read())
        finally:
            response.close()

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def ask(
    port: int, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """One request on a connection of its own. An early answer is taken also where the body could not be sent whole."""
    told = dict(headers or {})
    if body is not None and not any(name.lower() in ("content-length", "transfer-encoding") for name in told):
        told["Content-Length"] = str(len(body))
    with Line(port) as line:
        line.head(method, path, {**told, "Connection": "close"})
        if body:
            with suppress(ConnectionError):
                line.send(body)
        return line.answer(method)


def post(port: int, name: str, data: bytes, media_type: str = "application/octet-stream", **headers: str) -> Answer:
    """A raw upload."""
    told = {"Content-Type": media_type, "Content-Disposition": f'attachment; filename="{name}"'}
    told.update((key.replace("_", "-"), value) for key, value in headers.items())
    return ask(port, "POST", "/files", told, data)


def chunked(data: bytes, piece: int = 50_000) -> bytes:
    """A body in the chunked transfer coding, with its last chunk."""
    found = bytearray()
    for at in range(0, len(data), piece):
        part = data[at : at + piece]
        found += b"%x\r\n%b\r\n" % (len(part), part)
    return bytes(found + b"0\r\n\r\n")


def form(files: Sequence[tuple[str, bytes]], fields: Mapping[str, str] | None = None) -> tuple[str, bytes]:
    """The Content-Type and the body of a multipart form."""
    found = bytearray()
    for key, value in (fields or {}).items():
        found += f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
    for name, data in files:
        found += f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'.encode()
        found += b"Content-Type: application/x-test\r\n\r\n" + data + b"\r\n"
    found += f"--{_BOUNDARY}--\r\n".encode()
    return f"multipart/form-data; boundary={_BOUNDARY}", bytes(found)


def listed(port: int) -> Iterator[dict[str, Any]]:
    """All files, page by page."""
    path: str | None = "/files?limit=50"
    while path:
        answer = ask(port, "GET", path, {"Accept": "application/json"})
        assert answer.status == 200, (answer.status, answer.body[:500])
        told = answer.document
        yield from told["files"]
        following = told["next"]
        path = None if following is None else _path(following)


def _path(url: str) -> str:
    at = urlsplit(url)
    return f"{at.path}?{at.query}" if at.query else at.path


def names(port: int) -> list[str]:
    """The names of all files."""
    return [str(file["name"]) for file in listed(port)]


def whole(port: int, path: str) -> bytes:
    """What a file holds, which must be there."""
    answer = ask(port, "GET", path)
    assert answer.status == 200, answer
    assert answer.headers["content-length"] == str(len(answer.body))
    return answer.body


class Tus:
    """A tus client that does one request at a time, to whichever port is named."""

    version: Mapping[str, str] = {"Tus-Resumable": "1.0.0"}

    def create(self, port: int, length: int | None, name: str = "a.bin", body: bytes = b"", **headers: str) -> Answer:
        told = {**self.version, "Upload-Metadata": f"filename {b64encode(name.encode()).decode()}"}
        told["Content-Length"] = str(len(body))
        if length is None:
            told["Upload-Defer-Length"] = "1"
        else:
            told["Upload-Length"] = str(length)
        if body:
            told["Content-Type"] = "application/offset+octet-stream"
        told.update((key.replace("_", "-"), value) for key, value in headers.items())
        return ask(port, "POST", "/files", told, body)

    def offset(self, port: int, path: str) -> int:
        answer = available(ask(port, "HEAD", path, self.version))
        assert answer.status in (200, 204), (answer.status, answer.headers)
        assert answer.headers["cache-control"] == "no-store", answer.headers
        return int(answer.headers["upload-offset"])

    def head(self, path: str, offset: int, length: int | None = None, **headers: str) -> dict[str, str]:
        """The headers of a PATCH."""
        told = {**self.version, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        if length is not None:
            told["Content-Length"] = str(length)
        told.update((key.replace("_", "-"), value) for key, value in headers.items())
        return told

    def patch(self, port: int, path: str, offset: int, data: bytes, **headers: str) -> Answer:
        return ask(port, "PATCH", path, self.head(path, offset, len(data), **headers), data)

    def complete(self, port: int, path: str, data: bytes) -> None:
        """Go on from where the server stands to the end. What is told to be whole is not sent again.

        An earlier request that was given up may reach the server late, and then has it first; as any client, try again.
        """
        for _ in range(5):
            answer = ask(port, "HEAD", path, self.version)
            at = int(answer.headers["upload-offset"])
            more = {"Upload_Length": str(len(data))} if "upload-defer-length" in answer.headers else {}
            if at == len(data) and not more:
                return
            answer = self.patch(port, path, at, data[at:], **more)
            if answer.status not in (409, 423):
                assert answer.status == 204, (answer.status, answer.body[:500])
                assert answer.headers["upload-offset"] == str(len(data))
                return
        raise AssertionError(f"{path} does not get on: {answer}")
