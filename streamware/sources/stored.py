"""Stored files as members: a walk over the parts that hold their bytes.

The rule of this file: a part is opened when its turn has come, gives exactly the bytes its row says, and none of it is
copied on its way; of a file that is deleted meanwhile a reader that has begun gets the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from streamware.errors import BodyClosed, MemberNotFound, SizeMismatch, SourceError
from streamware.model import Chunks, Facts, Source
from streamware.object_folder import Reading
from streamware.objects import Objects
from streamware.sources.file import FileSource
from streamware.stored import Part, StoredFile, identity_of
from streamware.upload_errors import FileUnknown, StoredUnavailable, StoreError, StoreUnavailable

__all__ = ["Files", "StoredSource", "facts_of"]

_CHUNK_BYTES = 256 * 1024


class Files(Protocol):
    """What is asked of a file store (``filestore.FileStore``)."""

    objects: Objects

    def file(self, id: str) -> StoredFile: ...

    def files(self, ids: Sequence[str]) -> Mapping[str, StoredFile]: ...

    def parts(self, id: str) -> list[Part]: ...

    def source(self, id: str, file: StoredFile | None = None) -> Source: ...


def facts_of(file: StoredFile) -> Facts:
    """What is known of a stored file, without asking for a byte of it."""
    return Facts(
        size=file.size,
        modified=file.created,
        validator=file.validator,
        crc32=file.crc32,
        media_type=file.media_type,
        identity=identity_of(file.id),
    )


class StoredSource:
    """A stored file. Nobody is asked before it is probed or opened, and then the database and the object store are.

    Of a store in a local folder it is ``instant``: no more than a row is waited for.

    :param file: the file, where it is known already.
    :param chunk_bytes: read at a time.
    """

    __slots__ = ("_chunk_bytes", "_file", "_files", "_id")

    def __new__(
        cls, files: Files, id: str, file: StoredFile | None = None, *, chunk_bytes: int = _CHUNK_BYTES
    ) -> StoredSource:
        return super().__new__(cls if files.objects.folder is None else _LocalSource)

    def __init__(
        self, files: Files, id: str, file: StoredFile | None = None, *, chunk_bytes: int = _CHUNK_BYTES
    ) -> None:
        self._files = files
        self._id = id
        self._file = file
        self._chunk_bytes = chunk_bytes

    def probe(self, *, keep: bool = False) -> Facts:
        if self._file is None:
            with _as_member():
                self._file = self._files.file(self._id)
        return facts_of(self._file)

    def open(self, start: int, length: int | None) -> Chunks:
        with _as_member():
            runs, _ = self._runs(start, length)
            return _Parts(self._files.objects, runs, self._chunk_bytes)

    def close(self) -> None:
        pass

    def _runs(self, start: int, length: int | None) -> tuple[deque[_Run], list[Part]]:
        """The runs of objects that a window lies in, in order, and all parts of the file."""
        parts = self._files.parts(self._id)
        end = parts[-1].offset + parts[-1].length if parts else 0
        stop = end if length is None else start + length
        if stop > end:
            if not parts:
                raise MemberNotFound(f"the stored file {self._id} has no bytes any more")
            raise SizeMismatch(f"the stored file {self._id} has {end} bytes, and {stop} were asked for")
        runs: deque[_Run] = deque()
        at = start
        for part in parts:
            low, high = max(at, part.offset), min(stop, part.offset + part.length)
            if low < high:
                if low != at:
                    raise SourceError(f"the stored file {self._id} has no part for {at}")
                runs.append((part.key, low - part.offset, high - low))
                at = high
        if at != stop:
            raise SourceError(f"the stored file {self._id} has no part for {at}")
        return runs, parts


_Run = tuple[str, int, int]  # of an object: its key, where it begins in there, its length


class _LocalSource(StoredSource):
    """The same where the objects are files here."""

    __slots__ = ()

    instant = True

    def open(self, start: int, length: int | None) -> Chunks:
        with _as_member():
            runs, parts = self._runs(start, length)
            objects = self._files.objects
            if len(runs) == 1:
                (key, start, length), *_ = runs
                return _open(objects, key, self._chunk_bytes, start, length)
            # An open file stays readable whatever becomes of its name; of the others somebody has to be told.
            with _of_folder(objects):
                reading = objects.reading(parts[0].key) if runs else None
            try:
                return _LocalParts(objects, runs, self._chunk_bytes, reading)
            except BaseException:
                if reading is not None:
                    reading.close()
                raise

    def read(self, start: int, length: int) -> bytes:
        """What ``open`` and reading to the end would give, at once."""
        with _as_member():
            runs, _ = self._runs(start, length)
            objects = self._files.objects
            with _of_folder(objects):
                given = [FileSource(key, objects.folder).read(*span) for key, *span in runs]
            return given[0] if len(given) == 1 else b"".join(given)


class _Parts:
    """A window of a stored file, part by part. The first is opened at once."""

    __slots__ = ("_aborted", "_chunk_bytes", "_chunks", "_objects", "_runs")

    def __init__(self, objects: Objects, runs: deque[_Run], chunk_bytes: int) -> None:
        self._objects = objects
        self._runs = runs
        self._chunk_bytes = chunk_bytes
        self._aborted = False
        self._chunks: Chunks | None = self._opened(*runs.popleft()) if runs else None

    def _opened(self, key: str, start: int, length: int) -> Chunks:
        return self._objects.chunks(key, start, length, self._chunk_bytes)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with _as_member():
            while (chunks := self._current()) is not None:
                piece = next(chunks, b"")
                if piece:
                    return piece
                self._ended()
        raise StopIteration

    def _current(self) -> Chunks | None:
        """What is to be read next; None at the end."""
        if self._aborted:
            raise BodyClosed("read after abort() or close()")
        if self._chunks is None and self._runs:
            chunks = self._chunks = self._opened(*self._runs.popleft())
            if self._stopped():  # abort() came while there was nothing yet that it could have stopped
                chunks.abort()
        return self._chunks

    def _ended(self) -> None:
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            chunks.close()

    def _stopped(self) -> bool:
        return self._aborted

    def ready(self) -> bool:
        chunks = self._chunks
        return not self._runs and (chunks is None or chunks.ready())

    def abort(self) -> None:
        self._aborted = True
        chunks = self._chunks
        if chunks is not None:
            chunks.abort()

    def close(self) -> None:
        self._aborted = True
        self._runs.clear()
        self._ended()


class _LocalParts(_Parts):
    """The same of files, which wait for nobody.

    :param reading: keeps the later ones from being deleted; closed with the rest, and by the caller if this fails.
    """

    __slots__ = ("_reading", "piece_bytes")

    def __init__(self, objects: Objects, runs: deque[_Run], chunk_bytes: int, reading: Reading | None) -> None:
        self._reading = reading
        super().__init__(objects, runs, chunk_bytes)
        self.piece_bytes: int = getattr(self._chunks, "piece_bytes", chunk_bytes)

    def _opened(self, key: str, start: int, length: int) -> Chunks:
        return _open(self._objects, key, self._chunk_bytes, start, length)

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self._reading is not None:
                self._reading.close()


def _open(objects: Objects, key: str, chunk_bytes: int, start: int, length: int) -> Chunks:
    with _of_folder(objects):
        return FileSource(key, objects.folder, chunk_bytes=chunk_bytes).open(start, length)


@contextmanager
def _of_folder(objects: Objects) -> Iterator[None]:
    """Where a file is missing because its disk is, say so."""
    try:
        yield
    except MemberNotFound:
        objects.check()
        raise


@contextmanager
def _as_member() -> Iterator[None]:
    """What is wrong with the store, as an error of the member that is read."""
    try:
        yield
    except FileUnknown as error:
        raise MemberNotFound(error.detail) from error
    except StoreUnavailable as error:
        raise StoredUnavailable(error.detail) from error
    except StoreError as error:
        raise SourceError(error.detail) from error
