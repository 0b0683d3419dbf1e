"""Threads that move bytes for event loops: a few for all bodies, started as they are needed, ended when they are not.

The rule of this file: work waits in line for a thread, never for a place in the line; and the thread that was busy last
gets what comes next, so that the others see that they are too many.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Pumps"]

_log = logging.getLogger("streamware")

_IDLE_SECONDS = 2.0  # a thread that has had nothing to do for so long ends; starting one costs 0.1 ms

# PERF: glibc gives memory back once half a MiB of it lies free at the end of the heap, as it does after each step, and
# every page then has to be asked for anew: up to 0.2 s/GiB of 1.0. Freeing one block of this size, whose pages are
# never touched, has it keep twice as much. Elsewhere it does nothing.
_KEPT_BYTES = 2 * 1024 * 1024


class Pumps:
    """At most ``most`` threads. They are daemons, and hold nothing of a body that they are not at."""

    # PERF: 11 us from one thread to another and back; 36 with a ThreadPoolExecutor and its futures.

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()  # guards all below
        self._threads = 0
        self._idle: list[_Place] = []  # the last one was busy last
        self._line: deque[Callable[[], object]] = deque()
        bytes(_KEPT_BYTES)

    @property
    def wanted(self) -> bool:
        """Whether work waits for a thread."""
        return bool(self._line)

    def submit(self, call: Callable[[], object]) -> None:
        """Have some thread call ``call()`` as soon as one is free. Waits for nobody.

        :raises RuntimeError: there is no thread, and the system or the ending interpreter gives none.
        """
        with self._lock:
            if self._idle:
                place = self._idle.pop()
                place.call = call
                place.gate.release()
                return
            if self._threads < self._most:
                thread = threading.Thread(target=self._run, args=(_Place(call),), name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    if not self._threads:
                        raise
                else:
                    self._threads += 1
                    return
            self._line.append(call)

    def _run(self, place: _Place) -> None:
        while place.call is not None:
            try:
                place.call()
            except BaseException:
                _log.exception("a thread that moves bytes failed")
            place.call = None  # hold nothing while idle
            with self._lock:
                if self._line:
                    place.call = self._line.popleft()
                    continue
                self._idle.append(place)
            if not place.gate.acquire(timeout=_IDLE_SECONDS):
                with self._lock:
                    if place in self._idle:
                        self._idle.remove(place)
                        self._threads -= 1
                        return
                place.gate.acquire()  # something was given to it just now


class _Place:
    """Where an idle thread waits, and what it is given there."""

    __slots__ = ("call", "gate")

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call
        self.gate = threading.Lock()
        self.gate.acquire()
