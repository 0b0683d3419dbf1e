"""What a user describes and what a host serves: bundles, members, facts, and the two protocols of a source.

The rule of this file: it describes, and never opens anything. Whoever opens a description lives a floor higher.
``None`` always means "not known". Sizes are bytes, times are whole seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from os import PathLike, fspath
from typing import Literal as OneOf
from typing import Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from streamware.digests import parse_digest
from streamware.errors import InvalidManifest, InvalidName, InvalidTarget

__all__ = [
    "FORMATS",
    "Bundle",
    "Chunks",
    "Compress",
    "Data",
    "Facts",
    "File",
    "Format",
    "Member",
    "Observer",
    "OnError",
    "Path",
    "Source",
    "Stream",
    "Tree",
    "Url",
]

Format = OneOf["zip", "tar", "tar.gz", "tar.zst"]
Compress = OneOf["stored", "deflate", "auto"]
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


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one version of a member's content.

    ``validator`` is an entity-tag as it stands on the wire (RFC 9110 section 8.8.3), quotes and any ``W/`` included.
    ``identity`` names the content among all others, so that identity and strong validator together name a version
    wherever and whenever it is asked for; without it nothing is remembered of it. ``coded`` is the size it had in an
    archive when it was last compressed in the way asked for. ``digest`` is the SHA-256 it was announced with, 32 bytes.
    """

    size: int | None = None
    modified: int | None = None
    validator: str | None = None
    crc32: int | None = None
    mode: int | None = None
    media_type: str | None = None
    identity: str | None = None
    coded: int | None = None
    digest: bytes | None = None


class Chunks(Protocol):
    """The bytes of one opened range: exactly as many as were asked for, or an exception.

    ``close()`` is called once by whoever opened it, from the thread that iterates; ``abort()`` may be called from any
    thread, at any time, more than once, and makes a blocked ``__next__`` raise at once.
    """

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def ready(self) -> bool:
        """Whether the next ``__next__`` will return without waiting for anybody."""

    def abort(self) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Source(Protocol):
    """Content that can be asked about and opened at any offset, as often as needed.

    Some attributes are optional: ``instant`` True says that opening and reading wait for nobody (a local file),
    ``holds`` True that ``probe`` takes ``hold=``, a number of bytes: content of no more may be read along, is then
    given by the next ``open(0, ...)``, and makes the source ``instant``; ``serial`` True that only the calling thread
    may use it, one call at a time, ``bound`` True that what a thread opens it had better read and close itself;
    ``abort()``, from any thread, makes a blocked ``open()``, and every later one, raise BodyClosed; ``spare()`` False
    says that it had better wait for its turn just now; what ``launch()``, ``come()`` and ``landed()`` are is told in
    ``flights``. A source without ``instant`` or ``serial`` is also opened before its turn, on another thread.
    """

    def probe(self, *, keep: bool = False) -> Facts:
        """Find out what can be known without reading the content. Blocks; raises MemberError.

        With ``keep`` a source may leave the answer it got open, for the next ``open(0, ...)`` to use: then the bytes
        come from the very response whose size was promised. ``close()`` gives it up.
        """

    def open(self, start: int, length: int | None) -> Chunks:
        """Open ``length`` bytes from offset ``start``; None means up to the end, whose place is then not known.

        Returns once the content is really there (a status was seen, a file is open). Raises MemberError. The caller
        closes the result.
        """

    def close(self) -> None:
        """Give up what ``probe(keep=True)`` kept. Idempotent, and harmless when nothing was kept."""


class Observer(Protocol):
    """Told of what happens, per download and per member, never per chunk. Called from any thread; must not block."""

    def download_started(self) -> None: ...

    def first_byte(self, seconds: float) -> None: ...

    def download_ended(self, outcome: str, *, members: int, bytes_out: int, bytes_in: int) -> None:
        """``outcome`` is "complete", "aborted" (we failed) or "left" (the client did)."""

    def upstream_opened(self) -> None: ...

    def upstream_retried(self) -> None: ...

    def upstream_failed(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Url:
    """A file on another server. ``trusted`` URLs come from the operator's code, others must pass ``Policy.allow``.

    A function in place of a URL is called whenever the server is asked, from any thread, and returns the URL to ask:
    links that are signed for minutes are made when they are needed. Only trusted code gives functions.

    :raises InvalidTarget: a function in a Url that is not trusted.
    """

    url: str | Callable[[], str]
    mirrors: tuple[str | Callable[[], str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    trusted: bool = False

    def __post_init__(self) -> None:
        if not self.trusted and self.made:
            raise InvalidTarget("A URL that is not trusted must be a text.")

    @property
    def made(self) -> bool:
        """Whether a function makes the URL or a mirror's, so that they are other texts each time."""
        return callable(self.url) or any(callable(mirror) for mirror in self.mirrors)


@dataclass(frozen=True, slots=True)
class Path:
    """An href inside the wrapped app, to be fetched by a sub-request. Only a middleware can open it."""

    href: str


@dataclass(frozen=True, slots=True)
class File:
    """A local file. With ``root``, ``path`` is relative to it and may not leave it, by symbolic links either."""

    path: str
    root: str | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """All regular files and empty directories below ``directory``, sorted; the member's name is their prefix."""

    directory: str


@dataclass(frozen=True, slots=True)
class Data:
    """Content in memory."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """Content made on the fly: ``factory()`` is called anew for each reading and returns an iterable of bytes."""

    factory: Callable[[], Iterable[bytes]]


Content = Url | Path | File | Tree | Data | Stream | Source


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a bundle. ``content`` None is a directory. What is None is found out, or left at its default.

    ``size``, ``crc32`` and ``digest`` (SHA-256, 32 bytes) are promises that are verified while the member streams.
    ``etag`` is the entity-tag its content must carry. ``may_exceed_4gib`` matters only to a member whose size stays
    unknown.
    """

    name: str
    content: Content | None
    size: int | None = None
    crc32: int | None = None
    etag: str | None = None
    modified: int | None = None
    mode: int | None = None
    comment: str = ""
    may_exceed_4gib: bool = False
    digest: bytes | None = None

    @property
    def proved(self) -> bool:
        """Whether its declared size and checksum tell its content from every other, whatever a server says of it."""
        return self.size is not None and (self.crc32 is not None or self.digest is not None)


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
    :param compress: "stored", "deflate" or "auto" (deflate what is not compressed already); ZIP only.
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
        _one_of("compress", compress, ("stored", "deflate", "auto"))
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
        self.members: list[Member] = []

    def add(self, member: Member) -> None:
        """Append a ready member."""
        self.members.append(member)

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
    ) -> None:
        """Add a file of another server. The URL is trusted as code is. ``name`` None: the last part of its path.

        A function in place of a URL is called whenever the server is asked, and returns the URL; it needs a ``name``.
        """
        if name is None:
            if callable(url):
                raise InvalidName("a URL that a function makes needs a name")
            name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
            if not name:
                raise InvalidName(f"no name can be taken from the URL {url!r}; give name=")
        content = Url(url, tuple(mirrors), tuple((headers or {}).items()), trusted=True)
        self.members.append(
            Member(
                name, content, size, crc32, etag, _seconds(modified), mode, comment, may_exceed_4gib, _digest(digest)
            )
        )

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
        self.members.append(Member(name, File(path), modified=_seconds(modified), mode=mode, comment=comment))

    def add_tree(self, directory: str | PathLike[str], prefix: str = "") -> None:
        """Add everything below a local directory, sorted, each name behind ``prefix``. No link leads out of it."""
        self.members.append(Member(prefix, Tree(fspath(directory))))

    def add_directory(
        self, name: str, *, modified: datetime | float | None = None, mode: int | None = None, comment: str = ""
    ) -> None:
        """Add an entry for a directory; only needed where it is empty or its time or mode matters."""
        self.members.append(
            Member(name.rstrip("/") + "/", None, modified=_seconds(modified), mode=mode, comment=comment)
        )

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
        self.members.append(Member(name, Data(raw), modified=_seconds(modified), mode=mode, comment=comment))

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
        self.members.append(Member(name, Stream(factory), size, crc32, etag, *made))


def _one_of(what: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        allowed = ", ".join(repr(c) for c in choices if c is not None)
        raise InvalidManifest(f"{what} must be one of {allowed}, not {value!r}")
