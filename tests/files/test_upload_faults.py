"""Faults of uploads on real hosts: checksums that do not fit, a full disk, a database that is down, two writers.

Rows of docs/faults.md; those that are about how a body is framed stand beside what reads bodies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.files.agreement import agree
from tests.files.sending import Line, Tus, ask, chunked, content, form, names, post, whole
from tests.files.services import Place, Service, World

KINDS = ("gunicorn", "uvicorn")
DATA = content("faults", 700_000)
MIB = 1024 * 1024
STORED = (200, 201, 204)


@pytest.fixture(scope="module", params=KINDS)
def service(request: pytest.FixtureRequest, world: World) -> Iterator[Service]:
    service = world.service(request.param, world.local())
    yield service
    service.stop()
    agree(service.place)


# --- 50: what came is not what its checksum was made of -------------------------------------------------------------


def told(data: bytes, algorithm: str = "sha-256") -> str:
    return f"{algorithm}=:{b64encode(hashlib.new(algorithm.replace('-', ''), data).digest()).decode()}:"


@pytest.mark.case(50)
@pytest.mark.parametrize("header", ["Repr-Digest", "Content-Digest"])
def test_a_raw_upload_whose_digest_does_not_fit_is_discarded(service: Service, header: str) -> None:
    name = f"never-{header}.bin"
    answer = post(service.port, name, DATA, **{header: told(DATA[:-1] + b"?")})
    assert (answer.status, answer.problem) == (400, "digest-mismatch")
    assert name not in names(service.port)
    answer = post(service.port, f"right-{header}.bin", DATA, **{header: told(DATA)})
    assert answer.status == 201, answer
    assert whole(service.port, answer.document["url"]) == DATA


@pytest.mark.case(50)
@pytest.mark.parametrize("which", ["sha1", "sha256", "crc32"])
def test_a_tus_piece_whose_checksum_does_not_fit_is_discarded(service: Service, which: str) -> None:
    def checksum(data: bytes) -> str:
        raw = zlib.crc32(data).to_bytes(4, "big") if which == "crc32" else hashlib.new(which, data).digest()
        return f"{which} {b64encode(raw).decode()}"

    tus, port = Tus(), service.port
    path = tus.create(port, len(DATA)).headers["location"]
    assert tus.patch(port, path, 0, DATA[:300_000], Upload_Checksum=checksum(DATA[:300_000])).status == 204
    wrong = tus.patch(port, path, 300_000, DATA[300_000:], Upload_Checksum=checksum(DATA[300_001:]))
    assert wrong.status == 460, wrong
    assert tus.offset(port, path) == 300_000
    assert tus.patch(port, path, 300_000, b"abc", Upload_Checksum="md5 AAAA").status == 400
    assert tus.patch(port, path, 300_000, b"abc", Upload_Checksum="sha1 nonsense").status == 400
    assert tus.patch(port, path, 300_000, DATA[300_000:], Upload_Checksum=checksum(DATA[300_000:])).status == 204
    assert whole(port, path) == DATA


# --- 51: no room ----------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(at: Path, size: int) -> Iterator[Path]:
    """A file system of its own with little room. A visible skip where none may be mounted."""
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@pytest.mark.case(51)
@pytest.mark.skipif(not shutil.which("mount"), reason="nothing mounts file systems here")
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk(kind: str, world: World, tmp_path: Path) -> None:
    tus = Tus()
    with small_disk(tmp_path / "small", 3 * MIB) as disk:
        place = Place(f"file://{disk}/objects", f"sqlite:///{tmp_path}/files.sqlite3")
        service = world.service(kind, place)
        try:
            port = service.port
            first = post(port, "first.bin", DATA).document["url"]
            free = os.statvfs(disk).f_bavail
            big = content("big", 4 * MIB)

            answer = post(port, "big.bin", big)
            assert (answer.status, answer.problem) == (507, "store-full")
            answer = ask(port, "POST", "/files", {"Transfer-Encoding": "chunked"}, chunked(big))
            assert (answer.status, answer.problem) == (507, "store-full")
            media_type, body = form([("small.bin", DATA[:1000]), ("big.bin", big)])
            assert ask(port, "POST", "/files", {"Content-Type": media_type}, body).status == 507
            assert names(port) == ["first.bin"]
            assert os.statvfs(disk).f_bavail >= free - 8, "what was refused still lies there"
            assert whole(port, first) == DATA, "downloads still work"

            path = tus.create(port, len(big)).headers["location"]
            assert tus.patch(port, path, 0, big).status == 507
            at = tus.offset(port, path)
            assert at < len(big)
            ballast = ask(port, "DELETE", first)
            assert ballast.status == 204
            subprocess.run(["mount", "-o", f"remount,size={8 * MIB}", str(disk)], check=True)
            tus.complete(port, path, big)
            assert whole(port, path) == big

            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            answer = post(port, "late.bin", DATA)
            assert answer.status in (500, 507)
            assert answer.problem in ("store-failed", "store-full")
            assert whole(port, path) == big
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            assert post(port, "late.bin", DATA).status == 201
        finally:
            service.stop()
        agree(place)


@pytest.mark.case(51)
@pytest.mark.parametrize("kind", KINDS)
def test_a_quota_is_told_before_the_body_is_read(kind: str, world: World) -> None:
    service = world.service(kind, world.local(), policy={"max_bytes_per_identity": 1_000_000})
    try:
        port = service.port
        assert post(port, "first.bin", DATA).status == 201
        with Line(port) as line:
            line.head("POST", "/files", {"Content-Length": "700000", "Expect": "100-continue"})
            answer = line.answer()
        assert (answer.status, answer.problem) == (507, "quota-exceeded")
        answer = ask(port, "POST", "/files", {"Transfer-Encoding": "chunked"}, chunked(DATA))
        assert (answer.status, answer.problem) == (507, "quota-exceeded")
        assert Tus().create(port, 700_000).status == 507
        assert post(port, "second.bin", DATA[:300_000]).status == 201
        assert sorted(names(port)) == ["first.bin", "second.bin"]
    finally:
        service.stop()
    agree(service.place)


# --- 52: the database is down ---------------------------------------------------------------------------------------


@pytest.mark.case(52, 56)
@pytest.mark.judge("postgres")
@pytest.mark.parametrize("kind", ["gunicorn", pytest.param("uvicorn", marks=pytest.mark.soak)])
def test_a_database_that_goes_down_during_an_upload(kind: str, world: World) -> None:
    place, tus = world.shared(), Tus()
    service = world.service(kind, place)
    try:
        port = service.port
        kept = post(port, "kept.bin", DATA).document["url"]
        path = tus.create(port, len(DATA)).headers["location"]
        assert tus.patch(port, path, 0, DATA[:1000]).status == 204
        with Line(port) as raw, Line(port) as piece:
            raw.head("POST", "/files", {"Content-Length": str(len(DATA)), "X-Filename": "lost.bin"})
            raw.send(DATA[:300_000])
            piece.head("PATCH", path, tus.head(path, 1000, len(DATA) - 1000))
            piece.send(DATA[1000:300_000])
            time.sleep(0.3)
            world.cluster.stop()
            try:
                raw.send(DATA[300_000:])
                piece.send(DATA[300_000:])
                for line in (raw, piece):
                    answer = line.answer()
                    assert (answer.status, answer.problem) == (503, "store-unavailable"), answer
                began = time.monotonic()
                answer = ask(port, "GET", kept)
                assert (answer.status, answer.problem) == (503, "store-unavailable")
                assert ask(port, "GET", "/files").status == 503
                assert time.monotonic() - began < 10
                for hostile in ("/files/..%2f..%2fetc", "/files/a", f"{kept}%00", kept.upper()):
                    assert ask(port, "GET", hostile).status == 404, "no database is asked for what is no id"
            finally:
                world.cluster.start()
        assert whole(port, kept) == DATA
        assert names(port) == ["kept.bin"]
        assert 1000 <= tus.offset(port, path) <= len(DATA)
        tus.complete(port, path, DATA)
        assert whole(port, path) == DATA
    finally:
        service.stop()
    agree(place)


@pytest.mark.soak
@pytest.mark.case(52)
@pytest.mark.judge("postgres")
@pytest.mark.parametrize("kind", KINDS)
def test_a_database_that_stands_still(kind: str, world: World) -> None:
    """Nobody waits for it without end."""
    service = world.service(kind, world.shared())
    try:
        assert post(service.port, "before.bin", DATA).status == 201
        with world.cluster.frozen():
            began = time.monotonic()
            answer = post(service.port, "frozen.bin", DATA)
            assert (answer.status, answer.problem) == (503, "store-unavailable")
            assert time.monotonic() - began < 20
        assert post(service.port, "thawed.bin", DATA).status == 201
        assert sorted(names(service.port)) == ["before.bin", "thawed.bin"]
    finally:
        service.stop()
    agree(service.place)


@pytest.mark.soak
@pytest.mark.case(52)
def test_a_database_that_somebody_else_has_locked(world: World) -> None:
    """SQLite: nobody waits for long, and nothing is stored by halves."""
    import sqlite3

    service = world.service("gunicorn", world.local())
    try:
        assert post(service.port, "first.bin", DATA).status == 201
        other = sqlite3.connect(service.place.database.removeprefix("sqlite:///"), isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            answer = post(service.port, "second.bin", DATA)
            assert (answer.status, answer.problem) == (503, "store-unavailable")
            other.execute("ROLLBACK")
        finally:
            other.close()
        assert names(service.port) == ["first.bin"]
        assert post(service.port, "third.bin", DATA).status == 201
    finally:
        service.stop()
    agree(service.place)
