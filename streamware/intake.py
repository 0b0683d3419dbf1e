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
from streamware.errors import StreamwareError
from streamware.filestore import Appender, FileStore
from streamware.reply import BytesBody, Reply
from streamware.stored import StoredFile, Upload
from streamware.upload_errors import (
    FileUnknown,
    UploadBroken,
    UploadDigestMismatch,
    UploadInvalid,
    UploadTooLarge,
)

__all__ = ["Digests", "Ending", "Intake", "Problem", "RawIntake", "json_reply", "settled", "take"]

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


class Digests:
    """Runs along with bytes and tells whether they are those that digests were announced of."""

    def __init__(self, announced: Mapping[str, bytes]) -> None:
        self._announced = {}
        for name, digest in announced.items():
            try:
                self._announced[name] = (hashlib.new(name, usedforsecurity=False), digest)
            except ValueError:
                _log.info("a digest of %s was not verified: this Python does not compute it", name)

    def __bool__(self) -> bool:
        return bool(self._announced)

    def update(self, piece: bytes) -> None:
        for state, _ in self._announced.values():
            state.update(piece)

    def check(self) -> None:
        """Raise UploadDigestMismatch unless all of them are right."""
        for name, (state, digest) in self._announced.items():
            if state.digest() != digest:
                raise UploadDigestMismatch(f"What came has another {name} digest.")


class Ending(ABC):
    """What all intakes share: they end once, whatever happens.

    :param problem: makes the answer of an error.
    :param ticket: the place it has, given back at its end.
    """

    def __init__(self, store: FileStore, problem: Problem, ticket: Ticket) -> None:
        self._store = store
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

    def _discard(self, upload: Upload) -> None:
        """End an upload, or the file it has become meanwhile."""
        try:
            self._store.end(upload.id)
        except FileUnknown:
            pass  # it expired, or somebody else has ended it: gone is gone


class RawIntake(Ending):
    """A body that is one file, all of it or nothing.

    :param upload: begun for it, of kind "raw".
    :param most: bytes that the file may have.
    :param length: what the request promises, None where only the body's end tells.
    :param digests: what is announced of the body.
    :param created: makes the answer of the file.
    """

    def __init__(
        self,
        store: FileStore,
        upload: Upload,
        problem: Problem,
        ticket: Ticket,
        *,
        most: int,
        length: int | None,
        digests: Digests,
        created: Callable[[StoredFile], Reply],
    ) -> None:
        super().__init__(store, problem, ticket)
        self._upload = upload
        self._appender: Appender = store.append(upload)
        self._most = most
        self._length = length
        self._digests = digests
        self._created = created

    def write(self, piece: bytes) -> None:
        """Take the next bytes; see ``Intake.write``."""
        received = self._appender.received + len(piece)
        if self._length is not None and received > self._length:
            raise UploadInvalid("More came than the Content-Length says.")
        if received > self._most:
            raise UploadTooLarge(f"This server takes at most {self._most} bytes of one file.")
        self._appender.write(piece)
        self._digests.update(piece)

    def _complete(self) -> Reply:
        if self._length is not None and self._appender.received != self._length:
            raise UploadBroken("Less came than the Content-Length says.")
        self._digests.check()
        return self._created(self._store.finish(settled(self._store, self._appender.keep())))

    def _give_up(self, error: StreamwareError | None) -> None:
        self._appender.drop()
        self._discard(self._upload)


def settled(store: FileStore, upload: Upload) -> Upload:
    """The upload with its length, which is what came if nobody said another."""
    return upload if upload.length is not None else store.set_length(upload, upload.offset)


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
