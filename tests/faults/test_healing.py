"""Bodies that break off and go on from another answer: when that is done, when it must not be, and what it leaves."""

from __future__ import annotations

import io
import logging
import random
import subprocess
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import falcon
import pytest

from streamware import Archiver, Bundle, Policy
from streamware.errors import (
    BodyClosed,
    ChecksumMismatch,
    InvalidManifest,
    InvalidName,
    InvalidTarget,
    MemberError,
    SourceError,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from streamware.manifest import to_json
from streamware.model import Chunks, Url
from streamware.resources import BundleResource
from streamware.upstreams import Upstream
from tests.conftest import judge
from tests.faults.upstreams import (
    Peer,
    Request,
    Script,
    ScriptedUpstream,
    Tally,
    answer,
    asking,
    content,
    free_port,
    in_turn,
    read,
)
from tests.hosts.servers import wsgiref_server

DATA = random.Random(4).randbytes(300_000)
OTHER = random.Random(5).randbytes(300_000)
KINDS = ("reset", "short", "stall", "drip", "noise")
FAST: dict[str, Any] = {
    "connect_timeout_seconds": 2.0,
    "read_timeout_seconds": 0.5,
    "min_rate_seconds": 0.3,
    "retry_pause_seconds": 0.01,
    "max_retry_pause_seconds": 0.05,
    "heal_seconds": 5.0,
}


class _Recorder:
    def __init__(self) -> None:
        self.said = b""

    def send(self, data: bytes) -> None:
        self.said += data


def cut(script: Script, kind: str, at: int) -> Script:
    """The script's answer up to byte ``at`` of its body, and then the fault."""

    def broken(request: Request, peer: Peer) -> None:
        recorder = _Recorder()
        script(request, recorder)  # type: ignore[arg-type]  # it sends, and no more
        said = recorder.said
        end = said.index(b"\r\n\r\n") + 4 + at
        if request.method == "HEAD" or end >= len(said):
            peer.send(said)
            return
        peer.send(said[:end])
        if kind == "reset":
            peer.pause(0.02)
            peer.reset()
        elif kind == "stall":
            peer.stall()
        elif kind == "drip":
            peer.drip(said[end:], seconds=0.01)
        else:
            if kind == "noise":
                peer.send(b"no size\r\n")
            peer.close()

    return broken


def dies(request: Request, peer: Peer) -> None:
    peer.close()


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def client(tally: Tally) -> Iterator[Upstream]:
    with asking(Policy(**FAST), tally) as upstream:
        yield upstream


@pytest.fixture
def archiver() -> Iterator[Archiver]:
    made = Archiver(Policy(**FAST))
    yield made
    made.close()


def opened(client: Upstream, *urls: str, **known: Any) -> Chunks:
    return client.source(Url(urls[0], urls[1:], trusted=True), **known).open(0, None)


def fails(chunks: Chunks, error: type[MemberError]) -> tuple[bytes, MemberError]:
    """What came before the error, and the error."""
    got: list[bytes] = []
    with pytest.raises(error) as caught:
        got.extend(chunks)
    chunks.close()
    return b"".join(got), caught.value


# --- what is healed ----------------------------------------------------------------------------------------------


@pytest.mark.case(15, 16, 17)
@pytest.mark.parametrize(("kind", "chunked"), [(k, c) for k in KINDS for c in (False, True) if c or k != "noise"])
def test_a_body_goes_on_where_it_broke(
    client: Upstream, tally: Tally, caplog: pytest.LogCaptureFixture, kind: str, chunked: bool
) -> None:
    whole = content(DATA, chunked=chunked)
    with ScriptedUpstream(in_turn(cut(whole, kind, 100_700), whole)) as upstream:  # the end of a chunk
        assert read(opened(client, upstream.url("/a?secret"))) == DATA
        first, second = upstream.requests
        start = int(second.headers["range"].removeprefix("bytes=").partition("-")[0])
        assert 0 < start <= 101_000
        assert second.headers["if-range"] == '"v1"'
        assert "range" not in first.headers
        assert (tally.opened, tally.retries, tally.failures) == (2, 1, 1)
        upstream.wait_closed(1)
    [record] = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert f"broke off at byte {start} " in record.message
    assert "/a:" in record.message
    assert "secret" not in record.message
    assert "\n" not in record.message
    assert record.exc_info is None


@pytest.mark.case(17)
def test_a_mirror_goes_on_where_the_url_is_dead(client: Upstream, tally: Tally) -> None:
    whole = content(DATA)
    scripts = {"/main": in_turn(cut(whole, "reset", 70_000), dies), "/mirror": whole}
    with ScriptedUpstream(scripts) as upstream:
        assert read(opened(client, upstream.url("/main"), upstream.url("/mirror"))) == DATA
        assert upstream.asked == ["GET /main", "GET /main", "GET /mirror"]


def test_a_body_breaks_more_than_once_and_goes_round(client: Upstream) -> None:
    whole = content(DATA)
    scripts = {
        "/a": in_turn(cut(whole, "short", 50_000), dies, whole),
        "/b": in_turn(cut(whole, "short", 50_000), dies),
    }
    with ScriptedUpstream(scripts) as upstream:
        assert read(opened(client, upstream.url("/a"), upstream.url("/b"))) == DATA
        assert upstream.asked == ["GET /a", "GET /a", "GET /b", "GET /a"]


@pytest.mark.case(17)
def test_a_url_that_breaks_off_again_and_again_gives_way_to_a_mirror(client: Upstream) -> None:
    """Each of its answers gives a little, so that it never fails at once; its tries must not be all there are."""
    whole = content(DATA)
    scripts = {path: cut(whole, "short", at) for path, at in (("/a", 20_000), ("/b", 0), ("/c", 9))}
    scripts["/d"] = whole
    with ScriptedUpstream(scripts) as upstream:
        assert read(opened(client, upstream.url("/a"), upstream.url("/d"))) == DATA
        assert upstream.asked == ["GET /a", "GET /a", "GET /d"]
    with ScriptedUpstream(scripts) as upstream:
        assert read(opened(client, *(upstream.url(f"/{path}") for path in "abcd"))) == DATA
        assert upstream.asked == ["GET /a", "GET /a", "GET /b", "GET /c", "GET /d"]


@pytest.mark.case(4, 17)
def test_a_server_that_stumbles_over_the_rest_is_asked_again(client: Upstream) -> None:
    """It gave the beginning; where nothing was given yet, a 500 is its word."""
    stumbles: Script = lambda request, peer: peer.send(answer(b"oops", status="500 Oops"))  # noqa: E731
    whole = content(DATA)
    with ScriptedUpstream(in_turn(cut(whole, "short", 50_000), stumbles, stumbles, whole)) as upstream:
        assert read(opened(client, upstream.url())) == DATA
        assert len(upstream.requests) == 4


def test_a_window_goes_on_to_its_own_end(client: Upstream) -> None:
    whole = content(DATA)
    with ScriptedUpstream(in_turn(cut(whole, "short", 1000), whole)) as upstream:
        source = client.source(Url(upstream.url(), trusted=True), size=len(DATA), etag='"v1"')
        assert read(source.open(5000, 20_000)) == DATA[5000:25_000]
        assert upstream.requests[0].headers["range"] == "bytes=5000-24999"
        assert upstream.requests[1].headers["range"] == "bytes=6000-24999"


@pytest.mark.case(14)
def test_a_server_without_ranges_is_skipped_forward(client: Upstream) -> None:
    whole = content(DATA, ranges=False)
    with ScriptedUpstream(in_turn(cut(whole, "short", 200_000), whole)) as upstream:
        assert read(opened(client, upstream.url())) == DATA


def test_skipping_forward_is_bounded_in_time(tally: Tally) -> None:
    whole = content(DATA, ranges=False)

    def crawls(request: Request, peer: Peer) -> None:
        peer.send(answer(b"", 'ETag: "v1"', length=len(DATA)))
        peer.drip(DATA, size=2000, seconds=0.05)  # far above the minimum rate

    script = in_turn(cut(whole, "short", 200_000), crawls)
    with asking(Policy(**{**FAST, "heal_seconds": 0.5}), tally) as client, ScriptedUpstream(script) as upstream:
        began = time.monotonic()
        got, _ = fails(opened(client, upstream.url()), MemberError)
        assert got == DATA[:200_000]
        assert time.monotonic() - began < 2


def test_before_the_first_byte_any_version_will_do(client: Upstream) -> None:
    broken = cut(content(DATA, etag=None), "short", 0)
    with ScriptedUpstream(in_turn(broken, content(DATA, etag=None))) as upstream:
        assert read(opened(client, upstream.url())) == DATA
        assert "range" not in upstream.requests[1].headers


# --- what is not -------------------------------------------------------------------------------------------------


@pytest.mark.case(17, 19)
@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
@pytest.mark.parametrize("kind", ["reset", "stall"])
def test_without_a_strong_validator_nothing_is_joined(
    client: Upstream, tally: Tally, etag: str | None, kind: str
) -> None:
    whole = content(DATA, etag=etag)
    with ScriptedUpstream(in_turn(cut(whole, kind, 100_000), whole)) as upstream:
        got, error = fails(opened(client, upstream.url(), upstream.url("/mirror"), size=len(DATA)), UpstreamError)
        assert got == DATA[: len(got)] != b""
        assert "; then" not in error.detail
        assert (len(upstream.requests), tally.retries, tally.failures) == (1, 0, 1)
        upstream.wait_closed()


def part(start: int, *lines: str, data: bytes = DATA, total: int | str = len(DATA), etag: str = '"v1"') -> bytes:
    told = f"Content-Range: bytes {start}-{len(data) - 1}/{total}"
    return answer(data[start:], told, f"ETag: {etag}", *lines, status="206 Partial Content")


@pytest.mark.case(9, 14, 19)
@pytest.mark.parametrize(
    "reply",
    [
        part(50_000, etag='"v2"'),
        part(50_000, etag='W/"v1"'),
        part(49_999),
        part(50_001),
        part(50_000, total=len(DATA) + 1),
        part(50_000, total="*"),
        part(50_000, "Content-Encoding: gzip"),
        part(50_000).replace(b"Content-Range", b"X-Range"),
        part(50_000).replace(b"Content-Range: bytes", b"Content-Range: bits"),
        answer(OTHER, 'ETag: "v2"'),
        answer(OTHER),
        answer(DATA[:-1], 'ETag: "v1"'),
        answer(b"", "Content-Range: bytes */9", status="416 Range Not Satisfiable"),
        answer(b"gone", status="404 Not Found"),
        answer(b"changed", status="412 Precondition Failed"),
    ],
)
def test_an_answer_that_does_not_fit_is_no_continuation(client: Upstream, tally: Tally, reply: bytes) -> None:
    def second(request: Request, peer: Peer) -> None:
        assert request.headers["range"] == "bytes=50000-299999"
        peer.send(reply)

    with ScriptedUpstream(in_turn(cut(content(DATA), "short", 50_000), second)) as upstream:
        got, error = fails(opened(client, upstream.url()), UpstreamError)
        assert got == DATA[:50_000]
        assert "; then" in error.detail  # the first error, with the other beside it
        assert len(upstream.requests) == 2  # it will be no better the next time
        assert tally.failures == 2
    with ScriptedUpstream({"/": in_turn(cut(content(DATA), "short", 50_000), second), "/m": content(DATA)}) as upstream:
        assert read(opened(client, upstream.url(), upstream.url("/m"))) == DATA


@pytest.mark.case(19)
def test_bytes_of_a_mirror_with_another_validator_are_not_joined(client: Upstream) -> None:
    scripts = {"/main": in_turn(cut(content(DATA), "short", 50_000), dies), "/mirror": content(DATA, etag='"m"')}
    with ScriptedUpstream(scripts) as upstream:
        got, _ = fails(opened(client, upstream.url("/main"), upstream.url("/mirror")), UpstreamError)
        assert got == DATA[:50_000]


@pytest.mark.case(17, 19, 20)
@pytest.mark.parametrize("etags", [('"a"', '"b"'), (None, None), ('W/"a"', 'W/"b"'), ('"a"', None)])
@pytest.mark.parametrize("name", ["b.zip", "b.tar"])
@pytest.mark.parametrize("mirror", [DATA, OTHER])
def test_a_declared_checksum_proves_what_validators_do_not(
    archiver: Archiver, etags: tuple[str | None, str | None], name: str, mirror: bytes
) -> None:
    """Bytes of two versions may be joined where their sum is checked; and then they are not given out as whole."""
    scripts = {
        "/main": in_turn(cut(content(DATA, etag=etags[0]), "short", 50_000), dies),
        "/mirror": content(mirror, etag=etags[1]),
    }
    with ScriptedUpstream(scripts) as upstream:
        bundle = Bundle(name)
        bundle.add_url(upstream.url("/main"), "a", [upstream.url("/mirror")], len(DATA), zlib.crc32(DATA))
        body = archiver.open(bundle)
        if mirror is DATA:
            archive = b"".join(body)
            assert len(archive) == body.length
            assert contents(archive, name) == {"a": DATA}
        else:
            with pytest.raises(ChecksumMismatch):
                b"".join(body)
            assert body.bytes_out < len(DATA)
        body.close()
        assert upstream.requests[-1].target == "/mirror"


def contents(archive: bytes, name: str) -> dict[str, bytes]:
    file = io.BytesIO(archive)
    if name.endswith(".zip"):
        with zipfile.ZipFile(file) as zipped:
            assert zipped.testzip() is None
            return {n: zipped.read(n) for n in zipped.namelist()}
    with tarfile.open(fileobj=file) as tarred:
        return {m.name: tarred.extractfile(m).read() for m in tarred}  # type: ignore[union-attr]


# --- tries, pauses, limits ---------------------------------------------------------------------------------------


def test_tries_are_bounded(client: Upstream, tally: Tally) -> None:
    with ScriptedUpstream(cut(content(DATA), "short", 10_000)) as upstream:
        got, _ = fails(opened(client, upstream.url(), upstream.url("/m")), MemberError)
        assert got == DATA[: 5 * 10_000]
        assert len(upstream.requests) == 5
        assert (tally.opened, tally.retries, tally.failures) == (5, 4, 5)


@pytest.mark.case(17)
def test_a_body_that_gets_on_has_its_tries_anew(client: Upstream, tally: Tally) -> None:
    """A server that ends every answer after some minutes, or after its client's, ends no large member."""
    data = random.Random(6).randbytes(24 << 20)
    with ScriptedUpstream(cut(content(data), "short", 2 << 20)) as upstream:
        assert read(opened(client, upstream.url())) == data
        assert len(upstream.requests) == 12
        assert (tally.retries, tally.failures) == (11, 11)


@pytest.mark.case(17)
def test_what_was_given_before_the_last_opening_is_no_progress(client: Upstream) -> None:
    data = random.Random(7).randbytes(4 << 20)
    whole = content(data)
    with ScriptedUpstream(in_turn(cut(whole, "short", 3 << 20), cut(whole, "short", 10_000))) as upstream:
        got, _ = fails(opened(client, upstream.url()), MemberError)
        assert got == data[: (3 << 20) + 4 * 10_000]
        assert len(upstream.requests) == 5


@pytest.mark.case(1)
def test_nobody_there_is_found_out_soon(tally: Tally) -> None:
    with asking(Policy(), tally) as client:
        began = time.monotonic()
        with pytest.raises(UpstreamUnreachable):
            opened(client, f"http://127.0.0.1:{free_port()}/")
        assert 0.2 < time.monotonic() - began < 2  # as the defaults are: two pauses
        assert (tally.failures, tally.retries) == (3, 2)


@pytest.mark.case(4)
@pytest.mark.parametrize("status", ["429 Slow Down", "502 Bad Gateway", "503 Busy", "504 Late"])
def test_what_passes_is_asked_again(client: Upstream, status: str) -> None:
    busy: Script = lambda request, peer: peer.send(answer(b"", status=status))  # noqa: E731
    with ScriptedUpstream(in_turn(busy, busy, content(DATA))) as upstream:
        assert read(opened(client, upstream.url())) == DATA
    with ScriptedUpstream(in_turn(dies, content(DATA))) as upstream:
        assert read(opened(client, upstream.url())) == DATA


@pytest.mark.case(4)
@pytest.mark.parametrize("status", ["404 No", "410 No", "401 No", "403 No", "500 No", "418 No"])
def test_what_does_not_pass_is_asked_once(client: Upstream, tally: Tally, status: str) -> None:
    with ScriptedUpstream(lambda request, peer: peer.send(answer(b"", status=status))) as upstream:
        with pytest.raises(UpstreamStatus) as caught:
            opened(client, upstream.url())
        assert caught.value.upstream_status == int(status[:3])
        assert (len(upstream.requests), tally.failures) == (1, 1)


@pytest.mark.case(4)
def test_a_server_names_its_own_pause(client: Upstream) -> None:
    def busy(seconds: int) -> Script:
        return lambda _, peer: peer.send(answer(b"", f"Retry-After: {seconds}", status="503 Busy"))

    with ScriptedUpstream(in_turn(busy(1), content(DATA))) as upstream:
        began = time.monotonic()
        assert read(opened(client, upstream.url())) == DATA
        assert 1 <= time.monotonic() - began < 2
    with ScriptedUpstream(busy(3600)) as upstream:
        with pytest.raises(UpstreamStatus) as caught:
            opened(client, upstream.url())
        assert (caught.value.retry_after, len(upstream.requests)) == (3600, 1)
    with ScriptedUpstream(in_turn(cut(content(DATA), "short", 9), busy(1), content(DATA))) as upstream:
        assert read(opened(client, upstream.url())) == DATA


def test_healing_has_a_time_limit(tally: Tally) -> None:
    policy = {**FAST, "heal_seconds": 0.3, "retry_pause_seconds": 0.2, "max_retry_pause_seconds": 5.0}
    script = in_turn(cut(content(DATA), "short", 9), dies)
    with asking(Policy(**policy), tally) as client, ScriptedUpstream(script) as upstream:
        chunks = opened(client, upstream.url())
        began = time.monotonic()
        fails(chunks, MemberError)
        assert time.monotonic() - began < 1
        assert len(upstream.requests) < 4


def test_a_member_has_a_time_limit(tally: Tally) -> None:
    policy = Policy(**{**FAST, "member_seconds": 0.3, "chunk_bytes": 100})
    with asking(policy, tally) as client, ScriptedUpstream(content(DATA)) as upstream:
        chunks = opened(client, upstream.url())
        assert next(chunks) == DATA[:100]
        time.sleep(0.35)
        fails(chunks, UpstreamTimeout)
        assert len(upstream.requests) == 1
        upstream.wait_closed()


@pytest.mark.case(16)
def test_only_waiting_counts_against_the_rate(tally: Tally) -> None:
    """A reader who takes his time is served, however little he reads in a second."""
    policy = Policy(**{**FAST, "chunk_bytes": 500, "min_rate_bytes": 100_000})
    with asking(policy, tally) as client, ScriptedUpstream(content(DATA[:20_000])) as upstream:
        got = b""
        for piece in opened(client, upstream.url()):
            got += piece
            time.sleep(0.02)
        assert got == DATA[:20_000]
        assert tally.failures == 0


@pytest.mark.case(16)
def test_a_steady_trickle_above_the_rate_is_no_drip(tally: Tally) -> None:
    def trickles(request: Request, peer: Peer) -> None:
        peer.send(answer(b"", 'ETag: "v1"', length=6000))
        peer.drip(DATA[:6000], size=100, seconds=0.02)

    with asking(Policy(**FAST), tally) as client, ScriptedUpstream(trickles) as upstream:
        assert read(opened(client, upstream.url())) == DATA[:6000]
        assert tally.failures == 0


def test_what_is_only_passed_on_may_come_as_slowly_as_it_likes(client: Upstream) -> None:
    def trickles(request: Request, peer: Peer) -> None:
        peer.send(answer(b"", length=10))
        peer.drip(DATA[:10], seconds=0.06)

    with ScriptedUpstream(trickles) as upstream:
        assert read(client.forward(upstream.url()).body) == DATA[:10]
        fails(opened(client, upstream.url()), UpstreamTimeout)


@pytest.mark.case(6, 16)
@pytest.mark.parametrize("dripped", ["head", "size of a chunk", "trailer"])
def test_a_drip_outside_the_content_is_noticed(client: Upstream, dripped: str) -> None:
    """Each byte comes within the time limit of a read, and none of them is the content's."""

    def script(request: Request, peer: Peer) -> None:
        if dripped == "head":
            peer.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
        elif dripped == "trailer":
            peer.send(answer(b"3\r\nabc\r\n0\r\nX-Long: ", "Transfer-Encoding: chunked", length=None))
        else:
            peer.send(answer(b"3\r\nabc\r\n3;long=", "Transfer-Encoding: chunked", length=None))
        peer.drip(b"x" * 1000, seconds=0.01)

    with ScriptedUpstream(script) as upstream:
        began = time.monotonic()
        with pytest.raises(UpstreamTimeout):
            read(opened(client, upstream.url()))
        assert time.monotonic() - began < 8
        upstream.wait_closed()


# --- ending it ---------------------------------------------------------------------------------------------------


def ended(chunks: Chunks, blocked: threading.Event) -> float:
    """How long it took until abort() ended a ``next()`` that was blocked."""
    raised: list[BaseException] = []

    def reads() -> None:
        try:
            for _ in chunks:
                pass
        except BaseException as error:
            raised.append(error)

    reader = threading.Thread(target=reads)
    reader.start()
    assert blocked.wait(5)
    time.sleep(0.05)
    began = time.monotonic()
    chunks.abort()
    reader.join(10)
    took = time.monotonic() - began
    assert isinstance(raised[0], BodyClosed)
    chunks.close()
    return took


@pytest.mark.case(27)
@pytest.mark.parametrize("where", ["pause", "head", "body"])
def test_abort_ends_a_healing(tally: Tally, where: str) -> None:
    blocked = threading.Event()

    def second(request: Request, peer: Peer) -> None:
        blocked.set()
        if where == "body":
            peer.send(part(1000))
        if where == "pause":
            peer.send(answer(b"", "Retry-After: 20", status="503 Busy"))
        peer.stall()

    def second_body(request: Request, peer: Peer) -> None:
        peer.send(part(1000)[:-290_000])
        blocked.set()
        peer.stall()

    policy = Policy(read_timeout_seconds=20.0, retry_pause_seconds=0.01)
    script = in_turn(cut(content(DATA), "short", 1000), second_body if where == "body" else second)
    with asking(policy, tally) as client, ScriptedUpstream(script) as upstream:
        assert ended(opened(client, upstream.url()), blocked) < 0.5
        upstream.wait_closed(1 if where == "pause" else 0)  # the one that was told to wait can be used again
        assert tally.failures == (2 if where == "pause" else 1)  # what we end ourselves has not failed
        assert len(upstream.requests) == 2


@pytest.mark.case(27)
def test_abort_ends_an_opening(tally: Tally) -> None:
    blocked = threading.Event()

    def script(request: Request, peer: Peer) -> None:
        if request.target == "/first":
            peer.send(answer(b"ok"))
            return
        blocked.set()
        peer.stall()

    with asking(Policy(read_timeout_seconds=20.0), tally) as client, ScriptedUpstream(script) as upstream:
        assert (
            read(opened(client, upstream.url("/first"))) == b"ok"
        )  # then over a used connection, which is not replaced
        source = client.source(Url(upstream.url(), trusted=True))
        raised: list[BaseException] = []

        def opens() -> None:
            try:
                source.open(0, None)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=opens)
        thread.start()
        assert blocked.wait(5)
        began = time.monotonic()
        source.abort()
        thread.join(5)
        assert time.monotonic() - began < 0.5
        assert isinstance(raised[0], BodyClosed)
        assert (len(upstream.requests), tally.failures) == (2, 0)
        with pytest.raises(BodyClosed):
            source.open(0, None)
        upstream.wait_closed()


@pytest.mark.parametrize("etag", ['"v1"', None])
def test_what_must_be_waited_for_is_not_ready(client: Upstream, etag: str | None) -> None:
    whole = content(DATA, etag=etag)
    with ScriptedUpstream(in_turn(cut(whole, "short", 10), whole)) as upstream:
        chunks = opened(client, upstream.url())
        assert next(chunks) == DATA[:10]
        time.sleep(0.05)
        assert chunks.ready() is (etag is None)  # an error needs no waiting
        chunks.close()
        chunks.close()
        upstream.wait_closed()


# --- URLs that are made ------------------------------------------------------------------------------------------


class Presigned:
    """URLs that are good for one use."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.made = 0

    def __call__(self) -> str:
        self.made += 1
        return f"{self.base}?signature={self.made}"


@pytest.mark.case(15, 17)
def test_a_presigned_url_that_expires_is_made_anew(archiver: Archiver, caplog: pytest.LogCaptureFixture) -> None:
    used: set[str] = set()
    whole = content(DATA)

    def script(request: Request, peer: Peer) -> None:
        if request.target in used or request.method != "GET":
            peer.send(answer(b"expired", status="403 Forbidden"))
            return
        used.add(request.target)
        (cut(whole, "short", 100_000) if "range" not in request.headers else whole)(request, peer)

    with ScriptedUpstream(script) as upstream:
        sign = Presigned(upstream.url("/a"))
        bundle = Bundle("b.zip")
        bundle.add_url(sign, "a.bin")
        body = archiver.open(bundle)
        archive = b"".join(body)
        body.close()
        assert contents(archive, "b.zip") == {"a.bin": DATA}
        assert sign.made == len(upstream.requests) == 2
        assert "signature" not in caplog.text


def test_a_url_that_is_made_needs_a_name_and_trust(archiver: Archiver) -> None:
    sign = Presigned("http://127.0.0.1:1/")
    bundle = Bundle()
    with pytest.raises(InvalidName):
        bundle.add_url(sign)
    for wrong in (Url, lambda url: Url("http://127.0.0.1/", (url,))):
        with pytest.raises(InvalidTarget):
            wrong(sign)
    bundle.add_url("http://127.0.0.1:1/", "a", [sign])
    with pytest.raises(InvalidManifest, match="function"):
        to_json(bundle)
    with pytest.raises(InvalidManifest, match="function"):
        archiver.links.make(bundle)
    assert sign.made == 0


@pytest.mark.parametrize("made", [ValueError("no key"), 7, "no url", "http://user:pw@127.0.0.1/"])
def test_a_function_that_makes_no_url_fails_its_member(client: Upstream, made: object) -> None:
    def make() -> Any:
        if isinstance(made, Exception):
            raise made
        return made

    with ScriptedUpstream(content(DATA)) as upstream:
        with pytest.raises(SourceError):
            client.source(Url(make, trusted=True)).open(0, None)
        with pytest.raises(SourceError):
            client.source(Url(make, trusted=True)).probe()
        assert read(client.source(Url(make, (upstream.url(),), trusted=True)).open(0, None)) == DATA


def test_what_is_learned_of_a_made_url_is_forgotten(archiver: Archiver) -> None:
    """Its text says nothing of what it stands for, so no checksum is kept under it."""
    with ScriptedUpstream(content(DATA)) as upstream:
        for url, known in ((upstream.url("/a"), True), (Presigned(upstream.url("/a")), False)):
            bundle = Bundle("b.zip")
            bundle.add_url(url, "a", etag='"v1"', size=len(DATA))
            b"".join(archiver.open(bundle))
            before = len(upstream.requests)
            reply = archiver.respond(bundle, ranged("bytes=-30"))  # the end records quote the checksum
            assert reply.status == 206
            assert b"".join(reply.body)
            reply.body.close()
            assert (len(upstream.requests) == before) is known


def ranged(field: str) -> Any:
    from streamware import Conditions

    return Conditions(range=field)


# --- archives ----------------------------------------------------------------------------------------------------


@pytest.mark.case(15, 16, 17, 26)
@pytest.mark.parametrize(
    ("name", "compress"), [("b.zip", "stored"), ("b.zip", "deflate"), ("b.tar", "stored"), ("b.tar.gz", "stored")]
)
def test_archives_of_broken_bodies_are_whole(archiver: Archiver, name: str, compress: Any) -> None:
    text = b"the same line over and over\n" * 20_000
    with ScriptedUpstream(
        {
            "/a": in_turn(content(text), cut(content(text), "reset", 300_000), content(text)),
            "/b": in_turn(cut(content(DATA), "stall", 299_999), content(DATA)),
            "/c": in_turn(cut(content(DATA), "drip", 1), content(DATA)),
            "/small": in_turn(cut(content(b"small"), "short", 2), content(b"small")),
        }
    ) as upstream:
        bundle = Bundle(name, compress=compress)
        for path in ("/a", "/small", "/b", "/c"):
            bundle.add_url(upstream.url(path), size=None if path != "/b" else len(DATA))
        body = archiver.open(bundle)
        archive = b"".join(body)
        body.close()
        assert body.length in (None, len(archive))
        assert contents(archive, name) == {"a": text, "small": b"small", "b": DATA, "c": DATA}


@pytest.mark.judge("curl", "unzip")
@pytest.mark.case(17)
def test_one_of_two_nodes_dies_and_curl_gets_it_all(tmp_path: Path) -> None:
    whole = content(DATA)
    archiver = Archiver(Policy(**FAST))

    class Log(BundleResource):
        def make_bundle(self, req: falcon.Request, **params: Any) -> Bundle:
            bundle = Bundle("log.zip")
            mirrors = [upstream.url("/mirror")] if req.get_param("mirror") else []
            bundle.add_url(upstream.url("/node"), "node.log", mirrors)
            return bundle

    app = falcon.App()
    app.add_route("/log", Log(archiver))
    first = cut(whole, "reset", 150_000)

    def node(request: Request, peer: Peer) -> None:
        (dies if "range" in request.headers else first)(request, peer)

    with ScriptedUpstream({"/node": node, "/mirror": whole}) as upstream, wsgiref_server(app) as server:
        for query, code in (("?mirror=1", 0), ("", 18)):
            file = tmp_path / f"{code}.zip"
            url = f"http://127.0.0.1:{server.port}/log{query}"
            ran = subprocess.run([judge("curl"), "-sSf", "-m", "20", "-o", file, url], timeout=30, check=False)
            assert ran.returncode == code
            tested = subprocess.run([judge("unzip"), "-tqq", file], timeout=30, check=False, capture_output=True)
            assert (tested.returncode == 0) is (code == 0)
    archiver.close()


TRIALS = 60


@pytest.mark.case(14, 15, 16, 17, 19)
@pytest.mark.parametrize("seed", range(TRIALS // 10))
def test_cuts_at_random_bytes(archiver: Archiver, seed: int) -> None:
    """Ten archives each: whole and the same as without faults, whatever broke where, as long as it can be healed."""
    dice = random.Random(seed)
    for _ in range(10):
        files = [dice.randbytes(dice.choice((1, 1000, 70_000, 300_000))) for _ in range(3)]
        name = dice.choice(("b.zip", "b.tar"))
        scripts: dict[str, Script] = {}
        expected = Bundle(name)
        for number, data in enumerate(files):
            good = content(data, ranges=dice.random() < 0.7)
            kinds = [dice.choice(("reset", "short", "reset", "short", "stall", "drip")) for _ in range(2)]
            broken = [cut(good, kind, dice.randrange(len(data))) for kind in kinds]
            scripts[f"/{number}"] = in_turn(good, *broken, good) if dice.random() < 0.5 else in_turn(*broken, good)
            scripts[f"/m{number}"] = dice.choice((good, dies))
            expected.add_data(str(number), data)
        with ScriptedUpstream(scripts) as upstream:
            bundle = Bundle(name)
            for number, data in enumerate(files):
                known = {"size": len(data)} if dice.random() < 0.5 else {}
                bundle.add_url(upstream.url(f"/{number}"), str(number), [upstream.url(f"/m{number}")], **known)
            body = archiver.open(bundle)
            archive = b"".join(body)
            body.close()
            assert len(archive) == body.length
            assert contents(archive, name) == {str(n): data for n, data in enumerate(files)}
