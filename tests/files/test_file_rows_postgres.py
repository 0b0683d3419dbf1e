"""The rows of files in PostgreSQL: all that holds in SQLite, and what a server can do besides."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from streamware import file_database, file_tables, sessions
from streamware.database import Waits
from streamware.file_rows import FileRows
from streamware.upload_errors import StoreUnavailable
from tests.files.file_rows_cases import Cases, at_once, execute, new_id, upload
from tests.hosts.postgres import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("postgres") / "log")
    yield cluster
    cluster.remove()


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> str:
    return cluster.database()


@pytest.fixture
def url(database: str) -> str:
    """Emptied, which takes a tenth of the time that a new one does."""
    execute(database, "DROP SCHEMA public CASCADE")
    execute(database, "CREATE SCHEMA public")
    return database


class TestInPostgresql(Cases):
    pass


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_tables, "_WAITS", Waits(read=0.3, write=0.5, lock=0.3))
    monkeypatch.setattr(file_database, "_POOL_SECONDS", 1.0)
    monkeypatch.setattr(sessions, "_GRACE_SECONDS", 0.2)


def refused(rows: FileRows, id: str, *, within: float) -> None:
    since = time.monotonic()
    for error in at_once([lambda: rows.touch(id, 5), lambda: rows.upload(id), lambda: rows.doom(new_id())] * 5):
        assert isinstance(error, StoreUnavailable), error
    assert time.monotonic() - since < within


def test_a_server_that_stops_and_comes_back(cluster: Cluster, url: str) -> None:
    with closing(FileRows(url)) as rows:
        begun = upload()
        rows.create(begun)
        assert at_once([lambda: rows.upload(begun.id)] * 20) == [begun] * 20
        cluster.stop()
        try:
            refused(rows, begun.id, within=5.0)
        finally:
            cluster.start()
        assert at_once([lambda: rows.upload(begun.id)] * 20) == [begun] * 20
        cluster.kill()
        cluster.start()
        # Nobody asked meanwhile: connections that turn out to be lost are no failure.
        assert at_once([lambda: rows.upload(begun.id)] * 20) == [begun] * 20


@pytest.mark.usefixtures("hasty")
def test_a_server_that_does_not_answer(cluster: Cluster, url: str) -> None:
    with closing(FileRows(url)) as rows:
        begun = upload()
        rows.create(begun)
        at_once([lambda: rows.upload(begun.id)] * 20)
        with cluster.frozen():
            # To connect anew takes two seconds besides.
            refused(rows, begun.id, within=6.0)
        assert at_once([lambda: rows.upload(begun.id)] * 20) == [begun] * 20
        assert rows.touch(begun.id, 5)


def test_a_server_that_is_not_there_at_the_start(cluster: Cluster, url: str) -> None:
    cluster.stop()
    try:
        rows = FileRows(url)
        with pytest.raises(StoreUnavailable):
            rows.files([new_id()])
    finally:
        cluster.start()
    with closing(rows):
        assert rows.files([new_id()]) == {}


@pytest.mark.usefixtures("hasty")
def test_somebody_elses_lock_is_not_waited_for_long(url: str) -> None:
    with closing(FileRows(url)) as rows, psycopg.connect(url.replace("+psycopg", "")) as other:
        begun = upload()
        rows.create(begun)
        other.execute("SELECT * FROM streamware_files FOR UPDATE")
        since = time.monotonic()
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            rows.touch(begun.id, 5)
        assert time.monotonic() - since < 3.0
        assert rows.upload(begun.id) == begun
        assert rows.doomed(2000, 5) == []  # it is not expired for good while somebody is at it
        other.rollback()
        assert rows.doomed(2000, 5) == [begun.id]


def test_a_few_connections_serve_all(cluster: Cluster, url: str) -> None:
    name = url.rpartition("/")[2]
    with closing(FileRows(url)) as rows:
        most = [0]
        done = threading.Event()

        def watch() -> None:
            query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
            while not done.wait(0.01):
                most[0] = max(most[0], execute(cluster.url(), query)[0][0])

        watcher = threading.Thread(target=watch)
        watcher.start()
        at_once([lambda: [rows.files([new_id()]) for _ in range(10)]] * 30)
        done.set()
        watcher.join(10)
        assert 2 <= most[0] <= 8


def test_a_database_without_an_encoding_serves(cluster: Cluster) -> None:
    with closing(FileRows(cluster.database("-E", "SQL_ASCII", "-T", "template0"))) as rows:
        begun = upload(name="grüße")
        rows.create(begun)
        assert rows.upload(begun.id) == begun
