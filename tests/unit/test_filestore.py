"""The file store on a real database and a real folder: what is kept, in which order, and what is left over."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from streamware.appender import Appender
from streamware.filestore import FileStore
from streamware.leftovers import Leftovers
from streamware.policy import Policy
from streamware.stored import StoredFile, Upload
from streamware.upload_errors import (
    FileUnknown,
    OffsetMismatch,
    QuotaExceeded,
    StoreUnavailable,
    UploadError,
    UploadExpired,
    UploadLocked,
    UploadTooLarge,
)

pytest.importorskip("obstore")
pytest.importorskip("sqlalchemy")

CONTENT = bytes(range(256)) * 1000


def made(folder: Path, **limits: object) -> FileStore:
    return FileStore(
        (folder / "bytes").as_uri(),
        f"sqlite:///{folder}/rows.sqlite3",
        policy=Policy(**limits),  # type: ignore[arg-type]
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStore]:
    store = made(tmp_path, upload_part_bytes=50_000)
    yield store
    store.close()


def content_of(store: FileStore, file: StoredFile) -> bytes:
    chunks = store.source(file.id).open(0, file.size)
    try:
        return b"".join(chunks)
    finally:
        chunks.close()


def objects(folder: Path) -> list[str]:
    return [os.path.join(top, name) for top, _, names in os.walk(folder / "bytes") for name in names if "/." not in top]


def until_hashed(store: FileStore, id: str) -> StoredFile:
    for _ in range(500):
        file = store.file(id)
        if file.sha256 is not None:
            return file
        time.sleep(0.01)
    raise AssertionError("its SHA-256 was never taken")


def test_a_file_is_kept_in_parts_and_known_by_its_digests(store: FileStore, tmp_path: Path) -> None:
    file = store.add("a.bin", iter([CONTENT[:70_000], CONTENT[70_000:]]), media_type="text/plain", owner="me")
    assert (file.name, file.media_type, file.size, file.owner) == ("a.bin", "text/plain", len(CONTENT), "me")
    assert file.sha256 == hashlib.sha256(CONTENT).digest()
    assert file.crc32 == zlib.crc32(CONTENT)
    assert store.file(file.id) == file
    assert content_of(store, file) == CONTENT
    assert len(objects(tmp_path)) == len(store.parts(file.id)) > 1


def test_a_name_and_a_type_are_data_only_whoever_gives_them(store: FileStore) -> None:
    file = store.add("../a/b\r\nc\ud800" + "y" * 5000 + ".txt", [b"x"], media_type="text/html\r\nX-Evil: y")
    assert file.name.startswith("b__c_yyy")
    assert file.name.endswith("y.txt")
    assert len(file.name.encode()) == store.policy.max_name_bytes
    assert file.media_type == "application/octet-stream"
    assert store.file(file.id) == file


def test_the_newest_file_is_listed_first_also_within_a_second(store: FileStore) -> None:
    files = [store.add(f"{number}", [b"x"]) for number in range(10)]
    partial = store.begin("p", "text/plain", kind="partial", length=0)
    files.append(store.join([partial.id], "joined", "text/plain"))
    files.append(store.add("last", []))
    found, _ = store.listed(limit=100)
    assert [file.id for file in found] == [file.id for file in reversed(files)]


def test_nothing_stays_of_a_file_whose_pieces_fail(store: FileStore, tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield CONTENT
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        store.add("a", pieces())
    assert store.listed(limit=10) == ([], None)
    assert objects(tmp_path) == []


def test_an_upload_goes_on_with_its_digest(store: FileStore) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    for start in range(0, len(CONTENT), 60_000):
        upload = store.upload(upload.id)
        assert upload.offset == start
        appender = store.append(upload)
        appender.write(CONTENT[start : start + 60_000])
        upload = appender.keep()
    file = store.finish(upload)
    assert file.sha256 == hashlib.sha256(CONTENT).digest()
    with pytest.raises(FileUnknown):
        store.upload(upload.id)


def test_another_process_goes_on_and_the_digest_is_taken_afterwards(store: FileStore, tmp_path: Path) -> None:
    upload = store.begin("b", "text/plain", kind="tus")
    appender = store.append(upload)
    appender.write(CONTENT[:80_000])
    appender.keep()
    other = made(tmp_path)
    try:
        upload = other.upload(upload.id)
        assert upload.offset == 80_000
        appender = other.append(upload)
        appender.write(CONTENT[80_000:])
        file = other.finish(appender.keep())
        assert file.sha256 is None
        assert file.crc32 == zlib.crc32(CONTENT)
        assert file.etag == file.validator
        assert until_hashed(other, file.id).sha256 == hashlib.sha256(CONTENT).digest()
    finally:
        other.close()


def test_what_is_dropped_is_not_there(store: FileStore, tmp_path: Path) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    appender = store.append(upload, atomic=True)
    appender.write(CONTENT[:120_000])
    appender.drop()
    appender.drop()
    assert store.upload(upload.id).offset == 0
    assert objects(tmp_path) == []
    # and the digest goes on from where the upload stands
    appender = store.append(upload)
    appender.write(CONTENT)
    assert store.finish(appender.keep()).sha256 == hashlib.sha256(CONTENT).digest()


def test_a_question_keeps_what_has_come(store: FileStore) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    appender = store.append(upload)
    appender.write(CONTENT[:1000])
    assert store.upload(upload.id).offset == 1000
    appender.write(CONTENT[1000:])
    assert store.finish(appender.keep()).sha256 == hashlib.sha256(CONTENT).digest()


def test_a_later_request_takes_over(store: FileStore) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    early = store.append(upload)
    early.write(CONTENT[:1000])
    with pytest.raises(OffsetMismatch):
        store.append(upload)  # which has not asked where it stands
    with pytest.raises(UploadLocked):
        early.write(CONTENT[1000:2000])
    late = store.append(store.upload(upload.id))
    late.write(CONTENT[1000:])
    early.drop()
    assert content_of(store, store.finish(late.keep())) == CONTENT


def test_who_had_written_all_of_it_is_told_so_although_a_later_request_took_over(store: FileStore) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    early = store.append(upload)
    early.write(CONTENT)
    with pytest.raises(OffsetMismatch):
        store.append(upload)
    kept = early.keep()
    assert kept.offset == len(CONTENT)
    assert store.finish(kept).sha256 == hashlib.sha256(CONTENT).digest()


def test_what_came_behind_the_place_that_was_told_is_given_up_and_nobody_is_told_it_is_kept(store: FileStore) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    early = store.append(upload)
    early.write(CONTENT[:1000])
    told = store.upload(upload.id)
    assert told.offset == 1000
    early.write(bytes(500))
    late = store.append(store.upload(upload.id, 1000))
    with pytest.raises(UploadLocked):
        early.keep()
    early.drop()
    late.write(CONTENT[1000:])
    assert store.finish(late.keep()).sha256 == hashlib.sha256(CONTENT).digest()


def test_what_is_kept_whole_or_not_at_all_is_not_kept_for_a_later_request(store: FileStore) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    early = store.append(upload, atomic=True)
    early.write(CONTENT[:1000])
    late = store.append(upload)
    with pytest.raises(UploadLocked):
        early.keep()
    early.drop()
    late.write(CONTENT)
    assert content_of(store, store.finish(late.keep())) == CONTENT


def test_of_many_at_once_one_adds_to_an_upload(store: FileStore) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(100):
                upload = store.begin("b", "text/plain", length=1, kind="tus")
                start = threading.Barrier(4)

                def begin(upload: Upload = upload, start: threading.Barrier = start) -> Appender:
                    start.wait(10)
                    return store.append(upload)

                writers = [each.result(30) for each in [pool.submit(begin) for _ in range(4)]]
                assert store.active == 1
                assert sorted(told_of(writer) for writer in writers) == ["", *["upload-locked"] * 3]
                assert store.active == 0
                assert store.finish(store.upload(upload.id)).sha256 == hashlib.sha256(b"x").digest()
    finally:
        sys.setswitchinterval(interval)


def told_of(writer: Appender) -> str:
    """What somebody is told who writes a byte and wants it kept: the kind of an error, or nothing."""
    try:
        writer.write(b"x")
        writer.keep()
    except UploadError as error:
        return error.kind
    finally:
        writer.drop()
    return ""


def test_whoever_takes_over_waits_for_all_before_it(store: FileStore, tmp_path: Path) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    early = store.append(upload)
    early.write(CONTENT[:1000])
    with ThreadPoolExecutor(2) as pool:
        with closing(sqlite3.connect(tmp_path / "rows.sqlite3", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")  # so that the bytes of the early one cannot be counted
            later = [pool.submit(store.append, upload)]
            time.sleep(0.2)
            later.append(pool.submit(store.append, upload))
            time.sleep(0.2)
            assert not any(each.done() for each in later)
            assert store.active == 1
            database.execute("ROLLBACK")
        for each in later:
            with pytest.raises(OffsetMismatch):  # what it knew of is no longer so
                each.result(10)
    assert store.active == 0
    with pytest.raises(UploadLocked):
        early.write(CONTENT[1000:])
    late = store.append(store.upload(upload.id))
    late.write(CONTENT[1000:])
    assert store.finish(late.keep()).sha256 == hashlib.sha256(CONTENT).digest()


def test_a_request_that_is_late_does_not_cost_the_digest(store: FileStore) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    stands = []
    for begin, end in (0, 500), (500, 1000):
        appender = store.append(store.upload(upload.id))
        appender.write(CONTENT[begin:end])
        stands.append(appender.keep())
    late = store.append(stands[0])  # it asked before the second one had ended
    late.write(CONTENT[500:700])
    with pytest.raises(OffsetMismatch):
        late.keep()
    late.drop()
    appender = store.append(stands[1])
    appender.write(CONTENT[1000:])
    assert store.finish(appender.keep()).sha256 == hashlib.sha256(CONTENT).digest()


def test_of_two_who_make_a_file_of_an_upload_both_know_its_digest(store: FileStore) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    appender = store.append(upload)
    appender.write(CONTENT)
    kept = appender.keep()
    with pytest.raises(OffsetMismatch):
        store.finish(replace(kept, offset=kept.offset - 1))
    begin = threading.Barrier(8)

    def finish() -> StoredFile | None:
        begin.wait(10)
        try:
            return store.finish(kept)
        except OffsetMismatch:
            return None

    with ThreadPoolExecutor(8) as pool:
        files = [found for found in pool.map(lambda _: finish(), range(8)) if found is not None]
    assert [file.sha256 for file in files] == [hashlib.sha256(CONTENT).digest()]


def test_of_two_replicas_one_wins(store: FileStore, tmp_path: Path) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    other = made(tmp_path)
    try:
        mine, theirs = store.append(upload), other.append(upload)
        mine.write(CONTENT[:1000])
        theirs.write(b"x" * 1000)
        mine.keep()
        with pytest.raises(OffsetMismatch):
            theirs.keep()
        theirs.drop()
        assert len(objects(tmp_path)) == 1
        late = store.append(store.upload(upload.id))
        late.write(CONTENT[1000:])
        assert content_of(store, store.finish(late.keep())) == CONTENT
    finally:
        other.close()


def test_no_byte_goes_past_the_length(store: FileStore) -> None:
    upload = store.begin("b", "text/plain", length=1000)
    appender = store.append(upload)
    appender.write(CONTENT[:900])
    with pytest.raises(UploadTooLarge):
        appender.write(CONTENT[:101])
    assert appender.keep().offset == 900


def test_no_file_is_larger_than_allowed(tmp_path: Path) -> None:
    store = made(tmp_path, max_upload_bytes=1000)
    with pytest.raises(UploadTooLarge):
        store.add("a", [CONTENT])
    assert objects(tmp_path) == []
    store.close()


def test_quotas_count_what_is_kept_and_what_is_announced(tmp_path: Path) -> None:
    store = made(tmp_path, max_files_per_identity=3, max_bytes_per_identity=10_000)
    try:
        first = store.add("a", [CONTENT[:4000]], owner="me")
        store.begin("b", "text/plain", length=5000, owner="me")
        with pytest.raises(QuotaExceeded):
            store.begin("c", "text/plain", length=1001, owner="me")
        with pytest.raises(QuotaExceeded):
            store.add("c", [CONTENT[:1001]], owner="me")  # which was not announced
        store.begin("d", "text/plain", length=1000, owner="me")
        with pytest.raises(QuotaExceeded):
            store.begin("e", "text/plain", length=0, owner="me")
        store.begin("f", "text/plain", length=9000, owner="another")
        store.end(first.id)
        store.begin("e", "text/plain", length=0, owner="me")
    finally:
        store.close()


def test_a_deleted_file_is_gone_and_its_bytes_with_it(store: FileStore, tmp_path: Path) -> None:
    file = store.add("a", [CONTENT])
    store.end(file.id)
    for ask in (store.file, store.end, store.upload):
        with pytest.raises(FileUnknown):
            ask(file.id)
    assert objects(tmp_path) == []


def test_who_reads_a_deleted_file_reads_it_to_its_end(store: FileStore, tmp_path: Path) -> None:
    file = store.add("a", [CONTENT[:100_000], CONTENT[100_000:200_000], CONTENT[200_000:]])
    chunks = store.source(file.id).open(0, file.size)
    got = next(chunks)
    store.end(file.id)
    with pytest.raises(FileUnknown):
        store.file(file.id)
    assert store.sweep().waiting == 1
    assert got + b"".join(chunks) == CONTENT
    chunks.close()
    assert store.sweep().files == 1
    assert objects(tmp_path) == []


def test_uploads_expire(tmp_path: Path) -> None:
    store = made(tmp_path, upload_seconds=1.0)
    try:
        upload = store.begin("a", "text/plain", kind="tus")
        appender = store.append(upload)
        appender.write(CONTENT)
        appender.keep()
        time.sleep(2.1)
        with pytest.raises(UploadExpired):
            store.upload(upload.id)
        assert store.sweep().files == 1
        assert objects(tmp_path) == []
    finally:
        store.close()


def test_an_upload_that_goes_on_does_not_expire(tmp_path: Path) -> None:
    store = made(tmp_path, upload_seconds=1.0)  # less than between two parts
    try:
        upload = store.begin("a", "text/plain", kind="tus")
        appender = store.append(upload)
        for _ in range(7):
            appender.write(b"x")
            time.sleep(0.4)
            store.sweep()
        assert appender.keep().offset == 7
        assert store.begin("b", "text/plain").expires >= time.time() + 0.9
    finally:
        store.close()


def test_files_expire(tmp_path: Path) -> None:
    store = made(tmp_path, file_seconds=1.0)
    try:
        file = store.add("a", [CONTENT])
        assert store.files([file.id]) == {file.id: file}
        time.sleep(2.1)
        assert store.files([file.id]) == {}
        with pytest.raises(FileUnknown):
            store.file(file.id)
        store.sweep()
        assert objects(tmp_path) == []
    finally:
        store.close()


def test_partial_uploads_are_joined(store: FileStore, tmp_path: Path) -> None:
    ids = []
    for start in range(0, len(CONTENT), 100_000):
        upload = store.begin("p", "text/plain", kind="partial", length=len(CONTENT[start : start + 100_000]))
        appender = store.append(upload)
        appender.write(CONTENT[start : start + 100_000])
        ids.append(appender.keep().id)
    before = set(objects(tmp_path))
    with pytest.raises(OffsetMismatch):
        store.join([ids[0], ids[0]], "whole", "text/plain")
    file = store.join(ids, "whole", "text/plain", concat="final;...")
    assert file.crc32 == zlib.crc32(CONTENT)
    assert content_of(store, file) == CONTENT
    assert set(objects(tmp_path)) == before
    assert until_hashed(store, file.id).sha256 == hashlib.sha256(CONTENT).digest()
    with pytest.raises(FileUnknown):
        store.upload(ids[0])
    store.end(file.id)
    assert objects(tmp_path) == []


def test_only_whole_partial_uploads_of_the_same_owner_are_joined(store: FileStore) -> None:
    unfinished = store.begin("p", "text/plain", kind="partial", length=10)
    whole = store.begin("p", "text/plain", kind="tus", length=0)
    theirs = store.begin("p", "text/plain", kind="partial", length=0, owner="they")
    for wrong in (unfinished, whole, theirs):
        with pytest.raises(OffsetMismatch):
            store.join([wrong.id], "w", "text/plain")
    with pytest.raises(FileUnknown):
        store.join([str(uuid.uuid4())], "w", "text/plain")


def test_what_no_row_knows_is_swept(store: FileStore, tmp_path: Path) -> None:
    kept = store.add("a", [CONTENT])
    old = time.time() - 7 * 24 * 3600
    home = str(uuid.uuid4())
    stray = tmp_path / "bytes" / home[:2] / home / "0000000000000000-00000000"
    beside = tmp_path / "bytes" / kept.id[:2] / kept.id / "0000000000000000-00000000"
    draft = tmp_path / "bytes" / kept.id[:2] / kept.id / "0000000000000000-11111111#1"
    fresh = tmp_path / "bytes" / kept.id[:2] / kept.id / "0000000000000000-22222222"
    unfinished = store.begin("u", "text/plain")
    running = tmp_path / "bytes" / unfinished.id[:2] / unfinished.id / "0000000000000000-00000000"
    for path in (stray, beside, draft, fresh, running):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left over")
    for path in (stray, beside, draft, running, *map(Path, objects(tmp_path))):
        if path != fresh:
            os.utime(path, (old, old))
    swept = store.sweep()
    assert (swept.strays, swept.drafts) == (2, 1)
    assert content_of(store, kept) == CONTENT
    assert fresh.exists()
    assert running.exists()


def test_one_that_cannot_be_deleted_holds_up_no_other(store: FileStore, tmp_path: Path) -> None:
    files = [store.add(f"{n}", [CONTENT]) for n in range(5)]
    for file in files:
        assert store.rows.doom(file.id)
    stuck = tmp_path / "bytes" / store.rows.keys(files[2].id)[0]
    stuck.unlink()
    stuck.mkdir()
    for _ in range(2):
        swept = store.sweep()
        assert swept.waiting == 1
    assert [len(store.rows.keys(file.id)) for file in files] == [0, 0, 1, 0, 0]
    stuck.rmdir()
    assert store.sweep().files == 1
    assert objects(tmp_path) == []


def test_files_that_cannot_be_read_keep_no_other_from_its_digest(store: FileStore, tmp_path: Path) -> None:
    file = store.add("a", [CONTENT])
    lost = [str(uuid.uuid4()) for _ in range(500)]
    with closing(sqlite3.connect(tmp_path / "rows.sqlite3")) as database, database:
        database.execute("UPDATE streamware_files SET sha256 = NULL")
        found = database.execute("SELECT * FROM streamware_files")
        row = dict(zip([column[0] for column in found.description], found.fetchone(), strict=True))
        copies = [tuple({**row, "id": each, "created": row["created"] - n % 9}.values()) for n, each in enumerate(lost)]
        database.executemany(f"INSERT INTO streamware_files VALUES ({', '.join('?' * len(row))})", copies)
    assert store.sweep().hashing == 501
    assert until_hashed(store, file.id).sha256 == hashlib.sha256(CONTENT).digest()
    assert store.sweep().hashing == 500  # what could not be read this time is tried again
    assert store.file(lost[0]).sha256 is None


def test_each_file_has_its_turn_where_there_is_little_room(store: FileStore, tmp_path: Path) -> None:
    files = [store.add(f"{n}", [b"x"]).id for n in range(10)]
    with closing(sqlite3.connect(tmp_path / "rows.sqlite3")) as database, database:
        database.execute("UPDATE streamware_files SET sha256 = NULL")
    asked: list[str] = []
    room = 0

    def ask(id: str) -> bool:
        nonlocal room
        room -= 1
        if room >= 0:
            asked.append(id)
        return room >= 0

    leftovers = Leftovers(store.rows, store.objects, finish=store.finish, hash=ask)
    told = []
    for _ in range(8):
        room = 3
        told.append(leftovers.sweep().hashing)
    assert told == [3, 3, 3, 1] * 2
    assert sorted(asked[:10]) == sorted(files)
    assert asked[10:] == asked[:10]


def test_one_replica_sweeps_at_a_time(store: FileStore, tmp_path: Path) -> None:
    other = made(tmp_path)
    try:
        assert store.rows.claim("sweep", 60.0, time.time())  # as a sweep does that takes so long
        assert not other.sweep().ours
        assert store.sweep().ours
        assert other.sweep().ours
    finally:
        other.close()


def test_ids_that_are_none_reach_nobody(store: FileStore) -> None:
    good = str(uuid.uuid4())
    for wrong in (
        "",
        "../" + good[3:],
        good.upper(),
        "{" + good[2:] + "}",
        "urn:uuid:" + good,
        good + "0",
        "\u0660" + good[1:],
    ):
        for ask in (store.file, store.upload, store.end):
            with pytest.raises(FileUnknown):
                ask(wrong)
    assert store.files(["", "x"]) == {}


def test_many_threads_store_at_once(store: FileStore) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            data = os.urandom(30_000) + bytes([number])
            file = store.add(f"{number}", [data[:10], data[10:]])
            assert content_of(store, file) == data
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert len(store.listed(limit=100)[0]) == 40


def test_what_may_have_been_counted_is_not_deleted(store: FileStore, tmp_path: Path) -> None:
    """The database may take a row and lose the word of it: here its connection is cut behind the COMMIT."""
    import sqlalchemy as sa

    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    appender = store.append(upload)
    appender.write(CONTENT[:1000])

    def cut(connection: sa.Connection, cursor: object, statement: str, *_: object) -> None:
        if statement == "COMMIT":
            raise sa.exc.OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

    sa.event.listen(sa.Engine, "after_cursor_execute", cut)
    try:
        with pytest.raises(StoreUnavailable):
            appender.keep()
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", cut)
    appender.drop()
    upload = store.upload(upload.id)
    assert upload.offset == 1000
    appender = store.append(upload)
    appender.write(CONTENT[1000:])
    assert content_of(store, store.finish(appender.keep())) == CONTENT


def test_an_upload_that_was_left_with_all_its_bytes_becomes_a_file(store: FileStore) -> None:
    upload = store.begin("b", "text/plain", length=len(CONTENT), kind="tus")
    appender = store.append(upload)
    appender.write(CONTENT)
    appender.keep()  # and here its process dies
    begun = store.begin("c", "text/plain", length=1, kind="tus")
    raw = store.begin("d", "text/plain", length=0)
    assert store.sweep().completed == 1
    assert until_hashed(store, upload.id).sha256 == hashlib.sha256(CONTENT).digest()
    assert store.upload(begun.id).offset == 0
    assert store.upload(raw.id).offset == 0  # nobody was told that it would go on


def test_nothing_is_swept_that_another_database_may_know(store: FileStore, tmp_path: Path) -> None:
    kept = store.add("a", [CONTENT])
    store.sweep()
    old = time.time() - 7 * 24 * 3600
    for path in objects(tmp_path):
        os.utime(path, (old, old))
    (tmp_path / "other").mkdir()
    other = FileStore((tmp_path / "bytes").as_uri(), f"sqlite:///{tmp_path}/other/rows.sqlite3")
    try:
        assert other.sweep().strays == 0
        ours = other.add("b", [CONTENT])
        other.end(ours.id)
        assert other.sweep().strays == 0
    finally:
        other.close()
    assert content_of(store, kept) == CONTENT
    assert store.sweep().strays == 0


def test_what_is_no_part_is_left_alone(store: FileStore, tmp_path: Path) -> None:
    old = time.time() - 7 * 24 * 3600
    home = str(uuid.uuid4())
    theirs = [
        tmp_path / "bytes" / "report.pdf",
        tmp_path / "bytes" / "ab" / "photo" / "1.jpg",
        tmp_path / "bytes" / home[:2] / home / "notes.txt",
        tmp_path / "bytes" / "00" / home / "0000000000000000-00000000",
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"somebody else's")
        os.utime(path, (old, old))
    store.sweep()
    assert all(path.exists() for path in theirs)


def test_an_upload_comes_in_a_limited_number_of_pieces(tmp_path: Path) -> None:
    store = made(tmp_path, max_upload_parts=3)
    try:
        upload = store.begin("b", "text/plain", length=10, kind="tus")
        for _ in range(3):
            appender = store.append(upload)
            appender.write(b"x")
            upload = appender.keep()
        appender = store.append(upload)
        appender.write(b"x")
        with pytest.raises(UploadTooLarge):
            appender.keep()
        appender.drop()
        assert store.upload(upload.id).offset == 3
        assert len(objects(tmp_path)) == 3
    finally:
        store.close()
