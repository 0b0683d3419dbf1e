"""The fields of a manifest: what each may hold, whichever way it was written down.

The rule of this file: a converter takes what was read, which may be anything, and returns what the model wants, or
raises ValueError with the rest of a sentence that begins with the field's name.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any, get_args

from streamware.digests import parse_digest
from streamware.errors import EmptyBundle, InvalidManifest, InvalidName, LimitExceeded
from streamware.member_rows import OBJECT, PATH, UNTRUSTED
from streamware.model import Bundle, Compress, Data, Format, Members, Names, OnError, Path, Url
from streamware.policy import Policy
from streamware.semantics import is_entity_tag
from streamware.target import parse_href

__all__ = [
    "LINK",
    "MAX_MIRRORS",
    "MEMBER",
    "SETTINGS",
    "Convert",
    "bounded",
    "checked_href",
    "checked_name",
    "make_bundle",
    "make_member",
    "too_many_members",
    "whole",
]

Convert = Callable[[Any, Policy], object]

MAX_MIRRORS = 16  # of one member; each is asked in turn, so more would only be a longer wait
_MAX_COMMENT_BYTES = 65_535  # APPNOTE 4.4.11, 4.4.12: two bytes hold the length
_MAX_SIZE = (1 << 63) - 1
_PLAIN_HREF = re.compile(r"(?:/[0-9A-Za-z_][0-9A-Za-z_.~ -]{0,63}){1,64}\Z")  # bounded, so that it is no long href
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CRC32 = re.compile(r"[0-9A-Fa-f]{8}\Z")
_MODE = re.compile(r"0?[0-7]{1,3}\Z")
_DIGITS = re.compile(r"[0-9]{1,19}\Z")
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))\Z"
)


def bounded(body: bytes, policy: Policy) -> None:
    """Raise LimitExceeded for a manifest that is too long to be looked at."""
    if len(body) > policy.max_manifest_bytes:
        raise LimitExceeded(f"A manifest is at most {policy.max_manifest_bytes} bytes long on this server.")


def too_many_members(policy: Policy) -> LimitExceeded:
    """The error to raise where one member more would be too many."""
    return LimitExceeded(f"A bundle has at most {policy.max_members} members on this server.")


def checked_name(name: str, policy: Policy) -> str:
    """A member's name, unless it is too long. What else it must not be is for ``formats.names`` to say."""
    # PERF: no character takes more than 4 bytes, so that most names need no encoding to be measured.
    if len(name) * 4 > policy.max_name_bytes and len(name.encode("utf-8", "replace")) > policy.max_name_bytes:
        raise InvalidName(f"A name is longer than {policy.max_name_bytes} bytes.", member=name[:64])
    return name


def checked_href(href: str) -> str:
    """The href itself, if it can be asked for; raises InvalidTarget."""
    if not _PLAIN_HREF.match(href):  # PERF: what this lets through is in order without a closer look
        parse_href(href)
    return href


def whole(digits: str) -> int:
    """A size in bytes, written in ASCII digits."""
    digits = digits.lstrip("0") or "0"
    if len(digits) > 19:  # int() of a long text is slow, and of a very long one an error
        raise ValueError(f"must be a whole number from 0 to {_MAX_SIZE}")
    return _size(int(digits), None)


def make_bundle(settings: Mapping[str, Any], names: Names, members: Members) -> Bundle:
    """The bundle, from converted settings, of which any may be missing or None, and its members."""
    if not members:
        raise EmptyBundle()
    bundle = Bundle(**{key: value for key, value in settings.items() if value is not None}, names=names)
    bundle.members = members
    return bundle


def make_member(values: Mapping[str, Any], members: Members) -> None:
    """Append a member to ``members``, from converted fields, of which any may be missing or None.

    :raises InvalidManifest: the name is missing, or the fields do not say which content is meant, or contradict it.
    """
    get = values.get
    name, path, url, text, mirrors = get("name"), get("path"), get("url"), get("text"), get("mirrors")
    if name is None:
        raise InvalidManifest('A member needs "name".')
    if mirrors and url is None:
        raise InvalidManifest('"mirrors" is only for a member with "url".', member=name)
    passthrough = bool(get("passthrough"))
    if passthrough and url is None:
        raise InvalidManifest('"passthrough" is only for a member with "url".', member=name)
    given = (path is not None) + (url is not None) + (text is not None)
    comment, may_exceed_4gib = get("comment") or "", bool(get("may_exceed_4gib"))
    if name.endswith("/"):
        if given:
            raise InvalidManifest('A name that ends in "/" is a directory and has no content.', member=name)
        members.note(name, OBJECT, None, modified=get("modified"), mode=get("mode"), comment=comment)
        return
    if given != 1:
        raise InvalidManifest('A member needs exactly one of "path", "url" and "text".', member=name)
    if text is not None:
        _check_promises(text.data, values, name)
    kind: int
    stored: object
    if url is not None:
        kind, stored = (OBJECT, Url(url, mirrors)) if mirrors else (UNTRUSTED, url)
    else:
        kind, stored = (OBJECT, text) if path is None else (PATH, path.href)
    promises = get("size"), get("crc32"), get("etag"), get("modified"), get("mode")
    members.note(name, kind, stored, *promises, comment, may_exceed_4gib, get("digest"), passthrough)


def _check_promises(data: bytes, values: Mapping[str, Any], name: str) -> None:
    """What a manifest says of a text it holds itself can be checked at once, and is the sender's own mistake."""
    size, crc32 = values.get("size"), values.get("crc32")
    if size is not None and size != len(data):
        raise InvalidManifest(f'"size" is not that of "text", which is {len(data)} bytes of UTF-8.', member=name)
    if crc32 is not None and crc32 != zlib.crc32(data):
        raise InvalidManifest('"crc32" is not that of "text" in UTF-8.', member=name)
    if values.get("digest") not in (None, sha256(data).digest()):
        raise InvalidManifest('"digest" is not that of "text" in UTF-8.', member=name)
    if values.get("etag") is not None:
        raise InvalidManifest('"etag" is not for a member with "text".', member=name)


# --- converters ----------------------------------------------------------------------------------------------------


def _text(value: Any, policy: Policy | None = None) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    if not value.isascii() and _SURROGATE.search(value):
        raise ValueError("holds half of a surrogate pair")
    return value


def _name(value: Any, policy: Policy) -> str:
    return checked_name(_text(value), policy)


def _path(value: Any, policy: Policy) -> Path:
    return Path(checked_href(_text(value)))


def _data(value: Any, policy: Policy) -> Data:
    return Data(_text(value).encode())


def _mirrors(value: Any, policy: Policy) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list of URLs")
    if len(value) > MAX_MIRRORS:
        raise ValueError(f"has more than {MAX_MIRRORS} entries")
    return tuple(_text(url) for url in value)


def _size(value: Any, policy: Policy | None) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_SIZE:  # a bool is an int, too, and no size
        raise ValueError(f"must be a whole number from 0 to {_MAX_SIZE}")
    return value


def _flag(value: Any, policy: Policy) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _crc32(value: Any, policy: Policy) -> int:
    if not isinstance(value, str) or not _CRC32.match(value):
        raise ValueError("must be a text of 8 hexadecimal digits")
    return int(value, 16)


def _digest(value: Any, policy: Policy) -> bytes:
    return parse_digest(value if isinstance(value, str) else "")


def _etag(value: Any, policy: Policy) -> str:
    if not isinstance(value, str) or not is_entity_tag(value):
        raise ValueError("must be an entity-tag with its quotes (RFC 9110 section 8.8.3)")
    return value


def _mode(value: Any, policy: Policy) -> int:
    if not isinstance(value, str) or not _MODE.match(value):
        raise ValueError('must be a text of octal permission bits such as "0644"')
    return int(value, 8)


def _modified(value: Any, policy: Policy) -> int:
    """Unix seconds of an RFC 3339 time; fractions are floored."""
    match = _RFC3339.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be an RFC 3339 time with a zone, such as "2024-02-29T12:30:00Z"')
    year, month, day, hour, minute, second, sign, hours, minutes = match.groups()
    try:
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), tzinfo=timezone.utc)
    except ValueError as error:
        raise ValueError("is no date and time that exists") from error
    if second > "60":  # 60 is a leap second, which datetime does not know
        raise ValueError("is no date and time that exists")
    local = int(moment.timestamp()) + int(second)
    if sign is None:
        return local
    offset = int(hours) * 3600 + int(minutes) * 60
    return local - offset if sign == "+" else local + offset


def _lasting(value: Any, policy: Policy) -> int:
    """Seconds; a form has its numbers in digits."""
    seconds = whole(value) if isinstance(value, str) and _DIGITS.match(value) else value
    if type(seconds) is not int or not 1 <= seconds <= policy.link_max_seconds:
        raise ValueError(f"must be a whole number of seconds from 1 to {policy.link_max_seconds}")
    return seconds


def _comment(value: Any, policy: Policy) -> str:
    text = _text(value)
    if len(text.encode()) > _MAX_COMMENT_BYTES:
        raise ValueError(f"is longer than {_MAX_COMMENT_BYTES} bytes")
    return text


def _bundle_name(value: Any, policy: Policy) -> str:
    name = _text(value)
    if _CONTROL.search(name):
        raise ValueError("must not hold control characters")
    if len(name.encode()) > policy.max_name_bytes:
        raise ValueError(f"is longer than {policy.max_name_bytes} bytes")
    return name


def _one_of(choices: tuple[str, ...]) -> Convert:
    def convert(value: Any, policy: Policy) -> object:
        if value not in choices:
            raise ValueError("must be one of " + ", ".join(choices))
        return value

    return convert


SETTINGS: Mapping[str, Convert] = {
    "name": _bundle_name,
    "format": _one_of(get_args(Format)),
    "compress": _one_of(get_args(Compress)),
    "comment": _comment,
    "on_error": _one_of(get_args(OnError)),
}
LINK: Mapping[str, Convert] = {**SETTINGS, "expires_in": _lasting}
MEMBER: Mapping[str, Convert] = {
    "name": _name,
    "path": _path,
    "url": _text,
    "text": _data,
    "mirrors": _mirrors,
    "size": _size,
    "crc32": _crc32,
    "digest": _digest,
    "etag": _etag,
    "modified": _modified,
    "mode": _mode,
    "comment": _comment,
    "may_exceed_4gib": _flag,
    "passthrough": _flag,
}
