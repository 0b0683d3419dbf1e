"""The tables that files are kept in, and how a row becomes a value and a value a row.

The rule of this file: a row that is read is checked, for it may be damaged; what cannot be is None here, and never
half a value.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, get_args

from streamware.database import Database, Migrations, Waits
from streamware.stored import Part, StoredFile, Upload, UploadKind, is_file_id

__all__ = ["GONE", "IDENTITY", "OPEN", "PARTIAL", "WHOLE", "FileTables"]

# States of a file's row. A gone one is a tombstone: nobody sees it, and its bytes are still to be deleted.
OPEN, WHOLE, GONE = "open", "whole", "gone"
IDENTITY = "files-identity"  # the fact that tells this database from every other
PARTIAL: UploadKind = "partial"

_MIGRATIONS: Migrations = (
    (
        # One that was there before is taken to be of the beginning of its second.
        "ALTER TABLE streamware_files ADD COLUMN micros BIGINT DEFAULT 0 NOT NULL",
        "DROP INDEX IF EXISTS ix_streamware_files_created",
        "CREATE INDEX ix_streamware_files_created ON streamware_files (state, created, micros, id)",
    ),
)
_WAITS = Waits(read=4.0, write=10.0, lock=5.0)  # seconds; they end well before a client gives up
_KINDS = get_args(UploadKind)
_CRC = 2**32 - 1
_SECOND = 1_000_000  # microseconds


class FileTables:
    """Files, their parts and the leases of who looks after them.

    :param url: as ``Database`` takes it.
    :raises ValueError: it cannot be used.
    """

    def __init__(self, url: str) -> None:
        own = {IDENTITY: secrets.randbits(62)}
        self.database = Database(
            url, user="file store", waits=_WAITS, version="files", migrations=_MIGRATIONS, values=own
        )
        sql, table, column = self.database.sql, self.database.table, self.database.column
        number, blob, text = sql.BigInteger(), sql.LargeBinary(), sql.Text()
        self.files = table(
            "files",
            column("id", text, primary_key=True),
            column("state", text),
            column("kind", text),
            column("name", text),
            column("type", text),
            column("length", number, nullable=True),  # what it will have; of a whole file its size
            column("received", number),
            column("crc32", number),
            column("sha256", blob, nullable=True),
            column("created", number),
            column("micros", number),  # of that second; which file of one is the newest
            column("expires", number, nullable=True),
            column("gone", number, nullable=True),  # when it became so
            column("owner", text),
            column("metadata", text),
            column("concat", text),
        )
        f = self.files.c
        sql.Index("ix_streamware_files_created", f.state, f.created, f.micros, f.id)  # to list them
        sql.Index("ix_streamware_files_expires", f.expires)
        # All that a quota needs, so that it is counted without a look at the rows.
        sql.Index("ix_streamware_files_owner", f.owner, f.state, f.length, f.received)
        unhashed = sql.and_(f.state == WHOLE, f.sha256.is_(None))
        sql.Index("ix_streamware_files_unhashed", f.created, sqlite_where=unhashed, postgresql_where=unhashed)
        self.parts = table(
            "parts",
            column("file", text, primary_key=True),
            column("offset", number, primary_key=True),
            column("length", number),
            column("key", text),
            column("crc32", number),
            column("home", text, index=True),  # the upload that it came by, whose id is in the key
        )
        # Who does what must be done by one of them at a time, until when.
        self.leases = table(
            "leases",
            column("task", text, primary_key=True),
            column("holder", text),
            column("until", number),  # milliseconds
        )
        f = self.files.c
        self._file = (f.id, f.name, f.type, f.length, f.crc32, f.sha256, f.created, f.expires)
        self._upload = (f.id, f.name, f.type, f.length, f.created, f.expires, f.received, f.crc32, f.kind)
        self._said = (f.owner, f.metadata, f.concat)
        self.order = (f.created, f.micros, f.id)
        """By which files are listed."""
        # Made once: it is asked of every stored member of a bundle, and to make it takes as long as to ask it.
        p = self.parts.c
        both = self.files.outerjoin(self.parts, p.file == f.id)
        parts = self.database.plain(f.received, p.offset, p.length, p.key, p.crc32).select_from(both)
        self.select_parts = parts.where(f.id == sql.bindparam("file"), f.state != GONE).order_by(p.offset)
        """The rows that ``part_list`` reads of one "file". One statement, so that all of them tell of one moment."""

    # --- reading ---

    def select_files(self) -> Any:
        """Of rows that ``file`` reads."""
        return self.database.plain(*self._file, *self._said, self.files.c.micros).where(self.files.c.state == WHOLE)

    def file(self, row: Sequence[Any]) -> StoredFile | None:
        """A whole file; None where the row is damaged."""
        fid, name, media_type, size, crc32, sha256, created, expires, *said, micros = row
        fine = (
            _are_texts(fid, name, media_type, *said)
            and is_file_id(fid)
            and _are_numbers(size, crc32, created, micros)
            and crc32 <= _CRC
            and micros < _SECOND
            and (expires is None or _are_numbers(expires))
            and (sha256 is None or (type(sha256) is bytes and len(sha256) == 32))
        )
        return StoredFile(*row) if fine else None

    def select_uploads(self) -> Any:
        """Of rows that ``upload`` reads."""
        return self.database.plain(*self._upload, *self._said).where(self.files.c.state == OPEN)

    def upload(self, row: Sequence[Any]) -> Upload | None:
        """An unfinished upload; None where the row is damaged."""
        uid, name, media_type, length, created, expires, received, crc32, kind, *said = row
        fine = (
            _are_texts(uid, name, media_type, kind, *said)
            and is_file_id(uid)
            and _are_numbers(created, expires, received, crc32)
            and crc32 <= _CRC
            and (length is None or (_are_numbers(length) and received <= length))
            and kind in _KINDS
        )
        return Upload(*row) if fine else None

    def part_list(self, rows: Sequence[Sequence[Any]]) -> list[Part] | None:
        """The parts of an upload or a file; None where they are damaged or not all there."""
        parts: list[Part] = []
        end = 0
        for _, offset, length, key, crc32 in rows:
            if offset is None and len(rows) == 1:
                break  # there is no part
            if not (_are_numbers(offset, length, crc32) and offset == end and crc32 <= _CRC and _are_texts(key)):
                return None
            parts.append(Part(offset, length, key, crc32))
            end += length
        return parts if not rows or end == rows[0][0] else None

    # --- writing ---

    def upload_row(self, upload: Upload) -> dict[str, Any]:
        return {
            "id": upload.id,
            "state": OPEN,
            "kind": upload.kind,
            "name": _clean(upload.name),
            "type": _clean(upload.media_type),
            "length": upload.length,
            "received": upload.offset,
            "crc32": upload.crc32,
            "sha256": None,
            "created": upload.created,
            "micros": 0,
            "expires": upload.expires,
            "gone": None,
            "owner": _clean(upload.owner),
            "metadata": _clean(upload.metadata),
            "concat": _clean(upload.concat),
        }

    def file_row(self, file: StoredFile) -> dict[str, Any]:
        """All but the kind."""
        return {
            "id": file.id,
            "state": WHOLE,
            "name": _clean(file.name),
            "type": _clean(file.media_type),
            "length": file.size,
            "received": file.size,
            "crc32": file.crc32,
            "sha256": file.sha256,
            "created": file.created,
            "micros": file.micros,
            "expires": file.expires,
            "gone": None,
            "owner": _clean(file.owner),
            "metadata": _clean(file.metadata),
            "concat": _clean(file.concat),
        }

    def part_row(self, id: str, part: Part) -> dict[str, Any]:
        return {
            "file": id,
            "offset": part.offset,
            "length": part.length,
            "key": part.key,
            "crc32": part.crc32,
            "home": part.key.split("/")[1],
        }


def _clean(text: str) -> str:
    """As a database takes it: half a surrogate pair is no character, and PostgreSQL has no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _are_texts(*values: object) -> bool:
    return all(type(value) is str for value in values)


def _are_numbers(*values: Any) -> bool:
    return all(type(value) is int and value >= 0 for value in values)
