"""Uploads on every host that the documents speak of: whole ones, cut ones, slow ones, and requests that are two.

The rule of this file: a case is the same for all hosts, over a bare socket. What must hold is asserted; where hosts may
differ, what was seen is given to ``upload_hosts``, which holds it against docs/hosts.md.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import SOAK
from tests.files.raw import Heard, Line, chunk, head
from tests.files.upload_apps import MOST, SECONDS
from tests.files.upload_hosts import UPLOADS, serving
from tests.hosts.matrix.hosts import Host
from tests.hosts.matrix.verdicts import WRITE, Verdicts
from tests.hosts.servers import until

DATA = bytes(range(251)) * 1200  # 301,200 bytes
SHA256 = hashlib.sha256(DATA).hexdigest()
LENGTH = f"Content-Length: {len(DATA)}"
CHUNKED = "Transfer-Encoding: chunked"
HIDDEN = head("/never", method="GET")  # in bodies: what must not be taken for a request

# What hosts do, that cannot tell a broken body without length from a whole one: WSGI has no word for it.
UNTOLD = {"uWSGI", "wsgiref", "granian WSGI", "hypercorn WSGI"}


@dataclass
class Running:
    host: Host
    port: int
    work: Path

    def post(self, *pieces: bytes, path: str = "/files", lines: tuple[str, ...] = (), seconds: float = 5) -> Heard:
        with Line(self.port) as line:
            return line.send(head(path, *lines), *pieces).hear(seconds, answers=1)

    def get(self, path: str) -> Heard:
        with Line(self.port) as line:
            return line.send(head(path, "Connection: close", method="GET")).hear(5, answers=1)

    def files(self) -> list[str]:
        heard = self.get("/files")
        assert heard.status == 200, heard
        return [file["name"] for file in heard.document["files"]]

    def objects(self) -> list[Path]:
        return [path for path in (self.work / "store").rglob("*") if path.is_file() and "/." not in str(path)]

    def reached(self) -> int:
        return int(self.get("/reached").data.rpartition(b"\r\n\r\n")[2])


@pytest.fixture(scope="module")
def verdicts() -> Iterator[Verdicts]:
    with Verdicts(UPLOADS, f"{WRITE}=1 python -m pytest tests/files/test_upload_hosts.py") as verdicts:
        yield verdicts


@pytest.fixture(scope="module", params=UPLOADS.hosts, ids=lambda host: host.name.replace(" ", "-"))
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    work = tmp_path_factory.mktemp("uploads")
    with serving(request.param, work) as replica:
        yield Running(request.param, replica.port, work)


def test_a_body_with_a_length_arrives_whole(running: Running) -> None:
    heard = running.post(DATA, lines=(LENGTH, "X-Filename: whole.bin"))
    assert heard.status == 201, heard
    assert (heard.document["size"], heard.document["sha256"]) == (len(DATA), SHA256)
    assert heard.document["url"].startswith("/files/")
    # Nothing at all is a file too.
    heard = running.post(lines=("Content-Length: 0",))
    assert (heard.status, heard.document["size"]) == (201, 0)


@pytest.mark.case(46, 47)
def test_a_body_without_a_length_arrives_whole_or_is_refused(running: Running, verdicts: Verdicts) -> None:
    before = len(running.files())
    heard = running.post(chunk(DATA), chunk(b""), lines=(CHUNKED,))
    if running.host.name in UNTOLD:
        assert (heard.status, heard.problem) == (411, "length-required")
        assert len(running.files()) == before
    else:
        assert (heard.status, heard.document["sha256"]) == (201, SHA256)
    verdicts.saw(running.host, "chunked", "taken" if heard.status == 201 else "refused, 411")


@pytest.mark.case(45, 46)
@pytest.mark.parametrize("how", ["cut", "cut-chunked"])
def test_a_body_that_is_cut_leaves_nothing(running: Running, verdicts: Verdicts, how: str) -> None:
    """Ended and reset; in the middle of a chunk, and between two of them, where nothing but the last one is missing."""
    before, objects = running.files(), len(running.objects())
    part = DATA[:100_000] if how == "cut" else chunk(DATA[:100_000])
    lines = (LENGTH,) if how == "cut" else (CHUNKED,)
    seen = set()
    for piece in (part, part + b"5000\r\nabc" if how == "cut-chunked" else part[:70_000]):
        with Line(running.port) as line:
            line.send(head("/files", *lines), piece)
            line.end()
            heard = line.hear(2, answers=1)
            assert heard.status in (None, 400, 411), heard
            seen.add("connection ended" if heard.status is None else f"{heard.status}")
        with Line(running.port) as line:
            line.send(head("/files", *lines), piece)
            time.sleep(0.05)
            line.reset()
    until(lambda: len(running.objects()) == objects)
    assert running.files() == before
    if how == "cut-chunked" and running.host.name in UNTOLD:
        seen = {"refused, 411"} if seen <= {"400", "411", "connection ended"} else seen  # the host may be quicker
    verdicts.saw(running.host, how, " or ".join(sorted(seen)))


@pytest.mark.case(48)
def test_a_form_that_is_cut_short_leaves_nothing(running: Running) -> None:
    before = running.files()
    part = b'--B\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\nabc\r\n'
    lines = ("Content-Type: multipart/form-data; boundary=B",)
    heard = running.post(part, lines=(*lines, f"Content-Length: {len(part)}"))
    assert heard.status == 400, heard
    assert running.files() == before
    whole = part + b"--B--\r\n"
    heard = running.post(whole, lines=(*lines, f"Content-Length: {len(whole)}"))
    assert (heard.status, heard.document["files"][0]["size"]) == (201, 3)


@pytest.mark.case(49)
def test_a_body_that_is_too_large_is_refused(running: Running, verdicts: Verdicts) -> None:
    """By its length before it is sent, where the host lets us; without one at the limit."""
    before = running.files()
    with Line(running.port) as line:
        line.send(head("/files", f"Content-Length: {MOST + 1}", "Expect: 100-continue"))
        heard = line.hear(1.0, answers=1)
        early = 100 in heard.statuses
        if early and heard.status is None:  # it takes in all before it calls the app
            heard = line.send(bytes(MOST + 1)).hear(5, answers=1)
        assert (heard.status, heard.problem) == (413, "upload-too-large"), heard
    with Line(running.port) as line:
        line.send(head("/files", "Content-Length: 3", "Expect: 100-continue"))
        asked = 100 in line.hear(0.5, until=b" 100 ").statuses
        assert line.send(b"abc").hear(5, answers=1).status == 201
    verdicts.saw(running.host, "expect", "at once" if early else "when the body is wanted" if asked else "never")
    before = running.files()
    with Line(running.port) as line:
        line.send(head("/files", CHUNKED), chunk(bytes(MOST + 300_000)), chunk(b""))
        heard = line.hear(5, answers=1)
        assert heard.status == (411 if running.host.name in UNTOLD else 413), heard
    assert running.files() == before


@pytest.mark.case(58)
def test_a_request_that_could_be_two_is_none(running: Running, verdicts: Verdicts) -> None:
    """Lengths that contradict each other, and headers that some read and others do not."""
    reached = running.reached()
    tail = b"0\r\n\r\n" + HIDDEN  # an empty chunked body with a request behind it, or a body of that length

    def verdict(heard: Heard) -> str:
        if heard.status is None:
            return "connection ended" if heard.ended != "open" else "waits"
        return "taken" if heard.status == 201 else f"refused, {heard.status}"

    heard = running.post(tail, lines=(f"Content-Length: {len(tail)}", CHUNKED), seconds=1)
    verdicts.saw(running.host, "lengths", verdict(heard) + (" as chunked" if heard.status == 201 else ""))
    heard = running.post(b"abcdef", lines=("Content-Length: 6", "Content-Length: 5"), seconds=1)
    verdicts.saw(running.host, "two", verdict(heard))
    for lines in (
        ("Content-Length: +3",),
        ("Content-Length: -3",),
        ("Content-Length: 3, 3",),
        ("Content-Length: 0x3",),
    ):
        heard = running.post(b"abc", lines=lines, seconds=1)
        if heard.status == 201:  # two equal ones may be taken for one (RFC 9110 section 8.6)
            assert (lines[0], heard.document["size"]) == ("Content-Length: 3, 3", 3)
        else:
            assert heard.status in (400, 411, None), heard
    # RFC 9112 section 6.1 has a server close such a connection. waitress does not, and shows its app no sign of it.
    assert running.reached() == reached + (running.host.name == "waitress")


@pytest.mark.case(59)
def test_an_answer_that_is_early_arrives_and_what_follows_is_no_request(running: Running, verdicts: Verdicts) -> None:
    """The body of a refused upload is full of requests; each sender reads only when it has sent all it can."""
    # More than systems' buffers hold as a rule, and less than what is read on of it on an event loop.
    reached, body = running.reached(), HIDDEN * (15_000_000 // len(HIDDEN))
    cut = []
    for size in (100_000, len(body), len(body)):
        for lines, pieces in (
            ((f"Content-Length: {size}",), (body[:size],)),
            ((CHUNKED,), (chunk(body[:size]), chunk(b""))),
        ):
            if size == 100_000:
                lines = (*lines, "Content-Range: bytes 0-1/2")  # refused for another reason than its length
            with Line(running.port) as line:
                line.send(head("/files", *lines), *pieces)
                cut.append(line.broke)
                line.send(head("/healthz", "Connection: close", method="GET"))
                heard = line.hear(5)
            assert heard.status in (400, 411, 413, 415), (heard, size)
            assert heard.ended != "open"
            assert heard.statuses[1:] in ([], [200]), heard
    verdicts.saw(running.host, "refused", "answered, then cut" if any(cut) else "answered, read to its end")
    assert running.reached() == reached


@pytest.mark.case(60)
def test_a_body_that_drips_ends_or_holds_up_nobody(running: Running, verdicts: Verdicts) -> None:
    before = running.files()
    # Where it is known to wait, only for long enough to see that others are served.
    waits = (
        UPLOADS.kept().get(running.host.name, {}).get("drips") == "waits" and os.environ.get(WRITE) != "1" and not SOAK
    )
    seconds = 0.7 if waits else SECONDS + 3.0

    def drips() -> Heard:
        with Line(running.port) as line:
            line.send(head("/files", LENGTH), DATA[:2000])
            return line.drip(b"x", 0.1, seconds)

    with ThreadPoolExecutor(1) as pool:
        dripping = pool.submit(drips)
        if running.host.name != "gunicorn sync":  # which serves one at a time
            for _ in range(5):
                assert running.get("/healthz").status == 200
                time.sleep(0.1)
        heard = dripping.result()
    if heard.status is None:
        verdicts.saw(running.host, "drips", "waits" if heard.ended == "open" else "connection ended")
    else:
        assert (heard.status, heard.problem) == (408, "upload-too-slow"), heard
        verdicts.saw(running.host, "drips", "408")
    assert running.get("/healthz").status == 200
    assert running.files() == before


@pytest.mark.skipif(os.environ.get(WRITE) == "1", reason="this run writes what the documents say")
def test_the_documents_say_what_was_measured_of_uploads() -> None:
    assert UPLOADS.in_documents() == UPLOADS.table()
    assert UPLOADS.seen() == {(host.name, column) for host in UPLOADS.hosts for column in UPLOADS.columns}
