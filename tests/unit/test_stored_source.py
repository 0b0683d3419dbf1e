"""Stored files as sources: any window of them, whatever parts it lies in, and what is said when some are missing."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from streamware.errors import BodyClosed, MemberError, MemberNotFound, SizeMismatch, SourceError
from streamware.filestore import FileStore
from streamware.model import Facts, Source
from streamware.policy import Policy
from streamware.stored import StoredFile
from streamware.upload_errors import StoredUnavailable

pytest.importorskip("obstore")
pytest.importorskip("sqlalchemy")

CONTENT = random.Random(6).randbytes(300_000)
CUTS = (0, 1, 70_000, 70_001, 200_000, 300_000)


def made(folder: Path, url: str) -> FileStore:
    return FileStore(url, f"sqlite:///{folder}/rows.sqlite3", policy=Policy(upload_part_bytes=1, chunk_bytes=10_000))


@pytest.fixture(scope="module", params=["folder", "remote"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileStore]:
    """A store in a folder, and one that is none: obstore's own memory, read as S3 is."""
    folder = tmp_path_factory.mktemp("store")
    store = made(folder, (folder / "bytes").as_uri() if request.param == "folder" else "memory://")
    yield store
    store.close()


def added(store: FileStore) -> StoredFile:
    """A file of several parts, one of them of a single byte."""
    pieces = [CONTENT[start:stop] for start, stop in pairwise(CUTS)]
    file = store.add("some.bin", pieces, media_type="application/x-some")
    assert [part.length for part in store.parts(file.id)] == [len(piece) for piece in pieces]
    return file


@pytest.fixture(scope="module")
def file(store: FileStore) -> StoredFile:
    return added(store)


def window(source: Source, start: int, length: int | None) -> bytes:
    chunks = source.open(start, length)
    try:
        return b"".join(chunks)
    finally:
        chunks.close()
        chunks.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_what_is_known_of_it(store: FileStore, file: StoredFile) -> None:
    for source in (store.source(file.id), store.source(file.id, file)):
        assert source.probe() == Facts(
            size=300_000,
            modified=file.created,
            validator=f'"{file.id}"',
            crc32=file.crc32,
            media_type="application/x-some",
            identity=f"stored:{file.id}",
        )
        assert getattr(source, "instant", False) is (store.objects.folder is not None)
        source.close()


def test_every_window_is_a_slice(store: FileStore, file: StoredFile) -> None:
    source = store.source(file.id)
    before = open_files()
    edges = sorted({max(0, min(300_000, cut + step)) for cut in CUTS for step in (-1, 0, 1)})
    for start in edges:
        for stop in edges:
            if start <= stop:
                assert window(source, start, stop - start) == CONTENT[start:stop]
        assert window(source, start, None) == CONTENT[start:]
    if store.objects.folder is not None:
        assert open_files() == before
        assert all(source.read(a, 5000) == CONTENT[a : a + 5000] for a in (0, 69_999, 198_000))  # type: ignore[attr-defined]
    else:
        assert not hasattr(source, "read")  # which would block


def test_pieces_are_as_large_as_is_said(store: FileStore, file: StoredFile) -> None:
    chunks = store.source(file.id).open(0, 300_000)
    pieces = list(chunks)
    assert max(map(len, pieces)) <= 10_000 or store.objects.folder is None
    assert chunks.ready()
    chunks.close()


def test_an_empty_file(store: FileStore) -> None:
    file = store.add("nothing", [])
    assert store.source(file.id).probe().size == 0
    assert window(store.source(file.id), 0, 0) == b""


def test_more_than_there_is(store: FileStore, file: StoredFile) -> None:
    for start, length in ((0, 300_001), (299_999, 2), (400_000, 1)):
        with pytest.raises(SizeMismatch):
            store.source(file.id).open(start, length)


def test_one_that_is_not_there(store: FileStore) -> None:
    source = store.source(str(uuid.uuid4()))
    with pytest.raises(MemberNotFound):
        source.probe()
    with pytest.raises(MemberNotFound):
        source.open(0, 1)


def test_a_part_that_is_lost_breaks_it_off(store: FileStore) -> None:
    file = added(store)
    parts = store.parts(file.id)
    store.objects.delete([parts[2].key])
    source = store.source(file.id)
    chunks = source.open(0, 300_000)
    got: list[bytes] = []
    with pytest.raises(MemberNotFound):
        got.extend(chunks)
    chunks.close()
    assert b"".join(got) == CONTENT[:70_000]
    with pytest.raises(MemberNotFound):
        source.open(70_000, 1)
    assert window(source, 70_001, 100) == CONTENT[70_001:70_101]


def test_a_part_that_is_short_breaks_it_off(store: FileStore) -> None:
    file = added(store)
    key = store.parts(file.id)[1].key
    store.objects.delete([key])
    writer = store.objects.writer(key)
    writer.write(CONTENT[1:50_000])
    writer.close()
    with pytest.raises((SizeMismatch, SourceError)):
        window(store.source(file.id), 0, 300_000)


def test_stopping(store: FileStore, file: StoredFile) -> None:
    before = open_files()
    chunks = store.source(file.id).open(0, 300_000)
    next(chunks)
    chunks.abort()
    chunks.abort()
    with pytest.raises(BodyClosed):
        next(chunks)
    chunks.close()
    chunks = store.source(file.id).open(5, 1000)
    chunks.close()
    with pytest.raises(BodyClosed):
        next(chunks)
    if store.objects.folder is not None:
        assert open_files() == before
        assert store.objects.unread(store.parts(file.id)[0].key)


def test_a_disk_that_is_not_mounted(tmp_path: Path) -> None:
    store = made(tmp_path, (tmp_path / "bytes").as_uri())
    try:
        file = added(store)
        chunks = store.source(file.id).open(0, 300_000)
        (tmp_path / "bytes").rename(tmp_path / "elsewhere")
        for call in (
            lambda: store.source(file.id).open(0, 1),
            lambda: store.source(file.id).open(0, 300_000),
            lambda: store.source(file.id).read(0, 1),  # type: ignore[attr-defined]
            lambda: b"".join(chunks),
        ):
            with pytest.raises(StoredUnavailable) as caught:
                call()
            assert isinstance(caught.value, MemberError)
            assert (caught.value.status, caught.value.kind) == (503, "store-unavailable")
        chunks.close()
    finally:
        store.close()
