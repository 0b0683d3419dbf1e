"""The Falcon resources, on both flavours, under the servers people use: gunicorn for WSGI, uvicorn for ASGI.

Each behaviour is tested once, through a fixture that stands for both. This module is also the app the servers run.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import os
import socket
import tarfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import falcon
import falcon.asgi
import falcon.testing
import pytest

from streamware import Archiver, Bundle, Policy
from streamware.errors import NotAllowed
from streamware.reply import Reply
from streamware.resources import AsyncBundleResource, AsyncProxyResource, BundleResource, ProxyResource
from streamware.resources_base import begin
from tests.hosts.falcon_servers import File, Host, Node, hosting, until

BIG = bytes(range(256)) * 8192  # 2 MiB
SMALL = b"a line of a log\n" * 100
FILES = {
    "/big.bin": File(BIG, {"Content-Type": "application/x-big"}),
    "/small.log": File(SMALL),
    "/untyped": File(SMALL, {"Content-Type": ""}),
    "/cut.bin": File(BIG, {"Content-Length": str(len(BIG))}, cut=1_000_000),
    "/hops": File(SMALL, {"Connection": "X-Hop", "X-Hop": "1", "Keep-Alive": "timeout=9", "Link": "</a>\n</b>"}),
}


# --- the app, in both flavours -----------------------------------------------------------------------------------


def describe(upstream: str, name: str) -> Bundle:
    bundle = Bundle(name)
    if name == "nodes.zip":
        bundle.add_url(f"{upstream}/big.bin")
        bundle.add_url(f"{upstream}/small.log", "logs/small.log")
        bundle.add_data("status.txt", "fine\n")
    elif name == "nodes.tar":
        bundle.add_url(f"{upstream}/big.bin")
        bundle.add_url(f"{upstream}/small.log")
    elif name == "held.zip":
        bundle.add_data("a.bin", BIG[:100_000])
        bundle.add_data("b.txt", "two\n")
        bundle.add_directory("empty")
    elif name == "open.zip":
        bundle.add_stream("made.txt", lambda: iter([SMALL, SMALL]))
    elif name == "missing.zip":
        bundle.add_data("status.txt", "fine\n")
        bundle.add_url(f"{upstream}/nowhere.log")
    elif name.startswith(("endless", "silent", "cut")):
        bundle.add_url(f"{upstream}/{name.removesuffix('.zip')}")
    elif name == "refused.zip":
        raise NotAllowed("not for you")
    else:
        raise falcon.HTTPNotFound(title="No such download", headers={"X-Reason": "unknown name"})
    return bundle


def credentials(upstream: str, name: str) -> Mapping[str, str]:
    return {"Authorization": "Bearer ours"} if name == "small.log" else {}


def wsgi(upstream: str = os.environ.get("UPSTREAM", "")) -> falcon.App[Any, Any]:
    class Downloads(BundleResource):
        def make_bundle(self, req: falcon.Request, name: str) -> Bundle:
            return describe(upstream, name)

    class Forwards(ProxyResource):
        def make_url(self, req: falcon.Request, name: str) -> str:
            return f"{upstream}/{name}"

        def make_headers(self, req: falcon.Request, name: str) -> Mapping[str, str]:
            return credentials(upstream, name)

    app = falcon.App()
    archiver = Archiver(Policy(read_timeout_seconds=20))
    app.add_route("/bundles/{name}", Downloads(archiver))
    app.add_route("/files/{name}", Forwards(archiver))
    return app


def asgi(
    upstream: str = os.environ.get("UPSTREAM", ""), **options: Any
) -> falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response]:
    class Downloads(AsyncBundleResource):
        async def make_bundle(self, req: falcon.asgi.Request, name: str) -> Bundle:
            return describe(upstream, name)

    class Forwards(AsyncProxyResource):
        async def make_url(self, req: falcon.asgi.Request, name: str) -> str:
            return f"{upstream}/{name}"

        async def make_headers(self, req: falcon.asgi.Request, name: str) -> Mapping[str, str]:
            return credentials(upstream, name)

    app = falcon.asgi.App(**options)
    archiver = Archiver(Policy(read_timeout_seconds=20))
    app.add_route("/bundles/{name}", Downloads(archiver))
    app.add_route("/files/{name}", Forwards(archiver))
    return app


# --- fixtures ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node(FILES) as node:
        yield node


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def host(request: pytest.FixtureRequest, node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    log = tmp_path_factory.mktemp(request.param) / "log"
    with hosting(request.param, f"{__name__}:{request.param}()", log=log, env={"UPSTREAM": node.url}) as host:
        yield host


# --- bundles -----------------------------------------------------------------------------------------------------


def test_a_bundle_of_remote_files_arrives_whole_and_as_long_as_was_promised(host: Host) -> None:
    answer = host.ask("/bundles/nodes.zip")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/zip"
    assert 'filename="nodes.zip"' in answer.headers["content-disposition"]
    assert int(answer.headers["content-length"]) == len(answer.body)
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.namelist() == ["big.bin", "logs/small.log", "status.txt"]
        assert archive.testzip() is None
        assert archive.read("big.bin") == BIG
        assert archive.read("logs/small.log") == SMALL


@pytest.mark.case(44)
@pytest.mark.parametrize("path", ["/bundles/nodes.zip", "/bundles/nodes.tar", "/bundles/open.zip", "/files/big.bin"])
def test_head_answers_the_headers_of_get_and_leaves_the_connection_in_order(host: Host, node: Node, path: str) -> None:
    full = host.ask(path)
    connection = host.connect()
    for _ in range(3):
        connection.request("HEAD", path)
        response = connection.getresponse()
        assert response.read() == b""
        headers = {name.lower(): value for name, value in response.getheaders()}
        for changing in ("date", "transfer-encoding"):
            headers.pop(changing, None)
            full.headers.pop(changing, None)
        assert (response.status, headers) == (200, full.headers)
    connection.request("GET", path)
    assert connection.getresponse().read() == full.body
    connection.close()
    until(lambda: node.busy == 0, 2)


def test_a_bundle_of_unknown_length_promises_none(host: Host) -> None:
    answer = host.ask("/bundles/open.zip")
    assert "content-length" not in answer.headers
    assert zipfile.ZipFile(io.BytesIO(answer.body)).read("made.txt") == SMALL + SMALL
    assert "content-length" not in host.ask("/bundles/open.zip", "HEAD").headers


@pytest.mark.parametrize("name", ["nodes.tar", "held.zip"])
def test_a_pinned_bundle_is_served_in_ranges(host: Host, name: str) -> None:
    whole = host.ask(f"/bundles/{name}")
    assert whole.headers["accept-ranges"] == "bytes"
    size = len(whole.body)
    for start, stop in ((0, 1), (0, 100), (511, 513), (70_000, 90_000), (size - 1, size)):
        part = host.ask(f"/bundles/{name}", Range=f"bytes={start}-{stop - 1}", If_Range=whole.headers["etag"])
        assert part.status == 206
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert part.headers["content-length"] == str(stop - start)
        assert part.body == whole.body[start:stop]
    stale = host.ask(f"/bundles/{name}", Range="bytes=0-9", If_Range='"another"')
    assert (stale.status, stale.body) == (200, whole.body)
    beyond = host.ask(f"/bundles/{name}", Range=f"bytes={size}-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")


def test_the_tar_holds_the_files(host: Host) -> None:
    answer = host.ask("/bundles/nodes.tar")
    assert int(answer.headers["content-length"]) == len(answer.body)
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        members = {m.name: archive.extractfile(m) for m in archive}
        assert {name: file.read() for name, file in members.items() if file} == {"big.bin": BIG, "small.log": SMALL}


@pytest.mark.parametrize("path", ["/bundles/nodes.tar", "/bundles/held.zip", "/files/big.bin"])
def test_what_the_client_has_already_is_not_sent_again(host: Host, node: Node, path: str) -> None:
    etag = host.ask(path).headers["etag"]
    for _ in range(3):
        answer = host.ask(path, If_None_Match=etag)
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
        assert not {"content-type", "content-length", "transfer-encoding"} & set(answer.headers)
    assert host.ask(path, "HEAD", If_None_Match=etag).status == 304
    until(lambda: node.busy == 0, 2)


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.case(4)
def test_a_missing_member_is_a_problem_before_anything_is_sent(host: Host) -> None:
    answer = host.ask("/bundles/missing.zip")
    assert answer.status in (404, 502)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(answer.body)
    assert problem["status"] == answer.status
    assert [(member["index"], member["name"]) for member in problem["members"]] == [(1, "nowhere.log")]
    assert "127.0.0.1" not in answer.body.decode()


def test_the_apps_own_http_errors_pass_as_usual(host: Host) -> None:
    answer = host.ask("/bundles/other.zip")
    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert answer.headers["x-reason"] == "unknown name"
    assert json.loads(answer.body) == {"title": "No such download"}


def test_a_refusal_raised_by_the_app_is_a_problem(host: Host) -> None:
    answer = host.ask("/bundles/refused.zip")
    assert (answer.status, answer.headers["content-type"]) == (403, "application/problem+json")
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert json.loads(answer.body)["type"] == "urn:streamware:problem:not-allowed"
    assert "not for you" not in answer.body.decode()


@pytest.mark.case(44)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_refused(host: Host, method: str) -> None:
    answer = host.ask("/bundles/nodes.zip", method)
    assert answer.status == 405
    assert {"GET", "HEAD"} <= set(answer.headers["allow"].split(", "))


@pytest.mark.case(17)
@pytest.mark.parametrize("path", ["/bundles/cut.bin.zip", "/files/cut.bin"])
def test_a_failure_after_the_head_breaks_the_connection(host: Host, path: str) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        host.ask(path)


# --- one file passed on ------------------------------------------------------------------------------------------


def test_a_forwarded_file_keeps_its_size_type_and_validators(host: Host, node: Node) -> None:
    answer = host.ask("/files/big.bin")
    direct = http.client.HTTPConnection(node.url.removeprefix("http://"), timeout=10)
    direct.request("GET", "/big.bin")
    theirs = direct.getresponse()
    assert (answer.status, answer.body) == (200, theirs.read())
    for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Accept-Ranges"):
        assert answer.headers[name.lower()] == theirs.getheader(name)
    direct.close()


def test_a_forwarded_range_is_the_upstreams(host: Host, node: Node) -> None:
    etag = host.ask("/files/big.bin").headers["etag"]
    node.requests.clear()
    answer = host.ask("/files/big.bin", Range="bytes=100000-100099", If_Range=etag)
    assert (answer.status, answer.body) == (206, BIG[100_000:100_100])
    assert answer.headers["content-range"] == f"bytes 100000-100099/{len(BIG)}"
    assert answer.headers["content-length"] == "100"
    assert node.requests[-1].headers["if-range"] == etag
    assert host.ask("/files/big.bin", Range=f"bytes={len(BIG)}-").status == 416


def test_no_secret_of_the_client_reaches_the_upstream(host: Host, node: Node) -> None:
    given = {"Accept": "text/*", "Authorization": "Bearer theirs", "Cookie": "a=b", "X_Other": "1"}
    assert host.ask("/files/small.log", **given).body == SMALL
    seen = node.asked("/small.log")[-1].headers
    assert seen["accept"] == "text/*"
    assert seen["authorization"] == "Bearer ours"
    assert not {"cookie", "x-other"} & set(seen)
    assert host.ask("/files/untyped", **given).body == SMALL
    assert "authorization" not in node.asked("/untyped")[-1].headers


def test_hop_by_hop_headers_of_the_upstream_stay_there(host: Host) -> None:
    answer = host.ask("/files/hops")
    assert answer.body == SMALL
    assert not {"x-hop", "keep-alive"} & set(answer.headers)
    assert "X-Hop" not in answer.headers.get("connection", "")
    assert answer.headers["link"] == "</a>, </b>"


def test_a_forwarded_error_is_the_upstreams(host: Host) -> None:
    answer = host.ask("/files/nowhere")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (404, b"not here\n", "text/plain")


def test_a_file_of_unknown_type_is_not_called_json(host: Host) -> None:
    assert host.ask("/files/untyped").headers["content-type"] == "application/octet-stream"


# --- clients that leave ------------------------------------------------------------------------------------------


def start(host: Host, path: str, amount: int) -> socket.socket:
    """A connection on which ``amount`` bytes of a response have been read."""
    client = socket.create_connection(("127.0.0.1", host.port), timeout=10)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    got = 0
    while got < amount:
        got += len(client.recv(65_536))
    return client


def leaves(host: Host, node: Node, path: str, upstream_path: str, amount: int) -> float:
    """Seconds from the client's leaving to the moment the upstream sees its own connection closed."""
    client = start(host, path, amount)
    assert upstream_path not in node.left
    left = time.monotonic()
    client.close()
    until(lambda: upstream_path in node.left, 15)
    return node.left[upstream_path] - left


@pytest.mark.case(27)
@pytest.mark.parametrize("route", ["/bundles/{}.zip", "/files/{}"])
def test_a_client_that_leaves_ends_the_upstream(host: Host, node: Node, route: str) -> None:
    name = f"endless-{host.kind}-{route[1]}"
    node.endless.add(f"/{name}")
    assert leaves(host, node, route.format(name), f"/{name}", 200_000) < 1
    until(lambda: node.busy == 0, 2)


@pytest.mark.case(27)
@pytest.mark.parametrize("route", ["/bundles/{}.zip", "/files/{}"])
@pytest.mark.parametrize("host", ["asgi"], indirect=True)
def test_a_client_that_leaves_ends_an_upstream_that_says_nothing(host: Host, node: Node, route: str) -> None:
    """Only ASGI tells an app that its client has gone; a WSGI app finds out when it next sends."""
    name = f"silent-{route[1]}"
    node.silent.add(f"/{name}")
    assert leaves(host, node, route.format(name), f"/{name}", 90_000) < 1
    until(lambda: node.busy == 0, 2)


def test_the_server_goes_on_after_a_client_has_left(host: Host, node: Node) -> None:
    for number in range(10):
        name = f"endless-again-{host.kind}-{number}"
        node.endless.add(f"/{name}")
        leaves(host, node, f"/bundles/{name}.zip", f"/{name}", 20_000)
    assert zipfile.ZipFile(io.BytesIO(host.ask("/bundles/nodes.zip").body)).read("big.bin") == BIG


# --- in the process: falcon's own test client ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [wsgi, asgi])
def test_falcons_test_client_can_drive_the_resources(node: Node, make: Any) -> None:
    client = falcon.testing.TestClient(make(node.url))
    result = client.simulate_get("/bundles/nodes.zip")
    assert result.status_code == 200
    assert zipfile.ZipFile(io.BytesIO(result.content)).read("big.bin") == BIG
    assert client.simulate_get("/files/small.log").content == SMALL
    assert client.simulate_head("/files/small.log").headers["content-length"] == str(len(SMALL))


def test_falcons_test_conductor_can_leave(node: Node) -> None:
    node.silent.add("/silent-conducted")

    async def leave() -> float:
        async with falcon.testing.ASGIConductor(asgi(node.url)) as conductor:
            async with conductor.simulate_get_stream("/bundles/silent-conducted.zip") as streamed:
                while not await streamed.stream.read():
                    await asyncio.sleep(0.01)
            return time.monotonic()

    left = asyncio.run(asyncio.wait_for(leave(), 20))
    until(lambda: "/silent-conducted" in node.left, 15)
    assert node.left["/silent-conducted"] - left < 1


def test_a_falcon_without_receive_is_told_of_once_and_served(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    class LaterRequest(falcon.asgi.Request):
        @property
        def _receive(self) -> Any:
            raise AttributeError("_receive")

        @_receive.setter
        def _receive(self, value: object) -> None:
            pass

    client = falcon.testing.TestClient(asgi(node.url, request_type=LaterRequest))
    with caplog.at_level(logging.WARNING, "streamware.resources"):
        for _ in range(2):
            assert client.simulate_get("/bundles/held.zip").status_code == 200
    [record] = [record for record in caplog.records if record.name == "streamware.resources"]
    assert record.levelname == "WARNING"
    assert f"falcon {falcon.__version__} " in record.getMessage()


def test_cookies_of_a_reply_stay_apart() -> None:
    resp = falcon.Response()
    resp.set_header("Cache-Control", "of a middleware")
    headers = (("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Cache-Control", "no-store"))
    begin(falcon.testing.create_req(), resp, Reply(200, headers))
    sent = resp._wsgi_headers()
    assert [value for name, value in sent if name == "set-cookie"] == ["a=1", "b=2"]
    assert [value for name, value in sent if name == "cache-control"] == ["no-store"]


@pytest.mark.parametrize("kind", [BundleResource, AsyncBundleResource, ProxyResource, AsyncProxyResource])
def test_a_resource_without_its_method_cannot_be_made(kind: Any) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind(Archiver())


def test_a_request_body_does_not_hide_that_the_client_leaves(node: Node, tmp_path: Path) -> None:
    """The watch must get past the events of a request's body, which an app may leave unread."""
    node.silent.add("/silent-body")
    with hosting("asgi", f"{__name__}:asgi()", log=tmp_path / "log", env={"UPSTREAM": node.url}) as host:
        client = socket.create_connection(("127.0.0.1", host.port), timeout=10)
        client.sendall(b"GET /bundles/silent-body.zip HTTP/1.1\r\nHost: here\r\nContent-Length: 200000\r\n\r\n")
        client.sendall(bytes(200_000))
        got = 0
        while got < 90_000:
            got += len(client.recv(65_536))
        left = time.monotonic()
        client.close()
        until(lambda: "/silent-body" in node.left, 15)
        assert node.left["/silent-body"] - left < 1
