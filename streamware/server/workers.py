"""Several serving processes on one socket.

The rule of this file: the parent only watches. It opens no event loop and no thread, so that forking is safe at any
time; a worker that died is replaced, and workers end when their parent does, however it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from streamware.server.metrics import Metrics, forget_process
from streamware.server.run import announce, serve
from streamware.server.settings import Settings

__all__ = ["supervise"]

_log = logging.getLogger(__name__)

_LAST_SECONDS = 5  # what a worker gets beyond the grace before it is killed
_PAUSE_SECONDS = 1.0  # between replacements, so that a worker that cannot start does not spin the machine


def supervise(settings: Settings, listener: socket.socket) -> int:
    """Serve with ``settings.workers`` processes until a signal comes; closes ``listener``. Returns the exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    directory = tempfile.mkdtemp(prefix="streamware-metrics-")
    try:
        return _Supervisor(settings, listener, directory).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Supervisor:
    def __init__(self, settings: Settings, listener: socket.socket, directory: str) -> None:
        self._settings = settings
        self._listener = listener
        self._directory = directory
        self._workers: set[int] = set()
        self._stopping = False
        self._lifeline, self._held = os.pipe()

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGALRM, self._on_alarm)
        ready = [self._start() for _ in range(self._settings.workers)]
        answers = [_is_ready(pipe) for pipe in ready]
        started = all(answers)
        if started and not self._stopping:
            announce(self._listener)
        elif not self._stopping:
            self._stop()
        self._watch()
        self._listener.close()
        return 0 if started else 1

    def _watch(self) -> None:
        while self._workers:
            pid, status = os.wait()
            self._workers.discard(pid)
            forget_process(self._directory, pid)
            if self._stopping:
                continue
            _log.error("worker %d ended with code %d; starting another", pid, os.waitstatus_to_exitcode(status))
            time.sleep(_PAUSE_SECONDS)
            os.close(self._start())

    def _start(self) -> int:
        """Fork a worker. Returns the pipe on which it says that it is ready; the caller closes it."""
        ready, tell = os.pipe()
        # A signal between the fork and the worker's own handlers must neither run the parent's nor be lost.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        pid = -1 if self._stopping else os.fork()
        if pid == 0:
            os.close(ready)
            os.close(self._held)
            _work(self._settings, self._listener, self._directory, tell, self._lifeline)
        if pid > 0:
            self._workers.add(pid)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        os.close(tell)
        return ready

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            self._kill(signal.SIGKILL)
        else:
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._listener.close()
        self._kill(signal.SIGTERM)
        signal.alarm(self._settings.grace_seconds + _LAST_SECONDS)

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        self._kill(signal.SIGKILL)

    def _kill(self, number: int) -> None:
        for pid in tuple(self._workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _is_ready(pipe: int) -> bool:
    """Whether a worker said that it is; False if it ended before. Closes the pipe."""
    with open(pipe, "rb", buffering=0) as told:
        return told.read(1) == b"1"


def _work(settings: Settings, listener: socket.socket, directory: str, tell: int, lifeline: int) -> NoReturn:
    """A worker's whole life.

    Signals only ever mean an orderly end here: the second one is the parent's to act on, since a terminal or a service
    manager sends the same signal to parent and workers alike.
    """
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

        def ready(stop: Callable[[], None]) -> None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})

            def orphaned() -> None:
                loop.remove_reader(lifeline)
                stop()

            loop.add_reader(lifeline, orphaned)
            with contextlib.suppress(BrokenPipeError):  # for a replacement nobody waits
                os.write(tell, b"1")

        serve(settings, listener, Metrics(directory), ready)
        code = 0
    except BaseException:
        _log.exception("a worker failed")
    finally:
        # Never the usual way out: what the parent must clean up once is not a worker's.
        sys.stderr.flush()
        os._exit(code)
