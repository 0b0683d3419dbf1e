"""One serving process: its socket, its event loop, its signals.

The rule of this file: the first signal stops accepting and lets running downloads end, within the grace; the second
ends the process at once. A download that is cut off breaks visibly, so neither can leave a false archive behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import uvicorn

from streamware.errors import StreamwareError
from streamware.filestore import FileStore
from streamware.server.app import make_app
from streamware.server.metrics import Metrics
from streamware.server.settings import VERSION, Address, Settings, about
from streamware.server.uploads import CountedStore
from streamware.service import Archiver

__all__ = ["announce", "listen", "run", "serve"]

_BACKLOG = 2048  # connections the system holds while the loop is busy
_CLOSE_SECONDS = 1.0  # for downloads that were cut off to close what they hold
_KEEP_SECONDS = 3.0  # and for uploads to keep what has come; below what a worker gets, see ``workers``


def listen(address: Address) -> socket.socket:
    """Bind and listen. The caller closes the socket.

    :raises OSError: the name cannot be resolved, or the address cannot be had; with a text for the operator.
    """
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, target = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {address}: {error.strerror or error}") from error
    return listener


def announce(listener: socket.socket) -> None:
    """Tell whoever waits for it that connections are answered from now on."""
    host, port = listener.getsockname()[:2]
    print(f"streamware {VERSION} listening on http://{Address(host, port)}", flush=True)


def run(settings: Settings, listener: socket.socket) -> int:
    """Serve in this process until a signal comes; closes ``listener``. Returns the exit code."""

    def ready(stop: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _first_or_second(stop), number)
        announce(listener)

    serve(settings, listener, Metrics(), ready)
    return 0


def _first_or_second(stop: Callable[[], None]) -> Callable[[int], None]:
    seen: list[int] = []

    def handle(number: int) -> None:
        if seen:
            _leave(128 + number)
        seen.append(number)
        stop()

    return handle


_log = logging.getLogger("streamware.server")


def _leave(code: int) -> NoReturn:
    """End the process now. Threads may wait on upstreams that never answer, and the usual way out waits for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve(
    settings: Settings, listener: socket.socket, metrics: Metrics, ready: Callable[[Callable[[], None]], None]
) -> None:
    """Run an event loop that answers on ``listener`` until it is told to stop; closes ``listener``.

    Where downloads had to be cut off when the grace was over, it ends the whole process, with code 0.

    :param ready: called once on the loop when connections are being accepted, with the function that stops it.
    """
    _tune_malloc()
    policy = settings.policy()
    store = None if settings.store is None else CountedStore(settings.store, settings.rows, policy, metrics)
    archiver = Archiver(policy, settings.ledger, observer=metrics, files=store)
    try:
        config = uvicorn.Config(
            make_app(settings.root, archiver, metrics, hidden=settings.hidden, tokens=settings.tokens),
            loop="asyncio",
            lifespan="off",
            ws="none",
            server_header=False,
            access_log=settings.access_log,
            log_config=_logging(),
            timeout_graceful_shutdown=settings.grace_seconds,
        )
        _log.info("%s", about())
        if store is None:
            _log.info("no uploads are taken: %s", settings.no_uploads)
        else:
            _log.info("uploads are kept in %s", store.objects.name)
            store.start()
        asyncio.run(_Server(config, ready, store).serve([listener]))
    finally:
        listener.close()
        archiver.close()
        if store is not None:
            store.close()


def _tune_malloc() -> None:
    """Let this process hold on to little memory, but to that little firmly (glibc; elsewhere nothing).

    Two arenas for all threads instead of one each: each pump thread's own would keep a few MiB of freed pieces, 19 MiB
    in all while 4 GiB of an upstream stream, and 13 MiB with two. And 2 MiB at their ends that are not given back at
    once: else each piece is cleared memory anew, an eighth of all CPU time.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(-8, 2)  # M_ARENA_MAX
        libc.mallopt(-2, 2 * 1024 * 1024)  # M_TOP_PAD
    except (AttributeError, OSError):
        _log.debug("no arenas to share on this system")


class _Brief(logging.Filter):
    """Takes tracebacks out of what is no fault of the program: the log has told of it, or the operator wanted it."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, StreamwareError):
            record.msg, record.args, record.exc_info = "an answer was broken off: %s", (error,), None
        return not isinstance(error, asyncio.CancelledError)


class _Server(uvicorn.Server):
    """A server that tells when it is ready and leaves signals to whoever started it."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[Callable[[], None]], None], store: FileStore | None
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._store = store

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready(self._stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        cut_off = set(self.server_state.tasks)
        if cut_off:
            await asyncio.wait(cut_off, timeout=_CLOSE_SECONDS)
            # What has come of uploads that were cut off is kept meanwhile, by threads that nobody waits for.
            end = time.monotonic() + _KEEP_SECONDS
            while self._store is not None and self._store.active and time.monotonic() < end:
                await asyncio.sleep(0.02)
            _leave(0)

    def _stop(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own version raises the signal anew at the end, which would make an orderly end look like a death.
        yield


def _logging() -> dict[str, Any]:
    """Everything to stderr: stdout carries the one line that tells where we listen."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "filters": {"brief": {"()": _Brief}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["brief"]}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"uvicorn.access": {"level": "INFO"}, "streamware.server": {"level": "INFO"}},
    }
