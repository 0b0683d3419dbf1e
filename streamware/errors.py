"""Every error streamware raises, in one tree split by whose fault it is.

The rule of this file: a class carries a status hint (what to answer while nothing has been sent) and a fixed public
``title``. ``detail`` reaches a client only where ``detail_is_public`` says so, that is where it speaks of nothing but
the client's own input; everywhere else it goes to the log.

No upstream's ``OSError`` leaves the package bare: hosts take such errors for "the client went away" and answer nothing
(gunicorn does, before the first byte).
"""

from __future__ import annotations

__all__ = [
    "BodyClosed",
    "ChecksumMismatch",
    "EmptyBundle",
    "IntegrityError",
    "InvalidManifest",
    "InvalidName",
    "InvalidTarget",
    "LedgerError",
    "LengthUnknown",
    "LimitExceeded",
    "LinkExpired",
    "LinkUnknown",
    "LoopDetected",
    "MemberChanged",
    "MemberError",
    "MemberForbidden",
    "MemberNotFound",
    "MemberTooLarge",
    "MembersFailed",
    "NotAllowed",
    "Overloaded",
    "PreconditionFailed",
    "RangeNotSatisfiable",
    "RequestError",
    "SizeMismatch",
    "SizeUnknown",
    "SourceError",
    "StreamwareError",
    "TooManyDownloads",
    "TooSlow",
    "UpstreamBusy",
    "UpstreamError",
    "UpstreamStatus",
    "UpstreamTimeout",
    "UpstreamUnreachable",
]


class StreamwareError(Exception):
    """The root. ``status`` is an HTTP status, ``kind`` the stable last part of the problem's ``type`` URI.

    ``detail`` is free text; ``member`` the name of the member at fault, ``index`` its place in the bundle (from 0),
    ``pointer`` an RFC 6901 JSON pointer into the manifest, ``retry_after`` whole seconds. Each may be None.
    """

    status = 500
    kind = "internal"
    title = "The archive could not be made."
    detail_is_public = False

    def __init__(
        self,
        detail: str = "",
        *,
        member: str | None = None,
        index: int | None = None,
        pointer: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.member = member
        self.index = index
        self.pointer = pointer
        self.retry_after = retry_after

    def __str__(self) -> str:
        where = f" (member {self.member!r})" if self.member is not None else ""
        return f"{self.detail or self.title}{where}"


# --- the request is at fault -------------------------------------------------------------------------------------


class RequestError(StreamwareError):
    """What was asked for cannot be had; asking again the same way will not help."""

    status = 400
    kind = "bad-request"
    title = "The request for an archive is not valid."
    detail_is_public = True


class InvalidManifest(RequestError):
    kind = "invalid-manifest"
    title = "The manifest is not valid."


class InvalidName(RequestError):
    kind = "invalid-name"
    title = "A member's name is not allowed in an archive."


class InvalidTarget(RequestError):
    """A member's path or URL is not one that can be asked for."""

    kind = "invalid-target"
    title = "A member's path or URL is not valid."


class EmptyBundle(RequestError):
    """No member at all. Refused because common readers take an empty archive for a damaged one."""

    kind = "empty-bundle"
    title = "The bundle has no members."


class SizeUnknown(RequestError):
    """The format needs the size of every member before its first byte (TAR does)."""

    kind = "size-unknown"
    title = "This archive format needs the size of every member, and one is not known; ask for a ZIP instead."


class LengthUnknown(RequestError):
    """A body without Content-Length, where a broken one would look whole to the client; ``detail`` says why it would.

    Its status is 505 where that is because of HTTP/1.0 (RFC 9110 section 15.6.6).
    """

    status = 500
    kind = "length-unknown"
    title = (
        "This download has no length beforehand, and without one nobody here could tell if it broke off; ask with "
        "HTTP/1.1, or for a stored ZIP or a TAR of members whose sizes are known or declared."
    )
    detail_is_public = False


class NotAllowed(RequestError):
    """Policy refuses the URL. The text is the same whether or not anything is there."""

    status = 403
    kind = "not-allowed"
    title = "This server is not allowed to fetch a member's URL."
    detail_is_public = False


class LimitExceeded(RequestError):
    status = 413
    kind = "limit-exceeded"
    title = "The bundle is over a limit of this server."


class Overloaded(RequestError):
    status = 503
    kind = "overloaded"
    title = "The server is busy; try again later."


class TooManyDownloads(RequestError):
    """One client has as many downloads running as one client may have."""

    status = 429
    kind = "too-many-downloads"
    title = "You have too many downloads running; try again when one has ended."


class TooSlow(RequestError):
    """A download took longer than it may. It has begun by then, so that no status tells of it."""

    status = 503
    kind = "too-slow"
    title = "The download took longer than this server lets one take."


class LinkUnknown(RequestError):
    """No such link, or one that was tampered with: the text is the same."""

    status = 404
    kind = "link-unknown"
    title = "There is no such link."
    detail_is_public = False


class LinkExpired(RequestError):
    status = 410
    kind = "link-expired"
    title = "This link has expired."
    detail_is_public = False


class PreconditionFailed(RequestError):
    status = 412
    kind = "precondition-failed"
    title = "The archive is not the version that was asked for."


class RangeNotSatisfiable(RequestError):
    status = 416
    kind = "range-not-satisfiable"
    title = "The archive has no bytes in the range that was asked for."


# --- a member is at fault ----------------------------------------------------------------------------------------


class MemberError(StreamwareError):
    """One member could not be had, or not as it was promised."""

    status = 502
    kind = "member-failed"
    title = "A member could not be fetched."


class MemberNotFound(MemberError):
    status = 404
    kind = "member-not-found"
    title = "A member does not exist."


class MemberForbidden(MemberError):
    status = 403
    kind = "member-forbidden"
    title = "A member may not be read with these credentials."


class LoopDetected(MemberError):
    """Bundles inside of bundles, deeper than the policy allows (RFC 5842 section 7.2)."""

    status = 508
    kind = "loop-detected"
    title = "Bundles stand inside of bundles, deeper than this server allows."


class MembersFailed(MemberError):
    """Several members failed before the head; ``failures`` holds one error each, in bundle order."""

    kind = "members-failed"
    title = "Some members could not be fetched."

    def __init__(self, failures: tuple[MemberError, ...]) -> None:
        super().__init__(f"{len(failures)} members failed; the first: {failures[0]}")
        self.failures = failures
        self.status = failures[0].status if len({f.status for f in failures}) == 1 else 502


class UpstreamError(MemberError):
    kind = "upstream-error"
    title = "A member's server gave an answer that cannot be used."


class UpstreamStatus(UpstreamError):
    """The upstream's final status was not the one asked for; ``upstream_status`` is that status."""

    kind = "upstream-status"
    title = "A member's server answered with an error."

    def __init__(self, detail: str, *, upstream_status: int, retry_after: int | None = None) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.upstream_status = upstream_status


class UpstreamUnreachable(UpstreamError):
    kind = "upstream-unreachable"
    title = "A member's server could not be reached."


class UpstreamTimeout(UpstreamError):
    status = 504
    kind = "upstream-timeout"
    title = "A member's server did not answer in time."


class UpstreamBusy(UpstreamTimeout):
    """As many answers of the upstream are open here as Policy allows, and none ended in time."""

    status = 503
    kind = "upstream-busy"
    title = "Too many files are being read from a member's server; try again later."


class IntegrityError(MemberError):
    """The bytes that came are not the bytes that were promised."""

    kind = "integrity"
    title = "A member is not what was promised."


class SizeMismatch(IntegrityError):
    kind = "size-mismatch"
    title = "A member's size is not what was promised."


class ChecksumMismatch(IntegrityError):
    kind = "checksum-mismatch"
    title = "A member's checksum is not what was promised."


class MemberChanged(IntegrityError):
    """The validator differs from the one the plan was made with."""

    kind = "member-changed"
    title = "A member changed while the archive was being made."


class MemberTooLarge(IntegrityError):
    """A member of unknown size outgrew the 32-bit framing it was announced with (APPNOTE 4.3.9.2)."""

    kind = "member-too-large"
    title = "A member of unknown size is larger than 4 GiB; announce it with may_exceed_4gib."


# --- this side is at fault ---------------------------------------------------------------------------------------


class SourceError(MemberError):
    """Content that this server holds (a file, a generator) could not be read."""

    status = 500
    kind = "source-failed"
    title = "A member could not be read."


class LedgerError(StreamwareError):
    """What has to be kept, or asked for, in the ledger's database cannot be at the moment."""

    status = 503
    kind = "ledger-unavailable"
    title = "The server cannot keep or look up links at the moment; try again later."


class BodyClosed(StreamwareError):
    """A body was read after ``close()`` or ``abort()``."""

    kind = "closed"
    title = "The download was ended before it was complete."
