"""A member whose server may send it gzip-coded: handed over deflated as it came, and checked while it passes.

What an upstream source gives here is the representation, coded or not (RFC 9110 section 8.4); it is asked for, healed
and pinned as such, by validators and lengths of its own. What was declared of the member is about its content, so that
is compared with what inflating it shows.

The rule of this file: what is handed over as a deflated member is exactly one gzip member (RFC 1952), whole, and its
trailer is compared with the content, unless that is not wanted and nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Protocol

from streamware.checksums import BadDeflate, crc32, inflater
from streamware.errors import ChecksumMismatch, LimitExceeded, MemberTooLarge, SizeMismatch, UpstreamError
from streamware.formats.gzip_header import TRAILER_BYTES, header_end
from streamware.model import Chunks, Facts
from streamware.passing import DEFLATED, PLAIN, TRAILER

__all__ = ["GzipBody", "GzippedSource", "Promises", "Representation"]

_INFLATED_BYTES = 256 * 1024  # inflated at once, whatever the piece comes to
_MOST = 1032  # bytes of content in one of DEFLATE (two bits can stand for 258)
_WRAP = 1 << 32  # ISIZE is the size modulo this


class Representation(Protocol):
    """A source of what an upstream answers, coded or not (``UpstreamSource``)."""

    @property
    def coding(self) -> str | None:
        """Of the bytes that were given last: "gzip", or None for none."""

    @property
    def size(self) -> int | None:
        """Of the representation, as its answer told."""

    @property
    def keeps(self) -> bool:
        """Whether the next opening is of an answer that came already."""

    @property
    def held_bytes(self) -> int:
        """How many of its bytes came already; 0: not all of them."""

    def probe(self, *, keep: bool = False, hold: int = 0) -> Facts: ...

    def spare(self) -> bool: ...

    def open(self, start: int, length: int | None) -> Chunks: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class Promises:
    """What the content must be: ``size`` and ``digest`` as declared, at most ``most`` bytes, below 4 GiB unless
    ``large``; None: nothing is said of it.
    """

    __slots__ = ("digest", "large", "most", "size")

    def __init__(
        self, *, size: int | None = None, digest: bytes | None = None, most: int | None = None, large: bool = True
    ) -> None:
        self.size = size
        self.digest = digest
        self.most = most
        self.large = large or size is not None

    def bound(self, count: int) -> None:
        """Raise if ``count`` bytes of content are too many already."""
        if self.size is not None and count > self.size:
            raise SizeMismatch(f"it inflates to {count} bytes and more, and {self.size} were promised")
        if self.most is not None and count > self.most:
            raise LimitExceeded(f"A bundle has at most {self.most} bytes of content on this server.")
        if count >= _WRAP - 1 and not self.large:
            raise MemberTooLarge(f"a member of unknown size, not announced with may_exceed_4gib, has {count} bytes")


class GzipBody:
    """One gzip member as it comes, piece by piece: its DEFLATE bytes, and what its end proves.

    :param where: its URL, for errors.
    :param check: inflate it; else its trailer is believed, which only shows sizes below 4 GiB or one that is declared.
    """

    def __init__(self, where: str, promises: Promises, *, check: bool) -> None:
        self._where = where
        self._promises = promises
        self._inflater = inflater() if check or promises.digest is not None else None
        self._hash = None if promises.digest is None else sha256()
        self._head: bytes | None = b""  # what came of the header; None: it is behind us
        self._tail = b""  # the last bytes, which may be the trailer
        self._crc = self._size = 0  # of what was inflated

    def feed(self, piece: bytes) -> bytes:
        """The DEFLATE bytes that are sure to be some; b"" where there are none yet.

        :raises UpstreamError: this is no gzip member, or more than one.
        :raises ChecksumMismatch: it cannot be inflated.
        :raises SizeMismatch, LimitExceeded, MemberTooLarge: it has too much content.
        """
        if self._head is not None:
            piece = self._head + piece
            try:
                end = header_end(piece)
            except ValueError as error:
                raise UpstreamError(f"{self._where}: announced as gzip: {error}") from error
            if end is None:
                self._head = piece
                return b""
            self._head, piece = None, piece[end:]
        if len(piece) > TRAILER_BYTES:
            out = b"".join((self._tail, memoryview(piece)[:-TRAILER_BYTES]))
            self._tail = piece[-TRAILER_BYTES:]
        else:
            piece = self._tail + piece
            out, self._tail = piece[:-TRAILER_BYTES], piece[-TRAILER_BYTES:]
        if out and self._inflater is not None:
            self._inflate(out)
        return out

    def finish(self) -> tuple[int, int]:
        """The body has ended: the CRC-32 and the size of its content.

        :raises SizeMismatch, ChecksumMismatch: it ended too early, or is not what its trailer says.
        """
        if self._head is not None or len(self._tail) < TRAILER_BYTES:
            raise SizeMismatch(f"{self._where}: the gzip body ends within its header or trailer")
        crc, size = int.from_bytes(self._tail[:4], "little"), int.from_bytes(self._tail[4:], "little")
        if self._inflater is None:
            promised = self._promises.size
            if promised is not None and promised % _WRAP == size:
                size = promised
            self._promises.bound(size)
            return crc, size
        if not self._inflater.eof:
            raise SizeMismatch(f"{self._where}: the gzip body ends {self._size} bytes into its content")
        if self._crc != crc:
            raise ChecksumMismatch(f"{self._where}: CRC-32 is {self._crc:08x}, and its gzip trailer says {crc:08x}")
        if self._size % _WRAP != size:
            raise SizeMismatch(f"{self._where}: {self._size} bytes of content, and its gzip trailer says {size}")
        if self._hash is not None:
            _compare(self._hash.digest(), self._promises.digest)
        return crc, self._size

    def _inflate(self, data: bytes) -> None:
        made = self._inflater
        assert made is not None
        full = False  # then more may come of what went in already
        try:
            while (data or full) and not made.eof:
                content = made.decompress(data, _INFLATED_BYTES)
                data, full = made.unconsumed_tail, len(content) == _INFLATED_BYTES
                self._crc = crc32(content, self._crc)
                self._size += len(content)
                if self._hash is not None:
                    self._hash.update(content)
                self._promises.bound(self._size)
        except BadDeflate as error:
            raise ChecksumMismatch(f"{self._where}: a gzip body that cannot be inflated: {error}") from error
        if made.eof and (data or made.unused_data):
            raise UpstreamError(f"{self._where}: something follows the gzip member; one alone can be passed on")


class GzippedSource:
    """A ``Source`` of one upstream member that may come gzip-coded; opened whole, it gives what ``passing`` says.

    :param make: a source for its representation, which takes gzip.
    :param url: what the log may show of its URL. :param tagged: its entity-tag is declared.
    :param check: whether gzip bodies are inflated where that is not needed to know their size.
    """

    holds = True

    def __init__(
        self,
        make: Callable[[], Representation],
        promises: Promises,
        *,
        url: str,
        tagged: bool = False,
        check: bool = True,
    ) -> None:
        self._make = make
        self._url = url
        self._promises = promises
        self._tagged = tagged
        self._check = check
        self._source: Representation | None = make()  # raises where it cannot be asked at all
        self._starting: Chunks | None = None  # whose first bytes are waited for
        self._aborted = False

    @property
    def instant(self) -> bool:
        return self.held_bytes > 0

    @property
    def held_bytes(self) -> int:
        return 0 if self._source is None else self._source.held_bytes

    def probe(self, *, keep: bool = False, hold: int = 0) -> Facts:
        """What does not depend on the coding: a layout may not, as each answer may come in another.

        The validator is a weak one, as only that is common to both (RFC 9110 section 8.8.3.3).
        """
        source = self._made()
        try:
            facts = source.probe(keep=keep, hold=hold)
        finally:
            if not source.keeps:  # what it has seen of this answer is no promise for the next
                self._source = None
        tag = None if self._tagged or facts.validator is None else f"W/{facts.validator.removeprefix('W/')}"
        return Facts(modified=facts.modified, validator=tag, media_type=facts.media_type)

    def spare(self) -> bool:
        return self._made().spare()

    def open(self, start: int, length: int | None) -> Chunks:
        """Open it, from its start to its end. A gzip header that is none shows here; see ``Source.open``."""
        assert start == 0
        assert length is None
        source = self._made()
        chunks = _Chunks(source, source.open(0, None), self._url, self._promises, self._check)
        self._starting = chunks
        try:
            if self._aborted:  # before there was anything that it could have stopped
                chunks.abort()
            chunks.start()
        except BaseException:
            chunks.close()
            raise
        finally:
            self._starting = None
        return chunks

    def abort(self) -> None:
        """From any thread."""
        self._aborted = True
        source, starting = self._source, self._starting
        if source is not None:
            source.abort()
        if starting is not None:
            starting.abort()

    def close(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def _made(self) -> Representation:
        source = self._source
        if source is None:
            source = self._source = self._make()
            if self._aborted:
                source.abort()
        return source


class _Chunks:
    """What ``passing`` says, of a representation as it comes."""

    __slots__ = (
        *("_body", "_check", "_chunks", "_ended", "_first", "_hash", "_promises", "_source", "_url"),
        *("abort", "close"),
    )

    def __init__(self, source: Representation, chunks: Chunks, url: str, promises: Promises, check: bool) -> None:
        self._source = source
        self._chunks = chunks
        self._url = url
        self._promises = promises
        self._check = check
        self._body: GzipBody | None = None
        self._hash = None if promises.digest is None else sha256()
        self._first = b""
        self._ended = False
        self.abort, self.close = chunks.abort, chunks.close

    def start(self) -> None:
        """Wait for the first bytes, and see which coding they are in."""
        piece = next(self._chunks, b"")
        # Not sooner: until its first byte came, a member may be asked for elsewhere.
        if self._source.coding is None:
            self._first = PLAIN + self._plain(piece)
            return
        size, coded = self._promises.size, self._source.size
        shown = size is not None or (coded is not None and coded * _MOST < _WRAP)
        self._body = GzipBody(self._url, self._promises, check=self._check or not shown)
        self._first = DEFLATED + self._body.feed(piece)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, b""
        if first:
            return first
        body, piece = self._body, b""
        if self._ended:
            raise StopIteration
        if body is None:
            piece = self._plain(next(self._chunks, b""))
            if not piece:
                raise StopIteration
            return piece
        for coded in self._chunks:
            piece = body.feed(coded)
            if piece:
                return piece
        trailer = TRAILER.pack(*body.finish())
        self._ended = True
        return trailer

    def ready(self) -> bool:
        return bool(self._first) or self._ended or self._chunks.ready()

    def _plain(self, piece: bytes) -> bytes:
        """A piece of content; b"": it has ended."""
        if piece and self._hash is not None:
            self._hash.update(piece)
        elif not piece:
            if self._hash is not None:
                _compare(self._hash.digest(), self._promises.digest)
            self._ended = True
        return piece


def _compare(digest: bytes, promised: bytes | None) -> None:
    if promised is not None and digest != promised:
        raise ChecksumMismatch(f"SHA-256 is {digest.hex()}, and {promised.hex()} was promised")
