"""The walk: one window of a plan after another, record by record, member by member.

The rules of this file. A member is opened before its header is given, so that an opening that fails can still be
answered properly; once its header is out, a failure stops inside that member, never between two and never with an end
record, because many readers take such a file for a whole one. So the last piece of a member is held back until the
member has been proved.

The generators here give pieces of bytes, and None where the next step may have to wait for somebody.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial

from streamware.ahead import Ahead
from streamware.coding import CODERS, Pieces, coded, coded_key, deflated
from streamware.errors import MemberError, MemberTooLarge, NotAllowed, SizeMismatch, StreamwareError
from streamware.formats.framing import open_frames
from streamware.ledger import Ledger
from streamware.model import Source
from streamware.openings import Span, openings, overlap, wanted
from streamware.passage import LIMIT_32, Passage, Waits, own
from streamware.passing import PLAIN, passed
from streamware.plan import Coded, Derived, Extent, Framed, Literal, Method, Passed, Plan, Segment, Table, Window
from streamware.policy import Policy
from streamware.recall import Recall

__all__ = ["Walk"]

_LEAD = 512  # bytes of a compressed archive that leave at once: a first header, so that a download is seen to begin


class Walk:
    """One reading of a plan, from one thread at a time; ``abort()`` from any.

    :param source_of: gives the source of a member by its index; asked when the member is opened.
    :param version_of: gives the ledger's key of a member, None for one that nothing pins.
    :param failures: with a list, members that cannot be opened are left out and their errors appended.
    :param places: the caller's number of each member, for errors; None: they are the same.
    :param ahead: opens members before their turn; None: none is.
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
    ) -> None:
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
        self.passage = Passage(entries, source_of, self._recall, self._known, policy, ahead)
        self._inline: tuple[int, bytes] = (-1, b"")  # a small member that was read for its checksum, and comes next
        self.members = 0  # opened so far

    def parts(self, pieces: Sequence[bytes | Window]) -> Pieces:
        """The bytes of the windows, and the literal bytes between them."""
        parts = self._parts(pieces)
        if self._plan.coding is None:
            return parts
        return coded(parts, CODERS[self._plan.coding](), self._policy.chunk_bytes, lead=_LEAD)

    def _parts(self, pieces: Sequence[bytes | Window]) -> Pieces:
        ahead = self._ahead
        if ahead is not None:
            ahead.begin(openings(self._plan, self._entries, self._known, pieces, ahead.cares))
        for index, piece in enumerate(pieces):
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from self._window(index, piece)

    def _window(self, index: int, window: Window) -> Pieces:
        plan, entries, known, layout = self._plan, self._entries, self._known, self._plan.layout
        exact = plan.offsets is not None
        item = plan.locate(window.start) if exact else 0
        position = known.offsets[item] if exact else 0
        while item < layout.items:
            if window.stop is not None and position >= window.stop:
                return
            if not exact:
                known.offsets.append(position)
            segments = layout.segments(item, known)
            span = wanted(entries, segments, position, window, known) if item < layout.members else None
            if span is not None:
                self.passage.place = (index, item)
                member = self._member(item, segments, position, window, span)
                if exact:
                    yield from member
                    position = known.offsets[item + 1]
                else:
                    for part in member:
                        position += len(part or b"")
                        yield part
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

    def _member(self, member: int, segments: tuple[Segment, ...], position: int, window: Window, span: Span) -> Pieces:
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
                length = segment.length
                low, high = overlap(length, position, window)
                position += length or 0
                if high is not None and low >= high:
                    continue
                if isinstance(segment, Literal | Derived):
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

    def _content(self, segment: Segment, member: int, low: int, high: int | None) -> Pieces:
        """The wanted part of an opened member, framed or coded as its segment says."""
        size = self._entries[member].size
        if isinstance(segment, Extent):
            yield from self.passage.stream(member, low, high)
        elif isinstance(segment, Framed) and size is not None:
            assert high is not None
            yield from self.passage.framed(member, size, low, high)
        elif isinstance(segment, Passed):
            yield from self._counted(member, self._passed(segment.otherwise, member), None, 0, None)
        elif isinstance(segment, Framed):
            yield from self._counted(member, open_frames(self.passage.stream(member, 0, None)), None, 0, None)
        else:
            assert isinstance(segment, Coded)
            pieces = deflated(self.passage.stream(member, 0, size), self._policy.chunk_bytes, probe=segment.probe)
            yield from self._counted(member, pieces, segment.length, low, high)

    def _counted(self, member: int, pieces: Pieces, length: int | None, low: int, high: int | None) -> Pieces:
        """``[low, high)`` of pieces whose length is settled only when they have passed, or was ``length`` before.

        32-bit framing ends where it cannot say the length.
        """
        entry = self._entries[member]
        count = 0
        for piece in pieces:
            if piece is None:
                yield None
                continue
            start, count = count, count + len(piece)
            if count >= LIMIT_32 and entry.size is None and not entry.may_exceed_4gib:
                raise MemberTooLarge(
                    f"a member of unknown size, not announced with may_exceed_4gib, came to {count} bytes"
                )
            if length is not None and count > length:
                break
            if high is not None and start >= high:
                return
            if start >= low and (high is None or count <= high):
                yield piece
            elif count > low:
                yield piece[max(0, low - start) : None if high is None else high - start]
        version = self._version_of(member)
        if version is not None and entry.method is not Method.PLAIN:
            self._ledger.learn_coded(coded_key(version, entry.method, self._policy.chunk_bytes), count)
        if length not in (None, count):
            raise SizeMismatch(f"a member came to {count} bytes in the archive, and {length} were promised")
        self._known.coded[member] = count

    def _passed(self, otherwise: Framed | Coded, member: int) -> Pieces:
        """All of a member whose source may give it deflated; the first byte of its first piece says so."""
        passage, entry = self.passage, self._entries[member]
        if (yield from passage.kind()) != PLAIN:
            yield from passed(passage.coming(), entry, partial(passage.proved, member))
        elif isinstance(otherwise, Framed):
            yield from open_frames(passage.stream(member, 0, entry.size))
        else:
            yield from deflated(passage.stream(member, 0, entry.size), self._policy.chunk_bytes, probe=otherwise.probe)

    # --- checksums that records quote ---

    def _record(self, segment: Segment) -> bytes | None:
        """The bytes of a record; None: it quotes a checksum that has to be found out first."""
        if isinstance(segment, Literal):
            return segment.data
        assert isinstance(segment, Derived)
        if self._known.crc32(segment.member) is None and self._entries[segment.member].crc32 is None:
            return None
        return segment.render(self._known)

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
