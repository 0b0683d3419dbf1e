"""Uploads on real hosts while others write, read and delete: two writers at once, and readers before and after.

Rows of docs/faults.md.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.files.agreement import agree
from tests.files.sending import Answer, Line, Tus, ask, content, digest, names, post, whole
from tests.files.services import Service, World
from tests.hosts.servers import until

KINDS = ("gunicorn", "uvicorn")
DATA = content("races", 700_000)
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=KINDS)
def service(request: pytest.FixtureRequest, world: World) -> Iterator[Service]:
    service = world.service(request.param, world.local())
    yield service
    service.stop()
    agree(service.place)


# --- 54: two writers ------------------------------------------------------------------------------------------------


@contextmanager
def adding(port: int) -> Iterator[tuple[str, Line]]:
    """Somebody is adding to an upload, and the server has some of that; its path, and the line it comes by."""
    tus = Tus()
    path = tus.create(port, len(DATA)).headers["location"]
    with Line(port) as line:
        line.head("PATCH", path, tus.head(path, 0, len(DATA)))
        line.send(DATA[:250_001])
        # Hosts for WSGI give an app what has come in blocks, as long as nobody has hung up.
        until(lambda: tus.offset(port, path) >= 128 * 1024)
        yield path, line


@pytest.mark.case(54)
def test_a_later_writer_takes_over_in_one_process(service: Service) -> None:
    tus, port = Tus(), service.port
    with adding(port) as (path, first):
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
def test_an_upload_that_is_ended_while_somebody_adds_to_it(service: Service) -> None:
    tus, port = Tus(), service.port
    with adding(port) as (path, first):
        assert ask(port, "DELETE", path, tus.version).status == 204
        assert ask(port, "HEAD", path, tus.version).status in (404, 410)
        late = _late(first, DATA[250_001:])
        assert late is None or late.status in (404, 409, 410, 423), late
    assert ask(port, "GET", path).status in (404, 410)
    assert ask(port, "HEAD", path, tus.version).status in (404, 410)


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
@pytest.mark.judge("postgres")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True])
def test_a_download_that_runs_outlives_its_file(kind: str, shared: bool, world: World) -> None:
    place = world.shared() if shared else world.local()
    service = world.service(kind, place, policy={"upload_part_bytes": 4 * MIB})
    data = content("outlived", 16 * MIB)  # more than buffers hold, so that it is still being read
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
    tus.complete(port, path, DATA)
    assert whole(port, path) == DATA
