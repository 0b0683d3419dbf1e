"""The head of an answer as bytes: found, and read strictly (RFC 9112 sections 2 to 5).

The rule of this file: pure. A head is read in one way or not at all: what another reader might take for the end of a
line, for a header or for none, is refused. What the fields mean is judged in ``heads``.
"""

from __future__ import annotations

import re

__all__ = ["HEAD_BYTES", "Malformed", "chunk_size", "head_end", "joined", "read_head"]

HEAD_BYTES = 256 * 1024  # of a head at most, and of what follows the last chunk
_LINE_BYTES = 64 * 1024
_MOST_LINES = 100

# PERF: one match over all of a usual head and one findall: 5 us for 9 fields, where http.client takes some 60.
_HEAD = re.compile(
    rb"HTTP/1\.([0-9])[ \t]+([1-9][0-9][0-9])(?:[ \t][^\r\n]*)?\r\n((?:[\x21-\x39\x3b-\x7e]+:[^\r\n]*\r\n)*)\r\n"
)
_FIELD = re.compile(r"([^:\r\n]+):[ \t]*([^\r\n]*)\r\n")
_END = re.compile(rb"\n\r?\n")
_FOLDED = re.compile(rb"[ \t]*\r\n[ \t]+")
_BARE = re.compile(rb"(?<!\r)\n")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n\Z")


class Malformed(ValueError):
    """It is none of what may stand there."""


def head_end(data: bytes | bytearray, start: int = 0) -> int:
    """The offset behind a head's empty line; -1 while that has not come. ``start``: no end lies before it."""
    found = _END.search(data, max(0, start - 3))
    return -1 if found is None else found.end()


def read_head(data: bytes) -> tuple[int, int, list[tuple[str, str]], int] | None:
    """Status, minor version of HTTP, lines by name as written, and the offset behind the head; None: more is to come.

    A line that is folded is one line again (section 5.2), and a bare LF ends a line (section 2.2).

    :raises Malformed: it is no such head, or has too many lines.
    """
    found = _HEAD.match(data)
    if found is not None:
        end = found.end()
    else:
        end = head_end(data)
        if end < 0:
            if len(data) > HEAD_BYTES or not data.startswith(b"HTTP/"[: len(data)]):
                raise Malformed(f"no head: {data[:40]!r}")
            return None
        found = _HEAD.fullmatch(_FOLDED.sub(b" ", _BARE.sub(b"\r\n", data[:end])))
        if found is None:
            raise Malformed(f"a head that is none: {data[:40]!r}")
    if end > _LINE_BYTES and max(map(len, data[:end].split(b"\n"))) > _LINE_BYTES:
        raise Malformed("a head with a line of more than 64 KiB")
    minor, status, lines = found.groups()
    return int(status), int(minor), _read_lines(lines), end


def _read_lines(lines: bytes) -> list[tuple[str, str]]:
    # Bytes beyond ASCII are shown as latin-1, each as one character.
    fields = _FIELD.findall(lines.decode("latin-1"))
    if len(fields) > _MOST_LINES:
        raise Malformed(f"a head of {len(fields)} lines")
    return fields


def joined(lines: list[tuple[str, str]]) -> dict[str, str]:
    """The fields by their names in small letters; what comes repeatedly is joined (RFC 9110 section 5.3)."""
    fields: dict[str, str] = {}
    for name, value in lines:
        key = name.lower()
        value = value.rstrip(" \t")
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields


def chunk_size(line: bytes) -> int:
    """The size that a chunk's first line tells, its end included; what extends it is left alone (section 7.1).

    :raises Malformed: it tells none.
    """
    found = _SIZE.match(line)
    if found is None:
        raise Malformed("a chunk without a size")
    return int(found[1], 16)
