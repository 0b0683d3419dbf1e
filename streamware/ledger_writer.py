"""What the ledger has yet to write to its database, and the one thread that does, off the way of any download.

The rule of this file: to add something takes microseconds and waits for nobody; what is pending is bounded. The writer
takes what there is after 8 blocks, 2 seconds or a flush, whichever comes first, and keeps what it could not write.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from streamware.ledger_session import Complaints, Session, Task
from streamware.ledger_tables import Tables

__all__ = ["IDLE_SECONDS", "Pause", "Writer"]

_log = logging.getLogger("streamware")

IDLE_SECONDS = 60.0  # a connection is not kept longer
_AT_BLOCKS = 8  # 32 MiB of content
_AT_SECONDS = 2.0
_TOGETHER = 2000  # rows in one transaction
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
    blocks: list[tuple[bytes, int, int]]
    coded: list[tuple[bytes, int]]
    forgets: dict[bytes, float]


class Writer:
    """Starts its thread when there is something to write.

    :param ended: called after each transaction with whether it succeeded, from that thread.
    """

    def __init__(self, tables: Tables, complain: Complaints, ended: Callable[[bool], None]) -> None:
        self.session = Session(tables, durable=False)
        self._tables = tables
        self._complain = complain
        self._ended = ended
        self._wake = threading.Condition(threading.Lock())  # guards all that follows
        self._thread: threading.Thread | None = None
        self._closing = False
        self._hurry = False
        self._since = 0.0  # when the first of what is pending came; 0 where nothing is
        self._blocks: dict[bytes, dict[int, int]] = {}
        self._count = 0  # of blocks
        self._coded: dict[bytes, int] = {}
        self._forgets: dict[bytes, float] = {}  # and when it was asked for
        self._forgotten: dict[bytes, float] = {}  # all of lately, and when it was asked for or, if it is, done
        self._flying = 0  # rows that are being written
        self._pause = Pause()
        self._sweep_at = 0.0
        self._sweeps: list[Task[bool]] = []  # still to do

    def learn(self, version: bytes, news: Sequence[tuple[int, int]]) -> None:
        with self._wake:
            blocks = self._blocks.setdefault(version, {})
            before = len(blocks)
            blocks.update(news)
            self._count += len(blocks) - before
            self._added(look=self._count - len(blocks) + before < _AT_BLOCKS <= self._count)

    def learn_coded(self, key: bytes, length: int) -> None:
        with self._wake:
            self._coded[key] = length
            self._added()

    def forget(self, version: bytes) -> None:
        with self._wake:
            self._count -= len(self._blocks.pop(version, ()))
            self._forgotten.pop(version, None)
            self._forgets[version] = self._forgotten[version] = time.monotonic()
            if len(self._forgotten) > _REMEMBER:
                del self._forgotten[next(iter(self._forgotten))]
            self._hurry = True
            self._added(look=True)

    def forgotten_since(self, when: float) -> set[bytes]:
        """Versions whose rows are not to be believed if they were read at ``when`` (by the monotonic clock)."""
        with self._wake:
            if not self._forgotten:
                return set()
            return {*self._forgets, *(version for version, then in self._forgotten.items() if then >= when)}

    def flush(self) -> None:
        with self._wake:
            if self._since and not self._hurry:
                self._hurry = True
                self._wake.notify()

    def soon(self) -> None:
        """The database answers: no need to wait with what could not be written."""
        with self._wake:
            self._pause.end()
            self._wake.notify()

    def close(self, seconds: float) -> None:
        """Write what is pending, no longer than that, and end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)
        with self._wake:
            left = self._count + len(self._coded) + self._flying
        if left:
            _log.warning("the ledger's database did not take in %d checksums and sizes at the end", left)
        self.session.close(0.0)

    # --- with the lock held ---

    def _added(self, *, look: bool = False) -> None:
        """Something is pending that was not; ``look`` where the thread might have to act on it at once."""
        if self._closing:
            self._blocks, self._coded, self._forgets, self._count = {}, {}, {}, 0
            return
        if not self._since:
            self._since = time.monotonic()
            look = True
        if max(self._count, len(self._coded), len(self._forgets)) > _MAX_PENDING:
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

    def _shrink(self) -> None:
        self._complain("overflow", "more was learned than the database takes in; the oldest of it is not written")
        # Many at once: to find the oldest costs more the more have left before it.
        for oldest in list(islice(self._blocks, _MAX_PENDING // 64)):
            if self._count > _ENOUGH_PENDING:
                self._count -= len(self._blocks.pop(oldest))
        for pending in (self._coded, self._forgets):
            for oldest in list(islice(pending, max(0, len(pending) - _ENOUGH_PENDING))):
                del pending[oldest]

    def _wait_seconds(self) -> float:
        if self._closing or self._sweeps:
            return 0.0
        now = time.monotonic()
        wait = self._sweep_at - now
        if self._since:
            due = 0.0 if self._hurry or self._count >= _AT_BLOCKS else self._since + _AT_SECONDS - now
            wait = min(wait, due)
        return max(wait, self._pause.until - now)

    def _take(self) -> _Batch:
        """What to write next, the latest first. What is to be forgotten is still pending until it is."""
        blocks: list[tuple[bytes, int, int]] = []
        while self._blocks and len(blocks) < _TOGETHER:
            version, some = self._blocks.popitem()
            while some and len(blocks) < _TOGETHER:
                blocks.append((version, *some.popitem()))
            if some:
                self._blocks[version] = some
        self._count -= len(blocks)
        coded = [self._coded.popitem() for _ in range(min(len(self._coded), _TOGETHER))]
        forgets = dict(islice(self._forgets.items(), _TOGETHER))
        self._flying = len(blocks) + len(coded)
        self._settle()
        return _Batch(blocks, coded, forgets)

    def _settle(self) -> None:
        if not (self._blocks or self._coded or self._forgets):
            self._since, self._hurry = 0.0, False

    def _put_back(self, batch: _Batch) -> None:
        for version, block, crc in batch.blocks:
            if self._forgets.get(version) in (None, batch.forgets.get(version)):  # else forgotten since
                blocks = self._blocks.setdefault(version, {})
                self._count += block not in blocks
                blocks.setdefault(block, crc)
        for key, length in batch.coded:
            self._coded.setdefault(key, length)
        self._since = self._since or time.monotonic()
        if max(self._count, len(self._coded)) > _MAX_PENDING:
            self._shrink()

    # --- in the thread ---

    def _run(self) -> None:
        last = False
        while not last:
            with self._wake:
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
                with self._wake:
                    now = time.monotonic()
                    for version, when in batch.forgets.items():
                        if self._forgets.get(version) == when:
                            del self._forgets[version]
                            # Whoever began to read before this may have read rows that are gone only now.
                            self._forgotten[version] = now
                    self._settle()
            if batch.blocks or batch.coded:
                self.session.run(partial(self._tables.write, blocks=batch.blocks, coded=batch.coded), write=True)
        except Exception as error:
            self._complain("write", "what was learned cannot be written, and is kept for later", error)
            with self._wake:
                self._flying = 0
                self._put_back(batch)
                self._pause.begin()
            self._ended(False)
            return False
        with self._wake:
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


_NOTHING = _Batch([], [], {})
