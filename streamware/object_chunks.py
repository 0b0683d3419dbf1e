"""A range of a remote object as it comes in, in one answer or in several.

The rule of this file: an answer that breaks off is asked for again from where it stands, once for each piece that came.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from streamware.errors import BodyClosed, SizeMismatch
from streamware.upload_errors import StoreError

__all__ = ["RemoteChunks"]

_log = logging.getLogger("streamware")


class RemoteChunks:
    """See ``Objects.chunks``.

    :param ask: has the store answer with a range of the object; what it returns gives the next bytes, none at the end.
    :param name: of the object, for the log.
    """

    __slots__ = ("_aborted", "_ask", "_end", "_failed", "_name", "_next", "_offset")

    def __init__(self, ask: Callable[[int, int], Callable[[], bytes]], name: str, start: int, length: int) -> None:
        self._ask = ask
        self._name = name
        self._offset = start
        self._end = start + length
        self._aborted = False
        self._failed = False  # since the last piece
        self._next: Callable[[], bytes] | None = ask(start, self._end) if length else None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._aborted:
            raise BodyClosed("read after abort() or close()")
        left = self._end - self._offset
        if not left:
            raise StopIteration
        piece = self._read()
        if not 0 < len(piece) <= left:
            raise SizeMismatch(f"{self._name} gave {len(piece)} of {left} bytes that are left")
        self._offset += len(piece)
        self._failed = False
        return piece

    def _read(self) -> bytes:
        assert self._next is not None
        while True:
            try:
                return self._next()
            except StoreError as error:
                # Servers end an answer that nobody reads for a while, and this may have been opened before its turn.
                if self._failed or self._aborted:
                    raise
                _log.info("%s: asked for again from %d on: %s", self._name, self._offset, error)
            self._failed = True
            self._next = self._ask(self._offset, self._end)

    def ready(self) -> bool:
        return self._offset == self._end

    def abort(self) -> None:
        self._aborted = True

    def close(self) -> None:
        self._aborted = True
        self._next = None  # the connection goes with it
