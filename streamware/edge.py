"""The event loop's edge: carries the synchronous pump into ASGI hosts, and pump threads into an ASGI app.

The rules of this file, the only library file that knows asyncio: nothing here blocks the loop; bodies move a step at a
time on the archiver's own threads, never on the loop's default ones; a body is never closed while a step runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from streamware.edge_threads import give_up, start, threads
from streamware.errors import StreamwareError
from streamware.pace import Pace
from streamware.pumped import Pumped
from streamware.pumps import Pumps
from streamware.reply import BytesBody, Reply, ReplyBody
from streamware.service import Archiver

__all__ = [
    "App",
    "AsyncBody",
    "Departure",
    "Event",
    "Loop",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "Task",
    "admitted",
    "current_loop",
    "outcome",
    "post",
    "run",
    "settled",
    "spawn",
    "waited",
    "within",
]

_log = logging.getLogger("streamware")

T = TypeVar("T")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_CLOSE_SECONDS = 5.0  # how long anyone waits for a body or a watch to end; it goes on ending without being waited for
_TURNS = 16  # pieces given in one round of a loop, 0.1 ms each; an answer to anything else takes some five rounds

# --- the loop, for files that do not know it ---------------------------------------------------------------------

Event = asyncio.Event
Loop = asyncio.AbstractEventLoop  # others only hold it, for ``post``
Task = asyncio.Task
current_loop = asyncio.get_running_loop
within = asyncio.wait_for

_tasks: set[Task[Any]] = set()  # a loop itself holds its tasks only weakly


def spawn(work: Awaitable[T]) -> Task[T]:
    """Have the loop do something that nobody need wait for, nor hold."""
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def settled(work: asyncio.Future[T], seconds: float) -> bool:
    """Wait until it is done, for so long at most; return whether it is. It goes on either way."""
    return bool((await asyncio.wait({work}, timeout=seconds))[0])


async def waited(event: Event, seconds: float) -> float:
    """Wait for an event, which comes by itself after so long; return how long that took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    timer = loop.call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
    return loop.time() - began


def post(loop: Loop, call: Callable[[], object]) -> bool:
    """Have the loop call something, from any thread. False: the loop is closed, so nobody waits there any more."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return False
    return True


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def run(archiver: Archiver, call: Callable[..., T], *args: Any) -> T:
    """Call something that blocks, on the archiver's own threads. If the task is cancelled, a body it made is closed."""
    pool = threads(archiver)
    return await outcome(start(pool, call, *args), pool, _break_off)


async def outcome(job: Future[T], pool: Pumps, undo: Callable[[T], object] | None = None) -> T:
    """What comes of something that a thread was started with.

    :param undo: called with it on one of the threads of ``pool`` if the task is cancelled, when it has come.
    """
    try:
        return await asyncio.wrap_future(job)
    except asyncio.CancelledError:
        if undo is not None:
            give_up(job, pool, undo)
        raise


def _break_off(result: object) -> None:
    if isinstance(result, Reply):
        result.body.abort()
        result.body.close()


async def admitted(archiver: Archiver, client: str, call: Callable[..., Reply], *args: Any) -> Reply:
    """``call(*args, ticket=...)`` as ``run`` does it; where there is no place for a download, the refusal instead.

    That is found out here, on the loop: the archiver's threads may all be waiting for somebody.
    """
    try:
        ticket = archiver.admission.enter(client)
    except StreamwareError as error:
        return archiver.problem(error)
    return await run(archiver, partial(call, *args, ticket=ticket))


# --- clients -----------------------------------------------------------------------------------------------------


class Departure:
    """Watches ``receive()`` for the client's leaving; for many servers do not raise from ``send()``."""

    def __init__(self, receive: Receive) -> None:
        self.left = False
        self._calls: list[Callable[[], object]] = []
        self._task = asyncio.create_task(self._watch(receive))

    def tell(self, call: Callable[[], object]) -> None:
        """Have ``call`` called on the loop when the client leaves; at once if it has."""
        if self.left:
            call()
        self._calls.append(call)

    async def close(self) -> None:
        self._task.cancel()
        self._calls.clear()  # each holds a body, and that holds this
        await settled(self._task, _CLOSE_SECONDS)

    async def _watch(self, receive: Receive) -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                await asyncio.sleep(0)
        except Exception:
            # Servers differ in what they raise here when the connection is lost; each time it is lost.
            _log.debug("receive() failed; taking the client for gone", exc_info=True)
        self.left = True
        for call in self._calls:
            call()


# --- bodies out --------------------------------------------------------------------------------------------------


class Turns:
    """Lets so many pieces out in one round of a loop, in order: a hundred bodies must not hold up what else it does.

    Used on that loop alone, and does not hold it: a program may use a loop for each call.
    """

    def __init__(self) -> None:
        self.bodies = 0  # that are not closed
        self._left = _TURNS
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self, loop: Loop) -> bool:
        """Take a turn in this round; False: there is none left, so it has to be waited for."""
        if self._left:
            self._use(loop)
            return True
        return False

    async def wait(self, loop: Loop) -> None:
        """Take a turn in a later round."""
        waiter = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _use(self, loop: Loop) -> None:
        if self._left == _TURNS:
            loop.call_soon(self._next_round, loop)
        self._left -= 1

    def _next_round(self, loop: Loop) -> None:
        self._left = _TURNS
        while self._left and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._use(loop)
                waiter.set_result(None)

    def body_closed(self, _: object) -> None:
        self.bodies -= 1


_turns: WeakKeyDictionary[Loop, Turns] = WeakKeyDictionary()


def turns_of(loop: Loop) -> Turns:
    return _turns.setdefault(loop, Turns())


class AsyncBody:
    """A reply's body for an event loop: ``async for piece in body``, then ``await body.close()``.

    It is moved on the archiver's threads into a queue (``pumped``). For a client that is quick that holds up to
    ``policy.step_bytes`` and is filled again while it is emptied; for others it holds less (``pace``). A failing body
    raises its StreamwareError, and the host must then break the connection.

    :param receive: an ASGI ``receive`` that nobody else reads until ``close()``. It is watched: when the client leaves,
        the body is aborted at once, iteration ends, ``left`` is true, and the body is closed.
    """

    def __init__(self, archiver: Archiver, body: ReplyBody, receive: Receive | Departure | None = None) -> None:
        self.length = body.length
        self._pace = Pace(archiver.policy.step_bytes)
        self._cut: list[bytes] = []  # of the last piece taken, last one first
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._turns = turns_of(self._loop)
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._departure = Departure(receive) if callable(receive) else receive
        self._owns_departure = callable(receive)
        self._pumped: Pumped | None = None
        if isinstance(body, BytesBody):  # in memory already: no thread is needed, nor waited for
            self._cut = list(body)
            self._closed.set_result(None)
        else:
            self._pumped = Pumped(body, threads(archiver), self._news, self._end)
            self._turns.bodies += 1
            self._closed.add_done_callback(self._turns.body_closed)
        if self._departure is not None:
            self._departure.tell(self._leave)

    @property
    def left(self) -> bool:
        """Whether the client is known to have left."""
        return self._departure is not None and self._departure.left

    def __aiter__(self) -> AsyncBody:
        return self

    async def __anext__(self) -> bytes:
        self._pace.asked(self._loop.time())
        if not self._turns.take(self._loop):
            await self._turns.wait(self._loop)
        piece = self._next()
        while piece is None and not self.left:
            pumped = self._pumped
            if pumped is None:
                break
            if pumped.quiet:
                await self._wait(pumped)
            elif pumped.over:
                error, pumped.error = pumped.error, None  # its traceback holds the body, and nobody else is told of it
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error
                break
            piece = self._next()
        if piece is None or self.left:
            await self.close()
            raise StopAsyncIteration
        self._pace.gave(len(piece), self._loop.time())
        return piece

    def _next(self) -> bytes | None:
        if self._cut:
            return self._cut.pop()
        pumped = self._pumped
        taken = None if pumped is None else pumped.take()
        if pumped is None or taken is None:
            return None
        bodies = self._turns.bodies
        budget = self._pace.budget(bodies)
        if budget and pumped.held * 2 <= budget:
            pumped.pull(budget)  # before the queue is empty, so that it need not be waited for
        self._cut = self._pace.cut(taken, bodies)
        self._cut.reverse()
        return self._cut.pop()

    async def _wait(self, pumped: Pumped) -> None:
        waiter = self._waiter = self._loop.create_future()
        pumped.waits = True  # said first: a step that ends just now, and so keeps pull() from beginning one, sees it
        pumped.pull(self._pace.budget(self._turns.bodies))
        if not pumped.quiet:
            pumped.waits = False
            return
        try:
            await waiter
        except asyncio.CancelledError:
            pumped.close_soon()
            raise

    async def close(self) -> None:
        """Close the body: after the step that runs, if one does, and waited for within bounds. Idempotent."""
        if self._pumped is not None:
            self._pumped.close_soon()
        self._cut = []
        await settled(self._closed, _CLOSE_SECONDS)
        if self._departure is not None and self._owns_departure:
            await self._departure.close()

    def _leave(self) -> None:
        if self._pumped is not None:
            self._pumped.close_soon()
        if self._waiter is not None:
            _release(self._waiter)

    # On a pump thread:

    def _news(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            post(self._loop, partial(_release, waiter))

    def _end(self) -> None:
        post(self._loop, partial(_release, self._closed))
