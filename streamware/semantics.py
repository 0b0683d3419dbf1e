"""The rules of HTTP for an archive: validators, conditions, ranges, dates, and the file name of the download.

The rule of this file: one function answers a request, ``decide``, in the order of RFC 9110 section 13.2.2; it looks at
values only and costs time linear in the headers, however hostile they are.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

from streamware.plan import Window
from streamware.reply import Conditions

__all__ = [
    "Decision",
    "Representation",
    "content_disposition",
    "decide",
    "format_http_date",
    "is_entity_tag",
    "is_strong",
    "parse_content_range",
    "parse_http_date",
    *("parse_length", "shortened"),
]


@dataclass(frozen=True, slots=True)
class Representation:
    """What the archive is known as before a byte of it is sent.

    ``length`` is bytes, ``modified`` Unix seconds, ``etag`` an entity-tag as on the wire; None is not known. ``ranges``
    says whether every byte is pinned, so that a part of the archive may be sent (RFC 9110 section 14.2).
    """

    media_type: str
    length: int | None
    etag: str | None
    modified: int | None
    ranges: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """How to answer. ``pieces`` are literal bytes and windows of the archive, in order; None stands for no body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: tuple[bytes | Window, ...] | None


# --- conditions and ranges (RFC 9110 sections 13 and 14) -----------------------------------------------------------

_MERGE_GAP = 80  # bytes; about what a part's own header costs, so that a smaller gap is cheaper sent than skipped
_RANGE = re.compile(r"(?=-?[0-9])([0-9]*)-([0-9]*)\Z")


def decide(conditions: Conditions, representation: Representation, *, max_ranges: int) -> Decision:
    """Answer a request for the archive (RFC 9110 section 13.2.2, and 14.2 for ranges).

    A HEAD gets what GET would, ``pieces`` included, except that its Range is ignored; the caller sends no body. 304,
    412 and 416 come with ``pieces`` None. More than ``max_ranges`` ranges get the whole.
    """
    refused = _precondition(conditions, representation)
    if refused == 412:
        return Decision(412, (), None)
    validators: list[tuple[str, str]] = []
    if representation.etag is not None:
        validators.append(("ETag", representation.etag))
    if representation.modified is not None:
        validators.append(("Last-Modified", format_http_date(representation.modified)))
    if refused == 304:
        return Decision(304, tuple(validators), None)
    length = representation.length
    if length is not None and representation.ranges:
        validators.append(("Accept-Ranges", "bytes"))

    media_type = representation.media_type
    spans = _spans(conditions, representation, max_ranges)
    if spans is None:
        pieces: tuple[bytes | Window, ...] = (Window(0, length),)
        return Decision(200, (*_content(media_type, pieces), *validators), pieces)
    if not spans:
        return Decision(416, (("Content-Range", f"bytes */{length}"), ("Accept-Ranges", "bytes")), None)
    if len(spans) == 1:
        start, stop = spans[0]
        pieces = (Window(start, stop),)
        place = ("Content-Range", f"bytes {start}-{stop - 1}/{length}")
        return Decision(206, (*_content(media_type, pieces), place, *validators), pieces)
    # Not random: the same request gets the same bytes from every replica. It hangs on the archive's own tag, so that a
    # member is hard to make that holds it.
    boundary = hashlib.sha256(repr((representation.etag, length, spans)).encode()).hexdigest()[:40]
    pieces = tuple(_parts(spans, boundary, media_type, length))
    return Decision(206, (*_content(f"multipart/byteranges; boundary={boundary}", pieces), *validators), pieces)


def _content(media_type: str, pieces: tuple[bytes | Window, ...]) -> Iterator[tuple[str, str]]:
    yield "Content-Type", media_type
    total = 0
    for piece in pieces:
        length = len(piece) if isinstance(piece, bytes) else piece.length
        if length is None:
            return
        total += length
    yield "Content-Length", str(total)


def _precondition(conditions: Conditions, representation: Representation) -> int | None:
    """The status that the conditions call for in place of the archive, or None to go on."""
    etag, modified = representation.etag, representation.modified
    safe = conditions.method in ("GET", "HEAD")
    if conditions.if_match is not None:
        if not _lists(conditions.if_match, etag if is_strong(etag) else None, weakly=False):
            return 412
    elif conditions.if_unmodified_since is not None and modified is not None:
        since = parse_http_date(conditions.if_unmodified_since)
        if since is not None and modified > since:
            return 412
    if conditions.if_none_match is not None:
        if _lists(conditions.if_none_match, etag, weakly=True):
            return 304 if safe else 412
    elif conditions.if_modified_since is not None and modified is not None and safe:
        since = parse_http_date(conditions.if_modified_since)
        if since is not None and modified <= since:
            return 304
    return None


def _spans(conditions: Conditions, representation: Representation, max_ranges: int) -> list[tuple[int, int]] | None:
    """The half-open spans to send: None for the whole, empty when none of what was asked for can be had."""
    length = representation.length
    if conditions.method != "GET" or conditions.range is None or not representation.ranges:
        return None
    if not length:  # not known; or zero, where no byte could be named and the whole is the one useful answer
        return None
    if not _if_range(conditions, representation):
        return None
    spans = _parse_ranges(conditions.range, length, max_ranges)
    return None if spans is None else _merged(spans)


def _if_range(conditions: Conditions, representation: Representation) -> bool:
    """Whether a Range may be followed: no If-Range, or one that names this very version (RFC 9110 section 13.1.5).

    A date is as good as a tag here although it counts whole seconds: it is only looked at where every byte is pinned.
    """
    condition = conditions.if_range
    if condition is None:
        return True
    if is_entity_tag(condition):
        return is_strong(condition) and condition == representation.etag
    return representation.modified is not None and parse_http_date(condition) == representation.modified


def _parse_ranges(field: str, length: int, max_ranges: int) -> list[tuple[int, int]] | None:
    """Half-open spans in the order asked for, empty if none can be met; None: answer as if nothing had been asked."""
    unit, equals, listed = field.partition("=")
    if not equals or unit.lower() != "bytes":
        return None
    spans = []
    count = 0
    for text in listed.split(","):
        text = text.strip(" \t")
        if not text:  # RFC 9110 section 5.6.1.2: empty elements are read over
            continue
        count += 1
        match = _RANGE.match(text)
        if match is None or count > max_ranges:
            return None
        first, last = match.groups()
        if not first:
            start, stop = max(0, length - _number(last)), length
        else:
            start, stop = _number(first), _number(last) + 1 if last else length
            if last and stop <= start:
                return None
        if start < min(stop, length):
            spans.append((start, min(stop, length)))
    return spans if count else None


def _number(digits: str) -> int:
    """ASCII digits as an int. Anything beyond all files is one and the same number, so that length costs nothing."""
    digits = digits.lstrip("0")
    return 10**19 if len(digits) > 19 else int(digits or "0")


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Overlapping and near spans made one, so that no byte is sent twice; the rest stays in the order asked for."""
    runs: list[tuple[int, int, int]] = []  # place in the request, start, stop
    for start, stop, place in sorted((start, stop, place) for place, (start, stop) in enumerate(spans)):
        if runs and start - runs[-1][2] < _MERGE_GAP:
            before = runs.pop()
            runs.append((min(before[0], place), before[1], max(before[2], stop)))
        else:
            runs.append((place, start, stop))
    return [(start, stop) for _, start, stop in sorted(runs)]


def _parts(
    spans: list[tuple[int, int]], boundary: str, media_type: str, length: int | None
) -> Iterator[bytes | Window]:
    """The body of a multipart/byteranges answer (RFC 9110 section 14.6)."""
    before = ""
    for start, stop in spans:
        place = f"Content-Range: bytes {start}-{stop - 1}/{length}"
        yield f"{before}--{boundary}\r\nContent-Type: {media_type}\r\n{place}\r\n\r\n".encode("latin-1")
        yield Window(start, stop)
        before = "\r\n"
    yield f"\r\n--{boundary}--\r\n".encode("latin-1")


# --- entity-tags (RFC 9110 section 8.8.3) --------------------------------------------------------------------------

_OPAQUE = r'"[\x21\x23-\x7e\x80-\xff]*"'
_TAG = re.compile(rf"(?:W/)?{_OPAQUE}\Z")
_STRONG = re.compile(rf"{_OPAQUE}\Z")
_LISTED = re.compile(rf"[ \t,]*((?:W/)?{_OPAQUE})[ \t]*(?=,|\Z)")


def is_entity_tag(text: str) -> bool:
    """Whether a text is one entity-tag, weak or strong, quotes included."""
    return _TAG.match(text) is not None


def is_strong(etag: str | None) -> bool:
    """Whether this is an entity-tag that promises the same bytes. None and what is no entity-tag are not."""
    return etag is not None and _STRONG.match(etag) is not None


def _lists(field: str, etag: str | None, *, weakly: bool) -> bool:
    """Whether a list of entity-tags or ``*`` names this one. A list that breaks the grammar names nothing."""
    if field.strip(" \t") == "*":
        return True
    if etag is None:
        return False
    wanted = etag.removeprefix("W/") if weakly else etag
    found, position = False, 0
    while match := _LISTED.match(field, position):
        found = found or wanted == (match[1].removeprefix("W/") if weakly else match[1])
        position = match.end()
    return found and not field[position:].strip(" \t,")


# --- dates, lengths and Content-Range ------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FIRST, _LAST = -62135596800, 253402300799  # years 1 and 9999
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK = r"(?P<h>[0-9]{2}):(?P<m>[0-9]{2}):(?P<s>[0-9]{2})"
_MONTH = f"(?P<mon>{'|'.join(_MONTHS)})"
_DATES = (
    re.compile(rf"(?:{'|'.join(_DAYS)}), (?P<d>[0-9]{{2}}) {_MONTH} (?P<y>[0-9]{{4}}) {_CLOCK} GMT\Z"),
    re.compile(
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<d>[0-9]{{2}})-{_MONTH}-(?P<y>[0-9]{{2}}) {_CLOCK} GMT\Z"
    ),
    re.compile(rf"(?:{'|'.join(_DAYS)}) {_MONTH} (?P<d>[ 0-9][0-9]) {_CLOCK} (?P<y>[0-9]{{4}})\Z"),
)
_LENGTH = re.compile(r"[0-9]{1,30}\Z")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,30})-([0-9]{1,30})/([0-9]{1,30}|\*)\Z", re.IGNORECASE)


def parse_http_date(text: str) -> int | None:
    """Unix seconds of an HTTP-date in any of its three forms (RFC 9110 section 5.6.7); None if it is none.

    This file has no clock, so the two digits of an RFC 850 year always mean 1970 to 2069.
    """
    match = next((m for pattern in _DATES if (m := pattern.match(text))), None)
    if match is None:
        return None
    year = int(match["y"])
    if len(match["y"]) == 2:
        year += 1900 if year >= 70 else 2000
    hour, minute, second = int(match["h"]), int(match["m"]), int(match["s"])
    if second > 60:  # 60 is a leap second, which the grammar knows and datetime does not
        return None
    try:
        moment = datetime(year, _MONTHS.index(match["mon"]) + 1, int(match["d"]), hour, minute, tzinfo=timezone.utc)
    except ValueError:
        return None
    return (moment - _EPOCH) // timedelta(seconds=1) + second


def format_http_date(seconds: int) -> str:
    """Unix seconds as an IMF-fixdate (RFC 9110 section 5.6.7); what the four digits of a year cannot say is clamped."""
    moment = _EPOCH + timedelta(seconds=min(max(seconds, _FIRST), _LAST))
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{day}, {moment.day:02} {month} {moment.year:04} {moment:%H:%M:%S} GMT"


def parse_length(value: str | None) -> int | None:
    """A Content-Length in bytes; None where it is absent or anything but one plain number below 2**63."""
    if value is None or not _LENGTH.match(value):
        return None
    length = int(value)
    return length if length < 1 << 63 else None


def parse_content_range(value: str) -> tuple[int, int, int | None] | None:
    """``(start, stop, total)`` of a Content-Range, half-open, total None for ``*``; None if it names no such range."""
    match = _CONTENT_RANGE.match(value)
    if match is None:
        return None
    start, stop = int(match[1]), int(match[2]) + 1
    total = None if match[3] == "*" else int(match[3])
    if not start < stop <= (1 << 63 if total is None else min(total, 1 << 63)):
        return None
    return start, stop, total


# --- the download's name (RFC 6266, RFC 8187) ----------------------------------------------------------------------

_MAX_FILENAME_BYTES = 240  # file systems take 255, and browsers add " (1)" and their own extension while they load
# Controls, separators of paths and lines, marks that turn the direction of writing around, and lone surrogates.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_FALLBACK = re.compile(r'[^\x20-\x7e]|["%/\\]')  # "%": RFC 6266 appendix D
_ATTR_CHAR = "!#$&+-.^_`|~"


def content_disposition(filename: str, *, inline: bool = False) -> str:
    """A Content-Disposition that saves under ``filename``, which may be any text and is made a safe one here.

    :param inline: a browser may show it instead.
    """
    name = shortened(_leaf(_UNSAFE.sub("_", filename)), _MAX_FILENAME_BYTES)
    ascii_only = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    fallback = _leaf(_UNSAFE_FALLBACK.sub("_", ascii_only))
    kind = "inline" if inline else "attachment"
    return f"{kind}; filename=\"{fallback}\"; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR)}"


def _leaf(name: str) -> str:
    """A name that names something: not empty, and not one of the dots that stand for a directory."""
    return name if name.strip(" .") else "download"


def shortened(name: str, most: int) -> str:
    """At most so many bytes of UTF-8, cut between characters and before the extension."""
    if len(name.encode()) <= most:
        return name
    _, dot, extension = name[-16:].partition(".")
    ending = (dot + extension).encode() if most > 64 else b""  # of 16 characters
    return name.encode()[: most - len(ending)].decode(errors="ignore") + ending.decode()
