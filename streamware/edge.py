"""The event loop's edge: carries the synchronous pump into ASGI hosts, and pump threads into an ASGI app.

The rules of this file, the only library file that knows asyncio: nothing here blocks the loop; bodies move a step at a
time on the archiver's own threads, never on the loop's default ones; a body is never closed while a step runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from streamware.errors import StreamwareError
from streamware.inner import DEPTH, aim, deeper, headers_in, identity_of, scope_for
from streamware.model import Facts, Source
from streamware.pace import Pace
from streamware.reply import BytesBody, Reply, ReplyBody
from streamware.service import Archiver
from streamware.sources.handover import Handover
from streamware.sources.subrequest import InnerSource
from streamware.target import carried

__all__ = [
    "App",
    "AsgiSubrequests",
    "AsyncBody",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "admitted",
    "answer",
    "run",
    "send_reply",
]

_log = logging.getLogger("streamware")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[str, str]]
T = TypeVar("T")

_TURNS = 16  # pieces given in one round of a loop, 0.1 ms each; an answer to anything else takes some five rounds
_CLOSE_SECONDS = 5.0  # how long anyone waits for a body to be closed; it goes on ending without being waited for

# --- threads -----------------------------------------------------------------------------------------------------

_pools: WeakKeyDictionary[Archiver, dict[int, ThreadPoolExecutor]] = WeakKeyDictionary()
_pools_lock = threading.Lock()
# How many bundles this request is inside of. Each depth has its own threads: an outer bundle that waits for an inner
# one holds a thread while it does, and enough of them would otherwise wait for ever.
_depth: contextvars.ContextVar[int] = contextvars.ContextVar("streamware.depth", default=0)


def _pool(archiver: Archiver) -> ThreadPoolExecutor:
    """The archiver's own threads. They end with the archiver, for nothing else holds the pool."""
    depth = _depth.get()
    with _pools_lock:
        pools = _pools.setdefault(archiver, {})
        if depth not in pools:
            pools[depth] = ThreadPoolExecutor(archiver.policy.pump_threads, f"streamware-pump-{depth}")
        return pools[depth]


async def run(archiver: Archiver, call: Callable[..., T], *args: Any) -> T:
    """Call something that blocks, on the archiver's own threads. If the task is cancelled, a body it made is closed."""
    pool = _pool(archiver)
    job = pool.submit(contextvars.copy_context().run, call, *args)
    try:
        return await asyncio.wrap_future(job)
    except asyncio.CancelledError:
        job.add_done_callback(lambda job: pool.submit(_give_up, job))
        raise


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


def _post(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> bool:
    """Have the loop call something, from any thread. False: the loop is closed, so nobody waits there any more."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return False
    return True


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


# --- bodies out --------------------------------------------------------------------------------------------------


class _Departure:
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
        await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)

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


class _Turns:
    """Lets so many pieces out in one round of a loop, in order: a hundred bodies must not hold up what else it does."""

    def __init__(self) -> None:
        self.bodies = 0  # that are not closed
        self._left = _TURNS
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a turn in this round; False: there is none left, so it has to be waited for."""
        if self._left:
            self._use()
            return True
        return False

    async def wait(self) -> None:
        """Take a turn in a later round."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _use(self) -> None:
        if self._left == _TURNS:
            asyncio.get_running_loop().call_soon(self._next_round)
        self._left -= 1

    def _next_round(self) -> None:
        self._left = _TURNS
        while self._left and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._use()
                waiter.set_result(None)

    def body_closed(self, _: object) -> None:
        self.bodies -= 1


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


class AsyncBody:
    """A reply's body for an event loop: ``async for piece in body``, then ``await body.close()``.

    A step runs on one of the archiver's threads, ends early where a source would have to be waited for, and gives the
    thread back. It fills up to ``policy.step_bytes`` for a client that is quick, and less for others (``pace``). A
    failing body raises its StreamwareError, and the host must then break the connection.

    :param receive: an ASGI ``receive`` that nobody else reads until ``close()``. It is watched: when the client leaves,
        the body is aborted at once, iteration ends, ``left`` is true, and the body is closed.
    """

    def __init__(self, archiver: Archiver, body: ReplyBody, receive: Receive | _Departure | None = None) -> None:
        self.length = body.length
        self._archiver = archiver
        self._body = body
        self._pieces: list[bytes] = []  # of the last step, last one first
        self._pace = Pace(archiver.policy.step_bytes)
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._lock = threading.Lock()  # guards the two below, which say who closes
        self._stepping = False
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._turns = _turns.setdefault(self._loop, _Turns())
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._departure = _Departure(receive) if callable(receive) else receive
        self._owns_departure = callable(receive)
        if isinstance(body, BytesBody):  # in memory already: no thread is needed, nor waited for
            self._pieces = list(body)
            self._ended = self._closing = True
            self._closed.set_result(None)
        else:
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
        if not self._turns.take():
            await self._turns.wait()
        if self._pieces and not self.left:
            return self._give()
        if not self._closing:
            self._stepping = True
            try:
                step = _pool(self._archiver).submit(self._step)
            except RuntimeError:  # the interpreter is ending
                self._stepping = False
                raise
            waiter = self._waiter = self._loop.create_future()
            step.add_done_callback(lambda _: _post(self._loop, lambda: _release(waiter)))
            try:
                await waiter
            except asyncio.CancelledError:
                self._close_soon()
                raise
            if not self.left:
                try:
                    self._pieces = step.result()
                finally:
                    del step  # it holds its error, and that error's traceback this frame
                if self._pieces:
                    return self._give()
        await self.close()
        raise StopAsyncIteration

    def _give(self) -> bytes:
        piece, *rest = self._pace.cut(self._pieces.pop(), self._turns.bodies)
        self._pieces += reversed(rest)
        self._pace.gave(len(piece), self._loop.time())
        return piece

    async def close(self) -> None:
        """Close the body: after the step that runs, if one does, and waited for within bounds. Idempotent."""
        self._close_soon()
        self._pieces = []
        await asyncio.wait({self._closed}, timeout=_CLOSE_SECONDS)
        if self._departure is not None and self._owns_departure:
            await self._departure.close()

    def _leave(self) -> None:
        self._close_soon()
        if self._waiter is not None:
            _release(self._waiter)

    def _close_soon(self) -> None:
        with self._lock:
            if self._closing:
                return
            self._closing = True
            stepping = self._stepping
        if not self._ended:
            self._body.abort()
        if not stepping:  # else the step closes as it ends
            try:
                _pool(self._archiver).submit(self._close_body)
            except RuntimeError:  # the interpreter is ending
                self._close_body()

    def _step(self) -> list[bytes]:
        """On a pump thread: the next pieces, last one first; none at the end."""
        try:
            return self._fill()
        finally:
            with self._lock:
                self._stepping = False
                last = self._closing = self._closing or self._ended
            if last:
                self._close_body()

    def _fill(self) -> list[bytes]:
        pieces: list[bytes] = []
        size, budget = 0, self._pace.budget(self._turns.bodies)
        try:
            if self._error is not None:
                raise self._error
            while not size or (size < budget and self._body.ready()):
                piece = next(self._body)
                if piece:
                    pieces.append(piece)
                    size += len(piece)
        except StopIteration:
            self._ended = True
        except BaseException as error:
            self._ended = not pieces
            if not pieces:
                raise
            self._error = error  # what came before it goes out first
        pieces.reverse()
        return pieces  # not joined: each is worth a send, and a join would hold a step's bytes twice

    def _close_body(self) -> None:
        try:
            self._body.close()
        except Exception:
            _log.exception("a body failed while it was closed")
        self._error = None  # its traceback holds this body, and nobody is told of it any more
        _post(self._loop, lambda: _release(self._closed))


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
    departure = _Departure(receive)
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


# --- sub-requests in ---------------------------------------------------------------------------------------------


class AsgiSubrequests:
    """Makes sources of members that an ASGI app answers. Made on the loop; the sources are used from pump threads.

    The app runs as a task on the loop and is never far ahead of its reader. An answer that is given up is cancelled.

    :param scope: the outer request's, as it was before the app saw it; it is copied, not changed.
    :param only: lower-case names of the outer request's headers that are passed on; None for the caller's credentials
        and what goes with them (``target.carried``).
    :param bundle_path: the path that members must not lead to; None where that has been checked.
    """

    def __init__(
        self,
        app: App,
        scope: Scope,
        archiver: Archiver,
        *,
        only: frozenset[str] | None = None,
        bundle_path: str | None = None,
    ) -> None:
        self._app = app
        self._scope = scope
        self._seconds = archiver.policy.read_timeout_seconds
        self._max_depth = archiver.policy.max_subrequest_depth
        self._bundle_path = bundle_path
        headers = headers_in(scope)
        self._carried = carried(headers, only)
        self._host = next((value for name, value in headers if name == "host"), "")
        self._root = str(scope.get("root_path", ""))
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._live: set[_Exchange] = set()
        self._aborted = False

    def __call__(self, href: str, pinned: Facts | None = None) -> Source:
        """The source of a member; ``pinned`` is what has been declared of it.

        :raises InvalidTarget: the href is no path, or leads to the bundles.
        :raises LoopDetected: it would stand inside of too many bundles.
        """
        target = aim(href, self._bundle_path)
        depth = deeper(self._scope, self._max_depth)

        def call(method: str, headers: Headers) -> _Exchange:
            scope = scope_for(self._scope, method, self._carried + headers, target=target)
            scope[DEPTH] = depth
            exchange = _Exchange(self._app, scope, self._loop, self._context, self._seconds, self._live.discard)
            with self._lock:
                self._live.add(exchange)
                aborted = self._aborted
            if aborted:
                exchange.abort()
            exchange.begin()
            return exchange

        return InnerSource(call, identity=identity_of(self._host, self._root, target), pinned=pinned)

    def abort(self) -> None:
        """Give up all answers, and whatever is asked from now on. From any thread, at once."""
        with self._lock:
            self._aborted = True
            live = tuple(self._live)
        for exchange in live:
            exchange.abort()


class _Exchange(Handover):
    """One request into an ASGI app: the loop's half of the handover."""

    def __init__(
        self,
        app: App,
        scope: Scope,
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
        seconds: float,
        ended: Callable[[_Exchange], object],
    ) -> None:
        super().__init__(seconds=seconds, head=scope["method"] == "HEAD")
        self._app = app
        self._scope = scope
        self._loop = loop
        self._context = context
        self._tell_ended = ended
        self._asked = False
        # Made and used on the loop only:
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None

    def start_app(self) -> bool:
        return _post(self._loop, self._start)

    def resume_app(self) -> bool:
        return _post(self._loop, self._resume)

    def stop_app(self) -> bool:
        return _post(self._loop, self._stop)

    def _start(self) -> None:
        if self._aborted:
            self._end(None)
            return
        self._gone = self._loop.create_future()
        self._task = self._context.run(self._loop.create_task, self._run())
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)

    def _stop(self) -> None:
        if self._task is None or self._gone is None or self._gone.done():
            return
        if not self._complete:
            self._task.cancel()
        _release(self._gone)

    def _resume(self) -> None:
        if self._room is not None:
            _release(self._room)

    async def _run(self) -> None:
        _depth.set(_depth.get() + 1)
        error: BaseException | None = None
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as failure:
            error = failure
            # Whoever waits for the member learns what failed, and no framework around the app sees it.
            _log.exception("the app failed while it answered for a member: %s", self._scope["path"])
        finally:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._tell_ended(self)
        self.finish(error)

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        assert self._gone is not None
        await asyncio.shield(self._gone)
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.put_head(message["status"], headers_in(message))
        elif message["type"] == "http.response.body":
            self._room = self._loop.create_future()
            if self.put(bytes(message.get("body", b"")), last=not message.get("more_body", False)):
                await self._room


_running: set[asyncio.Task[None]] = set()  # the loop itself holds its tasks only weakly
