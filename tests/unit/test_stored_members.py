"""Bundles of stored files: the best layout, resumed without reading, and what becomes of those that are not there."""

from __future__ import annotations

import io
import random
import time
import tracemalloc
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from streamware import Archiver, Bundle, Conditions, Policy
from streamware.errors import ChecksumMismatch, InvalidManifest, InvalidTarget, MemberNotFound, SizeMismatch
from streamware.filestore import FileStore
from streamware.model import Member, Stored
from streamware.reply import Reply

pytest.importorskip("obstore")
pytest.importorskip("sqlalchemy")

CONTENT = random.Random(7).randbytes(400_000)


@pytest.fixture(scope="module", params=["folder", "remote"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileStore]:
    folder = tmp_path_factory.mktemp("store")
    url = (folder / "bytes").as_uri() if request.param == "folder" else "memory://"
    store = FileStore(url, f"sqlite:///{folder}/rows.sqlite3", policy=Policy(upload_part_bytes=150_000))
    yield store
    store.close()


@pytest.fixture(scope="module")
def ids(store: FileStore) -> list[str]:
    pieces = [CONTENT[:150_000], CONTENT[150_000:300_000], CONTENT[300_000:]]
    return [
        store.add("large.bin", pieces).id,
        store.add("small.txt", [b"some text"], media_type="text/plain").id,
        store.add("nothing", []).id,
        store.add("small.txt", [b"some other text"]).id,
    ]


@pytest.fixture
def archiver(store: FileStore) -> Iterator[Archiver]:
    archiver = Archiver(files=store)
    yield archiver
    archiver.close()


def bundle_of(ids: list[str], name: str = "b.zip", **options: object) -> Bundle:
    bundle = Bundle(name, **options)  # type: ignore[arg-type]
    for each in ids:
        bundle.add_stored(each)
    return bundle


def read(reply: Reply) -> bytes:
    try:
        return b"".join(reply.body)
    finally:
        reply.body.close()


def test_the_best_layout(archiver: Archiver, ids: list[str]) -> None:
    reply = archiver.respond(bundle_of(ids), Conditions())
    data = read(reply)
    assert reply.header("content-length") == str(len(data))
    assert reply.header("accept-ranges") == "bytes"
    assert (reply.header("etag") or "W/").startswith('"')
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == ["large.bin", "small.txt", "nothing", "small (1).txt"]
        assert opened.read("large.bin") == CONTENT
        for info in opened.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert not info.flag_bits & 8  # no data descriptor
    again = Archiver(files=archiver.files)
    assert read(again.respond(bundle_of(ids), Conditions())) == data
    again.close()


def test_any_window_reads_no_more_than_itself(store: FileStore, archiver: Archiver, ids: list[str]) -> None:
    whole = archiver.respond(bundle_of(ids), Conditions())
    data, etag = read(whole), whole.header("etag")
    for start in (0, 1, 40, 149_000, 200_000, 400_030, len(data) - 300, len(data) - 1):
        other = Archiver(files=store)  # another replica, whose ledger is empty
        reply = other.respond(bundle_of(ids), Conditions(range=f"bytes={start}-", if_range=etag))
        assert reply.status == 206
        assert read(reply) == data[start:]
        assert reply.body.bytes_in <= len(data) - start  # type: ignore[attr-defined]
        other.close()


def test_its_size_and_time_are_the_store_s(store: FileStore, archiver: Archiver, ids: list[str]) -> None:
    bundle = Bundle("b.tar")
    bundle.add_stored(ids[0], "first.bin")
    bundle.add_stored(ids[0], "second.bin", modified=1_000_000_000, mode=0o600)
    reply = archiver.respond(bundle, Conditions(method="HEAD"))
    assert int(reply.header("content-length") or 0) > 800_000
    zipped = Bundle("b.zip")
    zipped.members = bundle.members
    with zipfile.ZipFile(io.BytesIO(read(archiver.respond(zipped, Conditions())))) as opened:
        first, second = opened.infolist()
    assert first.date_time[0] >= 2024
    assert second.date_time == (2001, 9, 9, 1, 46, 40)
    assert first.CRC == second.CRC == store.file(ids[0]).crc32


@pytest.mark.parametrize("compress", ["deflate", "auto"])
def test_compressed(archiver: Archiver, ids: list[str], compress: str) -> None:
    with zipfile.ZipFile(io.BytesIO(read(archiver.respond(bundle_of(ids, compress=compress), Conditions())))) as opened:
        assert opened.testzip() is None
        assert opened.read("large.bin") == CONTENT


def test_one_that_is_missing(archiver: Archiver, ids: list[str]) -> None:
    missing = str(uuid.uuid4())
    bundle = bundle_of([ids[1], missing, ids[2]])
    reply = archiver.respond(bundle, Conditions())
    assert reply.status == 404
    with pytest.raises(MemberNotFound) as caught:
        archiver.open(bundle)
    assert (caught.value.member, caught.value.index) == (missing, 1)
    bundle.add_stored(str(uuid.uuid4()), "named")
    assert archiver.respond(bundle, Conditions()).status == 404
    bundle.on_error = "report"
    with zipfile.ZipFile(io.BytesIO(read(archiver.respond(bundle, Conditions())))) as opened:
        assert opened.namelist() == ["small.txt", "nothing", "_errors.txt"]
        report = opened.read("_errors.txt").decode()
    assert missing in report
    assert "named" in report
    bundle.on_error = "skip"
    reply = archiver.respond(bundle, Conditions())
    assert reply.header("content-length") is not None
    with zipfile.ZipFile(io.BytesIO(read(reply))) as opened:
        assert opened.namelist() == ["small.txt", "nothing"]


def test_ids_that_are_none(archiver: Archiver) -> None:
    for wrong in ("", "../../etc/passwd", "x" * 100_000):
        assert archiver.respond(bundle_of([wrong]), Conditions()).status == 404


@pytest.mark.parametrize("wrong", [None, 7, b"6d1f0a7c-9b52-4c1e-8f7a-0c2b5d3e4f60", uuid.uuid4(), ["x"]])
def test_what_is_no_text_is_refused_at_once(wrong: Any) -> None:
    bundle = Bundle()
    with pytest.raises(TypeError, match="stored file"):
        bundle.add_stored(wrong)
    with pytest.raises(TypeError, match="stored file"):
        Stored(wrong)
    assert not bundle.members


def test_without_a_file_store() -> None:
    archiver = Archiver()
    assert archiver.files is None
    bundle = bundle_of([str(uuid.uuid4())])
    assert archiver.respond(bundle, Conditions()).status == 400
    with pytest.raises(InvalidTarget, match="file store"):
        archiver.open(bundle)
    archiver.close()


def test_what_is_declared_must_be_so(archiver: Archiver, ids: list[str]) -> None:
    bundle = Bundle()
    bundle.members.append(Member("a", Stored(ids[0]), size=399_999))
    with pytest.raises(SizeMismatch):
        archiver.open(bundle)
    bundle.members[0] = Member("a", Stored(ids[0]), crc32=1)
    with archiver_body(archiver, bundle) as body, pytest.raises(ChecksumMismatch):
        b"".join(body)


class archiver_body:  # noqa: N801 - a context
    def __init__(self, archiver: Archiver, bundle: Bundle) -> None:
        self._body = archiver.open(bundle)

    def __enter__(self) -> Iterator[bytes]:
        return self._body

    def __exit__(self, *_: object) -> None:
        self._body.close()


def test_a_damaged_object_breaks_the_download(store: FileStore, archiver: Archiver) -> None:
    file = store.add("d", [CONTENT[:150_000], CONTENT[150_000:]])
    key = store.parts(file.id)[1].key
    store.objects.delete([key])
    writer = store.objects.writer(key)
    writer.write(CONTENT[150_000:-1] + bytes([CONTENT[-1] ^ 1]))
    writer.close()
    with archiver_body(archiver, bundle_of([file.id])) as body, pytest.raises(ChecksumMismatch):
        b"".join(body)


def test_one_that_is_deleted_while_it_is_sent(store: FileStore, archiver: Archiver) -> None:
    pieces = [CONTENT[start : start + 150_000] for start in range(0, 400_000, 150_000)]
    file = store.add("d", pieces)
    with archiver_body(archiver, bundle_of([file.id])) as body:
        data = next(body)
        store.end(file.id)
        data += b"".join(body)
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.read("d") == CONTENT
    assert archiver.respond(bundle_of([file.id]), Conditions()).status == 404


def test_links_cannot_hold_them(archiver: Archiver, ids: list[str]) -> None:
    with pytest.raises(InvalidManifest):
        archiver.links.make(bundle_of(ids))


def test_a_name_that_is_longer_than_names_of_members_may_be_is_shortened(store: FileStore) -> None:
    files = [store.add("n" * 300 + ".txt", [b"x"]).id]
    with closing(Archiver(Policy(max_name_bytes=100), files=store)) as archiver:
        data = read(archiver.respond(bundle_of(files), Conditions()))
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.namelist() == ["n" * 96 + ".txt"]


def test_names_that_were_given_by_whoever_stored_them(store: FileStore, archiver: Archiver) -> None:
    unsafe = ["a:b?.txt", "CON", "", "x" * 300, "tab\there", "end/"]
    files = [store.add(name, [name.encode()]).id for name in unsafe]
    for names in ("clean", "strict"):
        with zipfile.ZipFile(io.BytesIO(read(archiver.respond(bundle_of(files, names=names), Conditions())))) as opened:
            assert len(set(opened.namelist())) == len(unsafe)
            assert [opened.read(info).decode() for info in opened.infolist()] == unsafe


def test_many_are_looked_up_together(store: FileStore, archiver: Archiver) -> None:
    some = [store.add(f"file{number}", [b"x" * number]).id for number in range(1, 21)]

    def planned(count: int) -> Reply:
        return archiver.respond(bundle_of(some * (count // 20)), Conditions(method="HEAD"))

    began = time.process_time()
    reply = planned(10_000)
    assert time.process_time() - began < 3.0  # it takes 0.3 s, on a machine that is not busy
    assert reply.status == 200
    assert reply.header("accept-ranges") == "bytes"
    tracemalloc.start()
    try:
        planned(2000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2000 * 700  # 300 bytes a member, of which half is any plan's
