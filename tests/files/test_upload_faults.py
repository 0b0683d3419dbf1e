"""Faults of uploads on real hosts: checksums that do not fit, a full disk, a database that is down, two writers.

Rows of docs/faults.md; those that are about how a body is framed stand beside what reads bodies.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.files.agreement import agree
from tests.files.sending import Answer, Line, Tus, ask, chunked, content, digest, form, listed, post
from tests.files.services import Place, Service, World
from tests.hosts.servers import until

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


def whole(port: int, path: str) -> bytes:
    answer = ask(port, "GET", path)
    assert answer.status == 200, answer
    assert answer.headers["content-length"] == str(len(answer.body))
    return answer.body


def names(port: int) -> list[str]:
    return [str(file["name"]) for file in listed(port)]


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
@pytest.mark.parametrize("kind", KINDS)
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
        with world.cluster.frozen():
            began = time.monotonic()
            answer = post(port, "frozen.bin", DATA)
            assert (answer.status, answer.problem) == (503, "store-unavailable")
            assert time.monotonic() - began < 20
        assert post(port, "thawed.bin", DATA).status == 201
    finally:
        service.stop()
    agree(place)


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


# --- 54: two writers ------------------------------------------------------------------------------------------------


@pytest.mark.case(54)
def test_a_later_writer_takes_over_in_one_process(service: Service) -> None:
    tus, port = Tus(), service.port
    path = tus.create(port, len(DATA)).headers["location"]
    with Line(port) as first:
        first.head("PATCH", path, tus.head(path, 0, len(DATA)))
        first.send(DATA[:250_001])
        # Hosts for WSGI give an app what has come in blocks, as long as nobody has hung up.
        until(lambda: tus.offset(port, path) >= 128 * 1024)
        at = tus.offset(port, path)
        assert at <= 250_001
        answer = tus.patch(port, path, at, DATA[at:])
        assert answer.status == 204, answer
        late = _late(first, bytes(len(DATA) - 250_001))
        assert late is None or late.status in (409, 423), late
    assert whole(port, path) == DATA


def _late(line: Line, data: bytes) -> Answer | None:
    """What a writer is told that was overtaken: an answer, or that its connection is gone."""
    try:
        for at in range(0, len(data), 16_384):
            line.send(data[at : at + 16_384])
    except ConnectionError:
        pass
    try:
        return line.answer("PATCH")
    except (OSError, http.client.HTTPException):
        return None


@pytest.mark.case(54)
@pytest.mark.judge("postgres")
@pytest.mark.parametrize("kind", KINDS)
def test_a_later_writer_takes_over_at_another_replica(kind: str, world: World) -> None:
    place, tus = world.shared(), Tus()
    a, b = (world.service(kind, place, policy={"upload_part_bytes": 100_000}) for _ in range(2))
    try:
        path = tus.create(a.port, len(DATA)).headers["location"]
        with Line(a.port) as first:
            first.head("PATCH", path, tus.head(path, 0, len(DATA)))
            first.send(DATA[:250_001])
            until(lambda: tus.offset(b.port, path) >= 200_000)
            at = tus.offset(b.port, path)
            answer = tus.patch(b.port, path, at, DATA[at : at + 100_000])
            assert answer.status == 204, answer
            late = _late(first, bytes(len(DATA) - 250_001))
            assert late is None or late.status in (409, 423), late
        tus.complete(b.port, path, DATA)
        assert whole(a.port, path) == DATA
    finally:
        a.stop()
        b.stop()
    agree(place)


@pytest.mark.case(54)
def test_many_writers_of_the_same_piece(service: Service) -> None:
    """One of them gets through; none is mixed with another."""
    tus, port = Tus(), service.port
    pieces = [content(f"writer {n}", 300_000) for n in range(8)]
    path = tus.create(port, 300_000).headers["location"]
    start = threading.Barrier(len(pieces))

    def write(data: bytes) -> int:
        start.wait(10)
        try:
            return tus.patch(port, path, 0, data).status
        except OSError:
            return 0

    with ThreadPoolExecutor(len(pieces)) as pool:
        statuses = list(pool.map(write, pieces))
    assert set(statuses) <= {204, 409, 423, 404, 403, 400, 0}, statuses
    if 204 not in statuses:  # each was overtaken by the next
        assert tus.offset(port, path) < 300_000
        return
    assert statuses.count(204) == 1, statuses
    assert whole(port, path) == pieces[statuses.index(204)]


# --- 55: reading meanwhile ------------------------------------------------------------------------------------------


@pytest.mark.case(55)
def test_nothing_is_seen_of_a_file_before_it_is_whole(service: Service) -> None:
    tus, port = Tus(), service.port
    path = tus.create(port, len(DATA), "unseen.bin").headers["location"]
    assert tus.patch(port, path, 0, DATA[:-1]).status == 204
    with Line(port) as raw:
        raw.head("POST", "/files", {"Content-Length": str(len(DATA)), "X-Filename": "unseen.bin"})
        raw.send(DATA[:-1])
        for method in ("GET", "HEAD"):
            assert ask(port, method, path).status == 404
        assert ask(port, "GET", path, {"Range": "bytes=0-10"}).status == 404
        assert "unseen.bin" not in names(port)
        raw.send(DATA[-1:])
        assert raw.answer().status == 201
    assert tus.patch(port, path, len(DATA) - 1, DATA[-1:]).status == 204
    assert names(port).count("unseen.bin") == 2
    assert whole(port, path) == DATA


@pytest.mark.case(55)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.judge("postgres"))])
def test_a_download_that_runs_outlives_its_file(kind: str, shared: bool, world: World) -> None:
    place = world.shared() if shared else world.local()
    service = world.service(kind, place, policy={"upload_part_bytes": 4 * MIB})
    data = content("outlived", 24 * MIB)  # more than buffers hold, so that it is still being read
    try:
        port = service.port
        path = post(port, "a.bin", data).document["url"]
        with Line(port) as line:
            line.head("GET", path)
            got = bytearray(line.socket.recv(100_000))
            assert ask(port, "DELETE", path).status == 204
            assert ask(port, "GET", path).status in (404, 410)
            assert ask(port, "POST", "/sweep").status == 200
            head, _, rest = bytes(got).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            got = bytearray(rest)
            while len(got) < len(data) and (piece := line.socket.recv(1 << 20)):
                got += piece
        assert digest(bytes(got)) == digest(data)
        assert ask(port, "GET", path).status in (404, 410)
        assert ask(port, "DELETE", path).status == 404
    finally:
        service.stop()
    agree(place)


# --- 56, 57: hostile ids, names and types ---------------------------------------------------------------------------

_ID = "3f2b8a44-1c5e-4d0a-9b7e-0123456789ab"
HOSTILE_IDS = {
    "up": "..",
    "up and away": "../../etc/passwd",
    "encoded": "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "encoded twice": "%252e%252e%252f",
    "backslash": "..%5c..%5cetc",
    "nothing": "%00",
    "an id and nothing": f"{_ID}%00",
    "an id and more": f"{_ID}%0a",
    "braces": f"%7b{_ID}%7d",
    "upper case": _ID.upper(),
    "urn": f"urn:uuid:{_ID}",
    "37 characters": f"{_ID}0",
    "35 characters": _ID[:-1],
    "no hyphens": _ID.replace("-", ""),
    "version 1": _ID.replace("-4d0a-", "-1d0a-"),
    "other variant": _ID.replace("-9b7e-", "-cb7e-"),
    "digits of another script": _ID.replace("3", "%d9%a3"),
    "no UTF-8": "%ff%fe",
    "long": "a" * 3000,
    "a part's key": f"{_ID[:2]}/{_ID}/0000000000000000-01234567",
    "unknown": _ID,
}


@pytest.mark.case(56)
@pytest.mark.parametrize("hostile", HOSTILE_IDS)
def test_ids_that_are_none(service: Service, hostile: str) -> None:
    for method in ("GET", "HEAD", "DELETE", "PATCH"):
        headers = Tus().head("", 0, 0) if method == "PATCH" else {}
        answer = ask(service.port, method, f"/files/{HOSTILE_IDS[hostile]}", headers, b"" if headers else None)
        # Some hosts resolve ".." or refuse a path before any app sees it.
        assert answer.status in (404, 400) if hostile in ("nothing", "up", "no UTF-8") else answer.status == 404, answer
        assert b"Traceback" not in answer.body
    assert "Traceback" not in service.said()


HOSTILE_NAMES = {
    "climbs": "../../etc/cron.d/x",
    "windows": "C:\\Windows\\x.exe",
    "quotes": 'a"; filename="b.exe',
    "long": "x" * 10_000,
    "markup": "<script>alert(1)</script>.html",
    "dots": "..",
    "empty": "",
    "spaces": "   ",
    "device": "NUL",
    "right to left": "a\u202egnp.exe",
    "control": "a\x01\x1b[31mb",
    "newline": "a\r\nX-Evil: 1",
    "emoji": "\U0001f4e6 päck.zip",
}


@pytest.mark.case(57)
@pytest.mark.parametrize("hostile", HOSTILE_NAMES)
def test_names_are_data(service: Service, hostile: str) -> None:
    from urllib.parse import quote

    name, port, tus = HOSTILE_NAMES[hostile], service.port, Tus()
    encoded = quote(name, safe="")
    if len(encoded) < 4000:  # hosts take no longer header lines
        paths = [
            ask(port, "POST", "/files", {"Content-Disposition": f"attachment; filename*=UTF-8''{encoded}"}, b"data"),
            ask(port, "POST", "/files", {"X-Filename": encoded}, b"data"),
        ]
        urls = [answer.document["url"] for answer in paths if answer.status == 201]
        assert len(urls) == len(paths), paths
    else:
        urls = []
    media_type, body = form([(name.replace('"', "%22").replace("\r\n", "%0D%0A"), b"data")])
    answer = ask(port, "POST", "/files", {"Content-Type": media_type}, body)
    assert answer.status in (201, 400), answer  # a form may not hold every character
    if answer.status == 201:
        urls += [file["url"] for file in answer.document["files"]]
    answer = tus.create(port, 4, name, b"data")
    if answer.status == 201:
        urls.append(answer.headers["location"])
    else:
        assert answer.status in (400, 413, 431), answer
    for url in urls:
        answer = ask(port, "GET", url)
        assert answer.body == b"data"
        assert "x-evil" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff"
        shown = answer.headers["content-disposition"]
        assert shown.startswith("attachment"), shown
        assert shown.isascii()
        assert len(shown) < 5000
        if answer.headers.get("content-type", "").startswith("text/html"):
            assert "sandbox" in answer.headers["content-security-policy"]
    folder = service.place.folder
    assert folder is not None
    for path in folder.rglob("*"):
        assert path.name.startswith(".streamware") or all(c in "0123456789abcdef-" for c in path.name), path


@pytest.mark.case(57)
@pytest.mark.parametrize(
    "media_type",
    ["text/html", "image/svg+xml", "application/xhtml+xml", "text/html;charset=utf-7", "application/javascript", "x"],
)
def test_types_that_could_run_are_only_saved(service: Service, media_type: str) -> None:
    url = post(service.port, "a.html", b"<script>alert(1)</script>", media_type).document["url"]
    answer = ask(service.port, "GET", url)
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.case(57)
def test_a_picture_may_be_shown(service: Service) -> None:
    url = post(service.port, "a.png", b"\x89PNG", "image/png").document["url"]
    answer = ask(service.port, "GET", url)
    assert answer.headers["content-disposition"].startswith("inline")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


# --- where an upload stands -----------------------------------------------------------------------------------------


@pytest.mark.case(45)
@pytest.mark.parametrize("count", [0, 1, 65_536, 200_001, len(DATA) - 1])
def test_a_tus_upload_goes_on_from_the_last_byte_received(service: Service, count: int) -> None:
    tus, port = Tus(), service.port
    path = tus.create(port, len(DATA)).headers["location"]
    with Line(port) as line:
        line.head("PATCH", path, tus.head(path, 0, len(DATA)))
        line.send(DATA[:count])
    until(lambda: tus.offset(port, path) == count)
    answer = tus.patch(port, path, count, DATA[count:])
    assert answer.status == 204, answer
    assert whole(port, path) == DATA
