"""A request body on its way into the file store: what every one of them does, and the plain one, which is one file.

The rule of this file: an intake ends once, by ``finish``, ``fail`` or ``close``; then its place is free again, and what
it did not promise to keep is gone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from streamware.admission import Ticket
from streamware.checksums import crc32
from streamware.errors import StreamwareError
from streamware.filestore import FileStore
from streamware.reply import BytesBody, Reply
from streamware.stored import StoredFile, Upload
from streamware.upload_errors import LengthRequired, UploadBroken, UploadChecksumMismatch, UploadDigestMismatch
from streamware.uploads import Checksum

__all__ = ["Digests", "Ending", "Intake", "Problem", "RawIntake", "finished", "json_reply", "take"]

_log = logging.getLogger("streamware")

Problem = Callable[[StreamwareError], Reply]


class Intake(Protocol):
    """A body on its way in. Used by one thread at a time, and over after ``finish`` or ``fail``."""

    def write(self, piece: bytes) -> None:
        """Take the next bytes. May block.

        :raises StreamwareError: they cannot be taken; ``fail`` is called with it.
        """

    def finish(self) -> Reply:
        """The body arrived whole; the answer. May block. Raises no StreamwareError."""

    def fail(self, error: StreamwareError) -> Reply:
        """The body broke off or is refused: what may be kept is kept, all else is gone.

        Returns the answer, for where anybody still listens. May block. Raises no StreamwareError.
        """

    def close(self) -> None:
        """Give it up unless it is over. Idempotent; may block. Raises no StreamwareError."""


def take(intake: Intake, pieces: Iterable[bytes]) -> Reply:
    """Write a whole body and return the answer. Raises no StreamwareError.

    :param pieces: the body; a StreamwareError that it raises says why it broke off.
    """
    try:
        for piece in pieces:
            intake.write(piece)
        return intake.finish()
    except StreamwareError as error:
        return intake.fail(error)
    finally:
        intake.close()


class _Running(Protocol):
    def update(self, piece: bytes, /) -> object: ...

    def digest(self) -> bytes: ...


class _Crc32:
    """CRC-32 in the manner of hashlib."""

    def __init__(self) -> None:
        self._crc = 0

    def update(self, piece: bytes, /) -> None:
        self._crc = crc32(piece, self._crc)

    def digest(self) -> bytes:
        return self._crc.to_bytes(4, "big")


class Digests:
    """Runs along with a body and tells whether its bytes are those that digests were announced of.

    :param announced: digests by hashlib's names.
    :param checksum: of tus.
    """

    def __init__(self, announced: Mapping[str, bytes], checksum: Checksum | None = None) -> None:
        self._announced: list[tuple[_Running, bytes, type[UploadDigestMismatch]]] = []
        for name, digest in announced.items():
            self._announced.append((hashlib.new(name, usedforsecurity=False), digest, UploadDigestMismatch))
        if checksum is not None:
            name = checksum.algorithm
            state: _Running = _Crc32() if name == "crc32" else hashlib.new(name, usedforsecurity=False)
            self._announced.append((state, checksum.digest, UploadChecksumMismatch))

    def __bool__(self) -> bool:
        return bool(self._announced)

    def update(self, piece: bytes) -> None:
        for state, _, _ in self._announced:
            state.update(piece)

    def check(self) -> None:
        """Raise UploadDigestMismatch unless all of them are right."""
        for state, digest, mismatch in self._announced:
            if state.digest() != digest:
                raise mismatch()


class Ending(ABC):
    """What all intakes share: they end once, whatever happens.

    :param problem: makes the answer of an error.
    :param ticket: the place it has, given back at its end.
    """

    def __init__(self, problem: Problem, ticket: Ticket) -> None:
        self._problem = problem
        self._ticket = ticket
        self._over = False

    @abstractmethod
    def _complete(self) -> Reply:
        """Make of what came what it was sent for. Raises StreamwareError, and then ``_give_up`` is called."""

    @abstractmethod
    def _give_up(self, error: StreamwareError | None) -> None:
        """Keep what may be kept and let go of all else; ``error`` says why, if that is known."""

    def finish(self) -> Reply:
        """The body arrived whole; the answer."""
        try:
            reply = self._complete()
        except StreamwareError as error:
            return self.fail(error)
        except BaseException:
            self.close()
            raise
        self._end()
        return reply

    def fail(self, error: StreamwareError) -> Reply:
        """The body broke off or is refused; the answer."""
        self._stop(error)
        return self._problem(error)

    def close(self) -> None:
        """Give it up unless it is over."""
        self._stop(None)

    def _stop(self, error: StreamwareError | None) -> None:
        if self._over:
            return
        try:
            self._give_up(error)
        except StreamwareError as another:
            # There is an answer for the first error alone; what is left over expires, and is swept then.
            _log.warning("an upload that failed could not be cleared away: %s: %s", another.kind, another)
        finally:
            self._end()

    def _end(self) -> None:
        self._over = True
        self._ticket.release()


class RawIntake(Ending):
    """A body that is one file, all of it or nothing.

    :param upload: begun for it, of kind "raw", and of the length that the request promises.
    :param digests: what is announced of the body.
    :param created: makes the answer of the file.
    :param announced: whether the request says that it has a body, which then may be empty.
    """

    def __init__(
        self,
        store: FileStore,
        upload: Upload,
        problem: Problem,
        ticket: Ticket,
        *,
        digests: Digests,
        created: Callable[[StoredFile], Reply],
        announced: bool,
    ) -> None:
        super().__init__(problem, ticket)
        self._store = store
        self._upload = upload
        self._digests = digests
        self._created = created
        self._announced = announced
        self._appender = store.append(upload)

    def write(self, piece: bytes) -> None:
        """Take the next bytes; see ``Intake.write``."""
        self._appender.write(piece)
        self._digests.update(piece)

    def _complete(self) -> Reply:
        if self._upload.length is not None and self._appender.received != self._upload.length:
            raise UploadBroken("Less came than the Content-Length says.")
        if not self._announced and not self._appender.received:
            # Some hosts hide a body that they cannot read, and its headers with it.
            raise LengthRequired("no body, and neither Content-Length nor Transfer-Encoding")
        self._digests.check()
        return self._created(finished(self._store, self._appender.keep()))

    def _give_up(self, error: StreamwareError | None) -> None:
        self._appender.drop()
        self._store.give_up(self._upload.id)


def finished(store: FileStore, upload: Upload) -> StoredFile:
    """The file of an upload whose bytes are kept, of the length that came where nobody had said one.

    :raises StreamwareError: as ``FileStore.set_length`` and ``finish`` do.
    """
    return store.finish(upload if upload.length is not None else store.set_length(upload, upload.offset))


def json_reply(status: int, document: object, headers: Iterable[tuple[str, str]] = ()) -> Reply:
    """An answer for programs, which no cache keeps."""
    data = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    own = (
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(data))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    )
    return Reply(status, (*own, *headers), BytesBody(data))
