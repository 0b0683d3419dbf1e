"""ASGI request bodies on their way to an intake: batches, backpressure, and every way they end."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamware import Archiver, Policy
from streamware.edge import run
from streamware.edge_uploads import ExpectContinue, Refused, answered, receive_body
from streamware.errors import StreamwareError
from streamware.reply import BytesBody, Reply
from streamware.upload_errors import StoreFull, UploadBroken, UploadTooSlow

MIB = 1024 * 1024
DATA = bytes(range(256)) * 20_000  # 5 MB


@pytest.fixture
def archiver() -> Iterator[Archiver]:
    made = Archiver(Policy(min_rate_bytes=1000, min_rate_seconds=0.2, pump_threads=4))
    yield made
    made.close()


class Counting:
    """An intake that counts and hashes what it takes, as slowly as it is told."""

    def __init__(self, *, full_at: int | None = None) -> None:
        self.sha = hashlib.sha256()
        self.taken = 0
        self.calls: list[str] = []
        self.error: StreamwareError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.inside = 0
        self._full_at = full_at

    def write(self, piece: bytes) -> None:
        self.inside += 1
        assert self.inside == 1, "two threads at once"
        self.gate.wait(10)
        self.inside -= 1
        if self._full_at is not None and self.taken >= self._full_at:
            raise StoreFull("full")
        self.sha.update(piece)
        self.taken += len(piece)

    def finish(self) -> Reply:
        self.calls.append("finish")
        return Reply(201)

    def fail(self, error: StreamwareError) -> Reply:
        self.calls.append("fail")
        self.error = error
        return Reply(error.status)

    def close(self) -> None:
        self.calls.append("close")


class Client:
    """``receive`` of a request whose body comes in messages of a size; then it ends, leaves or falls silent."""

    def __init__(self, data: bytes, size: int = 65_536, *, then: str = "end") -> None:
        pieces = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
        self.messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        if then == "end":
            self.messages[-1]["more_body"] = False
        self.then = then
        self.given = 0

    async def __call__(self) -> Any:
        if self.messages:
            message = self.messages.pop(0)
            self.given += len(message["body"])  # type: ignore[arg-type]
            return message
        if self.then == "raise":
            raise OSError("the server lost the connection")
        if self.then == "silent":
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}


async def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not what():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def take_in(archiver: Archiver, intake: Counting, client: Client, **more: Any) -> Reply:
    async def main() -> Reply:
        reply = await receive_body(archiver, intake, client, **more)
        await until(lambda: intake.calls[-1] == "close")
        return reply

    return asyncio.run(main())


@pytest.mark.parametrize("size", [1, 1000, 65_536, 3 * MIB])
def test_a_body_arrives_whole_and_in_order(archiver: Archiver, size: int) -> None:
    data = DATA[: min(len(DATA), size * 3000)]
    intake = Counting()
    reply = take_in(archiver, intake, Client(data, size), length=len(data))
    assert reply.status == 201
    assert intake.sha.digest() == hashlib.sha256(data).digest()
    assert intake.calls == ["finish", "close"]


def test_nothing_is_a_body_too(archiver: Archiver) -> None:
    intake = Counting()
    assert take_in(archiver, intake, Client(b"")).status == 201
    assert intake.taken == 0


def test_what_a_framework_has_received_counts(archiver: Archiver) -> None:
    intake = Counting()
    first = {"type": "http.request", "body": b"abc", "more_body": True}
    assert take_in(archiver, intake, Client(b"def"), first=first, length=6).status == 201
    assert intake.sha.digest() == hashlib.sha256(b"abcdef").digest()


@pytest.mark.parametrize("then", ["leave", "raise"])
def test_a_client_that_leaves_ends_it_and_what_came_is_written(archiver: Archiver, then: str) -> None:
    intake = Counting()
    take_in(archiver, intake, Client(DATA[:100_000], then=then))
    assert isinstance(intake.error, UploadBroken)
    assert intake.taken == 100_000
    assert intake.calls == ["fail", "close"]


@pytest.mark.parametrize("length", [99_999, 100_001])
def test_a_body_that_ends_elsewhere_than_its_length_says_is_not_whole(archiver: Archiver, length: int) -> None:
    intake = Counting()
    take_in(archiver, intake, Client(DATA[:100_000]), length=length)
    assert isinstance(intake.error, UploadBroken)


def test_a_client_that_falls_silent_is_waited_for_no_longer_than_the_policy_says(archiver: Archiver) -> None:
    intake = Counting()
    began = time.monotonic()
    reply = take_in(archiver, intake, Client(DATA[:100_000], then="silent"))
    assert reply.status == 408
    assert isinstance(intake.error, UploadTooSlow)
    assert intake.taken == 100_000
    assert time.monotonic() - began < 3


def test_a_store_that_is_full_ends_it_at_once(archiver: Archiver) -> None:
    intake, client = Counting(full_at=MIB), Client(DATA * 4)
    assert take_in(archiver, intake, client).status == 507
    assert isinstance(intake.error, StoreFull)
    assert client.given < 5 * MIB


def test_a_slow_store_slows_the_client(archiver: Archiver) -> None:
    """No more than two batches are held, and the wait for the store is not held against the client."""

    async def main() -> None:
        intake, client = Counting(), Client(DATA * 4)
        intake.gate.clear()
        task = asyncio.create_task(receive_body(archiver, intake, client))
        await asyncio.sleep(0.5)
        assert client.given <= 2 * MIB + 2 * 65_536
        intake.gate.set()
        assert (await task).status == 201
        assert intake.taken == len(DATA) * 4

    asyncio.run(main())


def test_many_uploads_hold_less_each(archiver: Archiver) -> None:
    async def main() -> None:
        gate = threading.Event()
        intakes = [Counting() for _ in range(200)]
        for intake in intakes:
            intake.gate = gate
        clients = [Client(DATA[:MIB]) for _ in intakes]
        tasks = [asyncio.create_task(receive_body(archiver, i, c)) for i, c in zip(intakes, clients, strict=True)]
        await asyncio.sleep(0.5)
        assert sum(client.given for client in clients) < 200 * 0.5 * MIB
        # All threads of uploads wait for the store, and those of downloads do not.
        assert await asyncio.wait_for(run(archiver, lambda: "healthy"), 3) == "healthy"
        gate.set()
        assert {reply.status for reply in await asyncio.gather(*tasks)} == {201}

    asyncio.run(main())


def test_a_cancelled_upload_is_given_up_behind_the_write_that_runs(archiver: Archiver) -> None:
    async def main() -> None:
        intake = Counting()
        intake.gate.clear()
        task = asyncio.create_task(receive_body(archiver, intake, Client(DATA)))
        await until(lambda: intake.inside == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert intake.calls == []
        intake.gate.set()
        await until(lambda: intake.calls == ["close"])

    asyncio.run(main())


def test_an_intake_that_nobody_waits_for_any_more_is_given_up(archiver: Archiver) -> None:
    async def main() -> None:
        intake, gate = Counting(), threading.Event()

        def ask() -> Counting:
            gate.wait(5)
            return intake

        task = asyncio.create_task(answered(archiver, ask, Client(DATA)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await until(lambda: intake.calls == ["close"])

    asyncio.run(main())


def test_a_refusal_receives_nothing(archiver: Archiver) -> None:
    client = Client(DATA)
    reply, whole = asyncio.run(answered(archiver, lambda: Reply(413), client))
    assert (reply.status, whole, client.given) == (413, False, 0)
    last = {"type": "http.request", "body": b"abc", "more_body": False}
    reply, whole = asyncio.run(answered(archiver, lambda: Reply(413), client, last))
    assert (reply.status, whole, client.given) == (413, True, 0)


def test_what_is_left_is_dropped_once_the_answer_goes_out(archiver: Archiver) -> None:
    async def main() -> None:
        client = Client(DATA)
        body = Refused(archiver, BytesBody(b"no"), client)
        assert client.given == 0
        assert [piece async for piece in body] == [b"no"]
        await until(lambda: not client.messages)

    asyncio.run(main())


@pytest.mark.parametrize("expects", [True, False])
def test_nothing_is_received_before_the_app_asks_twice(expects: bool) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())
        before = client.given
        seen.append(await receive())
        seen.append(before)

    client = Client(b"abcdef", 3)
    headers = [(b"expect", b"100-continue")] if expects else []
    asyncio.run(ExpectContinue(app)({"type": "http", "headers": headers}, client, client))  # type: ignore[arg-type]
    if expects:
        assert seen[0] == {"type": "http.request", "body": b"", "more_body": True}
        assert (seen[1]["body"], seen[2]) == (b"abc", 0)
    else:
        assert (seen[0]["body"], seen[1]["body"], seen[2]) == (b"abc", b"def", 3)


@pytest.mark.parametrize("sends", [True, False])
def test_an_app_need_not_wait_for_a_client_that_sends_nothing(sends: bool) -> None:
    """Else Falcon would, for as long as the client likes: it takes the first message before anybody can set a limit."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())
        if not sends:
            silent.set()
            seen.append(await receive())

    async def main() -> None:
        if sends:
            silent.set()
        await ExpectContinue(app)({"type": "http", "headers": [(b"content-length", b"3")]}, late, late)

    async def late(message: Any = None) -> Any:
        await silent.wait()
        return {"type": "http.request", "body": b"abc", "more_body": False}

    silent = asyncio.Event()
    asyncio.run(asyncio.wait_for(main(), 10))
    assert [message["body"] for message in seen] == ([b"abc"] if sends else [b"", b"abc"])
