"""The members of a bundle, kept as a table: a hundred thousand of them cost what their names do, and little more.

The rule of this file: it is a list of ``Member`` to whoever looks, and no ``Member`` exists until somebody does.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from itertools import chain, repeat
from typing import Any, SupportsIndex, overload

from streamware.columns import Blobs, Numbers, Texts
from streamware.contents import Content, File, Member, Path, Url
from streamware.member_rows import (
    EXCEEDS,
    FILE,
    KIND_BITS,
    MAX_ROOTS,
    OBJECT,
    PASSES,
    PATH,
    ROOTED,
    TRUSTED,
    UNTRUSTED,
    Row,
    content_of,
)

__all__ = ["Members"]


class Members(MutableSequence[Member]):
    """A list of members: some 80 bytes each beside the texts of name and content, and 8 for a size, a time, a checksum.

    Appending and replacing take the same time however many there are; inserting and deleting make the table anew.
    """

    __slots__ = ("_columns", "_flags", "_names", "_objects", "_roots", "_shared", "_texts")

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self._names: list[str] = []
        self._texts = Texts()  # what is stored, but for OBJECT
        self._objects: list[Any] = []  # that, no further than the last
        self._flags = array("H")
        # size, crc32, etag, modified, mode, comment, digest
        self._columns = Numbers(), Numbers(), Texts(), Numbers(), Numbers(), Texts(), Blobs()
        self._roots: list[str] = []
        self._shared = False
        for member in members:
            self.append(member)

    # --- as a table ---

    def note(
        self,
        name: str,
        kind: int,
        content: Any,
        size: int | None = None,
        crc32: int | None = None,
        etag: str | None = None,
        modified: int | None = None,
        mode: int | None = None,
        comment: str = "",
        may_exceed_4gib: bool = False,
        digest: bytes | None = None,
        passthrough: bool = False,
    ) -> None:
        """Append a row. ``content`` is what ``kind`` says."""
        if self._shared:
            self._part()
        row = len(self._names)
        if kind == OBJECT:
            if content is not None:
                self._put_object(row, content)
        else:
            self._texts.put(row, content)  # first of all: what is no text fails here, and leaves no half of a row
        self._names.append(name)
        self._flags.append(kind | may_exceed_4gib * EXCEEDS | passthrough * PASSES)
        if size is not None:
            self._columns[0].put(row, size)
        if crc32 is not None or etag is not None or modified is not None:
            self._columns[1].put(row, crc32)
            self._columns[2].put(row, etag)
            self._columns[3].put(row, modified)
        if mode is not None or comment or digest is not None:
            self._columns[4].put(row, mode)
            self._columns[5].put(row, comment or None)
            self._columns[6].put(row, digest)

    def _put_object(self, row: int, content: Any) -> None:
        objects = self._objects
        objects.extend([None] * (row + 1 - len(objects)))
        objects[row] = content

    def _stored(self, index: int) -> Any:
        text = self._texts[index]
        return text if text is not None else self._objects[index] if index < len(self._objects) else None

    def _all_stored(self) -> Iterator[Any]:
        count = len(self._names)
        if not self._objects:
            return self._texts.all(count)
        if not self._texts:
            return chain(self._objects, repeat(None, count - len(self._objects)))
        return map(self._stored, range(count))

    def rows(self) -> Iterator[Row]:
        """All rows in order."""
        count = len(self._names)
        size, crc32, etag, modified, mode, comment, digest = self._columns
        return map(
            Row,
            self._names,
            self._all_stored(),
            size.all(count),
            crc32.all(count),
            etag.all(count),
            modified.all(count),
            mode.all(count),
            (text or "" for text in comment.all(count)),
            digest.all(count),
            self._flags,
            repeat(self._roots),
        )

    def row(self, index: int) -> Row:
        size, crc32, etag, modified, mode, comment, digest = self._columns
        return Row(
            self._names[index],
            self._stored(index),
            size[index],
            crc32[index],
            etag[index],
            modified[index],
            mode[index],
            comment[index] or "",
            digest[index],
            self._flags[index],
            self._roots,
        )

    def kind(self, index: int) -> int:
        """OBJECT, TRUSTED, UNTRUSTED, PATH or FILE."""
        return min(self._flags[index] & KIND_BITS, FILE)

    def content(self, index: int) -> Content | None:
        """What the content of a member is."""
        return content_of(self._stored(index), self._flags[index] & KIND_BITS, self._roots)

    def file(self, index: int) -> tuple[str, str | None] | None:
        """The path and the root of a local file of which nothing but its content is told; None for any other."""
        kind = self._flags[index] & KIND_BITS
        if kind < FILE or self._columns[6][index] is not None:
            return None
        return self._stored(index), None if kind == FILE else self._roots[kind - ROOTED]

    def hold(self, kind: type) -> bool:
        """Whether some content is an object of this type."""
        return any(isinstance(stored, kind) for stored in self._objects)

    def name(self, index: int) -> str:
        return self._names[index]

    def rename(self, index: int, name: str) -> None:
        if self._shared:
            self._part()
        self._names[index] = name

    def briefly(self) -> Iterator[tuple[int, Any, int | None]]:
        """Kind, the content itself of an OBJECT, and declared size of each member."""
        count = len(self._names)
        kinds = (min(flags & KIND_BITS, FILE) for flags in self._flags)
        objects = chain(self._objects, repeat(None, count - len(self._objects)))
        return zip(kinds, objects, self._columns[0].all(count), strict=True)

    def untrusted(self) -> Iterator[tuple[int, tuple[object, ...]]]:
        """The URLs that do not come from the operator's code, mirrors included, by member."""
        for index, flags in enumerate(self._flags):
            kind = flags & KIND_BITS
            if kind == UNTRUSTED:
                yield index, (self._texts[index],)
            elif kind == OBJECT:
                stored = self._stored(index)
                if isinstance(stored, Url) and not stored.trusted:
                    yield index, (stored.url, *stored.mirrors)

    def snapshot(self) -> Members:
        """The members as they are now, whatever becomes of these; what is the same is kept once."""
        made = Members()
        self._shared = made._shared = True
        made._take(self)
        return made

    __copy__ = snapshot

    def _packed(self, content: Content | None) -> tuple[int, Any]:
        """The kind of a content, and what stands for it."""
        kind = type(content)
        if isinstance(content, Url) and kind is Url:
            if type(content.url) is str and content.mirrors == () and content.headers == ():
                return (TRUSTED if content.trusted else UNTRUSTED), content.url
        elif isinstance(content, File) and kind is File and type(content.path) is str:
            if content.root is None:
                return FILE, content.path
            if content.root in self._roots[-1:]:
                return ROOTED + len(self._roots) - 1, content.path
            if content.root in self._roots:
                return ROOTED + self._roots.index(content.root), content.path
            if len(self._roots) < MAX_ROOTS:
                self._roots.append(content.root)
                return ROOTED + len(self._roots) - 1, content.path
        elif isinstance(content, Path) and kind is Path and type(content.href) is str:
            return PATH, content.href
        return OBJECT, content

    def _take(self, other: Members) -> None:
        self._names, self._texts, self._objects = other._names, other._texts, other._objects
        self._flags, self._columns, self._roots = other._flags, other._columns, other._roots

    def _part(self) -> None:
        """Before a change: leave what is shared to those it is shared with."""
        self._shared = False
        self._names, self._texts, self._objects = self._names[:], self._texts.copy(), self._objects[:]
        self._flags = self._flags[:]
        size, crc32, etag, modified, mode, comment, digest = self._columns
        promises = size.copy(), crc32.copy(), etag.copy()
        self._columns = *promises, modified.copy(), mode.copy(), comment.copy(), digest.copy()
        self._roots = self._roots[:]

    # --- as a list ---

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Member]:
        return map(Row.member, self.rows())

    @overload
    def __getitem__(self, index: SupportsIndex) -> Member: ...

    @overload
    def __getitem__(self, index: slice) -> list[Member]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Member | list[Member]:
        found = range(len(self._names))[index]
        return self.row(found).member() if isinstance(found, int) else [self.row(i).member() for i in found]

    @overload
    def __setitem__(self, index: SupportsIndex, value: Member) -> None: ...

    @overload
    def __setitem__(self, index: slice, value: Iterable[Member]) -> None: ...

    def __setitem__(self, index: SupportsIndex | slice, value: Any) -> None:
        if isinstance(index, slice):
            members = list(self)
            members[index] = value
            self._fill(members)
            return
        row = range(len(self._names))[index]
        if self._shared:
            self._part()
        kind, content = self._packed(value.content)
        self._texts.put(row, None if kind == OBJECT else content)
        if kind == OBJECT or row < len(self._objects):
            self._put_object(row, content if kind == OBJECT else None)
        self._names[row] = value.name
        self._flags[row] = kind | value.may_exceed_4gib * EXCEEDS | value.passthrough * PASSES
        size, crc32, etag, modified, mode, comment, digest = self._columns
        size.put(row, value.size)
        crc32.put(row, value.crc32)
        etag.put(row, value.etag)
        modified.put(row, value.modified)
        mode.put(row, value.mode)
        comment.put(row, value.comment or None)
        digest.put(row, value.digest)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        members = list(self)
        del members[index]
        self._fill(members)

    def insert(self, index: SupportsIndex, value: Member) -> None:
        members = list(self)
        members.insert(index, value)
        self._fill(members)

    def append(self, value: Member) -> None:
        if self._shared:
            self._part()
        kind, content = self._packed(value.content)
        self.note(
            value.name,
            kind,
            content,
            value.size,
            value.crc32,
            value.etag,
            value.modified,
            value.mode,
            value.comment,
            value.may_exceed_4gib,
            value.digest,
            value.passthrough,
        )

    def clear(self) -> None:
        self._fill(())

    def sort(self, *, key: Callable[[Member], Any], reverse: bool = False) -> None:
        self._fill(sorted(self, key=key, reverse=reverse))

    def _fill(self, members: Iterable[Member]) -> None:
        self._take(Members(members))
        self._shared = False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Members | list):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return repr(list(self))
