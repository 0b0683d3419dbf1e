"""An upstream that lets every answer wait: ``python -m bench.programs.late PORT FOLDER SECONDS``.

The rule of this file: it costs so little that what a contender waits for is the delay alone.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

__all__ = ["main"]


class _Late(asyncio.Protocol):
    """Answers each GET after the delay; a connection's next request is read only then, as clients expect."""

    def __init__(self, files: dict[bytes, bytes], seconds: float) -> None:
        self._files = files
        self._seconds = seconds
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        while b"\r\n\r\n" in self._got:
            request, _, self._got = self._got.partition(b"\r\n\r\n")
            method, target, _ = request.split(b" ", 2)
            asyncio.get_running_loop().call_later(self._seconds, self._answer, method, target)

    def _answer(self, method: bytes, name: bytes) -> None:
        content = self._files.get(name)
        status = b"404 Not Found" if content is None else b"200 OK"
        content = content or b""
        head = b'HTTP/1.1 %b\r\nContent-Length: %d\r\nETag: "%b"\r\n\r\n' % (status, len(content), name[1:])
        if not self._transport.is_closing():
            self._transport.write(head if method == b"HEAD" else head + content)


async def _serve(port: int, folder: Path, seconds: float) -> None:
    files = {f"/{path.relative_to(folder)}".encode(): path.read_bytes() for path in folder.glob("*/*.bin")}
    server = await asyncio.get_running_loop().create_server(
        lambda: _Late(files, seconds), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


def main() -> None:
    port, folder, seconds = sys.argv[1:]
    asyncio.run(_serve(int(port), Path(folder), float(seconds)))


if __name__ == "__main__":
    main()
