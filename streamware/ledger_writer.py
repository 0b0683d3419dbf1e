"""What the ledger has yet to write to its database, and the one thread that does, off the way of any download.

The rule of this file: to add something takes microseconds and waits for nobody; what is pending is bounded. The writer
takes what there is after 48 MiB of content, 4000 blocks, 2 seconds or a flush, whichever comes first, and keeps what it
could not write.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from streamware.database import Complaints
from streamware.ledger import Learned
from streamware.ledger_tables import Tables
from streamware.memory_ledger import MemoryLedger
from streamware.sessions import Session, Task

__all__ = ["IDLE_SECONDS", "Pause", "Writer"]

_log = logging.getLogger("streamware")

K = TypeVar("K")

IDLE_SECONDS = 60.0  # a connection is not kept longer
_AT_BYTES = 48 * 1024 * 1024  # of content; what is lost with the process, and what it was just at, come to 64 MiB
_AT_SECONDS = 2.0
_AT_BLOCKS = 4000
_TOGETHER = 8000  # rows in one transaction
_MAX_PENDING = 65_536  # of blocks, of compressed sizes, of versions to forget
_ENOUGH_PENDING = _MAX_PENDING * 63 // 64
_PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds between attempts; the last goes on
_SWEEP_SECONDS = 3600
_REMEMBER = 10_000  # versions forgotten lately


class Pause:
    """How long the database is left alone after something went wrong: longer every time, until something goes right."""

    def __init__(self) -> None:
        self.until = 0.0  # by the monotonic clock
        self._times = 0

    def begin(self) -> None:
        self.until = time.monotonic() + _PAUSES[min(self._times, len(_PAUSES) - 1)]
        self._times += 1

    def end(self) -> bool:
        """Whether there was one."""
        times, self._times, self.until = self._times, 0, 0.0
        return times > 0


class _Batch(NamedTuple):
    blocks: dict[tuple[bytes, int], int]
    coded: dict[bytes, int]
    forgets: dict[bytes, float]


class Writer:
    """Starts its thread when there is something to write.

    :param memory: is told what is learned, and tells what of it is news.
    :param ended: called after each transaction with whether it succeeded, from that thread.
    """

    def __init__(
        self, tables: Tables, memory: MemoryLedger, complain: Complaints, ended: Callable[[bool], None]
    ) -> None:
        self.session = Session(tables.database, durable=False)
        self._tables = tables
        self._memory = memory
        self._complain = complain
        self._ended = ended
        self._lock = threading.Lock()  # guards all that follows
        self._wake = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._closing = False
        self._hurry = False  # all that is pending is wanted now
        self._since = 0.0  # when the first of what is pending came; 0 where nothing is
        self._new: list[Learned] = []  # may be known already
        self._blocks: dict[tuple[bytes, int], int] = {}  # CRC-32 by version and index
        self._bytes = 0  # of content that both stand for
        self._coded: dict[bytes, int] = {}
        self._forgets: dict[bytes, float] = {}  # and when it was asked for
        self._forgotten: dict[bytes, float] = {}  # all of lately, and when it was asked for or, if it is, done
        self._flying = 0  # rows that are being written
        self._pause = Pause()
        self._sweep_at = 0.0
        self._sweeps: list[Task[bool]] = []  # still to do

    def learn(self, version: bytes, block: int, crc32: int, length: int) -> None:
        """``length`` is how many bytes have to be read again if this is lost."""
        with self._lock:
            self._new.append((version, block, crc32))
            self._bytes += length
            enough = self._bytes >= _AT_BYTES or len(self._new) >= _AT_BLOCKS
            # PERF: what is known already is found out later, of many at once.
            if enough or not self._since or self._thread is None:
                if len(self._new) >= 2 * _AT_BLOCKS:
                    self._settle()  # the thread is late
                hurried, self._hurry = self._hurry, self._hurry or enough
                self._added(look=enough and not hurried)

    def learn_again(self, version: bytes, blocks: Sequence[tuple[int, int]]) -> None:
        """Write what is in the database once more, for it is getting old there."""
        with self._lock:
            for block, crc in blocks:
                self._blocks[version, block] = crc
            self._added()

    def settle(self) -> None:
        """Have the memory know all that was learned until now."""
        with self._lock:
            self._settle()

    def unsettled(self) -> list[Learned]:
        """What the memory does not know yet. Takes no lock, for a copy of a process in which it may be held."""
        return list(self._new)

    def learn_coded(self, key: bytes, length: int) -> None:
        with self._lock:
            self._coded[key] = length
            self._added()

    def forget(self, version: bytes) -> None:
        with self._lock:
            self._settle()
            for key in [key for key in self._blocks if key[0] == version]:
                del self._blocks[key]
            self._forgotten.pop(version, None)
            self._forgets[version] = self._forgotten[version] = time.monotonic()
            if len(self._forgotten) > _REMEMBER:
                del self._forgotten[next(iter(self._forgotten))]
            self._hurry = True
            self._added(look=True)

    def forgotten_since(self, when: float) -> set[bytes]:
        """Versions whose rows are not to be believed if they were read at ``when`` (by the monotonic clock)."""
        with self._lock:
            if not self._forgotten:
                return set()
            return {*self._forgets, *(version for version, then in self._forgotten.items() if then >= when)}

    def flush(self) -> None:
        with self._lock:
            if self._since and not self._hurry:
                self._hurry = True
                self._wake.notify()

    def soon(self) -> None:
        """The database answers: no need to wait with what could not be written."""
        with self._lock:
            self._pause.end()
            self._wake.notify()

    def close(self, seconds: float) -> None:
        """Write what is pending, no longer than that, and end."""
        with self._lock:
            self._closing = True
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)
        with self._lock:
            self._settle()
            left = len(self._blocks) + len(self._coded) + self._flying
        if left:
            _log.warning("the ledger's database did not take in %d checksums and sizes at the end", left)
        self.session.close(0.0)

    # --- with the lock held ---

    def _added(self, *, look: bool = False) -> None:
        """Something is pending that was not; ``look`` where the thread might have to act on it at once."""
        if self._closing:
            self._settle()
            self._blocks, self._coded, self._forgets = {}, {}, {}
            return
        if not self._since:
            self._since = time.monotonic()
            look = True
        self._shrink()
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="streamware-ledger-writer", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError as error:  # no more threads to be had; or the interpreter is ending
                self._complain("write", f"nothing can be written: {error}")
        elif look:
            self._wake.notify()

    def _settle(self) -> None:
        new, self._new = self._new, []
        if new:
            for version, block, crc in self._memory.learn_all(new):
                self._blocks[version, block] = crc

    def _shrink(self) -> None:
        all_of_it: tuple[dict[Any, Any], ...] = (self._blocks, self._coded, self._forgets)
        for pending in all_of_it:
            if len(pending) > _MAX_PENDING:
                text = "more was learned than the database takes in; the oldest of it is not written"
                self._complain("overflow", text)
                # Many at once: to find the oldest costs more the more have left before it.
                for oldest in list(islice(pending, len(pending) - _ENOUGH_PENDING)):
                    del pending[oldest]

    def _wait_seconds(self) -> float:
        if self._closing or self._sweeps:
            return 0.0
        now = time.monotonic()
        wait = self._sweep_at - now
        if self._since:
            due = 0.0 if self._hurry else self._since + _AT_SECONDS - now
            wait = min(wait, due)
        return max(wait, self._pause.until - now)

    def _take(self) -> _Batch:
        """What to write next, the latest first. What is to be forgotten is still pending until it is."""
        self._settle()
        blocks, coded = _some(self._blocks), _some(self._coded)
        forgets = dict(islice(self._forgets.items(), _TOGETHER))
        self._flying = len(blocks) + len(coded)
        self._taken()
        return _Batch(blocks, coded, forgets)

    def _taken(self) -> None:
        if not (self._new or self._blocks or self._coded or self._forgets):
            self._since, self._hurry, self._bytes = 0.0, False, 0

    def _put_back(self, batch: _Batch) -> None:
        for (version, block), crc in batch.blocks.items():
            if self._forgets.get(version) in (None, batch.forgets.get(version)):  # else forgotten since
                self._blocks.setdefault((version, block), crc)
        for key, length in batch.coded.items():
            self._coded.setdefault(key, length)
        self._since, self._hurry = self._since or time.monotonic(), True
        self._shrink()

    # --- in the thread ---

    def _run(self) -> None:
        last = False
        while not last:
            with self._lock:
                wait = self._wait_seconds()
                idle = wait > 0 and not self._wake.wait(min(wait, IDLE_SECONDS)) and not self._since
                last = self._closing
                batch = self._take() if self._wait_seconds() <= 0 else _NOTHING
            if any(batch):
                last = not self._write(batch) and last
            elif idle:
                self.session.close(0.0)
            if not last:
                self._sweep()
        self.session.close(0.0)

    def _write(self, batch: _Batch) -> bool:
        try:
            if batch.forgets:
                self.session.run(partial(self._tables.write_forgotten, versions=list(batch.forgets)), write=True)
                with self._lock:
                    now = time.monotonic()
                    for version, when in batch.forgets.items():
                        if self._forgets.get(version) == when:
                            del self._forgets[version]
                            # Whoever began to read before this may have read rows that are gone only now.
                            self._forgotten[version] = now
                    self._taken()
            if batch.blocks or batch.coded:
                self.session.run(partial(self._tables.write, blocks=batch.blocks, coded=batch.coded), write=True)
        except Exception as error:
            self._complain("write", "what was learned cannot be written, and is kept for later", error)
            with self._lock:
                self._flying = 0
                self._put_back(batch)
                self._pause.begin()
            self._ended(False)
            return False
        with self._lock:
            self._flying = 0
            self._pause.end()
        self._ended(True)
        return True

    def _sweep(self) -> None:
        """Delete some of what has expired, if no other process does."""
        try:
            if self._sweeps:
                if not self.session.run(self._sweeps[-1], write=True):
                    self._sweeps.pop()
            elif time.monotonic() >= self._sweep_at:
                self._sweep_at = time.monotonic() + _SWEEP_SECONDS
                if self.session.run(partial(self._tables.claim_sweep, every=_SWEEP_SECONDS), write=True):
                    self._sweeps = self._tables.sweeps()
        except Exception as error:
            self._sweeps = []
            self._complain("sweep", "expired rows cannot be deleted", error)


def _some(pending: dict[K, int]) -> dict[K, int]:
    """Take all out, or some, the latest first."""
    if len(pending) <= _TOGETHER:
        taken = pending.copy()
        pending.clear()
        return taken
    return dict(pending.popitem() for _ in range(_TOGETHER))


_NOTHING = _Batch({}, {}, {})
