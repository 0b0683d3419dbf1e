"""The archiver's own threads, on which an event loop's work is done that would block it.

The rule of this file: whoever hands work over waits for nobody, and nothing in it knows a loop.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from streamware.pumps import Pumps
from streamware.service import Archiver

__all__ = ["depth", "give_up", "start", "threads"]

T = TypeVar("T")

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


def give_up(job: Future[T], pool: Pumps, undo: Callable[[T], object]) -> None:
    """Have a thread undo what a job makes, once it has: nobody waits for that any more."""
    job.add_done_callback(lambda job: pool.submit(partial(_undo, undo, job)))


def _undo(undo: Callable[[T], object], job: Future[T]) -> None:
    if not job.cancelled() and job.exception() is None:
        undo(job.result())
