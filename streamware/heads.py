"""Heads of HTTP messages, judged: what a request to an upstream may carry, what its answer says, what is passed on.

The rule of this file: pure. It sees header fields and a status, never a socket, and refuses whatever could be read in
two ways. Section numbers are RFC 9110's unless another is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

from streamware.digests import announced_digest
from streamware.errors import InvalidTarget, SizeMismatch, UpstreamError, UpstreamStatus
from streamware.model import Facts
from streamware.semantics import is_entity_tag, parse_content_range, parse_http_date, parse_length

__all__ = [
    "Head",
    "facts_of_part",
    "facts_of_whole",
    "framed_length",
    "given_headers",
    "harmless",
    "head_of",
    "is_just",
    "next_hop",
    "own_headers",
    "passed_back",
    "refusal",
    "same_version",
    "where",
]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # section 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")  # section 5.5
_FOLD = re.compile(r"\s*[\r\n]+\s*")  # RFC 9112 section 5.2

_HOP_BY_HOP = frozenset(  # section 7.6.1
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Decided here for every request: who is asked, in which coding, with no body.
_OURS = _HOP_BY_HOP | {"accept-encoding", "expect", "host"}
# What a forwarded request keeps when a redirect takes it to another origin.
_HARMLESS = frozenset({"accept", "accept-language", "range", "user-agent"})
# The upstream's words about itself, its own connection or its own cookies: not about the content.
_ITS_OWN = frozenset(
    {
        "alt-svc",
        "clear-site-data",
        "content-length",
        "date",
        "public-key-pins",
        "server",
        "set-cookie",
        "set-cookie2",
        "strict-transport-security",
    }
)
_PAUSES = (429, 503)
_CODINGS = {"": "", "identity": "", "gzip": "gzip", "x-gzip": "gzip"}  # section 8.4.1


class Head(NamedTuple):
    """The head of an answer. ``url`` is what the log may show of its URL. ``version`` is 10 or 11; ``chunked`` says how
    the body will really be read.

    ``fields`` joins repeated fields with commas and takes names in any case.
    """

    url: str
    status: int
    version: int
    chunked: bool
    fields: Mapping[str, str]


# --- requests ----------------------------------------------------------------------------------------------------


def own_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers a member brings along, checked, by name as written.

    :raises InvalidTarget: a line is malformed, or of a kind that is not the member's to set: hop-by-hop, Host,
        Accept-Encoding, Range, conditionals, and what describes a body.
    """
    found = _lines(headers)
    for name in found:
        key = name.lower()
        if key in _OURS or key == "range" or key.startswith(("if-", "content-")):
            raise InvalidTarget(f"A member may not set the header {name!r}.")
    return found


def given_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers for a forwarded request, as the caller gives them, less those that concern one connection or a body.

    :raises InvalidTarget: a line is malformed.
    """
    found = _lines(headers)
    dropped = _OURS | _named({name.lower(): value for name, value in found.items()}.get("connection"))
    return {n: v for n, v in found.items() if n.lower() not in dropped and not n.lower().startswith("content-")}


def harmless(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a forwarded request that may go to another origin than the one they were meant for."""
    return {n: v for n, v in headers.items() if n.lower() in _HARMLESS or n.lower().startswith("if-")}


def next_hop(url: str, location: str) -> str:
    """The absolute URL a Location leads to (section 10.2.2), without fragment.

    :raises UpstreamError: it cannot be read, is not http(s), holds a user name, or would leave https for http.
    """
    try:
        # The field came as bytes shown as latin-1; what is not ASCII must have been UTF-8, unescaped.
        text = "".join(c if "\x21" <= c <= "\x7e" else f"%{ord(c):02X}" for c in location.strip())
        parts = urlsplit(urljoin(url, text))
        if not parts.hostname:
            raise ValueError("no host")
    except ValueError as error:
        raise UpstreamError(f"{where(url)}: a redirect that cannot be read") from error
    if parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise UpstreamError(f"{where(url)}: a redirect to {parts.scheme}:, or with a user name")
    if parts.scheme == "http" and url[:6].lower() == "https:":
        raise UpstreamError(f"{where(url)}: a redirect from https to http")
    return urlunsplit(parts._replace(fragment=""))


def where(url: str) -> str:
    """What the log may show of a URL: its query may be a signature."""
    return url.partition("?")[0]


def _lines(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for name, value in headers:
        if not _TOKEN.match(name) or not _VALUE.match(value):
            raise InvalidTarget("A header holds a character that cannot be sent.")
        key = name.lower()
        name = spelled.setdefault(key, name)
        if name in found:
            value = f"{found[name]}{'; ' if key == 'cookie' else ', '}{value}"
        found[name] = value
    return found


def _named(connection: str | None) -> frozenset[str]:
    """The fields a Connection field declares to be hop-by-hop."""
    return frozenset(part.strip().lower() for part in connection.split(",")) if connection else frozenset()


# --- answers -----------------------------------------------------------------------------------------------------


def head_of(url: str, status: int, headers: Iterable[tuple[str, str]]) -> Head:
    """The head of an answer that was not read from a connection: header pairs as an app gave them."""
    fields: dict[str, str] = {}
    for name, value in headers:
        key, value = name.lower(), value.strip()
        if key == "content-length" and fields.get(key) == value:
            continue  # said twice, by an app and by something around it: not a contradiction
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return Head(url, status, 11, "transfer-encoding" in fields, fields)


def framed_length(head: Head) -> int | None:
    """Bytes of the body as its framing tells them; None: it ends with its last chunk, or when the connection does.

    :raises UpstreamError: the framing can be read in two ways (RFC 9112 section 6.3).
    """
    coding = head.fields.get("transfer-encoding")
    if coding is not None:
        if coding.strip().lower() != "chunked" or not head.chunked or head.version < 11:
            raise UpstreamError(f"{head.url}: a transfer coding that cannot be read: {coding!r}")
        return None
    text = head.fields.get("content-length")
    if text is None:
        return None
    length = parse_length(text)
    if length is None:
        raise UpstreamError(f"{head.url}: a Content-Length that is no number: {text[:40]!r}")
    return length


def facts_of_whole(head: Head, *, gzip: bool = False) -> Facts:
    """What a 200 says of the whole representation.

    :param gzip: it may be gzip-coded; its facts are then those of the coded bytes.
    :raises UpstreamStatus: the status is another.
    :raises UpstreamError: a 206 nobody asked for, a coded body, or framing that cannot be relied on.
    """
    if head.status != 200:
        if head.status == 206:
            raise UpstreamError(f"{head.url}: a part (206), and the whole was asked for")
        raise refusal(head)
    return _facts(head, framed_length(head), gzip)


def facts_of_part(head: Head, start: int, stop: int | None, *, at_most: bool = False, gzip: bool = False) -> Facts:
    """What a 206 says of the whole, after checking that its part is exactly ``[start, stop)``; None: up to the end.

    :param at_most: the whole may end before ``stop``. :param gzip: it may be gzip-coded.

    :raises UpstreamError: another part, several, a total that is not told, a coded body.
    """
    text = head.fields.get("content-range")
    part = parse_content_range(text) if text is not None else None
    if part is None:
        raise UpstreamError(f"{head.url}: a part (206) without a usable Content-Range")
    begin, end, total = part
    if total is None:
        raise UpstreamError(f"{head.url}: a part (206) of a whole whose size is not told")
    if begin != start or end != (total if stop is None else min(stop, total)):
        raise UpstreamError(f"{head.url}: bytes from {begin} to {end}, and {start} to {stop} were asked for")
    if stop is not None and stop > total and not at_most:
        raise SizeMismatch(f"{head.url}: {total} bytes in all, and {stop} were expected")
    if framed_length(head) not in (None, end - begin):
        raise UpstreamError(f"{head.url}: a part (206) whose Content-Length and Content-Range differ")
    return _facts(head, total, gzip)


def _facts(head: Head, size: int | None, gzip: bool) -> Facts:
    fields = head.fields
    coding = fields.get("content-encoding")
    if coding is not None:
        coding = _CODINGS.get(coding.strip().lower(), coding)
        if coding and not (gzip and coding == "gzip"):
            raise UpstreamError(f"{head.url}: a body coded with {coding[:40]!r}, which was not asked for")
    modified, validator, media_type = fields.get("last-modified"), fields.get("etag"), fields.get("content-type")
    digest = fields.get("repr-digest")  # of the whole, also beside a part (RFC 9530 section 3.1)
    return Facts(
        size=size,
        modified=None if modified is None else parse_http_date(modified),
        validator=validator if validator is not None and is_entity_tag(validator) else None,
        media_type=None if media_type is None else media_type.partition(";")[0].strip().lower() or None,
        digest=None if digest is None else announced_digest(digest),
        coding=coding or None,
    )


def is_just(head: Head, size: int) -> bool:
    """Whether an answer is a 200 that brings ``size`` bytes as they are, and says nothing more that would have to be
    looked into.
    """
    fields = head.fields
    return (
        head.status == 200
        and fields.get("content-length") == str(size)
        and "transfer-encoding" not in fields
        and "content-encoding" not in fields
        and "repr-digest" not in fields
    )


def same_version(pinned: str, seen: str | None) -> bool:
    """Whether a validator is the pinned one: strongly compared, unless that is weak itself (section 8.8.3.2)."""
    if pinned.startswith("W/"):
        return seen is not None and seen.removeprefix("W/") == pinned[2:]
    return seen == pinned


def refusal(head: Head) -> UpstreamStatus:
    """The error for a status that was not wanted; of a Retry-After only seconds are understood (section 10.2.3)."""
    pause = head.fields.get("retry-after") if head.status in _PAUSES else None
    return UpstreamStatus(
        f"{head.url}: status {head.status}",
        upstream_status=head.status,
        retry_after=None if pause is None else parse_length(pause.strip()),
    )


def passed_back(head: Head, lines: Iterable[tuple[str, str]], length: int | None) -> Iterator[tuple[str, str]]:
    """The fields of a forwarded answer that speak of its content, line by line as they came.

    ``length`` is what Content-Length is to say, None: nothing. Left out are the fields of one connection (section
    7.6.1) and those by which the upstream speaks of itself: Date and Server are this server's to say; Set-Cookie,
    Strict-Transport-Security and their like would bind the client to this server's name.
    """
    if length is not None:
        yield "Content-Length", str(length)
    dropped = _HOP_BY_HOP | _ITS_OWN | _named(head.fields.get("connection"))
    for name, value in lines:
        value = _FOLD.sub(" ", value).strip()
        if name.lower() not in dropped and _TOKEN.match(name) and _VALUE.match(value):
            yield name, value
