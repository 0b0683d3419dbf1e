"""What a user describes: a bundle of members. The words for what stands in it and around it are here as well.

The rule of this file: it describes, and never opens anything. Whoever opens a description lives a floor higher.
``None`` always means "not known". Sizes are bytes, times are whole seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from os import PathLike, fspath
from typing import Literal as OneOf
from typing import get_args
from urllib.parse import unquote, urlsplit

from streamware.contents import Content, Data, File, Member, Path, Stored, Stream, Tree, Url
from streamware.digests import parse_digest
from streamware.errors import InvalidManifest, InvalidName
from streamware.facts import Chunks, Facts, Observer, Source
from streamware.member_rows import FILE, OBJECT, TRUSTED
from streamware.members import Members

__all__ = [
    "FORMATS",
    "Bundle",
    "Chunks",
    "Compress",
    "Content",
    "Data",
    "Facts",
    "File",
    "Format",
    "Member",
    "Members",
    "Observer",
    "OnError",
    "Path",
    "Source",
    "Stored",
    "Stream",
    "Tree",
    "Url",
]

Format = OneOf["zip", "tar", "tar.gz", "tar.zst"]
# fmt: off
Compress = OneOf[
    "stored", "deflate", "auto", "deflate:1", "deflate:2", "deflate:3", "deflate:4", "deflate:5", "deflate:6",
    "deflate:7", "deflate:8", "deflate:9",
]
# fmt: on
OnError = OneOf["abort", "skip", "report"]
Duplicates = OneOf["rename", "refuse"]
Names = OneOf["clean", "strict"]

FORMATS: Mapping[str, Format] = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.zst": "tar.zst",
    ".tzst": "tar.zst",
}


# What urlsplit makes nothing else of. PERF: 0.4 us instead of 3.
_plain_url = re.compile(r"https?://[0-9A-Za-z.:-]+/(?:[0-9A-Za-z._~-]+/)*([0-9A-Za-z._~-]+)\Z").match


def _seconds(moment: datetime | float | None) -> int | None:
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise InvalidManifest(f"modified needs a time zone: {moment!r}")
        moment = moment.timestamp()
    return None if moment is None else int(moment // 1)


def _digest(digest: bytes | str | None) -> bytes | None:
    if isinstance(digest, str):
        try:
            return parse_digest(digest)
        except ValueError as error:
            raise InvalidManifest(f"A digest {error}.") from error
    if digest is not None and len(digest) != 32:
        raise InvalidManifest("A digest is the 32 bytes of a SHA-256.")
    return None if digest is None else bytes(digest)


class Bundle:
    """An ordered list of members that becomes one archive.

    :param name: file name of the download; its extension picks the format unless ``format`` does.
    :param format: "zip", "tar", "tar.gz" or "tar.zst"; None takes it from ``name`` (no known extension: ZIP).
    :param compress: "stored", "deflate" (as is quickest), "deflate:1" to "deflate:9" (for small size, in more time) or
        "auto" (deflate what is not compressed already). ZIP only, but for the level, which goes for ``.tar.gz`` too.
    :param comment: archive comment; ZIP only, at most 65,535 bytes of UTF-8.
    :param on_error: "abort", or leave a failing member out ("skip"; "report" adds ``_errors.txt``) where that keeps
        every promise of length.
    :param duplicates: "rename" to ``name (1).ext``, or "refuse".
    :param names: "clean" rewrites unsafe names, "strict" refuses them (docs/names.md).
    :param timestamps: False leaves out the extended-timestamp extra field, which a few readers of ZIP-based document
        formats reject; ZIP only.

    The ``add_*`` methods only take note; files are looked at and upstreams asked when the bundle is served.
    ``modified`` is a timezone-aware datetime or Unix seconds, ``mode`` the permission bits, ``digest`` the SHA-256 of
    the content: 32 bytes, 64 hexadecimal digits, or ``sha-256=:base64:``.
    """

    def __init__(
        self,
        name: str = "bundle.zip",
        format: Format | None = None,
        compress: Compress = "stored",
        comment: str | None = None,
        on_error: OnError = "abort",
        *,
        duplicates: Duplicates = "rename",
        names: Names = "clean",
        timestamps: bool = True,
    ) -> None:
        _one_of("format", format, (None, "zip", "tar", "tar.gz", "tar.zst"))
        _one_of("compress", compress, get_args(Compress))
        _one_of("on_error", on_error, ("abort", "skip", "report"))
        _one_of("duplicates", duplicates, ("rename", "refuse"))
        _one_of("names", names, ("clean", "strict"))
        lower = name.lower()
        by_name = next((FORMATS[e] for e in sorted(FORMATS, key=len, reverse=True) if lower.endswith(e)), None)
        self.format: Format = format or by_name or "zip"
        self.name = name if by_name == self.format else f"{name or 'bundle'}.{self.format}"
        self.compress: Compress = compress
        self.comment = comment
        self.on_error: OnError = on_error
        self.duplicates: Duplicates = duplicates
        self.names: Names = names
        self.timestamps = timestamps
        self._members = Members()

    @property
    def members(self) -> Members:
        """Its members in order, to be looked at and changed as a list is. Any list of members may be put in its place.

        Each is made when it is looked at: what is kept is a table.
        """
        return self._members

    @members.setter
    def members(self, members: Iterable[Member]) -> None:
        self._members = members if isinstance(members, Members) else Members(members)

    @property
    def level(self) -> int | None:
        """At which DEFLATE is to compress, 1 to 9; None: as is quickest."""
        level = self.compress.partition(":")[2]
        return int(level) if level else None

    def add(self, member: Member) -> None:
        """Append a ready member."""
        self._members.append(member)

    def add_url(
        self,
        url: str | Callable[[], str],
        name: str | None = None,
        mirrors: Iterable[str | Callable[[], str]] = (),
        size: int | None = None,
        crc32: int | None = None,
        etag: str | None = None,
        modified: datetime | float | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        mode: int | None = None,
        comment: str = "",
        may_exceed_4gib: bool = False,
        digest: bytes | str | None = None,
        passthrough: bool = False,
    ) -> None:
        """Add a file of another server. The URL is trusted as code is. ``name`` None: the last part of its path.

        A function in place of a URL is called whenever the server is asked, and returns the URL; it needs a ``name``.
        With ``passthrough`` the server may answer with ``Content-Encoding: gzip``: in a ZIP those bytes become the
        member's without being inflated and deflated again, and the archive has no length ahead (docs/upstreams.md).
        """
        if name is None:
            if callable(url):
                raise InvalidName("a URL that a function makes needs a name")
            plain = _plain_url(url)
            name = plain[1] if plain else unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
            if not name:
                raise InvalidName(f"no name can be taken from the URL {url!r}; give name=")
        places = tuple(mirrors)
        kind = TRUSTED
        content: object = url
        if places or headers or callable(url):
            kind, content = OBJECT, Url(url, places, tuple((headers or {}).items()), trusted=True)
        made = _seconds(modified), mode, comment, may_exceed_4gib, _digest(digest), passthrough
        self._members.note(name, kind, content, size, crc32, etag, *made)

    def add_file(
        self,
        path: str | PathLike[str],
        name: str | None = None,
        *,
        modified: datetime | float | None = None,
        mode: int | None = None,
        comment: str = "",
    ) -> None:
        """Add a local file. ``name`` None: its base name. Time and mode come from the file unless given."""
        path = fspath(path)
        name = path.replace("\\", "/").rstrip("/").rpartition("/")[2] if name is None else name
        self._members.note(name, FILE, path, modified=_seconds(modified), mode=mode, comment=comment)

    def add_stored(
        self,
        id: str,
        name: str | None = None,
        *,
        modified: datetime | float | None = None,
        mode: int | None = None,
        comment: str = "",
    ) -> None:
        """Add a file of the archiver's file store (``Archiver(files=...)``). ``name`` None: the one it is stored under.

        Its size and CRC-32 are known, so that the archive has the best layout and resumes without reading a byte.

        :raises TypeError: ``id`` is no text. One that no file has is a member that is not there.
        """
        self._members.note(name or "", OBJECT, Stored(id), modified=_seconds(modified), mode=mode, comment=comment)

    def add_tree(self, directory: str | PathLike[str], prefix: str = "") -> None:
        """Add everything below a local directory, sorted, each name behind ``prefix``. No link leads out of it."""
        self._members.note(prefix, OBJECT, Tree(fspath(directory)))

    def add_directory(
        self, name: str, *, modified: datetime | float | None = None, mode: int | None = None, comment: str = ""
    ) -> None:
        """Add an entry for a directory; only needed where it is empty or its time or mode matters."""
        name = name.rstrip("/") + "/"
        self._members.note(name, OBJECT, None, modified=_seconds(modified), mode=mode, comment=comment)

    def add_data(
        self,
        name: str,
        data: bytes | str,
        *,
        modified: datetime | float | None = None,
        mode: int | None = None,
        comment: str = "",
    ) -> None:
        """Add content that is in memory; text is written as UTF-8."""
        raw = data.encode() if isinstance(data, str) else bytes(data)
        self._members.note(name, OBJECT, Data(raw), modified=_seconds(modified), mode=mode, comment=comment)

    def add_stream(
        self,
        name: str,
        factory: Callable[[], Iterable[bytes]],
        size: int | None = None,
        *,
        crc32: int | None = None,
        etag: str | None = None,
        modified: datetime | float | None = None,
        mode: int | None = None,
        comment: str = "",
        may_exceed_4gib: bool = False,
        digest: bytes | str | None = None,
    ) -> None:
        """Add content made on the fly: ``factory()`` returns an iterable of bytes, ``size`` of them if that is given.

        A strong ``etag`` promises that the factory gives the same bytes for as long as the tag stays the same.
        """
        made = _seconds(modified), mode, comment, may_exceed_4gib, _digest(digest)
        self._members.note(name, OBJECT, Stream(factory), size, crc32, etag, *made)


def _one_of(what: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        allowed = ", ".join(repr(c) for c in choices if c is not None)
        raise InvalidManifest(f"{what} must be one of {allowed}, not {value!r}")
