"""The ledger's tables in an SQL database: their schema, and what is read from them and written to them.

The rule of this file: it alone knows SQLAlchemy, and imports it when the first database is named, not before. A row
that is read is checked, for it may be damaged, and left out where it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from streamware.checksums import crc32
from streamware.ledger import plausible
from streamware.ledger_session import Complaints, Task

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Answer", "NewerSchema", "Tables"]

_log = logging.getLogger("streamware")

# A step leads from version 1 to 2, the next from 2 to 3, each a run of statements.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    # PERF: to keep it cost every block learned a fifth of its writing, and the sweep gets by without it.
    ("DROP INDEX IF EXISTS ix_streamware_blocks_seen",),
)
_MAX_ROWS = 300_000  # of one reading: a file of 1.2 TB
_STATEMENT_ROWS = (256, 64, 16, 4, 1)  # that one statement may write
_MAX_FORGOTTEN = 10_000
_LATE = 100  # as many transactions may become visible after one of a higher number
_SWEEP_ROWS = 1000
_LOOK_ROWS = 5000  # that one transaction looks at where no index finds the expired ones
_BUSY_SECONDS = 1.0  # how long a statement waits for somebody else's lock
_WAL_TRIES = 10
_JOURNAL_BYTES = 64 * 1024 * 1024
_SPARED_FRACTION = 16  # a row is not written again before it is this part of its lifetime old
_DAY = 24 * 3600
_NEVER = 2**62  # a time that no row has
_LIES = -1  # a check that no row has by itself

# Of PostgreSQL, where the URL does not say otherwise. A host that is lost is noticed within half a minute.
_CONNECT = {
    "application_name": "streamware",
    "client_encoding": "utf8",  # in a database that has none (SQL_ASCII), text would come as bytes
    "connect_timeout": 2,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # No prepared statements here and no setting beyond a transaction below: behind a pooler each transaction may get
    # another connection.
    "prepare_threshold": None,
}


class Answer(NamedTuple):
    """What the database knows of some versions."""

    forgotten: dict[int, bytes]  # versions that were forgotten, by a number that grows
    damaged: set[bytes]  # versions of which at least one row cannot be believed
    blocks: list[tuple[bytes, int, int, bool]]  # version, index, CRC-32, and whether the row is getting old


class NewerSchema(ValueError):
    """The tables were made by a later streamware."""


class Tables:
    """The tables of one database. Connects to nothing; what takes a connection runs in a ``Session``'s transaction.

    :param seconds: the lifetime of what is learned.
    :raises ValueError: the URL cannot be used.
    """

    def __init__(self, url: str, *, seconds: float) -> None:
        try:
            import sqlalchemy
        except ImportError as error:
            raise ValueError("a ledger URL needs SQLAlchemy: pip install 'streamware[sql]'") from error
        self._sql = sqlalchemy
        try:
            parsed = sqlalchemy.make_url(url)
        except (sqlalchemy.exc.ArgumentError, ValueError) as error:
            raise ValueError("a ledger's URL is sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME") from error
        self.name = parsed.render_as_string(hide_password=True)
        self.path: Path | None = None
        if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
            parsed = parsed.set(drivername="postgresql+psycopg")
            self._arguments: dict[str, Any] = {k: v for k, v in _CONNECT.items() if k not in parsed.query}
        elif parsed.drivername in ("sqlite", "sqlite+pysqlite"):
            self.path = self._usable(parsed.database or "")
            parsed = parsed.set(database=str(self.path))
            self._arguments = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
        else:
            raise ValueError(f"a ledger is kept in SQLite or PostgreSQL (by psycopg), not in {parsed.drivername!r}")
        self._url = parsed
        self.complain = Complaints(self.name)
        self._seconds = int(seconds)
        self._define()
        self.engine()

    def _usable(self, database: str) -> Path:
        path = Path(database)
        if not database or database.startswith((":", "file:")):
            raise ValueError(f"a ledger in SQLite is a file that processes share, sqlite:///PATH; not {self.name!r}")
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"{self.name!r} cannot be a file there")
        return path.absolute()

    def engine(self) -> sa.Engine:
        """What makes connections, and keeps none."""
        try:
            return self._sql.create_engine(
                self._url,
                connect_args=self._arguments,
                isolation_level="AUTOCOMMIT",  # transactions begin and end by their names, alike for both
                poolclass=self._sql.NullPool,
                pool_reset_on_return=None,
                hide_parameters=True,
            )
        except ImportError as error:
            raise ValueError(f"{self.name!r} needs psycopg: pip install 'streamware[postgresql]'") from error

    def begin(self, *, write: bool, durable: bool) -> str:
        """The statement that begins a transaction, which nobody's lock may delay for long."""
        if self.path is not None:
            return "BEGIN IMMEDIATE" if write else "BEGIN"
        statement = f"BEGIN; SET LOCAL statement_timeout = {10_000 if write else 1500}; SET LOCAL lock_timeout = 1000"
        return statement if durable else f"{statement}; SET LOCAL synchronous_commit = off"

    # --- the schema ---

    def _define(self) -> None:
        sql = self._sql
        number, blob, text = sql.BigInteger(), sql.LargeBinary(), sql.Text()
        metadata = self._metadata = sql.MetaData()

        def table(name: str, *columns: sa.Column[Any]) -> Any:
            return sql.Table(f"streamware_{name}", metadata, *columns, sqlite_with_rowid=False)

        def column(name: str, kind: Any, **options: Any) -> Any:
            return sql.Column(name, kind, nullable=False, autoincrement=False, **options)

        self._facts = table("schema", column("name", text, primary_key=True), column("value", number))
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
        self._forgotten = sql.Table(
            "streamware_forgotten",
            metadata,
            sql.Column("id", number.with_variant(sql.Integer(), "sqlite"), primary_key=True),
            column("version", blob),
            column("seen", number, index=True),
            sqlite_autoincrement=True,
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
        row = f"({', '.join(['%s' if self.path is None else '?'] * len(table.columns))})"
        begin = f"INSERT INTO {table.name} ({columns}) VALUES "
        end = f" ON CONFLICT ({key}) DO UPDATE SET {update} WHERE {condition}"
        return lambda count: begin + ", ".join([row] * count) + end

    def prepare(self, connection: sa.Connection, *, durable: bool) -> None:
        """Make a new connection fit for use: its settings, and the schema if it is not as it should be.

        :param durable: what this connection writes must outlive a power failure.
        :raises NewerSchema: a later streamware made the tables.
        """
        if self.path is not None:
            self._write_ahead(connection, durable)
        wanted = set(self._metadata.tables)
        known = 1 + len(_MIGRATIONS)
        if self._found(connection, wanted) == (known, wanted):
            return
        connection.exec_driver_sql(self.begin(write=True, durable=True))
        if self.path is None:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7237970109966541)")  # any number, always this one
        found, _ = self._found(connection, wanted)
        if found > known:
            raise NewerSchema(f"{self.name!r} has tables of version {found}, and this streamware knows up to {known}")
        for statement in (s for step in _MIGRATIONS[found - 1 :] for s in step) if found else ():
            connection.exec_driver_sql(statement)
        self._metadata.create_all(connection)
        connection.execute(self._facts.delete().where(self._facts.c.name == "version"))
        connection.execute(self._facts.insert().values(name="version", value=known))
        if not connection.execute(self._facts.select().where(self._facts.c.name == "swept")).first():
            connection.execute(self._facts.insert().values(name="swept", value=0))
        connection.exec_driver_sql("COMMIT")

    def _found(self, connection: sa.Connection, wanted: set[str]) -> tuple[int, set[str]]:
        """The version of the schema, 0 where there is none, and which of its tables are there."""
        there = wanted & set(self._sql.inspect(connection).get_table_names())
        version = None
        if self._facts.name in there:
            version = connection.scalar(self._sql.select(self._facts.c.value).where(self._facts.c.name == "version"))
        return version or 0, there

    def _write_ahead(self, connection: sa.Connection, durable: bool) -> None:
        connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.exec_driver_sql(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        for left in reversed(range(_WAL_TRIES)):  # SQLite itself does not always wait for the lock here
            try:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return
            except self._sql.exc.OperationalError as error:
                if "locked" not in str(error.orig):
                    _log.info("%s cannot be set to write ahead: %s", self.name, error.orig)
                    return
                if not left:
                    raise
            time.sleep(_BUSY_SECONDS / _WAL_TRIES)

    # --- reading ---

    def read(self, connection: sa.Connection, versions: Sequence[bytes], after: int) -> Answer:
        """What is known of some versions, and what anybody forgot, as ``after`` or a little before.

        The latter is asked first, so that no row is older than a forgetting that is not seen.
        """
        table, now = self._forgotten, int(time.time())
        query = self._plain(table.c.id, table.c.version).where(table.c.id > after - _LATE)
        latest = connection.execute(query.order_by(table.c.id.desc()).limit(_MAX_FORGOTTEN))
        answer = Answer({number: version for number, version in latest if isinstance(version, bytes)}, set(), [])
        table = self._blocks
        wanted = self._plain(table.c.version, table.c.block, table.c.crc32, table.c.check, table.c.seen)
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
        wanted = self._plain(table.c.key, table.c.length, table.c.check)
        found, damaged = {}, False
        for key, length, check in connection.execute(wanted.where(table.c.key.in_(keys), table.c.seen >= oldest)):
            if plausible(key, 0, 0) and type(length) is int and length >= 0 and check == _check(key, length, 0):
                found[key] = length
            else:
                damaged = True
        if damaged:
            self.complain("damage", "a compressed size is damaged, and not believed")
        return found

    def read_link(self, connection: sa.Connection, token: str) -> tuple[bytes, int] | None:
        table = self._links
        query = self._plain(table.c.body, table.c.expires, table.c.check).where(table.c.token == token)
        for body, expires, check in connection.execute(query):
            if type(body) is bytes and type(expires) is int and check == _check_link(token, body, expires):
                return body, expires
            self.complain("damage", "a link is damaged, and not believed")
        return None

    def _plain(self, *columns: sa.ColumnElement[Any]) -> Any:
        """Columns as the driver gives them: SQLite may hold any type in any place, and no conversion is safe then."""
        return self._sql.select(*(self._sql.type_coerce(column, self._sql.types.NullType()) for column in columns))

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
        name, mark = self._blocks.name, "%s" if self.path is None else "?"
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
