"""What errors hold on to: the frames they came through.

The rule of this file: what a log shows of an error stays.
"""

from __future__ import annotations

from traceback import clear_frames

__all__ = ["let_go"]


def let_go(error: BaseException) -> None:
    """Empty the frames that the tracebacks of an error and its causes hold, but for those that still run.

    Pieces of content are in them, and often the error itself, so that all of it would wait for the garbage collector.
    The lines that a log shows stay.
    """
    left, seen = [error], set()
    while left:
        error = left.pop()
        seen.add(id(error))
        clear_frames(error.__traceback__)
        left += [e for e in (error.__cause__, error.__context__) if e is not None and id(e) not in seen]
