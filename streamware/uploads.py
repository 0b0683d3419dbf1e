"""What the headers of an upload say: its name, type and length, its digests, and all that tus adds.

The rule of this file: pure, strict, and linear in what came. A number is ASCII digits and nothing besides; what a
client relies upon and cannot be read is refused, never guessed; a name is data, made harmless here once.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from streamware.file_request import FileRequest
from streamware.semantics import parse_length, shortened
from streamware.stored import is_file_id
from streamware.upload_errors import LengthRequired, UnsupportedUpload, UploadInvalid, UploadVersion

__all__ = [
    "ANY_TYPE",
    "CHECKSUMS",
    "TUS_TYPE",
    "TUS_VERSION",
    "Checksum",
    "Concat",
    "announced_checksum",
    "announced_concat",
    "announced_digests",
    "announced_metadata",
    "announced_type",
    "body_length",
    "boundary_of",
    "check_version",
    "clean_name",
    "essence",
    "metadata_name",
    "metadata_type",
    "number",
    "refuse_coded",
    "upload_name",
]

ANY_TYPE = "application/octet-stream"
TUS_TYPE = "application/offset+octet-stream"
TUS_VERSION = "1.0.0"
# What tus calls them, and hashlib; CRC-32 is ours to compute.
CHECKSUMS = {"sha1": "sha1", "sha256": "sha256", "crc32": "crc32"}

_DEFAULT_NAME = "upload"
_MAX_FIELD = 32 * 1024  # characters of a header that names a file; hosts take 8 to 64 KiB for all headers together
_MAX_METADATA = 8 * 1024  # characters; it is kept with the upload, and sent with every HEAD
_MAX_JOINED = 1000  # partial uploads in one file
_MAX_TYPE = 255  # characters of a media type; RFC 6838 section 4.2 allows its two halves 127 each

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
_QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'  # section 5.6.4
# What follows is looked at by the next match, or is the end: a look ahead here could cost time quadratic in blanks.
_PARAMETER = re.compile(rf"[ \t]*;[ \t]*(?:({_TOKEN})[ \t]*=[ \t]*({_TOKEN}|{_QUOTED}))?")
_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})")
_DISPOSITION = re.compile(rf"[ \t]*{_TOKEN}(?=[ \t]*(?:;|\Z))")
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[A-Za-z0-9-]*'((?:%[0-9A-Fa-f]{2}|[!#$&+.^_`|~0-9A-Za-z-])*)\Z", re.I)
_QUOTED_PAIR = re.compile(r"\\(.)")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2}|[^%])*\Z")
# Controls, line and paragraph separators, marks that turn the direction of writing around, and lone surrogates.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")
_BASE64 = re.compile(r"(?:[0-9A-Za-z+/]{4})*(?:[0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=)?\Z")
_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]+\Z")  # of Upload-Metadata: ASCII without space and comma
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]\Z")  # RFC 2046 section 5.1.1
# A member of a dictionary (RFC 9651 section 3.2) with a byte sequence, or with anything else that holds no comma.
_DIGEST = re.compile(r"([a-z*][a-z0-9_.*-]*)(?:=(?::([0-9A-Za-z+/=]*):|[^,;]*))?[ \t]*(?:;[^,]*)?\Z")
# RFC 9530 section 7.2: what it calls the algorithms that hashlib computes, what hashlib does, and their bytes.
_DIGESTS = {"sha-256": ("sha256", 32), "sha-512": ("sha512", 64), "sha": ("sha1", 20), "md5": ("md5", 16)}


# --- the body ------------------------------------------------------------------------------------------------------


def body_length(request: FileRequest, *, wanted: bool = True) -> int | None:
    """How many bytes of body the request promises; None where only its end tells (RFC 9112 section 6.3).

    :param wanted: whether the body is to be read at all.
    :raises UploadInvalid: two lengths, a length besides a transfer coding, one that is no plain number, or a coding
        other than chunked: servers and proxies read these differently, and what one takes for the body's end another
        takes for the next request.
    :raises LengthRequired: there is no length, and nobody here could tell the body's end.
    """
    length, coding = request.header("content-length"), request.header("transfer-encoding")
    if coding is not None and (length is not None or coding.strip(" \t").lower() != "chunked"):
        raise UploadInvalid("A body has either a Content-Length or the transfer coding chunked.")
    if length is None:
        if wanted and request.untold is not None:
            raise LengthRequired(request.untold)
        return None
    if "content-length" in request.repeated:
        raise UploadInvalid("Content-Length came more than once.")
    return number("Content-Length", length)


def number(name: str, value: str) -> int:
    """The bytes that a header tells.

    :raises UploadInvalid: it is no plain number below 2**63.
    """
    told = parse_length(value)
    if told is None:
        raise UploadInvalid(f"{name} must be a plain number of bytes.")
    return told


def refuse_coded(request: FileRequest) -> None:
    """Refuse a body that is not the file itself.

    :raises UnsupportedUpload: it has a content coding: it would be stored coded and sent as if it were not.
    :raises UploadInvalid: it is a part of a file (RFC 9110 section 14.5).
    """
    coding = request.header("content-encoding")
    if coding is not None and coding.strip(" \t").lower() not in ("", "identity"):
        raise UnsupportedUpload("Content-Encoding: files are taken as they are, without any coding.")
    if request.header("content-range") is not None:
        raise UploadInvalid("Content-Range: a part of a file is sent by tus.")


def announced_digests(request: FileRequest, *fields: str) -> dict[str, bytes]:
    """The digests that Repr-Digest or Content-Digest announce of a body without coding, by hashlib's names.

    Algorithms that are not known here are passed over (RFC 9530 section 2).

    :param fields: the fields to look at, in lower case.
    :raises UploadInvalid: a digest of an algorithm that is known cannot be read, or two contradict each other.
    """
    found: dict[str, bytes] = {}
    for field in fields:
        for member in filter(None, (m.strip(" \t") for m in (request.header(field) or "").split(","))):
            match = _DIGEST.match(member)
            if match is None:
                raise UploadInvalid(f"{field} is no dictionary of digests.")
            if match[1] not in _DIGESTS:
                continue
            name, size = _DIGESTS[match[1]]
            digest = _base64(match[2])
            if digest is None or len(digest) != size or found.setdefault(name, digest) != digest:
                raise UploadInvalid(f"{field}: the {match[1]} digest cannot be read.")
    return found


# --- types ---------------------------------------------------------------------------------------------------------


def essence(value: str | None) -> str:
    """A media type without its parameters, in lower case; "" where there is none."""
    return (value or "").partition(";")[0].strip(" \t").lower()


def announced_type(value: str | None) -> str:
    """The media type to keep: what was sent if that is one (RFC 9110 section 8.3.1), else application/octet-stream."""
    text = (value or "").strip(" \t")
    match = _TYPE.match(text)
    if match is None or len(text) > _MAX_TYPE or not text.isascii() or _parameters(text, match.end()) is None:
        return ANY_TYPE
    # curl says so of whatever it posts, and no file is one.
    if match[1].lower() == "application/x-www-form-urlencoded":
        return ANY_TYPE
    return match[1].lower() + text[match.end() :]


def boundary_of(content_type: str) -> str:
    """The boundary of a multipart body.

    :raises UploadInvalid: there is none, or it is not valid.
    """
    match = _TYPE.match(content_type.strip(" \t"))
    found = None if match is None else _parameters(content_type.strip(" \t"), match.end())
    boundary = (found or {}).get("boundary", "")
    if not _BOUNDARY.match(boundary):
        raise UploadInvalid("Content-Type: multipart/form-data needs a valid boundary.")
    return boundary


def _parameters(text: str, position: int) -> dict[str, str] | None:
    """Parameters from there on, by lower-case name, the first of each, unquoted; None if the rest is anything else."""
    found: dict[str, str] = {}
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            return None if text[position:].strip(" \t") else found
        if match[1] is not None:
            value = match[2]
            found.setdefault(match[1].lower(), _QUOTED_PAIR.sub(r"\1", value[1:-1]) if value[0] == '"' else value)
        position = match.end()
    return found


# --- names ---------------------------------------------------------------------------------------------------------


def upload_name(request: FileRequest, max_bytes: int) -> str:
    """The name of a file that is sent as a raw body: of Content-Disposition ``filename*``, then ``filename`` (RFC 6266
    section 4.3), then ``X-Filename``, percent-encoded UTF-8; else "upload".

    :raises UploadInvalid: such a header is longer than any name.
    """
    disposition, plain = request.header("content-disposition"), request.header("x-filename")
    for value in (disposition, plain):
        if value is not None and len(value) > _MAX_FIELD:
            raise UploadInvalid(f"A header that names a file has more than {_MAX_FIELD} characters.")
    name = None if disposition is None else _disposition_name(disposition)
    if name is None and plain is not None and _PERCENT.match(plain):
        name = _decoded(unquote_to_bytes(plain.encode("latin-1", "replace")))
    return clean_name(name or "", max_bytes)


def _disposition_name(field: str) -> str | None:
    """The name in a Content-Disposition (RFC 6266 section 4.1); None where there is none that can be read."""
    match = _DISPOSITION.match(field)
    found = None if match is None else _parameters(field, match.end())
    if found is None:
        return None
    extended = _EXTENDED.match(found.get("filename*", ""))
    if extended is not None:  # RFC 8187 section 3.2
        try:
            return unquote_to_bytes(extended[2]).decode(extended[1])
        except UnicodeDecodeError:
            pass  # section 3.2.1: what cannot be decoded is as good as not there
    plain = found.get("filename")
    return None if plain is None else _decoded(plain.encode("latin-1", "replace"))


def _decoded(name: bytes) -> str:
    """Bytes as UTF-8, which most clients send, or else as the ISO-8859-1 that HTTP once knew."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def clean_name(text: str, max_bytes: int) -> str:
    """Any text as the name of a file: its last part, without control characters, of at most ``max_bytes`` of UTF-8.

    What is left of nothing, or of dots alone, is "upload".
    """
    name = _CONTROL.sub("_", re.split(r"[/\\]", text)[-1])
    name = shortened(name.strip(), max_bytes).strip()
    return name if name.strip(" .") else _DEFAULT_NAME


# --- tus 1.0.0 -----------------------------------------------------------------------------------------------------


class Checksum(NamedTuple):
    """An Upload-Checksum: ``algorithm`` is a key of CHECKSUMS."""

    algorithm: str
    digest: bytes


class Concat(NamedTuple):
    """An Upload-Concat; ``ids`` are those of the uploads that a final one is made of, in order."""

    kind: Literal["partial", "final"]
    ids: tuple[str, ...] = ()


_SIZES = {"sha1": 20, "sha256": 32, "crc32": 4}


def check_version(request: FileRequest) -> None:
    """Raise UploadVersion unless the request speaks the version of tus that is spoken here."""
    if request.header("tus-resumable") != TUS_VERSION:
        raise UploadVersion(headers=(("Tus-Version", TUS_VERSION),))


def announced_checksum(value: str | None) -> Checksum | None:
    """What an Upload-Checksum says; None: it did not come.

    :raises UploadInvalid: it is none, or of an algorithm that is not offered (tus: 400).
    """
    if value is None:
        return None
    algorithm, _, text = value.partition(" ")
    digest = _base64(text)
    if algorithm not in CHECKSUMS:
        raise UploadInvalid(f"Upload-Checksum: the algorithm must be one of {', '.join(CHECKSUMS)}.")
    if digest is None or len(digest) != _SIZES[algorithm]:
        raise UploadInvalid(f"Upload-Checksum: this is no {algorithm} in Base64.")
    return Checksum(algorithm, digest)


def announced_metadata(value: str | None) -> dict[str, bytes]:
    """The pairs of an Upload-Metadata; empty where it did not come.

    :raises UploadInvalid: it is too long, a key is empty or comes twice, or a value is no Base64.
    """
    found: dict[str, bytes] = {}
    if not value:
        return found
    if len(value) > _MAX_METADATA:
        raise UploadInvalid(f"Upload-Metadata has more than {_MAX_METADATA} characters.")
    for pair in value.split(","):
        key, _, text = pair.strip(" ").partition(" ")
        content = _base64(text)
        if not _KEY.match(key) or key in found or content is None:
            raise UploadInvalid("Upload-Metadata must be pairs of a key and a value in Base64, each key once.")
        found[key] = content
    return found


def metadata_name(metadata: Mapping[str, bytes], max_bytes: int) -> str:
    """The name that Upload-Metadata gives the file."""
    name = metadata.get("filename") or metadata.get("name") or b""
    return clean_name(name.decode("utf-8", "replace"), max_bytes)


def metadata_type(metadata: Mapping[str, bytes]) -> str:
    """The media type that Upload-Metadata gives the file."""
    return announced_type((metadata.get("filetype") or metadata.get("type") or b"").decode("latin-1"))


def announced_concat(value: str | None) -> Concat | None:
    """What an Upload-Concat says; None: it did not come.

    Of the URLs of partial uploads their last part alone counts, the id: it tells them from all others, whatever a proxy
    makes of hosts and paths.

    :raises UploadInvalid: it is neither ``partial`` nor ``final`` with URLs of uploads, each once.
    """
    if value is None:
        return None
    if value == "partial":
        return Concat("partial")
    kind, semicolon, listed = value.partition(";")
    ids = tuple(url.rpartition("/")[2] for url in listed.split(" ") if url)
    if (
        kind != "final"
        or not semicolon
        or "," in listed
        or not ids
        or len(ids) > _MAX_JOINED
        or len(set(ids)) != len(ids)
    ):
        raise UploadInvalid(f"Upload-Concat: partial, or final; and the URLs of at most {_MAX_JOINED} uploads.")
    if not all(map(is_file_id, ids)):
        raise UploadInvalid("Upload-Concat names something that is no upload.")
    return Concat("final", ids)


def _base64(text: str | None) -> bytes | None:
    """Base64 with its padding and nothing besides (RFC 4648 section 4); None if it is anything else."""
    return None if text is None or not _BASE64.match(text) else b64decode(text)
