"""A TAR archive as a layout: POSIX ustar headers of our own, with a pax header before those that need one.

The rule of this file: a header says the same to readers that know pax and to those that do not, as far as the old
fields reach. Members of 8 GiB and more carry their size twice, as a pax record and in base 256, because BusyBox tar
1.35 and unar take the first alone (which is what Python's tarfile writes) for an empty member.

Owners are 0 and their names empty: an archive tells nothing of the machine it was made on, and who extracts as root
gets files of user 0, whatever that is called there. The end is two blocks of zeros, filled up to a whole record of
10,240 bytes as POSIX describes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct

from streamware.errors import SizeUnknown
from streamware.plan import Entry, Extent, Known, Literal, Method, Segment, Table

__all__ = ["VERSION", "TarLayout"]

VERSION = 1  # to be raised whenever the same entries come to give other bytes

_BLOCK = 512
_RECORD = 20 * _BLOCK
_OCTAL_11 = 8**11  # what eleven octal digits hold: 8 GiB, or seconds until 2242
_NAME, _PREFIX = 100, 155

# name, mode, uid, gid, size, mtime, chksum, typeflag, linkname, magic and version, uname, gname, devmajor, devminor,
# prefix: POSIX.1-2017, pax, "ustar Interchange Format".
_ustar = Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x").pack
_CHECKSUM = 148
_ZERO = b"0000000\0"
_FILE, _DIRECTORY, _PAX = b"0", b"5", b"x"


class TarLayout:
    """Entries as a TAR archive (plan.Layout). Items: the members in order, then one item with the end.

    TAR does not compress: ``Method.DEFLATE`` and ``Method.AUTO`` are taken as PLAIN.

    :param entries: a table is kept, and looked at again for every item.
    :raises SizeUnknown: for the first entry without a size, with its name and index.
    """

    __slots__ = ("_entries", "_members")

    def __init__(self, entries: Table | Sequence[Entry]) -> None:
        self._entries = entries = entries if isinstance(entries, Table) else Table(entries)
        for index, size in enumerate(entries.sizes):
            if size < 0 and entries[index].method is not Method.DIRECTORY:
                raise SizeUnknown("the size is not known", member=entries[index].name.decode(), index=index)
        self._members = len(entries)

    @property
    def members(self) -> int:
        return self._members

    @property
    def items(self) -> int:
        return self._members + 1

    @property
    def inline_bytes(self) -> int:
        """All stand so, and are read whole where the reader can hold them."""
        return _OCTAL_11

    def segments(self, item: int, known: Known) -> tuple[Segment, ...]:
        """What stands at ``item``; nothing for a member in ``known.skipped``."""
        if item == self._members:
            content = known.offsets[item] + 2 * _BLOCK
            return (Literal(bytes(2 * _BLOCK + -content % _RECORD)),)
        if known.skipped and item in known.skipped:
            return ()
        header, padding = self.around(item, 0)
        entry = self._entries[item]
        if entry.method is Method.DIRECTORY or not entry.size:
            return (Literal(header),)
        if not padding:
            return Literal(header), Extent(item, entry.size)
        return Literal(header), Extent(item, entry.size), Literal(padding)

    def around(self, member: int, crc32: int) -> tuple[bytes, bytes]:
        """TAR sums no content: ``crc32`` does not count."""
        entry = self._entries[member]
        size = 0 if entry.method is Method.DIRECTORY else entry.size or 0
        return _headers(member, entry, size), bytes(_padding(size))

    def records(self, item: int, stop: int, known: Known, most: int) -> list[bytes]:
        return []

    def lengths(self, known: Known) -> Iterator[int | None]:
        # PERF: 1 us a member instead of 5. What a header of one block takes is told by the first that is made.
        entries, plain, ascii_only = self._entries, None, self._entries.ascii
        columns = zip(entries.sizes, entries.modified, entries.flags, entries.name_lengths(), strict=True)
        for item, (size, modified, flags, name) in enumerate(columns):
            simple = not flags and 0 <= size < _OCTAL_11 and 0 <= modified < _OCTAL_11 and name <= _NAME
            if not simple or not (ascii_only or entries[item].name.isascii()):
                yield sum(segment.length or 0 for segment in self.segments(item, known))
                continue
            content = size + _padding(size)
            if plain is None:
                plain = sum(segment.length or 0 for segment in self.segments(item, known)) - content
            yield plain + content
        yield sum(segment.length or 0 for segment in self.segments(self._members, known))


def _padding(size: int) -> int:
    return -size % _BLOCK


def _headers(member: int, entry: Entry, size: int) -> bytes:
    """A member's header, behind a pax header where it cannot say everything."""
    name, mtime = entry.name, entry.modified
    records = b""
    place = _split(name)
    if place is None or not name.isascii():
        records = _pax_record(b"path", name)
    if place is None:
        place = _shorten(name), b""
    if size >= _OCTAL_11:
        records += _pax_record(b"size", b"%d" % size)
    if not 0 <= mtime < _OCTAL_11:
        records += _pax_record(b"mtime", b"%d" % mtime)
        mtime = 0 if mtime < 0 else _OCTAL_11 - 1
    typeflag = _DIRECTORY if entry.method is Method.DIRECTORY else _FILE
    header = _header(place, entry.mode & 0o7777, size, mtime, typeflag)
    if not records:
        return header
    # A reader that knows no pax extracts this as a file: one of its own, that overwrites nothing.
    extended = _header((b"PaxHeaders/%d" % member, b""), 0o644, len(records), mtime, _PAX)
    return extended + records + bytes(-len(records) % _BLOCK) + header


def _header(place: tuple[bytes, bytes], mode: int, size: int, mtime: int, typeflag: bytes) -> bytes:
    name, prefix = place
    # Base 256: the top bit marks it, the rest is the number, big end first (GNU and star; read by all).
    length = b"%011o\0" % size if size < _OCTAL_11 else (0x80 << 88 | size).to_bytes(12, "big")
    header = _ustar(
        name, b"%07o\0" % mode, _ZERO, _ZERO, length, b"%011o\0" % mtime, b"        ", typeflag,
        b"", b"ustar\x0000", b"", b"", _ZERO, _ZERO, prefix,
    )  # fmt: skip
    return b"%b%06o\0 %b" % (header[:_CHECKSUM], sum(header), header[_CHECKSUM + 8 :])


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """A name as ustar's name and prefix, which readers join with "/"; None where it does not fit."""
    if len(name) <= _NAME:
        return name, b""
    # The last "/" that leaves a name at all, for a directory's own stands at its end.
    cut = name.rfind(b"/", 0, min(_PREFIX + 1, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > _NAME:
        return None
    return name[cut + 1 :], name[:cut]


def _shorten(name: bytes) -> bytes:
    """What stands in place of a name that only the pax header holds: its beginning, cut between characters.

    It never ends in "/", by which old readers would know a directory.
    """
    return name[:_NAME].decode(errors="ignore").encode().rstrip(b"/")


def _pax_record(key: bytes, value: bytes) -> bytes:
    """``LENGTH key=value\\n``, where the length counts its own digits (POSIX, "pax Extended Header")."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)
