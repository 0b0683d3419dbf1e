"""What is left over in a file store: bytes of what is gone, objects of no file, uploads left just short of their end.

The rule of this file: bytes go before their row does, and never while somebody still reads them; so whatever moment it
is broken off in, the next sweep finds the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from streamware.file_rows import FileRows
from streamware.objects import Objects
from streamware.stored import Upload, is_part_key
from streamware.upload_errors import OffsetMismatch, StoreFailed, StoreFull

__all__ = ["Leftovers", "Swept"]

_log = logging.getLogger("streamware")

_TOGETHER = 200  # files or objects that are looked at in one go
_LEASE_SECONDS = 900.0  # a replica that died while it swept holds up the others no longer
_STRAY_SECONDS = 24 * 3600.0  # an object that no row knows of may belong to a request that still runs
_READ_SECONDS = 3600.0  # for downloads that began before the file was deleted, where they cannot be seen


class Swept(NamedTuple):
    """What one sweep did.

    ``files``: deleted and expired files and uploads whose bytes are gone now. ``waiting``: those somebody still reads,
    and those that cannot be deleted. ``strays``: objects of which no row knew. ``drafts``: what writers that were
    killed had left. ``hashing``: files whose SHA-256 is to be taken. ``completed``: uploads that had all their bytes,
    of which files were made. ``ours`` False: another replica is at it, so nothing was done.
    """

    files: int = 0
    waiting: int = 0
    strays: int = 0
    drafts: int = 0
    hashing: int = 0
    completed: int = 0
    ours: bool = True

    def __str__(self) -> str:
        if not self.ours:
            return "another replica sweeps"
        return (
            f"{self.files} files and uploads deleted, {self.waiting} still to be, {self.strays} stray objects and "
            f"{self.drafts} drafts removed, {self.hashing} SHA-256 to be taken, {self.completed} uploads completed"
        )


class Leftovers:
    """Clears away what is left over in one store. From any thread.

    :param finish: makes a file of an upload that has all its bytes (``FileStore.finish``).
    :param hash: has the SHA-256 of a file taken, by its id; False: there is no room for more now.
    """

    def __init__(
        self, rows: FileRows, objects: Objects, *, finish: Callable[[Upload], object], hash: Callable[[str], bool]
    ) -> None:
        self._rows = rows
        self._objects = objects
        self._finish = finish
        self._hash = hash
        self._hashed_to: tuple[int, str] | None = None  # the last file whose SHA-256 was asked for

    def sweep(self) -> Swept:
        """See ``FileStore.sweep``."""
        if not self._claim():
            return Swept(ours=False)
        completed = self._rows.complete(_TOGETHER)
        for upload in completed:
            try:
                self._finish(upload)
            except OffsetMismatch:
                pass  # by now it is one, or was ended
        files, waiting = 0, set[str]()
        while batch := set(self._doomed(_TOGETHER + len(waiting))) - waiting:
            for each in batch:
                try:
                    gone = self.bury(each)
                except (StoreFailed, StoreFull) as error:  # of this one; a store that does not answer ends the sweep
                    _log.warning("the bytes of %s cannot be deleted: %s", each, error)
                    gone = False
                if gone:
                    files += 1
                else:
                    waiting.add(each)
            self._claim()  # it is still ours, and for as long again
        strays = self._sweep_strays()
        drafts = self._objects.clean(_STRAY_SECONDS)
        hashing = self._hash_missing()
        self._claim(0.0)  # whoever starts next sweeps at once
        return Swept(files, len(waiting), strays, drafts, hashing, len(completed))

    def _sweep_strays(self) -> int:
        if not self._objects.belong_to(self._rows.identity()):
            # A database that was lost, or another one by mistake, knows of nothing: all would look like strays.
            _log.warning(
                "%s belongs to another database; only what this one knows to be gone is deleted there",
                self._objects.name,
            )
            return 0
        strays, old = 0, filter(is_part_key, self._objects.old_keys(_STRAY_SECONDS))
        while keys := list(islice(old, _TOGETHER)):
            unknown = self._rows.strays(keys)
            if unknown:
                self._objects.delete(unknown)
                strays += len(unknown)
            self._claim()
        return strays

    def _hash_missing(self) -> int:
        """Ask for what is missing, as far as there is room, and from there on the next time: so each file has its turn,
        whatever becomes of those that cannot be read."""
        asked = 0
        while places := self._rows.unhashed(_TOGETHER, after=self._hashed_to):
            for place in places:
                if not self._hash(place[1]):
                    return asked
                self._hashed_to = place
                asked += 1
        self._hashed_to = None
        return asked

    def bury(self, id: str) -> bool:
        """Delete the bytes of what nobody sees any more, and then its row. False: somebody still reads them.

        :raises StreamwareError: the database or the object store fails.
        """
        keys = self._rows.keys(id)
        if keys and not self._objects.unread(keys[0]):
            return False
        known = set(keys)
        self._objects.delete([*keys, *(key for key in self._objects.keys_of(id) if key not in known)])
        self._rows.forget(id)
        return True

    def _claim(self, seconds: float = _LEASE_SECONDS) -> bool:
        return self._rows.claim("sweep", seconds, time.time())

    def _doomed(self, limit: int) -> list[str]:
        # Of a local file it can be seen whether somebody still reads it.
        grace = int(_READ_SECONDS) if self._objects.folder is None else 0
        return self._rows.doomed(int(time.time()), limit, grace=grace)
