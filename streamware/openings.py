"""Which bytes of which member are wanted for a window: for the walk at a member's turn, and for whoever reads ahead.

The rule of this file: it is the only formula for that, so what is opened early is what will be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from streamware.formats.framing import content_span
from streamware.plan import Coded, Derived, Extent, Framed, Known, Method, Passed, Plan, Segment, Table, Window

__all__ = ["Opening", "Place", "Span", "openings", "overlap", "wanted"]

_UNKNOWN = 256 * 1024  # what a member of unknown size is taken to weigh among those that stand before another

Place = tuple[int, int]  # the index of a window among the pieces, and of an item of the plan


class Opening(NamedTuple):
    """``length`` bytes of a member from ``start`` on; None: up to its end, which is not known.

    ``at`` is how many bytes stand before it from the first window's start on: exact in a plan of known length, else an
    estimate.
    """

    place: Place
    at: int
    member: int
    start: int
    length: int | None


class Span(NamedTuple):
    """A half-open range of a member's content; ``stop`` None: its end, which is not known.

    ``quoted``: the header stands before it and quotes a checksum that is not known, so all of the member is read first.
    """

    start: int
    stop: int | None
    quoted: bool


def overlap(length: int | None, position: int, window: Window) -> tuple[int, int | None]:
    """What of a segment at ``position`` lies in the window, counted from the segment's own start."""
    low, stop = window.start - position, window.stop
    if low < 0:
        low = 0
    if stop is None:
        return low, length
    high = stop - position
    if length is not None and length < high:
        return low, length
    return low, high if high > 0 else 0


def wanted(entries: Table, segments: Iterable[Segment], position: int, window: Window, known: Known) -> Span | None:
    """Which content is wanted of a member whose segments begin at ``position``; None for nothing."""
    quoted = False
    for segment in segments:
        if isinstance(segment, Passed):
            return Span(0, None, quoted)
        if isinstance(segment, Extent | Framed | Coded):
            low, high = overlap(segment.length, position, window)
            if high is not None and low >= high:
                return None
            if segment.length is None or isinstance(segment, Coded):  # a compressor starts at the start
                return Span(0, entries[segment.member].size, quoted)
            assert high is not None
            if isinstance(segment, Framed):
                low, high = content_span(segment.size or 0, low, high)
            return Span(low, high, quoted)
        quoted = quoted or (isinstance(segment, Derived) and known.crc32(segment.member) is None)
        position += segment.length or 0
    return None


def openings(
    plan: Plan, entries: Table, known: Known, pieces: Iterable[bytes | Window], early: Callable[[int], bool]
) -> Iterator[Opening]:
    """The openings that the windows will come to, in order, of the members that ``early`` names; made one at a time."""
    at = 0
    for index, window in enumerate(pieces):
        if isinstance(window, bytes):
            continue
        if plan.offsets is None:  # one window, over everything
            yield from _whole(plan, entries, index, early)
            return
        stop = plan.length if window.stop is None else window.stop
        assert stop is not None
        for item in range(plan.locate(window.start), plan.layout.members):
            position = plan.offsets[item]
            if position >= stop:
                break
            if not early(item):
                continue
            span = wanted(entries, plan.layout.segments(item, known), position, window, known)
            if span is None:
                continue
            first, end = (0, entries[item].size) if span.quoted else (span.start, span.stop)
            assert end is not None
            yield Opening((index, item), at + max(0, position - window.start), item, first, end - first)
        at += stop - window.start


def _whole(plan: Plan, entries: Table, index: int, early: Callable[[int], bool]) -> Iterator[Opening]:
    """The same where offsets come out only as bytes pass: each member from its start to its end."""
    at = 0
    for item in range(plan.layout.members):
        entry = entries[item]
        if entry.method is Method.DIRECTORY or entry.size == 0:
            continue
        if early(item):
            # What is passed through comes in a coding of its own, of any length.
            yield Opening((index, item), at, item, 0, None if entry.passthrough else entry.size)
        at += _UNKNOWN if entry.size is None else entry.size
