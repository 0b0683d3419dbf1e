"""What a loop sees of its clients: how they speak, that one has left, and that many ask at the same time.

The rule of this file: all of it happens on the loop, and nothing in it knows what a body is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["App", "Departure", "Message", "Receive", "Scope", "Send", "Turns", "turns_of"]

_log = logging.getLogger("streamware")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_TURNS = 16  # pieces given in one round of a loop, 0.1 ms each; an answer to anything else takes some five rounds
_CLOSE_SECONDS = 5.0  # how long anyone waits for the watch to end; it goes on ending without being waited for


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


class Turns:
    """Lets so many pieces out in one round of a loop, in order: a hundred bodies must not hold up what else it does.

    Used on that loop alone, and does not hold it: a program may use a loop for each call.
    """

    def __init__(self) -> None:
        self.bodies = 0  # that are not closed
        self._left = _TURNS
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Take a turn in this round; False: there is none left, so it has to be waited for."""
        if self._left:
            self._use(loop)
            return True
        return False

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take a turn in a later round."""
        waiter = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _use(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._left == _TURNS:
            loop.call_soon(self._next_round, loop)
        self._left -= 1

    def _next_round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = _TURNS
        while self._left and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._use(loop)
                waiter.set_result(None)

    def body_closed(self, _: object) -> None:
        self.bodies -= 1


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    return _turns.setdefault(loop, Turns())
