"""The records of a ZIP file, one function each, with the field names of PKWARE's APPNOTE.TXT 6.3.10.

The rule of this file: what a function returns depends on its arguments alone, so every record can be tested with
offsets and sizes that no test could store. A size, offset or count that its 32-bit or 16-bit field cannot hold becomes
that field's sentinel (all ones; section 4.4.1.4), field by field; the true value is then the affair of the ZIP64 extra
field or end record, which the caller adds.
"""

from __future__ import annotations

from struct import Struct

__all__ = [
    "CRC_32_IN_CENTRAL",
    "CRC_32_IN_LOCAL",
    "DEFLATED",
    "MAX_16",
    "MAX_32",
    "STORED",
    "central_directory_header",
    "data_descriptor",
    "end_of_central_directory_record",
    "extended_timestamp_extra",
    "local_file_header",
    "zip64_end_of_central_directory_locator",
    "zip64_end_of_central_directory_record",
    "zip64_extra",
]

MAX_16 = 0xFFFF
MAX_32 = 0xFFFFFFFF

STORED = 0  # section 4.4.5
DEFLATED = 8

CRC_32_IN_LOCAL = 14  # where the checksum stands in a record, for those who quote it later
CRC_32_IN_CENTRAL = 16

_local = Struct("<4s5H3I2H").pack
_central = Struct("<4s6H3I5H2I").pack
_descriptor = Struct("<4s3I").pack
_descriptor_64 = Struct("<4sI2Q").pack
_end = Struct("<4s4H2IH").pack
_end_64 = Struct("<4sQ2H2I4Q").pack
_locator = Struct("<4sIQI").pack
_timestamp = Struct("<2HBi").pack
_extra_header = Struct("<2H").pack
_long = Struct("<Q").pack
_two_longs = Struct("<2H2Q").pack


def local_file_header(
    *,
    version_needed_to_extract: int,
    general_purpose_bit_flag: int,
    compression_method: int,
    last_mod_file_time: int,
    last_mod_file_date: int,
    crc_32: int,
    compressed_size: int,
    uncompressed_size: int,
    file_name: bytes,
    extra_field: bytes = b"",
) -> bytes:
    """Section 4.3.7. Sizes in bytes; time and date in MS-DOS form (section 4.4.6)."""
    fixed = _local(
        b"PK\3\4",
        version_needed_to_extract,
        general_purpose_bit_flag,
        compression_method,
        last_mod_file_time,
        last_mod_file_date,
        crc_32,
        compressed_size if compressed_size < MAX_32 else MAX_32,
        uncompressed_size if uncompressed_size < MAX_32 else MAX_32,
        len(file_name),
        len(extra_field),
    )
    return fixed + file_name + extra_field


def data_descriptor(*, crc_32: int, compressed_size: int, uncompressed_size: int, zip64: bool) -> bytes:
    """Section 4.3.9, with the signature: 16 bytes, or 24 where the local header has a ZIP64 extra field (4.3.9.2)."""
    pack = _descriptor_64 if zip64 else _descriptor
    return pack(b"PK\7\x08", crc_32, compressed_size, uncompressed_size)


def central_directory_header(
    *,
    version_made_by: int,
    version_needed_to_extract: int,
    general_purpose_bit_flag: int,
    compression_method: int,
    last_mod_file_time: int,
    last_mod_file_date: int,
    crc_32: int,
    compressed_size: int,
    uncompressed_size: int,
    external_file_attributes: int,
    relative_offset_of_local_header: int,
    file_name: bytes,
    extra_field: bytes = b"",
    file_comment: bytes = b"",
    disk_number_start: int = 0,
    internal_file_attributes: int = 0,
) -> bytes:
    """Section 4.3.12. Sizes and the offset in bytes."""
    fixed = _central(
        b"PK\1\2",
        version_made_by,
        version_needed_to_extract,
        general_purpose_bit_flag,
        compression_method,
        last_mod_file_time,
        last_mod_file_date,
        crc_32,
        compressed_size if compressed_size < MAX_32 else MAX_32,
        uncompressed_size if uncompressed_size < MAX_32 else MAX_32,
        len(file_name),
        len(extra_field),
        len(file_comment),
        disk_number_start,
        internal_file_attributes,
        external_file_attributes,
        relative_offset_of_local_header if relative_offset_of_local_header < MAX_32 else MAX_32,
    )
    return fixed + file_name + extra_field + file_comment


def zip64_extra(
    *,
    original_size: int | None = None,
    compressed_size: int | None = None,
    relative_header_offset: int | None = None,
) -> bytes:
    """Section 4.5.3, header ID 0x0001: the fields given, in the order prescribed.

    A local header's holds both sizes; a central header's only what stands as a sentinel in the record itself.
    """
    if original_size is not None and compressed_size is not None and relative_header_offset is None:
        return _two_longs(0x0001, 16, original_size, compressed_size)
    given = [v for v in (original_size, compressed_size, relative_header_offset) if v is not None]
    return _extra_header(0x0001, 8 * len(given)) + b"".join(map(_long, given))


def extended_timestamp_extra(*, mod_time: int) -> bytes:
    """Header ID 0x5455 (Info-ZIP's extrafld.txt): the time of modification, in Unix seconds that fit a signed 32 bit.

    The form with this time alone is the same in the local and in the central header.
    """
    return _timestamp(0x5455, 5, 1, mod_time)


def zip64_end_of_central_directory_record(
    *,
    version_made_by: int,
    version_needed_to_extract: int,
    total_number_of_entries: int,
    size_of_the_central_directory: int,
    offset_of_start_of_central_directory: int,
) -> bytes:
    """Section 4.3.14, version 1, for an archive on one disk."""
    return _end_64(
        b"PK\6\6",
        44,  # the size of what follows this field
        version_made_by,
        version_needed_to_extract,
        0,
        0,
        total_number_of_entries,
        total_number_of_entries,
        size_of_the_central_directory,
        offset_of_start_of_central_directory,
    )


def zip64_end_of_central_directory_locator(*, relative_offset_of_the_zip64_end_record: int) -> bytes:
    """Section 4.3.15, for an archive on one disk."""
    return _locator(b"PK\6\7", 0, relative_offset_of_the_zip64_end_record, 1)


def end_of_central_directory_record(
    *,
    total_number_of_entries: int,
    size_of_the_central_directory: int,
    offset_of_start_of_central_directory: int,
    zip_file_comment: bytes = b"",
) -> bytes:
    """Section 4.3.16, for an archive on one disk."""
    entries = total_number_of_entries if total_number_of_entries < MAX_16 else MAX_16
    fixed = _end(
        b"PK\5\6",
        0,
        0,
        entries,
        entries,
        size_of_the_central_directory if size_of_the_central_directory < MAX_32 else MAX_32,
        offset_of_start_of_central_directory if offset_of_start_of_central_directory < MAX_32 else MAX_32,
        len(zip_file_comment),
    )
    return fixed + zip_file_comment
