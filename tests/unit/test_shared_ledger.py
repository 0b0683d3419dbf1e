"""The ledger that processes share, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import logging
import os
import random
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from streamware import ledger_tables, ledger_writer, shared_ledger
from streamware.checksums import crc32
from streamware.errors import LedgerError
from streamware.memory_ledger import MemoryLedger
from streamware.shared_ledger import SqlLedger
from tests.hosts.postgres import Cluster
from tests.unit.test_ledger import best_of

ROOT = Path(__file__).resolve().parents[2]
V1, V2, V3, V4 = (bytes([n]) * 16 for n in range(1, 5))
HOUR, DAY = 3600, 24 * 3600
LATER = 2**33  # for links that no sweep takes away


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("postgres") / "log")
    yield cluster
    cluster.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.sqlite3"
    database: str = request.getfixturevalue("cluster").database()
    return database


@pytest.fixture
def make(url: str) -> Iterator[Callable[..., SqlLedger]]:
    """Makes ledgers on one database, each with a memory of its own, and closes them."""
    made: list[SqlLedger] = []

    def make(**options: Any) -> SqlLedger:
        made.append(SqlLedger(url, **options))
        return made[-1]

    yield make
    for ledger in made:
        ledger.close()


def execute(url: str, statement: str, **values: object) -> list[tuple[Any, ...]]:
    """Look at the database, or tamper with it, behind the ledger's back."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sqlalchemy.text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []


def count(url: str, table: str = "blocks") -> int:
    return int(execute(url, f"SELECT count(*) FROM streamware_{table}")[0][0])


def eventually(check: Callable[[], bool], seconds: float = 10.0) -> float:
    """Wait until it holds; how long that took."""
    begun = time.monotonic()
    while not check():
        assert time.monotonic() - begun < seconds, "it never came true"
        time.sleep(0.01)
    return time.monotonic() - begun


def swept_now(url: str) -> None:
    """Nobody sweeps for an hour: a writer that does takes along what there is to write."""
    execute(url, "UPDATE streamware_schema SET value = :now WHERE name = 'swept'", now=int(time.time()))


Make = Callable[..., SqlLedger]

# --- sharing -----------------------------------------------------------------------------------------------------


def test_blocks_learned_in_parallel_add_up(make: Make, url: str) -> None:
    one, two = make(), make()
    dice = random.Random(1)
    wanted = {version: {block: dice.getrandbits(32) for block in range(200)} for version in (V1, V2, V3)}

    def learn(ledger: SqlLedger, half: int) -> None:
        for version, blocks in wanted.items():
            for block in range(half, 200, 2):
                ledger.learn(version, block, blocks[block])
        ledger.flush()

    threads = [threading.Thread(target=learn, args=(ledger, half)) for half, ledger in enumerate((one, two))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    eventually(lambda: count(url) == 600)
    assert one.sums([V1, V2, V3, V4]) == two.sums([V4, V3, V2, V1]) == wanted


def test_what_was_learned_outlives_a_restart(make: Make) -> None:
    before = make()
    before.learn(V1, 3, 0xFFFFFFFF)
    before.learn(V2, 2**31 - 1, 0)
    before.learn_coded(V3, 2**40)
    before.save("token", b"\x00body\xff", 2**33)
    before.close()
    after = make()
    assert after.sums([V1, V2]) == {V1: {3: 0xFFFFFFFF}, V2: {2**31 - 1: 0}}
    assert after.coded([V3, V4]) == {V3: 2**40}
    assert after.load("token") == (b"\x00body\xff", 2**33)


def test_own_knowledge_counts_before_it_is_written(make: Make) -> None:
    ledger = make()
    ledger.learn(V1, 1, 5)
    ledger.learn_coded(V2, 6)
    assert ledger.sums([V1]) == {V1: {1: 5}}
    assert ledger.coded([V2]) == {V2: 6}


def test_a_read_is_remembered(make: Make, url: str) -> None:
    one, memory = make(), MemoryLedger()
    two = make(memory=memory)
    one.learn(V1, 1, 5)
    one.learn_coded(V2, 6)
    one.flush()
    eventually(lambda: count(url) == count(url, "coded") == 1)
    assert two.sums([V1]) == memory.sums([V1]) == {V1: {1: 5}}
    assert two.coded([V2]) == memory.coded([V2]) == {V2: 6}


def test_many_versions_are_asked_for_together(make: Make, url: str) -> None:
    one, two = make(), make()
    versions = [os.urandom(16) for _ in range(1300)]
    for number, version in enumerate(versions):
        one.learn(version, 0, number)
    one.flush()
    eventually(lambda: count(url) == 1300)
    assert two.sums(versions) == {version: {0: number} for number, version in enumerate(versions)}
    assert two.sums([]) == two.coded([]) == {}


def test_small_blocks_are_written_together(make: Make, url: str) -> None:
    """By the bytes that would have to be read again, or by their number."""
    ledger = make()
    swept_now(url)
    ledger.learn(V1, 0, 1, 100)
    ledger.flush()
    eventually(lambda: count(url) == 1)  # and by then the writer runs
    for block in range(3071):
        ledger.learn(V2, block, 1, 16 * 1024)
    time.sleep(0.3)
    assert count(url) == 1
    ledger.learn(V2, 3071, 1, 16 * 1024)
    assert eventually(lambda: count(url) == 3073) < 1.5
    for block in range(4000):
        ledger.learn(V3, block, 1, 100)
    assert eventually(lambda: count(url) == 7073) < 1.5


def test_it_is_written_after_twelve_blocks_or_a_flush_or_two_seconds(make: Make, url: str) -> None:
    ledger = make()
    swept_now(url)
    ledger.learn(V1, 0, 1)
    ledger.flush()
    assert eventually(lambda: count(url) == 1) < 1.5  # and by then the writer runs
    for block in range(1, 13):
        ledger.learn(V1, block, 1)
    assert eventually(lambda: count(url) == 13) < 1.5
    ledger.learn(V1, 13, 1)
    time.sleep(0.5)
    assert count(url) == 13
    assert 0.5 < eventually(lambda: count(url) == 14) < 4


def test_what_the_database_has_is_not_written_again(make: Make, url: str) -> None:
    one = make()
    one.learn(V1, 0, 1)
    one.flush()
    eventually(lambda: count(url) == 1)
    execute(url, "UPDATE streamware_blocks SET seen = seen - :some", some=HOUR)
    seen = execute(url, "SELECT seen FROM streamware_blocks")
    two = make()  # which does not know that it is there
    two.learn(V1, 0, 1)
    two.learn(V2, 0, 1)
    two.flush()
    eventually(lambda: count(url) == 2)
    assert execute(url, "SELECT seen FROM streamware_blocks WHERE version = :v", v=V1) == seen


def test_a_compressed_size_that_changed_is_replaced(make: Make, url: str) -> None:
    one, two = make(), make()
    one.learn_coded(V1, 5)
    one.flush()
    eventually(lambda: count(url, "coded") == 1)
    two.learn_coded(V1, 6)
    two.flush()
    eventually(lambda: execute(url, "SELECT length FROM streamware_coded") == [(6,)])
    assert make().coded([V1]) == {V1: 6}


# --- forgetting --------------------------------------------------------------------------------------------------


def test_what_one_forgets_all_forget(make: Make, url: str) -> None:
    one, two = make(), make()
    for block in range(4):
        one.learn(V1, block, 1)
        one.learn(V2, block, 2)
    one.flush()
    eventually(lambda: count(url) == 8)
    assert set(two.sums([V1, V2])) == {V1, V2}
    two.forget(V1)
    assert set(two.sums([V1, V2])) == {V2}  # at once where it was said
    eventually(lambda: count(url) == 4)
    assert set(one.sums([V1, V2])) == {V2}  # though its own memory held it
    one.learn(V1, 0, 7)
    one.flush()
    eventually(lambda: count(url) == 5)
    assert two.sums([V1]) == one.sums([V1]) == make().sums([V1]) == {V1: {0: 7}}


def test_what_is_forgotten_stays_so_while_its_rows_go(make: Make, url: str) -> None:
    """Whoever asks just then may read the rows, and hear only afterwards that they are gone."""
    ledger = make()
    other = make()
    for number in range(40):
        version = number.to_bytes(16, "big")
        other.learn(version, 0, 1)
        other.flush()
        eventually(lambda version=version: ledger.sums([version]) == {version: {0: 1}})
        ledger.forget(version)
        assert not any(ledger.sums([version]) for _ in range(20))


def test_what_was_pending_is_forgotten_too(make: Make, url: str) -> None:
    ledger = make()
    for block in range(5):
        ledger.learn(V1, block, 1)
    ledger.forget(V1)
    ledger.learn(V1, 9, 2)
    ledger.learn(V2, 0, 3)
    ledger.flush()
    eventually(lambda: count(url) == 2)
    assert make().sums([V1, V2]) == {V1: {9: 2}, V2: {0: 3}}


@pytest.mark.parametrize("where", ["read", "written"])
def test_a_contradiction_is_not_believed_either_way(
    where: str, make: Make, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, memory = make(), MemoryLedger()
    for block in range(3):
        one.learn(V1, block, 1)
    one.learn(V2, 0, 1)
    one.flush()
    eventually(lambda: count(url) == 4)
    two = make(memory=memory)
    if where == "read":
        memory.learn(V1, 0, 2)
    else:
        for _ in range(2):  # to say it twice does not make it true
            two.learn(V1, 0, 2)
            two.learn(V1, 9, 2)
            two.flush()
            eventually(lambda: count(url) == 5)
            memory.forget(V1)
    assert two.sums([V1, V2]) == {V2: {0: 1}}
    assert "contradict" in caplog.text
    eventually(lambda: count(url) == 1)
    assert one.sums([V1, V2]) == two.sums([V1, V2]) == make().sums([V1, V2]) == {V2: {0: 1}}
    one.learn(V1, 0, 2)
    one.flush()
    eventually(lambda: count(url) == 2)
    assert one.sums([V1]) == two.sums([V1]) == {V1: {0: 2}}


# --- lifetimes ---------------------------------------------------------------------------------------------------


def aged(url: str, seconds: float) -> None:
    for table in ("blocks", "coded"):
        execute(url, f"UPDATE streamware_{table} SET seen = seen - :some", some=int(seconds))


def test_entries_expire_and_are_swept(make: Make, url: str) -> None:
    one = make(seconds=10 * DAY)
    for number in range(2500):
        one.learn(number.to_bytes(16, "big"), 0, number)
    one.learn_coded(V2, 5)
    one.save("gone", b"x", int(time.time()) - 2 * DAY)
    one.save("kept", b"x", int(time.time()) - HOUR)
    one.forget(V3)
    one.close()
    aged(url, 11 * DAY)
    execute(url, "UPDATE streamware_forgotten SET seen = 0")
    two = make(seconds=10 * DAY)
    assert two.sums([bytes(16)]) == {}
    assert two.coded([V2]) == {}
    two.learn(V4, 0, 1)  # now it writes; but this hour somebody has swept
    two.close()
    assert count(url) == 2501
    execute(url, "UPDATE streamware_schema SET value = value - :some WHERE name = 'swept'", some=2 * HOUR)
    three = make(seconds=10 * DAY)
    three.learn(V4, 1, 1)
    three.flush()
    eventually(lambda: [count(url, table) for table in ("blocks", "coded", "forgotten", "links")] == [2, 0, 0, 1])
    assert three.load("kept") is not None
    assert three.load("gone") is None


def test_a_sweep_goes_through_all_blocks(make: Make, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_tables, "_LOOK_ROWS", 7)
    one = make()
    for version in (V1, V2, V3):
        for block in range(20):
            one.learn(version, block, 1)
    one.close()
    execute(url, "UPDATE streamware_blocks SET seen = 0 WHERE block < 12 OR version = :v", v=V2)
    execute(url, "UPDATE streamware_schema SET value = 0 WHERE name = 'swept'")
    two = make()
    two.learn(V4, 0, 1)
    two.flush()
    eventually(lambda: count(url) == 17)
    assert two.sums([V1, V2, V3]) == {version: dict.fromkeys(range(12, 20), 1) for version in (V1, V3)}


def test_what_is_of_use_lives_on(make: Make, url: str) -> None:
    one = make(seconds=16 * DAY)
    one.learn(V1, 0, 1)
    one.learn(V1, 1, 2)
    one.close()
    aged(url, 2 * DAY)
    two = make(seconds=16 * DAY)
    assert two.sums([V1]) == {V1: {0: 1, 1: 2}}
    now = int(time.time())
    eventually(lambda: all(seen >= now - 60 for (seen,) in execute(url, "SELECT seen FROM streamware_blocks")))


# --- rows that lie -----------------------------------------------------------------------------------------------

CHANGES = {
    "another checksum": ("blocks", "crc32 = crc32 + 1"),
    "another check": ("blocks", '"check" = 0'),
    "a negative checksum": ("blocks", "crc32 = -1"),
    "a checksum of 33 bits": ("blocks", "crc32 = 4294967296"),
    "a checksum of 63 bits": ("blocks", "crc32 = 9223372036854775807"),
    "another block": ("blocks", "block = block + 1"),
    "a negative block": ("blocks", "block = -5"),
    "a huge block": ("blocks", "block = 9000000000000000000"),
    "another version": ("blocks", "version = :version"),
    "another length": ("coded", "length = length + 1"),
    "a negative length": ("coded", "length = -1"),
    "another body": ("links", "body = :version"),
    "a later end": ("links", "expires = expires + 1000"),
}
CHANGES_OF_TYPE = {  # which SQLite lets into any column, and PostgreSQL into none
    "text for a checksum": ("blocks", "crc32 = 'text'"),
    "text for a check": ("blocks", "\"check\" = 'text'"),
    "text for a block": ("blocks", "block = 'text'"),
    "text for a time": ("blocks", "seen = 'text'"),
    "a fraction for a checksum": ("blocks", "crc32 = 1.5"),
    "bytes for a checksum": ("blocks", "crc32 = :version"),
    "text for a length": ("coded", "length = 'text'"),
    "text for a body": ("links", "body = 'text'"),
    "a number for a body": ("links", "body = 99999999999"),
    "text for an end": ("links", "expires = 'text'"),
}


@pytest.mark.parametrize(
    ("url", "change"),
    [
        *[("sqlite", change) for change in (CHANGES | CHANGES_OF_TYPE).values()],
        *[("postgresql", change) for change in CHANGES.values()],
    ],
    ids=[*CHANGES, *CHANGES_OF_TYPE, *CHANGES],
    indirect=["url"],
)
def test_a_damaged_row_is_not_believed_and_heals(
    change: tuple[str, str], make: Make, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def tell(ledger: SqlLedger) -> None:
        ledger.learn(V1, 5, 0xFFFFFFFF)
        ledger.learn_coded(V2, 77)
        ledger.save("token", b"body", LATER)
        ledger.close()

    tell(make())
    table, what = change
    execute(url, f"UPDATE streamware_{table} SET {what}", **({"version": V3} if ":version" in what else {}))
    with caplog.at_level(logging.WARNING, "streamware"):
        ledger = make()
        assert ledger.sums([V1, V3]).get(V1, {}) == ({} if table == "blocks" else {5: 0xFFFFFFFF})
        assert ledger.sums([V3]) == {}
        assert ledger.coded([V2]) == ({} if table == "coded" else {V2: 77})
        assert ledger.load("token") == (None if table == "links" else (b"body", LATER))
    assert "damaged" in caplog.text
    tell(ledger)
    healed = make()
    assert healed.sums([V1]) == {V1: {5: 0xFFFFFFFF}}
    assert healed.coded([V2]) == {V2: 77}
    assert healed.load("token") == (b"body", LATER)


def test_a_key_of_another_type_disturbs_nobody(tmp_path: Path) -> None:
    """What SQLite would hold and no question ever meets; to convert it would take 99,999,999,999 bytes."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    for table, what in (("blocks", "version = 99999999999"), ("blocks", "version = 'text'"), ("coded", "key = 99")):
        ledger = SqlLedger(url)
        ledger.learn(V1, 0, 1)
        ledger.learn_coded(V1, 1)
        ledger.close()
        execute(url, f"UPDATE streamware_{table} SET {what} WHERE {what.split()[0]} = :v1", v1=V1)
        ledger = SqlLedger(url)
        assert (ledger.sums([V1]) == {}) is (table == "blocks")
        assert (ledger.coded([V1]) == {}) is (table == "coded")
        ledger.close()


# --- links -------------------------------------------------------------------------------------------------------


def test_links_are_shared_and_replaced(make: Make) -> None:
    one, two = make(), make()
    assert two.load("token") is None
    one.save("token", b"one", LATER)
    assert two.load("token") == (b"one", LATER)
    two.save("token", b"two" * 1_000_000, LATER + 1)
    assert one.load("token") == (b"two" * 1_000_000, LATER + 1)


@pytest.mark.parametrize("token", ["", "a" * 513, "\x00", "a\nb", "\ud800", "ä", "' OR 1=1 --"])
def test_no_token_is_too_odd_to_ask_for(token: str, make: Make) -> None:
    ledger = make()
    assert ledger.load(token) is None
    if not token.startswith("'"):
        with pytest.raises(LedgerError):
            ledger.save(token, b"", 0)


# --- the URL and the schema --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *("", "sqlite", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true", "no url"),
        "sqlite:////no/such/directory/ledger.sqlite3",
        "sqlite:////tmp",
        "sqlite:////dev/null/ledger.sqlite3",
        *(
            "sqlite+aiosqlite:///x",
            "mysql://u:secret@h/x",
            "postgresql+asyncpg://u:secret@h/x",
            "nonsense://u:secret@h",
        ),
        "postgresql://u:secret@h:port/x",
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        SqlLedger(url)
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "url", "extra"), [("sqlalchemy", "sqlite:///x", "sql"), ("psycopg", "postgresql://h/x", "postgresql")]
)
def test_a_missing_package_is_named(package: str, url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"pip install 'streamware\[{extra}\]'"):
        SqlLedger(url)


def test_what_the_file_holds_is_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = SqlLedger("sqlite:///ledger.sqlite3")
    monkeypatch.chdir("/")  # as a daemon does
    ledger.save("token", b"body", LATER)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    ledger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.sqlite3"]


def test_a_database_without_an_encoding_serves(cluster: Cluster) -> None:
    ledger = SqlLedger(cluster.database("-E", "SQL_ASCII", "-T", "template0"))
    ledger.save("token", b"body", LATER)
    assert ledger.load("token") == (b"body", LATER)
    ledger.close()


def test_a_later_schema_is_refused(make: Make, url: str) -> None:
    make().close()
    execute(url, "UPDATE streamware_schema SET value = 3 WHERE name = 'version'")
    before = threading.active_count()
    with pytest.raises(ValueError, match="version 3"):
        make()
    assert threading.active_count() == before


def test_an_earlier_schema_is_brought_up_to_date(make: Make, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make()
    first.learn(V1, 0, 1)
    first.close()
    steps = (("ALTER TABLE streamware_links ADD COLUMN note BIGINT",), ("UPDATE streamware_links SET note = 3",))
    monkeypatch.setattr(ledger_tables, "_MIGRATIONS", (*ledger_tables._MIGRATIONS, *steps))
    first = make()
    first.save("token", b"", LATER)
    first.close()
    assert execute(url, "SELECT note FROM streamware_links") == [(None,)]
    assert make().sums([V1]) == {V1: {0: 1}}
    assert execute(url, "SELECT value FROM streamware_schema WHERE name = 'version'") == [(4,)]


# The table of blocks as version 1 made it. All others have stayed as they were.
_COLUMNS = """block BIGINT NOT NULL, crc32 BIGINT NOT NULL, "check" BIGINT NOT NULL, seen BIGINT NOT NULL,
    PRIMARY KEY (version, block)"""
VERSION_1 = {
    "sqlite": f"CREATE TABLE streamware_blocks (version BLOB NOT NULL, {_COLUMNS}) WITHOUT ROWID",
    "postgresql": f"CREATE TABLE streamware_blocks (version BYTEA NOT NULL, {_COLUMNS})",
}


def test_the_tables_of_version_1_are_brought_up_to_date(make: Make, url: str) -> None:
    def indexes() -> list[str]:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        found = sqlalchemy.inspect(engine).get_indexes("streamware_blocks")
        return [str(index["name"]) for index in found]

    make().close()
    rows = [(V1, 0, 5), (V2, 7, 0xFFFFFFFF)]
    execute(url, "DROP TABLE streamware_blocks")
    execute(url, VERSION_1[url.partition(":")[0].partition("+")[0]])
    execute(url, "CREATE INDEX ix_streamware_blocks_seen ON streamware_blocks (seen)")
    execute(url, "UPDATE streamware_schema SET value = 1 WHERE name = 'version'")
    for version, block, crc in rows:
        check = crc32(version + block.to_bytes(8, "big") + crc.to_bytes(4, "big"))
        values = {"v": version, "b": block, "c": crc, "k": check, "s": int(time.time())}
        execute(url, "INSERT INTO streamware_blocks VALUES (:v, :b, :c, :k, :s)", **values)
    assert indexes() == ["ix_streamware_blocks_seen"]
    for _ in range(2):
        ledger = make()
        assert ledger.sums([V1, V2]) == {V1: {0: 5}, V2: {7: 0xFFFFFFFF}}
        assert indexes() == []
        assert execute(url, "SELECT value FROM streamware_schema WHERE name = 'version'") == [(2,)]


def test_many_processes_can_be_the_first(url: str) -> None:
    code = f"""
        import logging, sys
        from streamware.shared_ledger import SqlLedger
        logging.basicConfig()
        sys.stdin.readline()
        ledger = SqlLedger({url!r})
        ledger.learn(int(sys.argv[1]).to_bytes(16, "big"), 0, 5)
        ledger.close()
    """
    line = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen([*line, str(n)], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for n in range(6)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        assert process.communicate(timeout=60) == ("", "")
    assert count(url) == 6


# --- processes and threads ---------------------------------------------------------------------------------------

FORKS = """
    import os, sys, threading, time, warnings
    from streamware.shared_ledger import SqlLedger

    url, when = sys.argv[1:]
    ledger = SqlLedger(url)
    if when == "early":
        assert threading.active_count() == 1, threading.enumerate()
    else:
        for block in range(20):
            ledger.learn(bytes(16), block, block)
        ledger.flush()
        assert ledger.load("token") is None
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads

    children = []
    for number in range(1, 4):
        pid = os.fork()
        if pid == 0:
            for block in range(20):
                ledger.learn(bytes([number]) * 16, block, block)
            ledger.save(f"token{number}", b"body", 2**33)
            known = ledger.sums([bytes(16)]).get(bytes(16), {})
            assert when == "early" or known.items() >= {block: block for block in range(20)}.items(), known
            ledger.close()
            os._exit(0)
        children.append(pid)
        ledger.learn(bytes(16), 20 + number, number)
        ledger.flush()
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    for number in range(1, 4):
        assert ledger.load(f"token{number}") == (b"body", 2**33)
        assert len(ledger.sums([bytes([number]) * 16])[bytes([number]) * 16]) == 20
    assert len(ledger.sums([bytes(16)])[bytes(16)]) == (3 if when == "early" else 23)
    print("fine")
"""


@pytest.mark.parametrize("when", ["early", "late"])
def test_a_fork_gets_threads_and_connections_of_its_own(when: str, url: str) -> None:
    """``early`` is what a server does that loads the app and then forks. Not closed here: the exit does that."""
    line = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(FORKS), url, when]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("fine\n", "")
    assert count(url) == (63 if when == "early" else 83)


def test_an_exit_writes_what_is_pending(url: str) -> None:
    code = "import sys\nfrom streamware.shared_ledger import SqlLedger\nSqlLedger(sys.argv[1]).learn(bytes(16), 0, 1)"
    line = [sys.executable, "-X", "dev", "-W", "error", "-c", code, url]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert count(url) == 1


def test_after_the_end_only_memory_is_left(make: Make, url: str) -> None:
    before = threading.active_count()
    ledger = make()
    for block in range(5000):
        ledger.learn(V1, block, block)
    ledger.sums([V1])
    ledger.close()
    assert count(url) == 5000
    assert threading.active_count() == before
    ledger.close()
    ledger.learn(V2, 0, 2)
    ledger.learn_coded(V2, 2)
    ledger.flush()
    ledger.forget(V1)
    assert ledger.sums([V1, V2]) == {V2: {0: 2}}
    assert ledger.coded([V2, V3]) == {V2: 2}
    for call in (lambda: ledger.load("token"), lambda: ledger.save("token", b"", 1)):
        with pytest.raises(LedgerError):
            call()
    assert threading.active_count() == before
    assert count(url) == 5000


def test_an_idle_ledger_keeps_no_connection(
    make: Make, url: str, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    for module in (ledger_writer, shared_ledger):
        monkeypatch.setattr(module, "IDLE_SECONDS", 0.2)

    def open_ones() -> int:
        if url.startswith("postgresql"):
            ours = "application_name = 'streamware' AND datname = :name"
            name = url.rpartition("/")[2]
            query = f"SELECT count(*) FROM pg_stat_activity WHERE {ours}"
            return int(execute(cluster.url(), query, name=name)[0][0])
        return sum(
            os.path.realpath(f"/proc/self/fd/{fd}").endswith("ledger.sqlite3") for fd in os.listdir("/proc/self/fd")
        )

    ledger = make()
    for block in range(3):
        ledger.learn(V1, block, 1)
        ledger.flush()
        eventually(lambda: count(url) == block + 1)  # noqa: B023
        assert ledger.sums([V1])
        eventually(lambda: open_ones() == 0)


def test_threads_share_one_ledger(make: Make, url: str) -> None:
    ledger, failed = make(), []

    def work(number: int) -> None:
        try:
            own = bytes([100 + number]) * 16
            for block in range(300):
                ledger.learn(own, block, block)
                ledger.learn(V1, block, block)
                if block % 50 == 0:
                    assert len(ledger.sums([own])[own]) == block + 1
                    ledger.save(f"{number}-{block}", own, LATER)
                    assert ledger.load(f"{number}-{block}") == (own, LATER)
                    ledger.flush()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    ledger.close()
    assert count(url) == 7 * 300
    assert count(url, "links") == 6 * 6


def test_learning_and_flushing_take_microseconds(make: Make) -> None:
    ledger = make()
    versions = [os.urandom(16) for _ in range(10_000)]
    assert best_of(lambda n: ledger.learn(versions[n], 0, n)) <= 5e-6
    assert best_of(lambda n: ledger.learn(versions[n], 0, n)) <= 5e-6
    assert best_of(lambda n: (ledger.learn(V1, n, n), ledger.flush())[0], calls=50) <= 25e-6
