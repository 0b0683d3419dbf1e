"""Local files: opened once, measured by the open descriptor, never outside their root.

The rule of this file: what is sent is looked at through its descriptor, and all that a request could name through
descriptors only. Below a root each component is opened on its own with ``O_NOFOLLOW`` after links were resolved, so a
link that is swapped in between cannot lead out; a FIFO or a device is refused without ever waiting on it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator

from streamware.errors import BodyClosed, MemberChanged, MemberForbidden, MemberNotFound, SizeMismatch, SourceError
from streamware.facts import Looked
from streamware.model import Chunks, Facts, File, Member, Tree

__all__ = ["FileSource", "expand_tree", "open_below"]

_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# A piece is what a client that does not read holds in memory; so a few files at a time are read in large ones.
_SMALL_BYTES = 64 * 1024
_large = threading.Semaphore(16)
_ASKS = os.access in os.supports_effective_ids  # whether it can be asked who may read without opening
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)


def open_below(root: str, path: str) -> int:
    """Open ``path``, relative to ``root``, for reading; the caller closes the descriptor.

    Links are followed as long as they stay below the root.

    :raises OSError: as the system says; ENOENT where the path leaves the root.
    """
    parts = [p for p in path.split(os.sep) if p not in ("", ".")]
    if os.path.isabs(path) or "\0" in path or ".." in parts:
        raise FileNotFoundError(errno.ENOENT, "not below the root")
    try:
        return _descend(root, parts)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise
    # Some component is a link: resolve them all, look where that leads, and go there without following any.
    top = os.path.realpath(root)
    real = os.path.realpath(os.path.join(top, *parts))
    if os.path.commonpath((top, real)) != top:
        raise FileNotFoundError(errno.ENOENT, "not below the root")
    return _descend(top, [p for p in os.path.relpath(real, top).split(os.sep) if p != "."])


def _descend(top: str, parts: list[str]) -> int:
    here = os.open(top, _READ | _DIRECTORY)
    try:
        for place, part in enumerate(parts, 1):
            flags = _READ | _NOFOLLOW | (_DIRECTORY if place < len(parts) else 0)
            inner = os.open(part, flags, dir_fd=here)
            os.close(here)
            here = inner
        result, here = here, -1
        return result
    finally:
        if here >= 0:
            os.close(here)


class FileSource:
    """A regular file. Its version is its size and modification time in nanoseconds, taken from the open descriptor.

    :param root: a directory that ``path`` is relative to and must not leave; None for a path the operator's code gave.
    :param version: ``hash()`` of the validator that the file must have when it is opened; 0 for any. (A hash, because
        plans of many files hold one for each.)
    """

    __slots__ = ("_chunk_bytes", "_path", "_root", "_version")

    instant = True  # opening and reading wait for nobody

    def __init__(self, path: str, root: str | None = None, *, chunk_bytes: int = 256 * 1024, version: int = 0) -> None:
        self._path = path
        self._root = root
        self._chunk_bytes = chunk_bytes
        self._version = version

    def probe(self, *, keep: bool = False) -> Facts:
        return self.look().facts()

    def look(self) -> Looked:
        """What ``probe`` tells.

        PERF: 2 us instead of 5 for a path of the operator's code: it is opened only to learn what is wrong with it.
        """
        if self._root is None and _ASKS:
            try:
                found = os.stat(self._path)
                if stat.S_ISREG(found.st_mode) and os.access(self._path, os.R_OK, effective_ids=True):
                    return _looked(found)
            except (OSError, ValueError):
                pass
        fd, found = self._open()
        os.close(fd)
        return _looked(found)

    def open(self, start: int, length: int | None) -> Chunks:
        fd, found = self._open()
        try:
            self._check(found)
            length = found.st_size - start if length is None else length
            if start + length > found.st_size:
                raise SizeMismatch("a local file is shorter than was asked for")
        except BaseException:
            os.close(fd)
            raise
        return _FileChunks(fd, start, length, self._chunk_bytes, found)

    def read(self, start: int, length: int) -> bytes:
        """What ``open`` and reading to the end would give, at once.

        PERF: 6 us for a small file; chunks and what looks after them take twice that.
        """
        fd, found = self._open()
        try:
            self._check(found)
            data = b""
            while len(data) < length:  # a file system may give less than there is
                piece = os.pread(fd, length - len(data), start + len(data))
                if not piece:
                    raise SizeMismatch("a local file is shorter than was asked for")
                data += piece
            _check_unchanged(fd, found)
            return data
        except OSError as error:
            raise SourceError(f"reading a local file failed: {error}") from error
        finally:
            os.close(fd)

    def _check(self, found: os.stat_result) -> None:
        if self._version and self._version != hash(_validator(found.st_ino, found.st_size, found.st_mtime_ns)):
            raise MemberChanged("a local file changed since the archive was planned")

    def close(self) -> None:
        pass

    def _open(self) -> tuple[int, os.stat_result]:
        try:
            fd = os.open(self._path, _READ) if self._root is None else open_below(self._root, self._path)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            raise MemberNotFound(f"no such file: {self._path!r}") from error
        except PermissionError as error:
            raise MemberForbidden(f"no permission to read {self._path!r}") from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG):
                raise MemberNotFound(f"not a readable file: {self._path!r}") from error
            raise SourceError(f"cannot open {self._path!r}: {error}") from error
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise MemberNotFound(f"not a regular file: {self._path!r}")
        return fd, found


def _looked(found: os.stat_result) -> Looked:
    inode, size, modified = found.st_ino, found.st_size, found.st_mtime_ns
    return Looked(
        size,
        modified // 1_000_000_000,
        _validator(inode, size, modified),
        found.st_mode & 0o777,  # set-user-id and the like have no business in a download
        # Files that were made together mostly are inodes close together, and their neighbors (``version_key``) so.
        f"file:{found.st_dev:x}/{inode >> 10:x}/{inode:x}",
    )


def _validator(inode: int, size: int, modified: int) -> str:
    return f'"{inode:x}-{size:x}-{modified:x}"'


def _check_unchanged(fd: int, found: os.stat_result) -> None:
    """Of a descriptor's version only size and time can change."""
    now = os.fstat(fd)
    if now.st_mtime_ns != found.st_mtime_ns or now.st_size != found.st_size:
        raise MemberChanged("a local file changed while it was read")


class _FileChunks:
    """A window of an open file. The version is looked at once more after the last byte.

    :param found: what the descriptor was when it was opened.
    """

    __slots__ = ("_aborted", "_fd", "_found", "_large", "_left", "_offset", "piece_bytes")

    def __init__(self, fd: int, offset: int, length: int, chunk_bytes: int, found: os.stat_result) -> None:
        self._fd = fd
        self._offset = offset
        self._left = length
        self._large = length > _SMALL_BYTES and _large.acquire(blocking=False)
        self.piece_bytes = chunk_bytes if self._large else min(chunk_bytes, _SMALL_BYTES)
        self._found: os.stat_result | None = found
        self._aborted = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._check_open()
        if self._left == 0:
            if self._found is not None:
                _check_unchanged(self._fd, self._found)
            self._found = None
            raise StopIteration
        try:
            piece = os.pread(self._fd, min(self._left, self.piece_bytes), self._offset)
        except OSError as error:
            raise SourceError(f"reading a local file failed: {error}") from error
        self._passed(len(piece))
        return piece

    def fill(self, places: list[memoryview]) -> None:
        """The next bytes, right into some places, all of which they fill."""
        self._check_open()
        left = places
        while left:
            try:
                count = _read_into(self._fd, left, self._offset)
            except OSError as error:
                raise SourceError(f"reading a local file failed: {error}") from error
            self._passed(count)
            while left and count >= len(left[0]):
                count -= len(left[0])
                left = left[1:]
            if count:  # a file system may give less than there is
                left = [left[0][count:], *left[1:]]

    def _check_open(self) -> None:
        if self._aborted or self._fd < 0:
            raise BodyClosed("read after abort() or close()")

    def _passed(self, count: int) -> None:
        if not count:
            raise SizeMismatch(f"a local file ended {self._left} bytes early")
        self._offset += count
        self._left -= count

    def ready(self) -> bool:
        return True

    def abort(self) -> None:
        self._aborted = True

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            if self._large:
                _large.release()


def _read_into_one(fd: int, places: list[memoryview], offset: int) -> int:
    piece = os.pread(fd, len(places[0]), offset)
    places[0][: len(piece)] = piece
    return len(piece)


_read_into: Callable[[int, list[memoryview], int], int] = getattr(os, "preadv", _read_into_one)


def expand_tree(member: Member, tree: Tree) -> Iterator[Member]:
    """The members below a directory, sorted by name: regular files, and directories that hold none of what counts here.

    Links to directories are not followed, links to files are if they stay below: what they lead to elsewhere is not
    part of the tree. Sockets, FIFOs and devices are passed over: they have no content.

    :raises MemberNotFound: there is no such directory.
    :raises MemberForbidden, SourceError: a directory below cannot be listed.
    """
    top = tree.directory
    prefix = member.name.strip("/")
    if not os.path.isdir(top):
        raise MemberNotFound(f"no such directory: {top!r}")
    prefix = f"{prefix}/" if prefix else ""
    real_top = os.path.join(os.path.realpath(top), "")
    ahead = [("", True)]  # what is still to come, the next one last; not a recursion, for trees may be deep
    while ahead:
        path, is_directory = ahead.pop()
        if not is_directory:
            yield Member(prefix + path, File(path, root=top))
            continue
        name = os.path.join(prefix + path, "")
        try:
            found, inside = _listed(top, real_top, path)
        except PermissionError as error:
            raise MemberForbidden(f"no permission to list {path or top!r}", member=name) from error
        except OSError as error:
            raise SourceError(f"cannot list {path or top!r}: {error}", member=name) from error
        if path and not inside:
            modified, mode = found.st_mtime_ns // 1_000_000_000, stat.S_IMODE(found.st_mode) & 0o777
            yield Member(name, None, modified=modified, mode=mode)
        ahead.extend(reversed(inside))


def _listed(top: str, real_top: str, below: str) -> tuple[os.stat_result, list[tuple[str, bool]]]:
    """A directory and the paths of what it holds, each with whether that is a directory itself; sorted by name."""
    inside = []
    fd = _descend(top, below.split(os.sep) if below else [])
    try:
        with os.scandir(fd) as listing:
            for entry in sorted(listing, key=lambda e: e.name):
                path = os.path.join(below, entry.name)
                is_directory = entry.is_dir(follow_symlinks=False)
                if is_directory or _is_file(entry, os.path.join(top, path), real_top):
                    inside.append((path, is_directory))
        return os.fstat(fd), inside
    finally:
        os.close(fd)


def _is_file(entry: os.DirEntry[str], path: str, real_top: str) -> bool:
    try:
        return entry.is_file(follow_symlinks=False) or (entry.is_file() and os.path.realpath(path).startswith(real_top))
    except OSError:  # a link in a loop, or on a way that may not be gone
        return False
