"""Bodies on an event loop: who steps, who closes, and what happens when somebody leaves."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamware import Archiver, Policy, Reply
from streamware.edge import AsyncBody, run
from streamware.edge_replies import send_reply
from streamware.edge_subrequests import AsgiSubrequests
from streamware.errors import BodyClosed, SizeMismatch, SourceError


class Body:
    """A ReplyBody over steps, each bytes to give, an exception to raise, or an event to wait for.

    It fails the test when it is stepped or closed while a step runs, or closed twice at once.
    """

    def __init__(
        self, *steps: bytes | Exception | threading.Event, length: int | None = None, ready: bool = True
    ) -> None:
        self.length = length
        self.closed = 0
        self.aborted = threading.Event()
        self.threads: set[str] = set()
        self.misused = False
        self._steps = list(steps)
        self._busy = threading.Lock()
        self._ready = ready

    @property
    def left(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._alone():
            self.threads.add(threading.current_thread().name)
            while self._steps:
                step = self._steps.pop(0)
                if isinstance(step, bytes):
                    return step
                if isinstance(step, Exception):
                    raise step
                for _ in range(1000):
                    if step.wait(0.01):
                        break
                    if self.aborted.is_set():
                        raise BodyClosed("aborted")
            raise StopIteration

    def ready(self) -> bool:
        return self._ready

    def abort(self) -> None:
        self.aborted.set()

    def close(self) -> None:
        with self._alone():
            self.closed += 1
            self.threads.add(threading.current_thread().name)

    def _alone(self) -> Any:
        body = self

        class Alone:
            def __enter__(self) -> None:
                if not body._busy.acquire(blocking=False):
                    body.misused = True
                    raise AssertionError("two at once")

            def __exit__(self, *_: object) -> None:
                body._busy.release()

        return Alone()


class Deaf(Body):
    """A body whose abort() cannot end a step."""

    def abort(self) -> None:
        pass


class Client:
    """The client's end of an ASGI exchange."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent)

    @property
    def finished(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", True)


def trial(coroutine: Callable[[], Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(coroutine(), 20)

    return asyncio.run(bounded())


def archiver(**policy: Any) -> Archiver:
    return Archiver(Policy(**policy))


def test_steps_fill_a_budget_on_threads_of_their_own() -> None:
    body = Body(*[b"x" * 100] * 50)

    async def act() -> list[int]:
        ahead = []
        async for piece in AsyncBody(archiver(step_bytes=1000), body):
            assert len(piece) == 100
            ahead.append(50 - len(body._steps) - len(ahead))
        return ahead

    ahead = trial(act)
    assert len(ahead) == 50
    assert ahead[0] == 1  # the first leaves at once
    assert max(ahead) <= 11  # the one just taken, and ten behind it
    assert body.closed == 1
    assert all(name.startswith("streamware-pump") for name in body.threads)


def test_a_step_ends_where_somebody_would_be_waited_for() -> None:
    body = Body(b"1", b"2", b"", b"3", ready=False)

    async def act() -> list[bytes]:
        return [piece async for piece in AsyncBody(archiver(), body)]

    assert trial(act) == [b"1", b"2", b"3"]


def test_what_came_before_a_failure_goes_out_first() -> None:
    body = Body(b"1", b"2", b"3", SizeMismatch("short"))
    pieces = []

    async def act() -> None:
        async_body = AsyncBody(archiver(), body)
        for _ in range(3):
            pieces.append(await async_body.__anext__())
        with pytest.raises(SizeMismatch):
            await async_body.__anext__()
        await async_body.close()

    trial(act)
    assert (pieces, body.closed) == ([b"1", b"2", b"3"], 1)


def test_the_loop_goes_on_while_a_step_waits() -> None:
    gate = threading.Event()
    body = Body(b"1", gate, b"2")

    async def act() -> None:
        async_body = AsyncBody(archiver(), body)
        assert await async_body.__anext__() == b"1"
        step = asyncio.ensure_future(async_body.__anext__())
        await asyncio.sleep(0.05)
        gate.set()
        assert await step == b"2"
        await async_body.close()
        await async_body.close()

    trial(act)
    assert body.closed == 1
    assert not body.misused


@pytest.mark.parametrize("kind", [Body, Deaf])
def test_a_client_that_leaves_ends_a_waiting_step(kind: type[Body]) -> None:
    gate = threading.Event()
    body = kind(b"1", gate, b"2")

    async def act() -> None:
        client = Client()
        asyncio.get_running_loop().call_later(0.1, client.gone.set)
        if kind is Deaf:
            asyncio.get_running_loop().call_later(0.4, gate.set)
        began = time.monotonic()
        await send_reply(archiver(), Reply(200, (), body), "GET", client.receive, client.send)
        assert time.monotonic() - began < 1
        assert body.closed == 1
        assert not client.finished
        assert client.body == b"1"

    trial(act)
    assert not body.misused


@pytest.mark.parametrize("kind", [Body, Deaf])
def test_a_cancelled_task_closes_the_body_after_the_step(kind: type[Body]) -> None:
    gate = threading.Event()
    body = kind(b"1", gate, b"2")

    async def act() -> None:
        client = Client()
        reply = Reply(200, (), body)
        task = asyncio.create_task(send_reply(archiver(), reply, "GET", client.receive, client.send))
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().call_later(0.2, gate.set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert body.closed == 1

    trial(act)
    assert not body.misused


def test_a_body_nobody_iterates_is_closed_when_the_client_leaves() -> None:
    body = Body(b"1")

    async def act() -> None:
        client = Client()
        async_body = AsyncBody(archiver(), body, client.receive)
        client.gone.set()
        await asyncio.sleep(0.1)
        assert (body.closed, async_body.left) == (1, True)
        assert [piece async for piece in async_body] == []

    trial(act)


def test_a_whole_reply() -> None:
    async def act() -> None:
        for method, expected in (("GET", b"12"), ("HEAD", b"")):
            client, body = Client(), Body(b"1", b"2", length=2)
            reply = Reply(200, (("Content-Length", "2"), ("X-Own", "caf\u00e9")), body)
            await send_reply(archiver(), reply, method, client.receive, client.send)
            assert client.sent[0] == {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"2"), (b"x-own", b"caf\xe9")],
            }
            assert (client.body, client.finished, body.closed) == (expected, True, 1)

    trial(act)


def test_a_failing_reply_is_never_finished() -> None:
    async def act() -> None:
        client, body = Client(), Body(b"1", SizeMismatch("short"))
        with pytest.raises(SizeMismatch):
            await send_reply(archiver(), Reply(200, (), body), "GET", client.receive, client.send)
        assert (client.body, client.finished, body.closed) == (b"1", False, 1)

    trial(act)


def test_a_send_that_raises_is_a_client_that_left() -> None:
    async def act() -> None:
        client, body = Client(), Body(b"1", b"2")

        async def send(message: Any) -> None:
            if message.get("body"):
                raise ConnectionResetError

        await send_reply(archiver(), Reply(200, (), body), "GET", client.receive, send)
        assert body.closed == 1
        assert body.aborted.is_set()

    trial(act)


def test_a_result_nobody_waits_for_any_more_is_closed() -> None:
    body, gate = Body(b"1"), threading.Event()

    def make() -> Reply:
        gate.wait(5)
        return Reply(200, (), body)

    async def act() -> None:
        task = asyncio.create_task(run(archiver_, make))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert body.closed == 0
        gate.set()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if body.closed:
                break

    archiver_ = archiver()
    trial(act)
    assert body.closed == 1


def test_results_and_errors_come_through() -> None:
    async def act() -> None:
        shared = archiver()
        assert await run(shared, divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await run(shared, divmod, 1, 0)

    trial(act)


def test_threads_are_bounded_and_end_with_the_archiver() -> None:
    def ours() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("streamware-pump")]

    gc.collect()
    time.sleep(0.1)
    before = set(ours())

    async def act() -> int:
        shared = archiver(pump_threads=2)
        await asyncio.gather(*[run(shared, time.sleep, 0.01) for _ in range(10)])
        return len(set(ours()) - before)

    assert trial(act) == 2
    gc.collect()
    deadline = time.monotonic() + 5
    while set(ours()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(ours()) - before


# --- sub-requests ------------------------------------------------------------------------------------------------

SCOPE = {"type": "http", "method": "GET", "path": "/bundle", "query_string": b"", "headers": []}


async def _half(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


def test_an_app_that_returns_early_is_no_end() -> None:
    async def act() -> None:
        shared = archiver()
        source = AsgiSubrequests(_half, SCOPE, shared)("/x")
        chunks = await run(shared, source.open, 0, None)
        assert await run(shared, next, chunks) == b"half"
        with pytest.raises(SourceError):
            await run(shared, next, chunks)
        await run(shared, chunks.close)

    trial(act)


def test_a_blocked_reader_is_freed_by_abort_from_any_thread() -> None:
    ended = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def act() -> None:
        shared = archiver()
        chunks = await run(shared, AsgiSubrequests(app, SCOPE, shared)("/x").open, 0, None)
        reading = asyncio.ensure_future(run(shared, next, chunks))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        chunks.abort()
        with pytest.raises(BodyClosed):
            await reading
        await run(shared, chunks.close)
        assert time.monotonic() - began < 1
        assert ended == [True]

    trial(act)


def test_a_loop_that_has_ended_holds_no_thread() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await asyncio.sleep(60)

    sources, chunks = [], []

    async def act() -> None:
        shared = archiver(read_timeout_seconds=2)
        source = AsgiSubrequests(app, SCOPE, shared)("/x")
        chunks.append(await run(shared, source.open, 0, None))
        sources.append(source)

    trial(act)
    began = time.monotonic()
    with pytest.raises((SourceError, BodyClosed)):
        next(chunks[0])
    chunks[0].close()
    with pytest.raises(SourceError):
        sources[0].open(0, None)
    assert time.monotonic() - began < 5


def test_many_bodies_do_not_hold_up_what_comes_between() -> None:
    async def act() -> int:
        loop = asyncio.get_running_loop()
        given = 0

        async def iterate() -> None:
            nonlocal given
            async for _ in AsyncBody(one, Body(*[b"x" * 65536] * 100)):
                given += 1

        one = archiver()
        tasks = [loop.create_task(iterate()) for _ in range(4)]
        most = before = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            most, before = max(most, given - before), given
        assert given == 400
        return most

    # Those whose turn it is, and those that had one before and then waited for a step. Between two looks here may be
    # parts of two rounds; four steps of 16 pieces each would be 64.
    assert trial(act) <= 2 * (16 + 4)


def test_bodies_are_counted_while_they_are_open() -> None:
    async def act() -> list[int]:
        first, second = AsyncBody(archiver(), Body(b"1")), AsyncBody(archiver(), Body(b"2"))
        counts = [first._turns.bodies]
        for body in (first, second, second):
            await body.close()
            await asyncio.sleep(0)
            counts.append(first._turns.bodies)
        return counts

    assert trial(act) == [2, 1, 0, 0]


def test_nothing_is_kept_of_a_loop_that_ended() -> None:
    async def act() -> weakref.ref[asyncio.AbstractEventLoop]:
        assert [piece async for piece in AsyncBody(archiver(), Body(b"1"))] == [b"1"]
        return weakref.ref(asyncio.get_running_loop())

    ended = trial(act)
    gc.collect()
    assert ended() is None


def test_no_news_is_lost_between_threads_and_loop() -> None:
    """A consumer that is not told of a piece, an end or an error would wait for ever."""
    chance = random.Random(7)

    class Moody(Body):
        def ready(self) -> bool:
            return chance.random() < 0.5

    async def one(shared: Archiver, number: int) -> bool:
        pieces = [bytes(chance.randrange(1, 300)) for _ in range(chance.randrange(60))]
        fails = number % 3 == 0
        body = Moody(*pieces, *([SizeMismatch("short")] if fails else []))
        carried, got = AsyncBody(shared, body), 0
        try:
            async for piece in carried:
                got += len(piece)
                if chance.random() < 0.1:
                    await asyncio.sleep(0)
        except SizeMismatch:
            assert fails
        await carried.close()
        assert got == sum(map(len, pieces))
        assert body.closed == 1
        return not body.misused

    async def act() -> None:
        shared = archiver(step_bytes=500, pump_threads=4)
        for _ in range(10):
            assert all(await asyncio.gather(*[one(shared, number) for number in range(40)]))

    trial(act)
