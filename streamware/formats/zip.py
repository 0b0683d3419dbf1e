"""A ZIP archive as a layout: the members, one central directory header for each, and the end.

The rule of this file: how a member stands in the archive follows from its declared facts alone, by ``_shape``; what is
learned while bytes pass only fills in records whose length was settled before. The choices come from trials with 60
readers, on files and on pipes: what is known ahead is STORED without a data descriptor, which all of them take; what is
not goes as DEFLATE, because STORED with a descriptor cannot be read from a pipe; and ZIP64 appears only where a value
overflows, because many readers stumble over it where it is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from struct import Struct
from typing import NamedTuple

from streamware.errors import InvalidManifest, InvalidName, MemberTooLarge
from streamware.formats.dos_time import dos_time
from streamware.formats.framing import framed_length
from streamware.formats.zip_records import (
    CRC_32_IN_CENTRAL,
    CRC_32_IN_LOCAL,
    DEFLATED,
    MAX_16,
    MAX_32,
    STORED,
    central_directory_header,
    data_descriptor,
    end_of_central_directory_record,
    extended_timestamp_extra,
    local_file_header,
    zip64_end_of_central_directory_locator,
    zip64_end_of_central_directory_record,
    zip64_extra,
)
from streamware.plan import Coded, Derived, Entry, Extent, Framed, Known, Literal, Method, Passed, Segment, Table

__all__ = ["VERSION", "ZipLayout"]

VERSION = 1  # to be raised whenever the same entries come to give other bytes

_UNIX = 3 << 8  # APPNOTE 4.4.2.1: how the external attributes are to be read
_MADE_BY = _UNIX | 45
_NEEDS_ZIP64 = 45  # APPNOTE 4.4.3.2
_NEEDS_DEFLATE = _NEEDS_DIRECTORY = 20
_NEEDS_NOTHING = 10

_HAS_DESCRIPTOR = 1 << 3  # APPNOTE 4.4.4
_IS_UTF8 = 1 << 11

_S_IFREG, _S_IFDIR = 0o100000, 0o040000
_DOS_DIRECTORY = 0x10

_crc32 = Struct("<I").pack
# The sizes follow in the descriptor; a 64-bit one is expected where the size fields hold the sentinel *and* this extra
# field is there (JDK 25's ZipInputStream looks at both).
_ZIP64_SIZES_FOLLOW = zip64_extra(original_size=0, compressed_size=0)


class _Shape(NamedTuple):
    """How a member stands in the archive. ``coded`` is its length there; None: comes out afterwards."""

    compression_method: int
    descriptor: bool
    zip64: bool
    coded: int | None


_EMPTY = _Shape(STORED, False, False, 0)
_NARROW = (False, False)


class ZipLayout:
    """Entries as a ZIP archive (plan.Layout).

    Items: the members in order, their central directory headers in the same order, then one item with the end records.

    :param entries: a table is kept, and looked at again for every item.
    :param comment: the archive's comment, at most 65,535 bytes.
    :param timestamps: whether records carry the extended timestamp extra field.
    :param inline_bytes: a member of known size up to this is promised a checksum in its local header even where it is
        not known yet: whoever renders the header has to read the member first.
    :raises InvalidManifest: for a comment that does not fit or that would pass for the end of the archive.
    :raises InvalidName: for a name that does not fit its 16-bit length.
    """

    __slots__ = ("_comment", "_entries", "_inline_bytes", "_members", "_timestamps")

    def __init__(
        self,
        entries: Table | Sequence[Entry],
        *,
        comment: bytes = b"",
        timestamps: bool = True,
        inline_bytes: int = 65536,
    ) -> None:
        if len(comment) > MAX_16:
            raise InvalidManifest(f"the archive's comment has {len(comment)} bytes; at most {MAX_16} fit")
        # Readers find the end record by its signature, from the back.
        if b"PK\5\6" in comment:
            raise InvalidManifest("the archive's comment holds the signature of an end record")
        self._entries = entries = entries if isinstance(entries, Table) else Table(entries)
        longest = max(entries.name_lengths(), default=0)
        if longest > MAX_16:
            index = list(entries.name_lengths()).index(longest)
            raise InvalidName(f"the name has {longest} bytes; at most {MAX_16} fit", index=index)
        longest, index = entries.longest_comment()
        if longest > MAX_16:
            raise InvalidManifest(f"the comment has {longest} bytes; at most {MAX_16} fit", index=index)
        self._members = len(entries)
        self._comment = comment
        self._timestamps = timestamps
        self._inline_bytes = inline_bytes

    @property
    def members(self) -> int:
        return self._members

    @property
    def items(self) -> int:
        return 2 * self._members + 1

    def segments(self, item: int, known: Known) -> tuple[Segment, ...]:
        """What stands at ``item``; nothing for a member in ``known.skipped``, whose central header and count go too."""
        members = self._members
        if item == 2 * members:
            return (Literal(self._end(known)),)
        member = item if item < members else item - members
        if known.skipped and member in known.skipped:
            return ()
        if item < members:
            return self._member(member)
        return (self._central_header(member, known),)

    def lengths(self, known: Known) -> Iterator[int | None]:
        # PERF: 1.5 us a member instead of 6. What a record takes beside its name, comment and content is told by one
        # that is made, the first of its kind.
        entries, sizes = self._entries, self._entries.sizes
        beside: dict[tuple[bool, ...], int] = {}
        wide: dict[int, tuple[bool, bool]] = {}  # members whose sizes do not fit a central header
        columns = zip(sizes, entries.crcs, entries.modified, entries.flags, entries.name_lengths(), strict=True)
        for member, (size, crc, modified, flags, name) in enumerate(columns):
            shape = self._plain_shape(size, crc >= 0) if size > 0 and not flags else self._shape(entries[member])
            coded = shape.coded
            if coded is None:
                yield None
                return
            if (size >= MAX_32 or coded >= MAX_32) and shape is not _EMPTY:
                wide[member] = size >= MAX_32, coded >= MAX_32
            kind = (shape.descriptor, shape.zip64, self._dated(modified))
            rest = beside.get(kind)
            if rest is None:
                rest = beside[kind] = sum(s.length or 0 for s in self._member(member)) - name - coded
            yield rest + name + coded
        beside.clear()
        offsets, no_comments = known.offsets, not entries.longest_comment()[0]
        columns_2 = zip(offsets[: self._members], entries.modified, entries.name_lengths(), strict=True)
        for member, (offset, modified, name) in enumerate(columns_2):
            text = name if no_comments else name + entries.comment_length(member)
            in_zip64 = wide.get(member, _NARROW) if wide else _NARROW
            rest = beside.get(record := (*in_zip64, offset >= MAX_32, self._dated(modified)))
            if rest is None:
                rest = beside[record] = (self._central_header(member, known).length or 0) - text
            yield rest + text
        yield len(self._end(known))

    def _shape(self, entry: Entry) -> _Shape:
        size = entry.size
        if entry.method is Method.DIRECTORY or size == 0:
            return _EMPTY
        if size is None:
            return _Shape(DEFLATED, True, entry.may_exceed_4gib, None)
        if entry.method is not Method.PLAIN or entry.passthrough:
            # What does not shrink may grow: by 5 % with the fastest coder measured, and an eighth is sure to be enough.
            # One that is passed through comes to what its server makes of it, whatever it came to here.
            coded = None if entry.passthrough else entry.coded
            return _Shape(DEFLATED, True, size + (size >> 3) >= MAX_32, coded)
        return self._plain_shape(size, entry.crc32 is not None)

    def _plain_shape(self, size: int, known: bool) -> _Shape:
        if known or size <= self._inline_bytes:
            return _Shape(STORED, False, size >= MAX_32, size)
        coded = framed_length(size)
        return _Shape(DEFLATED, True, coded >= MAX_32, coded)

    def _member(self, member: int) -> tuple[Segment, ...]:
        entry = self._entries[member]
        shape = self._shape(entry)
        header = self._local_header(entry, shape)
        size, coded = entry.size, shape.coded
        if not shape.descriptor:
            if shape is _EMPTY:
                return (Literal(header),)
            if entry.crc32 is not None:
                return Literal(header), Extent(member, size)
            return Derived(member, len(header), partial(_quote, header, CRC_32_IN_LOCAL, member)), Extent(member, size)
        data: Framed | Coded | Passed
        if entry.method is Method.PLAIN:
            data = Framed(member, size, coded)
        else:
            data = Coded(member, entry.method is Method.AUTO, coded)
        if entry.passthrough:
            data = Passed(member, data)
        descriptor = Derived(member, 24 if shape.zip64 else 16, partial(_descriptor, member, entry, shape))
        return Literal(header), data, descriptor

    def _local_header(self, entry: Entry, shape: _Shape) -> bytes:
        """APPNOTE 4.3.7, with 0 for a checksum that is not known."""
        method, descriptor, zip64, coded = shape
        extra = self._timestamp(entry.modified)
        size: int
        if descriptor:
            size = coded = MAX_32 if zip64 else 0
            if zip64:
                extra = _ZIP64_SIZES_FOLLOW + extra
        else:
            size = coded = coded or 0
            if zip64:
                # APPNOTE 4.5.3: in a local header always both.
                extra = zip64_extra(original_size=size, compressed_size=size) + extra
        time, day = dos_time(entry.modified)
        return local_file_header(
            version_needed_to_extract=_version_needed(entry, method, zip64),
            general_purpose_bit_flag=_flags(entry, descriptor),
            compression_method=method,
            last_mod_file_time=time,
            last_mod_file_date=day,
            crc_32=0 if descriptor or not size else entry.crc32 or 0,
            compressed_size=coded,
            uncompressed_size=size,
            file_name=entry.name,
            extra_field=extra,
        )

    def _central_header(self, member: int, known: Known) -> Segment:
        entry = self._entries[member]
        shape = self._shape(entry)
        method, descriptor, zip64, _ = shape
        size, coded = _sizes(member, entry, shape, known)
        offset = known.offsets[member]
        extra = self._timestamp(entry.modified)
        if size >= MAX_32 or coded >= MAX_32 or offset >= MAX_32:
            zip64 = True
            # First of all: some readers look for it nowhere else.
            extra = (
                zip64_extra(
                    original_size=size if size >= MAX_32 else None,
                    compressed_size=coded if coded >= MAX_32 else None,
                    relative_header_offset=offset if offset >= MAX_32 else None,
                )
                + extra
            )
        crc32 = 0 if shape is _EMPTY else entry.crc32
        time, day = dos_time(entry.modified)
        if entry.method is Method.DIRECTORY:
            attributes = (_S_IFDIR | entry.mode & 0o7777) << 16 | _DOS_DIRECTORY
        else:
            attributes = (_S_IFREG | entry.mode & 0o7777) << 16
        record = central_directory_header(
            version_made_by=_MADE_BY,
            version_needed_to_extract=_version_needed(entry, method, zip64),
            general_purpose_bit_flag=_flags(entry, descriptor),
            compression_method=method,
            last_mod_file_time=time,
            last_mod_file_date=day,
            crc_32=crc32 or 0,
            compressed_size=coded,
            uncompressed_size=size,
            external_file_attributes=attributes,
            relative_offset_of_local_header=offset,
            file_name=entry.name,
            extra_field=extra,
            file_comment=entry.comment,
        )
        if crc32 is not None:
            return Literal(record)
        return Derived(member, len(record), partial(_quote, record, CRC_32_IN_CENTRAL, member))

    def _end(self, known: Known) -> bytes:
        members = self._members
        count = members - len(known.skipped)
        start, stop = known.offsets[members], known.offsets[2 * members]
        size = stop - start
        records = b""
        if count >= MAX_16 or size >= MAX_32 or start >= MAX_32:
            records = zip64_end_of_central_directory_record(
                version_made_by=_MADE_BY,
                version_needed_to_extract=_NEEDS_ZIP64,
                total_number_of_entries=count,
                size_of_the_central_directory=size,
                offset_of_start_of_central_directory=start,
            ) + zip64_end_of_central_directory_locator(relative_offset_of_the_zip64_end_record=stop)
        return records + end_of_central_directory_record(
            total_number_of_entries=count,
            size_of_the_central_directory=size,
            offset_of_start_of_central_directory=start,
            zip_file_comment=self._comment,
        )

    def _timestamp(self, modified: int) -> bytes:
        return extended_timestamp_extra(mod_time=modified) if self._dated(modified) else b""

    def _dated(self, modified: int) -> bool:
        return self._timestamps and -0x80000000 <= modified <= 0x7FFFFFFF


def _version_needed(entry: Entry, method: int, zip64: bool) -> int:
    if zip64:
        return _NEEDS_ZIP64
    if method == DEFLATED:
        return _NEEDS_DEFLATE
    return _NEEDS_DIRECTORY if entry.method is Method.DIRECTORY else _NEEDS_NOTHING


def _flags(entry: Entry, descriptor: bool) -> int:
    # ASCII is the same in every code page, and readers that know no UTF-8 flag are spared it.
    ascii_only = entry.name.isascii() and entry.comment.isascii()
    return (_HAS_DESCRIPTOR if descriptor else 0) | (0 if ascii_only else _IS_UTF8)


def _sizes(member: int, entry: Entry, shape: _Shape, known: Known) -> tuple[int, int]:
    """Bytes of content and bytes in the archive, from the entry or, where they had to come out, from what is known."""
    if shape is _EMPTY:
        return 0, 0
    size = known.sizes[member] if entry.size is None else entry.size
    if shape.coded is not None:
        return size, shape.coded
    plain = entry.method is Method.PLAIN and not entry.passthrough
    return size, framed_length(size) if plain else known.coded[member]


def _descriptor(member: int, entry: Entry, shape: _Shape, known: Known) -> bytes:
    """The data descriptor, once the member has passed. Raises MemberTooLarge where it outgrew its 32-bit fields."""
    size, coded = _sizes(member, entry, shape, known)
    if not shape.zip64 and (size >= MAX_32 or coded >= MAX_32):
        raise MemberTooLarge(f"{size} bytes, {coded} in the archive, behind a 32-bit local header")
    crc32 = known.crc32(member) if entry.crc32 is None else entry.crc32
    assert crc32 is not None
    return data_descriptor(crc_32=crc32, compressed_size=coded, uncompressed_size=size, zip64=shape.zip64)


def _quote(record: bytes, at: int, member: int, known: Known) -> bytes:
    """A record with the member's checksum put in its place."""
    crc32 = known.crc32(member)
    assert crc32 is not None
    return record[:at] + _crc32(crc32) + record[at + 4 :]
