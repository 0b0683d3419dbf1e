"""The event loop's edge: carries the synchronous pump into ASGI hosts, and pump threads into an ASGI app.

The rules of this file, the only library file that knows asyncio: nothing here blocks the loop; bodies move a step at a
time on the archiver's own threads, never on the loop's default ones; a body is never closed while a step runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from streamware.edge_clients import App, Departure, Message, Receive, Scope, Send, turns_of
from streamware.errors import StreamwareError
from streamware.pace import Pace
from streamware.pumped import Pumped
from streamware.pumps import Pumps
from streamware.reply import BytesBody, Reply, ReplyBody
from streamware.service import Archiver

__all__ = [
    "App",
    "AsyncBody",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "admitted",
    "answer",
    "depth",
    "post",
    "release",
    "run",
    "send_reply",
    "start",
    "threads",
]

_log = logging.getLogger("streamware")

T = TypeVar("T")

_CLOSE_SECONDS = 5.0  # how long anyone waits for a body to be closed; it goes on ending without being waited for

# --- threads -----------------------------------------------------------------------------------------------------

_pools: WeakKeyDictionary[Archiver, dict[str, Pumps]] = WeakKeyDictionary()
_pools_lock = threading.Lock()
# How many bundles this request is inside of. Each depth has its own threads: an outer bundle that waits for an inner
# one holds a thread while it does, and enough of them would otherwise wait for ever.
depth: contextvars.ContextVar[int] = contextvars.ContextVar("streamware.depth", default=0)


def threads(archiver: Archiver, name: str | None = None) -> Pumps:
    """The archiver's own threads of that name; None: those of downloads, as many for each depth."""
    name = f"pump-{depth.get()}" if name is None else name
    with _pools_lock:
        pools = _pools.setdefault(archiver, {})
        if name not in pools:
            pools[name] = Pumps(archiver.policy.pump_threads, f"streamware-{name}")
        return pools[name]


async def run(archiver: Archiver, call: Callable[..., T], *args: Any, pool: Pumps | None = None) -> T:
    """Call something that blocks, on the archiver's own threads. If the task is cancelled, a body it made is closed.

    :param pool: other threads than those of downloads.
    """
    pool = threads(archiver) if pool is None else pool
    job = start(pool, call, *args)
    try:
        return await asyncio.wrap_future(job)
    except asyncio.CancelledError:
        job.add_done_callback(lambda job: pool.submit(partial(_give_up, job)))
        raise


def start(pool: Pumps, call: Callable[..., T], *args: Any) -> Future[T]:
    """Have a thread call something, in this context."""
    job: Future[T] = Future()
    pool.submit(partial(contextvars.copy_context().run, _do, job, call, args))
    return job


def _do(job: Future[T], call: Callable[..., T], args: tuple[Any, ...]) -> None:
    if not job.set_running_or_notify_cancel():
        return
    try:
        result = call(*args)
    except BaseException as error:
        job.set_exception(error)
        del error, job  # each would hold the other, by this frame in the error's traceback
    else:
        job.set_result(result)


async def admitted(archiver: Archiver, client: str, call: Callable[..., Reply], *args: Any) -> Reply:
    """``call(*args, ticket=...)`` as ``run`` does it; where there is no place for a download, the refusal instead.

    That is found out here, on the loop: the archiver's threads may all be waiting for somebody.
    """
    try:
        ticket = archiver.admission.enter(client)
    except StreamwareError as error:
        return archiver.problem(error)
    return await run(archiver, partial(call, *args, ticket=ticket))


def _give_up(job: Future[Any]) -> None:
    if not job.cancelled() and job.exception() is None and isinstance(reply := job.result(), Reply):
        reply.body.abort()
        reply.body.close()


def post(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> bool:
    """Have the loop call something, from any thread. False: the loop is closed, so nobody waits there any more."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return False
    return True


def release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


# --- bodies out --------------------------------------------------------------------------------------------------


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
        await asyncio.wait({self._closed}, timeout=_CLOSE_SECONDS)
        if self._departure is not None and self._owns_departure:
            await self._departure.close()

    def _leave(self) -> None:
        if self._pumped is not None:
            self._pumped.close_soon()
        if self._waiter is not None:
            release(self._waiter)

    # On a pump thread:

    def _news(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            post(self._loop, partial(release, waiter))

    def _end(self) -> None:
        post(self._loop, partial(release, self._closed))


async def send_reply(archiver: Archiver, reply: Reply, method: str, receive: Receive, send: Send) -> None:
    """Send head and body of a reply as ASGI messages, and close it. Nobody else may read ``receive`` meanwhile.

    A client that leaves is a silent end. A body that fails raises, and never ends as if it were whole.
    """
    await answer(archiver, lambda: reply, method, receive, send)


async def answer(
    archiver: Archiver,
    make: Callable[..., Reply],
    method: str,
    receive: Receive,
    send: Send,
    *,
    on_leave: Callable[[], object] | None = None,
    client: str | None = None,
) -> None:
    """As ``send_reply``, for a reply that ``make()`` makes on one of the archiver's threads.

    :param client: for whom it is a download, which needs a place: see ``admitted``. None: it is none.
    :param on_leave: called on the loop as soon as the client leaves, also while ``make`` still runs.
    """
    departure = Departure(receive)
    if on_leave is not None:
        departure.tell(on_leave)
    try:
        reply = await (run(archiver, make) if client is None else admitted(archiver, client, make))
        body = AsyncBody(archiver, reply.body, departure)
        try:
            await _send(reply, body, method, send)
        finally:
            await body.close()
    finally:
        await departure.close()


async def _send(reply: Reply, body: AsyncBody, method: str, send: Send) -> None:
    head = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in reply.headers]
    messages: list[Message] = [{"type": "http.response.start", "status": reply.status, "headers": head}]
    if body.left or not await _sent(send, messages[0]):
        return
    if method != "HEAD":
        async for piece in body:
            if not await _sent(send, {"type": "http.response.body", "body": piece, "more_body": True}):
                return
    if not body.left:
        await _sent(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _sent(send: Send, message: Message) -> bool:
    try:
        await send(message)
    except OSError:
        return False  # how ASGI 2.4 lets a server say that the client is gone
    return True
