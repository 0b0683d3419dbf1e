"""What lies below ROOT: folders for the page, files for ``/tree/``, members for bundles.

The rule of this file: a path from outside is taken apart as raw bytes, segment by segment, before any of it is
decoded, and every directory and file is opened through ``open_below``, so nothing outside ROOT is ever reached. All of
it blocks.

What is neither a regular file nor a directory (a FIFO, a socket, a device) and a link that leads out of ROOT or nowhere
are not there at all. Names that are not valid UTF-8 work like any other: their raw bytes are percent-encoded.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from streamware.errors import InvalidTarget, LimitExceeded, MemberForbidden, MemberNotFound, SourceError
from streamware.model import File, Member, Members
from streamware.sources.file import open_below
from streamware.target import parse_href

__all__ = ["Item", "Listing", "Place", "Root", "Total", "shown"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_STRIP = re.compile(r"strip=([0-9]{1,4})\Z", re.ASCII)


class Place(NamedTuple):
    """A path below ROOT: ``parts`` as the file system has them (surrogateescape). ``folder``: it came with a slash."""

    parts: tuple[str, ...]
    folder: bool

    @property
    def path(self) -> str:
        return "/".join(self.parts)

    @property
    def href(self) -> str:
        """Path without the leading ``/tree/``, percent-encoded; a folder's ends in a slash unless it is ROOT."""
        text = "/".join(quote(os.fsencode(part), safe="") for part in self.parts)
        return f"{text}/" if self.folder and text else text

    @property
    def bundleable(self) -> bool:
        """Whether its href can be a member's: those refuse control characters. Its folder can still be bundled."""
        return not any(_CONTROL.search(part) for part in self.parts)

    def inner(self, name: str, *, folder: bool) -> Place:
        return Place((*self.parts, name), folder)

    @classmethod
    def of(cls, raw_path: bytes) -> Place | None:
        """Read the part of a request path after ``/tree/`` and the like; None where nothing can be.

        Dot segments, empty segments, encoded slashes and NULs lead nowhere: a client that means well resolves them
        itself (RFC 3986 section 5.2.4), and no file has such a name.
        """
        *outer, last = raw_path.split(b"/")
        segments = [unquote_to_bytes(s) for s in ([*outer, last] if last else outer)]
        if any(s in (b"", b".", b"..") or b"/" in s or b"\0" in s for s in segments):
            return None
        return cls(tuple(os.fsdecode(s) for s in segments), folder=not last)


class Item(NamedTuple):
    """An entry of a folder. ``size`` in bytes, 0 for a folder; ``modified`` in Unix seconds.

    ``link``: it is a symbolic link, and the rest speaks of what it leads to.
    """

    name: str
    folder: bool
    size: int
    modified: int
    link: bool = False


class Listing(NamedTuple):
    """A folder's entries, unsorted. ``cut``: there are more than were looked at."""

    items: list[Item]
    cut: bool


class Total(NamedTuple):
    """What a folder comes to with everything below it. Not ``complete``: there is more than a bundle may hold."""

    files: int
    bytes: int
    complete: bool


class Root:
    """The directory that is served.

    :param top: an absolute path, links resolved.
    :param max_members: the most entries that are listed, added up or bundled at once.
    :param hidden: paths that are as if they were not there, with all below them: the server's own state.
    """

    def __init__(self, top: str, *, max_members: int, hidden: Iterable[str] = ()) -> None:
        self.top = top
        self._hidden = tuple(path for path in map(os.path.realpath, hidden) if self._below(path))
        self.name = shown(os.path.basename(top)) or "files"
        self._max_members = max_members

    def hides(self, place: Place) -> bool:
        """Whether a path leads to something hidden."""
        return bool(self._hidden) and self._is_hidden(os.path.realpath(os.path.join(self.top, place.path)))

    def is_folder(self, place: Place) -> bool:
        """Whether a path names a directory below ROOT."""
        return self._below(real := os.path.realpath(os.path.join(self.top, place.path))) and os.path.isdir(real)

    def listing(self, place: Place) -> Listing:
        """The entries of a folder.

        :raises MemberNotFound: there is no such directory.
        :raises MemberForbidden: it may not be read.
        """
        items: list[Item] = []
        here = os.path.realpath(os.path.join(self.top, place.path))
        with self._scan(place.path) as entries:
            for entry in entries:
                if len(items) >= self._max_members:
                    return Listing(items, cut=True)
                item = self._look(here, entry)
                if item is not None:
                    items.append(item)
        return Listing(items, cut=False)

    def total(self, place: Place) -> Total:
        """Add up a folder. What would be in a bundle of it is what is counted."""
        files = size = 0
        for count, (_, item) in enumerate(self._walk(place), 1):
            if count > self._max_members:
                return Total(files, size, complete=False)
            files += not item.folder
            size += item.size
        return Total(files, size, complete=True)

    def members(self, href: str) -> Members | None:
        """The members that stand for an href of this server; None where it is not below ``/tree/``.

        A folder stands for all its files and its empty folders. Names are paths below ROOT; ``?strip=N`` leaves out
        their first N parts, as ``tar --strip-components`` does.

        :raises MemberNotFound: nothing is there.
        :raises LimitExceeded: a folder holds more than a bundle may.
        :raises InvalidTarget: it is no path, or ``strip`` would leave no name.
        """
        target = parse_href(href)
        head, slash, rest = target.raw_path[1:].partition(b"/")
        if unquote_to_bytes(head) != b"tree" or not slash:
            return None
        place = Place.of(rest)
        if place is None or self.hides(place):
            raise MemberNotFound(f"no such path: {href!r}", member=href)
        match = _STRIP.match(target.query)
        strip = int(match[1]) if match else 0
        if not place.folder and not self.is_folder(place):
            return Members([self._member(place.parts, strip)])
        members = Members()
        for parts, item in self._walk(place):
            if len(members) >= self._max_members:
                raise LimitExceeded(f"More than {self._max_members} files, and this server takes no more.")
            if not item.folder:
                members.append(self._member(parts, strip))
            elif len(parts) > strip:
                members.append(Member("/".join(map(shown, parts[strip:])) + "/", None, modified=item.modified))
        return members

    def _member(self, parts: tuple[str, ...], strip: int) -> Member:
        if len(parts) <= strip:
            raise InvalidTarget(f"strip={strip} leaves no name for a path of {len(parts)} parts.")
        name = "/".join(map(shown, parts[strip:]))
        return Member(name, File("/".join(parts), root=self.top))

    def _walk(self, place: Place) -> Iterator[tuple[tuple[str, ...], Item]]:
        """All files below a folder and all folders that are empty, in sorted order, with their parts below ROOT.

        The folder itself may be reached by a link, links to folders below it are not followed: so the walk ends, and
        nothing is in it twice.
        """
        stack = [(place.parts, Item("", True, 0, 0))]
        while stack:
            parts, item = stack.pop()
            if not item.folder:
                yield parts, item
                continue
            here = os.path.realpath(os.path.join(self.top, *parts))
            inner: list[tuple[tuple[str, ...], Item]] = []
            empty = True
            with self._scan("/".join(parts)) as entries:
                for entry in entries:
                    empty = False
                    found = self._look(here, entry)
                    if found is not None and not (found.folder and found.link):
                        inner.append(((*parts, found.name), found))
            if empty:
                yield parts, item
            stack.extend(sorted(inner, reverse=True))

    def _look(self, here: str, entry: os.DirEntry[str]) -> Item | None:
        """An entry as it is shown, or None where it is not for anybody."""
        link = entry.is_symlink()
        if link or self._hidden:
            real = os.path.join(here, entry.name)
            real = os.path.realpath(real) if link else real
            if not self._below(real) or self._is_hidden(real):
                return None
        try:
            found = entry.stat()
        except OSError:
            return None  # gone since, or a link to nowhere
        modified = found.st_mtime_ns // 1_000_000_000
        if stat.S_ISDIR(found.st_mode):
            return Item(entry.name, True, 0, modified, link)
        if stat.S_ISREG(found.st_mode):
            return Item(entry.name, False, found.st_size, modified, link)
        return None

    def _below(self, real: str) -> bool:
        return os.path.commonpath((self.top, real)) == self.top

    def _is_hidden(self, real: str) -> bool:
        return any(real == path or real.startswith(f"{path}{os.sep}") for path in self._hidden)

    def _scan(self, path: str) -> _Scan:
        return _Scan(self.top, path)


class _Scan:
    """``os.scandir`` of a directory below the root, with our errors."""

    def __init__(self, top: str, path: str) -> None:
        try:
            self._fd = open_below(top, path)
        except PermissionError as error:
            raise MemberForbidden(f"no permission to list {path!r}", member=path) from error
        except (OSError, ValueError) as error:
            raise MemberNotFound(f"no such directory: {path!r}: {error}", member=path) from error
        try:
            self._entries = os.scandir(self._fd)
        except NotADirectoryError as error:
            os.close(self._fd)
            raise MemberNotFound(f"not a directory: {path!r}", member=path) from error
        except OSError as error:
            os.close(self._fd)
            raise SourceError(f"cannot list {path!r}: {error}", member=path) from error

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return self._entries

    def __exit__(self, *exc: object) -> None:
        self._entries.close()
        os.close(self._fd)


def shown(name: str) -> str:
    """A file system's name as text that can be encoded: bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")
