"""One row of the table that members are kept in: what its kind says of the content, and the row as a ``Member``.

The rule of this file: a number and a text say what an object would; the object is made when somebody looks at it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from streamware.contents import Content, File, Member, Path, Url

__all__ = [
    *("EXCEEDS", "FILE", "KIND_BITS", "MAX_ROOTS", "OBJECT", "PASSES", "PATH", "ROOTED", "TRUSTED", "UNTRUSTED"),
    *("Row", "content_of"),
]

# What stands in the column of contents, by the kind of the row. Of a file in a root, the kind says which root, too.
OBJECT, TRUSTED, UNTRUSTED, PATH, FILE = range(5)  # the content itself (None: a directory); a URL, href or path
ROOTED = 5  # and above: FILE, of the root of that number
MAX_ROOTS = 1000
EXCEEDS, PASSES = 0x8000, 0x4000  # flags beside the kind
KIND_BITS = 0x3FFF


class Row(NamedTuple):
    """A ``Member`` as the table holds it, with the same names; ``stored`` is what ``kind`` says."""

    name: str
    stored: Any
    size: int | None
    crc32: int | None
    etag: str | None
    modified: int | None
    mode: int | None
    comment: str
    digest: bytes | None
    flags: int
    roots: list[str]

    @property
    def kind(self) -> int:
        """OBJECT, TRUSTED, UNTRUSTED, PATH or FILE."""
        return min(self.flags & KIND_BITS, FILE)

    @property
    def content(self) -> Content | None:
        """Made when it is looked at."""
        return content_of(self.stored, self.flags & KIND_BITS, self.roots)

    @property
    def file(self) -> tuple[str, str | None] | None:
        """The path and the root of a local file; None: it is something else."""
        kind = self.flags & KIND_BITS
        if kind < FILE:
            return None
        return self.stored, None if kind == FILE else self.roots[kind - ROOTED]

    @property
    def is_directory(self) -> bool:
        return self.stored is None

    @property
    def may_exceed_4gib(self) -> bool:
        return self.flags & EXCEEDS != 0

    @property
    def passthrough(self) -> bool:
        return self.flags & PASSES != 0

    @property
    def proved(self) -> bool:
        """See ``Member.proved``."""
        return self.size is not None and (self.crc32 is not None or self.digest is not None)

    def member(self) -> Member:
        name, _, size, crc32, etag, modified, mode, comment, digest, _, _ = self
        flags = self.may_exceed_4gib, digest, self.passthrough
        return Member(name, self.content, size, crc32, etag, modified, mode, comment, *flags)


def content_of(stored: Any, kind: int, roots: list[str]) -> Content | None:
    """The content that ``kind`` and what is stored beside it stand for; None: a directory."""
    if kind == OBJECT:
        return stored  # type: ignore[no-any-return]
    if kind <= UNTRUSTED:
        return Url(stored, trusted=kind == TRUSTED)
    if kind == PATH:
        return Path(stored)
    return File(stored, None if kind == FILE else roots[kind - ROOTED])
