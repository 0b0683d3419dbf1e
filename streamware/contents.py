"""The entries of a bundle one by one: a member, and what its content is.

The rule of this file: it describes, and never opens anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streamware.errors import InvalidTarget
from streamware.facts import Source

__all__ = ["Content", "Data", "File", "Member", "Path", "Stored", "Stream", "Tree", "Url"]


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


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of the archiver's file store. Its size, checksum and time are the store's; a member's ``name`` of ""
    stands for the name it was stored under.

    :raises TypeError: the id is no text.
    """

    id: str

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise TypeError(f"the id of a stored file is a str, not {self.id!r}")


Content = Url | Path | File | Tree | Data | Stream | Stored | Source


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a bundle. ``content`` None is a directory. What is None is found out, or left at its default.

    ``size``, ``crc32`` and ``digest`` (SHA-256, 32 bytes) are promises that are verified while the member streams.
    ``etag`` is the entity-tag its content must carry. ``may_exceed_4gib`` matters only to a member whose size stays
    unknown. ``passthrough`` permits the upstream of a URL to send gzip, which goes into a ZIP as it comes.
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
    passthrough: bool = False

    @property
    def is_directory(self) -> bool:
        return self.content is None

    @property
    def proved(self) -> bool:
        """Whether its declared size and checksum tell its content from every other, whatever a server says of it."""
        return self.size is not None and (self.crc32 is not None or self.digest is not None)
