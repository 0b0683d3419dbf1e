"""A ZIP archive as a layout: the members, one central directory header for each, and the end.

The rule of this file: how a member stands in the archive follows from its declared facts alone (``zip_shape``); what is
learned while bytes pass only fills in records whose length was settled before. The choices come from trials with 60
readers, on files and on pipes: what is known ahead is STORED without a data descriptor, which all of them take; what is
not goes as DEFLATE, because STORED with a descriptor cannot be read from a pipe; and ZIP64 appears only where a value
overflows, because many readers stumble over it where it is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from struct import Struct

from streamware.entries import METHOD
from streamware.errors import InvalidManifest, InvalidName, MemberTooLarge
from streamware.formats.zip_records import (
    CRC_32_IN_CENTRAL,
    CRC_32_IN_LOCAL,
    MAX_16,
    MAX_32,
    central_directory_header,
    data_descriptor,
    end_of_central_directory_record,
    local_file_header,
    zip64_end_of_central_directory_locator,
    zip64_end_of_central_directory_record,
    zip64_extra,
)
from streamware.formats.zip_shape import (
    EMPTY,
    NEEDS_ZIP64,
    Shape,
    flag_bits,
    has_extra,
    plain_shape,
    shape_of,
    sizes_of,
    stamp,
    version_needed,
)
from streamware.plan import Coded, Derived, Entry, Extent, Framed, Known, Literal, Method, Passed, Segment, Table

__all__ = ["VERSION", "ZipLayout"]

VERSION = 1  # to be raised whenever the same entries come to give other bytes

_UNIX = 3 << 8  # APPNOTE 4.4.2.1: how the external attributes are to be read
_MADE_BY = _UNIX | 45
_S_IFREG, _S_IFDIR = 0o100000, 0o040000
_DOS_DIRECTORY = 0x10

_crc32 = Struct("<I").pack
# The sizes follow in the descriptor; a 64-bit one is expected where the size fields hold the sentinel *and* this extra
# field is there (JDK 25's ZipInputStream looks at both).
_ZIP64_SIZES_FOLLOW = zip64_extra(original_size=0, compressed_size=0)


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

    @property
    def inline_bytes(self) -> int:
        return self._inline_bytes

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
        return (self._central(member, known),)

    def lengths(self, known: Known) -> Iterator[int | None]:
        # PERF: 1.5 us a member instead of 6. What a record takes beside its name, comment and content is told by one
        # that is made, the first of its kind.
        entries, sizes = self._entries, self._entries.sizes
        inline, timestamps = self._inline_bytes, self._timestamps
        beside: dict[tuple[bool, ...], int] = {}
        wide: dict[int, tuple[bool, bool]] = {}  # members whose sizes do not fit a central header
        columns = zip(sizes, entries.crcs, entries.modified, entries.flags, entries.name_lengths(), strict=True)
        for member, (size, crc, modified, flags, name) in enumerate(columns):
            shape = plain_shape(size, crc >= 0, inline) if size > 0 and not flags else shape_of(entries, member, inline)
            _, descriptor, zip64, coded = shape
            if coded is None:
                yield None
                return
            if (size >= MAX_32 or coded >= MAX_32) and shape is not EMPTY:
                wide[member] = size >= MAX_32, coded >= MAX_32
            kind = (descriptor, zip64, (timestamps and has_extra(modified)))
            rest = beside.get(kind)
            if rest is None:
                rest = beside[kind] = sum(s.length or 0 for s in self._member(member)) - name - coded
            yield rest + name + coded
        beside.clear()
        offsets, no_comments = known.offsets, not entries.longest_comment()[0]
        columns_2 = zip(offsets[: self._members], entries.modified, entries.name_lengths(), strict=True)
        for member, (offset, modified, name) in enumerate(columns_2):
            text = name if no_comments else name + len(entries.comment(member))
            in_zip64 = wide.get(member, _NARROW) if wide else _NARROW
            rest = beside.get(record := (*in_zip64, offset >= MAX_32, (timestamps and has_extra(modified))))
            if rest is None:
                rest = beside[record] = (self._central(member, known).length or 0) - text
            yield rest + text
        yield len(self._end(known))

    def around(self, member: int, crc32: int) -> tuple[bytes, bytes]:
        return self._local_header(member, shape_of(self._entries, member, self._inline_bytes), crc32), b""

    def records(self, item: int, stop: int, known: Known, most: int) -> list[bytes]:
        members, crcs = self._members, self._entries.crcs
        made: list[bytes] = []
        for member in range(item - members, min(stop - members, members)):
            shape = shape_of(self._entries, member, self._inline_bytes)
            crc = crcs[member] if shape is not EMPTY else 0
            if crc < 0:
                learned = known.crc32(member)
                if learned is None:
                    break
                crc = learned
            record = self._central_header(member, shape, crc, known)
            made.append(record)
            most -= len(record)
            if most <= 0:
                break
        return made

    def _member(self, member: int) -> tuple[Segment, ...]:
        entry, shape = self._entries[member], shape_of(self._entries, member, self._inline_bytes)
        header = self._local_header(member, shape, entry.crc32 or 0)
        size, (_, descriptor, zip64, coded) = entry.size, shape
        if not descriptor:
            if shape is EMPTY:
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
        length = 24 if zip64 else 16
        return Literal(header), data, Derived(member, length, partial(_descriptor, self._entries, member, shape))

    def _local_header(self, member: int, shape: Shape, crc32: int) -> bytes:
        """APPNOTE 4.3.7. ``crc32`` does not count where a descriptor tells it, or nothing is summed."""
        entries = self._entries
        method, descriptor, zip64, coded = shape
        time, day, extra = stamp(entries.modified[member], self._timestamps)
        size: int
        if descriptor:
            crc32 = 0
            size = coded = MAX_32 if zip64 else 0
            if zip64:
                extra = _ZIP64_SIZES_FOLLOW + extra
        else:
            size = coded = coded or 0
            if not size:
                crc32 = 0
            if zip64:
                # APPNOTE 4.5.3: in a local header always both.
                extra = zip64_extra(original_size=size, compressed_size=size) + extra
        name = entries.name(member)
        return local_file_header(
            version_needed_to_extract=version_needed(entries.flags[member], method, zip64),
            general_purpose_bit_flag=flag_bits(name, entries.comment(member), descriptor),
            compression_method=method,
            last_mod_file_time=time,
            last_mod_file_date=day,
            crc_32=crc32,
            compressed_size=coded,
            uncompressed_size=size,
            file_name=name,
            extra_field=extra,
        )

    def _central(self, member: int, known: Known) -> Segment:
        crc32 = self._entries.crcs[member]
        shape = shape_of(self._entries, member, self._inline_bytes)
        record = self._central_header(member, shape, max(0, crc32), known)
        if crc32 >= 0 or shape is EMPTY:
            return Literal(record)
        return Derived(member, len(record), partial(_quote, record, CRC_32_IN_CENTRAL, member))

    def _central_header(self, member: int, shape: Shape, crc32: int, known: Known) -> bytes:
        """APPNOTE 4.3.12."""
        entries = self._entries
        method, descriptor, zip64, _ = shape
        size, coded = sizes_of(entries, member, shape, known)
        offset, flags = known.offsets[member], entries.flags[member]
        time, day, extra = stamp(entries.modified[member], self._timestamps)
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
        if flags & METHOD == Method.DIRECTORY:
            attributes = (_S_IFDIR | entries.mode(member) & 0o7777) << 16 | _DOS_DIRECTORY
        else:
            attributes = (_S_IFREG | entries.mode(member) & 0o7777) << 16
        name, comment = entries.name(member), entries.comment(member)
        return central_directory_header(
            version_made_by=_MADE_BY,
            version_needed_to_extract=version_needed(flags, method, zip64),
            general_purpose_bit_flag=flag_bits(name, comment, descriptor),
            compression_method=method,
            last_mod_file_time=time,
            last_mod_file_date=day,
            crc_32=0 if shape is EMPTY else crc32,
            compressed_size=coded,
            uncompressed_size=size,
            external_file_attributes=attributes,
            relative_offset_of_local_header=offset,
            file_name=name,
            extra_field=extra,
            file_comment=comment,
        )

    def _end(self, known: Known) -> bytes:
        members = self._members
        count = members - len(known.skipped)
        start, stop = known.offsets[members], known.offsets[2 * members]
        size = stop - start
        records = b""
        if count >= MAX_16 or size >= MAX_32 or start >= MAX_32:
            records = zip64_end_of_central_directory_record(
                version_made_by=_MADE_BY,
                version_needed_to_extract=NEEDS_ZIP64,
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


def _descriptor(entries: Table, member: int, shape: Shape, known: Known) -> bytes:
    """The data descriptor, once the member has passed. Raises MemberTooLarge where it outgrew its 32-bit fields."""
    size, coded = sizes_of(entries, member, shape, known)
    zip64 = shape[2]
    if not zip64 and (size >= MAX_32 or coded >= MAX_32):
        raise MemberTooLarge(f"{size} bytes, {coded} in the archive, behind a 32-bit local header")
    declared = entries.crcs[member]
    crc32 = known.crc32(member) if declared < 0 else declared
    assert crc32 is not None
    return data_descriptor(crc_32=crc32, compressed_size=coded, uncompressed_size=size, zip64=zip64)


def _quote(record: bytes, at: int, member: int, known: Known) -> bytes:
    """A record with the member's checksum put in its place."""
    crc32 = known.crc32(member)
    assert crc32 is not None
    return record[:at] + _crc32(crc32) + record[at + 4 :]
