"""Many uploads and downloads at once, from a process of its own.

Run as a program: ``python -m tests.files.load PORT UPLOADS DOWNLOADS SIZE``; prints one JSON object. The rule of this
file: every byte is checked, and what goes wrong is told, not tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections import Counter
from typing import Any

_PIECE = 64 * 1024
_SECONDS = 300.0


def block(size: int) -> bytes:
    return bytes(range(256)) * (size // 256)


async def _exchange(port: int, head: str, body: bytes = b"") -> tuple[int, bytes, str]:
    """Status, the first bytes and the SHA-256 of the answer's body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        writer.write(f"{head}\r\nHost: files.test\r\nConnection: close\r\n\r\n".encode())
        for at in range(0, len(body), _PIECE):
            writer.write(body[at : at + _PIECE])
            await writer.drain()
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        lengths = [int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length:")]
        own, start, left = hashlib.sha256(), b"", lengths[0] if lengths else None
        while left is None or left:
            piece = await reader.read(_PIECE if left is None else min(_PIECE, left))
            if not piece:
                break
            own.update(piece)
            start = start or piece
            left = None if left is None else left - len(piece)
        if left:
            raise OSError(f"{left} bytes are missing")
        return int(lines[0].split()[1]), start, own.hexdigest()
    finally:
        writer.close()


async def _upload(port: int, number: int, data: bytes, sha256: str) -> str:
    head = f"POST /files HTTP/1.1\r\nX-Filename: load-{number}.bin\r\nContent-Length: {len(data)}"
    status, start, _ = await _exchange(port, head, data)
    if status != 201:
        return f"upload {status} {start[:200]!r}"
    told = json.loads(start)
    return "uploaded" if told["sha256"] == sha256 and told["size"] == len(data) else f"upload {told}"


async def _download(port: int, url: str, sha256: str) -> str:
    status, start, own = await _exchange(port, f"GET {url} HTTP/1.1")
    return "downloaded" if (status, own) == (200, sha256) else f"download {status} {start[:200]!r}"


async def _told(doing: Any) -> str:
    try:
        return str(await asyncio.wait_for(doing, _SECONDS))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def main(port: int, uploads: int, downloads: int, size: int) -> dict[str, Any]:
    data = block(size)
    sha256 = hashlib.sha256(data).hexdigest()
    status, start, _ = await _exchange(port, f"POST /files HTTP/1.1\r\nContent-Length: {size}", data)
    assert status == 201, start
    url = json.loads(start)["url"]
    began = time.monotonic()
    outcomes = await asyncio.gather(
        *(_told(_upload(port, n, data, sha256)) for n in range(uploads)),
        *(_told(_download(port, url, sha256)) for _ in range(downloads)),
    )
    seconds = time.monotonic() - began
    return {"outcomes": dict(Counter(outcomes)), "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*map(int, sys.argv[1:])))))
