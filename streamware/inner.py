"""What a member's request asks of the wrapped app, and what the answer is worth: from where on, and of which version.

The rules of this file: it makes heads, judges heads and cuts bodies, whoever carries them. Nothing is taken for the
promised bytes unless the answer proves it (RFC 9110 sections 13.1.5, 14.4, 15.3.7); and of the outer request a member's
request takes nothing but where the app stands and the headers it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from streamware.errors import (
    InvalidTarget,
    LoopDetected,
    MemberChanged,
    MemberError,
    MemberForbidden,
    MemberNotFound,
    SizeMismatch,
)
from streamware.heads import Head, facts_of_part, facts_of_whole, head_of, refusal, same_version
from streamware.model import Facts
from streamware.plan import Window
from streamware.semantics import is_strong
from streamware.target import Target, parse_href, stands_under

__all__ = [
    "DEPTH",
    "Settled",
    "aim",
    "cut",
    "deeper",
    "environ_for",
    "headers_in",
    "headers_of",
    "identity_of",
    "path_in",
    "range_headers",
    "scope_for",
    "settle",
]

_CRC32 = re.compile(r"[0-9A-Fa-f]{8}\Z")

DEPTH = "streamware.depth"  # in an environ or a scope: this request is a member's, and its answer passes as it is


class Settled(NamedTuple):
    """A usable answer. ``facts`` are the whole member's; the body must be ``length`` bytes long (None: not known), and
    its first ``skip`` stand before what was asked for."""

    facts: Facts
    skip: int
    length: int | None


def range_headers(asked: Window, pinned: Facts) -> list[tuple[str, str]]:
    """The request headers that ask for a part; of the pinned version only, where a strong validator can say so."""
    last = "" if asked.stop is None else str(asked.stop - 1)
    headers = [("range", f"bytes={asked.start}-{last}")]
    if pinned.validator is not None and is_strong(pinned.validator):
        headers.append(("if-range", pinned.validator))
    return headers


def settle(
    status: int, headers: Iterable[tuple[str, str]], *, asked: Window | None = None, pinned: Facts | None = None
) -> Settled:
    """Judge the head of an answer to a GET or HEAD.

    :param asked: the part that ``Range`` asked for; None where none was sent.
    :param pinned: what an earlier answer has promised; None where this is the first.
    :raises MemberNotFound: 404 or 410.
    :raises MemberForbidden: 401 or 403.
    :raises LoopDetected: 508.
    :raises UpstreamStatus: any other status but 200 and a 206 that was asked for.
    :raises UpstreamError: a content coding, or lengths and ranges that contradict each other.
    :raises MemberChanged: the validator is not the pinned one.
    :raises SizeMismatch: the size is not the pinned one.
    """
    pinned = pinned or Facts()
    head = head_of("the app", status, headers)
    wanted = 0 if asked is None else asked.start
    if asked is not None and status == 206:
        facts, start = facts_of_part(head, asked.start, asked.stop), asked.start
        assert facts.size is not None
        length: int | None = (facts.size if asked.stop is None else min(asked.stop, facts.size)) - start
    elif status == 200:
        facts, start = facts_of_whole(head), 0
        facts = replace(facts, size=pinned.size if facts.size is None else facts.size)
        length = facts.size
    else:
        raise _refusal(head, asked)
    facts = replace(facts, crc32=_crc32(head, facts))
    _compare(facts, pinned, partial=wanted > 0)
    if facts.size is not None and wanted > facts.size:
        raise SizeMismatch(f"byte {wanted} was asked for, and the member has {facts.size}")
    return Settled(facts, wanted - start, length)


def cut(
    pieces: Iterator[bytes], *, skip: int = 0, take: int | None = None, length: int | None = None
) -> Iterator[bytes]:
    """Of a body of ``length`` bytes (None: not known) pass on ``take`` (None: all) after the first ``skip``.

    The last piece is given only when the body has proved to be as long as it should be: where the part reaches the
    body's announced end, the body must end there.

    :raises SizeMismatch: the body is shorter or longer than it should be.
    """
    stop = length if take is None else skip + take
    if stop is not None and length is not None and stop > length:
        raise SizeMismatch(f"{stop} bytes were wanted of a body of {length}")
    position = 0
    while stop is None or position < stop:
        piece = next(pieces, None)
        if piece is None:
            if stop is None and position >= skip:
                return
            raise SizeMismatch(
                f"the body ended after {position} bytes, and {skip if stop is None else stop} were promised"
            )
        begin, position = position, position + len(piece)
        if stop is not None and position >= stop == length and (position > stop or any(pieces)):
            raise SizeMismatch(f"the body is longer than the {length} bytes announced")
        if begin < skip or (stop is not None and position > stop):
            piece = piece[max(0, skip - begin) : None if stop is None else stop - begin]
        if piece:
            yield piece
    if length == 0 and any(pieces):
        raise SizeMismatch("the body is longer than the 0 bytes announced")


def _refusal(head: Head, asked: Window | None) -> MemberError:
    if head.status in (404, 410):
        return MemberNotFound(f"answered with {head.status}")
    if head.status in (401, 403):
        return MemberForbidden(f"answered with {head.status}")
    if head.status == 508:
        return LoopDetected("answered with 508")
    if head.status == 416 and asked is not None:
        return SizeMismatch(f"the member no longer reaches byte {asked.start}")
    return refusal(head)


def _crc32(head: Head, facts: Facts) -> int | None:
    """The CRC-32 that the app says the whole member has, in ``X-Archive-Crc32``; None: it says none that can be used.

    A promise as if it had been declared, and so verified when all of the member passes.
    """
    text = head.fields.get("x-archive-crc32")
    if text is None or not _CRC32.match(text) or (head.status == 206 and not is_strong(facts.validator)):
        return None
    return int(text, 16)


def _compare(facts: Facts, pinned: Facts, *, partial: bool) -> None:
    if pinned.validator is not None and not same_version(pinned.validator, facts.validator):
        raise MemberChanged(f"the validator is {facts.validator!r}, and it was {pinned.validator!r}")
    dates = (facts.modified, pinned.modified)
    if partial and pinned.validator is None and None not in dates and facts.modified != pinned.modified:
        raise MemberChanged("the time of the last change differs")
    if pinned.size not in (None, facts.size):
        raise SizeMismatch(f"the size is {facts.size}, and it was {pinned.size}")
    if None not in (pinned.crc32, facts.crc32) and pinned.crc32 != facts.crc32:
        raise MemberChanged(f"the CRC-32 is {facts.crc32:08x}, and it was {pinned.crc32:08x}")


# --- what is asked -------------------------------------------------------------------------------------------------

# What gives an app a hold of the caller's own connection, or of how its body is read.
_OUTER_ONLY = (
    "CONTENT_TYPE",
    "CONTENT_LENGTH",
    "gunicorn.socket",
    "werkzeug.socket",
    "wsgi.early_hints",
    "wsgi.input_terminated",
    "wsgi.websocket",
)


def aim(href: str, bundle_path: str | None) -> Target:
    """Where a member's href leads; never back to the bundles themselves, which would not end.

    :raises InvalidTarget: it is no path, or stands under ``bundle_path``.
    """
    target = parse_href(href)
    if bundle_path is not None and stands_under(target.path, bundle_path):
        raise InvalidTarget("A member's path must not lead to a bundle.")
    return target


def deeper(outer: Mapping[str, Any], most: int) -> int:
    """The depth of a member's request, from the environ or scope of the request that asks for the bundle.

    :raises LoopDetected: it would stand inside of more than ``most`` bundles.
    """
    depth = int(outer.get(DEPTH, 0)) + 1
    if depth > most:
        raise LoopDetected(f"{depth} bundles, one inside of the other")
    return depth


def identity_of(host: str, root: str, target: Target) -> str:
    """The name of a member of an app among all contents (model.Facts).

    Whose credentials are used is not part of it: a strong validator is unique among all representations of a resource,
    one for each reader included (RFC 9110 section 8.8.1).
    """
    return f"app:{host.lower()}{root}{target.raw_path.decode('ascii')}?{target.query}"


def headers_of(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The headers of a WSGI request, names in lower case with hyphens."""
    return [(key[5:].replace("_", "-").lower(), value) for key, value in environ.items() if key.startswith("HTTP_")]


def headers_in(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The headers of an ASGI scope or message, as text."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]


def environ_for(
    environ: Mapping[str, Any], method: str, headers: Iterable[tuple[str, str]], *, target: Target | None = None
) -> dict[str, Any]:
    """The environ of a request that takes the place of another; ``target`` None: to the same address.

    The app stays mounted where it is and keeps its host name; of the other headers it sees only the given ones. The
    caller adds ``wsgi.input``.
    """
    inner = {k: v for k, v in environ.items() if k not in _OUTER_ONLY and (k == "HTTP_HOST" or k[:5] != "HTTP_")}
    inner.update(("HTTP_" + name.upper().replace("-", "_"), value) for name, value in headers)
    inner["REQUEST_METHOD"] = method
    if target is not None:
        inner["PATH_INFO"] = unquote_to_bytes(target.raw_path).decode("latin-1")
        inner["QUERY_STRING"] = target.query
        uri = quote(str(environ.get("SCRIPT_NAME", "")).encode("latin-1")) + target.raw_path.decode("ascii")
        for key in ("REQUEST_URI", "RAW_URI"):
            if key in inner:
                inner[key] = f"{uri}?{target.query}" if target.query else uri
    return inner


def scope_for(
    scope: MutableMapping[str, Any],
    method: str,
    headers: Iterable[tuple[str, str]],
    *,
    target: Target | None = None,
) -> dict[str, Any]:
    """The scope of a request that takes the place of another; ``target`` None: to the same address.

    The app stays mounted where it is and keeps its host name; of the other headers it sees only the given ones.
    Extensions are not offered, for what they send is not bytes.
    """
    inner = dict(scope)
    inner.pop("extensions", None)
    host = [(name, value) for name, value in scope["headers"] if name == b"host"]
    given = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    inner["method"] = method
    inner["headers"] = host + [header for header in given if header[0] != b"host"]
    if "state" in scope:
        inner["state"] = scope["state"].copy()
    if target is not None:
        root = _root(scope)
        inner["path"] = root + target.path
        inner["raw_path"] = quote(root).encode("ascii") + target.raw_path
        inner["query_string"] = target.query.encode("ascii")
    return inner


def path_in(scope: Mapping[str, Any]) -> str:
    """The path of an ASGI request, decoded, below where the app is mounted."""
    path: str = scope["path"]
    return path[len(_root(scope)) :]


def _root(scope: Mapping[str, Any]) -> str:
    """Where the app is mounted, if the scope's path begins with it: servers differ on whether it does."""
    root: str = scope.get("root_path", "").rstrip("/")
    return root if root and f"{scope['path']}/".startswith(f"{root}/") else ""
