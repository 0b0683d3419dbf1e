"""A local folder that holds objects: how it is made, listed, cleaned up, and kept through a loss of power.

The rule of this file: below the folder, an upload's objects lie in ``XX/ID/``, and everything else is passed over.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from streamware.object_errors import mapped
from streamware.upload_errors import StoreUnavailable

_locks: Any
try:
    import fcntl

    _locks = fcntl
except ImportError:  # not POSIX
    _locks = None

__all__ = ["MARK", "ObjectFolder", "Reading"]

# A folder inside, so that a disk that is not mounted is not taken for an empty store.
MARK = ".streamware-store"
_STAGED = re.compile(r"#\d+\Z")  # obstore's name of what is not whole yet: that of the object, and a number
_TOP = re.compile(r"[0-9a-f]{2}\Z")
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
# PERF: an object of so many bytes leaves the page cache once it is durable. Else an upload of 40 GB would push out all
# that others read, and each of its pages is a new one: 3.5 CPU s/GiB behind gunicorn, and 1.7 with this.
_LARGE = 32 * 1024 * 1024
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class Reading:
    """Says to all processes that an object, and what goes with it, is being read, until it is closed.

    Where the file system knows no locks it says so to nobody: a file that is deleted then breaks off for its readers.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd
        if _locks is None:
            return
        try:
            _locks.flock(fd, _locks.LOCK_SH)  # waits no longer than somebody looks for readers
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                self.close()
                raise

    def close(self) -> None:
        """Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class ObjectFolder:
    """A local folder of objects. What each method does is told in ``Objects``.

    :param url: ``file:///DIR``; it is made, for its owner alone, if its parent is there.
    :raises ValueError: it cannot be used; the text is for whoever runs the server.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path or parts.query:
            raise ValueError("a folder's URL is file:///DIR, with an absolute path")
        self.path = os.path.realpath(path)
        try:
            self._make()
        except OSError as error:
            raise ValueError(f"{path} cannot be used as a store: {error.strerror}") from error

    def _make(self) -> None:
        parent = os.path.dirname(self.path)
        if not os.path.isdir(parent):
            raise ValueError(f"a store cannot be made in {parent}: there is no such folder")
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            pass  # as it is at every start but the first
        mark = os.path.join(self.path, MARK)
        try:
            os.mkdir(mark, 0o700)
            _sync(mark, parent)
        except FileExistsError:
            pass
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def check(self) -> None:
        if not os.path.exists(os.path.join(self.path, MARK)):
            raise StoreUnavailable(f"{self.path} holds no {MARK} any more: is its disk mounted?")

    def belong_to(self, database: str) -> bool:
        # Not by the library, whose threads a server that takes no uploads then does without.
        path = os.path.join(self.path, MARK, "database")
        with _errors("asking whose they are"):
            for _ in range(2):
                try:
                    with open(path, "rb") as file:
                        return file.read() == database.encode()
                except FileNotFoundError:
                    self._own(path, database)
        return True

    def _own(self, path: str, database: str) -> None:
        new = f"{path}.{os.getpid()}"
        with open(new, "wb") as file:
            file.write(database.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        _sync(os.path.dirname(path), self.path)

    def sync(self, key: str) -> None:
        """Have an object, and its name in every folder on the way to it, survive a loss of power."""
        with _errors("keeping"):
            _sync(os.path.join(self.path, key), self.path)

    def delete(self, keys: Sequence[str]) -> None:
        with _errors("deleting"):
            for key in keys:
                _unlink(os.path.join(self.path, key))
        for home in {os.path.dirname(key) for key in keys}:
            _remove_empty(os.path.join(self.path, home))

    def keys_of(self, id: str) -> list[str]:
        home = f"{id[:2]}/{id}"
        with _errors("listing"):
            try:
                names = os.listdir(os.path.join(self.path, home))
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(f"{home}/{name}" for name in names if not _STAGED.search(name))

    def old_keys(self, older: float) -> Iterator[str]:
        latest = time.time() - older
        for home, entries in self._homes():
            for entry in entries:
                if not _STAGED.search(entry.name) and _modified(entry) <= latest:
                    yield f"{home}/{entry.name}"

    def reading(self, key: str) -> Reading:
        with _errors("reading"):
            return Reading(os.open(os.path.join(self.path, key), _FLAGS))

    def unread(self, key: str) -> bool:
        if _locks is None:
            return True
        with _errors("looking for readers"):
            return _unread(os.path.join(self.path, key))

    def clean(self, older: float) -> int:
        latest, count = time.time() - older, 0
        for home, entries in self._homes():
            for entry in entries:
                if _STAGED.search(entry.name) and _modified(entry) <= latest:
                    with _errors("cleaning up"):
                        count += _unlink(entry.path)
            _remove_empty(os.path.join(self.path, home))
        return count

    def _homes(self) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
        """The folders of uploads, below this one, and the files in each."""
        with _errors("listing"):
            tops = sorted(name for name in os.listdir(self.path) if _TOP.match(name))
        for top in tops:
            with _errors("listing"):
                inside = sorted(os.listdir(os.path.join(self.path, top)))
            for home in inside:
                with _errors("listing"):
                    try:
                        with os.scandir(os.path.join(self.path, top, home)) as entries:
                            found = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
                    except (FileNotFoundError, NotADirectoryError):
                        continue
                yield f"{top}/{home}", found


def _sync(path: str, top: str) -> None:
    """All folders each time, for nobody knows whether the process that made one of them has come to do so.

    PERF: 0.6 ms, of which the folders are 0.2.
    """
    while True:
        fd = os.open(path, _FLAGS)
        try:
            os.fsync(fd)
            if os.fstat(fd).st_size >= _LARGE and hasattr(os, "posix_fadvise"):  # of folders it is a few KiB
                with suppress(OSError):  # it is durable, and advice that a file system does not take changes nothing
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
        if path == top:
            return
        path = os.path.dirname(path)


def _unlink(path: str) -> bool:
    """Remove a file. Whether it was still there."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _modified(entry: os.DirEntry[str]) -> float:
    """When a file was last modified; just now, where it is gone."""
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return time.time()


def _unread(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))  # a network's file system wants it writable
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        _locks.flock(fd, _locks.LOCK_EX | _locks.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    finally:
        os.close(fd)
    return True


def _remove_empty(home: str) -> None:
    """Remove an upload's folder if nothing is in it; obstore makes it anew where somebody is about to write there."""
    try:
        os.rmdir(home)
    except OSError:  # not empty, or gone, and either is fine
        pass


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise mapped(error, doing) from error
