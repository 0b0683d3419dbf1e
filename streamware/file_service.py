"""The file service: one function from a request to an answer, or to what takes the request's body.

The rule of this file: every way in ends in ``FileService.ask``. All that can be refused is refused before a byte of the
body is read, in this order: framing, method, authorization, places and rates, size, type, offset, quota.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TypeVar
from urllib.parse import parse_qsl, quote

from streamware.admission import Ticket
from streamware.errors import BodyClosed, MemberError, MemberNotFound, StreamwareError
from streamware.file_admission import Caller, FileAdmission
from streamware.file_request import FileRequest
from streamware.filestore import FileStore
from streamware.intake import Digests, Intake, Problem, RawIntake, json_reply
from streamware.intake_form import FormIntake
from streamware.pump import Body
from streamware.reply import Reply
from streamware.semantics import content_disposition
from streamware.single import reply_for_source
from streamware.sources.stored import facts_of
from streamware.stored import StoredFile, is_file_id
from streamware.tus import Tus, speaks_tus
from streamware.upload_errors import (
    DeleteForbidden,
    FileUnknown,
    MethodNotAllowed,
    StoredUnavailable,
    StoreFailed,
    StoreUnavailable,
    UploadInvalid,
    UploadTooLarge,
)
from streamware.uploads import (
    TUS_TYPE,
    TUS_VERSION,
    announced_digests,
    announced_type,
    body_length,
    boundary_of,
    check_version,
    essence,
    number,
    refuse_coded,
    upload_name,
)

__all__ = ["FileService"]

_log = logging.getLogger("streamware")

_LISTED = 100  # files on a page, where the request does not say
_MAX_FIELDS = 16  # of a query
_MULTIPART = "multipart/form-data"
# By whether it is of one file, and whether nothing but tus is spoken.
_METHODS = {
    (False, False): ("GET", "HEAD", "OPTIONS", "POST"),
    (True, False): ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH"),
    (False, True): ("OPTIONS", "POST"),
    (True, True): ("DELETE", "HEAD", "OPTIONS", "PATCH"),
}
_CACHE = ("Cache-Control", "private, no-transform")
# What a file may do in a browser is nothing; the second lets the browser's own viewers show it.
_SAVED = "sandbox; default-src 'none'"
_SHOWN = f"{_SAVED}; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'"
# RFC 9110 section 9.2.1: a method that clients take for a safe one is never turned into another.
_OVERRIDES = ("PATCH", "DELETE")


class FileService:
    """Answers requests for files. One per application, used from any thread.

    :param problem: makes the answer of an error (``Archiver.problem``).
    :param tus_only: it takes uploads by tus and does nothing else: no download, no listing, no plain upload.
    """

    def __init__(self, store: FileStore, problem: Problem, *, tus_only: bool = False) -> None:
        self.admission = FileAdmission(store.policy)
        self._store = store
        self._policy = store.policy
        self._problem = problem
        self._tus_only = tus_only
        self._tus = Tus(store, self._tus_problem)

    def ask(self, request: FileRequest) -> Reply | Intake:
        """Answer a request. Blocks on the database. Raises no StreamwareError.

        An Intake takes the body, and its ``finish`` or ``fail`` is the answer. A Reply to a request that has a body
        means that nothing of it is to be read. The caller iterates the reply's body (not for a HEAD) and closes it.
        """
        request = _meant(request)
        tus = self._tus_only or speaks_tus(request)
        try:
            answer = self._ask(request, tus)
        except StreamwareError as error:
            answer = self._problem(error)
        return _as_tus(answer) if tus and isinstance(answer, Reply) else answer

    def _tus_problem(self, error: StreamwareError) -> Reply:
        return _as_tus(self._problem(error))

    def _ask(self, request: FileRequest, tus: bool) -> Reply | Intake:
        body_length(request, wanted=False)
        methods = _METHODS[request.id is not None, self._tus_only]
        if request.method not in methods:
            raise MethodNotAllowed(headers=(("Allow", ", ".join(methods)),))
        if request.method == "OPTIONS":
            return Reply(204, (("Allow", ", ".join(methods)), *self._tus.abilities()))
        if request.id is None:
            return self._upload(request, tus) if request.method == "POST" else self._list(request)
        if request.method == "PATCH" or (tus and request.method == "HEAD"):
            return self._go_on(request, request.id)
        if request.method == "DELETE":
            return self._delete(request, request.id, tus)
        return self._download(request, request.id)

    # --- in ---

    def _upload(self, request: FileRequest, tus: bool) -> Reply | Intake:
        caller = self.admission.authorize("upload", request)
        if tus:
            check_version(request)
        brings = not tus or essence(request.header("content-type")) == TUS_TYPE
        length = body_length(request, wanted=brings)
        with self._place(caller) as place:
            if tus:
                return place.kept_by(self._tus.create(request, caller, place.ticket, length))
            return place.kept_by(self._take(request, caller, place.ticket, length))

    def _go_on(self, request: FileRequest, id: str) -> Reply | Intake:
        """HEAD and PATCH of tus."""
        caller = self.admission.authorize("upload", request)
        check_version(request)
        _check_id(id)
        if request.method == "HEAD":
            return self._tus.head(id, caller)
        length = body_length(request)
        with self._place(caller, id) as place:
            intake = place.kept_by(self._tus.patch(id, request, caller, place.ticket, length))
            self.admission.took_over(caller, id, place.ticket)
            return intake

    def _place(self, caller: Caller, upload: str | None = None) -> _Place:
        return _Place(self.admission.enter(caller, upload))

    def _take(self, request: FileRequest, caller: Caller, ticket: Ticket, length: int | None) -> Intake:
        """A body that is one file, or a form with any number of them."""
        form = essence(request.header("content-type")) == _MULTIPART
        most = self._policy.max_upload_bytes * (self._policy.max_form_parts if form else 1)
        if length is not None and length > most:
            raise UploadTooLarge(f"This server takes files of at most {self._policy.max_upload_bytes} bytes.")
        refuse_coded(request)
        digests = Digests(announced_digests(request, "repr-digest", "content-digest"))
        if form:
            return FormIntake(
                self._store,
                self._problem,
                ticket,
                boundary=boundary_of(request.header("content-type") or ""),
                owner=caller.owner,
                digests=digests,
                created=lambda files, fields: _form_created(request, files, fields),
            )
        upload = self._store.begin(
            upload_name(request, self._policy.max_name_bytes),
            announced_type(request.header("content-type")),
            length=length,
            owner=caller.owner,
        )
        try:
            return RawIntake(
                self._store,
                upload,
                self._problem,
                ticket,
                digests=digests,
                created=lambda file: _created(request, file),
                announced=length is not None or "transfer-encoding" in request.headers,
            )
        except BaseException:
            self._store.give_up(upload.id)
            raise

    # --- out ---

    def _download(self, request: FileRequest, id: str) -> Reply:
        self.admission.authorize("download", request)
        _check_id(id)
        file = self._store.file(id)
        inline = essence(file.media_type) in self._policy.inline_types
        of_file = [
            ("Content-Disposition", content_disposition(file.name, inline=inline)),
            ("Content-Security-Policy", _SHOWN if inline else _SAVED),
        ]
        if file.digest is not None:
            of_file.append(("Repr-Digest", file.digest))
        try:
            return reply_for_source(
                self._store.source(id, file),
                facts_of(file),
                request.conditions,
                self._policy,
                self._problem,
                media_type=file.media_type,
                etag=file.etag,
                headers=(
                    _CACHE,
                    ("X-Content-Type-Options", "nosniff"),
                    # a bundle that has this file as a member need not read it first
                    ("X-Archive-Crc32", f"{file.crc32:08x}"),
                ),
                of_file=of_file,
                witness=_Sending(file.id),
            )
        except MemberError as error:
            raise self._reason(file, error) from error

    def _reason(self, file: StoredFile, error: MemberError) -> StreamwareError:
        """What to answer where a file cannot be opened, which is told as if it were a member of a bundle."""
        if isinstance(error, StoredUnavailable):
            return StoreUnavailable(error.detail)
        if isinstance(error, MemberNotFound):
            try:
                self._store.file(file.id)
            except FileUnknown as gone:
                return gone  # deleted in this moment
        return StoreFailed(f"stored file {file.id}: {error}")

    def _list(self, request: FileRequest) -> Reply:
        self.admission.authorize("list", request)
        try:
            asked = dict(parse_qsl(request.query, max_num_fields=_MAX_FIELDS))
        except ValueError as error:
            raise UploadInvalid(f"The query has more than {_MAX_FIELDS} fields.") from error
        most = self._policy.max_listed_files
        limit = min(number("limit", asked["limit"]) if "limit" in asked else _LISTED, most)
        if not limit:
            raise UploadInvalid("limit must be at least 1.")
        try:
            files, after = self._store.listed(limit=limit, after=asked.get("after"))
        except ValueError as error:
            raise UploadInvalid("after must be what a page before has given.") from error
        following = None if after is None else f"{request.base or '/'}?limit={limit}&after={quote(after, safe='')}"
        return json_reply(200, {"files": [_document(request, file) for file in files], "next": following})

    def _delete(self, request: FileRequest, id: str, tus: bool) -> Reply:
        """A file's end, if files may be deleted; to a client of tus, that of an unfinished upload of its own too."""
        if tus:
            caller = self.admission.authorize("upload", request)
            check_version(request)
            _check_id(id)
            if self._tus.end(id, caller):
                return Reply(204)
        self.admission.authorize("delete", request)
        _check_id(id)
        if not self._policy.allow_delete:
            raise DeleteForbidden()
        self._store.file(id)  # and no upload, which only tus knows of
        self._store.end(id)
        return Reply(204)


_Answer = TypeVar("_Answer", bound="Reply | Intake")


class _Place:
    """A place that is given back at the end of a ``with``, unless an Intake has it."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self._kept = False

    def kept_by(self, answer: _Answer) -> _Answer:
        self._kept = not isinstance(answer, Reply)
        return answer

    def __enter__(self) -> _Place:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None or not self._kept:
            self.ticket.release()


class _Sending:
    """Watches a download, for the log: once it has begun, an error is told to nobody else (pump.Witness)."""

    def __init__(self, id: str) -> None:
        self._id = id

    def first_byte(self) -> None:
        """Nothing is made of it."""

    def ended(self, body: Body, error: BaseException | None) -> None:
        if isinstance(error, StreamwareError) and not isinstance(error, BodyClosed):
            _log.warning("file %s aborted after %d bytes: %s: %s", self._id, body.bytes_out, error.kind, error)


def _meant(request: FileRequest) -> FileRequest:
    """The request as it is meant: of the collection, though its URL may end in a slash, as many clients of tus have it;
    and by another method, where something on its way lets only GET and POST pass (tus 1.0.0)."""
    if request.id == "":
        request = replace(request, id=None)
    said = (request.header("x-http-method-override") or "").upper()
    return replace(request, method=said) if request.method == "POST" and said in _OVERRIDES else request


def _check_id(id: str) -> None:
    """:raises FileUnknown: it is no id; then nobody is asked of it."""
    if not is_file_id(id):
        raise FileUnknown("not an id")


def _as_tus(reply: Reply) -> Reply:
    if reply.header("tus-resumable") is not None:
        return reply
    return replace(reply, headers=(("Tus-Resumable", TUS_VERSION), *reply.headers))


def _document(request: FileRequest, file: StoredFile) -> dict[str, object]:
    return file.document(f"{request.base}/{file.id}")


def _created(request: FileRequest, file: StoredFile) -> Reply:
    return json_reply(201, _document(request, file), (("Location", f"{request.base}/{file.id}"),))


def _form_created(request: FileRequest, files: list[StoredFile], fields: dict[str, str | list[str]]) -> Reply:
    return json_reply(201, {"files": [_document(request, file) for file in files], "fields": fields})
