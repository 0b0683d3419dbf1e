"""The walk: one window of a plan after another, record by record, member by member.

The rules of this file. A member is opened before its header is given, so that an opening that fails can still be
answered properly; once its header is out, a failure stops inside that member, never between two and never with an end
record, because many readers take such a file for a whole one. So the last piece of a member is held back until the
member has been proved.

The generators here give pieces of bytes, None where the next step may have to wait for somebody, and what comes late:
bytes that are being compressed while those behind them are read already, and records that tell what those came to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from functools import partial

from streamware.ahead import Ahead
from streamware.coding import Parts, Pieces, coded_key, deflated, gzipped, zstandardized
from streamware.errors import (
    BodyClosed,
    ChecksumMismatch,
    LimitExceeded,
    MemberError,
    MemberTooLarge,
    NotAllowed,
    SizeMismatch,
    SourceError,
    StreamwareError,
    TooSlow,
)
from streamware.formats.framing import content_span, frames, open_frames
from streamware.ledger import Ledger
from streamware.line import ALL_BEFORE, Late, Line, in_order
from streamware.model import Chunks, Source
from streamware.openings import Place, Span, openings, overlap, wanted
from streamware.plan import Coded, Derived, Extent, Framed, Literal, Method, Plan, Segment, Table, Window
from streamware.policy import Policy
from streamware.recall import Recall
from streamware.tally import Tally

__all__ = ["Foreign", "Walk", "own"]

_LIMIT_32 = 0xFFFFFFFF

_Waits = Generator[None, None, None]


class Walk:
    """One reading of a plan, from one thread at a time; ``abort()`` from any.

    :param source_of: gives the source of a member by its index; asked when the member is opened.
    :param version_of: gives the ledger's key of a member, None for one that nothing pins.
    :param failures: with a list, members that cannot be opened are left out and their errors appended.
    :param places: the caller's number of each member, for errors; None: they are the same.
    :param ahead: opens members before their turn; None: none is.
    :param line: compresses blocks side by side; None: one after another.
    """

    def __init__(
        self,
        plan: Plan,
        entries: Table,
        source_of: Callable[[int], Source],
        version_of: Callable[[int], bytes | None],
        ledger: Ledger,
        policy: Policy,
        failures: list[MemberError] | None,
        places: Sequence[int] | None = None,
        ahead: Ahead | None = None,
        line: Line | None = None,
    ) -> None:
        self._line = line or Line()
        # What counts the bytes of the archive, which are not yet coded here where all of it is.
        self._order = self._line if plan.coding is None else Line()
        self._plan = plan
        self._entries = entries
        self._source_of = source_of
        self._version_of = version_of
        self._ledger = ledger
        self._recall = Recall(ledger, entries, version_of)
        self._policy = policy
        self._places = places
        self._failures = failures if plan.length is None else None
        self._known = plan.known()
        self._ahead = ahead
        self._place: Place = (0, 0)
        self._opening: Source | None = None
        self._chunks: Chunks | None = None
        self._inline: tuple[int, bytes] = (-1, b"")
        self._aborted = False
        self._awaited: Callable[[], bool] | None = None  # whether what the next step waits for has come
        self.members = 0  # opened so far
        self.bytes_in = 0  # content read so far
        self.deadline: float | None = None  # when it must have ended, as time.monotonic() counts
        self.hurry = False  # the consumer holds bytes that it would rather send than have joined with late ones

    def parts(self, pieces: Sequence[bytes | Window]) -> Pieces:
        """The bytes of the windows, and the literal bytes between them."""
        plan = self._plan
        parts = in_order(self._parts(pieces), self._order)
        if plan.coding is None:
            return parts
        if plan.coding == "gzip":
            return in_order(gzipped(parts, plan.level), self._line)
        return zstandardized(parts, self._line.threads())

    def ready(self) -> bool:
        """Whether the next step needs no waiting for anybody."""
        chunks = self._chunks
        if self._line.held:
            return True
        if self._awaited is not None:
            return self._awaited()
        return chunks is None or chunks.ready()

    def abort(self) -> None:
        self._aborted = True
        self._line.abort()
        opening, chunks = self._opening, self._chunks
        if opening is not None and hasattr(opening, "abort"):
            opening.abort()
        if chunks is not None:
            chunks.abort()
        if self._ahead is not None:
            self._ahead.abort()

    def close(self) -> None:
        try:
            self._close_member()
        finally:
            self._line.close()
            if self._ahead is not None:
                self._ahead.close()

    def _close_member(self) -> None:
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            chunks.close()

    def _parts(self, pieces: Sequence[bytes | Window]) -> Parts:
        ahead = self._ahead
        if ahead is not None:
            ahead.begin(openings(self._plan, self._entries, self._known, pieces, ahead.cares))
        for index, piece in enumerate(pieces):
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from self._window(index, piece)

    def _window(self, index: int, window: Window) -> Parts:
        plan, known, layout = self._plan, self._known, self._plan.layout
        exact = plan.offsets is not None
        item = plan.locate(window.start) if exact else 0
        position = known.offsets[item] if exact else 0
        while item < layout.items:
            if window.stop is not None and position >= window.stop:
                return
            if not exact:
                if item == layout.members:  # from here on records tell of all the offsets before
                    yield ALL_BEFORE
                yield Late(then=self._offset)
            segments = layout.segments(item, known)
            span = None
            if item < layout.members:
                span = wanted(self._entries, segments, position, window, known)
            if span is not None:
                self._place = (index, item)
                yield from self._member(item, segments, position, window, span)
                position += sum(s.length or 0 for s in segments)
            else:
                for segment in segments:
                    low, high = overlap(segment.length, position, window)
                    if high is None or low < high:
                        record = yield from self._record(segment)
                        yield record[low:high]
                    position += segment.length or 0
            item += 1

    def _offset(self, _: bytes) -> bytes:
        self._known.offsets.append(self._order.position)
        return b""

    def _member(self, member: int, segments: tuple[Segment, ...], position: int, window: Window, span: Span) -> Parts:
        """A member some of whose content is wanted: opened first, header after, proved before its last piece."""
        failed: StreamwareError | None = None
        try:
            try:
                yield from self._open_content(member, span)
                self.members += 1
            except Exception as error:
                failed = own(error)
                if not isinstance(failed, MemberError | NotAllowed):
                    raise
                if self._failures is not None and isinstance(failed, MemberError):
                    self._name(failed, member)
                    self._failures.append(failed)
                    self._known.skipped.add(member)
                    return
                # Only the header of a small member quotes it before the content: it will never be known, and nothing
                # is to follow that header.
                self._known.learn_crc32(member, 0)
            for segment in segments:
                low, high = overlap(segment.length, position, window)
                position += segment.length or 0
                if high is not None and low >= high:
                    continue
                if isinstance(segment, Derived) and self._plan.offsets is None:
                    yield from self._sure(segment)
                    yield Late(then=partial(self._rendered, segment))
                elif isinstance(segment, Literal | Derived):
                    record = yield from self._record(segment)
                    yield record[low:high]
                elif failed is not None:
                    raise failed
                else:
                    yield from self._content(segment, member, low, high)
        except Exception as error:
            failed = own(error)
            self._name(failed, member)
            raise failed from failed.__cause__
        finally:
            self._close_member()

    def _name(self, error: StreamwareError, member: int) -> None:
        if error.member is None:
            error.member = self._entries[member].name.decode()
            error.index = member if self._places is None else self._places[member]

    def _record(self, segment: Segment) -> Generator[None, None, bytes]:
        """The bytes of a record; a checksum it quotes that is not known is found out by reading."""
        if isinstance(segment, Literal):
            return segment.data
        assert isinstance(segment, Derived)
        yield from self._sure(segment)
        return segment.render(self._known)

    def _sure(self, segment: Derived) -> _Waits:
        """See that the checksum is known that a record quotes."""
        member = segment.member
        if self._known.crc32(member) is None and self._entries[member].crc32 is None:
            yield from self._learn(member)

    def _rendered(self, segment: Derived, _: bytes) -> bytes:
        """A record that tells what its member came to, when that has passed."""
        try:
            return segment.render(self._known)
        except StreamwareError as error:
            self._name(error, segment.member)
            raise

    # --- content ---

    def _wait(self, come: Callable[[], bool]) -> _Waits:
        self._awaited = come
        yield None
        self._awaited = None

    def _open(self, member: int, start: int, length: int | None) -> _Waits:
        early = None if self._ahead is None else self._ahead.turn(self._place, start, length)
        source = self._source_of(member) if early is None else None
        if early is not None:
            if not early.ready():
                yield from self._wait(early.ready)
        elif not getattr(source, "instant", False):
            yield from self._wait(_never)
        self._opening = source
        try:
            if self._stopped():
                raise BodyClosed("aborted")
            if source is not None:
                chunks = self._chunks = source.open(start, length)
            else:
                assert early is not None
                assert self._ahead is not None
                chunks = self._chunks = self._ahead.take(early)
        finally:
            self._opening = None
        if self._stopped():  # abort() came while there was nothing yet that it could have stopped
            chunks.abort()

    def _stopped(self) -> bool:
        return self._aborted

    def _open_content(self, member: int, span: Span) -> _Waits:
        """Open just the bytes that are wanted; read a member whole whose header quotes its unknown checksum."""
        if span.quoted:
            yield from self._read_whole(member)  # its bytes are wanted next, and outweigh what is remembered
        if self._inline[0] != member:
            yield from self._open(member, span.start, None if span.stop is None else span.stop - span.start)

    def _content(self, segment: Segment, member: int, low: int, high: int | None) -> Parts:
        """The wanted part of an opened member, framed or coded as its segment says."""
        size = self._entries[member].size
        if isinstance(segment, Extent):
            if self._inline[0] == member:
                data, self._inline = self._inline[1], (-1, b"")
                yield data[low:high]
            else:
                yield from self._stream(member, low, high)
        elif isinstance(segment, Framed) and size is not None:
            assert high is not None
            yield from frames(self._stream(member, *content_span(size, low, high)), size, low, high)
        elif isinstance(segment, Framed):
            yield from self._tally(member, None, 0, None).of(open_frames(self._stream(member, 0, None)))
        else:
            assert isinstance(segment, Coded)
            parts = deflated(self._stream(member, 0, size), self._plan.level, probe=segment.probe)
            yield from self._tally(member, segment.length, low, high).of(parts)

    def _tally(self, member: int, length: int | None, low: int, high: int | None) -> Tally:
        entry = self._entries[member]

        def ended(count: int) -> None:
            version = self._version_of(member)
            if version is not None and entry.method is not Method.PLAIN:
                self._ledger.learn_coded(coded_key(version, entry.method, self._plan.level), count)
            self._known.coded[member] = count

        def named(error: StreamwareError) -> StreamwareError:
            self._name(error, member)
            return error

        bounded = entry.size is None and not entry.may_exceed_4gib
        return Tally(length, low, high, bounded=bounded, ended=ended, named=named)

    def _stream(self, member: int, start: int, stop: int | None) -> Pieces:
        """``content[start:stop]`` of an opened member, counted, and proved before the last piece is given."""
        chunks = self._chunks
        assert chunks is not None
        entry = self._entries[member]
        whole = start == 0 and stop == entry.size
        wanted = None if stop is None else stop - start
        sums = self._recall.sums(member, start)
        got = 0
        piece = b""
        while wanted is None or got < wanted:
            if (self.hurry or self._line.held) and not chunks.ready():
                yield from self._wait(chunks.ready)
            piece = next(chunks, b"")
            if not piece:
                break
            got += len(piece)
            self.bytes_in += len(piece)
            if self._ahead is not None:
                self._ahead.passed(len(piece))
            sums.feed(piece)
            # Here and nowhere else: the place to break off is inside a member.
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise TooSlow(f"it took longer than {self._policy.max_bundle_seconds} s")
            if wanted is None:
                self._bounded()
                if got >= _LIMIT_32 and not entry.may_exceed_4gib:
                    raise MemberTooLarge(
                        f"a member of unknown size, not announced with may_exceed_4gib, has {got} bytes"
                    )
            if wanted is None or got < wanted:
                # Not held here while the client takes its time: what is made of it is.
                given, piece = [piece], b""
                yield given.pop()
        if wanted is not None and (got != wanted or next(chunks, b"")):
            raise SizeMismatch(f"a member gave {got} bytes or more, and {wanted} were promised")
        if whole:
            crc = sums.finish()
            if entry.crc32 not in (None, crc):
                raise ChecksumMismatch(f"CRC-32 is {crc:08x}, and {entry.crc32:08x} was promised")
            self._learned(member, crc)
            self._known.sizes[member] = got
        elif stop == entry.size:
            sums.finish()
        if wanted:
            yield piece

    def _bounded(self) -> None:
        """Stop a plan of unknown length, where each member is read once, at what a bundle may have of content."""
        most = self._policy.max_bundle_bytes
        if most is not None and self.bytes_in > most:
            raise LimitExceeded(f"A bundle has at most {most} bytes of content on this server.")

    def _learned(self, member: int, crc: int) -> None:
        self._known.learn_crc32(member, crc)
        self._recall.done(member)

    def _learn(self, member: int) -> _Waits:
        """Find out a member's checksum for its own sake: only blocks that nobody remembers are read."""
        runs = self._recall.missing(member)
        size = self._entries[member].size
        if runs == [(0, size)]:
            yield from self._read_whole(member)
            return
        for start, stop in runs:
            yield from self._aside(member, start, stop, None)
        self._learned(member, self._recall.total(member))

    def _read_whole(self, member: int) -> _Waits:
        """Read a member for its checksum; a small one is kept, for its bytes are wanted next."""
        size = self._entries[member].size
        assert size is not None
        kept: list[bytes] | None = [] if size <= self._policy.inline_bytes else None
        yield from self._aside(member, 0, size, kept)
        if kept is not None:
            self._inline = (member, b"".join(kept))

    def _aside(self, member: int, start: int, stop: int, kept: list[bytes] | None) -> _Waits:
        """Read a run of a member that is not sent, beside whatever is open."""
        before, self._chunks = self._chunks, None
        try:
            yield from self._open(member, start, stop - start)
            for piece in self._stream(member, start, stop):
                if piece is None:
                    yield None
                elif kept is not None:
                    kept.append(piece)
        except Exception as error:
            failed = own(error)
            self._name(failed, member)
            raise failed from failed.__cause__
        finally:
            self._close_member()
            self._chunks = before


class Foreign(SourceError):
    """What a source raised that is no error of ours; that is its cause."""


def own(error: Exception) -> StreamwareError:
    """Any error as one of ours: a bare OSError would be taken by hosts for the client's own leaving."""
    if isinstance(error, StreamwareError):
        return error
    failure = Foreign(f"a member failed: {error!r}")
    failure.__cause__ = error
    return failure


def _never() -> bool:
    """Of an opening nobody can tell before it is made."""
    return False
