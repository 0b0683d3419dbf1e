"""One SQL database, SQLite or PostgreSQL: its URL, how to connect to it, and the versioned schema of one user of it.

The rule of this file: it knows SQLAlchemy's side of a database and nothing of what is kept there, and imports
SQLAlchemy when the first database is named, not before. The ledger and the file store may share one database: each has
tables of its own, and the version of these in a row of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Complaints", "Database", "Migrations", "NewerSchema", "Waits"]

_log = logging.getLogger("streamware")

# A step leads from version 1 to 2, the next from 2 to 3, each a run of statements.
Migrations = tuple[tuple[str, ...], ...]

_COMPLAIN_SECONDS = 60.0
_WAL_TRIES = 10
_JOURNAL_BYTES = 64 * 1024 * 1024

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


class NewerSchema(ValueError):
    """The tables were made by a later streamware."""


class Waits(NamedTuple):
    """How long a statement may take, in seconds: one that reads, one that writes, and for somebody else's lock."""

    read: float
    write: float
    lock: float


class Complaints:
    """What is wrong with one database, for the log: one line a minute of each kind.

    :param user: whose database it is, as "ledger".
    """

    def __init__(self, user: str, name: str) -> None:
        self._whose = f"the {user}'s database {name}"
        self._until: dict[str, float] = {}

    def __call__(self, kind: str, text: str, error: BaseException | None = None) -> None:
        now = time.monotonic()
        if self._until.get(kind, 0.0) <= now:
            self._until[kind] = now + _COMPLAIN_SECONDS
            cause = getattr(error, "orig", None) or error
            why = "" if cause is None else f": {type(cause).__name__}: {' '.join(str(cause).split())}"
            _log.warning("%s: %s%s", self._whose, text, why)

    def end(self) -> None:
        """All is well again; the next complaint is news."""
        if self._until:
            self._until = {}
            _log.info("%s answers again", self._whose)


class Database:
    """A database and the tables that one user of it has there. Connects to nothing; a ``Session`` does.

    Define tables with ``table`` and ``column`` before the first connection.

    :param user: whose it is, as "ledger"; for texts that an operator reads.
    :param version: the name of the row that holds the version of this user's tables.
    :param migrations: of this user's tables.
    :param values: further rows of whole numbers by name, with what they hold at first.
    :raises ValueError: the URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str,
        waits: Waits,
        version: str,
        migrations: Migrations,
        values: Mapping[str, int] | None = None,
    ) -> None:
        try:
            import sqlalchemy
        except ImportError as error:
            raise ValueError(f"a {user}'s database needs SQLAlchemy: pip install 'streamware[sql]'") from error
        self.sql = sqlalchemy
        self.user = user
        self.waits = waits
        try:
            parsed = sqlalchemy.make_url(url)
        except (sqlalchemy.exc.ArgumentError, ValueError) as error:
            text = f"a {user}'s database is named sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
            raise ValueError(text) from error
        self.name = parsed.render_as_string(hide_password=True)
        self.path: Path | None = None
        if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
            parsed = parsed.set(drivername="postgresql+psycopg")
            self._arguments: dict[str, Any] = {k: v for k, v in _CONNECT.items() if k not in parsed.query}
        elif parsed.drivername in ("sqlite", "sqlite+pysqlite"):
            self.path = self._usable(parsed.database or "")
            parsed = parsed.set(database=str(self.path))
            self._arguments = {"timeout": waits.lock, "check_same_thread": False}
        else:
            text = f"a {user}'s database is SQLite or PostgreSQL (by psycopg), not {parsed.drivername!r}"
            raise ValueError(text)
        self._url = parsed
        self.mark = "?" if self.path is not None else "%s"  # stands for a value in a statement that is written out
        self.complain = Complaints(user, self.name)
        self._metadata = sqlalchemy.MetaData()
        self._version, self._migrations, self._values = version, migrations, dict(values or {})
        self.facts = self.table(
            "schema",
            self.column("name", sqlalchemy.Text(), primary_key=True),
            self.column("value", sqlalchemy.BigInteger()),
        )
        self.engine()

    def _usable(self, database: str) -> Path:
        path = Path(database)
        if not database or database.startswith((":", "file:")):
            text = f"a {self.user}'s SQLite database is a file that processes share, sqlite:///PATH; not {self.name!r}"
            raise ValueError(text)
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"{self.name!r} cannot be a file there")
        return path.absolute()

    def engine(self) -> sa.Engine:
        """What makes connections, and keeps none."""
        try:
            return self.sql.create_engine(
                self._url,
                connect_args=self._arguments,
                isolation_level="AUTOCOMMIT",  # transactions begin and end by their names, alike for both
                poolclass=self.sql.NullPool,
                pool_reset_on_return=None,
                hide_parameters=True,
            )
        except ImportError as error:
            raise ValueError(f"{self.name!r} needs psycopg: pip install 'streamware[postgresql]'") from error

    def begin(self, *, write: bool, durable: bool) -> str:
        """The statement that begins a transaction, which nobody's lock may delay for long."""
        if self.path is not None:
            return "BEGIN IMMEDIATE" if write else "BEGIN"
        seconds = self.waits.write if write else self.waits.read
        # What was committed while a statement waited for a lock must be seen by the next one.
        statement = (
            f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {round(seconds * 1000)}; "
            f"SET LOCAL lock_timeout = {round(self.waits.lock * 1000)}"
        )
        return statement if durable else f"{statement}; SET LOCAL synchronous_commit = off"

    # --- tables ---

    def table(self, name: str, *parts: sa.schema.SchemaItem, numbered: bool = False) -> Any:
        """Define a table that is called ``streamware_`` and a name.

        :param numbered: its one key is a number that the database gives and never gives again.
        """
        options: dict[str, Any] = {"sqlite_autoincrement": True} if numbered else {"sqlite_with_rowid": False}
        return self.sql.Table(f"streamware_{name}", self._metadata, *parts, **options)

    def column(self, name: str, kind: Any, *, nullable: bool = False, **options: Any) -> Any:
        return self.sql.Column(name, kind, nullable=nullable, autoincrement=False, **options)

    def plain(self, *columns: sa.ColumnElement[Any]) -> Any:
        """Select columns as the driver gives them: SQLite may hold any type in any place, and no conversion is safe."""
        return self.sql.select(*(self.sql.type_coerce(column, self.sql.types.NullType()) for column in columns))

    # --- the schema ---

    def prepare(self, connection: sa.Connection, *, durable: bool) -> None:
        """Make a new connection fit for use: its settings, and the schema if it is not as it should be.

        :param durable: what this connection writes must outlive a power failure.
        :raises NewerSchema: a later streamware made the tables.
        """
        if self.path is not None:
            self._write_ahead(connection, durable)
        wanted = set(self._metadata.tables)
        known = 1 + len(self._migrations)
        if self._found(connection, wanted) == (known, wanted):
            return
        connection.exec_driver_sql(self.begin(write=True, durable=True))
        if self.path is None:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7237970109966541)")  # any number, always this one
        found, _ = self._found(connection, wanted)
        if found > known:
            text = f"{self.name!r} has a {self.user}'s tables of version {found}, and this streamware knows up to"
            raise NewerSchema(f"{text} {known}")
        for statement in (s for step in self._migrations[found - 1 :] for s in step) if found else ():
            connection.exec_driver_sql(statement)
        self._metadata.create_all(connection)
        facts = self.facts
        connection.execute(facts.delete().where(facts.c.name == self._version))
        connection.execute(facts.insert().values(name=self._version, value=known))
        for name, value in self._values.items():
            if not connection.execute(facts.select().where(facts.c.name == name)).first():
                connection.execute(facts.insert().values(name=name, value=value))
        connection.exec_driver_sql("COMMIT")

    def _found(self, connection: sa.Connection, wanted: set[str]) -> tuple[int, set[str]]:
        """The version of the schema, 0 where there is none, and which of its tables are there."""
        there = wanted & set(self.sql.inspect(connection).get_table_names())
        version = None
        if self.facts.name in there:
            version = connection.scalar(self.sql.select(self.facts.c.value).where(self.facts.c.name == self._version))
        return version or 0, there

    def _write_ahead(self, connection: sa.Connection, durable: bool) -> None:
        connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.exec_driver_sql(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        for left in reversed(range(_WAL_TRIES)):  # SQLite itself does not always wait for the lock here
            try:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return
            except self.sql.exc.OperationalError as error:
                if "locked" not in str(error.orig):
                    _log.info("%s cannot be set to write ahead: %s", self.name, error.orig)
                    return
                if not left:
                    raise
            time.sleep(self.waits.lock / _WAL_TRIES)
