"""The SHA-256 of files: running ones, carried from one request of an upload to the next, and those taken afterwards.

The rule of this file: the state of a SHA-256 lives in the memory of one process and nowhere else. Where it is lost, by
a restart or because another replica took the next request, the whole file is read once, by one thread at a time.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from streamware.errors import StreamwareError

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Hasher", "Hashes"]

_log = logging.getLogger("streamware")

_MOST_STATES = 10_000  # some 300 bytes each
_MOST_WAITING = 10_000  # ids; what finds no place is found again by a later sweep


class Hashes:
    """States of unfinished uploads, the least lately used forgotten first."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, tuple[int, _Hash]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, id: str, offset: int) -> _Hash | None:
        """The state of an upload's first ``offset`` bytes, and no longer kept here; None where it is not known.

        One of other bytes stays: who asks is late, and another goes on from there.
        """
        if offset == 0:
            return hashlib.sha256()
        with self._lock:
            at, state = self._states.get(id, (-1, None))
            if at != offset:
                return None
            del self._states[id]
            return state

    def digest(self, id: str, offset: int) -> bytes | None:
        """The SHA-256 of an upload's first ``offset`` bytes; None where it is not known. Of several who make a file of
        it at the same moment, each is told.
        """
        if offset == 0:
            return hashlib.sha256().digest()
        with self._lock:
            at, state = self._states.get(id, (-1, None))
            return state.digest() if state is not None and at == offset else None

    def keep(self, id: str, offset: int, state: _Hash | None) -> None:
        """Remember a state, which nobody changes any more."""
        if state is None:
            return
        with self._lock:
            self._states[id] = (offset, state)
            self._states.move_to_end(id)
            while len(self._states) > _MOST_STATES:
                self._states.popitem(last=False)

    def forget(self, id: str) -> None:
        with self._lock:
            self._states.pop(id, None)


class Hasher:
    """Reads whole files for their SHA-256, one after another, on a thread of its own that ends when there is none.

    :param read: gives a file's bytes; it may raise StreamwareError.
    :param found: told of the digest of a file.
    """

    def __init__(self, read: Callable[[str], Iterator[bytes]], found: Callable[[str, bytes], None]) -> None:
        self._read = read
        self._found = found
        self._waiting: queue.Queue[str] = queue.Queue(_MOST_WAITING)
        self._known: set[str] = set()  # waiting, or being read
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def want(self, id: str) -> bool:
        """Have a file read when its turn comes. Returns at once; False: there is no room for more now."""
        with self._lock:
            if self._closed.is_set():
                return False
            if id in self._known:
                return True
            try:
                self._waiting.put_nowait(id)
            except queue.Full:
                return False
            self._known.add(id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="streamware-hasher", daemon=True)
                self._thread.start()
            return True

    def close(self, seconds: float = 5.0) -> None:
        """Stop at the next piece; what was not read is found again by a later sweep."""
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._lock:
                try:
                    wanted = self._waiting.get_nowait()
                except queue.Empty:
                    self._thread = None
                    return
            try:
                self._take(wanted)
            except StreamwareError as error:  # deleted meanwhile, or not to be read now
                _log.info("the SHA-256 of stored file %s was not taken: %s", wanted, error)
            except Exception:
                _log.exception("the SHA-256 of stored file %s was not taken", wanted)
            with self._lock:
                self._known.discard(wanted)
                if self._closed.is_set():
                    self._thread = None
                    return

    def _take(self, id: str) -> None:
        state = hashlib.sha256()
        for piece in self._read(id):
            if self._closed.is_set():
                return
            state.update(piece)
        self._found(id, state.digest())
