"""What the database of a file service knows: uploads, files, their parts, and who looks after them.

The rule of this file: every method is one transaction that is race-free among threads, processes and replicas: what it
depends on is part of the statement that writes, or is locked first.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from streamware.errors import StreamwareError
from streamware.file_database import FileDatabase
from streamware.file_tables import GONE, IDENTITY, OPEN, PARTIAL, WHOLE
from streamware.stored import Part, StoredFile, Upload, is_file_id
from streamware.upload_errors import QuotaExceeded, UploadTooLarge

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["FileRows"]

_TOGETHER = 500  # ids in one query
_DAY = 24 * 3600
_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,6})\.(.{36})\Z")


class FileRows(FileDatabase):
    """Uploads and files by their ids; ``FileDatabase`` tells what it takes and raises.

    Each method but ``close`` is one transaction, and raises ``StoreUnavailable`` in bounded time where the database
    does not answer. It is not tried again, for it may have been done.
    """

    # --- uploads ---

    def create(self, upload: Upload, *, max_files: int | None = None, max_bytes: int | None = None) -> None:
        """Keep a new upload.

        :param max_files: of its owner, this one included, whole or not; ``max_bytes`` likewise.
        :raises QuotaExceeded: it would be more than that.
        """
        row = self._tables.upload_row(upload)

        def create(connection: sa.Connection) -> bool:
            if max_files is not None or max_bytes is not None:
                files, size = self._used(connection, row["owner"])
                size += max(upload.length or 0, upload.offset)
                if files + 1 > _bound(max_files) or size > _bound(max_bytes):
                    return False
            connection.execute(self._tables.files.insert(), row)
            return True

        if not self._write(create):
            raise QuotaExceeded

    def upload(self, id: str) -> Upload | None:
        """An unfinished upload; None: there is none, or it is whole or gone.

        :raises StoreFailed: its row is damaged.
        """
        query = self._tables.select_uploads().where(self._tables.files.c.id == id)
        row = self._read(lambda connection: connection.execute(query).first())
        return None if row is None else self._believed(id, self._tables.upload(row))

    def append(
        self,
        id: str,
        offset: int,
        parts: Sequence[Part],
        *,
        crc32: int,
        expires: int,
        max_bytes: int | None = None,
        max_parts: int | None = None,
    ) -> bool:
        """Add parts, which go on from ``offset`` without a gap, and move the upload's offset to their end.

        False: it does not stand at ``offset`` any more, would become longer than its length, or is gone; nothing was
        written.

        :param crc32: of the whole upload as far as it goes then.
        :param max_bytes: of its owner.
        :param max_parts: of this upload.
        :raises QuotaExceeded: with these parts there would be more bytes.
        :raises UploadTooLarge: there would be more parts.
        """
        end = offset
        for part in parts:
            if part.offset != end:
                raise ValueError(f"a part begins at {part.offset}, and not at {end}")
            end += part.length
        table, rows = self._tables.files, [self._tables.part_row(id, part) for part in parts]
        grow = (
            table.update()
            .where(table.c.id == id, table.c.state == OPEN, table.c.received == offset, *self._fits(end))
            .values(received=end, crc32=crc32, expires=expires)
        )

        there = self._database.sql.select(self._database.sql.func.count()).where(self._tables.parts.c.file == id)

        def append(connection: sa.Connection) -> bool | StreamwareError:
            if max_bytes is not None and not self._has_room(connection, id, end, max_bytes):
                return QuotaExceeded()
            if max_parts is not None and connection.execute(there).scalar_one() + len(rows) > max_parts:
                return UploadTooLarge(f"The upload comes in more than {max_parts} pieces.")
            if connection.execute(grow).rowcount != 1:
                return False
            if rows:
                connection.execute(self._tables.parts.insert(), rows)
            return True

        done = self._write(append)
        if isinstance(done, StreamwareError):
            raise done
        return done

    def touch(self, id: str, expires: int) -> bool:
        """Let an unfinished upload live until ``expires``; False: there is none."""
        return self._change(id, OPEN, expires=expires)

    def set_length(self, id: str, length: int, *, max_bytes: int | None = None) -> bool:
        """Say how long an upload will be; False: it has another length, is longer already, or is gone.

        :param max_bytes: of its owner.
        :raises QuotaExceeded: with this length there would be more.
        """
        table = self._tables.files
        same = self._database.sql.or_(table.c.length.is_(None), table.c.length == length)
        say = (
            table.update()
            .where(table.c.id == id, table.c.state == OPEN, same, table.c.received <= length)
            .values(length=length)
        )

        def set_length(connection: sa.Connection) -> bool | None:
            if max_bytes is not None and not self._has_room(connection, id, length, max_bytes):
                return None
            return connection.execute(say).rowcount == 1

        done = self._write(set_length)
        if done is None:
            raise QuotaExceeded
        return done

    def finish(self, file: StoredFile) -> bool:
        """Make a file of an upload that has come to the file's size; False: it has not, or is none any more."""
        table = self._tables.files
        stands = (table.c.id == file.id, table.c.state == OPEN, table.c.kind != PARTIAL, table.c.received == file.size)
        finish = table.update().where(*stands, *self._fits(file.size, exactly=True)).values(self._tables.file_row(file))
        return self._write(lambda connection: connection.execute(finish).rowcount == 1)

    def join(self, file: StoredFile, ids: Sequence[str]) -> bool:
        """Make a file of the parts of partial uploads, in this order; the uploads are no more.

        False: one of them is missing, named twice or not at its length, or all are not as long as the file.
        """
        table, parts = self._tables.files, self._tables.parts
        row = self._tables.file_row(file) | {"kind": "tus"}

        def join(connection: sa.Connection) -> bool:
            lengths: dict[str, int] = {}
            for some in _batches(sorted(ids)):  # in order, so that two that join the same cannot wait for each other
                query = self._database.plain(table.c.id, table.c.received).with_for_update().order_by(table.c.id)
                whole = (table.c.state == OPEN, table.c.kind == PARTIAL, table.c.length == table.c.received)
                lengths.update(map(tuple, connection.execute(query.where(table.c.id.in_(some), *whole))))
            if len(lengths) != len(ids) or sum(lengths.values()) != file.size:
                return False
            connection.execute(table.insert(), row)
            offset = 0
            for each in ids:
                moved = {"file": file.id, "offset": parts.c.offset + offset}
                connection.execute(parts.update().where(parts.c.file == each).values(moved))
                offset += lengths[each]
            for some in _batches(ids):
                connection.execute(table.delete().where(table.c.id.in_(some)))
            return True

        return self._write(join)

    # --- files ---

    def set_sha256(self, id: str, sha256: bytes) -> None:
        """Of a whole file; nothing happens where there is none."""
        self._change(id, WHOLE, sha256=sha256)

    def file(self, id: str) -> StoredFile | None:
        """A whole file; None: there is none.

        :raises StoreFailed: its row is damaged.
        """
        query = self._tables.select_files().where(self._tables.files.c.id == id)
        row = self._read(lambda connection: connection.execute(query).first())
        return None if row is None else self._believed(id, self._tables.file(row))

    def files(self, ids: Sequence[str]) -> dict[str, StoredFile]:
        """Whole files by their ids; what is none, or damaged, is left out."""
        select, table = self._tables.select_files(), self._tables.files

        def files(connection: sa.Connection) -> list[Any]:
            return [row for some in _batches(ids) for row in connection.execute(select.where(table.c.id.in_(some)))]

        return {file.id: file for file in self._whole(self._read(files))}

    def parts(self, id: str) -> list[Part]:
        """The parts of an unfinished upload or a whole file, in the order of their offsets; none where it is neither.

        :raises StoreFailed: they are not all there.
        """
        rows = self._read(lambda connection: list(connection.execute(self._tables.select_parts, {"file": id})))
        return self._believed(id, self._tables.part_list(rows))

    def listed(self, *, limit: int, after: str | None = None) -> tuple[list[StoredFile], str | None]:
        """Some whole files, newest first, and what to give as ``after`` for the next ones; None: there are none.

        Files that are added or deleted meanwhile make no other file come twice or be left out.

        :raises ValueError: ``after`` is not what an earlier page gave.
        """
        order = self._tables.order
        query = self._tables.select_files().order_by(*(column.desc() for column in order)).limit(limit + 1)
        if after is not None:
            place = _CURSOR.match(after)
            if place is None or not is_file_id(place[3]):
                raise ValueError("this is no place in the list of files")
            query = query.where(self._database.sql.tuple_(*order) < (int(place[1]), int(place[2]), place[3]))
        rows = self._read(lambda connection: list(connection.execute(query)))
        files = self._whole(rows[:limit])
        if len(rows) <= limit or not files:
            return files, None
        last = files[-1]
        return files, f"{last.created}.{last.micros}.{last.id}"

    # --- the end of both ---

    def doom(self, id: str) -> bool:
        """Make an upload or a file be gone, for everybody at once; False: there is none."""
        return self._change(id, OPEN, WHOLE, state=GONE, gone=int(time.time()))

    def doomed(self, now: int, limit: int, *, grace: int = 0) -> list[str]:
        """Some whose bytes are to be deleted: gone ones, and expired ones, which become gone here.

        :param grace: so many seconds ago at least they became gone; downloads that had begun may run so long.
        """
        table, sql = self._tables.files, self._database.sql
        expired = (table.c.state != GONE, table.c.expires <= now)
        # One that somebody is writing at this moment has time; to wait for several could be to wait for each other.
        some = sql.select(table.c.id).where(*expired).limit(limit).with_for_update(skip_locked=True)
        gone = sql.select(table.c.id).where(table.c.state == GONE).order_by(table.c.gone).limit(limit)
        if grace:
            # A clock that was ahead when it became gone does not keep it for ever.
            gone = gone.where(sql.or_(table.c.gone <= now - grace, table.c.gone > now + _DAY))

        def doomed(connection: sa.Connection) -> list[str]:
            for few in _batches(connection.scalars(some).all()):
                connection.execute(table.update().where(table.c.id.in_(few)).values(state=GONE, gone=now))
            return list(connection.scalars(gone))

        return self._write(doomed)

    def keys(self, id: str) -> list[str]:
        """Under which keys the bytes of a file lie, whatever its state. Those of a joined one lie at several homes."""
        parts = self._tables.parts
        query = self._database.plain(parts.c.key).where(parts.c.file == id).order_by(parts.c.offset)
        return self._read(lambda connection: list(connection.scalars(query)))

    def forget(self, id: str) -> None:
        """Delete the rows of one that is gone, once its bytes are deleted."""
        table, parts = self._tables.files, self._tables.parts

        def forget(connection: sa.Connection) -> None:
            if connection.execute(table.delete().where(table.c.id == id, table.c.state == GONE)).rowcount:
                connection.execute(parts.delete().where(parts.c.file == id))

        self._write(forget)

    def identity(self) -> str:
        """What tells this database from every other, made with its tables."""
        facts = self._database.facts
        query = self._database.plain(facts.c.value).where(facts.c.name == IDENTITY)
        return f"{self._read(lambda connection: connection.scalar(query)) or 0:016x}"

    def strays(self, keys: Sequence[str]) -> list[str]:
        """Which of these keys belong to nothing: no file has them as a part, nor is there an unfinished upload at whose
        home they lie.
        """
        table, parts = self._tables.files, self._tables.parts
        homes = [key.split("/")[1] if key.count("/") == 2 else "" for key in keys]

        def belonging(connection: sa.Connection) -> set[str]:
            # Uploads first: one that is finished between the two queries then has its parts counted by the second.
            unfinished: set[str] = set()
            for some in _batches(sorted(set(homes))):
                query = self._database.sql.select(table.c.id).where(table.c.id.in_(some), table.c.state == OPEN)
                unfinished.update(connection.scalars(query))
            known = {key for key, home in zip(keys, homes, strict=True) if home in unfinished}
            for some in _batches(sorted(set(homes))):
                known.update(connection.scalars(self._database.sql.select(parts.c.key).where(parts.c.home.in_(some))))
            return known

        known = self._read(belonging)
        return [key for key in keys if key not in known]

    def complete(self, limit: int) -> list[Upload]:
        """Some uploads of the kind "tus" that have all their bytes and are no files yet: whoever was about to make one
        of them died in between."""
        table = self._tables.files
        query = self._tables.select_uploads().where(
            table.c.kind == "tus", table.c.received == table.c.length, table.c.expires > int(time.time())
        )
        rows = self._read(lambda connection: list(connection.execute(query.limit(limit))))
        return [upload for row in rows if (upload := self._tables.upload(row)) is not None]

    def unhashed(self, limit: int, *, after: tuple[int, str] | None = None) -> list[tuple[int, str]]:
        """Some whole files whose SHA-256 is not known yet, the oldest first: when each was stored, and its id.

        :param after: the last one of those before.
        """
        table = self._tables.files
        place = table.c.created, table.c.id
        missing = table.c.state == WHOLE, table.c.sha256.is_(None)
        query = self._database.plain(*place).where(*missing).order_by(*place).limit(limit)
        if after is not None:
            query = query.where(self._database.sql.tuple_(*place) > after)
        return self._read(lambda connection: [(row[0], row[1]) for row in connection.execute(query)])

    def _fits(self, end: int, *, exactly: bool = False) -> tuple[Any, ...]:
        length = self._tables.files.c.length
        return (self._database.sql.or_(length.is_(None), length == end if exactly else length >= end),)

    def _change(self, id: str, *states: str, **values: Any) -> bool:
        table = self._tables.files
        change = table.update().where(table.c.id == id, table.c.state.in_(states)).values(values)
        return self._write(lambda connection: connection.execute(change).rowcount == 1)

    def _whole(self, rows: Iterable[Sequence[Any]]) -> list[StoredFile]:
        files = [self._tables.file(row) for row in rows]
        if None in files:
            self._database.complain("damage", "rows of files are damaged, and these are left out")
        return [file for file in files if file is not None]


def _bound(limit: int | None) -> float:
    return float("inf") if limit is None else limit


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[first : first + _TOGETHER] for first in range(0, len(ids), _TOGETHER))
