"""The rows of files in SQLite."""

from __future__ import annotations

import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from streamware import file_database, file_tables
from streamware.database import Waits
from streamware.file_rows import FileRows
from streamware.upload_errors import StoreUnavailable
from tests.files.file_rows_cases import Cases, at_once, part, upload, whole


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "files.sqlite3"


@pytest.fixture
def url(file: Path) -> str:
    return f"sqlite:///{file}"


class TestInSqlite(Cases):
    pass


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Somebody else is writing."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_tables, "_WAITS", Waits(read=0.5, write=1.0, lock=0.3))
    monkeypatch.setattr(file_database, "_POOL_SECONDS", 0.6)


@pytest.mark.usefixtures("hasty")
def test_somebody_elses_lock_is_not_waited_for_long(url: str, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(FileRows(url)) as rows:
        begun = upload()
        rows.create(begun)
        with locked(file):
            since = time.monotonic()
            for error in at_once([lambda: rows.touch(begun.id, 5)] * 8):
                assert isinstance(error, StoreUnavailable)
                assert error.retry_after
            assert time.monotonic() - since < 4.0
            assert rows.upload(begun.id) == begun  # who reads waits for no writer
        assert rows.touch(begun.id, 5)
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == ["it cannot be used"]


def test_a_short_lock_is_waited_for(url: str, file: Path) -> None:
    with closing(FileRows(url)) as rows:
        begun = upload()
        rows.create(begun)
        done: list[bool] = []
        thread = threading.Thread(target=lambda: done.append(rows.touch(begun.id, 5)))
        with locked(file):
            thread.start()
            time.sleep(0.5)
            assert not done
        thread.join(10)
        assert done == [True]


def test_a_file_that_is_garbage_and_then_fine_again(url: str, file: Path) -> None:
    with closing(FileRows(url)) as rows:
        begun = upload()
        rows.create(begun)
        rows.append(begun.id, 0, [part(begun.id, 0, 3)], crc32=1, expires=5)
    fine = file.read_bytes()
    file.write_bytes(b"garbage" * 1000)
    with closing(FileRows(url)) as rows:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="not a database"):
                rows.parts(begun.id)
        file.unlink()
        file.write_bytes(fine)
        assert rows.finish(whole(begun, 3))


def test_a_directory_that_is_gone_for_a_while(tmp_path: Path) -> None:
    folder, away = tmp_path / "state", tmp_path / "away"
    folder.mkdir()
    with closing(FileRows(f"sqlite:///{folder}/files.sqlite3")) as rows:
        begun = upload()
        rows.create(begun)
        folder.rename(away)
        with pytest.raises(StoreUnavailable):
            rows.upload(begun.id)
        away.rename(folder)
        assert rows.upload(begun.id) == begun


def test_what_is_kept_is_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(FileRows("sqlite:///files.sqlite3")) as rows:
        monkeypatch.chdir("/")  # as a daemon does
        rows.create(upload())
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert [path.name for path in tmp_path.iterdir()] == ["files.sqlite3"]


def test_what_was_written_outlives_a_power_failure(make_one: FileRows) -> None:
    task = make_one._writers.run(lambda c: c.exec_driver_sql("PRAGMA synchronous").scalar(), write=True)
    mode = make_one._writers.run(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar(), write=True)
    assert (task, mode) == (2, "wal")  # FULL


@pytest.fixture
def make_one(url: str) -> Iterator[FileRows]:
    with closing(FileRows(url)) as rows:
        yield rows


@pytest.mark.parametrize(
    "url",
    [
        *("", "sqlite", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true", "no url"),
        *("sqlite:////no/such/directory/files.sqlite3", "sqlite:////tmp", "mysql://u:secret@h/x"),
        "postgresql://u:secret@h:port/x",
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        FileRows(url)
    assert "secret" not in str(caught.value)
    assert "ledger" not in str(caught.value)


@pytest.mark.parametrize(
    ("package", "url", "extra"), [("sqlalchemy", "sqlite:///x", "sql"), ("psycopg", "postgresql://h/x", "postgresql")]
)
def test_a_missing_package_is_named(package: str, url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"pip install 'streamware\[{extra}\]'"):
        FileRows(url)
