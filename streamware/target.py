"""What a sub-request into the wrapped app asks for, and what it takes along from the request around it.

The rule of this file: a path is read once, here; what two readers would read differently is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote

from streamware.errors import InvalidTarget

__all__ = ["Target", "carried", "name_of", "parse_href", "stands_under", "without_conditions"]

_MAX_HREF = 8192  # characters; servers take no longer request line
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PATH_SAFE = "/%:@!$&'()*+,;=-._~"  # RFC 3986 section 3.3, pchar; "%" because what is encoded stays so


class Target(NamedTuple):
    """Where a sub-request goes.

    ``path`` is percent-decoded UTF-8 text, as ASGI has it (bytes that are no UTF-8 show as U+FFFD); ``raw_path`` is the
    same in ASCII, still encoded, and WSGI's PATH_INFO is ``unquote_to_bytes(raw_path).decode("latin-1")``. ``query`` is
    ASCII, still encoded, without ``?``.
    """

    path: str
    raw_path: bytes
    query: str


def parse_href(href: str) -> Target:
    """Read what would stand in an href of the app's own pages: a path from the root, a query after ``?``.

    Percent-encoding counts; raw spaces and other Unicode are taken as they are, a ``%`` that encodes nothing as itself.
    A fragment is dropped. Dot segments are resolved and never lead above the root (RFC 3986 section 5.2.4).

    :raises InvalidTarget: a scheme or a host, no leading ``/``, a backslash, a control character (encoded ones in the
        path too), a dot segment that comes out only after decoding ``%2F``, a lone surrogate, too great a length.
    """
    if len(href) > _MAX_HREF:
        raise InvalidTarget(f"A path is longer than {_MAX_HREF} characters.")
    if _CONTROL.search(href):
        raise InvalidTarget("A path must not hold control characters.")
    if "\\" in href:
        raise InvalidTarget("A path must not hold a backslash; write it %5C if it is meant.")
    if not href.startswith("/") or href.startswith("//"):
        raise InvalidTarget('A path must begin with one "/": no scheme, no host, and not relative.')
    raw, _, query = href.partition("#")[0].partition("?")
    try:
        raw, query = _encoded(raw, ""), _encoded(query, "?")
    except UnicodeEncodeError as error:
        raise InvalidTarget("A path must be valid Unicode.") from error
    raw = _without_dots(raw)
    path = unquote(raw)
    if path.startswith("//"):
        raise InvalidTarget('A path must begin with one "/".')
    if "%" in raw:
        if _CONTROL.search(path):
            raise InvalidTarget("A path must not hold control characters.")
        if not {".", ".."}.isdisjoint(path.split("/")):
            raise InvalidTarget("A path must not hide dot segments behind %2F.")
    return Target(path, raw.encode("ascii"), query)


def name_of(href: str) -> str:
    """The name a member gets from its href: the decoded path without ``/`` at either end; ``index`` for the root.

    Not cleaned yet. Raises InvalidTarget as ``parse_href`` does.
    """
    return "/".join(part for part in parse_href(href).path.split("/") if part) or "index"


def stands_under(path: str, bundle_path: str) -> bool:
    """Whether a path, without query, is the bundle's own or below it, in whatever spelling.

    A guard against bundles of bundles, so it is wide: it looks at the path as given, decoded once, and decoded twice,
    each with dots resolved, doubled slashes made one, and backslashes read as slashes. Case counts.
    """
    guarded = _canonical(bundle_path)
    for _ in range(3):
        if (_canonical(path) + "/").startswith(guarded + "/"):
            return True
        path = unquote(path)
    return False


def _encoded(text: str, also_safe: str) -> str:
    return quote(_STRAY_PERCENT.sub("%25", text), safe=_PATH_SAFE + also_safe)


def _without_dots(raw: str) -> str:
    if "/." not in raw and "%" not in raw:
        return raw
    kept: list[str] = []
    plain = ""
    for segment in raw[1:].split("/"):
        plain = unquote(segment)
        if plain == "..":
            del kept[-1:]
        elif plain != ".":
            kept.append(segment)
    if plain in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _canonical(path: str) -> str:
    kept: list[str] = []
    for segment in path.replace("\\", "/").split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "".join(f"/{segment}" for segment in kept)


# --- headers -------------------------------------------------------------------------------------------------------

# Who asks, and what an app may need to know to answer him as it always does.
_CONTEXT = frozenset(
    {
        "accept-language",
        "authorization",
        "baggage",
        "cookie",
        "forwarded",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-correlation-id",
        "x-real-ip",
        "x-request-id",
    }
)
# What belongs to one connection (RFC 9110 section 7.6.1) or to the outer message alone.
_NEVER = frozenset(
    {
        "accept-encoding",
        "connection",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NEVER_PREFIXES = ("content-", "if-")


def carried(headers: Iterable[tuple[str, str]], only: frozenset[str] | None) -> list[tuple[str, str]]:
    """The request headers that a sub-request takes from the outer request; names in any case, repeats kept.

    :param only: names to take, and no others; None takes credentials and harmless context. Either way nothing passes
        that frames a message, asks for a part of it, or names a condition.
    """
    wanted = None if only is None else {name.lower() for name in only}
    taken = []
    for name, value in headers:
        key = name.lower()
        if key in _NEVER or key.startswith(_NEVER_PREFIXES):
            continue
        if (key in _CONTEXT or key.startswith("x-forwarded-")) if wanted is None else key in wanted:
            taken.append((name, value))
    return taken


def without_conditions(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The outer request's headers for asking the same path once more with a plain GET for the whole, uncoded body."""
    dropped = ("accept-encoding", "expect", "range", "transfer-encoding")
    return [(n, v) for n, v in headers if n.lower() not in dropped and not n.lower().startswith(_NEVER_PREFIXES)]
