"""The ledger's tables in an SQL database: their schema, and what is read from them and written to them.

The rule of this file: it alone knows these tables. A row that is read is checked, for it may be damaged, and left out
where it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from streamware.checksums import crc32
from streamware.database import Database, Migrations, Waits
from streamware.ledger import plausible
from streamware.sessions import Task

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Answer", "Tables"]

_MIGRATIONS: Migrations = (
    # PERF: to keep it cost every block learned a fifth of its writing, and the sweep gets by without it.
    ("DROP INDEX IF EXISTS ix_streamware_blocks_seen",),
)
_MAX_ROWS = 300_000  # of one reading: a file of 1.2 TB
_STATEMENT_ROWS = (256, 64, 16, 4, 1)  # that one statement may write
_MAX_FORGOTTEN = 10_000
_LATE = 100  # as many transactions may become visible after one of a higher number
_SWEEP_ROWS = 1000
_LOOK_ROWS = 5000  # that one transaction looks at where no index finds the expired ones
# Seconds; what is read may be read again instead.
_WAITS = Waits(read=1.5, write=10.0, lock=1.0)
_SPARED_FRACTION = 16  # a row is not written again before it is this part of its lifetime old
_DAY = 24 * 3600
_NEVER = 2**62  # a time that no row has
_LIES = -1  # a check that no row has by itself


class Answer(NamedTuple):
    """What the database knows of some versions."""

    forgotten: dict[int, bytes]  # versions that were forgotten, by a number that grows
    damaged: set[bytes]  # versions of which at least one row cannot be believed
    blocks: list[tuple[bytes, int, int, bool]]  # version, index, CRC-32, and whether the row is getting old


class Tables:
    """The tables of one database. Connects to nothing; what takes a connection runs in a ``Session``'s transaction.

    :param seconds: the lifetime of what is learned.
    :raises ValueError: the URL cannot be used.
    """

    def __init__(self, url: str, *, seconds: float) -> None:
        self.database = Database(
            url, user="ledger", waits=_WAITS, version="version", migrations=_MIGRATIONS, values={"swept": 0}
        )
        self._sql = self.database.sql
        self._facts = self.database.facts
        self._seconds = int(seconds)
        self._define()

    def _define(self) -> None:
        sql = self._sql
        number, blob, text = sql.BigInteger(), sql.LargeBinary(), sql.Text()
        table, column = self.database.table, self.database.column
        self._blocks = table(
            "blocks",
            column("version", blob, primary_key=True),
            column("block", number, primary_key=True),
            column("crc32", number),
            column("check", number),
            column("seen", number),
        )
        self._coded = table(
            "coded",
            column("key", blob, primary_key=True),
            column("length", number),
            column("check", number),
            column("seen", number, index=True),
        )
        self._links = table(
            "links",
            column("token", text, primary_key=True),
            column("body", blob),
            column("check", number),
            column("expires", number, index=True),
        )
        # For the other processes, which may still remember it.
        self._forgotten = table(
            "forgotten",
            sql.Column("id", number.with_variant(sql.Integer(), "sqlite"), primary_key=True),
            column("version", blob),
            column("seen", number, index=True),
            numbered=True,
        )
        self._put_blocks = self._upsert(self._blocks, "crc32", "check", "seen")
        self._put_coded = self._upsert(self._coded, "length", "check", "seen")
        self._put_link = self._upsert(self._links, "body", "check", "expires")

    def _upsert(self, table: sa.Table, *names: str) -> Callable[[int], str]:
        """The statement that inserts so many rows. A row that is there is written again only where it says something
        else, or is getting old.

        A checksum that is another than before makes the row a liar, and nothing but forgetting the version undoes that:
        whatever is wrong may be wrong with its other blocks.
        """
        sets = {name: f'excluded."{name}"' for name in names}
        differs = [f'{table.name}."{name}" <> excluded."{name}"' for name in names if name != "seen"]
        if "seen" in names:
            differs.append(f"{table.name}.seen < excluded.seen - {self._seconds // _SPARED_FRACTION}")
            differs.append(f"{table.name}.seen > excluded.seen + {_DAY}")
        condition = f"({' OR '.join(differs)})"
        if "crc32" in names:
            other = f"{table.name}.crc32 <> excluded.crc32"
            sets["check"] = f"""CASE WHEN {other} THEN {_LIES} ELSE excluded."check" END"""
            condition = f"""{table.name}."check" <> {_LIES} AND {condition}"""
        key = ", ".join(column.name for column in table.primary_key)
        update = ", ".join(f'"{name}" = {value}' for name, value in sets.items())
        columns = ", ".join(f'"{column.name}"' for column in table.columns)
        row = f"({', '.join([self.database.mark] * len(table.columns))})"
        begin = f"INSERT INTO {table.name} ({columns}) VALUES "
        end = f" ON CONFLICT ({key}) DO UPDATE SET {update} WHERE {condition}"
        return lambda count: begin + ", ".join([row] * count) + end

    # --- reading ---

    def read(self, connection: sa.Connection, versions: Sequence[bytes], after: int) -> Answer:
        """What is known of some versions, and what anybody forgot, as ``after`` or a little before.

        The latter is asked first, so that no row is older than a forgetting that is not seen.
        """
        table, now = self._forgotten, int(time.time())
        query = self.database.plain(table.c.id, table.c.version).where(table.c.id > after - _LATE)
        latest = connection.execute(query.order_by(table.c.id.desc()).limit(_MAX_FORGOTTEN))
        answer = Answer({number: version for number, version in latest if isinstance(version, bytes)}, set(), [])
        table = self._blocks
        wanted = self.database.plain(table.c.version, table.c.block, table.c.crc32, table.c.check, table.c.seen)
        query = wanted.where(table.c.version.in_(versions), table.c.seen >= now - self._seconds)
        old = now - self._seconds // _SPARED_FRACTION
        for version, block, crc, check, seen in connection.execute(query.limit(_MAX_ROWS)):
            if plausible(version, block, crc) and check == _check(version, block, crc) and isinstance(seen, int):
                answer.blocks.append((version, block, crc, seen < old))
            else:
                answer.damaged.add(version)
        return answer

    def read_coded(self, connection: sa.Connection, keys: Sequence[bytes]) -> dict[bytes, int]:
        table, oldest = self._coded, int(time.time()) - self._seconds
        wanted = self.database.plain(table.c.key, table.c.length, table.c.check)
        found, damaged = {}, False
        for key, length, check in connection.execute(wanted.where(table.c.key.in_(keys), table.c.seen >= oldest)):
            if plausible(key, 0, 0) and type(length) is int and length >= 0 and check == _check(key, length, 0):
                found[key] = length
            else:
                damaged = True
        if damaged:
            self.database.complain("damage", "a compressed size is damaged, and not believed")
        return found

    def read_link(self, connection: sa.Connection, token: str) -> tuple[bytes, int] | None:
        table = self._links
        query = self.database.plain(table.c.body, table.c.expires, table.c.check).where(table.c.token == token)
        for body, expires, check in connection.execute(query):
            if type(body) is bytes and type(expires) is int and check == _check_link(token, body, expires):
                return body, expires
            self.database.complain("damage", "a link is damaged, and not believed")
        return None

    # --- writing ---

    def write(
        self, connection: sa.Connection, blocks: Mapping[tuple[bytes, int], int], coded: Mapping[bytes, int]
    ) -> None:
        """Keep CRC-32s by version and index, and compressed sizes by key.

        In order, so that two processes cannot wait for each other's rows, and rows that lie together come together.
        """
        seen = int(time.time())
        rows = [(key[0], key[1], crc := blocks[key], _check(key[0], key[1], crc), seen) for key in sorted(blocks)]
        self._put(connection, self._put_blocks, rows)
        sizes = [(key, length, _check(key, length, 0), seen) for key, length in sorted(coded.items())]
        self._put(connection, self._put_coded, sizes)

    def _put(self, connection: sa.Connection, put: Callable[[int], str], rows: Sequence[tuple[Any, ...]]) -> None:
        """PERF: many rows by one statement, and few different statements, which the driver prepares once."""
        done = 0
        for count in _STATEMENT_ROWS:
            while len(rows) - done >= count:
                values = tuple(chain.from_iterable(rows[done : done + count]))
                connection.exec_driver_sql(put(count), values)
                done += count

    def write_forgotten(self, connection: sa.Connection, versions: Sequence[bytes]) -> None:
        seen = int(time.time())
        connection.execute(self._blocks.delete().where(self._blocks.c.version.in_(versions)))
        connection.execute(self._forgotten.insert(), [{"version": version, "seen": seen} for version in versions])

    def write_link(self, connection: sa.Connection, token: str, body: bytes, expires: int) -> None:
        check = _check_link(token, body, expires)
        self._put(connection, self._put_link, [(token, body, check, expires)])

    def claim_sweep(self, connection: sa.Connection, every: int) -> bool:
        """Whether it is this process that sweeps now: nobody has for ``every`` seconds."""
        value, now = self._facts.c.value, int(time.time())
        due = self._sql.or_(value < now - every, value > now + every)
        claim = self._facts.update().where(self._facts.c.name == "swept", due).values(value=now)
        return connection.execute(claim).rowcount == 1

    def sweeps(self) -> list[Task[bool]]:
        """One function per table; it deletes some expired rows, and tells whether there may be more."""
        now = int(time.time())
        oldest = now - self._seconds
        return [
            self._sweep_blocks(oldest, now + _DAY),
            lambda connection: self._sweep(connection, self._coded.c.seen, oldest, now + _DAY),
            lambda connection: self._sweep(connection, self._forgotten.c.seen, oldest, now + _DAY),
            lambda connection: self._sweep(connection, self._links.c.expires, now - _DAY, _NEVER),
        ]

    def _sweep_blocks(self, oldest: int, newest: int) -> Task[bool]:
        """Goes through all blocks in the order of their keys, some of them each time."""
        name, mark = self._blocks.name, self.database.mark
        order = "ORDER BY version, block"
        expired = f"DELETE FROM {name} WHERE (seen < {oldest} OR seen > {newest})"
        since, until = f"(version, block) > ({mark}, {mark})", f"(version, block) <= ({mark}, {mark})"
        after: tuple[Any, ...] = ()

        def sweep(connection: sa.Connection) -> bool:
            nonlocal after
            there = f"SELECT version, block FROM {name} {f'WHERE {since}' if after else ''} {order}"
            last = connection.exec_driver_sql(f"{there} LIMIT 1 OFFSET {_LOOK_ROWS - 1}", after).first()
            end = () if last is None else tuple(last)
            bounds = f"{f' AND {since}' if after else ''}{f' AND {until}' if end else ''}"
            connection.exec_driver_sql(expired + bounds, after + end)
            after = end
            return bool(end)

        return sweep

    def _sweep(self, connection: sa.Connection, column: sa.Column[Any], oldest: int, newest: int) -> bool:
        table = column.table
        key = self._sql.tuple_(*table.primary_key)
        gone = self._sql.select(*table.primary_key).where(self._sql.or_(column < oldest, column > newest))
        deleted = connection.execute(self._sql.delete(table).where(key.in_(gone.limit(_SWEEP_ROWS))))
        return deleted.rowcount >= _SWEEP_ROWS


def _check(key: bytes, number: int, crc: int) -> int:
    """What a row says once more, so that a damaged one shows."""
    return crc32(key + (number << 32 | crc).to_bytes(12, "big"))


def _check_link(token: str, body: bytes, expires: int) -> int:
    return crc32(body, crc32(token.encode() + expires.to_bytes(8, "big", signed=True)))
