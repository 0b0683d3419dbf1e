"""One writer on one upload: bytes into parts, parts into the object store, and then a row that says so.

The rule of this file: bytes first, row last. A part is durable before the row counts it, the row moves on only from
where this writer knows it to be, and what no row counts is taken back or left to the sweeper, never shown.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from streamware.checksums import combine, crc32
from streamware.errors import StreamwareError
from streamware.file_rows import FileRows
from streamware.hashing import Hashes
from streamware.objects import Objects, ObjectWriter
from streamware.policy import Policy
from streamware.stored import Part, Upload
from streamware.upload_errors import OffsetMismatch, StoreUnavailable, UploadLocked, UploadTooLarge

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Appender", "Appenders"]

_log = logging.getLogger("streamware")


class Appender:
    """Adds to an upload. Begun by ``FileStore.append``; whoever made it ends it, with ``keep`` at last or ``drop``.

    Used by one thread, but for ``surrender`` and ``settle``, by which a later request reaches it. It takes bytes once
    ``take_over`` has been called.

    :param upload: as its row is.
    :param atomic: nothing is kept before ``keep`` is called.
    :param ended: called once, when it has ended.
    """

    def __init__(
        self,
        upload: Upload,
        *,
        rows: FileRows,
        objects: Objects,
        hashes: Hashes,
        policy: Policy,
        atomic: bool,
        ended: Callable[[Appender], None],
    ) -> None:
        self.upload = upload
        self.received = upload.offset
        self._rows = rows
        self._objects = objects
        self._hashes = hashes
        self._policy = policy
        self._atomic = atomic
        self._tell_end = ended
        self._most = policy.max_upload_bytes if upload.length is None else upload.length
        self._sha: _Hash | None = None
        self._kept_sha: _Hash | None = None
        self._parts: list[Part] = []  # durable, and not counted by the row yet
        self._writer: ObjectWriter | None = None  # of the part that is being written
        self._key = ""
        self._crc = 0
        self._cut_at = time.monotonic()  # when the last part was cut, or this was begun
        # An upload that goes on must not expire meanwhile.
        self._part_seconds = min(policy.upload_part_seconds, policy.upload_seconds / 2)
        self._told: int | None = None  # how far it came when somebody asked last
        self._over: StreamwareError | None = None  # what a later call is told
        self._given_over = False  # to a later request, and all that had been written is kept
        self._lock = threading.Lock()

    def take_over(self, enter: Callable[[Appender], Appender | None]) -> None:
        """Become the one that adds to the upload; whoever has done so until now ends.

        :param enter: puts this one in the place of the one before, which it returns.
        :raises OffsetMismatch: the upload does not stand where this one is to begin.
        :raises StoreUnavailable: that cannot be told.
        """
        with self._lock:  # whoever comes next waits here, and so until all before it have ended
            before = enter(self)
            try:
                if before is not None:
                    before.surrender(self.upload.offset)
                    found = self._rows.upload(self.upload.id)
                    if found is None or found.offset != self.upload.offset:
                        raise OffsetMismatch("More has come for this upload meanwhile.")
            except BaseException:
                self._drop(UploadLocked("The request has ended."))
                raise
            self._sha = self._hashes.take(self.upload.id, self.upload.offset)
            self._kept_sha = None if self._sha is None else self._sha.copy()

    def write(self, piece: bytes | memoryview) -> None:
        """Take the next bytes. Blocks while they are written.

        :raises UploadTooLarge: they go past the upload's length, or what one may have; none of them is taken.
        :raises UploadLocked: a later request has taken over.
        :raises OffsetMismatch: somebody else, of another process, has added to the upload meanwhile.
        :raises StoreFull, StoreUnavailable, StoreFailed: they cannot be kept; it is then to be dropped.
        :raises QuotaExceeded: there is no room for them.
        """
        with self._lock:
            self._check()
            if self.received + len(piece) > self._most:
                raise UploadTooLarge(
                    f"This server takes files of at most {self._most} bytes."
                    if self.upload.length is None
                    else f"More bytes came than the {self._most} that were announced."
                )
            if not piece:
                return
            if self._writer is None:
                self._key = f"{self.upload.id[:2]}/{self.upload.id}/{self.received:016x}-{secrets.token_hex(4)}"
                self._writer = self._objects.writer(self._key)
                self._crc = 0
            self._writer.write(piece)
            self._crc = crc32(piece, self._crc)
            if self._sha is not None:
                self._sha.update(piece)
            self.received += len(piece)
            old = time.monotonic() - self._cut_at > self._part_seconds
            if old or self.received - self._from >= self._policy.upload_part_bytes:
                self._cut()

    def keep(self) -> Upload:
        """Make everything durable that was written, have the row say so, and end.

        Where a later request has taken over behind the last byte written, that is done already.

        :raises OffsetMismatch: somebody else was quicker, or the upload is gone; only what was kept before is kept.
        :raises UploadLocked: a later request has taken over, and not all that was written is kept: it was to be kept
            whole or not at all, or came behind the place that was told.
        :raises StoreFull, StoreUnavailable, StoreFailed, QuotaExceeded: it cannot be kept; it is then to be dropped.
        """
        with self._lock:
            if self._given_over:
                return self.upload
            self._check()
            self._close_part()
            self._count()
            self._end(UploadLocked("The request has ended."))
            return self.upload

    def drop(self) -> None:
        """Give up what is not kept, and end. Idempotent, and raises nothing: what stays behind is for the sweeper."""
        with self._lock:
            self._drop(UploadLocked("The request has ended."))

    def settle(self, at: int | None = None) -> None:
        """From another thread: keep what has been written so far, unless it is to be kept whole or not at all.

        A failure is the writer's own to be told of, by its next call.

        :param at: where whoever asks goes on, None for one who asks that; if it is what was told last, it stays so, and
            nothing more is kept.
        """
        with self._lock:
            if self._has_to_settle(at):
                self._settle()
                if at is None:
                    self._told = self.upload.offset

    def surrender(self, at: int) -> None:
        """From another thread: keep what has been written so far, and end: a later request takes over.

        :param at: where that goes on, as in ``settle``: what is late of a request that was cut off, it sends again.
        """
        with self._lock:
            if self._has_to_settle(at):
                self._settle()
            self._given_over = self._over is None and self.received == self.upload.offset
            self._drop(UploadLocked())

    # --- with the lock held ---

    @property
    def _from(self) -> int:
        """Where the part that is being written begins."""
        return self._parts[-1].offset + self._parts[-1].length if self._parts else self.upload.offset

    def _has_to_settle(self, at: int | None) -> bool:
        agreed = at is not None and at == self._told == self.upload.offset
        return self._over is None and not self._atomic and not agreed

    def _check(self) -> None:
        if self._over is not None:
            raise self._over

    def _settle(self) -> None:
        try:
            self._close_part()
            self._count()
        except StreamwareError as error:
            _log.info("upload %s: what has come could not be kept: %s", self.upload.id, error)
            self._drop(error)

    def _cut(self) -> None:
        self._cut_at = time.monotonic()
        self._close_part()
        if not self._atomic:
            self._count()
        else:  # as long as its bytes come, the sweeper is to spare it
            self._rows.touch(self.upload.id, self._expires())

    def _close_part(self) -> None:
        writer = self._writer
        if writer is None:
            return
        begin = self._from
        writer.close()
        self._writer = None
        self._parts.append(Part(begin, self.received - begin, self._key, self._crc))

    def _count(self) -> None:
        """Have the row count the parts that are durable."""
        if not self._parts:
            return
        upload, crc = self.upload, self.upload.crc32
        for part in self._parts:
            crc = combine(crc, part.crc32, part.length)
        expires = self._expires()
        most = {"max_bytes": self._policy.max_bytes_per_identity, "max_parts": self._policy.max_upload_parts}
        try:
            added = self._rows.append(upload.id, upload.offset, self._parts, crc32=crc, expires=expires, **most)
        except StoreUnavailable:
            # The row may count them all the same, only the answer was lost. If not, they are for the sweeper.
            self._parts.clear()
            raise
        if not added:
            raise OffsetMismatch("Something else was added to this upload meanwhile, or it was ended.")
        self._parts.clear()
        self.upload = replace(upload, offset=self.received, crc32=crc, expires=expires)
        self._kept_sha = None if self._sha is None else self._sha.copy()

    def _expires(self) -> int:
        return ceil(time.time() + self._policy.upload_seconds)

    def _drop(self, why: StreamwareError) -> None:
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
        try:
            if self._parts:
                self._objects.delete([part.key for part in self._parts])
        except StreamwareError as error:
            _log.info("upload %s: %d parts are left to the sweeper: %s", self.upload.id, len(self._parts), error)
        self._parts.clear()
        self.received = self.upload.offset
        self._end(why)

    def _end(self, why: StreamwareError) -> None:
        if self._over is None:
            self._over = why
            self._hashes.keep(self.upload.id, self.upload.offset, self._kept_sha)
            self._tell_end(self)


class Appenders:
    """Those of one process, no more than one for each upload. From any thread."""

    def __init__(self, rows: FileRows, objects: Objects, hashes: Hashes, policy: Policy) -> None:
        self._rows = rows
        self._objects = objects
        self._hashes = hashes
        self._policy = policy
        self._active: dict[str, Appender] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._active)

    def begin(self, upload: Upload, *, atomic: bool) -> Appender:
        """See ``FileStore.append``."""
        appender = Appender(
            upload,
            rows=self._rows,
            objects=self._objects,
            hashes=self._hashes,
            policy=self._policy,
            atomic=atomic,
            ended=self._ended,
        )
        appender.take_over(self._enter)
        return appender

    def _enter(self, appender: Appender) -> Appender | None:
        with self._lock:
            before = self._active.get(appender.upload.id)
            self._active[appender.upload.id] = appender
        return before

    def settle(self, id: str, at: int | None) -> None:
        """Have what is being added to an upload kept as far as it has come, if anybody adds to it; see
        ``Appender.settle``.
        """
        with self._lock:
            active = self._active.get(id)
        if active is not None:
            active.settle(at)

    def drop(self, id: str) -> None:
        """End what is being added to an upload: it is no more."""
        with self._lock:
            active = self._active.pop(id, None)
        if active is not None:
            active.drop()

    def _ended(self, appender: Appender) -> None:
        with self._lock:
            if self._active.get(appender.upload.id) is appender:
                del self._active[appender.upload.id]
