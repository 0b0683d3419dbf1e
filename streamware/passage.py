"""The content of members on its way through: opened, counted, summed, and proved before its last piece is given.

The rule of this file: nothing of a member passes that is not counted and summed here, and the last piece of a member is
held back until the member has been proved.

The generators here give pieces of bytes, and None where the next step may have to wait for somebody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from streamware.ahead import Ahead
from streamware.coding import Pieces
from streamware.errors import (
    BodyClosed,
    ChecksumMismatch,
    LimitExceeded,
    MemberTooLarge,
    SizeMismatch,
    TooSlow,
)
from streamware.formats.framing import BLOCK, FullBlocks, content_span, frames, full_blocks
from streamware.formats.zip_records import MAX_32
from streamware.line import Line
from streamware.model import Chunks, Source
from streamware.openings import Place
from streamware.passing import Rest
from streamware.plan import Entry, Known, Table
from streamware.policy import Policy
from streamware.recall import Recall, Sums

__all__ = ["Passage", "Waits"]

Waits = Generator[None, None, None]


class _Run:
    """A run of a member's content that is passing: ``[start, stop)``; ``stop`` None: to its end, which is not known."""

    __slots__ = ("entry", "got", "member", "start", "stop", "sums")

    def __init__(self, member: int, entry: Entry, start: int, stop: int | None, sums: Sums) -> None:
        self.member = member
        self.entry = entry
        self.start = start
        self.stop = stop
        self.sums = sums
        self.got = 0


class Passage:
    """What one reading opens, one member at a time. From one thread at a time; ``abort()`` from any.

    :param source_of: gives the source of a member by its index; asked when the member is opened.
    :param ahead: opens members before their turn; None: none is.
    :param line: what of earlier members, or of this one, is still being compressed.
    """

    def __init__(
        self,
        entries: Table,
        source_of: Callable[[int], Source],
        recall: Recall,
        known: Known,
        policy: Policy,
        ahead: Ahead | None,
        line: Line,
    ) -> None:
        self._line = line
        self._entries = entries
        self._source_of = source_of
        self._recall = recall
        self._known = known
        self._policy = policy
        self._ahead = ahead
        self._drawn: tuple[int, Source] | None = None  # a source that was made and could not be read at once
        self._opening: Source | None = None
        self._chunks: Chunks | None = None
        self._blocks: FullBlocks | None = None
        self._aborted = False
        self._awaited: Callable[[], bool] | None = None  # whether what the next step waits for has come
        self.place: Place = (0, 0)
        self.bytes_in = 0  # content read so far
        self.deadline: float | None = None  # when it must have ended, as time.monotonic() counts
        self.sparing = False  # the member that was opened last is read in smaller pieces than usual, to spare memory
        self.hurry = False  # the consumer holds bytes that it would rather send than have joined with late ones

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
            self.close_member()
        finally:
            self._blocks = None
            self._line.close()
            if self._ahead is not None:
                self._ahead.close()

    def close_member(self) -> None:
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            chunks.close()

    # --- opening ---

    def open(self, member: int, start: int, length: int | None) -> Waits:
        """Open a range of a member."""
        drawn = self._drawn is not None and self._drawn[0] == member
        early = None if self._ahead is None or drawn else self._ahead.turn(self.place, start, length)
        source = self._source(member) if early is None else None
        if early is not None:
            if not early.ready():
                yield from self._wait(early.ready)
        elif not getattr(source, "instant", False):
            yield from self._wait(_never)
        self._opening = source
        try:
            self._check_going()
            if source is not None:
                chunks = self._chunks = source.open(start, length)
            else:
                assert early is not None
                assert self._ahead is not None
                chunks = self._chunks = self._ahead.take(early)
        finally:
            self._opening = None
        whole = self._policy.chunk_bytes
        self.sparing = getattr(chunks, "piece_bytes", whole) < whole
        if self._stopped():  # abort() came while there was nothing yet that it could have stopped
            chunks.abort()

    def _source(self, member: int) -> Source:
        drawn, self._drawn = self._drawn, None
        return drawn[1] if drawn is not None and drawn[0] == member else self._source_of(member)

    def at_once(self, member: int, size: int) -> bytes | None:
        """All of a small member whose source waits for nobody; its checksum is then known. None: it is none."""
        # PERF: 7 us for a file, where opening, summing and closing it in steps takes 18.
        if self._ahead is not None and self._ahead.cares(member):
            return None
        source = self._source(member)
        read: Callable[[int, int], bytes] | None = getattr(source, "read", None)
        if read is None:
            self._drawn = member, source
            return None
        self._check_going()
        data = read(0, size)
        if len(data) != size:
            raise SizeMismatch(f"a member gave {len(data)} bytes, and {size} were promised")
        self._took(size)
        crc, promised = self._recall.whole(member, data), self._entries.crcs[member]
        if crc != promised >= 0:
            raise ChecksumMismatch(f"CRC-32 is {crc:08x}, and {promised:08x} was promised")
        self._known.learn_crc32(member, crc)
        return data

    def small(self, member: int, size: int) -> Generator[None, None, bytes]:
        """All of a small member, beside whatever is open; its checksum is then known."""
        data = self.at_once(member, size)
        if data is None:
            pieces: list[bytes] = []
            yield from self.aside(member, 0, size, pieces)
            data = b"".join(pieces)
        return data

    def aside(self, member: int, start: int, stop: int, kept: list[bytes] | None = None) -> Waits:
        """Read a run of a member that is not sent, beside whatever is open."""
        before, self._chunks = self._chunks, None
        try:
            yield from self.open(member, start, stop - start)
            for piece in self.stream(member, start, stop):
                if piece is None:
                    yield None
                elif kept is not None:
                    kept.append(piece)
        finally:
            self.close_member()
            self._chunks = before

    # --- passing ---

    def stream(self, member: int, start: int, stop: int | None) -> Pieces:
        """``content[start:stop]`` of the opened member; ``stop`` None: to its end, wherever that is."""
        return self._rest(self._run(member, start, stop))

    def framed(self, member: int, size: int, low: int, high: int) -> Pieces:
        """``[low, high)`` of the frames of the opened member, whose content has ``size`` bytes."""
        run = self._run(member, *content_span(size, low, high))
        chunks = self._chunks
        fill = getattr(chunks, "fill", None)
        if fill is not None:  # more of the content follows these blocks, so none is what has to be held back
            count, left = chunks.piece_bytes // BLOCK, full_blocks(low, high)  # type: ignore[union-attr]  # see Chunks
            while 0 < count <= left:
                given = [self._filled(run, fill, count)]
                left -= count
                low += len(given[0])
                yield given.pop()
        yield from frames(self._rest(run), size, low, high)

    def _filled(self, run: _Run, fill: Callable[[list[memoryview]], None], count: int) -> bytes:
        blocks = self._blocks
        if blocks is None or blocks.count != count:
            blocks = self._blocks = FullBlocks(count)
        piece = blocks.fill(fill)
        for content in blocks.contents(piece):
            run.sums.feed(content)
        run.got += count * BLOCK
        self._took(count * BLOCK)
        return piece

    def _run(self, member: int, start: int, stop: int | None) -> _Run:
        return _Run(member, self._entries[member], start, stop, self._recall.sums(member, start))

    def _rest(self, run: _Run) -> Pieces:
        """What is left of a run, proved before the last piece is given."""
        chunks = self._chunks
        assert chunks is not None
        entry = run.entry
        wanted = None if run.stop is None else run.stop - run.start
        piece = b""
        while wanted is None or run.got < wanted:
            if (self.hurry or self._line.held) and not chunks.ready():
                yield from self._wait(chunks.ready)
            piece = next(chunks, b"")
            if not piece:
                break
            run.got += len(piece)
            run.sums.feed(piece)
            self._took(len(piece))
            if wanted is None:
                self._bounded(run.got, entry)
            if wanted is None or run.got < wanted:
                # Not held here while the client takes its time: what is made of it is.
                given, piece = [piece], b""
                yield given.pop()
        if wanted is not None and (run.got != wanted or next(chunks, b"")):
            raise SizeMismatch(f"a member gave {run.got} bytes or more, and {wanted} were promised")
        if run.start == 0 and run.stop == entry.size:
            crc = run.sums.finish()
            if entry.crc32 not in (None, crc):
                raise ChecksumMismatch(f"CRC-32 is {crc:08x}, and {entry.crc32:08x} was promised")
            self._known.learn_crc32(run.member, crc)
            self._recall.done(run.member)
            if entry.size is None:
                self._known.sizes[run.member] = run.got
        elif run.stop == entry.size:
            run.sums.finish()
        if wanted:
            yield piece

    # --- what may come deflated already: see passing ---

    def kind(self) -> Generator[None, None, bytes]:
        """The byte that says what the opened member's pieces are."""
        chunks = self._chunks
        assert chunks is not None
        if (self.hurry or self._line.held) and not chunks.ready():
            yield from self._wait(chunks.ready)
        first = next(chunks)
        self._chunks = Rest(first[1:], chunks)
        return first[:1]

    def coming(self) -> Pieces:
        """The pieces of the opened member as they are, counted."""
        chunks = self._chunks
        assert chunks is not None
        while True:
            if (self.hurry or self._line.held) and not chunks.ready():
                yield from self._wait(chunks.ready)
            given = [next(chunks, b"")]
            if not given[0]:
                return
            self._took(len(given[0]))
            yield given.pop()

    def proved(self, member: int, crc: int, size: int, coded: int) -> None:
        """``coded`` bytes that came deflated are this: their content is what counts from here on."""
        self.bytes_in += size - coded
        entry = self._entries[member]
        self._bounded(size if entry.size is None else 0, entry)
        self._known.learn_crc32(member, crc)
        self._recall.done(member)
        if entry.size is None:
            self._known.sizes[member] = size

    # --- counting and waiting ---

    def _took(self, count: int) -> None:
        """So many bytes more came from a source."""
        self.bytes_in += count
        if self._ahead is not None:
            self._ahead.passed(count)
        # Here and nowhere else: the place to break off is inside a member.
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TooSlow(f"it took longer than {self._policy.max_bundle_seconds} s")

    def _bounded(self, got: int, entry: Entry) -> None:
        """Stop a member of unknown size at what its framing can say, and its plan at what a bundle may have."""
        most = self._policy.max_bundle_bytes
        if most is not None and self.bytes_in > most:
            raise LimitExceeded(f"A bundle has at most {most} bytes of content on this server.")
        if got >= MAX_32 and not entry.may_exceed_4gib:
            raise MemberTooLarge(f"a member of unknown size, not announced with may_exceed_4gib, has {got} bytes")

    def _wait(self, come: Callable[[], bool]) -> Waits:
        self._awaited = come
        yield None
        self._awaited = None

    def _stopped(self) -> bool:
        return self._aborted

    def _check_going(self) -> None:
        if self._aborted:
            raise BodyClosed("aborted")


def _never() -> bool:
    """Of an opening nobody can tell before it is made."""
    return False
