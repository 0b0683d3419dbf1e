"""Content that is made here: bytes in memory, and iterables made by a factory.

The rule of this file: what a factory gives is checked piece by piece; a str, a short or a long stream is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

from streamware.checksums import crc32
from streamware.errors import BodyClosed, SizeMismatch, SourceError, StreamwareError
from streamware.model import Chunks, Facts

__all__ = ["DataChunks", "DataSource", "StreamSource"]

_log = logging.getLogger("streamware")


class DataChunks:
    """Bytes in memory, given in one piece."""

    __slots__ = ("_aborted", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._aborted = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._aborted:
            raise BodyClosed("read after abort()")
        data, self._data = self._data, b""
        if not data:
            raise StopIteration
        return data

    def ready(self) -> bool:
        return True

    def abort(self) -> None:
        self._aborted = True

    def close(self) -> None:
        self._data = b""


class DataSource:
    """Bytes in memory. All facts are known, so a member of it needs no descriptor and can always be resumed."""

    __slots__ = ("_data",)

    instant = True  # opening and reading wait for nobody

    def __init__(self, data: bytes) -> None:
        self._data = data

    def probe(self, *, keep: bool = False) -> Facts:
        tag = f'"{blake2b(self._data, digest_size=16).hexdigest()}"'
        return Facts(size=len(self._data), validator=tag, crc32=crc32(self._data))

    def open(self, start: int, length: int | None) -> Chunks:
        return DataChunks(self._data[start : None if length is None else start + length])

    def read(self, start: int, length: int) -> bytes:
        return self._data[start : start + length]

    def close(self) -> None:
        pass


class StreamSource:
    """An iterable of bytes that ``factory()`` makes anew for each reading.

    :param size: how many bytes it gives, None if not known. More or fewer are a SizeMismatch.
    :param etag: a strong entity-tag that promises the same bytes at each call, or None.
    """

    __slots__ = ("_etag", "_factory", "_size")

    def __init__(self, factory: Callable[[], Iterable[bytes]], *, size: int | None, etag: str | None) -> None:
        self._factory = factory
        self._size = size
        self._etag = etag

    def probe(self, *, keep: bool = False) -> Facts:
        return Facts(size=self._size, validator=self._etag)

    def open(self, start: int, length: int | None) -> Chunks:
        try:
            made = self._factory()
            pieces = iter(made)
        except StreamwareError:
            raise
        except Exception as error:
            raise SourceError(f"the factory of a stream failed: {error!r}") from error
        whole = self._size is not None and length is not None and start + length == self._size
        return _StreamChunks(made, pieces, start, length, ends_here=whole)

    def close(self) -> None:
        pass


class _StreamChunks:
    """A window of a generated stream; what lies before it is generated and dropped, for there is no other way there."""

    __slots__ = ("_aborted", "_ends_here", "_left", "_made", "_pieces", "_skip")

    def __init__(
        self, made: Iterable[bytes], pieces: Iterator[bytes], skip: int, left: int | None, *, ends_here: bool
    ) -> None:
        self._made = made
        self._pieces = pieces
        self._skip = skip
        self._left = left
        self._ends_here = ends_here
        self._aborted = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while self._left != 0:
            piece = self._pull()
            if piece is None:
                if self._left is None:
                    raise StopIteration
                raise SizeMismatch(f"a stream ended {self._left} bytes short of its size")
            if self._skip:
                dropped = min(self._skip, len(piece))
                self._skip -= dropped
                piece = piece[dropped:]
            if self._left is not None:
                if len(piece) > self._left and self._ends_here:
                    raise SizeMismatch("a stream gave more bytes than its size")
                piece = piece[: self._left]
                self._left -= len(piece)
            if piece:
                return piece
        if self._ends_here:
            self._ends_here = False
            while (piece := self._pull()) is not None:
                if piece:
                    raise SizeMismatch("a stream gave more bytes than its size")
        raise StopIteration

    def _pull(self) -> bytes | None:
        """The next piece, None at the end."""
        if self._aborted:
            raise BodyClosed("read after abort()")
        try:
            piece = next(self._pieces)
        except StopIteration:
            return None
        except StreamwareError:
            raise
        except Exception as error:
            raise SourceError(f"a stream failed: {error!r}") from error
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise SourceError(f"a stream must give bytes, not {type(piece).__name__}")
        return bytes(piece)

    def ready(self) -> bool:
        # Nobody can tell how long foreign code will think before its next piece.
        return self._left == 0 and not self._ends_here

    def abort(self) -> None:
        self._aborted = True

    def close(self) -> None:
        for closeable in (self._pieces, self._made):
            close = getattr(closeable, "close", None)
            if close is not None:
                try:
                    close()
                except Exception:
                    # The stream has been read or given up by now; its failure is for the log.
                    _log.exception("a stream failed while it was closed")
