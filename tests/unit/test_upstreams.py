"""What is asked of other servers, what of their answers is believed, and what is passed on: rule by rule."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from streamware.errors import (
    BodyClosed,
    InvalidManifest,
    InvalidTarget,
    MemberChanged,
    MemberError,
    NotAllowed,
    RequestError,
    SizeMismatch,
    UpstreamError,
    UpstreamStatus,
    UpstreamUnreachable,
)
from streamware.model import Facts, Source, Url
from streamware.policy import Policy
from streamware.upstreams import Upstream, UpstreamSource
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

TEXT = bytes(range(256)) * 40  # 10,240 bytes, no two neighbouring ranges alike
MODIFIED = "Last-Modified: Fri, 20 Nov 2026 12:00:00 GMT"
MODIFIED_SECONDS = 1795176000


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def client(tally: Tally) -> Iterator[Upstream]:
    with asking(Policy(read_timeout_seconds=10.0, retry_pause_seconds=0.01), tally) as upstream:
        yield upstream


def trusted(url: str, *mirrors: str, headers: tuple[tuple[str, str], ...] = ()) -> Url:
    return Url(url, mirrors, headers, trusted=True)


def whole(source: UpstreamSource) -> bytes:
    return read(source.open(0, None))


def raw(data: bytes) -> Script:
    def script(request: Request, peer: Peer) -> None:
        peer.send(data)

    return script


def redirect(location: str, status: str = "302 Found") -> Script:
    def script(request: Request, peer: Peer) -> None:
        body = b"" if request.method == "HEAD" else b"moved"
        peer.send(answer(body, f"Location: {location}", length=5, status=status))

    return script


# --- probing -----------------------------------------------------------------------------------------------------


def test_head_tells_the_facts(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT, MODIFIED, "Content-Type: Text/Plain; charset=utf-8")) as upstream:
        source = client.source(trusted(upstream.url("/a")))
        assert isinstance(source, Source)
        assert source.probe() == Facts(len(TEXT), MODIFIED_SECONDS, '"v1"', media_type="text/plain")
        assert upstream.asked == ["HEAD /a"]


@pytest.mark.parametrize(
    "head",
    [
        answer(b"", status="405 Method Not Allowed"),
        answer(b"", status="501 Not Implemented"),
        answer(b"", status="404 Not Found"),
        answer(b"", status="503 Service Unavailable"),
        answer(b"", length=None),
        answer(b"", "Transfer-Encoding: chunked", length=None),
        answer(b"", length="12, 12"),
        answer(b"", length="-5"),
        answer(b"", length=0),  # a framework that measured the body it did not make
        answer(b"", "Content-Encoding: gzip", length=700),
        b"",  # hangs up
    ],
)
@pytest.mark.case(13)
def test_a_head_that_is_of_no_use_is_followed_by_get(client: Upstream, head: bytes) -> None:
    def script(request: Request, peer: Peer) -> None:
        if request.method == "HEAD":
            peer.send(head)
            if not head:
                peer.close()
        else:
            content(TEXT)(request, peer)

    with ScriptedUpstream(script) as upstream:
        source = client.source(trusted(upstream.url()))
        assert source.probe().size == len(TEXT)
        assert upstream.asked == ["HEAD /", "GET /"]
        assert whole(source) == TEXT


@pytest.mark.case(13)
def test_a_head_that_breaks_a_promise_is_not_believed(client: Upstream) -> None:
    lie = raw(answer(b"", 'ETag: "v1"', length=5))
    with ScriptedUpstream(in_turn(lie, content(TEXT))) as upstream:
        assert client.source(trusted(upstream.url()), size=len(TEXT)).probe().size == len(TEXT)
        assert upstream.asked == ["HEAD /", "GET /"]


def test_a_head_that_gets_no_answer_decides_at_once(tally: Tally) -> None:
    client = Upstream(Policy(read_timeout_seconds=0.2, connect_timeout_seconds=0.2), tally)
    with ScriptedUpstream(lambda request, peer: peer.stall()) as upstream:
        with pytest.raises(UpstreamError):
            client.source(trusted(upstream.url())).probe()
        assert upstream.asked == ["HEAD /"]
        assert tally.failures == 1
    client.close()


def test_a_kept_answer_is_the_one_that_is_read(client: Upstream, tally: Tally) -> None:
    with ScriptedUpstream(content(TEXT)) as upstream:
        source = client.source(trusted(upstream.url()))
        assert source.probe(keep=True).size == len(TEXT)
        assert whole(source) == TEXT
        assert upstream.asked == ["GET /"]
        assert tally.opened == 1
        assert whole(source) == TEXT
        assert upstream.connections == 1


def test_a_kept_answer_can_be_given_up(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT * 1000)) as upstream:
        source = client.source(trusted(upstream.url()))
        source.probe(keep=True)
        source.close()
        source.close()
        upstream.wait_closed()


@pytest.mark.parametrize(("etag", "asked"), [('"v1"', 2), ('W/"v1"', 1), (None, 1)])
def test_a_kept_answer_does_not_wait_for_ever_where_another_can_be_proved_the_same(
    etag: str | None, asked: int
) -> None:
    fields = () if etag is None else (f"ETag: {etag}",)

    def page(request: Request, peer: Peer) -> None:
        peer.send(answer(TEXT, *fields))

    client = Upstream(Policy(held_seconds=0.05))
    with ScriptedUpstream(page) as upstream:
        source = client.source(trusted(upstream.url()))
        source.probe(keep=True)
        time.sleep(0.1)
        assert whole(source) == TEXT
        assert upstream.asked == ["GET /"] * asked
    client.close()


def test_a_promised_version_is_asked_for_by_its_validator(client: Upstream) -> None:
    seen: list[str | None] = []

    def page(request: Request, peer: Peer) -> None:
        seen.append(request.headers.get("if-match"))
        if seen[-1] == '"v1"':
            peer.send(answer(TEXT, 'ETag: "v1"'))
        else:
            peer.send(answer(b"", status="412 Precondition Failed"))

    with ScriptedUpstream(page) as upstream:
        assert whole(client.source(trusted(upstream.url()), etag='"v1"')) == TEXT
        with pytest.raises(MemberChanged):
            client.source(trusted(upstream.url()), etag='"v2"').open(0, None)
        client.source(trusted(upstream.url()), etag='W/"v1"', size=3).close()
    assert seen == ['"v1"', '"v2"']


def test_a_kept_answer_that_died_is_asked_for_again_once(client: Upstream, tally: Tally) -> None:
    def dies(request: Request, peer: Peer) -> None:
        peer.send(answer(b"", 'ETag: "v1"', length=len(TEXT)))
        peer.close()

    with ScriptedUpstream(in_turn(dies, content(TEXT))) as upstream:
        source = client.source(trusted(upstream.url()))
        assert source.probe(keep=True).size == len(TEXT)
        assert whole(source) == TEXT
        assert upstream.asked == ["GET /", "GET /"]
        assert tally.retries == 1
    with ScriptedUpstream(dies) as upstream:
        source = client.source(trusted(upstream.url()))
        source.probe(keep=True)
        chunks = source.open(0, None)
        with pytest.raises(UpstreamError):
            read(chunks)
        assert upstream.asked == ["GET /"] * 6  # the one that was kept, and as many as one reading may take


def test_a_kept_answer_is_of_no_use_to_a_later_part(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT)) as upstream:
        source = client.source(trusted(upstream.url()))
        source.probe(keep=True)
        assert read(source.open(1000, 24)) == TEXT[1000:1024]
        assert upstream.requests[-1].headers["range"] == "bytes=1000-1023"


# --- promises ----------------------------------------------------------------------------------------------------


def test_a_given_size_must_be_the_upstreams(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT)) as upstream:
        for call in (lambda s: s.probe(), lambda s: s.probe(keep=True), lambda s: s.open(0, None)):
            with pytest.raises(SizeMismatch):
                call(client.source(trusted(upstream.url()), size=len(TEXT) + 1))
        assert whole(client.source(trusted(upstream.url()), size=len(TEXT))) == TEXT


@pytest.mark.parametrize("seen", ['"v2"', 'W/"v1"', None, 'v1"', '"a", "v1"'])
def test_a_given_etag_must_be_the_upstreams(client: Upstream, seen: str | None) -> None:
    with ScriptedUpstream(content(TEXT, etag=seen)) as upstream:
        for call in (lambda s: s.probe(), lambda s: s.open(0, None), lambda s: s.open(5, 5)):
            with pytest.raises(MemberChanged):
                call(client.source(trusted(upstream.url()), etag='"v1"', size=len(TEXT)))


def test_a_given_weak_etag_is_compared_weakly(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT, etag='W/"v1"')) as upstream:
        assert whole(client.source(trusted(upstream.url()), etag='W/"v1"')) == TEXT
        with pytest.raises(MemberChanged):
            client.source(trusted(upstream.url()), etag='W/"v2"').open(0, None)


def test_what_was_probed_pins_what_is_opened(client: Upstream) -> None:
    for later, error in (
        (content(TEXT, etag='"v2"'), MemberChanged),
        (content(TEXT, etag=None), MemberChanged),
        (content(TEXT + b"!"), SizeMismatch),
    ):
        with ScriptedUpstream(in_turn(content(TEXT), later)) as upstream:
            source = client.source(trusted(upstream.url()))
            source.probe()
            with pytest.raises(error):
                source.open(0, None)


def test_what_was_opened_pins_what_is_opened_later(client: Upstream) -> None:
    with ScriptedUpstream(in_turn(content(TEXT), content(TEXT, etag='"v2"'))) as upstream:
        source = client.source(trusted(upstream.url()))
        assert whole(source) == TEXT
        with pytest.raises(MemberChanged):
            source.open(10, None)
        assert upstream.requests[1].headers["if-range"] == '"v1"'


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (answer(b"x" * 5, "Content-Range: bytes 0-4/5", status="206 Partial Content"), UpstreamError),
        (answer(b"x" * 5, "Content-Encoding: gzip"), UpstreamError),
        (answer(b"x" * 5, "Content-Encoding: br, identity"), UpstreamError),
        (answer(b"x" * 5, length=None), UpstreamError),  # ends with the connection: proves nothing
        (answer(b"x" * 5, length=None, version="1.0"), UpstreamError),
        (answer(b"x" * 5, length="5, 5"), UpstreamError),
        (answer(b"x" * 5, length="-5"), UpstreamError),
        (answer(b"x" * 5, length="+5"), UpstreamError),
        (answer(b"x" * 5, length="9" * 5000), UpstreamError),
        (answer(b"x" * 5, "Content-Length: 6"), UpstreamError),
        (answer(b"", "Transfer-Encoding: gzip, chunked", length=None), UpstreamError),
        (answer(b"", "Transfer-Encoding: chunked", length=None, version="1.0"), UpstreamError),
        (answer(b"", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", length=None), UpstreamError),
        (answer(b"x" * 5, "no field at all"), UpstreamError),
        (answer(b"x" * 5, "X Y: spaced"), UpstreamError),
        (answer(b"", status="204 No Content", length=None), UpstreamStatus),
        (answer(b"", status="103 Early Hints", length=None), UpstreamStatus),
        (answer(b"gone", status="410 Gone"), UpstreamStatus),
    ],
)
@pytest.mark.case(8, 9, 14)
def test_answers_that_prove_nothing_are_refused(client: Upstream, reply: bytes, error: type[MemberError]) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(reply)
        peer.close()

    with ScriptedUpstream(script) as upstream:
        for call in (lambda s: s.open(0, None), lambda s: s.probe(keep=True)):
            with pytest.raises(UpstreamError) as caught:
                call(client.source(trusted(upstream.url())))
            assert type(caught.value) is error


def test_identity_as_a_coding_is_no_coding(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT, "Content-Encoding: Identity")) as upstream:
        assert whole(client.source(trusted(upstream.url()))) == TEXT


@pytest.mark.case(4)
def test_a_status_is_told_with_the_pause_it_asks_for(client: Upstream, tally: Tally) -> None:
    def script(request: Request, peer: Peer) -> None:
        status = request.target[1:]
        peer.send(
            answer(b"" if request.method == "HEAD" else b"no", "Retry-After: 17", length=2, status=f"{status} No")
        )

    with ScriptedUpstream(script) as upstream:
        for status, pause in ((404, None), (429, 17), (500, None), (503, 17)):
            with pytest.raises(UpstreamStatus) as caught:
                client.source(trusted(upstream.url(f"/{status}"))).probe()
            assert (caught.value.upstream_status, caught.value.retry_after) == (status, pause)
        assert upstream.connections == 1  # small error pages do not cost the connection
        assert tally.failures == 4


def test_a_date_as_pause_is_not_understood(client: Upstream) -> None:
    reply = answer(b"", "Retry-After: Fri, 20 Nov 2026 12:00:00 GMT", status="503 Later")
    with ScriptedUpstream(raw(reply)) as upstream:
        with pytest.raises(UpstreamStatus) as caught:
            client.source(trusted(upstream.url())).open(0, None)
        assert caught.value.retry_after is None


# --- bodies ------------------------------------------------------------------------------------------------------


def test_a_chunked_body_has_no_size_and_comes_whole(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT, chunked=True, head=False)) as upstream:
        source = client.source(trusted(upstream.url()))
        assert source.probe(keep=True).size is None
        assert whole(source) == TEXT
        assert whole(source) == TEXT
        assert upstream.connections == 1  # read to its last chunk, it leaves the connection usable


def test_a_chunked_body_of_given_size_is_counted(client: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedUpstream(content(TEXT, chunked=True)) as upstream:
        url = trusted(upstream.url())
        source = client.source(url, size=len(TEXT))
        for _ in range(2):
            assert whole(source) == TEXT
        with pytest.raises(SizeMismatch):
            whole(client.source(url, size=len(TEXT) + 1))
        assert not caplog.messages
        with pytest.raises(SizeMismatch):
            whole(client.source(url, size=len(TEXT) - 1))
        assert whole(client.source(url, size=len(TEXT) - 1, proved=True)) == TEXT[:-1]  # its checksum will tell
        assert "more bytes came" in caplog.text
        upstream.wait_closed(1)


def test_a_last_chunk_that_is_there_saves_the_connection(client: Upstream) -> None:
    with ScriptedUpstream(
        raw(answer(b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=None))
    ) as upstream:
        for _ in range(3):
            assert whole(client.source(trusted(upstream.url()), size=5)) == b"hello"
        assert upstream.connections == 1


def test_the_end_of_a_chunked_body_is_not_waited_for_where_a_checksum_tells(client: Upstream) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"", "Transfer-Encoding: chunked", length=None))
        peer.send(b"5\r\nhello\r\n")
        peer.stall()

    with ScriptedUpstream(script) as upstream:
        started = time.monotonic()
        assert whole(client.source(trusted(upstream.url()), size=5, proved=True)) == b"hello"
        assert time.monotonic() - started < 1
        upstream.wait_closed()


def test_a_close_delimited_body_needs_a_given_size(client: Upstream) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(TEXT, length=None, version="1.0"))
        peer.close()

    with ScriptedUpstream(script) as upstream:
        url = trusted(upstream.url())
        assert whole(client.source(url, size=len(TEXT))) == TEXT
        for size in (len(TEXT) - 9, len(TEXT) + 1):
            with pytest.raises(SizeMismatch):
                whole(client.source(url, size=size))
        with pytest.raises(UpstreamError):
            client.source(url).open(0, None)


def test_an_old_server_with_a_length_is_fine(client: Upstream) -> None:
    with ScriptedUpstream(raw(answer(TEXT, version="1.0"))) as upstream:
        assert whole(client.source(trusted(upstream.url()))) == TEXT


def test_an_empty_file_gives_nothing_and_keeps_the_connection(client: Upstream) -> None:
    with ScriptedUpstream(content(b"")) as upstream:
        for _ in range(3):
            source = client.source(trusted(upstream.url()))
            assert source.probe().size == 0
            assert whole(source) == b""
        assert upstream.connections == 1


def test_bytes_flow_as_they_come(client: Upstream) -> None:
    go_on = threading.Event()

    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"one", length=6))
        assert go_on.wait(5)
        peer.send(b"two")

    with ScriptedUpstream(script) as upstream:
        chunks = client.source(trusted(upstream.url())).open(0, None)
        assert next(chunks) == b"one"
        assert not chunks.ready()
        go_on.set()
        assert next(chunks) == b"two"
        assert chunks.ready()
        assert next(chunks, None) is None
        assert next(chunks, None) is None
        chunks.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_what_came_with_the_head_is_ready(client: Upstream, chunked: bool) -> None:
    def script(request: Request, peer: Peer) -> None:
        if chunked:
            peer.send(answer(b"4\r\nfour\r\n4\r\nmore\r\n", "Transfer-Encoding: chunked", length=None))
        else:
            peer.send(answer(b"fourmore", length=20_000))
        peer.stall()

    with ScriptedUpstream(script) as upstream:
        chunks = client.source(trusted(upstream.url())).open(0, None)
        got = b""
        for _ in range(2 if chunked else 1):
            assert chunks.ready()
            got += next(chunks)
        assert got == b"fourmore"
        assert not chunks.ready()
        chunks.close()
        upstream.wait_closed()


def test_the_rest_of_a_chunk_is_ready() -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"8\r\nfourmore", "Transfer-Encoding: chunked", length=None))
        peer.stall()

    client = Upstream(Policy(chunk_bytes=4))
    with ScriptedUpstream(script) as upstream:
        chunks = client.source(trusted(upstream.url())).open(0, None)
        for piece in (b"four", b"more"):
            assert chunks.ready()
            assert next(chunks) == piece
        assert not chunks.ready()
        chunks.close()
    client.close()


def test_ready_sees_the_end_of_a_connection(client: Upstream) -> None:
    closed = threading.Event()

    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"x" * 10, length=20_000))
        peer.close()
        closed.set()

    with ScriptedUpstream(script) as upstream:
        chunks = client.source(trusted(upstream.url())).open(0, None)
        next(chunks)
        assert closed.wait(5)
        time.sleep(0.05)
        assert chunks.ready()
        with pytest.raises(UpstreamError):
            next(chunks)
        chunks.close()


def test_pieces_are_no_larger_than_policy_says() -> None:
    client = Upstream(Policy(chunk_bytes=1000))
    with ScriptedUpstream(content(TEXT)) as upstream:
        chunks = client.source(trusted(upstream.url())).open(0, None)
        pieces = []
        for piece in chunks:
            pieces.append(piece)
            assert chunks.ready() or sum(map(len, pieces)) < len(TEXT)
        chunks.close()
        assert b"".join(pieces) == TEXT
        assert max(map(len, pieces)) <= 1000
    client.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_left_in_the_middle_costs_the_connection(
    client: Upstream, caplog: pytest.LogCaptureFixture, chunked: bool
) -> None:
    with ScriptedUpstream(content(TEXT * 1000, chunked=chunked)) as upstream:
        chunks = client.source(trusted(upstream.url())).open(0, None)
        next(chunks)
        chunks.close()
        chunks.close()
        upstream.wait_closed()
        with pytest.raises(BodyClosed):
            next(chunks)
        assert not caplog.messages


def test_a_neighbour_is_not_hit_by_a_late_abort(client: Upstream) -> None:
    go_on = threading.Event()

    def slow(request: Request, peer: Peer) -> None:
        peer.send(answer(b"one", length=6))
        assert go_on.wait(5)
        peer.send(b"two")

    with ScriptedUpstream(in_turn(content(TEXT), slow)) as upstream:
        first = client.source(trusted(upstream.url())).open(0, None)
        assert read(first) == TEXT
        second = client.source(trusted(upstream.url())).open(0, None)
        first.abort()
        first.abort()
        go_on.set()
        assert read(second) == b"onetwo"
        assert upstream.connections == 1


def test_a_read_after_abort_is_told_so(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT)) as upstream:
        chunks = client.source(trusted(upstream.url())).open(0, None)
        chunks.abort()
        assert chunks.ready()
        for _ in range(2):
            with pytest.raises(BodyClosed):
                next(chunks)
        chunks.close()
        upstream.wait_closed()


def test_one_connection_serves_many_members(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT)) as upstream:
        for _ in range(5):
            source = client.source(trusted(upstream.url()))
            source.probe()
            assert whole(source) == TEXT
            assert read(source.open(9000, None)) == TEXT[9000:]
        assert upstream.connections == 1


def test_closing_lets_idle_connections_go(tally: Tally) -> None:
    client = Upstream(Policy(), tally)
    with ScriptedUpstream(content(TEXT)) as upstream:
        assert whole(client.source(trusted(upstream.url()))) == TEXT
        assert upstream.open_connections == 1
        running = client.source(trusted(upstream.url("/b"))).open(0, None)
        client.close()
        client.close()
        assert read(running) == TEXT
        upstream.wait_closed()


# --- parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "length"), [(0, 1), (0, 9), (1, 1), (17, 4000), (10_239, 1), (5, None)])
def test_a_part_is_asked_for_and_proved(client: Upstream, start: int, length: int | None) -> None:
    with ScriptedUpstream(content(TEXT)) as upstream:
        source = client.source(trusted(upstream.url()))
        source.probe()
        stop = len(TEXT) if length is None else start + length
        assert read(source.open(start, length)) == TEXT[start:stop]
        asked = upstream.requests[-1].headers
        assert (asked["range"], asked["if-range"]) == (f"bytes={start}-{stop - 1}", '"v1"')


def test_no_bytes_are_not_asked_for(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT)) as upstream:
        source = client.source(trusted(upstream.url()), size=len(TEXT))
        assert read(source.open(0, 0)) == read(source.open(10_240, 0)) == b""
        with pytest.raises(SizeMismatch):
            source.open(10_240, 1)
        assert upstream.asked == []


def test_a_given_etag_opens_a_part_without_a_probe(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT)) as upstream:
        source = client.source(trusted(upstream.url()), etag='"v1"')
        assert read(source.open(10_000, None)) == TEXT[10_000:]
        assert read(source.open(10, 20)) == TEXT[10:30]
        assert [r.headers["range"] for r in upstream.requests] == ["bytes=10000-", "bytes=10-29"]
        with pytest.raises(SizeMismatch):
            client.source(trusted(upstream.url()), etag='"v1"').open(10_000, 1000)


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_without_a_strong_validator_a_part_needs_a_given_size(client: Upstream, etag: str | None) -> None:
    with ScriptedUpstream(content(TEXT, etag=etag)) as upstream:
        source = client.source(trusted(upstream.url()))
        source.probe()
        with pytest.raises(MemberChanged):
            source.open(100, 10)
        assert upstream.asked == ["HEAD /"]
        assert read(source.open(0, 10)) == TEXT[:10]  # joins nothing
        given = client.source(trusted(upstream.url()), size=len(TEXT))
        assert read(given.open(100, 10)) == TEXT[100:110]
        assert "if-range" not in upstream.requests[-1].headers


def part(data: bytes, start: int, total: int | str, *lines: str, etag: str | None = '"v1"') -> bytes:
    tag = [f"ETag: {etag}"] if etag else []
    line = f"Content-Range: bytes {start}-{start + len(data) - 1}/{total}"
    return answer(data, line, *tag, *lines, status="206 Partial Content")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (part(TEXT[99:109], 99, 10_240), UpstreamError),
        (part(TEXT[99:110], 99, 10_240), UpstreamError),
        (part(TEXT[100:109], 100, 10_240), UpstreamError),
        (part(TEXT[100:111], 100, 10_240), UpstreamError),
        (part(TEXT[100:110], 100, "*"), UpstreamError),
        (part(TEXT[100:110], 100, 10_241), SizeMismatch),
        (part(TEXT[100:105], 100, 105), SizeMismatch),
        (part(TEXT[100:110], 100, 10_240, etag='"v2"'), MemberChanged),
        (part(TEXT[100:110], 100, 10_240, etag='W/"v1"'), MemberChanged),
        (part(TEXT[100:110], 100, 10_240, etag=None), MemberChanged),
        (part(TEXT[100:110], 100, 10_240, "Content-Encoding: gzip"), UpstreamError),
        (answer(TEXT[100:110], 'ETag: "v1"', status="206 Partial Content"), UpstreamError),
        (
            answer(TEXT[100:109], 'ETag: "v1"', "Content-Range: bytes 100-109/10240", status="206 Partial Content"),
            UpstreamError,
        ),
        (answer(b"", "Content-Range: bytes */50", status="416 Range Not Satisfiable"), SizeMismatch),
        (answer(TEXT, 'ETag: "v2"'), MemberChanged),
        (answer(TEXT), MemberChanged),
        (answer(TEXT[:-1], 'ETag: "v1"'), SizeMismatch),
        (answer(b"x", status="500 Oops"), UpstreamStatus),
    ],
)
@pytest.mark.case(14, 19)
def test_a_part_that_does_not_fit_is_refused(client: Upstream, reply: bytes, error: type[MemberError]) -> None:
    with ScriptedUpstream(in_turn(content(TEXT), raw(reply))) as upstream:
        source = client.source(trusted(upstream.url()))
        source.probe()
        with pytest.raises(error):
            source.open(100, 10)


@pytest.mark.parametrize("chunked", [False, True])
def test_where_there_are_no_ranges_bytes_are_skipped(client: Upstream, chunked: bool) -> None:
    data = TEXT * 100
    with ScriptedUpstream(content(data, ranges=False, chunked=chunked)) as upstream:
        source = client.source(trusted(upstream.url()))
        source.probe()
        assert read(source.open(900_001, 10)) == data[900_001:900_011]
        assert read(source.open(1_000_000, None)) == data[1_000_000:]


def test_skipping_has_a_bound(client: Upstream) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"", 'ETag: "v1"', length=1 << 40))
        if request.method == "GET":
            peer.stall()

    with ScriptedUpstream(script) as upstream:
        source = client.source(trusted(upstream.url()))
        source.probe()
        with pytest.raises(UpstreamError, match="no ranges"):
            source.open(1 << 30, 10)
        upstream.wait_closed(1)


def test_a_skip_is_not_ready_until_it_is_done(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT, ranges=False)) as upstream:
        source = client.source(trusted(upstream.url()), size=len(TEXT))
        chunks = source.open(10_000, 100)
        assert not chunks.ready()
        assert read(chunks) == TEXT[10_000:10_100]


# --- headers -----------------------------------------------------------------------------------------------------


def test_the_request_is_plain(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT)) as upstream:
        whole(client.source(trusted(upstream.url("/a?b=c#d"), headers=(("X-Key", "k\xe9y"), ("x-key", "2")))))
        request = upstream.requests[0]
        assert request.target == "/a?b=c"
        assert request.headers == {
            "host": f"127.0.0.1:{upstream.port}",
            "accept-encoding": "identity",
            "user-agent": "streamware",
            "x-key": "k\xe9y, 2",
        }


def test_a_member_may_name_its_own_user_agent(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT)) as upstream:
        whole(client.source(trusted(upstream.url(), headers=(("user-agent", "mine"), ("Cookie", "a=1")))))
        assert upstream.requests[0].headers["user-agent"] == "mine"
        assert upstream.requests[0].headers["cookie"] == "a=1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nHost: evil"),
        ("X", "a\nb"),
        ("X", "a\0b"),
        ("X", "snow \N{SNOWMAN}"),
        ("X\r\nY", "a"),
        ("", "a"),
        ("X Y", "a"),
        ("Host", "a"),
        ("content-length", "3"),
        ("Content-Type", "text/plain"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("Keep-Alive", "1"),
        ("Proxy-Authorization", "a"),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
        ("Expect", "100-continue"),
        ("Range", "bytes=0-"),
        ("If-Range", '"a"'),
        ("If-None-Match", "*"),
        ("Accept-Encoding", "gzip"),
    ],
)
def test_headers_a_member_may_not_set(client: Upstream, name: str, value: str) -> None:
    with pytest.raises(InvalidTarget):
        client.source(trusted("http://127.0.0.1/", headers=((name, value),)))


@pytest.mark.parametrize(
    "url",
    [
        "/a",
        "//127.0.0.1/a",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http:///a",
        "http://",
        "http://u:p@127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "",
    ],
)
def test_urls_that_cannot_be_asked(client: Upstream, url: str) -> None:
    with pytest.raises(InvalidTarget):
        client.source(trusted(url))
    with pytest.raises(InvalidTarget):
        client.source(trusted("http://127.0.0.1/", url))
    with pytest.raises(InvalidTarget):
        client.forward(url)


def test_an_etag_must_be_one(client: Upstream) -> None:
    for etag in ("v1", '"v1', '"a"\r\nX: y', ""):
        with pytest.raises(InvalidManifest):
            client.source(trusted("http://127.0.0.1/"), etag=etag)


def test_raw_spaces_and_letters_are_escaped(client: Upstream) -> None:
    with ScriptedUpstream(content(TEXT)) as upstream:
        whole(client.source(trusted(upstream.url("/a b/\N{LATIN SMALL LETTER E WITH ACUTE}%20c"))))
        assert upstream.requests[0].target == "/a%20b/%C3%A9%20c"


# --- redirects ---------------------------------------------------------------------------------------------------


@pytest.mark.case(5)
def test_redirects_are_followed_and_bounded(client: Upstream) -> None:
    def script(request: Request, peer: Peer) -> None:
        left = int(request.target[1:])
        if left:
            redirect(str(left - 1), "307 Temporary Redirect")(request, peer)
        else:
            content(TEXT)(request, peer)

    with ScriptedUpstream(script) as upstream:
        source = client.source(trusted(upstream.url("/5")))
        source.probe()
        assert whole(source) == TEXT
        assert upstream.connections == 1
        with pytest.raises(UpstreamError):
            client.source(trusted(upstream.url("/6"))).open(0, None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.case(5)
def test_a_redirect_loop_ends(client: Upstream, status: int) -> None:
    with ScriptedUpstream(redirect("/", f"{status} Round")) as upstream:
        with pytest.raises(UpstreamStatus) as caught:
            client.source(trusted(upstream.url())).open(0, None)
        assert caught.value.upstream_status == status
        assert len(upstream.asked) == Policy().max_redirects_code + 1


def test_a_redirect_to_nowhere_is_a_status(client: Upstream) -> None:
    with ScriptedUpstream(raw(answer(b"", status="302 Found"))) as upstream:
        with pytest.raises(UpstreamStatus) as caught:
            client.source(trusted(upstream.url())).open(0, None)
        assert caught.value.upstream_status == 302


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/a", "file:///a", "http://", "http://u:p@127.0.0.1/", "http://[::1/", "javascript:1"]
)
def test_redirects_that_are_not_followed(client: Upstream, location: str) -> None:
    with (
        ScriptedUpstream({"/": redirect(location)}) as upstream,
        pytest.raises(UpstreamError),
    ):
        client.source(trusted(upstream.url())).open(0, None)


def test_a_location_may_be_raw_utf_8_and_its_fragment_goes(client: Upstream) -> None:
    with ScriptedUpstream({"/": redirect("/\xc3\xa9 x#top"), "/%C3%A9%20x": content(TEXT)}) as upstream:
        assert whole(client.source(trusted(upstream.url()))) == TEXT


@pytest.mark.case(5)
def test_headers_stay_with_the_origin_they_were_given_for(client: Upstream) -> None:
    secret = (("Authorization", "Bearer s"), ("Cookie", "c"), ("X-Key", "k"), ("User-Agent", "mine"))
    with ScriptedUpstream(content(TEXT)) as other:
        routes = {"/": redirect("/again"), "/again": redirect(other.url("/there"))}
        with ScriptedUpstream(routes) as upstream:
            source = client.source(trusted(upstream.url(), headers=secret), size=len(TEXT))
            assert read(source.open(100, 10)) == TEXT[100:110]
            assert upstream.requests[1].headers["authorization"] == "Bearer s"
            assert other.requests[0].headers == {
                "host": f"127.0.0.1:{other.port}",
                "accept-encoding": "identity",
                "user-agent": "streamware",
                "range": "bytes=100-109",
            }


def test_headers_do_not_come_back_with_the_origin(client: Upstream) -> None:
    routes: dict[str, Script] = {}
    with ScriptedUpstream(routes) as upstream, ScriptedUpstream(redirect(upstream.url("/end"))) as other:
        routes.update({"/": redirect(other.url()), "/end": content(TEXT)})
        whole(client.source(trusted(upstream.url(), headers=(("X-Key", "k"),))))
        assert upstream.requests[0].headers["x-key"] == "k"
        assert "x-key" not in upstream.requests[1].headers


def test_untrusted_members_go_only_where_policy_lets_them() -> None:
    with ScriptedUpstream(content(TEXT)) as inner:
        routes = {
            "/ok/a": content(TEXT),
            "/ok/b": redirect("/ok/a"),
            "/ok/out": redirect(inner.url("/secret")),
            "/ok/up": redirect("/private"),
            "/ok/odd": redirect("http://[::1%25lo]/"),
        }
        with ScriptedUpstream(routes) as upstream:
            client = Upstream(Policy(allow=(upstream.url("/ok/"),), max_redirects_manifest=2))
            assert whole(client.source(Url(upstream.url("/ok/b")))) == TEXT
            for path, error in (
                ("/private", NotAllowed),
                ("/ok/out", NotAllowed),
                ("/ok/up", NotAllowed),
                ("/ok/odd", UpstreamError),
            ):
                source = client.source(Url(upstream.url(path)))
                for call in (source.probe, lambda source=source: source.open(0, None)):
                    with pytest.raises(error):
                        call()
            client.close()
            strict = Upstream(Policy(allow=(upstream.url("/ok/"),)))
            with pytest.raises(UpstreamStatus):
                whole(strict.source(Url(upstream.url("/ok/b"))))
            strict.close()
            assert not inner.requests
            assert "/private" not in [request.target for request in upstream.requests]


# --- mirrors -----------------------------------------------------------------------------------------------------


def test_a_mirror_stands_in(client: Upstream, tally: Tally) -> None:
    routes = {"/b": raw(answer(b"x", status="500 No")), "/c": content(TEXT, etag='"other"')}
    with ScriptedUpstream(routes) as upstream:
        dead = f"http://127.0.0.1:{free_port()}/"
        source = client.source(trusted(dead, upstream.url("/b"), upstream.url("/c")))
        assert source.probe().validator == '"other"'
        assert whole(source) == TEXT
        assert read(source.open(77, 3)) == TEXT[77:80]
        assert tally.failures == 6


def test_the_main_url_names_the_error_where_all_fail(client: Upstream) -> None:
    with ScriptedUpstream({"/a": raw(answer(b"x", status="503 No"))}) as upstream:
        source = client.source(trusted(upstream.url("/a?sig=secret"), f"http://127.0.0.1:{free_port()}/"))
        with pytest.raises(UpstreamStatus) as caught:
            source.open(0, None)
        assert caught.value.upstream_status == 503
        assert "refused" in caught.value.detail
        assert "secret" not in caught.value.detail


def test_a_mirror_must_keep_what_was_promised(client: Upstream) -> None:
    with ScriptedUpstream({"/short": content(TEXT[:-1]), "/other": content(TEXT, etag='"v2"')}) as upstream:
        dead = f"http://127.0.0.1:{free_port()}/"
        with pytest.raises(UpstreamUnreachable):
            client.source(trusted(dead, upstream.url("/short")), size=len(TEXT)).open(0, None)
        with pytest.raises(UpstreamUnreachable):
            client.source(trusted(dead, upstream.url("/other")), etag='"v1"').open(0, None)
        assert whole(client.source(trusted(dead, upstream.url("/other")), size=len(TEXT))) == TEXT


def test_a_wrong_version_at_the_main_url_is_made_good_by_a_mirror(client: Upstream) -> None:
    with ScriptedUpstream({"/a": content(TEXT, etag='"v2"'), "/b": content(TEXT)}) as upstream:
        source = client.source(trusted(upstream.url("/a"), upstream.url("/b")), etag='"v1"')
        assert whole(source) == TEXT
        assert read(source.open(5, 5)) == TEXT[5:10]


def test_bytes_of_the_main_url_and_of_a_mirror_are_not_joined_unproved(client: Upstream) -> None:
    gone = raw(answer(b"", status="404 Gone"))
    for etag, joined in (('"v1"', True), ('"v2"', False)):
        routes = {"/a": in_turn(content(TEXT), gone), "/b": content(TEXT, etag=etag)}
        with ScriptedUpstream(routes) as upstream:
            source = client.source(trusted(upstream.url("/a"), upstream.url("/b")))
            assert whole(source) == TEXT  # from /a
            if joined:
                assert read(source.open(500, 5)) == TEXT[500:505]
            else:
                with pytest.raises(UpstreamStatus):
                    source.open(500, 5)


def test_bytes_of_a_mirror_are_gone_on_with_from_the_mirror(client: Upstream) -> None:
    gone = raw(answer(b"", status="404 Gone"))
    routes = {"/a": in_turn(content(TEXT), gone, content(TEXT)), "/b": content(TEXT, etag='"v2"')}
    with ScriptedUpstream(routes) as upstream:
        source = client.source(trusted(upstream.url("/a"), upstream.url("/b")))
        source.probe()
        assert whole(source) == TEXT
        assert read(source.open(500, 5)) == TEXT[500:505]
        assert upstream.asked == ["HEAD /a", "GET /a", "GET /b", "GET /a", "GET /b"]


# --- forwarding --------------------------------------------------------------------------------------------------


def fields(lines: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in lines}


def test_forward_passes_an_answer_on(client: Upstream, tally: Tally) -> None:
    lines = (MODIFIED, "Content-Type: text/plain; charset=utf-8", "Accept-Ranges: bytes", "Cache-Control: max-age=9")
    own = ("Server: x", "Date: Fri, 20 Nov 2026 12:00:00 GMT", "Set-Cookie: a=1", "Strict-Transport-Security: m")
    hops = ("Connection: keep-alive, X-Hop", "Keep-Alive: timeout=5", "X-Hop: 1", "Proxy-Authenticate: b", "Upgrade: h")
    with ScriptedUpstream(content(TEXT, *lines, *own, *hops)) as upstream:
        reply = client.forward(upstream.url())
        assert reply.status == 200
        assert reply.body.length == len(TEXT)
        assert fields(reply.headers) == {
            "content-length": str(len(TEXT)),
            "content-type": "text/plain; charset=utf-8",
            "etag": '"v1"',
            "last-modified": "Fri, 20 Nov 2026 12:00:00 GMT",
            "accept-ranges": "bytes",
            "cache-control": "max-age=9",
        }
        assert read(reply.body) == TEXT
        assert (tally.opened, tally.failures) == (1, 0)
        head = client.forward(upstream.url(), method="HEAD")
        assert head.header("content-length") == str(len(TEXT))
        assert read(head.body) == b""
        assert upstream.asked == ["GET /", "HEAD /"]
        assert upstream.connections == 1


def test_forward_sends_what_the_caller_gives(client: Upstream) -> None:
    given = [
        ("Range", "bytes=10-19"),
        ("If-Range", '"v1"'),
        ("Accept", "text/*"),
        ("accept-language", "et"),
        ("User-Agent", "browser"),
        ("Authorization", "Basic x"),
        ("Connection", "X-Hop, close"),
        ("X-Hop", "1"),
        ("Host", "evil"),
        ("Content-Length", "5"),
        ("Accept-Encoding", "gzip"),
        ("Transfer-Encoding", "chunked"),
    ]
    with ScriptedUpstream(content(TEXT)) as upstream:
        reply = client.forward(upstream.url(), headers=given)
        assert (reply.status, reply.header("Content-Range")) == (206, "bytes 10-19/10240")
        assert reply.body.length == 10
        assert read(reply.body) == TEXT[10:20]
        assert upstream.requests[0].headers == {
            "host": f"127.0.0.1:{upstream.port}",
            "accept-encoding": "identity",
            "range": "bytes=10-19",
            "if-range": '"v1"',
            "accept": "text/*",
            "accept-language": "et",
            "user-agent": "browser",
            "authorization": "Basic x",
        }


def test_forward_keeps_secrets_from_another_origin(client: Upstream) -> None:
    given = [("Range", "bytes=10-19"), ("Authorization", "a"), ("Cookie", "b"), ("X-Api-Key", "c"), ("Accept", "d")]
    with ScriptedUpstream(content(TEXT)) as other, ScriptedUpstream(redirect(other.url())) as upstream:
        assert read(client.forward(upstream.url(), headers=given).body) == TEXT[10:20]
        assert set(other.requests[0].headers) == {"host", "accept-encoding", "user-agent", "range", "accept"}


@pytest.mark.parametrize(
    ("reply", "status", "body", "length"),
    [
        (answer(b"", 'ETag: "v1"', status="304 Not Modified", length=None), 304, b"", 0),
        (answer(b"", 'ETag: "v1"', status="304 Not Modified", length=700), 304, b"", 0),
        (answer(b"", status="204 No Content", length=None), 204, b"", 0),
        (answer(b"<p>lost", status="404 Not Found"), 404, b"<p>lost", 7),
        (answer(b"later", "Retry-After: 5", status="503 Busy"), 503, b"later", 5),
        (answer(b"", "Content-Range: bytes */9", status="416 No"), 416, b"", 0),
        (answer(b"coded", "Content-Encoding: gzip"), 200, b"coded", 5),
        (answer(b"2\r\nab\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=None), 200, b"ab", None),
        (answer(b"till the end", length=None, version="1.0"), 200, b"till the end", None),
        (answer(b"choose", "Location: /a", status="300 Choices"), 300, b"choose", 6),
    ],
)
def test_forward_changes_nothing_of_an_answer(
    client: Upstream, reply: bytes, status: int, body: bytes, length: int | None
) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(reply)
        peer.close()

    with ScriptedUpstream(script) as upstream:
        got = client.forward(upstream.url())
        assert (got.status, got.body.length) == (status, length)
        assert got.header("content-length") == (None if length is None or status in (204, 304) else str(length))
        assert got.header("transfer-encoding") is None
        assert read(got.body) == body
        for line in (b"Retry-After", b"Content-Encoding", b"Content-Range", b"ETag", b"Location"):
            assert (line in reply) == (got.header(line.decode()) is not None)


@pytest.mark.parametrize(
    "reply",
    [
        answer(b"x", length="1, 1"),
        answer(b"x", length="-1"),
        answer(b"x", "Transfer-Encoding: gzip", length=None),
        answer(b"", status="103 Early Hints", length=None),
        b"nonsense\r\n\r\n",
        b"",
    ],
)
def test_forward_refuses_what_can_be_read_in_two_ways(client: Upstream, tally: Tally, reply: bytes) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(reply)
        peer.close()

    with ScriptedUpstream(script) as upstream, pytest.raises(UpstreamError):
        client.forward(upstream.url())
    assert (tally.opened, tally.failures) == (0, 1)


def test_forward_drops_what_cannot_be_a_header(client: Upstream) -> None:
    lines = ("X-Folded: a", "  b", "X-Nul: a\0b", "X/Y: c", "X-Two: 1", "X-Two: 2")
    with ScriptedUpstream(raw(answer(b"", *lines))) as upstream:
        reply = client.forward(upstream.url())
        assert read(reply.body) == b""
        assert [line for line in reply.headers if line[0].startswith("X")] == [
            ("X-Folded", "a b"),
            ("X-Two", "1"),
            ("X-Two", "2"),
        ]


@pytest.mark.parametrize("method", ["POST", "PUT", "get", "OPTIONS", "GET / HTTP/1.1\r\nX"])
def test_forward_knows_two_methods(client: Upstream, method: str) -> None:
    with pytest.raises(RequestError) as caught:
        client.forward("http://127.0.0.1/", method=method)
    assert caught.value.status == 405


def test_forward_refuses_header_injection(client: Upstream) -> None:
    with pytest.raises(InvalidTarget):
        client.forward("http://127.0.0.1/", headers=[("Range", "bytes=0-\r\nX: y")])


def test_forward_breaks_where_the_upstream_does(client: Upstream, tally: Tally) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(TEXT, length=len(TEXT) + 1))
        peer.close()

    with ScriptedUpstream(script) as upstream:
        body = client.forward(upstream.url()).body
        with pytest.raises(UpstreamError):
            read(body)
        assert tally.failures == 1


# --- a real server -----------------------------------------------------------------------------------------------

_NGINX = """
master_process off; daemon off; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; sendfile on; types {{ text/plain txt; }}
    client_body_temp_path {root}/1; proxy_temp_path {root}/2; fastcgi_temp_path {root}/3;
    uwsgi_temp_path {root}/4; scgi_temp_path {root}/5;
    server {{
        listen 127.0.0.1:{port}; root {root}/www;
        gzip on; gzip_min_length 1; gzip_types *;
        location /moved/ {{ return 301 /a.txt; }}
        location /plain/ {{ alias {root}/www/; max_ranges 0; }}
        location /closing/ {{ alias {root}/www/; keepalive_timeout 0; }}
    }}
}}
"""


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[str]:
    program = judge("nginx")
    port = free_port()
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "a.txt").write_bytes(TEXT)
    (tmp_path / "www" / "empty.txt").write_bytes(b"")
    (tmp_path / "www" / "big.txt").write_bytes(TEXT * 2000)
    (tmp_path / "nginx.conf").write_text(_NGINX.format(root=tmp_path, port=port))
    server = subprocess.Popen(
        [program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            assert server.poll() is None, (tmp_path / "error.log").read_text()
            assert time.monotonic() < deadline, "nginx does not listen"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(tmp_path / "www")


@pytest.mark.judge("nginx")
def test_against_nginx(client: Upstream, tally: Tally, nginx: str) -> None:
    for path in ("/a.txt", "/moved/", "/plain/a.txt", "/closing/a.txt"):
        source = client.source(trusted(nginx + path))
        facts = source.probe()
        assert (facts.size, facts.media_type) == (len(TEXT), "text/plain")
        assert facts.validator is not None
        assert facts.modified is not None
        assert whole(source) == TEXT
        assert source.probe(keep=True) == facts
        assert whole(source) == TEXT
        assert read(source.open(10_000, 100)) == TEXT[10_000:10_100]
        source.close()
    big = client.source(trusted(f"{nginx}/big.txt"))
    big.probe(keep=True)
    assert whole(big) == TEXT * 2000
    assert read(big.open(20_000_000, None)) == (TEXT * 2000)[20_000_000:]
    assert whole(client.source(trusted(f"{nginx}/empty.txt"))) == b""
    with pytest.raises(UpstreamStatus):
        client.source(trusted(f"{nginx}/none.txt")).probe()
    reply = client.forward(f"{nginx}/a.txt", headers=[("Range", "bytes=-40")])
    assert (reply.status, read(reply.body)) == (206, TEXT[-40:])
    again = client.forward(f"{nginx}/a.txt", headers=[("If-None-Match", reply.header("ETag") or "")])
    assert (again.status, read(again.body)) == (304, b"")
    assert (tally.failures, tally.retries) == (1, 0)
