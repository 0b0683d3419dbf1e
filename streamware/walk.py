"""The walk: one window of a plan after another, record by record, member by member.

The rules of this file. A member is opened before its header is given, so that an opening that fails can still be
answered properly; once its header is out, a failure stops inside that member, never between two and never with an end
record, because many readers take such a file for a whole one. So the last piece of a member is held back until the
member has been proved.

The generators here give pieces of bytes, None where the next step may have to wait for somebody, and what comes late:
bytes that are being compressed while those behind them are read already, and records that tell what those came to.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial

from streamware.ahead import Ahead
from streamware.coding import Parts, Pieces, coded_key, deflated, gzipped, zstandardized
from streamware.errors import MemberError, NotAllowed, StreamwareError, TooSlow
from streamware.foreign import own
from streamware.formats.framing import open_frames
from streamware.ledger import Ledger
from streamware.line import ALL_BEFORE, Late, Line, in_order
from streamware.model import Source
from streamware.openings import Span, openings, overlap, wanted
from streamware.passage import Passage, Waits
from streamware.passing import PLAIN, passed
from streamware.plan import Coded, Derived, Extent, Framed, Literal, Method, Passed, Plan, Segment, Table, Window
from streamware.policy import Policy
from streamware.recall import Recall
from streamware.tally import Tally

__all__ = ["Walk"]

_RECORDS = 64 * 1024  # bytes of records joined into one piece

_INSIDE = MemberError, NotAllowed, TooSlow  # what breaks a member off behind its header, also where it is found before


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
        self._version_of = version_of
        self._ledger = ledger
        self._policy = policy
        self._places = places
        self._failures = failures if plan.length is None else None
        self._known = plan.known()
        self._ahead = ahead
        self._recall = Recall(ledger, entries, version_of)
        self.passage = Passage(entries, source_of, self._recall, self._known, policy, ahead, self._line)
        self._inline: tuple[int, bytes] = (-1, b"")  # a small member that was read for its checksum, and comes next
        self.members = 0  # opened so far

    def parts(self, pieces: Sequence[bytes | Window]) -> Pieces:
        """The bytes of the windows, and the literal bytes between them."""
        plan = self._plan
        if plan.coding is None and plan.offsets is not None and not self._entries.late:
            return self._parts(pieces)  # type: ignore[return-value]  # PERF: 0.2 us a part; nothing comes late
        parts = in_order(self._parts(pieces), self._order)
        if plan.coding is None:
            return parts
        if plan.coding == "gzip":
            return in_order(gzipped(parts, plan.level), self._line)
        return zstandardized(parts, self._line.threads())

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
        plan, entries, known, layout = self._plan, self._entries, self._known, self._plan.layout
        exact = plan.offsets is not None
        item = plan.locate(window.start) if exact else 0
        position = 0
        # The item that is not wanted whole, whose window ends in it; the last one at most.
        end = layout.items - 1 if window.stop is None or not exact else plan.locate(window.stop)
        while item < layout.items:
            if exact:
                position = known.offsets[item]
            if window.stop is not None and position >= window.stop:
                return
            if exact and position >= window.start and item < end:
                reached = yield from self._together(item, end)
                if reached > item:
                    item = reached
                    continue
            if not exact:
                if item == layout.members:  # from here on records tell of all the offsets before
                    yield ALL_BEFORE
                yield Late(then=self._offset)
            segments = layout.segments(item, known)
            span = wanted(entries, segments, position, window, known) if item < layout.members else None
            if span is not None:
                self.passage.place = (index, item)
                yield from self._member(item, segments, position, window, span)
            else:
                for segment in segments:
                    length = segment.length or 0
                    low, high = overlap(length, position, window)
                    if high is None or low < high:
                        record = self._record(segment)
                        if record is None:
                            record = yield from self._learnt(segment)
                        yield record[low:high]
                    position += length
            item += 1

    def _together(self, item: int, end: int) -> Generator[bytes, None, int]:
        """Items before ``end`` of which all is wanted, as long as they are small members that can be read at once, or
        records that quote what is known; joined into pieces. Returns the first item that is neither.

        PERF: 12 us for a file of 10 KiB and its record, one by one 42. A piece is as large as the pump would join them.
        """
        layout, passage, table = self._plan.layout, self.passage, self._entries
        sizes, crcs, flags = table.sizes, table.crcs, table.flags
        small, most = min(self._policy.inline_bytes, layout.inline_bytes), self._policy.chunk_bytes
        joined: list[bytes] = []
        count = 0
        last = min(end, layout.members)
        while item < last:
            kind, size = flags[item], sizes[item]
            if kind == Method.DIRECTORY:
                size = 0
            elif kind or not 0 <= size <= small:
                break
            data = b""
            if size:
                try:
                    read = passage.at_once(item, size)
                except Exception as error:
                    failed = own(error)
                    self._name(failed, item)
                    if isinstance(failed, _INSIDE):  # as in _member
                        joined.append(layout.around(item, max(0, crcs[item]))[0])
                    if joined:
                        yield b"".join(joined)
                    raise failed from failed.__cause__
                if read is None:
                    break
                data = read
                self.members += 1
            before, behind = layout.around(item, self._known.crc32(item) or 0)
            joined += (before, data, behind)
            count += len(before) + size
            item += 1
            if count >= most or self.members == 1:  # the first alone, so that a status waits for no other
                given, joined, data, read, count = [b"".join(joined)], [], b"", None, 0
                yield given.pop()
        if joined:
            yield b"".join(joined)
            joined.clear()
        while layout.members <= item < end:
            records = layout.records(item, end, self._known, _RECORDS)
            if not records:
                break
            yield b"".join(records)
            item += len(records)
        return item

    def _offset(self, _: bytes) -> bytes:
        self._known.offsets.append(self._order.position)
        return b""

    def _member(self, member: int, segments: tuple[Segment, ...], position: int, window: Window, span: Span) -> Parts:
        """A member some of whose content is wanted: opened first, header after, proved before its last piece."""
        failed: StreamwareError | None = None
        try:
            try:
                if span.quoted:  # a small one: its bytes are wanted next, and outweigh what is remembered
                    yield from self._read_whole(member)
                if self._inline[0] != member:
                    length = None if span.stop is None else span.stop - span.start
                    yield from self.passage.open(member, span.start, length)
                self.members += 1
            except Exception as error:
                failed = own(error)
                if not isinstance(failed, _INSIDE):
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
                length = segment.length
                low, high = overlap(length, position, window)
                position += length or 0
                if high is not None and low >= high:
                    continue
                if isinstance(segment, Derived) and self._plan.offsets is None:
                    if not self._summed(segment.member):
                        yield from self._learn(segment.member)
                    yield Late(then=partial(self._rendered, segment))
                elif isinstance(segment, Literal | Derived):
                    record = self._record(segment)
                    if record is None:
                        record = yield from self._learnt(segment)
                    yield record[low:high]
                elif failed is not None:
                    raise failed
                elif self._inline[0] == member:
                    data, self._inline = self._inline[1], (-1, b"")
                    yield data[low:high]
                else:
                    yield from self._content(segment, member, low, high)
        except Exception as error:
            failed = own(error)
            self._name(failed, member)
            raise failed from failed.__cause__
        finally:
            self.passage.close_member()

    def _name(self, error: StreamwareError, member: int) -> None:
        if error.member is None:
            error.member = self._entries[member].name.decode()
            error.index = member if self._places is None else self._places[member]

    # --- content ---

    def _content(self, segment: Segment, member: int, low: int, high: int | None) -> Parts:
        """The wanted part of an opened member, framed or coded as its segment says."""
        size = self._entries[member].size
        if isinstance(segment, Extent):
            yield from self.passage.stream(member, low, high)
        elif isinstance(segment, Framed) and size is not None:
            assert high is not None
            yield from self.passage.framed(member, size, low, high)
        elif isinstance(segment, Passed):
            yield from self._tally(member, None, 0, None).of(self._passed(segment.otherwise, member))
        elif isinstance(segment, Framed):
            yield from self._tally(member, None, 0, None).of(open_frames(self.passage.stream(member, 0, None)))
        else:
            assert isinstance(segment, Coded)
            parts = deflated(self.passage.stream(member, 0, size), self._plan.level, probe=segment.probe)
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

    def _passed(self, otherwise: Framed | Coded, member: int) -> Parts:
        """All of a member whose source may give it deflated; the first byte of its first piece says so."""
        passage, entry = self.passage, self._entries[member]
        if (yield from passage.kind()) != PLAIN:
            yield from passed(passage.coming(), entry, partial(passage.proved, member))
        elif isinstance(otherwise, Framed):
            yield from open_frames(passage.stream(member, 0, entry.size))
        else:
            yield from deflated(passage.stream(member, 0, entry.size), self._plan.level, probe=otherwise.probe)

    # --- checksums that records quote ---

    def _record(self, segment: Segment) -> bytes | None:
        """The bytes of a record; None: it quotes a checksum that has to be found out first."""
        if isinstance(segment, Literal):
            return segment.data
        assert isinstance(segment, Derived)
        return segment.render(self._known) if self._summed(segment.member) else None

    def _summed(self, member: int) -> bool:
        """Whether a member's checksum is known."""
        return self._known.crc32(member) is not None or self._entries[member].crc32 is not None

    def _rendered(self, segment: Derived, _: bytes) -> bytes:
        """A record that tells what its member came to, when that has passed."""
        try:
            return segment.render(self._known)
        except StreamwareError as error:
            self._name(error, segment.member)
            raise

    def _learnt(self, segment: Segment) -> Generator[None, None, bytes]:
        """The bytes of a record, once the checksum it quotes has been found out by reading."""
        assert isinstance(segment, Derived)
        try:
            yield from self._learn(segment.member)
        except Exception as error:
            failed = own(error)
            self._name(failed, segment.member)
            raise failed from failed.__cause__
        return segment.render(self._known)

    def _learn(self, member: int) -> Waits:
        """Find out a member's checksum for its own sake: only blocks that nobody remembers are read."""
        runs = self._recall.missing(member)
        if runs == [(0, self._entries[member].size)]:
            yield from self._read_whole(member)
            return
        for start, stop in runs:
            yield from self.passage.aside(member, start, stop)
        self._known.learn_crc32(member, self._recall.total(member))
        self._recall.done(member)

    def _read_whole(self, member: int) -> Waits:
        """Read a member for its checksum; a small one is kept, for its bytes are wanted next."""
        size = self._entries[member].size
        assert size is not None
        if size <= self._policy.inline_bytes:
            self._inline = (member, (yield from self.passage.small(member, size)))
        else:
            yield from self.passage.aside(member, 0, size)
