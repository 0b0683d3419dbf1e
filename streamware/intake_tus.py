"""The body of a tus request on its way in: added to an upload, and kept as far as it came.

The rule of this file: what came is kept, however the request ends, unless a checksum stands for the whole of it; and an
upload that has all its bytes becomes a file before anybody is told so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from streamware.admission import Ticket
from streamware.errors import StreamwareError
from streamware.filestore import FileStore
from streamware.intake import Digests, Ending, Problem
from streamware.reply import Reply
from streamware.stored import Upload
from streamware.upload_errors import UploadBroken, UploadTooLarge

__all__ = ["EmptyIntake", "TusIntake"]


class TusIntake(Ending):
    """A body that goes on with an upload, or begins one.

    :param upload: as it stands.
    :param length: bytes that the request promises, None where only the body's end tells.
    :param digests: what is announced of the body; with any, it is kept whole or not at all.
    :param kept: makes the answer of the upload as it then is, and a file of it if it is complete.
    :param location: of an upload that this request begins; None: it goes on with one.
    """

    def __init__(
        self,
        store: FileStore,
        upload: Upload,
        problem: Problem,
        ticket: Ticket,
        *,
        length: int | None,
        digests: Digests,
        kept: Callable[[Upload], Reply],
        location: str | None = None,
    ) -> None:
        super().__init__(problem, ticket)
        self._store = store
        self._upload = upload
        self._begin = upload.offset
        self._length = length
        self._digests = digests
        self._kept = kept
        self._location = location
        self._open = True  # the appender is
        self._gone = False
        self._appender = store.append(upload, atomic=bool(digests))

    def write(self, piece: bytes) -> None:
        """Take the next bytes; see ``Intake.write``."""
        try:
            self._appender.write(piece)
        except UploadTooLarge:
            raise  # before anything was done
        except BaseException:
            self._drop()  # what came since the last part cannot be relied upon, or somebody else goes on
            raise
        self._digests.update(piece)

    def fail(self, error: StreamwareError) -> Reply:
        """The body broke off or is refused; the answer says how far the upload has come."""
        reply = super().fail(error)
        if self._gone:
            return reply
        told = [] if self._location is None else [("Location", self._location)]
        return replace(reply, headers=(*reply.headers, *told, ("Upload-Offset", str(self._upload.offset))))

    def _complete(self) -> Reply:
        if self._length is not None and self._appender.received - self._begin != self._length:
            raise UploadBroken("Less came than the Content-Length says.")
        self._digests.check()
        return self._kept(self._keep())

    def _give_up(self, error: StreamwareError | None) -> None:
        if self._location is not None and (error is None or isinstance(error, UploadBroken)):
            # Nobody has been told where it is, so nobody will come back for it.
            self._drop()
            self._gone = True
            self._store.give_up(self._upload.id)
        elif self._open and not self._digests:
            self._kept(self._keep())
        else:
            self._drop()

    def _keep(self) -> Upload:
        try:
            self._upload = self._appender.keep()
        except BaseException:
            self._drop()
            raise
        self._open = False
        return self._upload

    def _drop(self) -> None:
        if self._open:
            self._appender.drop()
            self._upload = self._appender.upload  # what had been kept while it came
            self._open = False


class EmptyIntake(Ending):
    """A body that may have no bytes: of a request that goes on with an upload which has them all.

    :param answer: to an empty body.
    """

    def __init__(self, problem: Problem, ticket: Ticket, answer: Reply) -> None:
        super().__init__(problem, ticket)
        self._answer = answer

    def write(self, piece: bytes) -> None:
        """:raises UploadTooLarge: there are any."""
        if piece:
            raise UploadTooLarge("More bytes came than the upload has.")

    def _complete(self) -> Reply:
        return self._answer

    def _give_up(self, error: StreamwareError | None) -> None:
        """There is nothing to let go of."""
