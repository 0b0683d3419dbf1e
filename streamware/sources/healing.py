"""A body that breaks off is gone on with from another answer: tries, pauses and time limits, and the bytes in one row.

The rule of this file: it decides when and where to ask again, never whether an answer's bytes may be joined to those
that were given; that is the source's to prove. Waits end at once when nothing more is wanted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from random import uniform
from time import monotonic
from typing import Protocol, TypeVar

from streamware.errors import BodyClosed, MemberError, SizeMismatch, UpstreamError, UpstreamStatus, UpstreamTimeout
from streamware.exchange import Stop, UpstreamChunks
from streamware.policy import Policy

__all__ = ["HealingChunks", "Reading", "Tries"]

_log = logging.getLogger("streamware")

_OPENING_TURNS = 3  # how often a member's places are gone through before its first byte
_PROGRESS_BYTES = 1 << 20  # what an opening must give to be none that is counted against the member

_T = TypeVar("_T")


class Tries:
    """The openings that one reading of a member may take, and where and when: its own URL is place 0, mirrors follow.

    A place that fails in a way that will not pass is not asked again. A pause comes before each turn but an opening's
    first, jittered, and doubled from turn to turn; a server that names a pause itself gets that.
    """

    def __init__(self, places: int, policy: Policy, stop: Stop, retried: Callable[[], None]) -> None:
        self.place = 0  # the last that gave an answer
        self.ends = monotonic() + policy.member_seconds
        self._left = policy.max_tries
        self._breaks = 0  # since the last opening that got on
        self._places = places
        self._lost: set[int] = set()
        self._policy = policy
        self._stop = stop
        self._retried = retried

    def open(self, attempt: Callable[[int], _T]) -> _T:
        """The first success, for who waits for an answer: each place once, and again while that takes a moment only.

        :raises MemberError: the first error, with the others in its detail.
        """
        return self._seek(attempt, range(_OPENING_TURNS), monotonic() + self._policy.connect_timeout_seconds, [])

    def reopen(self, attempt: Callable[[int], _T], error: MemberError, *, got: int) -> _T:
        """The first success after a body broke off ``got`` bytes behind its last opening.

        The same place comes first, then the others in turn; if it is the second time that so little came, the others
        come first. Whoever gets on has its tries anew.

        :raises MemberError: ``error`` itself, with the others in its detail.
        """
        if got >= _PROGRESS_BYTES:
            self._left = self._policy.max_tries - 1  # the opening that got so far is the first
            self._breaks = 0
        self._breaks += 1
        first = self.place if self._breaks == 1 else (self.place + 1) % self._places
        try:
            return self._seek(attempt, count(1), self.until(), [error], first)
        finally:
            del error  # an error that a frame of its own traceback holds would keep all of theirs

    def until(self) -> float:
        """The time by which a body that breaks off now must go on."""
        return min(monotonic() + self._policy.heal_seconds, self.ends)

    def _seek(
        self,
        attempt: Callable[[int], _T],
        turns: Iterable[int],
        until: float,
        errors: list[MemberError],
        first: int = 0,
    ) -> _T:
        order = [*range(first, self._places), *range(first)]
        broke = bool(errors)
        earliest = {place: 0.0 for place in order if place not in self._lost}
        try:
            if self._stop.is_set:
                raise BodyClosed("ended by abort()")
            for turn in turns:
                pause = self._pause(turn)
                for place in tuple(earliest):
                    if not self._left:
                        raise _first(errors)
                    if turn:
                        wait = max(pause, earliest[place] - monotonic())
                        if monotonic() + wait > until:
                            del earliest[place]
                            continue
                        self._stop.wait(wait)
                        self._retried()
                        pause = 0.0
                    self._left -= 1
                    try:
                        found = attempt(place)
                    except MemberError as error:
                        if self._stop.is_set:
                            raise BodyClosed("ended by abort()") from error
                        errors.append(error)
                        if error.passing or (broke and _stumbled(error)):
                            earliest[place] = monotonic() + (error.retry_after or 0)
                        else:
                            self._lost.add(place)
                            del earliest[place]
                    else:
                        self.place = place
                        return found
                if not earliest:
                    break
            raise _first(errors)
        finally:
            errors.clear()  # see reopen()

    def _pause(self, turn: int) -> float:
        """Seconds before a turn; half of them by chance, so that many who failed together do not return together."""
        if not turn:
            return 0.0
        full: float = self._policy.retry_pause_seconds * 2 ** min(turn - 1, 30)
        return min(full, self._policy.max_retry_pause_seconds) * uniform(0.5, 1.0)


def _stumbled(error: MemberError) -> bool:
    """Whether it is an error of a server's own: one that has given a member's beginning will get over it."""
    return isinstance(error, UpstreamStatus) and error.upstream_status >= 500


def _first(errors: list[MemberError]) -> MemberError:
    first, *others = errors
    first.detail = "; then ".join((first.detail, *(error.detail for error in others)))
    return first


class Reading(Protocol):
    """What gives the answers for one run of a member's bytes, and vouches that they are of one version."""

    def joins(self, given: int) -> bool:
        """Whether bytes of another answer may follow the first ``given``."""

    def again(self, place: int, given: int, until: float) -> UpstreamChunks:
        """The bytes after the first ``given``, from one of the places. Raises MemberError."""


class HealingChunks:
    """Bytes as of one answer, over as many as it takes (``Chunks``).

    :param chunks: of the first answer.
    """

    __slots__ = ("_chunks", "_given", "_opened_at", "_reading", "_stop", "_tries")

    def __init__(self, chunks: UpstreamChunks, reading: Reading, tries: Tries, stop: Stop) -> None:
        self._chunks = chunks
        self._reading = reading
        self._tries = tries
        self._stop = stop
        self._given = 0
        self._opened_at = 0  # what was given before the last opening

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if monotonic() > self._tries.ends:
                raise UpstreamTimeout(f"{self._chunks.url}: the member took longer than it may")
            piece = next(self._chunks)
        except (UpstreamError, SizeMismatch) as error:
            piece = self._healed(error)
        if not piece:
            raise StopIteration
        self._given += len(piece)
        return piece

    def ready(self) -> bool:
        """Whether the next piece needs no waiting; where the connection has ended too early, it will."""
        return self._chunks.ready() and not (self._heals() and self._chunks.broken())

    def abort(self) -> None:
        self._stop.set()
        self._chunks.abort()

    def close(self) -> None:
        self._chunks.close()

    def _heals(self) -> bool:
        """Whether another answer may go on where this one breaks off."""
        return monotonic() <= self._tries.ends and (not self._given or self._reading.joins(self._given))

    def _healed(self, error: UpstreamError | SizeMismatch) -> bytes:
        """The next piece from another answer; b"" if that shows that nothing was missing.

        :raises MemberError: ``error``.
        """
        self._chunks.close()
        cause, until = error.detail, self._tries.until()

        def attempt(place: int) -> bytes:
            chunks = self._chunks = self._reading.again(place, self._given, until)
            if self._stop.is_set:  # abort() came while there was nothing yet that it could have stopped
                chunks.abort()
            return next(chunks, b"")

        try:
            if not self._heals():
                raise error
            got, self._opened_at = self._given - self._opened_at, self._given
            piece = self._tries.reopen(attempt, error, got=got)
        finally:
            del error  # see Tries.reopen()
        _log.warning("a member broke off at byte %d and went on from %s: %s", self._given, self._chunks.url, cause)
        return piece
