"""Upstreams that fail, lie, stall or attack: what became of the bytes, the error and the connection."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamware.errors import (
    BodyClosed,
    MemberError,
    SizeMismatch,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from streamware.model import Chunks, Url
from streamware.policy import Policy
from streamware.upstreams import Upstream, UpstreamSource
from tests.conftest import judge
from tests.faults.upstreams import Peer, Request, ScriptedUpstream, Tally, answer, asking, content, free_port, read

TEXT = bytes(range(256)) * 4096  # 1 MiB
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def client(tally: Tally) -> Iterator[Upstream]:
    with asking(Policy(read_timeout_seconds=10.0, retry_pause_seconds=0.01), tally) as upstream:
        yield upstream


@pytest.fixture
def hasty(tally: Tally) -> Iterator[Upstream]:
    """For those that wait in vain."""
    with asking(Policy(read_timeout_seconds=0.4, connect_timeout_seconds=0.4), tally) as upstream:
        yield upstream


def source(client: Upstream, url: str, *, size: int | None = None, proved: bool = False) -> UpstreamSource:
    return client.source(Url(url, trusted=True), size=size, proved=proved)


def got_before(chunks: Chunks, error: type[Exception]) -> bytes:
    """The bytes that came before the error."""
    got: list[bytes] = []
    with pytest.raises(error) as caught:
        got.extend(chunks)
    assert not isinstance(caught.value, OSError)  # hosts take a bare one for the client's own leaving
    chunks.close()
    return b"".join(got)


# --- nobody there ------------------------------------------------------------------------------------------------


@pytest.mark.case(1)
def test_a_refused_connection(client: Upstream, tally: Tally) -> None:
    for ask in (lambda s: s.probe(), lambda s: s.probe(keep=True), lambda s: s.open(0, None)):
        with pytest.raises(UpstreamUnreachable):
            ask(source(client, f"http://127.0.0.1:{free_port()}/"))
    assert (tally.opened, tally.failures, tally.retries) == (0, 9, 6)  # three tries each


@pytest.mark.case(2)
def test_a_name_that_does_not_resolve(client: Upstream) -> None:
    name = ".".join(["a" * 60] * 5)  # longer than DNS allows: refused without asking anybody
    with pytest.raises(UpstreamUnreachable):
        source(client, f"http://{name}/").probe()


@pytest.mark.case(1)
def test_a_connection_that_is_never_made(hasty: Upstream) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # the queue of those waiting to be accepted overflows, and nobody accepts
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        started = time.monotonic()
        with pytest.raises(UpstreamTimeout) as caught:
            source(hasty, f"http://127.0.0.1:{full.getsockname()[1]}/").open(0, None)
        assert 0.3 < time.monotonic() - started < 3
        assert caught.value.status == 504


# --- heads -------------------------------------------------------------------------------------------------------


@pytest.mark.case(6)
def test_a_head_that_never_comes(hasty: Upstream, tally: Tally) -> None:
    with ScriptedUpstream(lambda request, peer: peer.stall()) as upstream:
        started = time.monotonic()
        with pytest.raises(UpstreamTimeout):
            source(hasty, upstream.url()).open(0, None)
        assert time.monotonic() - started < 3
        upstream.wait_closed()
        assert len(upstream.asked) == 1
        assert tally.failures == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"<html>HTTP/0.9</html>",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"O" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nnothing\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n: nameless\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Le",
    ],
)
@pytest.mark.case(7)
def test_heads_that_are_none(client: Upstream, reply: bytes) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(reply)
        peer.close()

    with ScriptedUpstream(script) as upstream:
        for ask in (lambda s: s.open(0, None), lambda s: s.probe(), lambda s: s.probe(keep=True)):
            with pytest.raises(UpstreamError):
                ask(source(client, upstream.url()))
        with pytest.raises(UpstreamError):
            client.forward(upstream.url())
        upstream.wait_closed()


@pytest.mark.parametrize("line", ["Content-Length: 5", "Transfer-Encoding: chunked"])
@pytest.mark.case(7)
def test_a_head_cut_between_two_lines(client: Upstream, line: str) -> None:
    """http.client takes that for the end of the head; the body that is missing then tells."""

    def script(request: Request, peer: Peer) -> None:
        peer.send(f"HTTP/1.1 200 OK\r\n{line}\r\n".encode())
        peer.close()

    with ScriptedUpstream(script) as upstream:
        with pytest.raises(UpstreamError):
            read(source(client, upstream.url()).open(0, None))
        with pytest.raises(UpstreamError):
            read(client.forward(upstream.url()).body)


@pytest.mark.case(8)
def test_a_length_beside_chunks_is_not_used_nor_the_connection_again(client: Upstream) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"5\r\nhello\r\n0\r\n\r\n", CHUNKED, length=3))

    with ScriptedUpstream(script) as upstream:
        member = source(client, upstream.url())
        assert member.probe(keep=True).size is None
        assert read(member.open(0, None)) == b"hello"
        assert read(client.forward(upstream.url()).body) == b"hello"
        assert upstream.connections == 2


# --- bodies ------------------------------------------------------------------------------------------------------


@pytest.mark.case(15)
def test_a_body_that_stalls(hasty: Upstream, tally: Tally) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(TEXT[:1000], length=2000))
        peer.stall()

    with ScriptedUpstream(script) as upstream:
        chunks = source(hasty, upstream.url()).open(0, None)
        started = time.monotonic()
        assert got_before(chunks, UpstreamTimeout) == TEXT[:1000]
        assert time.monotonic() - started < 3
        upstream.wait_closed()
        assert tally.failures == 1


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("sent", [0, 1, 999])
@pytest.mark.case(17)
def test_a_body_cut_short_of_its_length(client: Upstream, tally: Tally, reset: bool, sent: int) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(TEXT[:sent], length=1000))
        if reset:
            peer.pause(0.05)
            peer.reset()
        else:
            peer.close()

    with ScriptedUpstream(script) as upstream:
        chunks = source(client, upstream.url()).open(0, None)
        assert TEXT[:sent].startswith(got_before(chunks, UpstreamError))
        with pytest.raises(BodyClosed):
            next(chunks)
        # What has been given is of no proved version; before that, anything will do.
        assert tally.failures == (1 if sent else 5)


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        (b"5\r\nhello\r\n", b"hello"),  # no last chunk
        (b"5\r\nhello", b"hello"),
        (b"5\r\nhel", b"hel"),
        (b"5\r\n", b""),
        (b"", b""),
        (b"5\r\nhello\r\nzz\r\n", b"hello"),
        (b"5\r\nhello\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n" + b"1" * 70_000, b"hello"),
    ],
)
@pytest.mark.case(10, 17)
def test_chunks_that_do_not_end(client: Upstream, body: bytes, whole: bytes) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(body, CHUNKED, length=None))
        peer.close()

    with ScriptedUpstream(script) as upstream:
        assert whole.startswith(got_before(source(client, upstream.url()).open(0, None), UpstreamError))
        assert whole.startswith(got_before(source(client, upstream.url(), size=6).open(0, None), UpstreamError))


def test_chunks_in_tiny_bites(client: Upstream) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.drip(answer(b"3;x=y\r\nabc\r\n02\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n", CHUNKED, length=None), seconds=0.001)

    with ScriptedUpstream(script) as upstream:
        chunks = source(client, upstream.url()).open(0, None)
        got = b""
        deadline = time.monotonic() + 5
        while got != b"abcde" and time.monotonic() < deadline:
            if chunks.ready():
                got += next(chunks)
            else:
                time.sleep(0.001)
        assert got == b"abcde"
        assert next(chunks, None) is None
        chunks.close()


@pytest.mark.case(11, 17)
def test_a_reset_is_no_end(client: Upstream) -> None:
    """Where only the connection's end ends the body, a reset must not look like one, however late it is noticed."""

    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"half", length=None))
        peer.pause(0.05)
        peer.reset()

    with ScriptedUpstream(script) as upstream:
        body = client.forward(upstream.url()).body
        assert next(body) == b"half"
        deadline = time.monotonic() + 5
        while not body.ready():
            assert time.monotonic() < deadline
        with pytest.raises(UpstreamError):
            next(body)
        body.close()


def test_a_reset_right_behind_the_head_is_no_end(client: Upstream, tally: Tally) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"", length=None))
        peer.reset()

    with ScriptedUpstream(script) as upstream:
        for _ in range(20):
            with pytest.raises(UpstreamError):
                read(client.forward(upstream.url()).body)
        assert tally.failures == 20


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [0, 5, 7_900, 8_000, 8_150, 100_000])
@pytest.mark.parametrize("pause", [0.0, 0.03])
@pytest.mark.case(18)
def test_more_than_was_announced_is_never_read_as_the_next_answer(
    client: Upstream, framing: str, size: int, pause: float
) -> None:
    """An upstream's bytes beyond its own Content-Length could pose as the answer for another member."""
    forged = answer(b"forged!" * 20, 'ETag: "f"')
    body = TEXT[:size]
    if framing == "length":
        told = answer(body)
    else:
        chunk = b"%x\r\n%b\r\n" % (size, body) if size else b""
        told = answer(chunk + b"0\r\n\r\n", CHUNKED, length=None)

    def script(request: Request, peer: Peer) -> None:
        if request.target == "/a":
            peer.send(told + (b"" if pause else forged))
            peer.pause(pause)
            if pause:
                peer.send(forged)
        else:
            peer.send(answer(b"genuine"))

    with ScriptedUpstream(script) as upstream:
        for _ in range(2):
            assert read(source(client, upstream.url("/a")).open(0, None)) == body
            time.sleep(2 * pause)
            assert read(source(client, upstream.url("/b")).open(0, None)) == b"genuine"
        assert framing == "chunked" or upstream.connections == 3


@pytest.mark.parametrize("status", ["200 OK", "304 Not Modified", "103 Early Hints"])
def test_bytes_after_an_answer_without_a_body_are_not_the_next_answer(client: Upstream, status: str) -> None:
    def script(request: Request, peer: Peer) -> None:
        if request.target == "/a":
            peer.send(answer(b"", status=status, length=4) + answer(b"forged!"))
        else:
            peer.send(answer(b"genuine"))

    with ScriptedUpstream(script) as upstream:
        with contextlib.suppress(UpstreamError):
            client.forward(upstream.url("/a"), method="HEAD").body.close()
        assert read(client.forward(upstream.url("/b")).body) == b"genuine"
        assert upstream.connections == 2


def test_what_follows_an_interim_answer_is_not_the_next_answer(client: Upstream) -> None:
    def script(request: Request, peer: Peer) -> None:
        if request.target == "/a":
            peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
            peer.pause(0.1)
            peer.send(answer(b"late"))
        else:
            peer.send(answer(b"genuine"))

    with ScriptedUpstream(script) as upstream:
        with pytest.raises(UpstreamError):
            client.forward(upstream.url("/a"))
        assert read(client.forward(upstream.url("/b")).body) == b"genuine"


@pytest.mark.case(18)
def test_a_long_body_is_cut_at_the_promise(client: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    for chunks in ([b"hello world"], [b"hello", b" world"], [b"hel", b"lo w", b"orld"]):
        body = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"

        def script(request: Request, peer: Peer, body: bytes = body) -> None:
            peer.send(answer(body, CHUNKED, length=None))

        with ScriptedUpstream(script) as upstream:
            assert read(source(client, upstream.url(), size=5, proved=True).open(0, None)) == b"hello"
            upstream.wait_closed()
            assert got_before(source(client, upstream.url(), size=5).open(0, None), SizeMismatch) in (b"hello", b"hel")
            upstream.wait_closed()
    assert "more bytes came" in caplog.text


@pytest.mark.case(12)
def test_a_chunked_body_shorter_than_promised(client: Upstream, tally: Tally) -> None:
    with ScriptedUpstream(content(TEXT[:1000], chunked=True)) as upstream:
        chunks = source(client, upstream.url(), size=1001).open(0, None)
        assert got_before(chunks, SizeMismatch) == TEXT[:1000]
        assert tally.failures == 2  # asked for the byte that is missing, the server says that there is none


@pytest.mark.case(19)
def test_a_body_that_changes_between_plan_and_fetch(client: Upstream) -> None:
    versions = iter((content(TEXT), content(TEXT[:-1], etag='"v2"')))

    def script(request: Request, peer: Peer) -> None:
        next(versions)(request, peer)

    with ScriptedUpstream(script) as upstream:
        member = source(client, upstream.url())
        assert member.probe().size == len(TEXT)
        with pytest.raises(MemberError):
            member.open(0, None)


# --- connections that died in the pool ---------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_stale_connection_is_replaced_once(client: Upstream, tally: Tally, reset: bool, method: str) -> None:
    served: set[int] = set()

    def script(request: Request, peer: Peer) -> None:
        if request.connection in served:
            if reset:
                peer.reset()
            else:
                peer.close()
            return
        served.add(request.connection)
        content(TEXT)(request, peer)

    with ScriptedUpstream(script) as upstream:
        assert read(source(client, upstream.url()).open(0, None)) == TEXT
        if method == "HEAD":
            assert source(client, upstream.url()).probe().size == len(TEXT)
        else:
            assert read(source(client, upstream.url()).open(0, None)) == TEXT
        assert upstream.asked == ["GET /", f"{method} /", f"{method} /"]
        assert upstream.requests[1].headers == upstream.requests[2].headers
        assert upstream.connections == 2
        assert (tally.retries, tally.failures) == (1, 0)


def test_a_stale_connection_is_replaced_no_second_time(client: Upstream, tally: Tally) -> None:
    def script(request: Request, peer: Peer) -> None:
        if len(upstream.requests) > 1:
            peer.close()
        else:
            content(TEXT)(request, peer)

    with ScriptedUpstream(script) as upstream:
        assert read(source(client, upstream.url()).open(0, None)) == TEXT
        with pytest.raises(UpstreamError):
            source(client, upstream.url()).open(0, None)
        assert (upstream.connections, len(upstream.requests)) == (4, 5)  # three tries, the first of them replaced
        assert (tally.retries, tally.failures) == (3, 3)


def test_a_replaced_connection_has_the_usual_patience(tally: Tally) -> None:
    served: set[int] = set()

    def script(request: Request, peer: Peer) -> None:
        if request.connection in served:
            peer.close()
            return
        served.add(request.connection)
        peer.pause(0.4)
        content(TEXT)(request, peer)

    client = Upstream(Policy(connect_timeout_seconds=0.2, read_timeout_seconds=5.0), tally)
    with ScriptedUpstream(script) as upstream:
        for _ in range(2):
            assert read(source(client, upstream.url()).open(0, None)) == TEXT
        assert tally.retries == 1
    client.close()


def test_a_new_connection_that_dies_is_not_replaced_at_once(client: Upstream, tally: Tally) -> None:
    with ScriptedUpstream(lambda request, peer: peer.close()) as upstream:
        with pytest.raises(UpstreamError):
            client.forward(upstream.url())
        assert (upstream.connections, tally.retries) == (1, 0)
        with pytest.raises(UpstreamError):
            source(client, upstream.url()).open(0, None)
        assert (upstream.connections, tally.retries) == (4, 2)


def test_a_stale_connection_to_a_server_that_is_gone(client: Upstream, tally: Tally) -> None:
    stop = threading.Event()

    def script(request: Request, peer: Peer) -> None:
        if stop.is_set():
            upstream._listener.close()
            peer.close()
        else:
            content(TEXT)(request, peer)

    with ScriptedUpstream(script) as upstream:
        assert read(source(client, upstream.url()).open(0, None)) == TEXT
        stop.set()
        upstream._listener.shutdown(socket.SHUT_RDWR)
        with pytest.raises(UpstreamUnreachable):
            source(client, upstream.url()).open(0, None)
        assert tally.retries == 3


def test_an_idle_connection_that_was_closed_is_simply_not_used(client: Upstream, tally: Tally) -> None:
    def script(request: Request, peer: Peer) -> None:
        content(TEXT)(request, peer)
        peer.close()

    with ScriptedUpstream(script) as upstream:
        for _ in range(3):
            assert read(source(client, upstream.url()).open(0, None)) == TEXT
            upstream.wait_closed()
            time.sleep(0.02)
        assert (upstream.connections, tally.retries) == (3, 0)


# --- ends from this side -----------------------------------------------------------------------------------------


def aborted_while_blocked(chunks: Chunks) -> None:
    """Abort from another thread while ``next()`` waits: it must end at once, as an ended body."""
    entered = threading.Event()
    ended: list[float] = []

    def abort() -> None:
        assert entered.wait(5)
        time.sleep(0.1)
        ended.append(time.monotonic())
        chunks.abort()

    helper = threading.Thread(target=abort)
    helper.start()
    assert next(chunks) == b"some"
    entered.set()
    with pytest.raises(BodyClosed):
        next(chunks)
    assert time.monotonic() - ended[0] < 5  # the read timeout is 30
    helper.join(5)
    chunks.close()


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_abort_ends_a_blocked_read(tally: Tally, framing: str) -> None:
    def script(request: Request, peer: Peer) -> None:
        if framing == "chunked":
            peer.send(answer(b"4\r\nsome\r\n", CHUNKED, length=None))
        else:
            peer.send(answer(b"some", length=1000 if framing == "length" else None))
        peer.stall()

    client = Upstream(Policy(), tally)
    with ScriptedUpstream(script) as upstream:
        aborted_while_blocked(client.forward(upstream.url()).body)
        upstream.wait_closed()
        assert tally.failures == 0
    client.close()


@pytest.mark.case(27)
def test_downloads_that_are_given_up_leave_nothing_behind(client: Upstream) -> None:
    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(TEXT[:9], length=1 << 40))
        peer.stall()

    with ScriptedUpstream(script) as upstream:
        threads, before = threading.active_count(), descriptors()
        for turn in range(60):
            chunks = source(client, upstream.url()).open(0, None)
            if turn % 3:
                next(chunks)
            if turn % 2:
                chunks.abort()
            chunks.close()
        upstream.wait_closed()
        assert threading.active_count() - threads <= 1  # the last of the upstream's own may still be ending
        assert descriptors() == before


def test_ready_works_beyond_descriptor_1023(client: Upstream) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2048)), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            stack.enter_context(open(os.devnull, "rb"))

        def script(request: Request, peer: Peer) -> None:
            peer.send(answer(b"x" * 100, length=20_000))
            peer.stall()

        with ScriptedUpstream(script) as upstream:
            chunks = source(client, upstream.url()).open(0, None)
            assert chunks.ready()
            assert next(chunks) == b"x" * 100
            assert not chunks.ready()
            chunks.close()


def test_many_threads_share_one_client(client: Upstream) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                member = source(client, upstream.url())
                start = (number * 977 + turn * 7919) % len(TEXT)
                member.probe()
                assert read(member.open(start, 100 if start + 100 <= len(TEXT) else None)) == TEXT[start : start + 100]
        except BaseException as error:
            errors.append(error)

    with ScriptedUpstream(content(TEXT)) as upstream:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not errors
        assert upstream.connections <= 8


# --- TLS ---------------------------------------------------------------------------------------------------------

_CA = """
[ca]
default_ca = d
[d]
database = {0}/index
new_certs_dir = {0}
default_md = sha256
rand_serial = yes
unique_subject = no
policy = p
[p]
commonName = supplied
[e]
subjectAltName = DNS:localhost
basicConstraints = CA:TRUE
"""


def certificate(directory: Path, name: str, start: str, end: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that is its own authority, and a server's context with it."""
    openssl = judge("openssl")
    config, key, request, cert = (directory / f"{name}.{kind}" for kind in ("cnf", "key", "csr", "pem"))
    (directory / "index").write_text("")
    config.write_text(_CA.format(directory))

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], check=True, capture_output=True, timeout=30)

    run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
    run("req", "-new", "-key", str(key), "-subj", "/CN=localhost", "-out", str(request))
    run(
        *("ca", "-config", str(config), "-selfsign", "-keyfile", str(key), "-in", str(request), "-out", str(cert)),
        *("-startdate", start, "-enddate", end, "-extensions", "e", "-batch", "-notext"),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


@pytest.fixture(scope="session")
def valid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return certificate(tmp_path_factory.mktemp("valid"), "valid", "20200101000000Z", "21200101000000Z")


@pytest.fixture
def trusting(valid: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The client trusts this server's certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(valid[0]))
    return valid[1]


@pytest.mark.judge("openssl")
def test_tls_works(client: Upstream, trusting: ssl.SSLContext) -> None:
    with ScriptedUpstream(content(TEXT), tls=trusting) as upstream:
        member = source(client, upstream.url(host="localhost"))
        assert member.probe(keep=True).size == len(TEXT)
        assert read(member.open(0, None)) == TEXT
        assert read(member.open(1000, 10)) == TEXT[1000:1010]
        assert upstream.connections == 1


@pytest.mark.judge("openssl")
@pytest.mark.case(3)
def test_tls_with_another_name(client: Upstream, trusting: ssl.SSLContext) -> None:
    with ScriptedUpstream(content(TEXT), tls=trusting) as upstream:
        with pytest.raises(UpstreamUnreachable):
            source(client, upstream.url(host="127.0.0.1")).open(0, None)
        assert not upstream.requests


@pytest.mark.judge("openssl")
@pytest.mark.case(3)
def test_tls_with_an_unknown_authority(client: Upstream, valid: tuple[Path, ssl.SSLContext]) -> None:
    with ScriptedUpstream(content(TEXT), tls=valid[1]) as upstream:
        with pytest.raises(UpstreamUnreachable):
            source(client, upstream.url(host="localhost")).probe()
        assert not upstream.requests
        assert upstream.connections == 1  # neither repeated nor tried in the clear


@pytest.mark.judge("openssl")
@pytest.mark.case(3)
def test_tls_that_has_expired(client: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, context = certificate(tmp_path, "old", "20200101000000Z", "20200102000000Z")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    with ScriptedUpstream(content(TEXT), tls=context) as upstream:
        with pytest.raises(UpstreamUnreachable, match="expired"):
            source(client, upstream.url(host="localhost")).probe()
        assert not upstream.requests


@pytest.mark.case(3)
def test_tls_to_a_server_that_speaks_none(client: Upstream) -> None:
    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock, _ = server.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        with pytest.raises(UpstreamUnreachable):
            source(client, f"https://127.0.0.1:{server.getsockname()[1]}/").open(0, None)
        thread.join(5)


@pytest.mark.judge("openssl")
@pytest.mark.case(5)
def test_a_redirect_out_of_tls_is_refused(client: Upstream, trusting: ssl.SSLContext) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"", f"Location: {clear.url()}", status="302 Found"))

    with ScriptedUpstream(content(TEXT)) as clear, ScriptedUpstream(script, tls=trusting) as upstream:
        for ask in (lambda s: s.open(0, None), lambda s: s.probe()):
            with pytest.raises(UpstreamError, match="https to http"):
                ask(source(client, upstream.url(host="localhost")))
        with pytest.raises(UpstreamError):
            client.forward(upstream.url(host="localhost"))
        assert not clear.requests


@pytest.mark.judge("openssl")
def test_a_redirect_into_tls_is_followed_without_the_headers(client: Upstream, trusting: ssl.SSLContext) -> None:
    with ScriptedUpstream(content(TEXT), tls=trusting) as secure:

        def script(request: Request, peer: Peer) -> None:
            peer.send(answer(b"", f"Location: {secure.url(host='localhost')}", status="302 Found"))

        with ScriptedUpstream(script) as upstream:
            url = Url(upstream.url(host="localhost"), (), (("X-Key", "k"),), trusted=True)
            assert read(client.source(url).open(0, None)) == TEXT
            assert "x-key" not in secure.requests[0].headers


@pytest.mark.judge("openssl")
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_abort_ends_a_blocked_read_over_tls(tally: Tally, trusting: ssl.SSLContext, framing: str) -> None:
    def script(request: Request, peer: Peer) -> None:
        if framing == "chunked":
            peer.send(answer(b"4\r\nsome\r\n", CHUNKED, length=None))
        else:
            peer.send(answer(b"some", length=1000 if framing == "length" else None))
        peer.stall()

    client = Upstream(Policy(), tally)
    with ScriptedUpstream(script, tls=trusting) as upstream:
        aborted_while_blocked(client.forward(upstream.url(host="localhost")).body)
        upstream.wait_closed()
        assert tally.failures == 0
    client.close()


@pytest.mark.judge("openssl")
def test_ready_sees_what_tls_holds_back(trusting: ssl.SSLContext) -> None:
    """A TLS record is decrypted whole: what was not asked for is in no socket any more."""

    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"", length=1_000_000))
        peer.pause(0.05)
        peer.send(TEXT[:16_000])
        peer.stall()

    client = Upstream(Policy(chunk_bytes=4000))
    with ScriptedUpstream(script, tls=trusting) as upstream:
        chunks = source(client, upstream.url(host="localhost")).open(0, None)
        got = next(chunks)
        while len(got) < 16_000:
            assert chunks.ready()
            got += next(chunks)
        assert got == TEXT[:16_000]
        assert not chunks.ready()
        chunks.close()
        upstream.wait_closed()
    client.close()


@pytest.mark.judge("openssl")
@pytest.mark.parametrize("reset", [False, True])
def test_a_stale_tls_connection_is_replaced_once(
    client: Upstream, tally: Tally, trusting: ssl.SSLContext, reset: bool
) -> None:
    served: set[int] = set()

    def script(request: Request, peer: Peer) -> None:
        if request.connection in served:
            if reset:
                peer.reset()
            else:
                peer.close()
            return
        served.add(request.connection)
        content(TEXT)(request, peer)

    with ScriptedUpstream(script, tls=trusting) as upstream:
        for _ in range(2):
            assert read(source(client, upstream.url(host="localhost")).open(0, None)) == TEXT
        assert (upstream.connections, tally.retries, tally.failures) == (2, 1, 0)


@pytest.mark.judge("openssl")
def test_a_tls_body_cut_short(client: Upstream, trusting: ssl.SSLContext) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(TEXT[:100], length=1000))
        peer.close()

    with ScriptedUpstream(script, tls=trusting) as upstream:
        chunks = source(client, upstream.url(host="localhost")).open(0, None)
        assert got_before(chunks, UpstreamError) == TEXT[:100]


# --- the same in front of a mirror -------------------------------------------------------------------------------


def test_a_fault_before_the_first_byte_is_made_good_by_a_mirror(hasty: Upstream, tally: Tally) -> None:
    def script(request: Request, peer: Peer) -> None:
        if request.target == "/good":
            content(TEXT)(request, peer)
        elif request.target == "/stall":
            peer.stall()
        elif request.target == "/status":
            peer.send(answer(b"", status="500 Oops"))
        else:
            peer.send(b"noise\r\n\r\n")
            peer.close()

    with ScriptedUpstream(script) as upstream:
        for fault in ("/stall", "/status", "/noise"):
            member = hasty.source(Url(upstream.url(fault), (upstream.url("/good"),), trusted=True))
            assert read(member.open(0, None)) == TEXT
        assert (tally.opened, tally.failures) == (3, 3)
        member = hasty.source(Url(upstream.url("/status"), (upstream.url("/noise"),), trusted=True))
        with pytest.raises(UpstreamStatus):
            member.open(0, None)
