"""What goes wrong with an object store, as errors of ours.

The rule of this file: it reads what obstore and the system say, and knows no other way to tell one failure from
another; what it cannot tell is a failure that asking again will not mend.
"""

from __future__ import annotations

import errno
import re

from streamware.errors import MemberNotFound, StreamwareError
from streamware.upload_errors import StoreFailed, StoreFull, StoreUnavailable

__all__ = ["first_line", "mapped"]

# What obstore says, for its errors carry no numbers: of a local system, of a server's answer, of a failed connection.
_SYSTEM = re.compile(r"\(os error (\d+)\)")
_STATUS = re.compile(r"status code: (\d{3})")
_FULL_WORDS = re.compile(r"StorageFull|QuotaExceeded|InsufficientStorage")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|The specified bucket does not exist")
_BROKEN_WORDS = re.compile(
    r"HTTP error(?!: builder)|error sending request|timed out|TimedOut|connection|SlowDown|InternalError"
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # the last has no room for what is new either
_PASSING = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ESTALE}  # the last three are a network's
    | {errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN}
)


def mapped(error: Exception, doing: str) -> StreamwareError:
    """One of our errors for one of obstore's or the system's."""
    text = first_line(error)
    detail = f"{doing}: {text}"
    code = error.errno if isinstance(error, OSError) else None
    if code is None and (found := _SYSTEM.search(text)):
        code = int(found[1])
    answered = _STATUS.search(text)
    status = int(answered[1]) if answered else None
    if code in _FULL or status == 507 or (answered and _FULL_WORDS.search(text)):
        return StoreFull(detail)
    if code in _PASSING or status in (408, 429) or (status or 0) >= 500:
        return StoreUnavailable(detail)
    if isinstance(error, FileNotFoundError) and not _NO_BUCKET.search(text):
        return MemberNotFound(detail)
    if code is None and status is None and _BROKEN_WORDS.search(text):
        return StoreUnavailable(detail)
    return StoreFailed(detail)


def first_line(error: Exception) -> str:
    """What obstore says before it goes on with its structures."""
    text = str(error).partition("\n\nDebug source:")[0]
    return " ".join(text.split())[:1000]
