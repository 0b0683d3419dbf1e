"""A download that fails looks failed: the status before the head, the broken body after it, the log, on real servers.

The rule of this file: the client is a bare socket, which believes nothing but the bytes.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import falcon
import falcon.asgi
import falcon.testing
import pytest

from streamware import Archiver, Bundle, Member, Policy, StreamwareError
from streamware.errors import (
    MemberChanged,
    MemberError,
    MemberNotFound,
    MemberTooLarge,
    SizeMismatch,
    SourceError,
    UpstreamError,
    UpstreamStatus,
    UpstreamUnreachable,
)
from streamware.model import Chunks
from streamware.pump import Body
from streamware.resources import AsyncBundleResource, AsyncProxyResource, BundleResource, ProxyResource
from tests.faults.failing_apps import TEXT
from tests.faults.upstreams import Peer, Request, ScriptedUpstream, answer, free_port
from tests.hosts.servers import Server, gunicorn, hypercorn, until, uvicorn, waitress, wsgiref_server
from tests.synthetic import Synthetic

SIZE = 600_000  # large enough to be on its way when it fails

# --- every kind of failure, in every format ----------------------------------------------------------------------


class Place(NamedTuple):
    """Where a failure is arranged: the bundle it happens to, a folder, an upstream."""

    bundle: Bundle
    folder: Path
    upstream: ScriptedUpstream

    def file(self) -> Path:
        path = self.folder / "bad.bin"
        path.write_bytes(bytes(SIZE))
        self.bundle.add_file(path, "bad.bin")
        return path

    def stream(self, *pieces: object) -> None:
        def factory() -> Iterator[Any]:
            for piece in pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield piece

        self.bundle.add_stream("bad.bin", factory, size=SIZE)

    def url(self, path: str, **promised: Any) -> None:
        self.bundle.add_url(self.upstream.url(path), "bad.bin", size=SIZE, **promised)


Fault = Callable[[Place], Callable[[], object] | None]  # what it returns is called when the first bytes have come


def _short(place: Place) -> None:
    place.stream(bytes(SIZE - 1))


def _long(place: Place) -> None:
    place.stream(bytes(SIZE), b"x")


def _text(place: Place) -> None:
    place.stream(bytes(1000), "text")


def _raises(place: Place) -> None:
    place.stream(bytes(300_000), ConnectionResetError("gone"))


def _raises_at_once(place: Place) -> None:
    place.bundle.add_stream("bad.bin", _factory_that_fails, size=SIZE)


def _factory_that_fails() -> Iterator[bytes]:
    raise BrokenPipeError("no stream at all")


class Bare(Synthetic):
    """A source of somebody else's, which does not keep to the rules: its errors are not ours."""

    when = "open"

    def open(self, start: int, length: int | None) -> Chunks:
        if self.when == "open":
            raise ConnectionResetError("bare")
        return super().open(start, length)

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        yield bytes(70_000)
        raise TimeoutError("bare")


class BareLater(Bare):
    when = "read"


def _bare(place: Place) -> None:
    place.bundle.add(Member("bad.bin", Bare(SIZE)))


def _bare_later(place: Place) -> None:
    place.bundle.add(Member("bad.bin", BareLater(SIZE)))


def _shrinks(place: Place) -> Callable[[], object]:
    path = place.file()
    return lambda: os.truncate(path, 1000)


def _vanishes(place: Place) -> Callable[[], object]:
    return place.file().unlink


def _is_replaced(place: Place) -> Callable[[], object]:
    path = place.file()
    return lambda: path.write_bytes(bytes(SIZE + 5))


def _becomes_unreadable(place: Place) -> Callable[[], object]:
    path = place.file()

    def loop() -> None:
        path.unlink()
        path.symlink_to(path)

    return loop


def _refused(place: Place) -> None:
    place.bundle.add_url(f"http://127.0.0.1:{free_port()}/", "bad.bin", size=SIZE)


def _garbage(place: Place) -> None:
    place.url("/garbage")


def _missing(place: Place) -> None:
    place.url("/missing")


def _error(place: Place) -> None:
    place.url("/error")


def _reset(place: Place) -> None:
    place.url("/reset")


def _cut(place: Place) -> None:
    place.url("/cut")


def _other_size(place: Place) -> None:
    place.url("/small")


def _other_version(place: Place) -> None:
    place.url("/good", etag='"another"')


# Opening fails after the head is out, or reading does: either way the member is broken off, not left out.
FAULTS: list[Any] = [
    pytest.param(fault, error, id=fault.__name__.strip("_"), marks=pytest.mark.case(number))
    for fault, error, number in [
        (_short, SizeMismatch, 23),
        (_long, SizeMismatch, 23),
        (_text, SourceError, 23),
        (_raises, SourceError, 23),
        (_raises_at_once, SourceError, 23),
        (_bare, SourceError, 23),
        (_bare_later, SourceError, 23),
        (_shrinks, MemberError, 21),
        (_vanishes, MemberNotFound, 21),
        (_is_replaced, MemberChanged, 21),
        (_becomes_unreadable, MemberNotFound, 21),
        (_refused, UpstreamUnreachable, 1),
        (_garbage, UpstreamError, 7),
        (_missing, UpstreamStatus, 4),
        (_error, UpstreamStatus, 4),
        (_reset, MemberError, 17),
        (_cut, MemberError, 17),
        (_other_size, SizeMismatch, 12),
        (_other_version, MemberChanged, 19),
    ]
]


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    def cut(request: Request, peer: Peer) -> None:
        peer.send(answer(bytes(300_000), 'ETag: "1"', length=SIZE))
        peer.close()

    def reset(request: Request, peer: Peer) -> None:
        peer.send(answer(bytes(300_000), 'ETag: "1"', length=SIZE))
        peer.reset()

    def chunked(request: Request, peer: Peer) -> None:
        body = b"" if request.method == "HEAD" else b"5\r\nhello\r\n0\r\n\r\n"
        peer.send(answer(b"", "Transfer-Encoding: chunked", length=None) + body)

    scripts = {
        "/good": lambda request, peer: peer.send(answer(bytes(SIZE), 'ETag: "1"')),
        "/small": lambda request, peer: peer.send(answer(bytes(SIZE - 1), 'ETag: "1"')),
        "/garbage": lambda request, peer: peer.send(b"SSH-2.0-OpenSSH\r\n\r\n"),
        "/chunked": chunked,
        "/error": lambda request, peer: peer.send(answer(b"", status="500 Internal Server Error")),
        "/cut": cut,
        "/reset": reset,
    }
    with ScriptedUpstream(scripts) as server:
        yield server


def broken(body: Body, when_begun: Callable[[], object] | None) -> tuple[bytes, StreamwareError]:
    """What came, and the error it ended with, which comes again however often one asks."""
    got = [next(body)]
    if when_begun is not None:
        when_begun()
    with pytest.raises(StreamwareError) as caught:
        got.extend(body)
    with pytest.raises(StreamwareError) as again:
        next(body)
    body.close()
    assert again.value is caught.value
    assert not isinstance(caught.value, OSError)
    return b"".join(got), caught.value


@pytest.mark.case(26)
@pytest.mark.parametrize("ending", ["zip", "tar"])
@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_a_failing_member_breaks_the_archive_inside_it(
    fault: Fault, error: type[StreamwareError], ending: str, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    bundle = Bundle(f"b.{ending}")
    bundle.add_directory("empty")
    bundle.add_data("first.bin", os.urandom(3_000_000))  # so that the next is opened when the head is long out
    when_begun = fault(Place(bundle, tmp_path, upstream))
    bundle.add_data("last.txt", b"never to be seen")
    archiver = Archiver(Policy(read_timeout_seconds=5, max_tries=1, ahead_members=1))
    body = archiver.open(bundle)
    promised = body.length
    got, caught = broken(body, when_begun)
    archiver.close()
    assert isinstance(caught, error)
    assert (caught.member, caught.index) == ("bad.bin", 2)
    assert promised is not None
    assert 3_000_000 < len(got) < promised
    assert b"bad.bin" in got[3_000_000:]
    assert b"last.txt" not in got
    assert b"PK\1\2" not in got[3_000_000:]
    assert b"PK\5\6" not in got[3_000_000:]
    if ending == "zip":
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(io.BytesIO(got))


@pytest.mark.parametrize("fault", [_bare, _raises_at_once])
def test_a_foreign_error_at_the_first_opening_is_a_problem_too(
    fault: Fault, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """A bare OSError out of the app would be answered with nothing at all by gunicorn."""
    bundle = Bundle("b.zip")
    fault(Place(bundle, tmp_path, upstream))
    reply = Archiver().respond(bundle)
    document = json.loads(b"".join(reply.body))
    assert (reply.status, document["members"]) == (500, [{"index": 0, "name": "bad.bin", "reason": "source-failed"}])


@pytest.mark.case(25)
def test_a_member_of_unknown_size_stops_at_4_gib_and_says_what_would_help() -> None:
    bundle = Bundle("b.zip")
    bundle.add_stream("bad.bin", lambda: iter([bytes(1 << 26)] * 65))
    body = Archiver().open(bundle)
    sent, tail = [0], [b""]

    def take() -> None:
        for piece in body:
            sent[0] += len(piece)
            tail[0] = piece

    with pytest.raises(MemberTooLarge, match="may_exceed_4gib") as caught:
        take()
    body.close()
    assert (caught.value.member, caught.value.index) == ("bad.bin", 0)
    assert (1 << 32) - (1 << 27) < sent[0] < (1 << 32)
    assert b"PK" not in tail[0]


@pytest.mark.case(23)
@pytest.mark.parametrize("on_error", ["skip", "report"])
def test_only_what_has_sent_nothing_and_was_promised_to_nobody_is_left_out(on_error: Any) -> None:
    bundle = Bundle("b.zip", on_error=on_error)
    bundle.add_data("first.txt", b"1")
    bundle.add_stream("unmeasured.txt", lambda: iter([b"2"]))  # so that no length is promised
    bundle.add_stream("never-began.bin", _factory_that_fails, size=SIZE)
    bundle.add_data("last.txt", b"3")
    body = Archiver().open(bundle)
    assert body.length is None
    whole = b"".join(body)
    body.close()
    assert names(whole) == ["first.txt", "unmeasured.txt", "last.txt", *["_errors.txt"] * (on_error == "report")]
    bundle.add_stream("began.bin", _begins, size=SIZE)
    body = Archiver().open(bundle)
    got, caught = broken(body, None)
    assert (caught.member, caught.index) == ("began.bin", 4)
    assert b"began.bin" in got
    assert b"PK\1\2" not in got


def _begins() -> Iterator[bytes]:
    yield bytes(SIZE // 2)
    raise ConnectionResetError("too late to be left out")


# --- Falcon ------------------------------------------------------------------------------------------------------


class _Bundle(BundleResource):
    def make_bundle(self, req: falcon.Request, **params: Any) -> Bundle:
        return _unmeasured()


class _AsyncBundle(AsyncBundleResource):
    async def make_bundle(self, req: falcon.asgi.Request, **params: Any) -> Bundle:
        return _unmeasured()


class _Proxy(ProxyResource):
    def make_url(self, req: falcon.Request, **params: Any) -> str:
        return str(req.get_param("url"))


class _AsyncProxy(AsyncProxyResource):
    async def make_url(self, req: falcon.asgi.Request, **params: Any) -> str:
        return str(req.get_param("url"))


def _unmeasured() -> Bundle:
    bundle = Bundle("b.zip")
    bundle.add_stream("unmeasured.txt", lambda: iter([b"2"]))
    return bundle


@pytest.mark.case(31)
@pytest.mark.parametrize("flavour", ["wsgi", "asgi"])
def test_falcon_resources_refuse_the_same(flavour: str, upstream: ScriptedUpstream) -> None:
    archiver = Archiver()
    app: Any = falcon.App() if flavour == "wsgi" else falcon.asgi.App()
    app.add_route("/bundle", (_Bundle if flavour == "wsgi" else _AsyncBundle)(archiver))
    app.add_route("/proxy", (_Proxy if flavour == "wsgi" else _AsyncProxy)(archiver))
    client = falcon.testing.TestClient(app)
    for path, url in (("/bundle", ""), ("/proxy", upstream.url("/chunked"))):
        for method in ("GET", "HEAD"):
            for version, status in (("1.1", 200), ("1.0", 505)):
                answered = client.simulate_request(method, path, params={"url": url}, http_version=version)
                assert answered.status_code == status, (path, method, version)
    sized = client.simulate_get("/proxy", params={"url": upstream.url("/good")}, http_version="1.0")
    assert (sized.status_code, len(sized.content)) == (200, SIZE)
    archiver.close()


# --- real servers ------------------------------------------------------------------------------------------------

APPS = "tests.faults.failing_apps"
SERVERS = {
    "gunicorn": lambda **more: gunicorn(f"{APPS}:wsgi", **more),
    "waitress": lambda **more: waitress(f"{APPS}:wsgi", **more),
    "uvicorn": lambda **more: uvicorn(f"{APPS}:asgi", **more),
    "hypercorn": lambda **more: hypercorn(f"{APPS}:asgi", **more),
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with SERVERS[request.param]() as running:
        yield running


class Heard(NamedTuple):
    """What came through a bare socket until the server closed it."""

    status: int
    headers: dict[str, str]
    body: bytes


def say(server: Server, path: str, *, version: str = "1.1", method: str = "GET") -> Heard:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(f"{method} {path} HTTP/{version}\r\nHost: a.test\r\nConnection: close\r\n\r\n".encode())
        got = bytearray()
        while piece := _received(sock):
            got += piece
    head, _, body = bytes(got).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Heard(int(first.split()[1]), headers, body)


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionResetError:
        return b""


def names(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return archive.namelist()


@pytest.mark.case(31, 44)
@pytest.mark.parametrize(
    "query", ["path=/a.txt&compress=deflate", "path=/a.txt&path=/unmeasured", "path=/a.txt&name=b.tar.gz"]
)
def test_http_10_gets_no_archive_without_length(server: Server, query: str) -> None:
    heard = say(server, f"/bundle?{query}", version="1.0")
    assert (heard.status, heard.headers["content-type"]) == (505, "application/problem+json")
    assert json.loads(heard.body)["type"] == "urn:streamware:problem:length-unknown"
    assert int(heard.headers["content-length"]) == len(heard.body)
    head = say(server, f"/bundle?{query}", version="1.0", method="HEAD")
    assert (head.status, head.headers["content-length"]) == (505, heard.headers["content-length"])
    newer = say(server, f"/bundle?{query}")
    assert (newer.status, newer.headers["transfer-encoding"]) == (200, "chunked")
    assert newer.body.endswith(b"0\r\n\r\n")


@pytest.mark.case(31)
def test_http_10_gets_what_has_a_length(server: Server) -> None:
    heard = say(server, "/bundle?path=/a.txt&path=/b.txt", version="1.0")
    assert (heard.status, int(heard.headers["content-length"])) == (200, len(heard.body))
    assert names(heard.body) == ["a.txt", "b.txt"]


@pytest.mark.case(17, 24, 26)
def test_a_member_that_breaks_breaks_the_connection_and_leaves_one_record(server: Server) -> None:
    before = server.log().count("aborted after")
    heard = say(server, "/bundle?path=/a.txt&path=/breaks&path=/c.txt&name=one.zip")
    assert heard.status == 200
    assert len(TEXT) < len(heard.body) < int(heard.headers["content-length"])
    assert b"breaks" in heard.body
    assert b"c.txt" not in heard.body
    assert b"PK\1\2" not in heard.body
    chunked = say(server, "/bundle?path=/unmeasured&path=/breaks&path=/c.txt&name=two.zip")
    assert chunked.headers["transfer-encoding"] == "chunked"
    assert not chunked.body.endswith(b"0\r\n\r\n")
    assert b"PK\1\2" not in chunked.body
    until(lambda: server.log().count("aborted after") >= before + 2)
    records = re.findall(
        r"^WARNING streamware request urn:uuid:\S+: bundle '(one|two)\.zip' aborted after \d+ bytes "
        r"in member 1 'breaks': source-failed: .*$",
        server.log(),
        re.MULTILINE,
    )
    assert records == ["one", "two"]


@pytest.mark.case(27)
@pytest.mark.parametrize("rude", [False, True])
@pytest.mark.parametrize("query", ["path=/long&path=/long", "path=/unmeasured&path=/long"])
def test_a_client_that_leaves_is_one_record_and_no_traceback(server: Server, query: str, rude: bool) -> None:
    seen = len(server.log())
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(f"GET /bundle?{query}&name=left.zip HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
        assert sock.recv(1000)
        if rude:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: "bundle 'left.zip' left by its client" in server.log()[seen:])
    assert say(server, "/bundle?path=/a.txt").status == 200  # whatever the server had to say of the other, it has
    log = server.log()[seen:]
    assert log.count("bundle 'left.zip'") == 1
    assert "INFO streamware request urn:uuid:" in log
    assert "Traceback" not in log


@pytest.mark.case(31)
@pytest.mark.parametrize("name", ["gunicorn", "uvicorn"])
def test_an_operator_may_allow_it(name: str) -> None:
    with SERVERS[name](env={"ALLOW_UNFRAMED": "1"}) as server:
        heard = say(server, "/bundle?path=/unmeasured", version="1.0")
        assert heard.status == 200
        if "transfer-encoding" not in heard.headers:  # uvicorn with httptools sends chunks to HTTP/1.0 too
            assert names(heard.body) == ["unmeasured"]


def test_wsgiref_is_warned_of_and_refused() -> None:
    from tests.faults.failing_apps import wsgi

    with wsgiref_server(wsgi) as server:
        heard = say(server, "/bundle?path=/unmeasured")
        assert heard.status == 500
        assert json.loads(heard.body)["type"] == "urn:streamware:problem:length-unknown"
        assert names(say(server, "/bundle?path=/a.txt").body) == ["a.txt"]
