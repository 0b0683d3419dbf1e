"""An upstream as a process of its own: any path is a file of 20 KiB, and each answer takes 50 ms.

Prints its port. ``GET /most`` tells how many requests it was answering at once at most.
"""

from __future__ import annotations

import asyncio

SECONDS = 0.05
BODY = bytes(range(256)) * 80


class _Upstream:
    now = most = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(request))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        if request.startswith(b"GET /most "):
            told = b"%d" % self.most
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(SECONDS)
        self.now -= 1
        head = b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: %d\r\n\r\n' % len(BODY)
        return head if request.startswith(b"HEAD ") else head + BODY


async def _main() -> None:
    server = await asyncio.start_server(_Upstream().serve, "127.0.0.1", 0, backlog=128)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
