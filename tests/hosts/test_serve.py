"""``streamware serve`` from outside: a real process, real sockets, real signals."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from streamware.server.files import Item, Place, Root
from streamware.server.folder_page import order
from streamware.server.page import View, moment
from streamware.server.raw import media_type
from streamware.server.settings import Settings, parse_address
from tests.hosts.serve_process import Served, command, environment

RAW_NAME = b"caf\xe9.txt"  # Latin-1, and no UTF-8
NASTY = "<script>alert('x')&\".txt"
ODD = "100% #1? a+b;c.txt"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("site")
    outside = top / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    root = top / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "sub" / "empty").mkdir()
    (root / "a.txt").write_text("alpha\n")
    (root / "sub" / "b.bin").write_bytes(bytes(range(256)) * 400)
    (root / "sub" / "deep" / "c.txt").write_text("gamma")
    (root / "sub" / "inside.txt").symlink_to("../a.txt")
    (root / "zero").write_bytes(b"")
    (root / NASTY).write_text("nasty")
    (root / ODD).write_text("odd")
    (root / ".hidden").write_text("hidden")
    Path(os.fsdecode(os.fsencode(root) + b"/" + RAW_NAME)).write_text("raw")
    (root / "out-file").symlink_to(outside / "secret.txt")
    (root / "out-dir").symlink_to(outside)
    (root / "nowhere").symlink_to("gone")
    (root / "device").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe")
    with (root / "big.bin").open("wb") as big:
        big.truncate(64 * 1024 * 1024)
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Served]:
    with Served(root, "--access-log") as served:
        yield served


def wait_until(true: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


# --- starting ----------------------------------------------------------------------------------------------------


def test_it_says_where_it_listens_in_one_line(server: Served) -> None:
    assert re.fullmatch(r"streamware \S+ listening on http://127\.0\.0\.1:[1-9][0-9]*\n", server.line)
    assert server.ask("/healthz")[::2] == (200, b"ok")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--bind", "nowhere"], "HOST:PORT"),
        (["--bind", ":8080"], "HOST:PORT"),
        (["--bind", "127.0.0.1:65536"], "65535"),
        (["--bind", "::1:80"], "HOST:PORT"),
        (["--bind", "192.0.2.1:0"], "cannot listen on 192.0.2.1:0"),
        (["--allow", "ftp://127.0.0.1/"], "--allow"),
        (["--allow", "10.0.0.7"], "--allow"),
        (["--allow", "http://127.1/"], "--allow: 'http://127.1/'"),
        (["--allow-network", "10.0.0.1/8"], "--allow-network: '10.0.0.1/8'"),
        (["--allow-network", "cluster"], "--allow-network: 'cluster'"),
        (["--workers", "0"], "--workers"),
        (["--workers", "two"], "--workers"),
        (["--grace", "-1"], "--grace"),
        (["/does/not/exist"], "does not exist"),
        (["/etc/passwd"], "is not a directory"),
        (["--state", "sqlite://"], "--state"),
    ],
)
def test_a_mistake_of_the_operator_is_told_and_nothing_listens(options: list[str], told: str) -> None:
    done = subprocess.run(command("serve", *options), capture_output=True, text=True, env=environment(), timeout=30)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_port_that_is_taken_is_told(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            command("serve", str(root), "--bind", bind), capture_output=True, text=True, env=environment(), timeout=30
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"cannot listen on {bind}" in done.stderr


VERSION = (
    r"streamware \S+ \(Python 3\.\S+; CRC-32: (isal|zlib-ng|zlib) \S+; deflate: (isal|zlib-ng|zlib) \S+"
    r"(, (zlib-ng|zlib) \S+ for levels)?; zstd: (zstandard \S+|none)\)\n"
)


def test_version_names_what_computes_checksums_and_compresses() -> None:
    done = subprocess.run(command("--version"), capture_output=True, text=True, env=environment(), timeout=30)
    assert re.fullmatch(VERSION, done.stdout)


def test_the_log_begins_with_what_computes(root: Path) -> None:
    with Served(root) as served:
        served.signal()
        assert served.wait() == 0
    assert re.fullmatch(r"\S+ \S+ INFO streamware.server: " + VERSION.removesuffix(r"\n"), served.log.splitlines()[0])


@pytest.mark.parametrize("module", ["uvicorn", "prometheus_client"])
def test_without_the_extra_it_tells_what_to_install(module: str) -> None:
    script = f"import sys; sys.modules[{module!r}] = None; from streamware.server.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, "serve"], capture_output=True, text=True, env=environment(), timeout=30
    )
    assert done.returncode == 2
    assert done.stderr == f"streamware serve needs {module}: pip install 'streamware[serve]'\n"


def test_addresses() -> None:
    assert parse_address("127.0.0.1:8080") == ("127.0.0.1", 8080)
    assert parse_address("[::1]:0") == ("::1", 0)
    assert str(parse_address("[::1]:80")) == "[::1]:80"
    for wrong in ("", "8080", "::", "[::1]", "host:", "host:-1", "host:٣", "a b:1", "[]:1"):
        with pytest.raises(ValueError):
            parse_address(wrong)


def test_an_ipv6_address_is_printed_as_a_url(root: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:  # this machine has no IPv6: then that is what the operator is told
        done = subprocess.run(
            command("serve", str(root), "--bind", "[::1]:0"), capture_output=True, env=environment(), timeout=30
        )
        assert done.returncode == 2
        return
    with Served(root, bind="[::1]:0") as served:
        assert served.url.startswith("http://[::1]:")
        assert served.ask("/healthz").status == 200


# --- raw files ---------------------------------------------------------------------------------------------------


def test_a_file_comes_with_length_validators_and_ranges(server: Served, root: Path) -> None:
    data = (root / "sub" / "b.bin").read_bytes()
    whole = server.ask("/tree/sub/b.bin")
    assert (whole.status, whole.body) == (200, data)
    etag = whole.headers["ETag"]
    assert etag.startswith('"')
    assert whole.headers["Content-Length"] == str(len(data))
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["Content-Security-Policy"] == "sandbox"
    head = server.ask("/tree/sub/b.bin", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert dict(head.headers) | {"date": ""} == dict(whole.headers) | {"date": ""}
    part = server.ask("/tree/sub/b.bin", headers={"Range": "bytes=1000-1999", "If-Range": etag})
    assert (part.status, part.body) == (206, data[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(data)}"
    stale = server.ask("/tree/sub/b.bin", headers={"Range": "bytes=1000-1999", "If-Range": '"other"'})
    assert (stale.status, stale.body) == (200, data)
    assert server.ask("/tree/sub/b.bin", headers={"Range": "bytes=-1"}).body == data[-1:]
    beyond = server.ask("/tree/sub/b.bin", headers={"Range": "bytes=999999-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
    assert json.loads(beyond.body)["title"] == "The file has no bytes in the range that was asked for."
    assert server.ask("/tree/sub/b.bin", headers={"If-None-Match": etag})[::2] == (304, b"")
    since = {"If-Modified-Since": whole.headers["Last-Modified"]}
    assert server.ask("/tree/sub/b.bin", headers=since).status == 304
    other = server.ask("/tree/sub/b.bin", headers={"If-Match": '"other"'})
    assert (other.status, other.headers["Content-Type"]) == (412, "application/problem+json")
    assert json.loads(other.body)["title"] == "The file is not the version that was asked for."
    assert server.ask("/tree/zero")[::2] == (200, b"")
    assert server.ask("/tree/sub/b.bin", "DELETE").status == 405


def test_several_ranges_come_as_multipart(server: Served, root: Path) -> None:
    data = (root / "sub" / "b.bin").read_bytes()
    answer = server.ask("/tree/sub/b.bin", headers={"Range": "bytes=0-9,50000-50009"})
    assert answer.status == 206
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    boundary = answer.headers.get_param("boundary")
    parts = answer.body.split(f"--{boundary}".encode())[1:-1]
    assert [p.split(b"\r\n\r\n", 1)[1][:-2] for p in parts] == [data[:10], data[50000:50010]]


def test_types() -> None:
    assert media_type("a.TXT") == "text/plain; charset=utf-8"
    assert media_type("x.html") == "text/html"
    assert media_type("x.tar.gz") == "application/gzip"
    assert media_type("x.log") == "text/plain; charset=utf-8"
    assert media_type("x.png") == "image/png"
    assert media_type("Makefile") == "application/octet-stream"
    assert media_type("a.b/http:x.pdf") == "application/pdf"


@pytest.mark.case(22)
@pytest.mark.parametrize(
    "target",
    [
        b"/tree/../outside/secret.txt",
        b"/tree/sub/../../outside/secret.txt",
        b"/tree/%2e%2e/outside/secret.txt",
        b"/tree/%2E%2E%2Foutside%2Fsecret.txt",
        b"/tree/sub%2fb.bin",
        b"/tree%2fa.txt",
        b"/tree/..%5coutside%5csecret.txt",
        b"/tree//etc/passwd",
        b"/tree/%2fetc%2fpasswd",
        b"/tree//a.txt",
        b"/tree/./a.txt",
        b"/tree/a.txt%00",
        b"/tree/a.txt/",
        b"/tree/a.txt/b",
        b"/tree/out-file",
        b"/tree/out-dir",
        b"/tree/out-dir/",
        b"/tree/out-dir/secret.txt",
        b"/tree/nowhere",
        b"/tree/device",
        b"/tree/pipe",
        b"/tree/" + b"x" * 300,
        b"/tree/" + b"x/" * 3000,
        b"/browse/../outside/",
        b"/browse/%2e%2e/",
        b"/browse/out-dir/",
        b"/browse/a.txt/",
        b"/browse/pipe/",
        b"/totals/out-dir/",
        b"/totals/%2e%2e/",
        b"/totals/nothing/",
    ],
)
def test_nothing_outside_root_and_nothing_that_blocks_is_reached(server: Served, target: bytes) -> None:
    answer = server.ask_raw(target)
    assert answer.startswith(b"HTTP/1.1 404"), answer
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2]


@pytest.mark.case(22)
@pytest.mark.parametrize("href", ["/tree/out-file", "/tree/out-dir/", "/tree/pipe", "/tree/nothing", "/tree/nothing/"])
def test_nothing_outside_root_gets_into_a_bundle(server: Served, href: str) -> None:
    answer = server.ask(f"/bundle?path={quote(href)}&path=/tree/a.txt")
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert b"secret\n" not in answer.body


def test_dots_in_an_href_are_resolved_below_the_tree(server: Served) -> None:
    assert server.ask("/bundle?path=/tree/sub/../a.txt").status == 200
    assert server.ask("/bundle?path=/tree/%252e%252e/a.txt").status in (400, 404)


def test_a_folder_asked_for_as_a_file_leads_to_its_page(server: Served) -> None:
    for target, way in (
        ("/tree/sub", "../browse/sub/"),
        ("/tree/sub/", "../../browse/sub/"),
        ("/tree/sub/deep", "../../browse/sub/deep/"),
        ("/tree/", "../"),
        ("/browse/sub", "sub/"),
        ("/browse/sub/deep", "deep/"),
        ("/browse/", "../"),
    ):
        answer = server.ask(target)
        assert (answer.status, answer.headers["Location"]) == (302, way)


def test_names_that_are_no_utf8_work_by_their_bytes(server: Served) -> None:
    assert server.ask("/tree/caf%E9.txt")[::2] == (200, b"raw")
    answer = server.ask("/bundle?" + urlencode({"path": "/tree/caf%E9.txt", "name": "x.zip"}))
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.namelist() == ["caf\ufffd.txt"]
        assert archive.read("caf\ufffd.txt") == b"raw"


# --- folders -----------------------------------------------------------------------------------------------------


def test_a_folder_as_json(server: Served, root: Path) -> None:
    answer = server.ask("/browse/sub/", headers={"Accept": "application/json"})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Vary"] == "Accept"
    assert server.ask("/browse/sub/?format=json").body == answer.body
    folder = json.loads(answer.body)
    modified = moment(int((root / "sub" / "b.bin").stat().st_mtime))
    assert folder["path"] == "/tree/sub/"
    assert [e["name"] for e in folder["entries"]] == ["deep", "empty", "b.bin", "inside.txt"]
    assert folder["entries"][2] == {
        "name": "b.bin",
        "type": "file",
        "size": 102400,
        "modified": modified,
        "path": "/tree/sub/b.bin",
    }
    assert folder["entries"][0]["type"] == "directory"
    assert folder["entries"][0]["path"] == "/tree/sub/deep/"
    assert folder["total"] == {"files": 2, "directories": 2, "bytes": 102406}


def test_what_is_not_for_anybody_is_not_listed(server: Served) -> None:
    names = [e["name"] for e in json.loads(server.ask("/?format=json").body)["entries"]]
    assert names == ["sub", ODD, ".hidden", NASTY, "a.txt", "big.bin", "caf\ufffd.txt", "zero"] or set(names) == {
        "sub",
        ODD,
        ".hidden",
        NASTY,
        "a.txt",
        "big.bin",
        "caf\ufffd.txt",
        "zero",
    }


def test_every_entry_can_be_taken_by_its_path(server: Served) -> None:
    entries = json.loads(server.ask("/?format=json").body)["entries"]
    taken = [e["path"] for e in entries if e["name"] != "big.bin"]
    answer = server.ask("/bundle?" + urlencode({"path": taken, "name": "all.zip"}, doseq=True))
    assert answer.status == 200, answer.body
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        assert archive.read("sub/deep/c.txt") == b"gamma"
        assert archive.read("sub/inside.txt") == b"alpha\n"
        assert "sub/empty/" in archive.namelist()
        assert archive.read(ODD.replace("?", "_")) == b"odd" if ODD.replace("?", "_") in archive.namelist() else True
        assert len(archive.namelist()) == len(taken) - 1 + 4


def test_totals_add_up_what_a_bundle_would_hold(server: Served) -> None:
    answer = server.ask("/totals/sub/")
    assert json.loads(answer.body) == {"path": "/tree/sub/", "files": 3, "bytes": 102411, "complete": True}


class Page(HTMLParser):
    """What a browser without scripts would know of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.values: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.form: dict[str, str | None] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        got = dict(attrs)
        self.tags.append(tag)
        if tag == "input" and got.get("name") == "path":
            self.values.append(got["value"] or "")
        elif tag == "a":
            self.links.append(got["href"] or "")
        elif tag == "form" and got.get("id") == "pick":
            self.form = got

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_escapes_names_and_allows_nothing_inline(server: Served) -> None:
    answer = server.ask("/", headers={"Accept": "text/html,*/*;q=0.8"})
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    for rule in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'self'"):
        assert rule in policy
    assert "unsafe" not in policy
    text = answer.body.decode()
    page = Page(text)
    assert page.tags.count("script") == 1
    assert NASTY in page.text
    assert not re.search(r"\sstyle=|\son[a-z]+=|https?://(?!www\.w3\.org/)", text)
    assert server.ask("/assets/page.css").status == 200
    assert server.ask("/assets/page.js").headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert server.ask("/assets/shell.html").status == 404


def test_the_form_works_without_scripts(server: Served) -> None:
    page = Page(server.ask("/browse/sub/").body.decode())
    assert page.form["method"] == "post"
    assert page.form["action"] == "../../bundle"
    body = urlencode({"path": page.values, "name": "sub", "format": "tar"}, doseq=True).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = server.ask("/bundle", "POST", form, body)
    assert answer.status == 200
    assert 'filename="sub.tar"' in answer.headers["Content-Disposition"]
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        # relative to the folder that was looked at
        assert set(archive.getnames()) == {"b.bin", "deep/c.txt", "empty", "inside.txt"}
    nothing = server.ask("/bundle", "POST", form, b"name=sub&format=zip")
    assert nothing.status == 400


def test_the_whole_folder_is_one_link_that_can_be_resumed(server: Served) -> None:
    page = Page(server.ask("/browse/sub/").body.decode())
    link = next(x for x in page.links if "bundle?" in x)
    target = "/" + link.removeprefix("../../")
    whole = server.ask(target)
    assert whole.status == 200
    with zipfile.ZipFile(io.BytesIO(whole.body)) as archive:
        assert archive.namelist() == ["b.bin", "deep/c.txt", "empty/", "inside.txt"]
    rest = server.ask(target, headers={"Range": "bytes=70000-", "If-Range": whole.headers["ETag"]})
    assert (rest.status, rest.body) == (206, whole.body[70000:])
    assert server.ask(target, "HEAD").headers["Content-Length"] == str(len(whole.body))


def test_a_filter_and_pages_work_without_scripts(tmp_path: Path) -> None:
    for n in range(2500):
        (tmp_path / f"part{n}.log").touch()
    (tmp_path / "other.txt").touch()
    with Served(tmp_path) as served:
        first = Page(served.ask("/?q=part").body.decode())
        assert len(first.values) == 2000
        assert "part2.log" in first.text
        assert first.text.index("part2.log") < first.text.index("part10.log")
        onward = next(x for x in first.links if "page=2" in x)
        second = Page(served.ask("/" + onward).body.decode())
        assert len(second.values) == 500
        assert not set(first.values) & set(second.values)
        assert "Nothing here has that in its name." in served.ask("/?q=nothing").body.decode()


def test_sorting() -> None:
    items = [Item("b", True, 0, 5), Item("f10", False, 1, 3), Item("f2", False, 9, 1), Item("A1", False, 5, 2)]
    names = lambda view: [i.name for i in order(items, view)]  # noqa: E731
    assert names(View()) == ["b", "A1", "f2", "f10"]
    assert names(View(descending=True)) == ["b", "f10", "f2", "A1"]
    assert names(View(sort="size", descending=True)) == ["b", "f2", "A1", "f10"]
    assert names(View(sort="time")) == ["b", "f2", "A1", "f10"]
    assert names(View(query="F")) == ["f2", "f10"]
    order([Item("9" * 250, False, 0, 0), Item("²", False, 0, 0)], View())  # digits that are no numbers


def test_places_are_read_segment_by_segment() -> None:
    assert Place.of(b"") == ((), True)
    assert Place.of(b"a/b%20c") == (("a", "b c"), False)
    for wrong in (b"/", b"a//b", b"./a", b"a/..", b"a/%2e%2e/b", b"a%2Fb", b"a%00"):
        assert Place.of(wrong) is None


def test_a_folder_beyond_the_limit_is_refused_and_its_total_says_so(tmp_path: Path) -> None:
    for n in range(6):
        (tmp_path / str(n)).touch()
    files = Root(str(tmp_path), max_members=5)
    assert files.total(Place((), True)) == (5, 0, False)
    assert files.listing(Place((), True)).cut
    assert len(Root(str(tmp_path), max_members=6).members("/tree/") or ()) == 6


def test_moments() -> None:
    assert moment(0) == "1970-01-01T00:00:00Z"
    assert moment(-1) == "1969-12-31T23:59:59Z"
    assert moment(10**15) is None


def test_it_is_quiet_and_logs_requests_when_asked_to(root: Path) -> None:
    for options, logged in ((), False), (("--access-log",), True):
        with Served(root, *options) as served:
            served.ask("/tree/a.txt")
            served.ask("/bundle?path=/tree/a.txt")
            served.signal()
            assert served.wait() == 0
        assert ('"GET /tree/a.txt HTTP/1.1" 200' in served.log) is logged
        assert logged or served.log.count("\n") == 2  # what computes, and where uploads go


# --- problems and headers ----------------------------------------------------------------------------------------


def test_an_unknown_path_is_a_problem_for_programs_and_a_page_for_people(server: Served) -> None:
    told = server.ask("/nothing/here")
    assert (told.status, told.headers["Content-Type"]) == (404, "application/problem+json")
    assert json.loads(told.body)["status"] == 404
    shown = server.ask("/nothing/here", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (shown.status, shown.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert int(shown.headers["Content-Length"]) == len(shown.body)
    page = Page(shown.body.decode())
    assert "There is nothing here." in page.text
    assert "../" in page.links
    failed = server.ask("/bundle?path=/tree/%253Cb%253E", headers={"Accept": "text/html"})
    assert failed.status == 404
    assert "<b>" in "".join(Page(failed.body.decode()).text)


def test_every_answer_carries_the_guards(server: Served) -> None:
    for target in ("/", "/tree/a.txt", "/bundle?path=/tree/a.txt", "/healthz", "/metrics", "/nothing", "/tree/sub"):
        headers = server.ask(target).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        # A page's own forms must be able to say where they come from.
        assert headers["Referrer-Policy"] == ("same-origin" if target == "/" else "no-referrer")
        assert headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers.get_all("X-Content-Type-Options") == ["nosniff"]


# --- upstreams ---------------------------------------------------------------------------------------------------


class _Upstream(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/logs/stall":
            self.server.stalled.wait(30)  # type: ignore[attr-defined]
        data = b"line\n" * 1000
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # somebody who left while we stalled
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def upstream() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Upstream) as server:
        server.stalled = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.stalled.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join(10)


def manifest(url: str) -> bytes:
    return json.dumps(
        {"name": "mixed.zip", "members": [{"name": "far.log", "url": url}, {"name": "near.txt", "path": "/tree/a.txt"}]}
    ).encode()


def test_a_manifest_may_name_urls_below_an_allowed_prefix_and_no_others(
    root: Path, upstream: ThreadingHTTPServer
) -> None:
    origin = f"http://127.0.0.1:{upstream.server_port}"
    with Served(root, "--allow", f"{origin}/logs/") as served:
        headers = {"Content-Type": "application/json"}
        answer = served.ask("/bundle", "POST", headers, manifest(f"{origin}/logs/x"))
        assert answer.status == 200, answer.body
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.read("far.log") == b"line\n" * 1000
            assert archive.read("near.txt") == b"alpha\n"
        refused = served.ask("/bundle", "POST", headers, manifest(f"{origin}/other/x"))
        assert refused.status == 403
        figures = metrics(served)
        assert figures["streamware_upstream_opens_total"] >= 1


# --- figures -----------------------------------------------------------------------------------------------------


def metrics(served: Served) -> dict[str, float]:
    answer = served.ask("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    lines = [line for line in answer.body.decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest.mark.parametrize("workers", [1, 2])
def test_metrics_count_downloads_over_all_workers(root: Path, workers: int) -> None:
    with Served(root, "--workers", str(workers)) as served:
        before = metrics(served)
        assert before['streamware_bundles_total{outcome="complete"}'] == 0
        # Connections that stay open reach every worker, and none of these clients can be taken for one that left early.
        with contextlib.ExitStack() as stack:
            sizes = []
            for _ in range(12):
                connection = stack.enter_context(contextlib.closing(served.connect()))
                connection.request("GET", "/bundle?path=/tree/a.txt&path=/tree/sub/deep/c.txt")
                sizes.append(len(connection.getresponse().read()))

            def counted() -> bool:
                now = metrics(served)
                complete = now['streamware_bundles_total{outcome="complete"}']
                return complete == 12 and now["streamware_active_downloads"] == 0

            wait_until(counted)
        after = metrics(served)
        assert after["streamware_bytes_out_total"] == sum(sizes)
        assert after["streamware_bytes_in_total"] == 12 * (6 + 5)
        assert after["streamware_members_total"] == 24
        assert after["streamware_time_to_first_byte_seconds_count"] == 12


# --- ending ------------------------------------------------------------------------------------------------------


def begin(served: Served, target: str) -> http.client.HTTPResponse:
    """A download whose client reads a little and then waits; the response owns its connection."""
    connection = served.connect()
    connection.request("GET", target, headers={"Connection": "close"})
    response = connection.getresponse()
    assert response.status == 200
    assert response.read(1000)
    return response


@pytest.mark.case(30)
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_running_downloads_end_and_takes_no_new_ones(root: Path, workers: str, number: int) -> None:
    with Served(root, "--workers", workers) as served, begin(served, "/bundle?path=/tree/big.bin") as response:
        length = int(response.headers["Content-Length"])
        served.signal(number)

        def refuses() -> bool:
            try:
                socket.create_connection((served.host, served.port), timeout=5).close()
            except OSError:
                return True
            return False

        wait_until(refuses)
        assert served.process.poll() is None
        assert 1000 + len(response.read()) == length
        assert served.wait() == 0
        assert "Traceback" not in served.log


@pytest.mark.case(30)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_grace_has_an_end(root: Path, workers: str) -> None:
    with Served(root, "--grace", "1", "--workers", workers) as served, begin(served, "/tree/big.bin") as response:
        started = time.monotonic()
        served.signal()
        assert served.wait(8) == 0
        assert time.monotonic() - started > 0.9
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):  # it is seen to be cut off
            response.read()


@pytest.mark.case(30)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_ends_at_once(root: Path, workers: str) -> None:
    with Served(root, "--grace", "600", "--workers", workers) as served, begin(served, "/tree/big.bin"):
        served.signal(signal.SIGINT)
        time.sleep(0.5)
        assert served.process.poll() is None
        served.signal(signal.SIGINT)
        served.wait(5)


@pytest.mark.case(30)
def test_an_upstream_that_never_answers_does_not_keep_the_server(root: Path, upstream: ThreadingHTTPServer) -> None:
    origin = f"http://127.0.0.1:{upstream.server_port}"
    body = manifest(f"{origin}/logs/stall")
    with (
        Served(root, "--grace", "1", "--allow", f"{origin}/logs/") as served,
        contextlib.closing(served.connect()) as connection,
    ):
        connection.request("POST", "/bundle", body=body, headers={"Content-Type": "application/json"})
        time.sleep(0.5)
        served.signal()
        assert served.wait(8) == 0
        assert "Traceback" not in served.log


def test_workers_are_replaced_and_leave_nothing_behind(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Served(root, "--workers", "2") as served:
        assert len(list(tmp_path.iterdir())) == 1
        children = _children(served.process.pid)
        assert len(children) == 2
        os.kill(children[0], signal.SIGKILL)
        wait_until(lambda: len(set(_children(served.process.pid)) - {children[0]}) == 2)
        replaced = _children(served.process.pid)
        for _ in range(30):  # long enough for a replacement that cannot live to have died
            assert served.ask("/healthz").status == 200
            time.sleep(0.1)
        assert _children(served.process.pid) == replaced
        served.signal()
        assert served.wait() == 0
        assert served.log.count("starting another") == 1
        assert "Traceback" not in served.log
        assert list(tmp_path.iterdir()) == []


def test_workers_end_with_their_parent(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # nobody is left to remove what it held
    with Served(root, "--workers", "2") as served:
        children = _children(served.process.pid)
        served.process.kill()
        wait_until(lambda: not any(_alive(pid) for pid in children))


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, timeout=10)
    return [int(line) for line in found.stdout.split()]


def _alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, timeout=10).stdout
    return bool(state) and not state.startswith("Z")


# --- the loop ----------------------------------------------------------------------------------------------------


def test_a_large_folder_does_not_hold_up_others(tmp_path: Path) -> None:
    for n in range(20_000):
        (tmp_path / f"file-{n:05}.dat").touch()
    with Served(tmp_path) as served:
        slowest, done = 0.0, threading.Event()

        def watch() -> None:
            nonlocal slowest
            while not done.is_set():
                started = time.monotonic()
                assert served.ask("/healthz").status == 200
                slowest = max(slowest, time.monotonic() - started)
                time.sleep(0.01)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            listed = json.loads(served.ask("/?format=json").body)
            page = served.ask("/")
            members = served.ask("/bundle?path=/tree/&name=all.tar", "HEAD")
        finally:
            done.set()
            watcher.join(20)
        assert len(listed["entries"]) == 20_000
        assert page.status == 200
        assert members.status == 200
        assert slowest < 2, f"somebody waited {slowest:.2f} s"


def test_settings_refuse_nonsense(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--allow"):
        Settings(root=str(tmp_path), allow=("x",))
    assert Settings(root=str(tmp_path)).policy().allow == ()
