"""What must hold of the rows of files in whatever database they are kept.

A test module inherits ``Cases`` and gives a fixture ``url``, an empty database.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from streamware import sessions
from streamware.file_rows import FileRows
from streamware.shared_ledger import SqlLedger
from streamware.stored import Part, StoredFile, Upload
from streamware.upload_errors import QuotaExceeded, StoreFailed, StoreUnavailable

__all__ = ["Cases", "Make", "at_once", "execute", "new_id", "part", "upload", "whole"]

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[[], FileRows]

NOBODYS = "6d1f0a7c-9b52-4c1e-8f7a-0c2b5d3e4f60"  # a good id, and no row's


def new_id() -> str:
    return str(uuid.uuid4())


def upload(**options: Any) -> Upload:
    told = {"id": new_id(), "name": "a.txt", "media_type": "text/plain", "length": None, "created": 10, "expires": 1000}
    return Upload(**told | options)


def part(id: str, offset: int, length: int, crc32: int = 7) -> Part:
    return Part(offset, length, f"{id[:2]}/{id}/{offset:016x}-0badcafe", crc32)


def whole(upload: Upload, size: int, **options: Any) -> StoredFile:
    file = StoredFile(upload.id, upload.name, upload.media_type, size, 5, None, upload.created, None, upload.owner)
    return replace(file, **options)


def stored(rows: FileRows, size: int = 3, *, micros: int = 0, **options: Any) -> StoredFile:
    """A file that is there."""
    begun = upload(**options)
    rows.create(begun)
    assert rows.append(begun.id, 0, [part(begun.id, 0, size)], crc32=5, expires=1000)
    file = whole(begun, size, micros=micros)
    assert rows.finish(file)
    return file


def partial(rows: FileRows, *sizes: int) -> Upload:
    begun = upload(kind="partial", length=sum(sizes))
    rows.create(begun)
    offsets = [sum(sizes[:n]) for n in range(len(sizes))]
    parts = [part(begun.id, offset, size) for offset, size in zip(offsets, sizes, strict=True)]
    assert rows.append(begun.id, 0, parts, crc32=1, expires=1000)
    return begun


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What calls give or raise that begin together, each in a thread."""
    ready = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        ready.wait(30)
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def execute(url: str, statement: str, **values: object) -> list[tuple[Any, ...]]:
    """Look at the database, or tamper with it, behind the rows' back."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sqlalchemy.text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []


# What makes tables of now to be those of the first version.
VERSION_1 = (
    "DROP INDEX ix_streamware_files_created",
    "ALTER TABLE streamware_files DROP COLUMN micros",
    "CREATE INDEX ix_streamware_files_created ON streamware_files (state, created, id)",
    "UPDATE streamware_schema SET value = 1 WHERE name = 'files'",
)


def layout(url: str) -> tuple[set[tuple[str, bool]], dict[str | None, list[str | None]]]:
    """The columns of files, with whether they may be empty, and what their indexes are of."""
    inspected = sqlalchemy.inspect(sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool))
    columns = {(column["name"], column["nullable"]) for column in inspected.get_columns("streamware_files")}
    return columns, {index["name"]: index["column_names"] for index in inspected.get_indexes("streamware_files")}


class Cases:
    @pytest.fixture
    def make(self, url: str) -> Iterator[Make]:
        """Makes what a replica has of the database, and closes it."""
        made: list[FileRows] = []

        def make() -> FileRows:
            made.append(FileRows(url))
            return made[-1]

        yield make
        for rows in made:
            rows.close()

    @pytest.fixture
    def rows(self, make: Make) -> FileRows:
        return make()

    @pytest.fixture
    def replicas(self, make: Make) -> tuple[FileRows, FileRows]:
        return make(), make()

    # --- one after another ---

    def test_an_upload_becomes_a_file(self, replicas: tuple[FileRows, FileRows]) -> None:
        rows, other = replicas
        begun = upload(length=11, kind="tus", owner="me", metadata="filename YQ==", concat="")
        rows.create(begun)
        assert other.upload(begun.id) == begun
        assert other.file(begun.id) is None
        assert other.parts(begun.id) == []
        parts = [part(begun.id, 0, 5, 0), part(begun.id, 5, 6, 2**32 - 1)]
        assert rows.append(begun.id, 0, parts[:1], crc32=1, expires=1001)
        assert other.append(begun.id, 5, parts[1:], crc32=2, expires=1002)
        assert rows.upload(begun.id) == replace(begun, offset=11, crc32=2, expires=1002)
        assert rows.listed(limit=5) == ([], None)
        file = whole(begun, 11, metadata=begun.metadata, sha256=bytes(range(32)), expires=2000)
        assert rows.finish(file)
        assert not other.finish(file)
        assert other.upload(begun.id) is None
        assert other.file(begun.id) == file
        assert other.files([new_id(), begun.id, begun.id]) == {begun.id: file}
        assert other.parts(begun.id) == parts
        assert other.listed(limit=5) == ([file], None)
        assert not rows.touch(begun.id, 5)
        assert not rows.append(begun.id, 11, [part(begun.id, 11, 1)], crc32=1, expires=1)

    def test_large_numbers(self, rows: FileRows) -> None:
        begun = upload(length=2**53)
        rows.create(begun)
        assert rows.append(begun.id, 0, [part(begun.id, 0, 2**53)], crc32=2**32 - 1, expires=2**40)
        file = whole(begun, 2**53, crc32=2**32 - 1)
        assert rows.finish(file)
        assert rows.file(begun.id) == file

    def test_an_empty_file(self, rows: FileRows) -> None:
        begun = upload(length=0)
        rows.create(begun)
        assert rows.append(begun.id, 0, [], crc32=0, expires=5)
        assert rows.finish(whole(begun, 0))
        assert rows.parts(begun.id) == []

    def test_parts_are_added_only_where_the_upload_stands(self, rows: FileRows) -> None:
        begun = upload(length=10)
        rows.create(begun)
        assert rows.append(begun.id, 0, [part(begun.id, 0, 4)], crc32=1, expires=5)
        for offset, length in ((0, 4), (3, 1), (5, 1), (4, 7)):
            assert not rows.append(begun.id, offset, [part(begun.id, offset, length)], crc32=2, expires=6)
        assert not rows.append(new_id(), 4, [part(begun.id, 4, 1)], crc32=2, expires=6)
        with pytest.raises(ValueError, match="begins at 5, and not at 4"):
            rows.append(begun.id, 4, [part(begun.id, 5, 1)], crc32=2, expires=6)
        assert rows.parts(begun.id) == [part(begun.id, 0, 4)]
        assert rows.upload(begun.id) == replace(begun, offset=4, crc32=1, expires=5)

    def test_a_length_is_said_once(self, rows: FileRows) -> None:
        begun = upload()
        rows.create(begun)
        rows.append(begun.id, 0, [part(begun.id, 0, 4)], crc32=1, expires=5)
        assert not rows.set_length(begun.id, 3)
        assert rows.set_length(begun.id, 6)
        assert rows.set_length(begun.id, 6)
        assert not rows.set_length(begun.id, 7)
        assert not rows.set_length(new_id(), 7)
        assert not rows.finish(whole(begun, 4))  # it is still to come to six
        assert not rows.finish(whole(begun, 6))
        found = rows.upload(begun.id)
        assert found is not None
        assert (found.length, found.offset) == (6, 4)

    def test_a_digest_comes_later(self, rows: FileRows) -> None:
        files = [stored(rows, created=n) for n in range(3)]
        begun = upload()
        rows.create(begun)
        places = [(file.created, file.id) for file in files]
        assert rows.unhashed(2) == places[:2]
        assert rows.unhashed(2, after=places[1]) == places[2:]
        assert rows.unhashed(2, after=places[2]) == []
        rows.set_sha256(files[0].id, b"s" * 32)
        rows.set_sha256(begun.id, b"s" * 32)
        rows.set_sha256(new_id(), b"s" * 32)
        assert rows.unhashed(10) == places[1:]
        assert rows.file(files[0].id) == replace(files[0], sha256=b"s" * 32)

    def test_of_files_of_one_second_none_is_left_without_a_digest(self, rows: FileRows) -> None:
        places = sorted((7, stored(rows, created=7).id) for _ in range(5))
        assert rows.unhashed(2) == places[:2]
        assert rows.unhashed(2, after=places[1]) == places[2:4]
        assert rows.unhashed(2, after=places[3]) == places[4:]

    def test_odd_texts_are_kept_as_far_as_can_be(self, rows: FileRows) -> None:
        fine = "grüße \N{GRINNING FACE} 'quoted' \"%s\" ? \\ " + "x" * 100_000
        odd = fine + "\udc80\ud800\0"
        begun = upload(name=odd, media_type=odd, owner=odd, metadata=odd, concat=odd)
        rows.create(begun, max_files=1, max_bytes=5)
        kept = rows.upload(begun.id)
        assert kept is not None
        assert {kept.name, kept.media_type, kept.owner, kept.metadata, kept.concat} == {fine + "??\ufffd"}
        with pytest.raises(QuotaExceeded):
            rows.create(upload(owner=odd), max_files=1)
        file = whole(begun, 0)
        assert rows.finish(file)
        assert rows.listed(limit=1)[0][0].name == kept.name

    def test_quotas(self, rows: FileRows) -> None:
        rows.create(upload(owner="other", length=10**9))
        first, second = upload(owner="me", length=60), upload(owner="me")
        rows.create(first, max_files=2, max_bytes=100)
        with pytest.raises(QuotaExceeded):
            rows.create(upload(owner="me", length=41), max_bytes=100)
        rows.create(second, max_files=2, max_bytes=100)
        with pytest.raises(QuotaExceeded):
            rows.create(upload(owner="me"), max_files=2)
        with pytest.raises(QuotaExceeded):
            rows.append(second.id, 0, [part(second.id, 0, 41)], crc32=1, expires=5, max_bytes=100)
        assert rows.append(second.id, 0, [part(second.id, 0, 30)], crc32=1, expires=5, max_bytes=100)
        with pytest.raises(QuotaExceeded):
            rows.set_length(second.id, 41, max_bytes=100)
        assert rows.set_length(second.id, 40, max_bytes=100)
        # What an upload was counted for when it began it may have, even if the limit is lower by now.
        assert rows.append(first.id, 0, [part(first.id, 0, 60)], crc32=1, expires=5, max_bytes=10)
        assert rows.finish(whole(first, 60))
        with pytest.raises(QuotaExceeded):
            rows.create(upload(owner="me", length=1), max_bytes=100)
        rows.doom(first.id)
        rows.create(upload(owner="me", length=60), max_files=2, max_bytes=100)

    def test_uploads_are_joined(self, rows: FileRows) -> None:
        one, two, empty = partial(rows, 3, 4), partial(rows, 5), upload(kind="partial", length=0)
        rows.create(empty)
        ids = [two.id, empty.id, one.id]
        unfinished, ordinary = upload(kind="partial", length=4), upload(length=0)
        for each in (unfinished, ordinary):
            rows.create(each)
        file = whole(upload(owner="me", concat="final"), 12, concat="final")
        for wrong in ([*ids, new_id()], [*ids, unfinished.id], [*ids, ordinary.id], [*ids, empty.id], ids[1:]):
            assert not rows.join(file, wrong)
        assert rows.file(file.id) is None
        assert rows.upload(one.id) is not None
        assert rows.join(file, ids)
        assert rows.file(file.id) == file
        moved = [(0, 5, part(two.id, 0, 5)), (5, 3, part(one.id, 0, 3)), (8, 4, part(one.id, 3, 4))]
        assert rows.parts(file.id) == [Part(offset, length, old.key, old.crc32) for offset, length, old in moved]
        assert [rows.upload(each) for each in ids] == [None] * 3
        keys, strange = [old.key for _, _, old in moved], part(new_id(), 0, 1).key
        assert rows.strays([*keys, strange]) == [strange]
        assert not rows.join(replace(file, id=new_id()), ids)
        rows.doom(file.id)
        assert rows.keys(file.id) == [old.key for _, _, old in moved]
        rows.forget(file.id)
        assert rows.strays(keys) == keys

    def test_what_ends_is_gone_first_and_forgotten_later(self, rows: FileRows) -> None:
        file, begun = stored(rows), upload()
        rows.create(begun)
        for each in (file.id, begun.id):
            rows.forget(each)  # it is not gone
            assert rows.doom(each)
            assert not rows.doom(each)
        assert not rows.doom(new_id())
        assert (rows.file(file.id), rows.files([file.id]), rows.upload(begun.id)) == (None, {}, None)
        assert (rows.parts(file.id), rows.listed(limit=5), rows.unhashed(5)) == ([], ([], None), [])
        assert not rows.append(begun.id, 0, [part(begun.id, 0, 1)], crc32=0, expires=1)
        assert not rows.touch(begun.id, 5)
        assert not rows.set_length(begun.id, 5)
        assert not rows.finish(whole(begun, 0))
        assert rows.keys(file.id) == [part(file.id, 0, 3).key]
        known, unknown = part(file.id, 0, 3).key, part(begun.id, 0, 3).key
        assert rows.strays([known, unknown]) == [unknown]
        assert set(rows.doomed(0, 10)) == {file.id, begun.id}
        assert len(rows.doomed(0, 1)) == 1
        assert rows.doomed(int(time.time()) + 50, 10, grace=100) == []
        assert len(rows.doomed(int(time.time()) + 101, 10, grace=100)) == 2
        rows.forget(file.id)
        assert rows.strays([known, unknown]) == [known, unknown]
        assert rows.keys(file.id) == []

    def test_what_expires_ends(self, rows: FileRows) -> None:
        kept, begun, later = stored(rows), upload(expires=50), upload(expires=51)
        for each in (begun, later):
            rows.create(each)
        file = upload(expires=10**6)
        rows.create(file)
        assert rows.finish(whole(file, 0, expires=50))
        assert rows.doomed(49, 10) == []
        assert rows.touch(later.id, 60)
        assert set(rows.doomed(51, 10)) == {begun.id, file.id}
        assert (rows.upload(begun.id), rows.file(file.id)) == (None, None)
        assert rows.file(kept.id)
        assert rows.upload(later.id)
        assert rows.doomed(60, 0) == []
        assert set(rows.doomed(60, 10)) == {begun.id, file.id, later.id}

    def test_a_lease_is_one_replicas_until_it_ends(self, replicas: tuple[FileRows, FileRows]) -> None:
        one, two = replicas
        assert one.claim("sweep", 10.0, 100.5)
        assert not two.claim("sweep", 10.0, 105.0)
        assert two.claim("another task", 10.0, 105.0)
        assert one.claim("sweep", 10.0, 105.0)  # goes on
        assert not two.claim("sweep", 10.0, 110.6)
        assert two.claim("sweep", 10.0, 115.0)
        assert not one.claim("sweep", 10.0, 116.0)
        # The clock of the one that has it was days ahead.
        assert two.claim("sweep", 10.0, 10.0**6)
        assert one.claim("sweep", 10.0, 117.0)

    # --- many ---

    def test_many_parts_and_many_ids(self, rows: FileRows) -> None:
        begun = upload()
        rows.create(begun)
        parts = [part(begun.id, 2 * n, 2) for n in range(20_000)]
        assert rows.append(begun.id, 0, parts, crc32=1, expires=5)
        assert rows.parts(begun.id) == parts
        files = {file.id: file for file in (stored(rows) for _ in range(5))}
        some = [new_id() for _ in range(9_990)]
        wanted = [*files, *some, *files]
        random.Random(6).shuffle(wanted)
        assert rows.files(wanted) == files
        # Of an upload that is not finished, anything at its home may yet become a part.
        keys = [part(each, 0, 3).key for each in wanted]
        unknown = [key for each, key in zip(wanted, keys, strict=True) if each not in files]
        assert rows.strays([*keys, part(begun.id, 7, 1).key]) == unknown

    def test_pages_while_files_come_and_go(self, rows: FileRows) -> None:
        # Several of one second, and of one microsecond, so that the time alone does not tell them apart.
        files = [stored(rows, created=100 + n // 7, micros=n % 7 // 2) for n in range(40)]
        wanted = sorted(files, key=lambda file: (file.created, file.micros, file.id), reverse=True)
        seen: list[StoredFile] = []
        gone: set[str] = set()
        after = None
        while True:
            page, after = rows.listed(limit=6, after=after)
            seen += page
            if after is None:
                break
            assert len(page) == 6
            rows.doom(page[-1].id)  # the place that the next page begins at
            last = wanted[-1]
            rows.doom(last.id)
            gone.add(last.id)
            wanted.pop()
            stored(rows, created=10**6)  # newer than all
        assert seen == wanted
        assert len(gone) >= 5
        assert len(rows.listed(limit=100)[0]) == 40 - 5 - len(gone) + 5 + (len(gone) - 5)

    def test_the_newest_of_one_second_is_the_first(self, rows: FileRows) -> None:
        files = [stored(rows, created=100, micros=n) for n in (0, 1, 20, 300, 999_999)]
        seen, after = rows.listed(limit=1)
        while after is not None:
            page, after = rows.listed(limit=1, after=after)
            seen += page
        assert seen == files[::-1]

    @pytest.mark.parametrize(
        "after", ["", "1", "1.1." + "x" * 36, f"1.x.{NOBODYS}", f"{10**30}.1.{NOBODYS}", f"1.{10**6}.{NOBODYS}"]
    )
    def test_only_its_own_places_are_taken(self, after: str, rows: FileRows) -> None:
        with pytest.raises(ValueError, match="no place"):
            rows.listed(limit=5, after=after)

    def test_200_uploads_at_once(self, rows: FileRows) -> None:
        def send() -> float:
            begun, since = upload(owner="me", length=10), time.monotonic()
            rows.create(begun, max_files=200, max_bytes=2000)
            assert rows.append(begun.id, 0, [part(begun.id, 0, 10)], crc32=1, expires=5)
            assert rows.finish(whole(begun, 10))
            return time.monotonic() - since

        assert [took for took in at_once([send] * 200) if not isinstance(took, float)] == []
        with pytest.raises(QuotaExceeded):
            rows.create(upload(owner="me"), max_files=200)
        assert len(rows.listed(limit=1000)[0]) == 200

    # --- races ---

    def test_one_of_many_adds_at_an_offset(self, replicas: tuple[FileRows, FileRows]) -> None:
        begun = upload()
        replicas[0].create(begun)
        for offset in range(5):
            parts = [part(begun.id, offset, 1, crc32=n) for n in range(8)]
            calls = [
                lambda n=n, offset=offset, each=each: replicas[n % 2].append(
                    begun.id, offset, [each], crc32=n, expires=5, max_bytes=10**6 if n < 4 else None
                )
                for n, each in enumerate(parts)
            ]
            done = at_once(calls)
            assert sorted(done) == [False] * 7 + [True]
            found = replicas[1].upload(begun.id)
            assert found is not None
            assert (found.offset, found.crc32) == (offset + 1, done.index(True))
            assert replicas[0].parts(begun.id)[-1] == parts[done.index(True)]

    def test_a_file_is_what_it_was_when_it_was_finished(self, replicas: tuple[FileRows, FileRows]) -> None:
        for _ in range(8):
            begun = upload()
            replicas[0].create(begun)
            assert replicas[0].append(begun.id, 0, [part(begun.id, 0, 3)], crc32=1, expires=5)
            more = [part(begun.id, 3, 2)]
            finished, grown, dropped = at_once(
                [
                    lambda begun=begun: replicas[0].finish(whole(begun, 3)),
                    lambda begun=begun, more=more: replicas[1].append(begun.id, 3, more, crc32=1, expires=5),
                    lambda begun=begun: replicas[1].doom(begun.id),
                ]
            )
            assert dropped is True
            assert not (finished and grown)
            assert len(replicas[0].keys(begun.id)) == 1 + grown
            assert replicas[0].file(begun.id) is None

    def test_one_of_many_ends_it(self, replicas: tuple[FileRows, FileRows]) -> None:
        file = stored(replicas[0])
        done = at_once([lambda n=n: replicas[n % 2].doom(file.id) for n in range(8)])
        assert sorted(done) == [False] * 7 + [True]

    def test_one_of_many_joins(self, replicas: tuple[FileRows, FileRows]) -> None:
        for _ in range(4):
            ids = [partial(replicas[0], 1, 2).id for _ in range(3)]
            files = [whole(upload(), 9) for _ in range(4)]
            orders = [ids, ids[::-1], ids, ids[::-1]]
            pairs = list(zip(files, orders, strict=True))
            calls = [
                lambda n=n, pair=pair: replicas[n % 2].join(*pair)  # type: ignore[misc]
                for n, pair in enumerate(pairs)
            ]
            done = at_once([*calls, lambda: len(replicas[1].doomed(500, 10))])
            assert sorted(done[:4]) == [False] * 3 + [True]
            winner, order = pairs[done.index(True)]
            assert [one.key.split("/")[1] for one in replicas[1].parts(winner.id)[::2]] == order
            assert list(replicas[1].files([file.id for file in files])) == [winner.id]

    def test_quotas_hold_when_many_begin_at_once(self, replicas: tuple[FileRows, FileRows]) -> None:
        def begin(n: int, **limits: int) -> bool:
            try:
                replicas[n % 2].create(upload(owner="me", length=10), **limits)
            except QuotaExceeded:
                return False
            return True

        assert sum(at_once([lambda n=n: begin(n, max_files=5) for n in range(16)])) == 5
        assert sum(at_once([lambda n=n: begin(n, max_bytes=109) for n in range(16)])) == 5
        open_ones = [upload(owner="you") for _ in range(12)]
        for each in open_ones:
            replicas[0].create(each)

        def grow(n: int) -> bool:
            one = open_ones[n].id
            try:
                return replicas[n % 2].append(one, 0, [part(one, 0, 10)], crc32=1, expires=5, max_bytes=45)
            except QuotaExceeded:
                return False

        assert sum(at_once([lambda n=n: grow(n) for n in range(12)])) == 4

    def test_one_of_many_gets_a_lease(self, make: Make) -> None:
        replicas = [make() for _ in range(6)]
        for now in (100.0, 200.0):
            done = at_once([lambda rows=rows, now=now: rows.claim("sweep", 10.0, now) for rows in replicas])
            assert sorted(done) == [False] * 5 + [True]

    def test_many_can_be_the_first(self, url: str) -> None:
        made = at_once([lambda: FileRows(url)] * 6)
        for rows in made:
            rows.create(upload())
            rows.close()
        assert execute(url, "SELECT count(*) FROM streamware_files") == [(6,)]

    # --- connections ---

    def test_a_fork_gets_connections_of_its_own(self, url: str) -> None:
        code = """
            import os, sys, threading, uuid, warnings
            from streamware.file_rows import FileRows
            from streamware.stored import Upload

            rows = FileRows(sys.argv[1])
            assert threading.active_count() == 1, threading.enumerate()
            enough = threading.Event()

            def add(owner):
                id = str(uuid.uuid4())
                rows.create(Upload(id, "", "", None, 5, 5, owner=owner))
                assert rows.upload(id)

            def busy():
                while not enough.wait(0.01):
                    add("parent")

            threads = [threading.Thread(target=busy) for _ in range(2)]
            children = []
            for _ in range(4):
                pid = os.fork()
                if pid == 0:
                    for _ in range(5):
                        add("child")
                    rows.close()
                    os._exit(0)
                if not children:
                    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
                    for thread in threads:
                        thread.start()
                children.append(pid)
                add("parent")
            for pid in children:
                assert os.waitpid(pid, 0)[1] == 0
            enough.set()
            for thread in threads:
                thread.join()
            add("parent")
            rows.close()
        """
        line = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code), url]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert (done.stdout, done.stderr) == ("", "")
        assert execute(url, "SELECT count(*) FROM streamware_files WHERE owner = 'child'") == [(20,)]

    def test_nobody_needs_a_connection_for_ever(self, rows: FileRows, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sessions, "_IDLE_SECONDS", 0.0)
        monkeypatch.setattr(sessions, "_LOOK_SECONDS", 0.05)
        before = len(os.listdir("/proc/self/fd"))
        at_once([lambda: rows.files([new_id()])] * 20)
        deadline = time.monotonic() + 10
        while len(os.listdir("/proc/self/fd")) > before or any("keeper" in t.name for t in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert rows.files([new_id()]) == {}

    def test_after_the_end_nothing_is_to_be_had(self, rows: FileRows) -> None:
        file = stored(rows)
        rows.close()
        rows.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            rows.file(file.id)
        assert not any("keeper" in thread.name for thread in threading.enumerate())

    # --- the schema ---

    def test_the_ledger_may_be_in_the_same_database(self, url: str) -> None:
        with closing(SqlLedger(url)) as ledger, closing(FileRows(url)) as rows:
            file = stored(rows)
            ledger.save("token", b"body", 2**33)
            assert ledger.load("token") == (b"body", 2**33)
            assert rows.file(file.id) == file
            identity = rows.identity()
        facts = dict(execute(url, "SELECT name, value FROM streamware_schema WHERE name <> 'swept'"))
        assert facts == {"version": 2, "files": 2, "files-identity": int(identity, 16)}
        with closing(FileRows(url)) as rows:
            assert rows.identity() == identity

    def test_a_later_schema_is_refused(self, make: Make, url: str) -> None:
        make().close()
        execute(url, "UPDATE streamware_schema SET value = 9 WHERE name = 'files'")
        with pytest.raises(ValueError, match="file store's tables of version 9"):
            make()
        with closing(SqlLedger(url)) as ledger:  # whose tables are its own
            ledger.save("token", b"body", 2**33)

    def test_an_earlier_schema_is_brought_up_to_date(self, make: Make, url: str) -> None:
        rows = make()
        olds = [stored(rows, created=created) for created in (99, 100)]
        rows.close()
        wanted = layout(url)
        for statement in VERSION_1:
            execute(url, statement)
        assert layout(url) != wanted
        rows = make()
        assert layout(url) == wanted
        new = stored(rows, created=100, micros=1)
        assert rows.listed(limit=2) == ([new, olds[1]], f"100.0.{olds[1].id}")
        assert rows.listed(limit=2, after=f"100.0.{olds[1].id}") == ([olds[0]], None)
        assert execute(url, "SELECT value FROM streamware_schema WHERE name = 'files'") == [(2,)]

    def test_tables_that_are_missing_are_made(self, make: Make, url: str) -> None:
        rows = make()
        file = stored(rows)
        assert rows.parts(file.id)
        execute(url, "DROP TABLE streamware_parts")
        with pytest.raises(StoreUnavailable):
            rows.parts(file.id)
        with pytest.raises(StoreFailed):
            rows.parts(file.id)
        assert rows.file(file.id) == file

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE streamware_files SET crc32 = 4294967296 WHERE id = :id",
            "UPDATE streamware_files SET length = -1 WHERE id = :id",
            "UPDATE streamware_files SET micros = 1000000 WHERE id = :id",
            "UPDATE streamware_files SET sha256 = :digest WHERE id = :id",
            "UPDATE streamware_files SET id = 'x' WHERE id = :id",
        ],
    )
    def test_a_damaged_row_is_not_believed(
        self, damage: str, rows: FileRows, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        fine, bad = stored(rows), stored(rows)
        execute(url, damage, **{"id": bad.id} | ({"digest": b"short"} if ":digest" in damage else {}))
        assert rows.listed(limit=5) == ([fine], None)
        assert rows.files([fine.id, bad.id]) == {fine.id: fine}
        if "'x'" not in damage:
            with pytest.raises(StoreFailed, match="damaged"):
                rows.file(bad.id)
        assert "damaged" in caplog.text

    def test_parts_that_are_not_all_there_are_not_believed(self, rows: FileRows, url: str) -> None:
        begun = upload()
        rows.create(begun)
        rows.append(begun.id, 0, [part(begun.id, n, 1) for n in range(3)], crc32=1, expires=5)
        for offset in (1, 2, 0):
            execute(url, 'DELETE FROM streamware_parts WHERE file = :id AND "offset" = :n', id=begun.id, n=offset)
            with pytest.raises(StoreFailed):
                rows.parts(begun.id)
