"""Links through both middlewares on real servers: made here, opened there, cut, resumed, refused.

The apps are this module's own; what they sign with and where they keep links stands in the environment.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from streamware import Archiver, Policy
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware
from tests.conftest import judge
from tests.hosts.inner_site import BIG, FILES, asgi_site, wsgi_site
from tests.hosts.middleware_cases import FORM, JSON, failing, local, unzipped
from tests.hosts.serve_process import Served
from tests.hosts.servers import Response, Server, gunicorn, uvicorn, wsgiref_server

Site = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
MOUNT = "/m\u00f6unt"
MOUNT_URL = "/m%C3%B6unt"
ENV = {"LINK_KEY": "a key that all replicas have"}


def archiver() -> Archiver:
    return Archiver(Policy(link_key=os.environ.get("LINK_KEY"), max_manifest_bytes=100_000), os.environ.get("LEDGER"))


def mounted_wsgi(app: Site) -> Site:
    """The app below MOUNT as well as at the top."""

    def mounted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        below = MOUNT.encode().decode("latin-1")
        if environ["PATH_INFO"].startswith(below):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = below, environ["PATH_INFO"][len(below) :]
        return app(environ, start_response)

    return mounted


def mounted_asgi(app: Any) -> Any:
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith(MOUNT):
            scope = {**scope, "root_path": MOUNT}
        await app(scope, receive, send)

    return mounted


def _rooted(site: Any) -> Any:
    """The ASGI site with the path as it sees it at the top."""

    async def rooted(scope: Any, receive: Any, send: Any) -> None:
        await site({**scope, "path": scope["path"].removeprefix(MOUNT)}, receive, send)

    return rooted


wsgi_app = mounted_wsgi(BundleMiddleware(wsgi_site, archiver=archiver(), local=local))
asgi_app = mounted_asgi(AsyncBundleMiddleware(_rooted(asgi_site), archiver=archiver(), local=local))


def host(name: str, **env: str) -> AbstractContextManager[Server]:
    if name == "wsgiref":
        return wsgiref_server(wsgi_app)
    if name == "gunicorn":
        return gunicorn(f"{__name__}:wsgi_app", env={**ENV, **env})
    return uvicorn(f"{__name__}:asgi_app", env={**ENV, **env})


@pytest.fixture(scope="module", params=["wsgiref", "gunicorn", "uvicorn"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with host(request.param) as server:
        yield server


def ask(server: Server, *paths: str, at: str = "/bundle/links", cookie: str = "", **more: str) -> Response:
    fields = urlencode([("path", path) for path in paths] + list(more.items()))
    headers = {**FORM, "Cookie": cookie} if cookie else FORM
    return server.request("POST", at, headers, fields.encode())


def link(server: Server, *paths: str, cookie: str = "", **more: str) -> str:
    response = ask(server, *paths, cookie=cookie, **more)
    assert response.status == 201, response.body
    return str(json.loads(response.body)["url"])


def big_manifest() -> bytes:
    """A manifest that fits no URL."""
    members = [{"name": f"{zlib.crc32(str(i).encode()):08x}", "text": str(i)} for i in range(400)]
    return json.dumps({"name": "many.zip", "members": [*members, {"name": "a", "path": "/a.txt"}]}).encode()


def kind(response: Response) -> tuple[int, str]:
    failing(response)
    return response.status, json.loads(response.body)["type"].rpartition(":")[2]


def test_a_link_is_made_and_opened(server: Server) -> None:
    before = time.time()
    made = ask(server, "/a.txt", "/b.bin", name="pick.zip", expires_in="120")
    assert made.status == 201
    assert made.header("content-type") == "application/json"
    assert made.header("cache-control") == "no-store"
    assert made.header("content-length") == str(len(made.body))
    told = json.loads(made.body)
    assert sorted(told) == ["expires", "resumable", "url"]
    assert told["resumable"] is True
    assert made.header("location") == told["url"]
    assert re.fullmatch(r"/bundle/links/[\w.-]+", told["url"], re.ASCII)
    expires = datetime.strptime(told["expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
    assert before + 118 < expires <= time.time() + 120
    whole = server.get(told["url"])
    assert unzipped(whole) == {"a.txt": FILES["/a.txt"], "b.bin": FILES["/b.bin"]}
    assert whole.header("accept-ranges") == "bytes"
    assert "pick.zip" in (whole.header("content-disposition") or "")
    tag = whole.header("etag") or ""
    assert tag.startswith('"')
    head = server.request("HEAD", told["url"])
    for name in ("content-length", "etag", "accept-ranges", "content-type", "last-modified"):
        assert head.header(name) == whole.header(name)
    assert server.get(told["url"], {"If-None-Match": tag}).status == 304
    part = server.get(told["url"], {"Range": "bytes=70000-"})
    assert (part.status, part.body) == (206, whole.body[70000:])
    assert server.get(told["url"], {"Range": "bytes=5-9", "If-Range": '"x"'}).status == 200


def test_a_json_manifest(server: Server) -> None:
    manifest = {
        "name": "j.tar",
        "expires_in": 60,
        "members": [{"name": "a", "path": "/a.txt"}, {"name": "t", "text": "text"}, {"name": "d/"}],
    }
    made = server.request("POST", "/bundle/links/", JSON, json.dumps(manifest).encode())
    assert made.status == 201
    response = server.get(json.loads(made.body)["url"])
    assert response.header("content-type") == "application/x-tar"
    assert response.header("content-length") == str(len(response.body))


def test_a_manifest_too_large_for_a_url(server: Server) -> None:
    made = server.request("POST", "/bundle/links", JSON, big_manifest())
    url = json.loads(made.body)["url"]
    assert len(url) < 100
    files = unzipped(server.get(url))
    assert len(files) == 401
    assert files["a"] == FILES["/a.txt"]


def test_a_link_knows_where_the_app_is_mounted(server: Server) -> None:
    made = ask(server, "/a.txt", at=f"{MOUNT_URL}/bundle/links")
    url = json.loads(made.body)["url"]
    assert url.startswith(f"{MOUNT_URL}/bundle/links/")
    assert made.header("location") == url
    assert unzipped(server.get(url)) == {"a.txt": FILES["/a.txt"]}


def test_whoever_opens_a_link_needs_the_right_himself(server: Server) -> None:
    cookie = "session=s3cret"
    refused = ask(server, "/a.txt", "/vault")
    assert (refused.status, failing(refused)) == (403, ["vault"])
    url = link(server, "/a.txt", "/vault", cookie=cookie)
    whole = server.get(url, {"Cookie": cookie})
    assert unzipped(whole)["vault"] == FILES["/b.bin"]
    for headers in ({}, {"Cookie": "session=old"}, {"Range": "bytes=-22"}, {"Range": "bytes=0-9"}):
        assert kind(server.get(url, headers)) == (403, "member-forbidden")
    part = server.get(url, {"Cookie": cookie, "Range": "bytes=-22"})
    assert (part.status, part.body) == (206, whole.body[-22:])


def test_a_member_that_changed_is_gone_before_the_head(server: Server) -> None:
    url = link(server, "/a.txt", "/edition")
    part = server.get(url, {"Range": "bytes=100-"})
    assert part.status == 206
    server.get("/next-edition")
    for headers in ({}, {"Range": "bytes=100-"}, {"Range": "bytes=100-", "If-Range": part.header("etag") or ""}):
        assert kind(server.get(url, headers)) == (410, "member-changed")
    assert server.request("HEAD", url).status == 410


def test_a_member_without_a_validator(server: Server) -> None:
    made = json.loads(ask(server, "/a.txt", "/no-head").body)
    assert made["resumable"] is False
    response = server.get(made["url"], {"Range": "bytes=5-"})
    assert response.status == 200
    assert response.header("accept-ranges") is None
    assert unzipped(response)["no-head"] == b"no head"


def test_members_the_server_holds_itself(server: Server) -> None:
    made = json.loads(ask(server, "/held.txt", "/folder/").body)
    assert made["resumable"] is True
    assert sorted(unzipped(server.get(made["url"]))) == ["folder/x", "folder/y/", "held.txt"]


def test_what_is_no_link(server: Server) -> None:
    token = link(server, "/a.txt").rpartition("/")[2]
    answers = []
    for wrong in (
        "x",
        "x" * 43,
        token[:-1],
        token[1:],
        f"{token}/",
        f"a{token}",
        "%00",
        "..%2f",
        "\u00e9".encode().hex(),
    ):
        response = server.get(f"/bundle/links/{wrong}")
        document = json.loads(response.body)
        del document["instance"]
        answers.append((response.status, document))
    assert all(given == answers[0] for given in answers)
    assert (answers[0][0], answers[0][1]["type"]) == (404, "urn:streamware:problem:link-unknown")


def test_a_link_expires(server: Server) -> None:
    url = link(server, "/a.txt", expires_in="1")
    deadline = time.monotonic() + 5
    while (response := server.get(url)).status != 410 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert kind(response) == (410, "link-expired")
    assert b"a.txt" not in response.body


@pytest.mark.parametrize(
    ("method", "at", "allow"),
    [
        ("GET", "/bundle/links", "POST"),
        ("DELETE", "/bundle/links/", "POST"),
        ("POST", "/bundle/links/x", "GET, HEAD"),
        ("DELETE", "/bundle/links/x", "GET, HEAD"),
        ("PUT", "/bundle/links/x", "GET, HEAD"),
    ],
)
def test_other_methods_are_refused(method: str, at: str, allow: str, server: Server) -> None:
    response = server.request(method, at, None, b"" if method in ("POST", "PUT") else None)
    assert (response.status, response.header("allow")) == (405, allow)
    assert failing(response) == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"path=/a.txt&expires_in=0", FORM, 400),
        (b"path=/a.txt&expires_in=2592001", FORM, 400),
        (b"expires_in=60", FORM, 400),
        (b"path=/bundle/links/x", FORM, 400),
        (b"path=/nowhere", FORM, 404),
        (b"path=/a.txt", {"Content-Type": "text/plain"}, 400),
        (b'{"name":"x.zip","members":[{"name":"u","url":"http://127.0.0.1:9/x"}]}', JSON, 403),
        (b"path=/a.txt&name=" + b"x" * 100_000, FORM, 413),
    ],
)
def test_what_gets_no_link(body: bytes, headers: dict[str, str], status: int, server: Server) -> None:
    response = server.request("POST", "/bundle/links", headers, body)
    assert response.status == status
    assert json.loads(response.body)["status"] == status


# --- other programs, other processes -----------------------------------------------------------------------------


@pytest.mark.judge("curl")
@pytest.mark.parametrize("name", ["big.zip", "big.tar"])
def test_curl_resumes_a_link(name: str, server: Server, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.port}" + link(server, "/a.txt", "/big", "/b.bin", name=name)
    whole = server.get(url.partition(str(server.port))[2]).body
    assert len(whole) > len(BIG)
    file = tmp_path / name
    for cut in (1, 30_000, len(BIG) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        command = [judge("curl"), "-sS", "--fail", "-C", "-", "-o", str(file), url]
        subprocess.run(command, check=True, timeout=30)
        assert file.read_bytes() == whole


@pytest.mark.parametrize("shared", [True, False], ids=["one ledger", "one key"])
def test_two_replicas_serve_one_link(shared: bool, tmp_path: Path) -> None:
    env = {"LEDGER": f"sqlite:///{tmp_path / 'state.sqlite3'}"} if shared else {}
    if shared:
        pytest.importorskip("sqlalchemy")
    with ExitStack() as stack:
        here, there = stack.enter_context(host("gunicorn", **env)), stack.enter_context(host("uvicorn", **env))
        small = link(here, "/a.txt", "/big")
        whole = here.get(small)
        part = there.get(small, {"Range": "bytes=1000000-"})
        assert (part.status, part.body) == (206, whole.body[1_000_000:])
        assert there.get(small).header("etag") == whole.header("etag")
        large = json.loads(here.request("POST", "/bundle/links", JSON, big_manifest()).body)["url"]
        if shared:
            assert there.get(large).body == here.get(large).body
        else:
            assert kind(there.get(large)) == (404, "link-unknown")


def test_the_server_gives_links_to_its_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one").write_bytes(b"1" * 200_000)
    (tmp_path / "two").write_bytes(b"2")
    with Served(tmp_path) as served:
        body = urlencode({"path": "/tree/sub/", "name": "s.zip"}).encode()
        made = served.ask("/bundle/links", "POST", FORM, body)
        assert made.status == 201
        url = json.loads(made.body)["url"]
        whole = served.ask(url).body
        part = served.ask(url, headers={"Range": "bytes=100000-"})
        assert (part.status, part.body) == (206, whole[100_000:])
        (tmp_path / "sub" / "new").write_bytes(b"new")
        assert served.ask(url, headers={"Range": "bytes=100000-"}).status == 410
        page = served.ask(url, headers={"Accept": "text/html"})
        assert page.status == 410
        assert b"has changed since" in page.body
