"""Bodies of ASGI requests on their way in: gathered on the loop, written by threads of their own.

The rule of this file: two batches of an upload are in memory at most, the one that is written and the one that is
gathered, and nothing is received while both are full; so a store that is slow slows the client. No thread waits for a
client, and none of those that move downloads is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from streamware.body_in import Patience
from streamware.edge import (
    App,
    AsyncBody,
    Event,
    Loop,
    Message,
    Receive,
    Scope,
    Send,
    Task,
    current_loop,
    outcome,
    settled,
    spawn,
    waited,
    within,
)
from streamware.edge_threads import start, threads
from streamware.errors import StreamwareError
from streamware.reply import Reply, ReplyBody
from streamware.service import Archiver
from streamware.upload_errors import UploadBroken

if TYPE_CHECKING:
    from streamware.intake import Intake

__all__ = ["ExpectContinue", "Refused", "answered", "drain", "receive_body"]

_log = logging.getLogger("streamware")

T = TypeVar("T")

_UPLOADS = "upload"  # the name of their threads

# PERF: from the loop to a thread and back takes 60 us: 0.06 s/GiB with batches of 1 MiB, and 1 with messages of 64 KiB.
_BATCH_BYTES = 1024 * 1024
_LEAST_BYTES = 128 * 1024
_TOTAL_BYTES = 32 * 1024 * 1024  # of all that is gathered on one loop, beyond the least of each
_FLUSH_SECONDS = 1.0  # what has come is written at least so often

_SOON_SECONDS = 0.5  # for a body to begin

_DRAIN_BYTES = 16 * 1024 * 1024
_DRAIN_SECONDS = 2.0

_active: WeakKeyDictionary[Loop, int] = WeakKeyDictionary()


async def answered(
    archiver: Archiver,
    ask: Callable[[], Reply | Intake],
    receive: Receive,
    first: Message | None = None,
    length: int | None = None,
) -> tuple[Reply, bool]:
    """Ask, on a thread, and take the body in if an Intake is the answer; see ``receive_body``.

    Gives the final answer, and whether the body has been received to its end.
    """
    pool = threads(archiver, _UPLOADS)
    found = await outcome(start(pool, ask), pool, _close)
    if isinstance(found, Reply):
        return found, first is not None and not first.get("more_body", False)
    return await _take_in(archiver, found, receive, first, length)


def _close(found: Reply | Intake) -> None:
    (found.body if isinstance(found, Reply) else found).close()


async def receive_body(
    archiver: Archiver, intake: Intake, receive: Receive, first: Message | None = None, length: int | None = None
) -> Reply:
    """Take a request's body in, and return the answer. If the task is cancelled, the intake is given up.

    A client that leaves, or is slower than ``policy.min_rate_bytes`` a second over ``policy.min_rate_seconds`` of
    waiting, ends it too; what has come by then is written first.

    :param receive: the ASGI ``receive`` of the request, which nobody else reads meanwhile.
    :param first: what has been received of it already.
    :param length: the request's Content-Length, None where it has none.
    """
    return (await _take_in(archiver, intake, receive, first, length))[0]


async def _take_in(
    archiver: Archiver, intake: Intake, receive: Receive, first: Message | None, length: int | None
) -> tuple[Reply, bool]:
    loop = current_loop()
    _active[loop] = _active.get(loop, 0) + 1
    calls = _Calls(archiver, intake)
    gathered = _Gathered(receive, first, loop)
    try:
        try:
            await _write_all(calls, gathered, Patience(archiver.policy))
            if not gathered.whole or length not in (None, gathered.received):
                raise UploadBroken("The connection ended before the body was whole.")
        except StreamwareError as error:
            gathered.stop()
            reply = await calls.run(intake.fail, error)
        else:
            reply = await calls.run(intake.finish)
        return reply, gathered.whole
    finally:
        _active[loop] -= 1
        gathered.stop()
        calls.close_soon()


async def _write_all(calls: _Calls, gathered: _Gathered, patience: Patience) -> None:
    while True:
        seconds = await gathered.wait(min(_FLUSH_SECONDS, patience.seconds))
        over = gathered.over  # asked first: what comes until then is in the batch
        batch = gathered.take()
        if batch:
            await calls.run(_write, calls.intake, batch)
        if over:
            return
        patience.waited(seconds, sum(map(len, batch)))


def _write(intake: Intake, batch: list[bytes]) -> None:
    for piece in batch:
        intake.write(piece)


class _Calls:
    """Calls of an intake, on threads, one after another, the last one being ``close``."""

    def __init__(self, archiver: Archiver, intake: Intake) -> None:
        self.intake = intake
        self._pool = threads(archiver, _UPLOADS)
        self._job: Future[Any] = Future()
        self._job.set_result(None)

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        job = self._job = start(self._pool, call, *args)
        return await outcome(job, self._pool)

    def close_soon(self) -> None:
        """Close the intake behind the call that runs, if one does, without waiting for it."""
        self._job.add_done_callback(lambda _: self._pool.submit(self._close))

    def _close(self) -> None:
        try:
            self.intake.close()
        except Exception:
            _log.exception("an upload failed while it was closed")


class _Gathered:
    """The messages of a body as they come, up to a batch at a time. Used on the loop alone.

    ``over``: nothing comes any more. ``whole``: because the body has ended.
    """

    def __init__(self, receive: Receive, first: Message | None, loop: Loop) -> None:
        self.over = False
        self.whole = False
        self.received = 0
        self._loop = loop
        self._pieces: list[bytes] = []
        self._size = 0
        self._enough = Event()  # for who takes
        self._room = Event()  # for who gathers
        self._task = spawn(self._gather(receive, first))

    async def wait(self, seconds: float) -> float:
        """Wait until a batch is full or the body over, for so long at most; return how long that took."""
        if self.over or self._full:
            return 0.0
        self._enough.clear()
        return await waited(self._enough, seconds)

    def take(self) -> list[bytes]:
        """What has been gathered, which may be nothing."""
        batch, self._pieces, self._size = self._pieces, [], 0
        self._room.set()
        return batch

    def stop(self) -> None:
        """Receive nothing more. Idempotent."""
        self._task.cancel()

    @property
    def _full(self) -> bool:
        share = _TOTAL_BYTES // max(1, _active.get(self._loop, 1))
        return self._size >= max(_LEAST_BYTES, min(_BATCH_BYTES, share))

    async def _gather(self, receive: Receive, message: Message | None) -> None:
        try:
            while not self.over:
                if message is None:
                    message = await receive()
                self._add(message)
                message = None
                if self._full:
                    self._enough.set()
                    await self._taken()
        except Exception:
            # Servers differ in what they raise here when the connection is lost; each time it is lost.
            _log.debug("receive() failed; taking the client for gone", exc_info=True)
        finally:
            self.over = True
            self._enough.set()

    def _add(self, message: Message) -> None:
        if message["type"] != "http.request":
            self.over = True
            return
        piece = message.get("body", b"")
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
            self.received += len(piece)
        if not message.get("more_body", False):
            self.over = self.whole = True

    async def _taken(self) -> None:
        while self._full and not self.over:
            self._room.clear()
            await self._room.wait()


class Refused(AsyncBody):
    """The body of an answer to a request whose own body has not been received to its end.

    What still comes of that is received and dropped while the answer goes out and a moment longer, up to 16 MiB and
    2 s: some servers wait for their app to take it (hypercorn for ever, even to close the connection), and a connection
    that is closed over it may lose the answer on its way.

    :param receive: the ASGI ``receive`` of the request, which nobody else reads any more.
    """

    def __init__(self, archiver: Archiver, body: ReplyBody, receive: Receive) -> None:
        super().__init__(archiver, body)
        self._unread: Receive | None = receive

    async def __anext__(self) -> bytes:
        receive, self._unread = self._unread, None
        if receive is not None:  # the head is out, so that this does not let a client begin that has asked first
            spawn(drain(receive))
        return await super().__anext__()


async def drain(receive: Receive) -> None:
    """Receive what still comes of a request's body and drop it, up to 16 MiB and 2 s."""

    async def drop() -> None:
        left = _DRAIN_BYTES
        while left > 0:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                return
            left -= len(message.get("body", b""))

    try:
        await within(drop(), _DRAIN_SECONDS)
    except Exception:
        _log.debug("the rest of a refused body was not received", exc_info=True)


class ExpectContinue:
    """ASGI middleware for frameworks that take a request's first message before they look at it, as Falcon does.

    Of a request that expects ``100-continue`` nothing is received before the app asks twice: servers take the first
    asking for their sign to send ``100 Continue``, and the client then sends a body that may be refused by its head
    alone. And where a body's first bytes do not come soon, the app need not wait for them, which it would without a
    limit: in both cases the first message it sees is an empty one.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope["headers"]} if scope["type"] == "http" else set()
        if b"expect" in names:
            await self._app(scope, partial(_later, receive, iter((_NOTHING_YET,))), send)
        elif names.isdisjoint(_BODY):
            await self._app(scope, receive, send)
        else:
            soon = _Soon(receive)
            try:
                await self._app(scope, soon, send)
            finally:
                soon.close()


_BODY = (b"content-length", b"transfer-encoding")
_NOTHING_YET = {"type": "http.request", "body": b"", "more_body": True}


class _Soon:
    """``receive`` of a request with a body; if that does not begin soon, there is an empty message before it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._asked = False
        self._first: Task[Message] | None = None

    async def __call__(self) -> Message:
        if not self._asked:
            self._asked = True
            self._first = spawn(self._receive())
            if not await settled(self._first, _SOON_SECONDS):
                return _NOTHING_YET
        first, self._first = self._first, None
        return await (self._receive() if first is None else first)

    def close(self) -> None:
        if self._first is not None:
            self._first.cancel()


async def _later(receive: Receive, before: Any) -> Message:
    message: Message | None = next(before, None)
    return await receive() if message is None else message
