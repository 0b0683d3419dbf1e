"""Databases that are locked, full, gone, garbage or silent: nobody waits for them, and learning goes on afterwards."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from streamware.errors import LedgerError
from streamware.shared_ledger import SqlLedger
from tests.hosts.postgres import Cluster

V1, V2, V3 = (bytes([n]) * 16 for n in range(1, 4))
LATER = 2**33
NUMBERS = iter(range(10**6))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("postgres") / "log")
    yield cluster
    cluster.remove()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def ledgers() -> Iterator[Callable[[str], SqlLedger]]:
    with ExitStack() as stack:

        def make(url: str) -> SqlLedger:
            return stack.enter_context(closing(SqlLedger(url)))

        yield make


Make = Callable[[str], SqlLedger]


def seconds_of(call: Callable[[], object]) -> float:
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


def used_in_need(ledger: SqlLedger, *, knows: bytes | None = None) -> bytes:
    """Use a ledger whose database is in trouble as a download does; gives a version it has learned."""
    version = next(NUMBERS).to_bytes(16, "big")
    for block in range(20):
        assert seconds_of(lambda block=block: ledger.learn(version, block, block)) < 0.25  # type: ignore[misc]
    assert seconds_of(lambda: ledger.learn_coded(version, 5)) < 0.25
    assert seconds_of(ledger.flush) < 0.25
    assert seconds_of(lambda: ledger.forget(V3)) < 0.25
    begun = time.monotonic()
    assert ledger.sums([version, V2])[version] == {block: block for block in range(20)}
    assert ledger.coded([version, V2])[version] == 5
    assert time.monotonic() - begun < 2.3
    if knows is not None:
        assert ledger.sums([knows]).get(knows)
    return version


def recovers(ledger: SqlLedger, url: str, *versions: bytes, seconds: float = 20.0) -> None:
    """What was learned in need, and what is learned now, arrives at another process of the same database."""
    now = next(NUMBERS).to_bytes(16, "big")
    ledger.learn(now, 0, 1)
    ledger.flush()
    with closing(SqlLedger(url)) as other:
        deadline = time.monotonic() + seconds
        while not other.sums([now]) or set(other.sums(versions)) != set(versions):
            assert time.monotonic() < deadline, "what was learned did not arrive"
            time.sleep(0.1)
        while True:
            try:
                other.save("token", b"body", LATER)
                break
            except LedgerError:  # the other one still writes what it had to hold back
                assert time.monotonic() < deadline, "the database stayed busy"
                time.sleep(0.1)
    deadline = time.monotonic() + seconds
    while ledger.load("token") != (b"body", LATER):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def refused(ledger: SqlLedger, *, within: float = 6.0) -> None:
    """What was promised to somebody is kept or refused, in time."""
    for call in (lambda: ledger.save("token", b"", LATER), lambda: ledger.load("token")):
        begun = time.monotonic()
        with pytest.raises(LedgerError):
            call()
        assert time.monotonic() - begun < within


def filled(make: Make, url: str) -> SqlLedger:
    """A ledger that has written and read, so that both its connections are open."""
    ledger = make(url)
    ledger.learn(V1, 0, 1)
    ledger.flush()
    deadline = time.monotonic() + 10
    with closing(SqlLedger(url)) as other:
        while not other.sums([V1]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert ledger.sums([V1]) == {V1: {0: 1}}
    return ledger


# --- SQLite ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["writers", "everybody"])
def test_a_locked_file(mode: str, file: Path, ledgers: Make, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{file}"
    ledger = ledgers(url)
    if mode == "writers":
        ledger = filled(ledgers, url)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        if mode == "everybody":
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("INSERT INTO streamware_schema VALUES ('other', 1)")
        learned = used_in_need(ledger)
        if mode == "everybody":
            refused(ledger)
        time.sleep(1.5)
        assert "locked" in caplog.text
        learned_later = used_in_need(ledger)
        assert seconds_of(lambda: ledger.sums([V2])) < 2
        other.execute("COMMIT")
    recovers(ledger, url, learned, learned_later)


def test_a_file_that_is_locked_at_the_start(file: Path, ledgers: Make) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        ledger = ledgers(f"sqlite:///{file}")
        assert time.monotonic() - begun < 8
        learned = used_in_need(ledger)
        other.execute("COMMIT")
    recovers(ledger, f"sqlite:///{file}", learned)


@pytest.mark.parametrize("way", ["replaced", "overwritten"])
def test_garbage_for_a_file(way: str, file: Path, ledgers: Make, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{file}"
    ledger = filled(ledgers, url)
    if way == "replaced":
        other = file.with_name("garbage")
        other.write_bytes(os.urandom(100_000))
        other.replace(file)
    else:
        with file.open("r+b") as there:
            there.write(os.urandom(file.stat().st_size))
    learned = used_in_need(ledger)
    time.sleep(1)
    again = ledgers(url)
    later = used_in_need(again)
    refused(again)
    assert "database" in caplog.text
    for each in file.parent.iterdir():
        each.unlink()
    if way == "replaced":  # else the connection sees nothing wrong, and loses only what it writes until then
        recovers(ledger, url, learned)
    recovers(ledger, url)
    recovers(again, url, later)


def test_garbage_at_the_start(file: Path, ledgers: Make) -> None:
    file.write_bytes(os.urandom(50_000))
    ledger = ledgers(f"sqlite:///{file}")
    learned = used_in_need(ledger)
    refused(ledger)
    file.unlink()
    recovers(ledger, f"sqlite:///{file}", learned)


@contextmanager
def nobody() -> Iterator[Path]:
    """A directory, and no rights in it: the superuser puts off his."""
    with tempfile.TemporaryDirectory(prefix="streamware-") as name:
        was = os.geteuid()
        if was == 0:
            os.chown(name, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(was)


def test_a_file_that_turns_read_only(file: Path, ledgers: Make, caplog: pytest.LogCaptureFixture) -> None:
    filled(ledgers, f"sqlite:///{file}")  # what is imported late must be by now: soon it may not be readable
    with nobody() as directory:
        file = directory / "ledger.sqlite3"
        url = f"sqlite:///{file}"
        with closing(SqlLedger(url)) as before:
            before.learn(V1, 0, 1)
        file.chmod(0o400)
        with closing(SqlLedger(url)) as ledger:
            learned = used_in_need(ledger, knows=V1)
            with pytest.raises(LedgerError):
                ledger.save("token", b"", LATER)
            assert ledger.load("token") is None
            time.sleep(0.5)
            assert "readonly" in caplog.text
            for each in directory.iterdir():  # SQLite makes its further files as the first one is
                each.chmod(0o600)
            recovers(ledger, url, learned)
            directory.chmod(0o500)
            learned = used_in_need(ledger, knows=V1)
        with closing(SqlLedger(url)) as ledger:
            learned = used_in_need(ledger)
            directory.chmod(0o700)
            recovers(ledger, url, learned)


def test_a_full_disk(file: Path, ledgers: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Full for this process: the limit of a file's size stops writes as a full disk does, without one."""
    url = f"sqlite:///{file}"
    ledger = filled(ledgers, url)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in file.parent.iterdir())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
        learned = [used_in_need(ledger, knows=V1) for _ in range(20)]
        with pytest.raises(LedgerError):
            ledger.save("token", bytes(largest), LATER)
        time.sleep(1)
        assert "kept for later" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    recovers(ledger, url, *learned)


def test_a_directory_that_goes_and_comes_back(file: Path, ledgers: Make) -> None:
    place = file.parent / "place"
    place.mkdir()
    url = f"sqlite:///{place}/ledger.sqlite3"
    ledger = filled(ledgers, url)
    shutil.rmtree(place)
    learned = used_in_need(ledger)
    time.sleep(0.5)
    place.mkdir()
    recovers(ledger, url, learned)


# --- PostgreSQL --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_a_server_that_ends_and_starts_again(
    way: str, cluster: Cluster, ledgers: Make, caplog: pytest.LogCaptureFixture
) -> None:
    url = cluster.database()
    ledger = filled(ledgers, url)
    if way == "killed":
        cluster.kill()
    else:
        cluster.stop()
    try:
        learned = used_in_need(ledger, knows=V1)
        refused(ledger)
        absent = ledgers(url)  # starts without one
        learned_absent = used_in_need(absent)
        time.sleep(3)
        assert seconds_of(lambda: ledger.sums([V1])) < 2
        assert "kept for later" in caplog.text
        assert len(caplog.records) < 12
    finally:
        cluster.start()
    recovers(ledger, url, learned)
    recovers(absent, url, learned_absent)


def test_a_server_that_says_nothing(cluster: Cluster, ledgers: Make) -> None:
    url = cluster.database()
    ledger = filled(ledgers, url)
    with cluster.frozen():
        learned = used_in_need(ledger, knows=V1)
        for _ in range(5):
            assert seconds_of(lambda: ledger.sums([V1])) < 0.25  # nobody waits for it twice
        refused(ledger, within=6)
        begun = time.monotonic()
        late = ledgers(url)
        assert time.monotonic() - begun < 10
        learned_late = used_in_need(late)
        begun = time.monotonic()
        ended = SqlLedger(url)
        ended.learn(V2, 0, 1)
        begun = time.monotonic()
        ended.close()
        assert time.monotonic() - begun < 8
    recovers(ledger, url, learned)
    recovers(late, url, learned_late)


def test_a_port_that_accepts_and_says_nothing(ledgers: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        begun = time.monotonic()
        ledger = ledgers(f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/x")
        assert time.monotonic() - begun < 8
        used_in_need(ledger)
        refused(ledger)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_tables_that_are_dropped(kind: str, cluster: Cluster, file: Path, ledgers: Make) -> None:
    url = f"sqlite:///{file}" if kind == "sqlite" else cluster.database()
    ledger = filled(ledgers, url)
    names = ["blocks", "coded", "links", "forgotten", "schema"]
    for dropped in (names[:1], names[2:], names):
        statements = [f"DROP TABLE IF EXISTS streamware_{name}" for name in dropped]
        if kind == "sqlite":
            with closing(sqlite3.connect(file, timeout=10)) as other:
                for statement in statements:
                    other.execute(statement)
                other.commit()
        else:
            with psycopg.connect(url.replace("+psycopg", "")) as server:
                for statement in statements:
                    server.execute(statement.encode())
        recovers(ledger, url, used_in_need(ledger))


def test_connections_that_are_cut(cluster: Cluster, ledgers: Make) -> None:
    url = cluster.database()
    ledger = filled(ledgers, url)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as server:
        for _ in range(2):
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'streamware'"
            )
            recovers(ledger, url, used_in_need(ledger, knows=V1))


def test_rows_and_tables_that_somebody_locks(cluster: Cluster, ledgers: Make) -> None:
    url = cluster.database()
    ledger = filled(ledgers, url)
    with psycopg.connect(url.replace("+psycopg", "")) as server:
        server.execute("LOCK TABLE streamware_blocks, streamware_links, streamware_forgotten IN ACCESS EXCLUSIVE MODE")
        learned = used_in_need(ledger, knows=V1)
        refused(ledger)
    recovers(ledger, url, learned)


def test_a_server_that_turns_read_only(cluster: Cluster, ledgers: Make, caplog: pytest.LogCaptureFixture) -> None:
    url = cluster.database()
    filled(ledgers, url)
    name = url.rpartition("/")[2]
    with psycopg.connect(cluster.url().replace("+psycopg", ""), autocommit=True) as server:
        server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        ledger = ledgers(url)
        learned = used_in_need(ledger, knows=V1)
        with pytest.raises(LedgerError):
            ledger.save("token", b"", LATER)
        assert ledger.load("token") is None
        time.sleep(0.5)
        assert "read-only" in caplog.text
        server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
    recovers(ledger, url, learned)


def test_a_wrong_password_is_not_shown(cluster: Cluster, ledgers: Make, caplog: pytest.LogCaptureFixture) -> None:
    ledger = ledgers(f"postgresql://nobody:secret@127.0.0.1:{cluster.port}/postgres")
    used_in_need(ledger)
    with pytest.raises(LedgerError) as caught:
        ledger.load("token")
    assert "nobody" in caplog.text
    assert "secret" not in caplog.text + str(caught.value)


# --- bounds ------------------------------------------------------------------------------------------------------


def test_what_is_pending_is_bounded(file: Path, ledgers: Make, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{file}"
    ledger = filled(ledgers, url)
    caplog.set_level(logging.INFO, "streamware")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(90_000):
            ledger.learn(b"many" + number.to_bytes(12, "big"), 0, number)
        assert "the oldest of it is not written" in caplog.text
        for number in range(90_000):
            ledger.learn_coded(b"many" + number.to_bytes(12, "big"), number)
            if number % 100 == 0:
                ledger.forget(b"more" + number.to_bytes(12, "big"))
        other.execute("COMMIT")
    latest = [b"many" + number.to_bytes(12, "big") for number in range(89_000, 90_000)]
    recovers(ledger, url, *latest)
    ledger.close()
    with closing(sqlite3.connect(file)) as other:
        for table in ("blocks", "coded"):
            assert 60_000 <= other.execute(f"SELECT count(*) FROM streamware_{table}").fetchone()[0] <= 74_000


def test_the_end_is_bounded_and_says_what_is_lost(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{file}"
    before = threading.active_count()
    ledger = SqlLedger(url)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for block in range(10):
            ledger.learn(V1, block, 1)
        assert seconds_of(ledger.close) < 5
        other.execute("COMMIT")
    assert "did not take in 10" in caplog.text
    deadline = time.monotonic() + 10
    while threading.active_count() > before:  # its thread ends with the statement it was at
        assert time.monotonic() < deadline
        time.sleep(0.05)
