"""Manifests that try to make this server connect where its operator did not mean: refused, and nobody is contacted.

The canary listens on loopback addresses only; 127.0.0.2 stands for a public one where a policy allows it. Names ending
in ".test" are resolved by a table, which stands for DNS; everything else really is resolved.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import socket
import ssl
import statistics
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from streamware import Archiver, Bundle, Policy
from streamware.errors import (
    NotAllowed,
    UpstreamBusy,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from streamware.middleware import BundleMiddleware
from streamware.model import Member, Url
from streamware.upstreams import Upstream
from tests.conftest import judge
from tests.faults.upstreams import Peer, Request, Script, ScriptedUpstream, answer, content, free_port
from tests.hosts.serve_process import Served

TEXT = bytes(range(256)) * 40


class Canary:
    """Listens on three loopback addresses at one port, and knows whether anybody came."""

    def __init__(self) -> None:
        for _ in range(50):
            self._listeners = [socket.create_server(("127.0.0.1", 0))]
            self.port: int = self._listeners[0].getsockname()[1]
            try:
                self._listeners.append(socket.create_server(("127.0.0.2", self.port)))
                self._listeners.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
            except OSError:
                self.close()
            else:
                break
        for listener in self._listeners:
            listener.setblocking(False)

    @property
    def visits(self) -> int:
        """Connections so far: the kernel completes them before anybody accepts."""
        found = 0
        for listener in self._listeners:
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
                    found += 1
        return found

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    canary = Canary()
    yield canary
    assert canary.visits == 0
    canary.close()


class Names:
    """DNS for ".test": the answers to each lookup in turn, the last of them for ever after."""

    def __init__(self) -> None:
        self._real = socket.getaddrinfo
        self._answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def __setitem__(self, name: str, answers: list[list[str]]) -> None:
        self._answers[name] = answers

    def __call__(self, host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        if not name.endswith(".test"):
            return self._real(host, port, *rest, **options)
        answers = self._answers.get(name)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [self._entry(address, port) for address in found]

    @staticmethod
    def _entry(address: str, port: int) -> Any:
        if ":" in address:
            return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0)
        return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


@contextlib.contextmanager
def upstream_of(policy: Policy) -> Iterator[Upstream]:
    upstream = Upstream(policy)
    yield upstream
    upstream.close()
    gc.collect()  # an unclosed socket warns, and warnings are errors


def read(client: Upstream, url: str, **options: Any) -> bytes:
    chunks = client.source(Url(url, **options)).open(0, None)
    try:
        return b"".join(chunks)
    finally:
        chunks.close()


def no_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [])
    return [b""]


def post(app: Any, *members: dict[str, Any], **fields: Any) -> tuple[int, bytes]:
    """POST a manifest to a bundling app; status and body."""
    data = json.dumps({"name": "x.zip", "members": members, **fields}).encode()
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ.update(REQUEST_METHOD="POST", PATH_INFO="/bundle", CONTENT_TYPE="application/json")
    environ.update({"CONTENT_LENGTH": str(len(data)), "wsgi.input": io.BytesIO(data)})
    started: list[str] = []
    body = app(environ, lambda status, headers, exc_info=None: started.append(status))
    try:
        return int(started[0][:3]) if started else 0, b"".join(body)
    finally:
        body.close()


def told(body: bytes) -> dict[str, Any]:
    """A problem, without the number of the request."""
    problem: dict[str, Any] = json.loads(body)
    del problem["instance"]
    return problem


# --- by the text of the URL --------------------------------------------------------------------------------------

# Each leads, or is read by some program to lead, to the canary or a place like it. "@" stands for the canary's port.
LOOPBACK_HOSTS = [
    *("127.0.0.1:@", "127.0.0.2:@", "[::1]:@", "localhost:@", "LOCALHOST:@", "LocalHost:@", "localhost.:@"),
    *("a.localhost:@", "127.0.0.1.:@", "127.1:@", "127.0.1:@", "127.0.2:@", "0:@", "0.0.0.0:@", "0.0:@", "[::]:@"),
    *("2130706433:@", "2130706434:@", "0x7f000001:@", "0X7F000001:@", "0x7f.0.0.1:@", "0x7f.1:@", "127.0x1:@"),
    *("017700000001:@", "0177.0.0.1:@", "0177.0.0.01:@", "0177.1:@", "00000177.0.0.1:@", "127.0.0.01:@"),
    *("0x7f.0.0.01:@", "127.0x0.00.1:@", "[0:0:0:0:0:0:0:1]:@", "[0000::1]:@", "[::0001]:@", "[0::1]:@"),
    *("[::ffff:127.0.0.1]:@", "[::ffff:7f00:1]:@", "[::FFFF:127.0.0.1]:@", "[0:0:0:0:0:ffff:7f00:1]:@"),
    *("[::127.0.0.1]:@", "[::7f00:1]:@", "[::ffff:0:7f00:1]:@", "[64:ff9b::127.0.0.1]:@", "[64:ff9b::7f00:1]:@"),
    *("[64:ff9b:1::7f00:1]:@", "[2002:7f00:1::]:@", "[2002:7f00:0001::1]:@", "[2001:0:7f00:1::]:@"),
    *("[::1%lo]:@", "[::1%25lo]:@", "[::1%1]:@", "[fe80::1%25lo]:@", "[fe80::1]:@", "[::1%2525lo]:@"),
    *("169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "[::ffff:a9fe:a9fe]"),
    *("[fd00:ec2::254]", "100.100.100.200", "metadata.google.internal", "[64:ff9b::a9fe:a9fe]", "168.63.129.16"),
    *("10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "[fc00::1]", "255.255.255.255", "224.0.0.1", "[ff02::1]"),
    # several hosts, and which of them it is depends on who reads it
    *("files.test@127.0.0.1:@", "files.test:80@127.0.0.1:@", "127.0.0.1:@@files.test", "a:b@127.0.0.1:@"),
    *("files.test%40127.0.0.1:@", "@127.0.0.1:@", ":@127.0.0.1:@", "files.test:8080@127.0.0.1:@"),
    *("127.0.0.1:@\\@files.test:8080", "files.test:8080\\@127.0.0.1:@", "127.0.0.1:@\\.files.test:8080"),
    *("127.0.0.1:@#@files.test:8080", "127.0.0.1:@?@files.test:8080", "127.0.0.1:@;@files.test:8080"),
    *("127.0.0.1:@%23@files.test:8080", "files.test:8080#@127.0.0.1:@", "127.0.0.1:@%2f@files.test:8080"),
    *("127.0.0.1:@%00.files.test:8080", "127.0.0.1:@ .files.test:8080", "127.0.0.1:@\t.files.test:8080"),
    *("files.test:8080:@", "files.test:8080,127.0.0.1:@", "127.0.0.1:@.files.test:8080", "127.0.0.1%20:@"),
    *("[127.0.0.1]:@", "[::1]files.test:@", "files.test[::1]:@", "[::1].files.test:@", "127.0.0.1:00@"),
    *("127.0.0.1.files.test:@", "files.test.:8080", "sub.files.test:8080", "files.testx:8080", "files.test:8081"),
    # digits and dots of other scripts, which IDNA takes for ours
    *("\uff11\uff12\uff17.\uff10.\uff10.\uff11:@", "127\u30020\u30020\u30021:@", "\u2460\u2461\u2466.0.0.1:@"),
    *("\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3:@", "\uff4c\uff4fcalhost:@", "127.0.0.1\u00ad:@"),
    *("f\u0131les.test:8080", "xn--les-hza27a.test:8080", "files\u3002test:8080", "\u202e1.0.0.721:@"),
]
URLS = [
    *(f"http://{host}/files/a" for host in LOOPBACK_HOSTS),
    *(f"https://{host}/files/a" for host in ("127.0.0.1:@", "files.test:8080", "[::1]:@")),
    *("//127.0.0.1:@/files/a", "///127.0.0.1:@/files/a", "http:127.0.0.1:@/files/a", "http:/127.0.0.1:@/files/a"),
    *("http:///127.0.0.1:@/files/a", "http:\\\\127.0.0.1:@\\files\\a", "/\\127.0.0.1:@/files/a", "127.0.0.1:@/files/a"),
    *("http://127.0.0.1:@", "http://", "http:", "", "http://:@/files/a", "http://[/files/a", "http://]/files/a"),
    *(
        "ftp://127.0.0.1:@/files/a",
        "file:///etc/hostname",
        "file://127.0.0.1/etc/hostname",
        "gopher://127.0.0.1:@/_GET",
    ),
    *("dict://127.0.0.1:@/d", "unix:///run/x", "http+unix://%2Frun%2Fx/a", "data:,x", "jar:http://127.0.0.1:@!/"),
    *("ldap://127.0.0.1:@/", "tftp://127.0.0.1:@/x", "netdoc:///etc/hostname", "javascript:1", "ws://127.0.0.1:@/"),
    *("h\ntttp://127.0.0.1:@/", " http://127.0.0.1:@/", "\x00http://127.0.0.1:@/", "http://127.0.0.1:@/\r\nHost: a"),
    *("url:http://127.0.0.1:@/", "http://files.test:8080/files/../a", "http://files.test:8080/files/%2e%2e/a"),
    *("http://files.test:8080//127.0.0.1:@/", "http://files.test:8080/files", "HTTP://FILES.TEST:8080/FILES/a"),
    *("http://unknown.test/files/a", "http://unknown.test:8080/files/a"),
]


def manifest_urls(port: int) -> list[str]:
    return [url.replace("@@", "\0@").replace(":@", f":{port}").replace("\0@", f"{port}@") for url in URLS]


@pytest.fixture
def walled(names: Names) -> Iterator[Any]:
    """A middleware that allows one prefix, whose name nobody knows."""
    archiver = Archiver(policy=Policy(allow="http://files.test:8080/files/"))
    yield BundleMiddleware(no_app, path="/bundle", archiver=archiver)
    archiver.close()


@pytest.mark.case(39)
@pytest.mark.parametrize("number", range(len(URLS)), ids=[url.encode("unicode_escape").decode() for url in URLS])
def test_a_url_that_no_prefix_covers(number: int, walled: Any, names: Names, canary: Canary) -> None:
    url = manifest_urls(canary.port)[number]
    for member in ({"url": url}, {"url": "http://files.test:8080/files/a", "mirrors": [url]}, {"url": url, "size": 5}):
        status, body = post(walled, {"name": "a", **member})
        assert status in (400, 403), body
        problem = told(body)
        if status == 403:
            assert problem == {
                "type": "urn:streamware:problem:not-allowed",
                "title": "This server is not allowed to fetch a member's URL.",
                "status": 403,
                "members": [{"index": 0, "name": "a", "reason": "not-allowed"}],
            }
        assert "127" not in problem.get("detail", "")
    assert names.asked == []
    assert canary.visits == 0


@pytest.mark.case(5, 39)
@pytest.mark.parametrize("number", range(len(URLS)), ids=[url.encode("unicode_escape").decode() for url in URLS])
def test_a_redirect_to_it(number: int, names: Names, canary: Canary) -> None:
    location = manifest_urls(canary.port)[number].encode().decode("latin-1").replace("\r", "").replace("\n", "")
    names["files.test"] = [["127.0.0.1"]]

    def script(request: Request, peer: Peer) -> None:
        if request.target == "/files/start":
            peer.send(answer(b"", f"Location: {location}", status="302 Found"))
        else:  # what was refused as a member's URL can be harmless relative to this one
            peer.send(answer(b"", status="404 Not Found"))

    with ScriptedUpstream(script) as upstream:
        policy = Policy(
            allow=upstream.url("/files/", host="files.test"), allow_networks="127.0.0.1", max_redirects_manifest=5
        )
        with upstream_of(policy) as client, pytest.raises((NotAllowed, UpstreamError)):
            read(client, upstream.url("/files/start", host="files.test"))
        assert set(names.asked) == {"files.test"}
        assert all(target.startswith(("GET /files/", "GET http")) for target in upstream.asked), upstream.asked
    assert canary.visits == 0


@pytest.mark.case(5)
def test_manifests_follow_no_redirect_unless_told_to(names: Names, canary: Canary) -> None:
    names["files.test"] = [["127.0.0.1"]]

    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"", "Location: /files/other", status="302 Found"))

    with ScriptedUpstream(script) as upstream:
        prefix = upstream.url("/files/", host="files.test")
        with upstream_of(Policy(allow=prefix, allow_networks="127.0.0.1")) as client:
            with pytest.raises(UpstreamStatus):
                read(client, prefix + "a")
            assert upstream.asked == ["GET /files/a"]
            with pytest.raises(UpstreamStatus):
                client.source(Url(prefix + "a")).probe()
            assert upstream.asked == ["GET /files/a", "HEAD /files/a", "GET /files/a"]


@pytest.mark.case(5, 39)
def test_every_hop_is_judged_by_its_address_too(names: Names, canary: Canary) -> None:
    """Both names are allowed, and the second leads elsewhere than it may. Its secrets stay with the first."""
    names["files.test"] = [["127.0.0.1"]]
    names["more.test"] = [["127.0.0.2"], ["127.0.0.1"]]
    routes: dict[str, Script] = {"/there": content(TEXT)}
    with ScriptedUpstream(routes) as upstream:
        there = upstream.url("/there", host="more.test")
        routes["/"] = lambda request, peer: peer.send(answer(b"", f"Location: {there}", status="302 Found"))
        start = upstream.url("/", host="files.test")
        policy = Policy(
            allow=(start, upstream.url("/", host="more.test")), allow_networks="127.0.0.1", max_redirects_manifest=1
        )
        with upstream_of(policy) as client:
            with pytest.raises(NotAllowed, match=r"more\.test leads to 127\.0\.0\.2"):
                read(client, start)
            secrets = (("Authorization", "Bearer s"), ("Cookie", "c=1"), ("X-Key", "k"))
            assert read(client, start, headers=secrets) == TEXT
            assert upstream.requests[-2].headers["x-key"] == "k"
            assert upstream.requests[-1].headers == {
                "host": f"more.test:{upstream.port}",
                "accept-encoding": "identity",
                "user-agent": "streamware",
            }


# --- by the address ----------------------------------------------------------------------------------------------

BAD_ADDRESSES = [
    *("127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "::ffff:127.0.0.2", "::127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "::ffff:0:7f00:1", "fe80::1%lo"),
    *("10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "fc00::1", "fd12:3456::1", "169.254.169.254"),
    *("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "224.0.0.1", "255.255.255.255", "ff02::1", "fec0::1"),
    *("192.0.2.1", "198.18.0.1", "203.0.113.1", "2001:db8::1", "240.0.0.1", "100::1", "192.88.99.1"),
]


@pytest.mark.case(39)
@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_an_allowed_name_that_leads_elsewhere(address: str, names: Names, canary: Canary) -> None:
    names["files.test"] = [[address]]
    prefix = f"http://files.test:{canary.port}/files/"
    archiver = Archiver(policy=Policy(allow=prefix))
    app = BundleMiddleware(no_app, path="/bundle", archiver=archiver)
    elsewhere = post(app, {"name": "a", "url": "http://unknown.test/files/a"})
    for fields in ({}, {"size": 5}, {"size": 5, "crc32": "00000000"}, {"mirrors": [prefix + "b"]}):
        for on_error in ("abort", "skip", "report"):
            status, body = post(app, {"name": "a", "url": prefix + "a", **fields}, on_error=on_error)
            assert (status, told(body)) == (elsewhere[0], told(elsewhere[1])), fields
    assert status == 403
    assert set(names.asked) == {"files.test"}
    archiver.close()
    assert canary.visits == 0


@pytest.mark.case(39)
@pytest.mark.parametrize("addresses", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "::1"]])
def test_one_bad_answer_among_good_ones_refuses_all(addresses: list[str], names: Names, canary: Canary) -> None:
    names["files.test"] = [addresses]
    prefix = f"http://files.test:{canary.port}/"
    with upstream_of(Policy(allow=prefix, allow_networks="127.0.0.2")) as client, pytest.raises(NotAllowed):
        read(client, prefix + "a")
    assert names.asked == ["files.test"]
    assert canary.visits == 0


@pytest.mark.case(39)
def test_a_name_that_turns_private_between_lookups(names: Names) -> None:
    """Rebinding: what was checked is what is dialled, and the next connection is checked anew."""
    names["files.test"] = [["127.0.0.2"], ["127.0.0.1"]]

    def once(request: Request, peer: Peer) -> None:
        content(TEXT)(request, peer)
        peer.close()

    with (
        ScriptedUpstream(once, bind="127.0.0.2") as upstream,
        socket.create_server(("127.0.0.1", upstream.port)) as trap,
    ):
        prefix = upstream.url("/", host="files.test")
        with upstream_of(Policy(allow=prefix, allow_networks="127.0.0.2")) as client:
            assert read(client, prefix + "a") == TEXT
            assert names.asked == ["files.test"]  # resolved once, not once to check and once to connect
            with pytest.raises(NotAllowed):
                read(client, prefix + "a")
            assert names.asked == ["files.test", "files.test"]
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()


@pytest.mark.case(39)
def test_a_request_that_is_sent_again_is_judged_again(names: Names, canary: Canary) -> None:
    """A pooled connection that dies under a request is made anew for it."""
    names["files.test"] = [["127.0.0.2"], ["127.0.0.1"]]

    def script(request: Request, peer: Peer) -> None:
        if request.target == "/b":
            peer.close()
        else:
            content(TEXT)(request, peer)

    with ScriptedUpstream(script, bind="127.0.0.2") as upstream:
        prefix = upstream.url("/", host="files.test")
        with upstream_of(Policy(allow=prefix, allow_networks="127.0.0.2")) as client:
            assert read(client, prefix + "a") == TEXT
            with pytest.raises(NotAllowed):
                read(client, prefix + "b")
            assert upstream.asked == ["GET /a", "GET /b"]
            assert upstream.connections == 1


@pytest.mark.case(39)
def test_connections_of_trusted_urls_serve_no_manifest(names: Names) -> None:
    names["files.test"] = [["127.0.0.1"]]
    with ScriptedUpstream(content(TEXT)) as upstream:
        url = upstream.url("/a", host="files.test")
        with upstream_of(Policy(allow=url)) as client:
            assert read(client, url, trusted=True) == TEXT
            with pytest.raises(NotAllowed):
                read(client, url)
            client.forward(url).body.close()
            with pytest.raises(NotAllowed):
                client.source(Url(url)).probe()
            assert read(client, url, trusted=True) == TEXT
            assert upstream.asked == ["GET /a"] * 3


def test_prefixes_with_one_host_lead_to_the_same_places(names: Names) -> None:
    names["files.test"] = [["127.0.0.1"]]
    with ScriptedUpstream(content(TEXT)) as upstream:
        policy = Policy(
            allow=(upstream.url("/a/"), upstream.url("/b/"), upstream.url("/c/", host="localhost")),
            allow_networks="10.0.0.0/8",
        )
        with upstream_of(policy) as client:
            assert read(client, upstream.url("/a/x")) == read(client, upstream.url("/b/x")) == TEXT
            assert read(client, upstream.url("/c/x", host="localhost")) == TEXT
            assert upstream.connections == 2


@pytest.mark.case(1, 2)
def test_failures_to_connect_are_what_they_always_were(names: Names) -> None:
    port = free_port()
    allow = [f"http://{host}:{port}/" for host in ("127.0.0.1", "unknown.test", "files.test", f"{'x' * 64}.test")]
    names["files.test"] = [["127.0.0.2", "127.0.0.1"]]
    with upstream_of(Policy(allow=allow, allow_networks=("127.0.0.0/8",))) as client:
        for prefix in allow:
            with pytest.raises(UpstreamUnreachable):
                client.source(Url(prefix)).probe()


def test_addresses_are_tried_in_turn(names: Names) -> None:
    names["files.test"] = [["::1", "127.0.0.2", "127.0.0.1"]]
    with ScriptedUpstream(content(TEXT)) as upstream:
        prefix = upstream.url("/", host="files.test")
        with upstream_of(Policy(allow=prefix, allow_networks=("127.0.0.0/8", "::1"))) as client:
            assert read(client, prefix) == TEXT
            assert upstream.requests[0].headers["host"] == f"files.test:{upstream.port}"


@contextlib.contextmanager
def silent(address: str) -> Iterator[int]:
    """A port where connections are neither accepted nor refused: its queue is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server((address, 0), backlog=0))
        place = server.getsockname()
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(place)
        probe = stack.enter_context(socket.socket())
        probe.settimeout(0.2)
        try:
            probe.connect(place)
        except TimeoutError:
            pass
        else:
            pytest.skip("this system's queue of connections does not fill up")
        yield place[1]


@pytest.mark.case(2)
def test_all_addresses_together_have_the_time_of_one_connection(names: Names) -> None:
    names["files.test"] = [["127.0.0.2", "127.0.0.2", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]]
    with silent("127.0.0.2") as port:
        prefix = f"http://files.test:{port}/"
        policy = Policy(allow=prefix, allow_networks="127.0.0.0/8", connect_timeout_seconds=0.6)
        with upstream_of(policy) as client:
            started = time.monotonic()
            with pytest.raises(UpstreamTimeout):
                read(client, prefix)
            assert 0.5 < time.monotonic() - started < 1.5
            # A dead address leaves time for the next one.
            with socket.create_server(("127.0.0.1", port)) as server:
                thread = threading.Thread(target=_serve_once, args=(server,))
                thread.start()
                assert read(client, prefix) == b"hello"
                thread.join(10)


def _serve_once(server: socket.socket) -> None:
    sock, _ = server.accept()
    with sock:
        sock.recv(65536)
        sock.sendall(answer(b"hello", "Connection: close"))


def test_no_proxy_is_taken_from_the_environment(names: Names, canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
        monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{canary.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    names["files.test"] = [["127.0.0.1"]]
    with ScriptedUpstream(content(TEXT)) as upstream:
        url = upstream.url("/", host="files.test")
        with upstream_of(Policy(allow=url, allow_networks="127.0.0.1")) as client:
            assert read(client, url) == TEXT
            assert read(client, url, trusted=True) == TEXT


def test_refusals_take_the_same_time(names: Names, canary: Canary) -> None:
    """Whether a host exists cannot be measured: what no prefix covers is not even looked up."""
    archiver = Archiver(policy=Policy(allow="http://files.test:8080/files/"))
    names["known.test"] = [["127.0.0.1"]]

    def typical(url: str) -> float:
        times = []
        for _ in range(30):
            bundle = Bundle("x.zip")
            bundle.add(Member("a", Url(url)))
            started = time.perf_counter()
            assert archiver.respond(bundle).status == 403
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    known, unknown = typical(f"http://known.test:{canary.port}/a"), typical(f"http://unknown.test:{canary.port}/a")
    assert 0.2 < known / unknown < 5
    assert names.asked == []
    archiver.close()


def test_a_refusal_in_the_middle_stops_inside_the_member(names: Names, canary: Canary) -> None:
    """Nothing asks a member whose size is declared before its turn: its header is out when it is refused."""
    names["files.test"] = [["127.0.0.1"]]
    prefix = f"http://files.test:{canary.port}/"
    archiver = Archiver(policy=Policy(allow=prefix))
    bundle = Bundle("x.zip")
    bundle.add_data("first", TEXT)
    bundle.add(Member("second", Url(prefix + "b"), size=100_000))
    reply = archiver.respond(bundle)
    assert reply.status == 200
    got: list[bytes] = []
    with pytest.raises(NotAllowed):
        got.extend(reply.body)
    reply.body.close()
    assert b"second" in b"".join(got)
    assert b"PK\x01\x02" not in b"".join(got)
    archiver.close()


# --- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for ok.test that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *(judge("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(cert), "-days", "365", "-subj", "/CN=ok.test"),
            *("-addext", "subjectAltName=DNS:ok.test", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return cert, key


@pytest.mark.case(3, 39)
@pytest.mark.judge("openssl")
def test_tls_keeps_the_name(
    certificate: tuple[Path, Path], names: Names, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    names["ok.test"] = [["127.0.0.1"], ["127.0.0.1"], ["127.0.0.2"]]
    names["wrong.test"] = [["127.0.0.1"]]
    shown: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.sni_callback = lambda sock, name, context: shown.append(name)

    def script(request: Request, peer: Peer) -> None:
        content(TEXT)(request, peer)
        peer.close()

    with ScriptedUpstream(script, tls=context) as upstream:
        right, wrong = upstream.url("/", host="ok.test"), upstream.url("/", host="wrong.test")
        with upstream_of(Policy(allow=(right, wrong), allow_networks="127.0.0.1")) as client:
            assert read(client, right) == TEXT
            assert shown == ["ok.test"]
            assert upstream.requests[0].headers["host"] == f"ok.test:{upstream.port}"
            with pytest.raises(UpstreamUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
                read(client, wrong)
            assert shown == ["ok.test", "wrong.test"]
            assert len(upstream.requests) == 1
            assert read(client, right) == TEXT
            with pytest.raises(NotAllowed):
                read(client, right)
            assert upstream.connections == 3


# --- how many at once --------------------------------------------------------------------------------------------


def test_one_more_answer_waits_for_another_to_end() -> None:
    with ScriptedUpstream(content(TEXT * 100)) as upstream, upstream_of(Policy(opens_per_host=2)) as client:
        first = client.source(Url(upstream.url(), trusted=True)).open(0, None)
        second = client.forward(upstream.url()).body
        done: list[bytes] = []
        thread = threading.Thread(target=lambda: done.append(read(client, upstream.url("/3"), trusted=True)))
        thread.start()
        with ScriptedUpstream(content(TEXT)) as other:  # which has slots of its own
            assert read(client, other.url(), trusted=True) == TEXT
        assert upstream.connections == 2
        assert not done
        second.close()
        thread.join(10)
        assert done == [TEXT * 100]
        first.close()


@pytest.mark.parametrize("ended", ["read", "closed", "refused", "broken", "forgotten", "head", "redirected"])
def test_a_slot_comes_back_however_an_answer_ends(ended: str) -> None:
    def script(request: Request, peer: Peer) -> None:
        if request.target == "/broken":
            peer.send(answer(TEXT, length=len(TEXT) + 5))
            peer.close()
        elif request.target == "/refused":
            peer.close()
        elif request.target == "/redirected":
            peer.send(answer(b"", "Location: /read", status="302 Found"))
        else:
            content(TEXT * 10)(request, peer)

    with (
        ScriptedUpstream(script) as upstream,
        upstream_of(Policy(opens_per_host=1, read_timeout_seconds=5.0)) as client,
    ):
        url = upstream.url(f"/{ended}")
        if ended == "closed":
            client.source(Url(url, trusted=True)).open(0, None).close()
        elif ended == "head":
            client.source(Url(url, trusted=True)).probe()
        elif ended == "forgotten":
            client.forward(url)
            gc.collect()
        elif ended in ("refused", "broken"):
            with pytest.raises(UpstreamError):
                read(client, url, trusted=True)
        else:
            assert read(client, url, trusted=True) == TEXT * 10
        started = time.monotonic()
        assert read(client, upstream.url("/read"), trusted=True) == TEXT * 10
        assert time.monotonic() - started < 4


def test_where_none_ends_it_is_503_and_retry_after() -> None:
    policy = Policy(opens_per_host=1, read_timeout_seconds=0.2, overload_retry_seconds=7)
    with ScriptedUpstream(content(TEXT * 100)) as upstream:
        archiver = Archiver(policy=policy)
        held = archiver.upstream.forward(upstream.url()).body
        with pytest.raises(UpstreamBusy):
            read(archiver.upstream, upstream.url(), trusted=True)
        bundle = Bundle("x.zip")
        bundle.add_url(upstream.url("/a"), "a")
        started = time.monotonic()
        for reply in (archiver.respond(bundle), archiver.forward(upstream.url())):
            assert reply.status == 503
            assert dict(reply.headers)["Retry-After"] == "7"
            assert json.loads(b"".join(reply.body))["type"] == "urn:streamware:problem:upstream-busy"
        assert time.monotonic() - started < 2
        assert upstream.connections == 1
        held.close()
        archiver.close()


def test_answers_are_not_kept_waiting_where_others_may_need_the_room() -> None:
    with ScriptedUpstream(content(TEXT * 100)) as upstream, upstream_of(Policy(opens_per_host=3)) as client:
        sources = [client.source(Url(upstream.url(f"/{i}"), trusted=True)) for i in range(3)]
        assert sources[0].spare()
        sources[0].probe(keep=True)
        assert sources[1].spare()
        sources[1].probe(keep=True)
        assert not sources[2].spare()
        sources[2].probe(keep=True)
        assert upstream.asked == ["GET /0", "GET /1", "HEAD /2"]
        chunks = sources[2].open(0, None)
        assert b"".join(chunks) == TEXT * 100
        for source in sources:
            source.close()
        assert sources[2].spare()


# --- through a real server ---------------------------------------------------------------------------------------

_SITE = """\
import json, os, socket
_real, _table = socket.getaddrinfo, json.loads(os.environ["STREAMWARE_TEST_NAMES"])
def getaddrinfo(host, port, *rest, **options):
    name = host.decode() if isinstance(host, bytes) else host
    if not (name or "").endswith(".test"):
        return _real(host, port, *rest, **options)
    if name not in _table:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    found = _table[name]
    answers = found.pop(0) if len(found) > 1 else found[0]
    return [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (a, port, 0, 0)) if ":" in a
        else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in answers
    ]
socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture
def with_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[list[str]]]], None]:
    """Makes Python processes that are started resolve ".test" by a table."""

    def use(table: dict[str, list[list[str]]]) -> None:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(_SITE)
        path = os.pathsep.join(p for p in (str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")) if p)
        monkeypatch.setenv("PYTHONPATH", path)
        monkeypatch.setenv("STREAMWARE_TEST_NAMES", json.dumps(table))

    return use


@pytest.mark.case(39)
def test_a_real_server_holds(
    tmp_path: Path, canary: Canary, with_names: Callable[[dict[str, list[list[str]]]], None]
) -> None:
    pytest.importorskip("uvicorn")
    with_names(
        {
            "good.test": [["127.0.0.2"]],
            "bad.test": [["127.0.0.1"]],
            "mixed.test": [["127.0.0.2", "::1"]],
            "turning.test": [["127.0.0.2"], ["127.0.0.1"]],
        }
    )

    def once(request: Request, peer: Peer) -> None:
        content(TEXT)(request, peer)
        peer.close()

    with ScriptedUpstream(once, bind="127.0.0.2") as upstream:
        good, turning = upstream.url("/", host="good.test"), upstream.url("/", host="turning.test")
        bad, mixed = (f"http://{name}.test:{canary.port}/files/" for name in ("bad", "mixed"))
        options = [word for prefix in (good, turning, bad, mixed) for word in ("--allow", prefix)]
        root = tmp_path / "root"
        root.mkdir()
        with Served(root, *options, "--allow-network", "127.0.0.2/32") as served:

            def ask(url: str, **fields: Any) -> tuple[int, bytes]:
                members = [{"name": "a", "url": url, **fields}]
                manifest = json.dumps({"name": "x.zip", "members": members}).encode()
                reply = served.ask("/bundle", "POST", {"Content-Type": "application/json"}, manifest)
                return reply.status, reply.body

            status, archive = ask(good + "a")
            assert status == 200
            assert zipfile.ZipFile(io.BytesIO(archive)).read("a") == TEXT
            refusals = [ask(url, size=len(TEXT)) for url in (bad + "a", mixed + "a", "http://unknown.test/a")]
            assert ask(turning + "a", size=len(TEXT))[0] == 200
            refusals.append(ask(turning + "a", size=len(TEXT)))
            assert {status for status, _ in refusals} == {403}
            assert len({json.dumps(told(body)) for _, body in refusals}) == 1
            for url in manifest_urls(canary.port):
                assert ask(url)[0] in (400, 403)
        assert canary.visits == 0
