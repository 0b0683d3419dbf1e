"""What is over a limit is refused at once, before anybody else is asked, or broken off where it shows; and the table of
limits in the documents is that of the code.

This module is also the apps that the servers here run.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import re
import tempfile
import threading
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from streamware import Archiver, Bundle, Conditions, Member, Policy
from streamware.edge_replies import answer
from streamware.edge_subrequests import AsgiSubrequests
from streamware.errors import InvalidName, LimitExceeded, Overloaded, StreamwareError, TooManyDownloads, TooSlow
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware
from streamware.model import Path as InnerPath
from streamware.model import Url
from streamware.reply import Reply
from streamware.service import Subrequest
from streamware.sources.subrequest import SubrequestSource
from tests.faults.upstreams import Peer, Request, ScriptedUpstream, content
from tests.hosts.inner_site import FILES, asgi_site, wsgi_site
from tests.hosts.servers import Broken, Response, until, uvicorn, wsgiref_server
from tests.synthetic import Synthetic

ROOT = Path(__file__).resolve().parents[2]
JSON = {"Content-Type": "application/json"}
SOON = 3.0  # seconds; what is refused at once takes milliseconds, and what waits for a thread or an upstream waits 20


def manifest(*members: dict[str, Any], name: str = "x.zip") -> bytes:
    return json.dumps({"name": name, "members": members}).encode()


def kind(response: Response) -> str:
    problem = json.loads(response.body)
    assert response.header("content-type") == "application/problem+json"
    assert problem["status"] == response.status
    return str(problem["type"]).removeprefix("urn:streamware:problem:")


def pinned(name: str = "b.zip") -> Bundle:
    bundle = Bundle(name)
    bundle.add(Member("a.bin", Synthetic(300_000, 2, crc_known=True)))
    return bundle


# --- places: the apps ----------------------------------------------------------------------------------------------


def narrow() -> Archiver:
    """One download at a time, and one thread for all of them."""
    policy = Policy(
        allow=(os.environ.get("UPSTREAM", "http://127.0.0.1:9/"),),
        max_bundles=1,
        pump_threads=1,
        overload_retry_seconds=7,
        read_timeout_seconds=20,
    )
    return Archiver(policy)


def served() -> Any:
    """``streamware serve`` as it is, but for its policy."""
    from streamware.server.app import make_app
    from streamware.server.metrics import Metrics

    root = tempfile.mkdtemp()
    Path(root, "a.txt").write_bytes(b"a")
    return make_app(os.path.realpath(root), narrow(), Metrics())


def falcon_app() -> Any:
    import falcon.asgi

    from streamware.resources import AsyncBundleResource

    class Downloads(AsyncBundleResource):
        async def make_bundle(self, req: Any, *args: Any, **params: Any) -> Bundle:
            bundle = Bundle("f.zip")
            bundle.add_url(f"{os.environ['UPSTREAM']}{params['name']}")
            return bundle

    app = falcon.asgi.App()
    app.add_route("/{name}", Downloads(narrow()))
    return app


if "UPSTREAM" in os.environ:  # in a server's process
    application = AsyncBundleMiddleware(asgi_site, archiver=narrow())
    stand_alone = served()
    falcon_asgi = falcon_app()


class Slow:
    """An upstream that answers ``/slow`` once it is let go, and ``/half`` by half until then."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.upstream = ScriptedUpstream({"/slow": self._late, "/half": self._half, "/f": content(b"f" * 10)})

    def _late(self, request: Request, peer: Peer) -> None:
        self._wait(peer)
        content(b"slow" * 10)(request, peer)

    def _half(self, request: Request, peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(100_000))
        self._wait(peer)
        peer.send(bytes(100_000))

    def _wait(self, peer: Peer) -> None:
        for _ in range(1000):
            if self.go.is_set():
                return
            peer.pause(0.01)


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    with slow.upstream:
        yield slow
        slow.go.set()


class Beginning:
    """A request in a thread of its own."""

    def __init__(self, ask: Callable[[], Response]) -> None:
        self.result: Response | Exception | None = None

        def run() -> None:
            try:
                self.result = ask()
            except Exception as error:
                self.result = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def end(self) -> Response:
        self.thread.join(20)
        assert isinstance(self.result, Response), self.result
        return self.result


def timely(ask: Callable[[], Response]) -> Response:
    began = time.monotonic()
    response = ask()
    assert time.monotonic() - began < SOON
    return response


# --- places: full --------------------------------------------------------------------------------------------------


@pytest.mark.case(29)
def test_a_full_server_says_so_at_once_and_is_still_healthy(slow: Slow) -> None:
    """Its one download waits for an upstream's head, and holds the one thread meanwhile."""
    with uvicorn(f"{__name__}:stand_alone", env={"UPSTREAM": slow.upstream.url("/")}) as server:
        body = manifest({"name": "slow", "url": slow.upstream.url("/slow")})
        first = Beginning(lambda: server.request("POST", "/bundle", JSON, body))
        until(lambda: slow.upstream.requests)
        for method, path, sent in (
            ("POST", "/bundle", manifest({"name": "f", "url": slow.upstream.url("/f")})),
            ("GET", "/bundle?path=/a.txt", None),
            ("POST", "/bundle/links", manifest({"name": "f", "url": slow.upstream.url("/f")})),
        ):
            refused = timely(lambda: server.request(method, path, JSON if sent else {}, sent or b""))  # noqa: B023
            assert (refused.status, kind(refused)) == (503, "overloaded")
            assert refused.header("retry-after") == "7"
        for path in ("/healthz", "/metrics"):
            assert timely(lambda: server.get(path)).status == 200  # noqa: B023
        assert slow.upstream.asked == ["GET /slow"]
        slow.go.set()
        assert first.end().status == 200
        until(lambda: server.get("/bundle?path=/tree/a.txt").status == 200)  # its place is free a moment after its end


@pytest.mark.case(29)
@pytest.mark.parametrize("app", ["application", "falcon_asgi"])
def test_a_full_event_loop_refuses_without_a_thread(slow: Slow, app: str) -> None:
    """The body of its one download has begun, and its thread waits for the rest."""
    with uvicorn(f"{__name__}:{app}", env={"UPSTREAM": slow.upstream.url("/")}) as server:
        half = "/half" if app == "falcon_asgi" else "/bundle"
        body = manifest({"name": "half", "url": slow.upstream.url("/half")})
        ask = (lambda: server.get(half)) if app == "falcon_asgi" else lambda: server.request("POST", half, JSON, body)
        first = Beginning(ask)
        until(lambda: slow.upstream.requests)
        refused = timely(lambda: server.get("/f" if app == "falcon_asgi" else "/bundle?path=/a.txt"))
        assert (refused.status, kind(refused), refused.header("retry-after")) == (503, "overloaded", "7")
        if app == "application":
            assert timely(lambda: server.get("/a.txt")).body == FILES["/a.txt"]
        assert [line for line in slow.upstream.asked if line.endswith("/f")] == []
        slow.go.set()
        assert first.end().status == 200


@pytest.mark.case(29)
def test_a_full_wsgi_server_and_a_client_that_leaves(slow: Slow) -> None:
    archiver = Archiver(Policy(allow=(slow.upstream.url("/"),), max_bundles=1, overload_retry_seconds=3))
    with wsgiref_server(BundleMiddleware(wsgi_site, archiver=archiver)) as server:
        connection = server.connect()
        connection.request("POST", "/bundle", manifest({"name": "h", "url": slow.upstream.url("/half")}), JSON)
        response = connection.getresponse()
        assert response.status == 200
        refused = timely(lambda: server.get("/bundle?path=/a.txt"))
        assert (refused.status, kind(refused), refused.header("retry-after")) == (503, "overloaded", "3")
        assert server.request("POST", "/bundle", JSON, b"{").status == 400  # nobody's place is needed for that
        assert server.get("/a.txt").body == FILES["/a.txt"]
        connection.close()
        response.close()
        slow.go.set()  # under WSGI a client's leaving is noticed at the next piece
        until(lambda: archiver.admission.active == 0)
        assert server.get("/bundle?path=/a.txt").status == 200
        until(lambda: archiver.admission.active == 0)


def test_a_client_has_its_own_bound() -> None:
    archiver = Archiver(Policy(max_bundles_per_client=1, overload_retry_seconds=9))
    first = archiver.respond(pinned(), Conditions(client="10.0.0.1"))
    refused = archiver.respond(pinned(), Conditions(client="10.0.0.1"))
    assert (refused.status, refused.header("Retry-After")) == (429, "9")
    assert json.loads(b"".join(refused.body))["type"].endswith(":too-many-downloads")
    other = archiver.respond(pinned(), Conditions(client="10.0.0.2"))
    assert other.status == 200
    body = archiver.open(pinned())  # code is no client
    for each in (first.body, other.body, body):
        each.close()
    assert archiver.respond(pinned(), Conditions(client="10.0.0.1")).status == 200


def test_code_is_told_by_an_exception() -> None:
    archiver = Archiver(Policy(max_bundles=1))
    body = archiver.open(pinned())
    with pytest.raises(Overloaded):
        archiver.open(pinned())
    body.close()
    archiver.open(pinned()).close()


# --- places: given back --------------------------------------------------------------------------------------------


def _read(reply: Reply) -> None:
    assert b"".join(reply.body)
    # at the end of the body, without close(): so do hosts that stop at Content-Length


def _close(reply: Reply) -> None:
    reply.body.close()
    reply.body.close()


def _leave(reply: Reply) -> None:
    next(reply.body)
    reply.body.abort()
    reply.body.abort()
    reply.body.close()


def _forget(reply: Reply) -> None:
    next(reply.body)


ETAG = Archiver().respond(pinned()).header("ETag") or ""


@pytest.mark.parametrize("end", [_read, _close, _leave, _forget], ids=lambda end: end.__name__.strip("_"))
def test_a_place_is_given_back_however_the_body_ends(end: Callable[[Reply], None]) -> None:
    archiver = Archiver(Policy(max_bundles=1))
    for _ in range(3):
        reply = archiver.respond(pinned())
        assert reply.status == 200
        assert archiver.admission.active == 1
        assert archiver.respond(pinned()).status == 503
        end(reply)
        del reply
        gc.collect()
        assert archiver.admission.active == 0


def test_a_place_is_given_back_where_the_body_fails() -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(100_000)
        raise RuntimeError("the disk is on fire")

    archiver = Archiver(Policy(max_bundles=1))
    bundle = Bundle("b.zip")
    bundle.add_stream("a", broken)
    body = archiver.open(bundle)
    with pytest.raises(StreamwareError):
        b"".join(body)
    assert archiver.admission.active == 0


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        (Conditions("HEAD"), 200),
        (Conditions(if_none_match=ETAG), 304),
        (Conditions(if_match='"other"'), 412),
        (Conditions(range="bytes=999999999-"), 416),
    ],
)
def test_an_answer_without_an_archive_keeps_no_place(conditions: Conditions, status: int) -> None:
    archiver = Archiver(Policy(max_bundles=1))
    replies = [archiver.respond(pinned(), conditions) for _ in range(3)]
    assert [reply.status for reply in replies] == [status] * 3
    assert archiver.admission.active == 0


def test_a_refused_bundle_keeps_no_place() -> None:
    archiver = Archiver(Policy(max_bundles=1))
    missing, empty, foreign = Bundle(), Bundle(), Bundle()
    missing.add_file("/nowhere/at/all")
    foreign.add(Member("x", Url("http://127.0.0.1:9/")))
    refused = [missing, empty, foreign]  # kept, so that the garbage collector has no part in it
    assert [archiver.respond(bundle).status for bundle in refused] == [404, 400, 403]
    assert archiver.admission.active == 0
    for bundle in refused:
        with pytest.raises(StreamwareError):
            archiver.open(bundle)
    assert archiver.admission.active == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/bundle", 405),
        ("GET", "/bundle/links", 405),
        ("POST", "/bundle/links/x", 405),
        ("GET", "/bundle/links/x", 404),
        ("GET", "/bundle", 400),
        ("POST", "/bundle", 400),
        ("POST", "/bundle/links", 400),
        ("GET", "/bundle?path=/missing", 404),
        ("HEAD", "/bundle?path=/a.txt", 200),
        ("GET", "/bundle?path=/a.txt", 200),
        ("GET", "/list?body=nonsense", 500),
        ("GET", "/list", 200),
    ],
)
def test_whatever_is_asked_leaves_all_places_free(method: str, path: str, status: int) -> None:
    archiver = Archiver(Policy(max_bundles=1))
    with wsgiref_server(BundleMiddleware(wsgi_site, archiver=archiver)) as server:
        for _ in range(2):
            assert server.request(method, path, body=b"").status == status
            until(lambda: archiver.admission.active == 0)
    archiver = Archiver(Policy(max_bundles=1))
    app = AsyncBundleMiddleware(asgi_site, archiver=archiver)
    for _ in range(2):
        assert asyncio.run(_ask(app, path, method)).status == status
        assert archiver.admission.active == 0


async def _ask(app: Any, path: str, method: str = "GET") -> Response:
    target, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": target,
        "raw_path": target.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"example.test")],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
    }
    asked, forever = False, asyncio.Event()
    status, sent = 0, bytearray()

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await forever.wait()
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        sent.extend(message.get("body", b""))

    await asyncio.wait_for(app(scope, receive, send), 20)
    return Response(status, [], bytes(sent))


# --- bundles inside of bundles -------------------------------------------------------------------------------------


@pytest.mark.case(24)
@pytest.mark.parametrize(("places", "status"), [(1, 502), (2, 200)])
def test_a_bundle_inside_of_a_bundle_takes_a_place_of_its_own(places: int, status: int) -> None:
    """And waits for none: with too few the outer one fails, and nothing stands still."""
    archiver = Archiver(Policy(max_bundles=places))

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        reply = archiver.respond(pinned("inner.zip"))
        start_response(f"{reply.status} x", list(reply.headers))
        return reply.body

    with wsgiref_server(BundleMiddleware(app, archiver=archiver)) as server:
        response = timely(lambda: server.get("/bundle?path=/inner.zip"))
        assert response.status == status
        if status == 200:
            with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
                assert archive.testzip() is None
        else:
            assert json.loads(response.body)["members"] == [
                {"index": 0, "name": "inner.zip", "reason": "upstream-status", "status": 503}
            ]
        until(lambda: archiver.admission.active == 0)


class Mirrors:
    """An app whose every page is a bundle of the next, ``/4`` of ``/3`` and so on to ``/0``; ``/loop`` of itself."""

    def __init__(self, depth: int) -> None:
        self.archiver = Archiver(Policy(max_subrequest_depth=depth, read_timeout_seconds=10))
        self.asked = 0

    def _bundle(self, path: str) -> Bundle:
        self.asked += 1
        bundle = Bundle("mirror.zip")
        inner = "/loop" if path == "/loop" else f"/{int(path[1:]) - 1}"
        bundle.add(Member("inner", InnerPath(inner)))
        return bundle

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/0":
            start_response("200 OK", [("Content-Length", "3")])
            return [b"end"]

        def open_path(href: str, facts: Any) -> SubrequestSource:
            most = self.archiver.policy.max_subrequest_depth
            return SubrequestSource(self.wsgi, environ, href, pinned=facts, max_depth=most)

        reply = self.archiver.respond(self._bundle(path), subrequest=open_path)
        start_response(f"{reply.status} x", list(reply.headers))
        return reply.body

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/0":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
            await send({"type": "http.response.body", "body": b"end"})
            return
        bundle = self._bundle(scope["path"])
        open_path: Subrequest = AsgiSubrequests(self.asgi, scope, self.archiver)

        def make(ticket: Any = None) -> Reply:
            return self.archiver.respond(bundle, subrequest=open_path, ticket=ticket)

        await answer(self.archiver, make, scope["method"], receive, send, client="")

    def ask(self, path: str, flavour: str) -> Response:
        if flavour == "asgi":
            return asyncio.run(_ask(self.asgi, path))
        with wsgiref_server(self.wsgi) as server:
            return server.get(path)


@pytest.mark.case(24)
@pytest.mark.parametrize("flavour", ["wsgi", "asgi"])
def test_bundles_stand_inside_of_bundles_so_deep_and_no_deeper(flavour: str) -> None:
    mirrors = Mirrors(3)
    assert mirrors.ask("/3", flavour).status == 200
    refused = mirrors.ask("/4", flavour)
    assert (refused.status, json.loads(refused.body)["type"]) == (508, "urn:streamware:problem:loop-detected")
    until(lambda: mirrors.archiver.admission.active == 0)


@pytest.mark.case(24)
@pytest.mark.parametrize("flavour", ["wsgi", "asgi"])
def test_a_page_that_bundles_itself_ends(flavour: str) -> None:
    mirrors = Mirrors(3)
    assert timely(lambda: mirrors.ask("/loop", flavour)).status == 508
    assert mirrors.asked < 30  # each of three levels asks the next by HEAD and, as that has no length, by GET
    until(lambda: mirrors.archiver.admission.active == 0)


@pytest.mark.case(24)
def test_a_list_that_names_its_own_url_ends_when_all_places_are_taken() -> None:
    """Where the operator allows the server's own address. Over HTTP nobody sees how deep it is; the places bound it."""
    address: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        body = f"- 5 {address[0]}/list again".encode()
        start_response("200 OK", [("X-Archive-Files", "zip"), ("Content-Length", str(len(body)))])
        return [body]

    archivers: list[Archiver] = []

    def outer(environ: dict[str, Any], start_response: Any) -> Any:
        return BundleMiddleware(app, archiver=archivers[0])(environ, start_response)

    with wsgiref_server(outer) as server:
        address.append(f"http://127.0.0.1:{server.port}")
        archivers.append(Archiver(Policy(allow=(address[0],), max_bundles=5, max_tries=1)))
        try:
            response = timely(lambda: server.get("/list"))
        except Broken:
            pass
        else:
            assert response.status in (502, 503)
        until(lambda: archivers[0].admission.active == 0)


# --- bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.case(33)
def test_declared_bytes_are_added_up_before_anybody_is_asked() -> None:
    with ScriptedUpstream(content(b"x" * 100)) as upstream:
        archiver = Archiver(Policy(allow=(upstream.url("/"),), max_bundle_bytes=250))
        members = [{"name": f"{i}", "url": upstream.url(f"/{i}"), "size": 100} for i in range(2)]
        unknown = {"name": "u", "url": upstream.url("/u")}
        with wsgiref_server(BundleMiddleware(wsgi_site, archiver=archiver)) as server:
            for path in ("/bundle", "/bundle/links"):
                for last in ({"name": "t", "text": "x" * 51}, {**members[0], "name": "2", "size": 51}):
                    body = manifest(*members, unknown, last)
                    refused = server.request("POST", path, JSON, body)
                    assert (refused.status, kind(refused)) == (413, "limit-exceeded")
            assert upstream.requests == []
            body = manifest(*members, {"name": "t", "text": "x" * 50})
            assert server.request("POST", "/bundle", JSON, body).status == 200


@pytest.mark.case(33)
@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_bytes_are_added_up_again_when_sizes_are_known(name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(60))
    with ScriptedUpstream(content(b"x" * 100)) as upstream:
        for limit, status in ((160, 200), (159, 413)):
            archiver = Archiver(Policy(max_bundle_bytes=limit))
            bundle = Bundle(name)
            bundle.add_url(upstream.url("/a"))
            bundle.add_tree(tmp_path)
            reply = archiver.respond(bundle)
            assert reply.status == status
            b"".join(reply.body)
            reply.body.close()
            assert archiver.admission.active == 0
            archiver.close()
        upstream.wait_closed()


def endless(size: int = 50_000) -> Iterator[bytes]:
    while True:
        yield bytes(size)


@pytest.mark.case(33)
@pytest.mark.parametrize("compress", ["stored", "deflate"])
def test_bytes_of_unknown_members_are_counted_as_they_pass(compress: Any) -> None:
    archiver = Archiver(Policy(max_bundle_bytes=1_000_000))
    bundle = Bundle("x.zip", compress=compress)
    bundle.add_data("first", bytes(200_000))
    bundle.add_stream("second", lambda: iter([bytes(300_000)]))
    bundle.add_stream("third", lambda: iter([bytes(499_999), b"x"]))
    with zipfile.ZipFile(io.BytesIO(b"".join(archiver.open(bundle)))) as archive:
        assert archive.testzip() is None
    bundle.add_stream("fourth", lambda: iter([b"y"]))
    body, pieces = archiver.open(bundle), []
    with pytest.raises(LimitExceeded) as broken:
        pieces.extend(body)
    assert broken.value.member == "fourth"
    got = b"".join(pieces)
    assert b"fourth" in got  # inside of that member
    assert b"PK\x05\x06" not in got
    with pytest.raises(LimitExceeded):
        next(body)


@pytest.mark.case(33)
def test_an_endless_member_is_cut_off_where_it_shows() -> None:
    archiver = Archiver(Policy(max_bundle_bytes=3_000_000))

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        bundle = Bundle("x.zip")
        bundle.add_stream("endless", endless)
        reply = archiver.respond(bundle)
        # wsgiref knows no chunks: a length that is never reached shows the same as a last chunk that never comes
        start_response("200 OK", [*reply.headers, ("Content-Length", str(1 << 40))])
        return reply.body

    with wsgiref_server(app) as server:
        with pytest.raises(Broken) as broken:
            server.get("/")
        assert 2_000_000 < len(broken.value.body) < 3_100_000
        until(lambda: archiver.admission.active == 0)


# --- time ----------------------------------------------------------------------------------------------------------


def test_a_download_may_take_so_long_and_no_longer() -> None:
    archiver = Archiver(Policy(max_bundle_seconds=0.3))
    for name in ("x.zip", "x.tar"):
        bundle = Bundle(name)
        bundle.add_stream("endless", endless, size=1 << 40)
        body = archiver.open(bundle)
        began = time.monotonic()
        with pytest.raises(TooSlow) as broken:
            deque(body, 1)
        assert 0.3 <= time.monotonic() - began < SOON
        assert (broken.value.kind, broken.value.member) == ("too-slow", "endless")
        assert body.bytes_out > 100_000
        assert archiver.admission.active == 0


def test_the_time_begins_with_the_first_byte() -> None:
    archiver = Archiver(Policy(max_bundle_seconds=0.2))
    body = archiver.open(pinned())
    time.sleep(0.3)
    assert len(b"".join(body)) == body.length


def test_a_download_in_time_is_left_alone() -> None:
    archiver = Archiver(Policy(max_bundle_seconds=60, max_bundle_bytes=300_000))
    body = archiver.open(pinned())
    assert len(b"".join(body)) == body.length


def test_a_download_that_takes_too_long_breaks_the_connection() -> None:
    """On ASGI, and the client reads all the while."""
    archiver = Archiver(Policy(max_bundle_seconds=0.3))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bundle = Bundle("x.zip")
        bundle.add_stream("endless", endless)
        await answer(archiver, lambda: archiver.respond(bundle), scope["method"], receive, send)

    with pytest.raises(TooSlow):
        asyncio.run(_ask(app, "/"))
    assert archiver.admission.active == 0


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.case(36)
@pytest.mark.parametrize("format", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("names", ["clean", "strict"])
@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a/b/c/d", True),
        ("a/b/c/d/", True),
        ("a/b/c/d/e", False),
        ("a/b/c/d/e/", False),
        ("é" * 50, True),
        ("é" * 50 + "x", False),
        ("d" * 99 + "/", True),
        ("d" * 100 + "/", False),
    ],
)
def test_the_depth_and_length_of_names_are_bounded_in_code_too(format: Any, names: Any, name: str, fits: bool) -> None:
    archiver = Archiver(Policy(max_path_depth=4, max_name_bytes=100))
    bundle = Bundle(f"x.{format}", names=names)
    bundle.add_data("first", b"")
    bundle.add(Member(name, None) if name.endswith("/") else Member(name, Synthetic(5)))
    reply = archiver.respond(bundle)
    assert reply.status == (200 if fits else 400)
    data = b"".join(reply.body)
    if not fits:
        problem = json.loads(data)
        assert problem["type"].endswith(":invalid-name")
        assert problem["members"][0]["index"] == 1


def test_depth_counts_after_the_rewrite() -> None:
    archiver = Archiver(Policy(max_path_depth=2))
    bundle = Bundle("x.zip")
    bundle.add_data("//a/.././/b", b"")
    with zipfile.ZipFile(io.BytesIO(b"".join(archiver.open(bundle)))) as archive:
        assert archive.namelist() == ["a/b"]


@pytest.mark.case(36)
@pytest.mark.parametrize("format", ["zip", "tar"])
def test_no_policy_makes_a_name_longer_than_two_bytes_can_count(format: str) -> None:
    archiver = Archiver(Policy(max_path_depth=10_000, max_name_bytes=1_000_000))
    part = "x" * 250
    for count, fits in ((261, True), (262, False)):
        bundle = Bundle(f"x.{format}")
        bundle.add_data("/".join([part] * count), b"")
        if fits:
            archiver.open(bundle).close()
        else:
            with pytest.raises(InvalidName):
                archiver.open(bundle)


# --- the table -----------------------------------------------------------------------------------------------------


def test_the_documents_name_every_limit_with_its_default() -> None:
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE))
    there = {field.name: getattr(Policy(), field.name) for field in fields(Policy) if field.init}
    assert list(told) == list(there)
    for name, value in there.items():
        assert eval(told[name], {}) == value, name  # an expression such as 16 * 1024


def test_each_kind_of_refusal_is_in_the_documents() -> None:
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    for error in (LimitExceeded, Overloaded, TooManyDownloads, TooSlow):
        assert f"`{error.kind}`" in text
