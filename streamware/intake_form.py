"""The body of a form on its way in (multipart/form-data, RFC 7578): each file in it is stored, all of them or none.

The rule of this file: the only one that knows the parser. A form that is cut, malformed or over a limit leaves nothing:
files are only made of its parts once its last byte has been seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import copy
from typing import TYPE_CHECKING, Any

from streamware.admission import Ticket
from streamware.appender import Appender
from streamware.errors import StreamwareError
from streamware.filestore import FileStore
from streamware.intake import Digests, Ending, Problem, finished
from streamware.reply import Reply
from streamware.stored import StoredFile, Upload
from streamware.upload_errors import StoreFailed, UploadInvalid, UploadTooLarge
from streamware.uploads import announced_type, clean_name

if TYPE_CHECKING:
    import multipart

__all__ = ["FormIntake"]

_MAX_HEADERS = 16  # of one part; browsers send two, RFC 7578 section 4.8 knows three
_MAX_HEADER_BYTES = 16 * 1024  # of one of them: room for any name
_MAX_FIELD_BYTES = 64 * 1024  # of all plain fields, names included: they are held in memory
_MAX_EPILOGUE = 4096  # bytes behind the last boundary, which mean nothing (RFC 2046 section 5.1.1)

# Of a form: its files, and its plain fields by name; of several of one name a list.
Created = Callable[[list[StoredFile], "dict[str, str | list[str]]"], Reply]


class FormIntake(Ending):
    """A form. Part after part is kept as an upload of its own, and all become files at its end.

    :param boundary: of its parts.
    :param owner: of what it stores.
    :param digests: what is announced of the form as a whole.
    :param created: makes the answer.
    """

    def __init__(
        self,
        store: FileStore,
        problem: Problem,
        ticket: Ticket,
        *,
        boundary: str,
        owner: str,
        digests: Digests,
        created: Created,
    ) -> None:
        super().__init__(problem, ticket)
        self._store = store
        self._owner = owner
        self._digests = digests
        self._created = created
        self._parser = _Parser(boundary, store.policy.max_form_parts)
        self._segment: multipart.MultipartSegment | None = None  # the part that is coming
        self._appender: Appender | None = None  # of it, if it is a file
        self._text: bytearray | None = None  # of it, if it is a plain field
        self._begun: list[str] = []  # ids of all uploads
        self._kept: list[Upload] = []  # those that are whole
        self._touched_at = time.monotonic()
        self._fields: dict[str, str | list[str]] = {}
        self._field_bytes = 0

    def write(self, piece: bytes) -> None:
        """Take the next bytes; see ``Intake.write``."""
        self._digests.update(piece)
        self._touch()
        for event in self._parser.parse(piece):
            if event is None:
                self._part_ended()
            elif isinstance(event, bytes | bytearray):
                self._part_goes_on(event)
            else:
                self._part_begins(event)

    def _touch(self) -> None:
        """What is whole must not expire while the rest of the form comes."""
        now = time.monotonic()
        if now - self._touched_at > self._store.policy.upload_seconds / 2:
            self._touched_at = now
            for begun in self._begun:
                self._store.touch(begun)

    def _part_begins(self, segment: multipart.MultipartSegment) -> None:
        self._segment = segment
        if segment.filename is None:
            self._text = bytearray()
            self._count_field(len((segment.name or "").encode()))
        elif segment.filename:
            self._begin_file(segment)
        # else a file field that was left empty, as browsers send it; or a file without a name, once a byte of it comes

    def _begin_file(self, segment: multipart.MultipartSegment) -> Appender:
        upload = self._store.begin(
            clean_name(segment.filename or "", self._store.policy.max_name_bytes),
            announced_type(segment.header("Content-Type")),
            owner=self._owner,
        )
        self._begun.append(upload.id)
        self._appender = self._store.append(upload)
        return self._appender

    def _part_goes_on(self, data: bytes | bytearray) -> None:
        assert self._segment is not None
        if self._text is not None:
            self._count_field(len(data))
            self._text += data
        else:
            (self._appender or self._begin_file(self._segment)).write(bytes(data))

    def _part_ended(self) -> None:
        assert self._segment is not None
        if self._text is not None:
            self._add_field(self._segment.name or "", self._text.decode("utf-8", "replace"))
        elif self._appender is not None:
            self._kept.append(self._appender.keep())
        self._segment = self._appender = self._text = None

    def _count_field(self, more: int) -> None:
        self._field_bytes += more
        if self._field_bytes > _MAX_FIELD_BYTES:
            raise UploadTooLarge(f"The fields of a form that are no files have at most {_MAX_FIELD_BYTES} bytes.")

    def _add_field(self, name: str, value: str) -> None:
        before = self._fields.get(name)
        if before is None:
            self._fields[name] = value
        else:
            self._fields[name] = [*before, value] if isinstance(before, list) else [before, value]

    def _complete(self) -> Reply:
        self._parser.end()
        self._digests.check()
        if not self._kept:
            raise UploadInvalid("The form has no file.")
        return self._created([finished(self._store, upload) for upload in self._kept], self._fields)

    def _give_up(self, error: StreamwareError | None) -> None:
        if self._appender is not None:
            self._appender.drop()
        for begun in self._begun:
            self._store.give_up(begun)


class _Parser:
    """The parser with our limits and our errors.

    :raises StoreFailed: it is not installed.
    """

    def __init__(self, boundary: str, max_parts: int) -> None:
        try:
            import multipart
        except ImportError as error:
            raise StoreFailed("forms need the package multipart: pip install 'streamware[files]'") from error
        self._limit, self._fault = multipart.ParserLimitReached, multipart.MultipartError
        self._parser = multipart.PushMultipartParser(
            boundary,
            max_header_size=_MAX_HEADER_BYTES,
            max_header_count=_MAX_HEADERS,
            max_segment_count=max_parts,
            strict=True,
        )
        self._whole = False
        self._epilogue = 0

    def parse(self, piece: bytes) -> Iterator[Any]:
        """What is in the next bytes: a segment as it begins, its bytes, and None as it ends."""
        if not piece:
            return
        if self._whole:  # a line end there is common, and the parser would refuse it if it came in a piece of its own
            self._epilogue += len(piece)
            if self._epilogue > _MAX_EPILOGUE:
                raise UploadInvalid("Too much follows the end of the form.")
            return
        event: Any = ()
        try:
            for event in self._parser.parse(piece):
                yield event
            if event is None:
                self._whole = self._ended()
        except self._limit as error:
            raise UploadTooLarge(f"The form is over a limit of this server: {error.args[0]}.") from error
        except self._fault as error:
            raise UploadInvalid(f"The form cannot be read: {error.args[0]}.") from error

    def end(self) -> None:
        """Raise UploadInvalid unless the form is whole."""
        try:
            self._parser.close()
        except self._fault as error:
            raise UploadInvalid("The form has no end.") from error

    def _ended(self) -> bool:
        # Only close() tells, and nothing can be parsed afterwards: so it is asked of a copy.
        try:
            copy(self._parser).close()
        except self._fault:
            return False
        return True
