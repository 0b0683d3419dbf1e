"""What a source raised that is no error of ours, made one that says so.

The rule of this file: nothing is caught here and nothing hidden; the error as it was raised is the cause of what is
made of it.
"""

from __future__ import annotations

from streamware.errors import SourceError, StreamwareError

__all__ = ["Foreign", "own"]


class Foreign(SourceError):
    """What a source raised that is no error of ours; that is its cause."""


def own(error: Exception) -> StreamwareError:
    """Any error as one of ours: a bare OSError would be taken by hosts for the client's own leaving."""
    if isinstance(error, StreamwareError):
        return error
    failure = Foreign(f"a member failed: {error!r}")
    failure.__cause__ = error
    return failure
