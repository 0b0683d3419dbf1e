"""One who uploads: a file sent as fast as it is taken, in one request.

The rule of this file: as ``clients``; and what is sent lies in the page cache and goes out by sendfile, so that the
client's core is never what is measured.
"""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from bench.clients import Broken
from bench.contenders import Takes

__all__ = ["Upload", "upload"]

_LOCATION = re.compile(rb"\r\nlocation: *([^\r\n]+)", re.IGNORECASE)
# What a service of each kind is sent, besides Host and Content-Length.
_HEADS: dict[Takes, str] = {
    "post": "POST /files HTTP/1.1\r\nContent-Type: application/octet-stream\r\n"
    'Content-Disposition: attachment; filename="{name}"\r\n',
    "put": "PUT {path} HTTP/1.1\r\n",
    "tus": "POST /files HTTP/1.1\r\nTus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\n"
    "Upload-Length: {size}\r\n",
}


class Upload(NamedTuple):
    path: str  # to get it back by
    bytes: int
    seconds: float  # until the answer


def upload(port: int, takes: Takes, file: Path, *, seconds: float = 300.0) -> Upload:
    """Send a file to a service on 127.0.0.1.

    :raises Broken: another answer than that it is kept.
    :raises OSError: the connection failed, or nothing went or came for ``seconds``.
    """
    size = file.stat().st_size
    path = f"/files/{file.parent.name}-{file.name}"
    head = _HEADS[takes].format(name=file.name, path=path, size=size)
    with socket.create_connection(("127.0.0.1", port), seconds) as connection, file.open("rb") as content:
        began = time.perf_counter()
        connection.sendall(f"{head}Host: bench\r\nContent-Length: {size}\r\n\r\n".encode())
        connection.sendfile(content)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
        took = time.perf_counter() - began
    if not re.match(rb"HTTP/1.1 20[14] ", answer):
        raise Broken(f"not kept: {answer[:300]!r}")
    if takes == "put":
        return Upload(path, size, took)
    found = _LOCATION.search(answer.partition(b"\r\n\r\n")[0] + b"\r\n")
    if found is None:
        raise Broken(f"kept, and not said where: {answer[:300]!r}")
    return Upload(urlsplit(found[1].decode()).path, size, took)
