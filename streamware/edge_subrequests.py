"""Members that an ASGI app answers: sub-requests into it from pump threads.

The rule of this file: the app runs as a task on the loop it belongs to, is never far ahead of its reader, and is
cancelled when its answer is given up.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable

from streamware.edge import App, Event, Loop, Message, Scope, Task, current_loop, post, spawn
from streamware.edge_threads import depth
from streamware.inner import DEPTH, aim, deeper, headers_in, identity_of, scope_for
from streamware.model import Facts, Source
from streamware.service import Archiver
from streamware.sources.handover import Handover
from streamware.sources.subrequest import InnerSource
from streamware.target import carried

__all__ = ["AsgiSubrequests"]

_log = logging.getLogger("streamware")

Headers = list[tuple[str, str]]


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
        self._loop = current_loop()
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
        loop: Loop,
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
        # Used on the loop only:
        self._task: Task[None] | None = None
        self._room = Event()
        self._gone = Event()

    def start_app(self) -> bool:
        return post(self._loop, self._start)

    def resume_app(self) -> bool:
        return post(self._loop, self._room.set)

    def stop_app(self) -> bool:
        return post(self._loop, self._stop)

    def _start(self) -> None:
        if self._aborted:
            self._end(None)
            return
        self._task = self._context.run(spawn, self._run())

    def _stop(self) -> None:
        if self._task is None or self._gone.is_set():
            return
        if not self._complete:
            self._task.cancel()
        self._gone.set()

    async def _run(self) -> None:
        depth.set(depth.get() + 1)
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
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.put_head(message["status"], headers_in(message))
        elif message["type"] == "http.response.body":
            self._room.clear()
            if self.put(bytes(message.get("body", b"")), last=not message.get("more_body", False)):
                await self._room.wait()
