"""Members that the wrapped app answers, asked before their turn: on which threads, how many at once, and when not."""

from __future__ import annotations

import asyncio
import contextvars
import io
import threading
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from streamware import Archiver, Policy
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware

SMALL = 2000
LARGE = 3_000_000
CALLER = contextvars.ContextVar("CALLER", default="nobody")

ARCHIVER = Archiver(Policy(read_timeout_seconds=5.0))


class Body:
    """An app's answer that notes on which threads it was made, read and closed."""

    def __init__(self, size: int, seen: list[threading.Thread]) -> None:
        self._left = size
        self.seen = seen
        seen.append(threading.current_thread())

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.seen.append(threading.current_thread())
        piece = b"x" * min(self._left, 100_000)
        self._left -= len(piece)
        if not piece:
            raise StopIteration
        return piece

    def close(self) -> None:
        self.seen.append(threading.current_thread())


class App:
    """``/small/N`` and ``/large/N``; GETs of small ones wait for others to be there too, if that may be."""

    def __init__(self, together: int) -> None:
        self.barrier = threading.Barrier(together, timeout=5)
        self.bodies: dict[str, list[threading.Thread]] = {}
        self.callers: set[str] = set()
        self.met = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        size = LARGE if path.startswith("/large") else SMALL
        start_response("200 OK", [("Content-Length", str(size)), ("ETag", '"v"')])
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        self.callers.add(CALLER.get())
        if path.startswith("/small") and self.barrier.parties > 1:
            try:
                self.barrier.wait()
                self.met += 1
            except threading.BrokenBarrierError:
                pass
        return Body(size, self.bodies.setdefault(path, []))


def ask(app: Any, paths: list[str], *, multithread: bool) -> dict[str, int]:
    """The sizes of the members that came."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/bundle",
        "QUERY_STRING": "&".join(f"path={path}" for path in paths) + "&name=b.zip",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "x",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": multithread,
    }
    statuses: list[str] = []
    result = BundleMiddleware(app, path="/bundle", archiver=ARCHIVER)(
        environ, lambda status, headers, exc_info=None: statuses.append(status)
    )
    try:
        data = b"".join(result)
    finally:
        result.close()  # type: ignore[attr-defined]
    assert statuses == ["200 OK"]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {entry.filename: len(archive.read(entry)) for entry in archive.infolist()}


def test_small_members_of_a_wsgi_app_are_asked_for_together_in_the_callers_context() -> None:
    app = App(together=8)
    CALLER.set("somebody")
    got = ask(app, [f"/small/{n}" for n in range(16)], multithread=True)
    assert list(got.values()) == [SMALL] * 16
    assert app.met == 16
    assert app.callers == {"somebody"}
    for path, threads in app.bodies.items():
        assert len(set(threads)) == 1, path  # made, read and closed by one


def test_large_members_of_a_wsgi_app_stay_with_the_thread_that_sends_them() -> None:
    app = App(together=1)
    got = ask(app, [f"/{kind}/{n}" for n in range(10) for kind in ("small", "large")], multithread=True)
    assert len(got) == 20
    for number in range(10):
        assert set(app.bodies[f"/large/{number}"]) == {threading.current_thread()}


def test_an_app_for_one_thread_is_asked_by_that_one() -> None:
    app = App(together=1)
    got = ask(app, [f"/small/{n}" for n in range(16)], multithread=False)
    assert len(got) == 16
    assert {thread for threads in app.bodies.values() for thread in threads} == {threading.current_thread()}


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.case(27)
def test_members_of_an_asgi_app_are_asked_for_together_and_end_with_the_client(size: int) -> None:
    running = most = 0
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running, most
        length = [(b"content-length", b"%d" % size), (b"etag", b'"v"')]
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": length})
            await send({"type": "http.response.body"})
            return
        running += 1
        most = max(most, running)
        try:
            while not ended.is_set() and running < 8 and most < 8 and size == SMALL:
                await asyncio.sleep(0.005)
            await send({"type": "http.response.start", "status": 200, "headers": length})
            for start in range(0, size, 50_000):
                piece = b"x" * min(50_000, size - start)
                await send({"type": "http.response.body", "body": piece, "more_body": start + len(piece) < size})
        finally:
            running -= 1

    async def download(leave_after: int | None) -> bytes:
        left = asyncio.Event()
        asked = False
        got = bytearray()

        async def receive() -> Any:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            got.extend(message.get("body", b""))
            if leave_after is not None and len(got) > leave_after:
                left.set()
                await asyncio.sleep(0.01)

        query = "&".join(f"path=/{n}" for n in range(24)) + "&name=b.zip"
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/bundle",
            "raw_path": b"/bundle",
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"x")],
        }
        await AsyncBundleMiddleware(app, path="/bundle", archiver=ARCHIVER)(scope, receive, send)
        return bytes(got)

    async def main() -> None:
        data = await asyncio.wait_for(download(None), 20)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert [entry.file_size for entry in archive.infolist()] == [size] * 24
        assert most >= (8 if size == SMALL else 2)
        await asyncio.wait_for(download(100_000 if size == LARGE else 1), 20)
        for _ in range(200):
            if not running:
                break
            await asyncio.sleep(0.005)
        assert running == 0

    asyncio.run(main())
