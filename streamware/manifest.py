"""Manifests: what a client or an app wrote down, read into a bundle. JSON, form fields, and mod_zip's lines.

The rule of this file: nothing is believed before it is checked, a limit is checked before what it limits is built, and
whatever the bytes are, only a RequestError comes out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qsl, quote

from streamware.errors import InvalidManifest, LimitExceeded, StreamwareError
from streamware.manifest_fields import (
    LINK,
    SETTINGS,
    Convert,
    bounded,
    checked_href,
    checked_name,
    make_bundle,
    make_member,
    too_many_members,
    whole,
)
from streamware.manifest_json import ManifestReader
from streamware.member_rows import PATH
from streamware.model import Bundle, Data, Format, Member, Members, Names, Path, Url
from streamware.policy import Policy
from streamware.target import name_of

__all__ = ["form_fields", "from_form", "from_json", "from_list", "parse", "parse_link", "to_json"]

_MAX_FIELDS_BESIDE = 64  # form fields that are no paths
_CHARSET = re.compile(r";[ \t]*charset=\"?([^\s;\"]+)", re.IGNORECASE)


def parse(body: bytes, content_type: str | None, policy: Policy) -> Bundle:
    """Read the body of a POST: JSON, or an urlencoded form.

    :raises InvalidManifest: another Content-Type, or any as ``from_json`` and ``from_form`` raise.
    """
    return make_bundle(*_parse(body, content_type, policy, SETTINGS))


def parse_link(body: bytes, content_type: str | None, query: bytes, policy: Policy) -> tuple[Bundle, int | None]:
    """Read the body of a POST that asks for a link, and ``expires_in``, which may stand in the query as well.

    :return: the bundle, and how many seconds its link is to last; None where that is not said.
    :raises RequestError: as for ``parse``.
    """
    settings, names, members = _parse(body, content_type, policy, LINK)
    asked = [field for field in form_fields(query, policy) if field[0] == "expires_in"]
    beside, _ = _form(asked, policy, LINK)
    if "expires_in" in beside and settings.get("expires_in") is not None:
        raise InvalidManifest('"expires_in" is given twice.')
    seconds = {**settings, **beside}.get("expires_in")
    settings.pop("expires_in", None)
    return make_bundle(settings, names, members), seconds


def _parse(
    body: bytes, content_type: str | None, policy: Policy, known: Mapping[str, Convert]
) -> tuple[dict[str, Any], Names, Members]:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    charset = _CHARSET.search(content_type or "")
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise InvalidManifest("A manifest is written in UTF-8; its Content-Type names another charset.")
    if media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json")):
        settings, members = _json(body, policy, known)
        return settings, policy.names, members
    if media_type != "application/x-www-form-urlencoded":
        raise InvalidManifest("A manifest is sent as application/json or application/x-www-form-urlencoded.")
    fields = form_fields(body, policy)
    if body.lstrip()[:1] == b"{" and not any(key == "path" for key, _ in fields):
        raise InvalidManifest("This looks like JSON; send it with Content-Type: application/json.")
    settings, members = _form(fields, policy, known)
    return settings, "clean", members


# --- forms and queries ---------------------------------------------------------------------------------------------


def form_fields(encoded: bytes, policy: Policy) -> list[tuple[str, str]]:
    """The fields of an urlencoded form or of a raw query string, in order; ``+`` is a space.

    :raises LimitExceeded: too many bytes or fields.
    :raises InvalidManifest: not UTF-8.
    """
    bounded(encoded, policy)
    if encoded.count(b"&") >= policy.max_members + _MAX_FIELDS_BESIDE:
        raise LimitExceeded(f"More fields than {policy.max_members} members can need.")
    try:
        return parse_qsl(encoded.decode(), keep_blank_values=True, encoding="utf-8", errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidManifest("A form is written in UTF-8.") from error


def from_form(fields: Sequence[tuple[str, str]], policy: Policy) -> Bundle:
    """A bundle of the wrapped app's own paths: ``path`` once for each member, and ``name``, ``format``, ``compress``,
    ``comment`` and ``on_error`` at most once.

    An empty field counts as not given. Unknown fields are ignored: links are passed on with tracking parameters added.

    :raises RequestError: InvalidManifest, InvalidTarget, InvalidName, EmptyBundle or LimitExceeded.
    """
    settings, members = _form(fields, policy, SETTINGS)
    return make_bundle(settings, "clean", members)


def _form(
    fields: Sequence[tuple[str, str]], policy: Policy, known: Mapping[str, Convert]
) -> tuple[dict[str, Any], Members]:
    settings: dict[str, Any] = {}
    members = Members()
    for key, value in fields:
        if key == "path":
            index = len(members)
            if index >= policy.max_members:
                raise too_many_members(policy)
            try:
                name = checked_name(name_of(value), policy)
            except StreamwareError as error:
                error.index = index
                raise
            members.note(name, PATH, value)
        elif key in known and value:
            if key in settings:
                raise InvalidManifest(f'"{key}" is given twice.')
            try:
                settings[key] = known[key](value, policy)
            except ValueError as error:
                raise InvalidManifest(f'"{key}" {error}.') from error
    return settings, members


# --- mod_zip's lines -----------------------------------------------------------------------------------------------

_LINES = re.compile(rb"[^\r\n]+")
_LINE = re.compile(rb"(-|[0-9A-Fa-f]+) +([0-9]+) +([^ ?][^ ]*) +([^ \x00][^\x00]*)\Z")
_NO_CHARSET = re.compile(r"^native|escape|idna|puny|undefined|^utf.?7")  # Python's codecs that are no charsets
_HREF_SAFE = "/?%:@!$&'()*+,;=-._~[]|^{}\"<>`"  # not "#" and "\": bytes like others in a list, but not in an href


def from_list(
    body: bytes, policy: Policy, *, format: Format, charset: str | None = None, name_sep: str | None = None
) -> Bundle:
    """A bundle from a file list as nginx's mod_zip reads it: lines of ``crc size location name``.

    The archive's names are always UTF-8. A name is read as UTF-8 where it is, else in ``charset`` (unless that is
    ``utf8`` or ``native``), else as code page 437, which is what a ZIP name without the UTF-8 flag means. With
    ``name_sep`` a name is ``native SEP utf8``, split at the last SEP, and the UTF-8 half is taken.

    :param charset: the value of X-Archive-Charset.
    :param name_sep: the value of X-Archive-Name-Sep.
    :raises RequestError: InvalidManifest, InvalidTarget, InvalidName, EmptyBundle or LimitExceeded.
    """
    bounded(body, policy)
    separator = _header_bytes(name_sep or "")
    members = Members()
    for number, line in enumerate(_LINES.finditer(body), 1):
        index = len(members)
        if index >= policy.max_members:
            raise too_many_members(policy)
        match = _LINE.match(line[0])
        if match is None:
            raise InvalidManifest(f"Line {number} of the file list is not: crc size location name.", index=index)
        crc, size, location, raw_name = match.groups()
        if separator:
            raw_name = raw_name.rpartition(separator)[2]
        try:
            name = checked_name(_decoded(raw_name, charset), policy)
            if location == b"@directory":
                make_member({"name": name.rstrip("/") + "/"}, members)
            else:
                promised = {"size": whole(size.decode()), "crc32": _listed_crc32(crc)}
                make_member({"name": name, **_located(location), **promised}, members)
        except ValueError as error:
            raise InvalidManifest(f"Line {number} of the file list: a number {error}.", index=index) from error
        except StreamwareError as error:
            error.index = index
            raise
    return make_bundle({"name": f"bundle.{format}", "format": format}, policy.names, members)


def _located(location: bytes) -> dict[str, str | Path]:
    if location[:8].lower().startswith((b"http://", b"https://")):
        return {"url": location.decode("ascii", "replace")}
    prefix = "/" if location.startswith(b"@") else ""  # an nginx location may begin so, a path may not
    return {"path": Path(checked_href(prefix + quote(location, safe=_HREF_SAFE)))}


def _listed_crc32(text: bytes) -> int | None:
    if text == b"-":
        return None
    if len(text) > 8:
        raise ValueError("must be a CRC-32 of at most 8 hexadecimal digits")
    return int(text, 16)


def _decoded(name: bytes, charset: str | None) -> str:
    for encoding in ("utf-8", (charset or "").strip().lower()):
        if encoding and not _NO_CHARSET.search(encoding):
            try:
                return name.decode(encoding)
            except (LookupError, ValueError):  # an unknown charset, or bytes that are not in it
                continue
    return name.decode("cp437")


def _header_bytes(value: str) -> bytes:
    """A header's value as it stood on the wire: hosts hand it over as latin-1."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")


# --- JSON ----------------------------------------------------------------------------------------------------------


def from_json(body: bytes, policy: Policy) -> Bundle:
    """A bundle from a JSON manifest. Strict: what is not known is refused, not passed over.

    An optional field that is null counts as not given. Errors carry an RFC 6901 pointer, and inside a member its index.

    :raises RequestError: InvalidManifest, InvalidTarget, InvalidName, EmptyBundle or LimitExceeded.
    """
    settings, members = _json(body, policy, SETTINGS)
    return make_bundle(settings, policy.names, members)


def _json(body: bytes, policy: Policy, known: Mapping[str, Convert]) -> tuple[dict[str, Any], Members]:
    bounded(body, policy)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidManifest(f"A manifest is written in UTF-8; byte {error.start} is not.", pointer="") from error
    return ManifestReader(text, policy, known).read()


def to_json(bundle: Bundle) -> bytes:
    """The manifest that ``from_json`` reads as this bundle, but for ``names``.

    :raises InvalidManifest: the bundle holds what a manifest cannot say: content or settings that only code can give,
        or a time outside the years 1 to 9999.
    """
    if bundle.duplicates != "rename" or not bundle.timestamps:
        raise InvalidManifest("A manifest can say nothing of duplicates and timestamps.")
    settings = ("name", "format", "compress", "comment", "on_error")
    document = {key: value for key in settings if (value := getattr(bundle, key)) is not None}
    members = []
    for index, member in enumerate(bundle.members):
        try:
            members.append(_written(member))
        except (ValueError, OverflowError) as error:
            raise InvalidManifest("A member's time is outside the years 1 to 9999.", index=index) from error
        except InvalidManifest as error:
            error.member, error.index = member.name, index
            raise
    document["members"] = members
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise InvalidManifest("A text holds half of a surrogate pair.") from error


def _written(member: Member) -> dict[str, Any]:
    content = member.content
    fields: dict[str, Any] = {"name": member.name if content is not None else f"{member.name.rstrip('/')}/"}
    if isinstance(content, Url) and not content.trusted and not content.headers:
        fields |= {"url": content.url, "mirrors": list(content.mirrors) or None}
    elif isinstance(content, Path):
        fields["path"] = content.href
    elif isinstance(content, Data):
        fields["text"] = _as_text(content.data)
    elif isinstance(content, Url) and content.made:
        raise InvalidManifest("A manifest cannot say what URL a function will make.")
    elif content is not None:
        raise InvalidManifest(f"A manifest cannot describe this content: {type(content).__name__}.")
    if isinstance(content, Url | Path):  # of anything else it is plain
        crc32 = None if member.crc32 is None else f"{member.crc32:08x}"
        digest = None if member.digest is None else member.digest.hex()
        fields |= {"size": member.size, "crc32": crc32, "etag": member.etag, "digest": digest}
        fields["may_exceed_4gib"] = member.may_exceed_4gib or None
        fields["passthrough"] = (member.passthrough and isinstance(content, Url)) or None
    if member.modified is not None:
        moment = datetime.fromtimestamp(member.modified, timezone.utc)
        fields["modified"] = f"{moment.replace(tzinfo=None).isoformat()}Z"
    if member.mode is not None:
        fields["mode"] = f"{member.mode & 0o777:o}"
    fields["comment"] = member.comment or None
    return {key: value for key, value in fields.items() if value is not None}


def _as_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidManifest("A manifest's text is UTF-8, and a member's data is not.") from error
