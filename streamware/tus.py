"""The tus protocol, version 1.0.0 (tus.io): creation and its kinds, the core, termination and concatenation.

The rule of this file: it decides by what the database says, before a body is read. Whoever calls has let the request
pass, and sends Tus-Resumable with errors too.
"""

from __future__ import annotations

from streamware.admission import Ticket
from streamware.file_admission import Caller
from streamware.file_request import FileRequest
from streamware.filestore import FileStore
from streamware.intake import Digests, Intake, Problem
from streamware.intake_tus import EmptyIntake, TusIntake
from streamware.reply import Reply
from streamware.semantics import format_http_date
from streamware.stored import StoredFile, Upload
from streamware.upload_errors import (
    FileForbidden,
    FileUnknown,
    OffsetMismatch,
    UnsupportedUpload,
    UploadInvalid,
    UploadTooLarge,
)
from streamware.uploads import (
    CHECKSUMS,
    TUS_TYPE,
    TUS_VERSION,
    Concat,
    announced_checksum,
    announced_concat,
    announced_digests,
    announced_metadata,
    essence,
    metadata_name,
    metadata_type,
    number,
)

__all__ = ["Tus", "speaks_tus"]

_EXTENSIONS = (
    *("creation", "creation-with-upload", "creation-defer-length", "checksum"),
    *("expiration", "termination", "concatenation"),
)
_VERSION = ("Tus-Resumable", TUS_VERSION)
_NO_STORE = ("Cache-Control", "no-store")
_CREATES = ("upload-length", "upload-defer-length", "upload-concat")

_Headers = tuple[tuple[str, str], ...]


def speaks_tus(request: FileRequest) -> bool:
    """Whether a request is meant as one of tus, of whatever version.

    Upload-Length alone says so unless Upload-Complete stands beside it, which is of the IETF's resumable uploads: what
    sends that takes an ordinary upload's answer too.
    """
    if "tus-resumable" in request.headers or request.method == "PATCH":
        return True
    creates = request.method == "POST" and request.id is None and "upload-complete" not in request.headers
    return creates and any(name in request.headers for name in _CREATES)


class Tus:
    """Answers requests of tus. Blocks on the database; from any thread.

    :param problem: makes the answer of an error.
    """

    def __init__(self, store: FileStore, problem: Problem) -> None:
        self._store = store
        self._policy = store.policy
        self._problem = problem

    def abilities(self) -> _Headers:
        """What an OPTIONS is told."""
        return (
            _VERSION,
            ("Tus-Version", TUS_VERSION),
            ("Tus-Extension", ",".join(_EXTENSIONS)),
            ("Tus-Max-Size", str(self._policy.max_upload_bytes)),
            ("Tus-Checksum-Algorithm", ",".join(CHECKSUMS)),
        )

    # --- creation ---

    def create(self, request: FileRequest, caller: Caller, ticket: Ticket, length: int | None) -> Reply | Intake:
        """Begin an upload, or join partial ones; an Intake if the request brings its first bytes.

        :param ticket: given back by the Intake if there is one, else by the caller.
        :param length: the body's.
        """
        concat = announced_concat(request.header("upload-concat"))
        if concat is not None and concat.kind == "final":
            return self._join(request, caller, concat)
        total = self._announced_length(request)
        metadata = request.header("upload-metadata") or ""
        named = announced_metadata(metadata)
        brings = essence(request.header("content-type")) == TUS_TYPE
        digests = self._digests(request) if brings else Digests({})
        if brings and length is not None:
            self._check_room(length, total)
        upload = self._store.begin(
            metadata_name(named, self._policy.max_name_bytes),
            metadata_type(named),
            length=total,
            kind="tus" if concat is None else "partial",
            owner=caller.owner,
            metadata=metadata,
            concat=request.header("upload-concat") or "",
        )
        location = f"{request.base}/{upload.id}"

        def created(upload: Upload) -> Reply:
            return _created(location, self._advanced(upload))

        try:
            if not brings:
                return created(upload)
            return TusIntake(
                self._store,
                upload,
                self._problem,
                ticket,
                length=length,
                digests=digests,
                kept=created,
                location=location,
            )
        except BaseException:
            self._store.give_up(upload.id)
            raise

    def _announced_length(self, request: FileRequest) -> int | None:
        told, deferred = request.header("upload-length"), request.header("upload-defer-length")
        if (told is None) == (deferred is None) or deferred not in (None, "1"):
            raise UploadInvalid("An upload is begun with Upload-Length, or with Upload-Defer-Length: 1.")
        return None if told is None else self._checked(number("Upload-Length", told))

    def _checked(self, total: int) -> int:
        if total > self._policy.max_upload_bytes:
            raise UploadTooLarge(f"This server takes files of at most {self._policy.max_upload_bytes} bytes.")
        return total

    def _check_room(self, stop: int, total: int | None) -> None:
        """Before a body whose last byte would stand before ``stop``."""
        if total is not None and stop > total:
            raise UploadTooLarge(f"The body goes past the {total} bytes that were announced.")
        self._checked(stop)

    def _digests(self, request: FileRequest) -> Digests:
        checksum = announced_checksum(request.header("upload-checksum"))
        return Digests(announced_digests(request, "content-digest"), checksum)

    def _join(self, request: FileRequest, caller: Caller, concat: Concat) -> Reply:
        if "upload-length" in request.headers or "upload-defer-length" in request.headers:
            raise UploadInvalid("The length of a final upload is that of its parts, and is not announced.")
        metadata = request.header("upload-metadata") or ""
        named = announced_metadata(metadata)
        # One at a time, as join() does itself: they are at most a thousand.
        parts = [self._own(each, caller) for each in concat.ids]
        if any(part.kind != "partial" for part in parts):
            raise UploadInvalid("Upload-Concat: a file is made of uploads that were begun as partial ones.")
        if any(part.offset != part.length for part in parts):
            raise UploadInvalid("Upload-Concat: a partial upload is not finished.")
        self._checked(sum(part.offset for part in parts))
        file = self._store.join(
            concat.ids,
            metadata_name(named, self._policy.max_name_bytes),
            metadata_type(named),
            owner=parts[0].owner,  # who counts for them already, should the caller's address have changed
            metadata=metadata,
            concat=request.header("upload-concat") or "",
        )
        return _created(f"{request.base}/{file.id}")

    # --- the core ---

    def head(self, id: str, caller: Caller) -> Reply:
        """How far an upload has come.

        :raises FileUnknown, UploadExpired: there is none, or none of the caller's.
        """
        found = self._found(id, caller)
        headers: list[tuple[str, str]] = [_VERSION, _NO_STORE]
        if isinstance(found, StoredFile):
            headers += (("Upload-Offset", str(found.size)), ("Upload-Length", str(found.size)), *_digest(found))
        else:
            headers.append(("Upload-Offset", str(found.offset)))
            told = ("Upload-Defer-Length", "1") if found.length is None else ("Upload-Length", str(found.length))
            headers += (told, ("Upload-Expires", format_http_date(found.expires)))
        if found.metadata:
            headers.append(("Upload-Metadata", found.metadata))
        if found.concat:
            headers.append(("Upload-Concat", found.concat))
        return Reply(200, tuple(headers))

    def patch(self, id: str, request: FileRequest, caller: Caller, ticket: Ticket, length: int | None) -> Intake:
        """Go on with an upload; see ``create``."""
        if essence(request.header("content-type")) != TUS_TYPE:
            raise UnsupportedUpload(f"PATCH takes bodies of the type {TUS_TYPE}.")
        told = request.header("upload-offset")
        if told is None:
            raise UploadInvalid("PATCH needs an Upload-Offset.")
        at = number("Upload-Offset", told)
        found = self._found(id, caller, at)
        if found.concat.startswith("final"):
            raise FileForbidden("Nothing can be added to a final upload.")
        offset = found.size if isinstance(found, StoredFile) else found.offset
        if at != offset:
            raise OffsetMismatch(f"The upload stands at {offset}.", headers=(("Upload-Offset", str(offset)),))
        total = offset if isinstance(found, StoredFile) else found.length
        announced = request.header("upload-length")
        if announced is not None:
            new = self._checked(number("Upload-Length", announced))
            if new < offset or total not in (None, new):
                raise UploadInvalid("Upload-Length is not what was announced before, or less than has come.")
            total = new
        if length is not None:
            self._check_room(offset + length, total)
        digests = self._digests(request)
        if isinstance(found, StoredFile):
            return EmptyIntake(self._problem, ticket, self._patched(found))
        if found.length is None and total is not None:
            found = self._store.set_length(found, total)
        return TusIntake(self._store, found, self._problem, ticket, length=length, digests=digests, kept=self._patched)

    def _patched(self, kept: Upload | StoredFile) -> Reply:
        if isinstance(kept, StoredFile):
            return Reply(204, (_VERSION, ("Upload-Offset", str(kept.size)), *_digest(kept)))
        return Reply(204, (_VERSION, *self._advanced(kept)))

    def _advanced(self, upload: Upload) -> _Headers:
        """What is told of an upload after something was added to it; if that was the last, it is a file now."""
        offset = ("Upload-Offset", str(upload.offset))
        if upload.kind == "partial" or upload.offset != upload.length:
            return (offset, ("Upload-Expires", format_http_date(upload.expires)))
        return (offset, *_digest(self._finished(upload)))

    # --- termination ---

    def end(self, id: str, caller: Caller) -> bool:
        """End an unfinished upload. False: it is a file.

        :raises FileUnknown, UploadExpired: there is none, or none of the caller's.
        """
        if isinstance(self._found(id, caller), StoredFile):
            return False
        self._store.end(id)
        return True

    # --- both ---

    def _found(self, id: str, caller: Caller, at: int | None = None) -> Upload | StoredFile:
        """An upload of the caller's, or the file it has become; ``at`` as in ``FileStore.upload``.

        One that has all its bytes and is no file yet was left by a process that died in between, and is made one.
        """
        try:
            upload = self._own(id, caller, at)
        except FileUnknown:
            file = self._store.file(id)
            if not caller.owns(file.owner):
                raise
            return file
        if upload.kind != "partial" and upload.offset == upload.length:
            return self._finished(upload)
        return upload

    def _own(self, id: str, caller: Caller, at: int | None = None) -> Upload:
        upload = self._store.upload(id, at)
        if upload.kind == "raw" or not caller.owns(upload.owner):
            raise FileUnknown(f"upload {id} is not for this caller to go on with")
        return upload

    def _finished(self, upload: Upload) -> StoredFile:
        try:
            return self._store.finish(upload)
        except OffsetMismatch:  # another request has done so in this moment; or it was ended, which is FileUnknown
            return self._store.file(upload.id)


def _created(location: str, more: _Headers = ()) -> Reply:
    return Reply(201, (_VERSION, ("Location", location), ("Content-Length", "0"), _NO_STORE, *more))


def _digest(file: StoredFile) -> _Headers:
    return () if file.digest is None else (("Repr-Digest", file.digest),)
