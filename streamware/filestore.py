"""Stored files: their bytes as parts in an object store, their rows in a database, and the order between the two.

The rule of this file: bytes durable first and the row last; to delete, the row first and the bytes after. So whatever
moment a process dies in, a file is whole and listed, or absent, or an unfinished upload with a true offset.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil

from streamware.appender import Appender, Appenders
from streamware.checksums import combine
from streamware.errors import StreamwareError
from streamware.file_rows import FileRows
from streamware.hashing import Hasher, Hashes
from streamware.leftovers import Leftovers, Swept
from streamware.model import Source
from streamware.objects import Objects
from streamware.policy import Policy
from streamware.sources.stored import StoredSource
from streamware.stored import Part, StoredFile, Upload, UploadKind, is_file_id
from streamware.sweeper import Sweeper
from streamware.upload_errors import FileUnknown, OffsetMismatch, UploadExpired
from streamware.uploads import announced_type, clean_name

__all__ = ["FileStore"]

_log = logging.getLogger("streamware")

_CHUNK = 1024 * 1024  # read at a time for a SHA-256


class FileStore:
    """Keeps files of any size and gives them out again. One per application, used from any thread.

    :param url: where the bytes lie: ``file:///DIRECTORY``, ``s3://BUCKET/PREFIX``, ``gs://...`` or ``az://...``.
    :param database: where the rows are: ``sqlite:///PATH`` or ``postgresql+psycopg://USER:PASSWORD@HOST/NAME``.
        Replicas share both.
    :param policy: limits; the defaults if None.
    :param options: settings of the object store by name (endpoint, keys); what is not given comes from the environment.
    :raises ValueError: a URL or an option cannot be used, or a package is missing.
    """

    def __init__(
        self,
        url: str,
        database: str,
        *,
        policy: Policy | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self.objects = Objects(url, options)
        self.rows = FileRows(database)
        self._hashes = Hashes()
        self._hasher = Hasher(self._pieces, self.rows.set_sha256)
        self._leftovers = Leftovers(self.rows, self.objects, finish=self.finish, hash=self._hasher.want)
        self._appenders = Appenders(self.rows, self.objects, self._hashes, self.policy)
        self._sweeper: Sweeper | None = None

    def start(self) -> None:
        """Sweep from now on, on a thread: at once, and then every ``policy.sweep_seconds``. ``close()`` ends it."""
        if self._sweeper is None:
            self._sweeper = Sweeper(self.sweep, self.policy.sweep_seconds)

    def close(self) -> None:
        """End the threads and let go of the database. Requests that still run may fail."""
        if self._sweeper is not None:
            self._sweeper.close()
        self._hasher.close()
        self.rows.close()

    # --- in ---

    @property
    def active(self) -> int:
        """How many uploads this process is adding to."""
        return len(self._appenders)

    def begin(
        self,
        name: str,
        media_type: str,
        *,
        length: int | None = None,
        kind: UploadKind = "raw",
        owner: str = "",
        metadata: str = "",
        concat: str = "",
    ) -> Upload:
        """Begin an upload, of ``length`` bytes or of as many as will come.

        :raises QuotaExceeded: its owner has too many files, or would have too many bytes.
        :raises StoreUnavailable: the database does not answer.
        """
        now = time.time()
        upload = Upload(
            str(uuid.uuid4()),
            name,
            media_type,
            length,
            created=int(now),
            expires=ceil(now + self.policy.upload_seconds),
            kind=kind,
            owner=owner,
            metadata=metadata,
            concat=concat,
        )
        most = self.policy.max_files_per_identity, self.policy.max_bytes_per_identity
        self.rows.create(upload, max_files=most[0], max_bytes=most[1])
        return upload

    def upload(self, id: str, at: int | None = None) -> Upload:
        """An unfinished upload as it stands, with all that a request of this process has received for it until now.

        :param at: where whoever asks goes on. If that is what this told last, it stands there still, whatever else of
            an earlier request has come since: to ask was to give that up.
        :raises FileUnknown: there is none.
        :raises UploadExpired: it has expired.
        """
        if not is_file_id(id):
            raise FileUnknown("not an id")
        self._appenders.settle(id, at)
        upload = self.rows.upload(id)
        if upload is None:
            raise FileUnknown(f"no upload {id}")
        if upload.expires <= time.time():
            raise UploadExpired()
        return upload

    def append(self, upload: Upload, *, atomic: bool = False) -> Appender:
        """Add to an upload, from where it stands. Whoever calls it ends what it returns.

        An earlier request of this process that is still adding to it ends: its client has come back.

        :param atomic: keep nothing before ``keep()`` is called.
        :raises OffsetMismatch: it does not stand at ``upload.offset``.
        """
        return self._appenders.begin(upload, atomic=atomic)

    def set_length(self, upload: Upload, length: int) -> Upload:
        """Say how long an upload will be whose length was not known.

        :raises OffsetMismatch: another length has been said, or it is gone.
        """
        if not self.rows.set_length(upload.id, length):
            raise OffsetMismatch("Another length has been announced for this upload, or it was ended.")
        return replace(upload, length=length)

    def touch(self, id: str) -> None:
        """Let an upload live as long as if its last byte had come now."""
        self.rows.touch(id, ceil(time.time() + self.policy.upload_seconds))

    def finish(self, upload: Upload) -> StoredFile:
        """Make a file of an upload all of whose bytes are kept.

        Its SHA-256 is known at once if this process saw all of them; else it is None until the file has been read.

        :raises OffsetMismatch: it has changed meanwhile, or is gone.
        """
        file = self._file_of(upload, self._hashes.digest(upload.id, upload.offset))
        if not self.rows.finish(file):
            raise OffsetMismatch("The upload has changed meanwhile, or was ended.")
        self._hashes.forget(upload.id)
        if file.sha256 is None:
            self._hasher.want(file.id)
        return file

    def _file_of(self, upload: Upload, sha256: bytes | None) -> StoredFile:
        now = time.time()
        seconds = self.policy.file_seconds
        return StoredFile(
            upload.id,
            upload.name,
            upload.media_type,
            upload.offset,
            upload.crc32,
            sha256,
            created=int(now),
            expires=None if seconds is None else ceil(now + seconds),
            owner=upload.owner,
            metadata=upload.metadata,
            concat=upload.concat,
            micros=int(now % 1 * 1_000_000),
        )

    def join(
        self,
        ids: Sequence[str],
        name: str,
        media_type: str,
        *,
        owner: str = "",
        metadata: str = "",
        concat: str = "",
    ) -> StoredFile:
        """One file of several uploads of the kind "partial", in order; they are used up. No byte is copied or read,
        but afterwards, for its SHA-256.

        :raises FileUnknown, UploadExpired: one is not there.
        :raises OffsetMismatch: one is not whole, or no part of such a file.
        """
        pieces = [self.upload(each) for each in ids]
        if len(set(ids)) != len(ids) or any(piece.kind != "partial" or piece.owner != owner for piece in pieces):
            raise OffsetMismatch("A file is joined of different uploads that were begun as partial ones.")
        if any(piece.offset != piece.length for piece in pieces):
            raise OffsetMismatch("A partial upload is not finished.")
        size = crc = 0
        for piece in pieces:
            size, crc = size + piece.offset, combine(crc, piece.crc32, piece.offset)
        now = int(time.time())
        whole = Upload(str(uuid.uuid4()), name, media_type, size, now, now, offset=size, crc32=crc, owner=owner)
        file = self._file_of(replace(whole, metadata=metadata, concat=concat), None)
        if not self.rows.join(file, ids):
            raise OffsetMismatch("A partial upload has changed meanwhile, or was ended.")
        self._hasher.want(file.id)
        return file

    def add(
        self, name: str, pieces: Iterable[bytes], *, media_type: str = "application/octet-stream", owner: str = ""
    ) -> StoredFile:
        """Store a file of the program's own. Nothing stays if it, or ``pieces``, fails.

        :param name: any text; what is kept of it is what would be of an upload's: its last part, made harmless.
        :param media_type: what is none is kept as application/octet-stream.
        """
        upload = self.begin(clean_name(name, self.policy.max_name_bytes), announced_type(media_type), owner=owner)
        try:
            appender = self.append(upload)
            try:
                for piece in pieces:
                    appender.write(piece)
                return self.finish(appender.keep())
            finally:
                appender.drop()
        except BaseException:
            self.give_up(upload.id)
            raise

    def end(self, id: str) -> None:
        """Delete a file or an unfinished upload. Nobody sees it any more; its bytes go when nobody reads them.

        :raises FileUnknown: there is none.
        """
        if not is_file_id(id) or not self.rows.doom(id):
            raise FileUnknown(f"no file or upload {id}")
        self._appenders.drop(id)
        self._hashes.forget(id)
        if self.objects.folder is not None:
            try:
                self._leftovers.bury(id)
            except StreamwareError as error:
                _log.info("the bytes of %s are left to the sweeper: %s", id, error)

    def give_up(self, id: str) -> None:
        """End an upload that has failed, for whatever reason: the reason is what is to be told, not this."""
        try:
            self.end(id)
        except StreamwareError as error:
            _log.info("upload %s is left to the sweeper: %s", id, error)

    # --- out ---

    def file(self, id: str) -> StoredFile:
        """A file that is whole.

        :raises FileUnknown: there is none.
        """
        file = self.rows.file(id) if is_file_id(id) else None
        if file is None or (file.expires is not None and file.expires <= time.time()):
            raise FileUnknown(f"no file {id}")
        return file

    def files(self, ids: Sequence[str]) -> dict[str, StoredFile]:
        """Those of some files that are there, by id."""
        now = time.time()
        found = self.rows.files([each for each in ids if is_file_id(each)])
        return {key: file for key, file in found.items() if file.expires is None or file.expires > now}

    def listed(self, *, limit: int, after: str | None = None) -> tuple[list[StoredFile], str | None]:
        """A page of the files, newest first, and what to give for ``after`` to get the next; None behind the last.

        :raises ValueError: ``after`` is nothing that a page before has given.
        """
        files, following = self.rows.listed(limit=limit, after=after)
        now = time.time()
        return [file for file in files if file.expires is None or file.expires > now], following

    def source(self, id: str, file: StoredFile | None = None) -> Source:
        """What reads a stored file. Asks nobody yet.

        :param file: the file, where it is known already.
        """
        return StoredSource(self, id, file, chunk_bytes=self.policy.chunk_bytes)

    def parts(self, id: str) -> list[Part]:
        """The parts of a file that is whole, in order."""
        return self.rows.parts(id)

    def _pieces(self, id: str) -> Iterator[bytes]:
        file = self.file(id)
        chunks = StoredSource(self, id, file, chunk_bytes=_CHUNK).open(0, file.size)
        try:
            yield from chunks
        finally:
            chunks.close()

    # --- what is left over ---

    def sweep(self) -> Swept:
        """Make files of uploads that were left when nothing but that was to be done; delete the bytes of what was
        deleted or has expired, and objects that no row knows of; have missing SHA-256 taken. One replica at a time.

        :raises StreamwareError: the database or the object store fails.
        """
        return self._leftovers.sweep()
