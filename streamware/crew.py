"""Threads that take work as it comes and go again: a few for all bundles, none while there is nothing to do.

The rules of this file: there is no queue, so work that finds no thread is refused and stays with whoever had it; and
nothing waits long for a thread to end, for what it is at may be an upstream that says nothing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Crew", "Room", "usable_cores"]

_log = logging.getLogger("streamware")

_IDLE_SECONDS = 2.0  # a thread that has had nothing to do for so long ends; starting one costs 0.1 ms
_CLOSE_SECONDS = 1.0  # how long anyone waits for threads to end; they go on ending without being waited for


class Room:
    """Bytes that all bundles together may hold beyond what each may in any case. Used from any thread."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = threading.Lock()
        self._returned: deque[int] = deque()  # by whom no lock may be waited for: ``__del__`` runs at any moment

    def lend(self, count: int) -> bool:
        """Whether there are so many bytes left. Waits for nobody; whoever gets them gives them back."""
        with self._lock:
            while self._returned:
                self._left += self._returned.popleft()
            if count > self._left:
                return False
            self._left -= count
            return True

    def give_back(self, count: int) -> None:
        self._returned.append(count)


class Crew:
    """At most ``most`` threads. They are daemons: a silent upstream does not hold up the end of the process.

    :param room: for what they read.
    """

    def __init__(self, most: int, name: str, room: Room) -> None:
        self.room = room
        self.most = most
        self._name = name
        self._news = threading.Condition()  # guards all below
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._given: deque[Callable[[], object]] = deque()  # as long as there are idle threads for it
        self._closed = False

    def start(self, work: Callable[[], object]) -> bool:
        """Have some thread call ``work()`` now; False: there is none to be had."""
        with self._news:
            if self._closed:
                return False
            if self._idle > len(self._given):
                self._given.append(work)
                self._news.notify()
                return True
            if len(self._threads) >= self.most:
                return False
            thread = threading.Thread(target=self._run, args=([work],), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending, or the system gives no more threads
                return False
            self._threads.add(thread)
            return True

    def close(self) -> None:
        """Take no more work. Threads end as they finish what they are at; they are waited for within bounds."""
        with self._news:
            self._closed = True
            threads = tuple(self._threads)
            self._news.notify_all()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, first: list[Callable[[], object]]) -> None:
        work: Callable[[], object] | None = first.pop()  # the thread itself would hold it to its end
        while work is not None:
            try:
                work()
            except BaseException:
                _log.exception("a thread of %s failed", self._name)
            work = None  # hold nothing while idle
            with self._news:
                self._idle += 1
                self._news.wait_for(lambda: self._given or self._closed, timeout=_IDLE_SECONDS)
                self._idle -= 1
                if self._given:
                    work = self._given.popleft()
                else:
                    self._threads.discard(threading.current_thread())


def usable_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
