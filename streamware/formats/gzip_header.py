"""The header of a gzip member (RFC 1952 section 2.3), found in what has come so far.

The rule of this file: pure, and strict: what the RFC reserves or does not know is refused, never skipped.
"""

from __future__ import annotations

import zlib

__all__ = ["MAX_HEADER_BYTES", "TRAILER_BYTES", "header_end"]

# Real headers have some tens of bytes; the format bounds neither a file's name nor a comment.
MAX_HEADER_BYTES = 64 * 1024
TRAILER_BYTES = 8  # CRC32 and ISIZE

_FIXED = 10  # ID1, ID2, CM, FLG, MTIME, XFL, OS
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0


def header_end(data: bytes) -> int | None:
    """Where the compressed data begins; None: the header goes on behind ``data``.

    :raises ValueError: this is no gzip member, or one whose header is damaged or longer than ``MAX_HEADER_BYTES``.
    """
    end = _end(data)
    if (len(data) if end is None else end) > MAX_HEADER_BYTES:
        raise ValueError(f"a gzip header of more than {MAX_HEADER_BYTES} bytes")
    return end


def _end(data: bytes) -> int | None:
    for at, (byte, wanted) in enumerate(zip(data, b"\x1f\x8b\x08", strict=False)):
        if byte != wanted:
            raise ValueError(f"no gzip member: its byte {at} is {byte:#04x}")
    if len(data) < _FIXED:
        return None
    flags, end = data[3], _FIXED
    if flags & _RESERVED:
        raise ValueError(f"reserved flags in a gzip header: {flags:#04x}")
    if flags & _FEXTRA:
        if len(data) < end + 2:
            return None
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for text in (_FNAME, _FCOMMENT):
        if flags & text:
            zero = data.find(b"\0", end)
            if zero < 0:
                return None
            end = zero + 1
    if flags & _FHCRC:
        if len(data) < end + 2:
            return None
        if int.from_bytes(data[end : end + 2], "little") != zlib.crc32(data[:end]) & 0xFFFF:
            raise ValueError("a gzip header whose CRC-16 is wrong")
        end += 2
    return end if end <= len(data) else None
