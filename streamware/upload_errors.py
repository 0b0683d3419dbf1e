"""What goes wrong with uploads and single files: the branch of the error tree that the file service raises.

The rule of this file: that of ``errors``. A client's fault carries the status and the headers it is answered with.
"""

from __future__ import annotations

from typing import Any

from streamware.errors import PreconditionFailed, RangeNotSatisfiable, RequestError, SourceError, StreamwareError

__all__ = [
    "DeleteForbidden",
    "FileForbidden",
    "FilePreconditionFailed",
    "FileRangeNotSatisfiable",
    "FileUnknown",
    "LengthRequired",
    "MethodNotAllowed",
    "OffsetMismatch",
    "QuotaExceeded",
    "StoreError",
    "StoreFailed",
    "StoreFull",
    "StoreUnavailable",
    "StoredUnavailable",
    "TooManyUploads",
    "Unauthorized",
    "UnsupportedUpload",
    "UploadBroken",
    "UploadChecksumMismatch",
    "UploadDigestMismatch",
    "UploadError",
    "UploadExpired",
    "UploadInvalid",
    "UploadLocked",
    "UploadTooLarge",
    "UploadTooSlow",
    "UploadVersion",
]

# --- the request is at fault ---


class UploadError(RequestError):
    """What was sent is not kept, or only as far as the answer says.

    ``headers`` go into the answer besides.
    """

    kind = "invalid-upload"
    title = "The upload is not valid."

    def __init__(self, detail: str = "", *, headers: tuple[tuple[str, str], ...] = (), **about: Any) -> None:
        super().__init__(detail, **about)
        self.headers = headers


class UploadInvalid(UploadError):
    """A header, a form or a framing that cannot be used."""


class UploadBroken(UploadError):
    """The body ended before it was whole."""

    kind = "upload-broken"
    title = "The upload broke off before it was whole."


class UploadTooSlow(UploadError):
    status = 408
    kind = "upload-too-slow"
    title = "The upload came too slowly."


class MethodNotAllowed(UploadError):
    """``headers`` hold the Allow of RFC 9110 section 10.2.1."""

    status = 405
    kind = "method-not-allowed"
    title = "This cannot be done here."


class LengthRequired(UploadError):
    """Behind this host nobody could tell a whole body without length from one that broke off; ``detail`` says why."""

    status = 411
    kind = "length-required"
    title = "This server needs the Content-Length of an upload."
    detail_is_public = False


class UploadVersion(UploadError):
    """No Tus-Resumable header, or one of another version (tus 1.0.0, "Tus-Version")."""

    status = 412
    kind = "upload-version"
    title = "This server speaks version 1.0.0 of the tus protocol."


class UploadTooLarge(UploadError):
    status = 413
    kind = "upload-too-large"
    title = "The upload is larger than this server takes."


class UnsupportedUpload(UploadError):
    status = 415
    kind = "unsupported-upload"
    title = "The upload has a type or coding that cannot be taken."


class OffsetMismatch(UploadError):
    """The bytes do not begin where those end that are here, or somebody else has added to them meanwhile."""

    status = 409
    kind = "offset-mismatch"
    title = "The upload does not go on from where it stands."


class UploadLocked(UploadError):
    status = 423
    kind = "upload-locked"
    title = "Another request is adding to this upload."


class UploadExpired(UploadError):
    status = 410
    kind = "upload-expired"
    title = "This upload has expired."


class UploadDigestMismatch(UploadError):
    """The bytes are not those that a digest was sent of."""

    kind = "digest-mismatch"
    title = "What came is not what its checksum was made of."


class UploadChecksumMismatch(UploadDigestMismatch):
    """The same of an Upload-Checksum: tus 1.0.0 has a status of its own for it."""

    status = 460


class Unauthorized(UploadError):
    status = 401
    kind = "unauthorized"
    title = "This needs an authorization."


class FileForbidden(UploadError):
    status = 403
    kind = "forbidden"
    title = "You may not do this here."


class DeleteForbidden(UploadError):
    status = 403
    kind = "delete-forbidden"
    title = "Files cannot be deleted here."


class FileUnknown(UploadError):
    """No such file, an upload that is not whole, or an id that cannot be one: the text is the same."""

    status = 404
    kind = "file-unknown"
    title = "There is no such file."
    detail_is_public = False


class FilePreconditionFailed(PreconditionFailed):
    title = "The file is not the version that was asked for."


class FileRangeNotSatisfiable(RangeNotSatisfiable):
    title = "The file has no bytes in the range that was asked for."


class TooManyUploads(UploadError):
    status = 429
    kind = "too-many-uploads"
    title = "You have sent too many uploads; try again later."


class QuotaExceeded(UploadError):
    status = 507
    kind = "quota-exceeded"
    title = "There is no room left for your files on this server."


# --- this side is at fault ---


class StoreError(StreamwareError):
    """Stored files cannot be written, read or looked up."""


class StoreUnavailable(StoreError):
    """The database or the object store does not answer."""

    status = 503
    kind = "store-unavailable"
    title = "The server cannot reach its files at the moment; try again later."


class StoredUnavailable(SourceError):
    """The same, of a stored file that is a member of a bundle, or is being downloaded."""

    status = 503
    kind = StoreUnavailable.kind
    title = StoreUnavailable.title
    passing = True


class StoreFull(StoreError):
    status = 507
    kind = "store-full"
    title = "The server has no room left for files."


class StoreFailed(StoreError):
    """The object store failed in a way that asking again will not mend."""

    kind = "store-failed"
    title = "The server could not keep or read a file."
