"""Manifests and names that are wrong or hostile, sent to real servers: refused with the place of the fault, or
rewritten as docs/names.md says; and what other programs then extract stays in its folder, every member of it.

The rule of this file: no row of it may make the server ask an upstream anything.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
import time
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamware import Archiver, Bundle, Conditions, Policy
from streamware.errors import EmptyBundle
from streamware.manifest import from_json
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware
from tests.faults.upstreams import ScriptedUpstream, content
from tests.hosts.inner_site import asgi_site, wsgi_site
from tests.hosts.servers import Response, Server, uvicorn, wsgiref_server

application = AsyncBundleMiddleware(asgi_site)

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Hosts:
    """The same site under a policy that refuses unsafe names and under one that rewrites them, and an upstream."""

    strict: Server
    clean: Server
    upstream: ScriptedUpstream


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with ExitStack() as stack:
        upstream = stack.enter_context(ScriptedUpstream(content(b"never asked")))
        servers = [
            stack.enter_context(
                wsgiref_server(
                    BundleMiddleware(wsgi_site, archiver=Archiver(Policy(allow=(upstream.url("/"),), names=names)))
                )
            )
            for names in ("strict", "clean")
        ]
        yield Hosts(*servers, upstream)
        assert upstream.requests == []


def post(server: Server, body: bytes, path: str = "/bundle") -> Response:
    return server.request("POST", path, JSON, body)


def manifest(*members: object, **settings_: object) -> bytes:
    return json.dumps({"name": "x.zip", "members": members, **settings_}).encode()


def problem(response: Response, status: int = 400) -> dict[str, Any]:
    assert response.status == status, response.body[:300]
    assert response.header("content-type") == "application/problem+json"
    found = json.loads(response.body)
    assert found["status"] == status
    found["kind"] = found["type"].removeprefix("urn:streamware:problem:")
    return dict(found)


# --- what is no manifest -------------------------------------------------------------------------------------------

GOOD = b'{"name": "g/"}'


def member(fields: bytes) -> bytes:
    """A manifest whose second member has these fields beside a URL that would be asked for its size."""
    return b'{"name": "x.zip", "members": [' + GOOD + b', {"name": "m", "url": "URL", ' + fields + b"}]}"


@pytest.mark.case(34)
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", ""),
        (b"null", ""),
        (b"[]", ""),
        (b'"x"', ""),
        (b"{", ""),
        (b'{"name": "x"}', ""),
        (b'{"members": [{"name": "d/"}]}', ""),
        (b"\xff\xfe{}", ""),
        (b'{"name": "x", "members": [{"name": "d/"}]} {}', ""),
        (b'{"name": "x", "members": {}}', "/members"),
        (b'{"name": "x", "members": 5}', "/members"),
        (b'{"name": 5, "members": []}', "/name"),
        (b'{"name": "x", "name": "y", "members": []}', "/name"),
        (b'{"name": "x", "format": "rar", "members": []}', "/format"),
        (b'{"name": "x", "compress": true, "members": []}', "/compress"),
        (b'{"name": "x", "on_error": "ignore", "members": []}', "/on_error"),
        (b'{"name": "x", "comment": ["x"], "members": []}', "/comment"),
        (b'{"name": "x", "headers": {"Set-Cookie": "a=b"}, "members": []}', "/headers"),
        (b'{"name": "x", "members": [null]}', "/members/0"),
        (b'{"name": "x", "members": ["a"]}', "/members/0"),
        (b'{"name": "x", "members": [{}]}', "/members/0"),
        (b'{"name": "x", "members": [{"name": "a"}]}', "/members/0"),
        (b'{"name": "x", "members": [{"name": "a", "text": "", "path": "/a"}]}', "/members/0"),
        (b'{"name": "x", "members": [{"name": "a", "path": "a"}]}', "/members/0/path"),
        (b'{"name": "x", "members": [{"name": "a", "path": "//h/a"}]}', "/members/0/path"),
        (b'{"name": "x", "members": [{"name": "\\ud83d", "text": ""}]}', "/members/0/name"),
        (b'{"name": "x", "members": [{"name": "a", "text": "\\udfff"}]}', "/members/0/text"),
        (b'{"name": "x", "members": [{"name": "a", "text": "", "a/b~c": 1}]}', "/members/0/a~1b~0c"),
        (member(b'"size": -1'), "/members/1/size"),
        (member(b'"size": 1.0'), "/members/1/size"),
        (member(b'"size": 1e3'), "/members/1/size"),
        (member(b'"size": 1e999'), "/members/1/size"),
        (member(b'"size": 9223372036854775808'), "/members/1/size"),
        (member(b'"size": ' + b"9" * 5000), "/members/1/size"),
        (member(b'"size": NaN'), "/members/1/size"),
        (member(b'"size": Infinity'), "/members/1/size"),
        (member(b'"size": -Infinity'), "/members/1/size"),
        (member(b'"size": true'), "/members/1/size"),
        (member(b'"size": "5"'), "/members/1/size"),
        (member(b'"size": 1, "size": 2'), "/members/1/size"),
        (member(b'"size": 1, "si\\u007ae": 2'), "/members/1/size"),
        (member(b'"crc32": 5'), "/members/1/crc32"),
        (member(b'"crc32": "123"'), "/members/1/crc32"),
        (member(b'"crc32": "0x123456"'), "/members/1/crc32"),
        (member(b'"modified": 1709209800'), "/members/1/modified"),
        (member(b'"modified": "2024-02-30T00:00:00Z"'), "/members/1/modified"),
        (member(b'"modified": "2024-02-29T00:00:00"'), "/members/1/modified"),
        (member(b'"mode": 420'), "/members/1/mode"),
        (member(b'"mode": "4755"'), "/members/1/mode"),
        (member(b'"etag": "bare"'), "/members/1/etag"),
        (member(b'"etag": "\\"a\\r\\nb\\""'), "/members/1/etag"),
        (member(b'"mirrors": "URL"'), "/members/1/mirrors"),
        (member(b'"mirrors": [1]'), "/members/1/mirrors"),
        (member(b'"comment": 5'), "/members/1/comment"),
        (member(b'"may_exceed_4gib": 1'), "/members/1/may_exceed_4gib"),
        (member(b'"unknown": 1'), "/members/1/unknown"),
        (b"[" * 200_000, ""),
        (b'{"a":' * 200_000, "/a"),
        (b'{"name": "x", "members": ' + b"[" * 200_000, "/members/0"),
        (b'{"name": "x", "members": [' + b'{"name":' * 100_000, "/members/0/name"),
        (member(b'"size": ' + b"[" * 100_000 + b"]" * 100_000), "/members/1/size"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[:60].decode("latin-1"),
)
def test_what_is_wrong_is_pointed_at(hosts: Hosts, body: bytes, pointer: str) -> None:
    for path in ("/bundle", "/bundle/links"):
        found = problem(post(hosts.strict, body.replace(b"URL", hosts.upstream.url("/m").encode()), path))
        assert found["pointer"] == pointer
        assert found["kind"] in ("invalid-manifest", "invalid-target")
        assert found["detail"]
        if pointer.startswith("/members/"):
            assert found["members"][0]["index"] == int(pointer.split("/")[2])


@pytest.mark.case(35)
def test_an_empty_bundle_is_refused_however_it_is_asked_for(hosts: Hosts) -> None:
    server = hosts.strict
    found = problem(post(server, manifest()))
    assert (found["kind"], found["pointer"]) == ("empty-bundle", "/members")
    assert problem(post(server, manifest(), "/bundle/links"))["kind"] == "empty-bundle"
    assert problem(server.request("POST", "/bundle", FORM, b"name=x.zip"))["kind"] == "empty-bundle"
    assert problem(server.get("/bundle"))["kind"] == "empty-bundle"
    assert problem(server.get("/list?body=%0a"), 500)["kind"] == "internal"  # the site's own list
    with pytest.raises(EmptyBundle):
        Archiver().open(Bundle("x.zip"))


@pytest.mark.case(33)
@pytest.mark.parametrize("flavour", ["wsgi", "asgi"])
def test_a_manifest_that_is_too_long_is_refused_unread(hosts: Hosts, flavour: str) -> None:
    def ask(server: Server, path: str) -> None:
        connection = server.connect(5)  # none of the 50 MB is ever sent
        try:
            connection.putrequest("POST", path)
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(50_000_000))
            connection.endheaders()
            response = connection.getresponse()
            assert response.status == 413
            assert json.loads(response.read())["type"] == "urn:streamware:problem:limit-exceeded"
        finally:
            connection.close()

    with ExitStack() as stack:
        server = hosts.strict if flavour == "wsgi" else stack.enter_context(uvicorn(f"{__name__}:application"))
        ask(server, "/bundle")
        ask(server, "/bundle/links")


@pytest.mark.case(33)
def test_too_many_members_are_refused_before_anybody_is_asked(hosts: Hosts) -> None:
    url = hosts.upstream.url("/m")
    body = b'{"name":"x","members":[' + b",".join([f'{{"name":"a","url":"{url}"}}'.encode()] * 100_001) + b"]}"
    assert len(body) < 16 * 1024 * 1024
    found = problem(post(hosts.strict, body), 413)
    assert (found["kind"], found["pointer"]) == ("limit-exceeded", "/members")
    form = b"&".join([b"path=/a.txt"] * 100_001)
    assert problem(hosts.strict.request("POST", "/bundle", FORM, form), 413)["kind"] == "limit-exceeded"


def large(count: int) -> bytes:
    return manifest(
        *(
            {
                "name": f"host-{i % 64}/app {i:06}.log",
                "url": f"http://127.0.0.1:9/host-{i % 64}/app-{i:06}.log",
                "size": i * 31 + 1,  # of an empty one the server would be asked
                "crc32": f"{i * 2654435761 % 2**32:08x}",
            }
            for i in range(count)
        )
    )


@pytest.mark.case(33)
def test_the_largest_manifest_is_planned_in_linear_time_and_memory() -> None:
    archiver = Archiver(Policy(allow=("http://127.0.0.1:9/",)))

    def plan(body: bytes) -> float:
        began = time.perf_counter()
        assert archiver.respond(from_json(body, archiver.policy), Conditions("HEAD")).status == 200
        return time.perf_counter() - began

    def peak(count: int) -> float:
        body = large(count)
        tracemalloc.start()
        try:
            plan(body)
            return tracemalloc.get_traced_memory()[1] / count
        finally:
            tracemalloc.stop()

    small, most = large(5_000), large(50_000)
    assert plan(most) < 30 * min(plan(small) for _ in range(3)) + 1  # ten times as many; squared would be a hundred
    first, second = peak(2_000), peak(8_000)
    assert second < 1.2 * first
    assert second < 1500  # bytes a member


@pytest.mark.case(33)
def test_the_largest_manifest_is_served(hosts: Hosts) -> None:
    members = [{"name": f"d{i % 100}/{i}", "text": ""} for i in range(100_000)]
    began = time.monotonic()
    response = post(hosts.strict, manifest(*members))
    assert response.status == 200
    assert time.monotonic() - began < 30
    with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
        assert len(archive.infolist()) == 100_000


# --- names ---------------------------------------------------------------------------------------------------------

HOSTILE = [
    "..",
    "../x",
    "a/../../x",
    "a/..",
    ".",
    "./x",
    "a/./b",
    "/",
    "/etc/passwd",
    "//host/share/x",
    "a//b",
    "\\\\host\\share\\x",
    "..\\..\\x",
    "a\\b",
    "C:",
    "C:/x",
    "C:\\x",
    "c:x",
    "a/C:x",
    "x\0.txt",
    "x\n.txt",
    "x\r\nSet-Cookie: a",
    "x\x1b[31m",
    "x\x7f",
    "x\x85",
    "x\u2028y",
    "x\u202egpj.exe",
    "",
    " ",
    "...",
    "x.",
    "x ",
    "a./b",
    "a /b",
    "CON",
    "con.txt",
    "NUL",
    "a/nul/b",
    "COM1",
    "lpt9.log",
    "COM\xb9",
    "aux .txt",
    "x" * 256,
    "é" * 128,
    "a/" + "x" * 300 + ".txt/b",
    "e" + "\u0301" * 40,
]
TOO_LONG = ["x/" * 600 + "x", "/".join(["x" * 200] * 6), "/".join(["x" * 250] * 262), "/".join("a" * 65)]


@pytest.mark.case(36)
@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[1:40])
def test_a_hostile_name_is_refused_with_its_place(hosts: Hosts, name: str) -> None:
    fields = {"name": name} if name.endswith("/") else {"name": name, "text": "x"}
    for bundle in ("x.zip", "x.tar"):
        found = problem(post(hosts.strict, manifest({"name": "g/"}, fields, name=bundle)))
        assert found["kind"] == "invalid-name"
        assert [at["index"] for at in found["members"]] == [1]


@pytest.mark.case(36)
@pytest.mark.parametrize("name", TOO_LONG, ids=lambda name: name[:8])
def test_a_name_that_is_too_long_or_deep_is_refused_whatever_the_policy(hosts: Hosts, name: str) -> None:
    for server in (hosts.strict, hosts.clean):
        found = problem(post(server, manifest({"name": "g/"}, {"name": name, "text": "x"})))
        assert found["kind"] == "invalid-name"
        assert [at["index"] for at in found["members"]] == [1]


@pytest.mark.case(36)
@pytest.mark.parametrize("name", [b"\\ud800", b"a\\udfffb", b"\\udfff\\ud800"], ids=ascii)
def test_half_a_character_is_refused_whatever_the_policy(hosts: Hosts, name: bytes) -> None:
    body = b'{"name": "x", "members": [{"name": "' + name + b'", "text": ""}]}'
    for server in (hosts.strict, hosts.clean):
        assert problem(post(server, body))["pointer"] == "/members/0/name"


def unzip(archive: Path, into: Path) -> None:
    done = subprocess.run(["unzip", "-q", "-o", str(archive), "-d", str(into)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def python_zip(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(into)


def python_tar(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as opened:
        for info in opened:
            assert not info.issym()
            assert not info.islnk()
        opened.extractall(into, **({"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}))


def gnu_tar(archive: Path, into: Path) -> None:
    # -P: names are taken as they stand, without the program's own care
    done = subprocess.run(["tar", "-xPf", str(archive), "-C", str(into)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


EXTRACTORS: dict[str, list[Callable[[Path, Path], None]]] = {"zip": [python_zip, unzip], "tar": [python_tar, gnu_tar]}


def extracted(data: bytes, format: str, count: int, extractors: list[Callable[[Path, Path], None]]) -> list[str]:
    """Extract with each program, deep in a folder of its own; ``count`` files must be there and nothing outside.

    Gives the names as they stand in the archive.
    """
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch, f"x.{format}")
        archive.write_bytes(data)
        for number, extract in enumerate(extractors):
            around = Path(scratch, f"around-{number}")
            into = around / "a" / "b" / "c"
            into.mkdir(parents=True)
            extract(archive, into)
            outside = [str(p.relative_to(around)) for p in around.rglob("*") if into not in p.parents]
            assert sorted(outside) == ["a", "a/b", "a/b/c"]
            assert sum(1 for p in into.rglob("*") if p.is_file()) == count
        if format == "zip":
            with zipfile.ZipFile(archive) as opened:
                names = [info.orig_filename for info in opened.infolist()]
        else:
            with tarfile.open(archive) as opened:
                names = [info.name + ("/" if info.isdir() else "") for info in opened]
    for name in names:
        assert_safe(name)
    return names


RESERVED = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    "CONIN$",
    "CONOUT$",
    *(f"{d}{n}" for d in ("COM", "LPT") for n in "0123456789¹²³"),
}


def assert_safe(name: str) -> None:
    """Said in other words than the code says it."""
    assert unicodedata.is_normalized("NFC", name)
    assert not any(c == "\\" or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)
    assert not any(c in name for c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert len(name.encode()) <= 1100
    for part in name.removesuffix("/").split("/"):
        assert part not in ("", ".", "..")
        assert part[-1] not in ". "
        assert not (part[1:2] == ":" and part[0].isascii() and part[0].isalpha())
        assert len(part.encode()) <= 255
        assert part.partition(".")[0].partition(":")[0].rstrip(" ").upper() not in RESERVED


@pytest.mark.case(36)
@pytest.mark.judge("unzip", "tar")
@pytest.mark.parametrize("format", ["zip", "tar"])
def test_hostile_names_are_rewritten_and_extracted_by_others(hosts: Hosts, format: str) -> None:
    names = [name for name in HOSTILE if not name.endswith("/")]
    members = [{"name": name, "text": str(i)} for i, name in enumerate(names)]
    response = post(hosts.clean, manifest(*members, name=f"x.{format}"))
    assert response.status == 200
    found = extracted(response.body, format, len(names), EXTRACTORS[format])
    assert len(found) == len(names)
    bundle = Bundle(f"x.{format}")
    for i, name in enumerate(names):
        bundle.add_data(name, str(i))
    assert b"".join(Archiver().open(bundle)) == response.body


@pytest.mark.case(36)
@pytest.mark.parametrize("names", ["strict", "clean"])
def test_paths_of_the_app_name_their_members_safely(hosts: Hosts, names: str) -> None:
    """A query, whose names nobody wrote down: they are the last parts of paths, and always rewritten."""
    server = hosts.strict if names == "strict" else hosts.clean
    paths = ["/echo?a=CON", "/echo?x=..%5c..%5cx", "/echo?x=%00"]
    response = server.get("/bundle?" + urlencode([("path", path) for path in paths]))
    assert response.status == 200
    extracted(response.body, "zip", 3, [python_zip])
    problem(server.get("/bundle?path=/a.txt%2500"))


# --- names that meet -----------------------------------------------------------------------------------------------

MEETING = [
    ["a", "a"],
    ["a", "a", "a (1)"],
    ["caf\u00e9", "cafe\u0301"],
    ["\u212b", "\u00c5", "A\u030a"],
    ["README", "readme", "ReadMe"],
    ["stra\u00dfe", "STRASSE", "strasse"],
    ["\ufb01le", "FILE", "file"],
    ["\u212a", "k", "K"],
    ["\u0130", "i\u0307"],
    ["\u03a3", "\u03c3", "\u03c2"],
    ["\u1e9e", "ss"],
    ["a", "a/b"],
    ["a/b", "a"],
    ["A/b", "a"],
    ["A/b", "a/B"],
    ["a", "A/b/c", "a/b/C"],
    ["e\u0301/x", "\u00c9", "\u00e9/X"],
    ["a ", "a_"],
    ["../a", "a"],
    ["a/./b", "a/b"],
    ["x" * 300, "x" * 301],
]


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def assert_apart(names: list[str]) -> None:
    """No two are the same to a file system that knows neither case nor normal form, folders on the way included."""
    files = [folded(name) for name in names if not name.endswith("/")]
    folders = {folded(name[:at]) for name in names for at, c in enumerate(name) if c == "/"}
    assert len(set(files)) == len(files)
    assert not folders.intersection(files)


@pytest.mark.case(37)
@pytest.mark.judge("unzip", "tar")
@pytest.mark.parametrize("format", ["zip", "tar"])
@pytest.mark.parametrize("wanted", MEETING, ids=lambda wanted: ascii(wanted)[:40])
def test_names_that_meet_are_told_apart(hosts: Hosts, wanted: list[str], format: str) -> None:
    members = [{"name": name, "text": str(i)} for i, name in enumerate(wanted)]
    response = post(hosts.clean, manifest(*members, name=f"x.{format}"))
    assert response.status == 200
    names = extracted(response.body, format, len(wanted), EXTRACTORS[format])
    assert len(names) == len(wanted)
    assert_apart(names)
    strict = post(hosts.strict, manifest(*members, name=f"x.{format}"))
    assert strict.status == 400 or strict.body == response.body


@pytest.mark.case(37)
@pytest.mark.parametrize("format", ["zip", "tar"])
@pytest.mark.parametrize("wanted", MEETING, ids=lambda wanted: ascii(wanted)[:40])
def test_names_that_meet_are_refused_where_code_says_so(wanted: list[str], format: str) -> None:
    bundle = Bundle(f"x.{format}", duplicates="refuse")
    for name in wanted:
        bundle.add_data(name, "x")
    reply = Archiver().respond(bundle)
    found = json.loads(b"".join(reply.body)) if reply.status != 200 else {}
    assert (reply.status, found.get("type")) == (400, "urn:streamware:problem:invalid-name")


PARTS = st.one_of(
    st.sampled_from(
        ["a", "A", "b", "..", ".", "", "con", "C:", "e\u0301", "\u00e9", "\u00df", "SS", "\u212a", "k", "K", "\u0130"]
    ),
    st.sampled_from(
        ["a (1)", "A (1)", "a.txt", "a (1).txt", "x ", "x.", "x_", "\\", "\u1fb3", "\u0345", "\u0323", "\ufb03"]
    ),
    st.text(max_size=4),
)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@pytest.mark.case(36, 37)
@settings(max_examples=60)
@given(st.lists(NAMES, min_size=1, max_size=12), st.sampled_from(["zip", "tar"]), st.sampled_from(["clean", "strict"]))
def test_no_two_names_meet_and_none_escapes(wanted: list[str], format: str, names: Any) -> None:
    """What is accepted, that is: a bundle may be refused as a whole, for one of its names."""
    bundle = Bundle(f"x.{format}", names=names)
    for i, name in enumerate(wanted):
        bundle.add_data(name, str(i))
    reply = Archiver().respond(bundle)
    data = b"".join(reply.body)
    if reply.status == 400:
        return
    assert reply.status == 200
    assert_apart(extracted(data, format, len(wanted), EXTRACTORS[format][:1]))


# --- the download's name, and headers ------------------------------------------------------------------------------


@pytest.mark.case(38)
@pytest.mark.parametrize(
    "name", ["a\r\nX: y.zip", "a\nb.zip", "a\rb.zip", "a\0.zip", "a\x1b.zip", "a\x7f.zip"], ids=ascii
)
def test_a_download_name_with_controls_is_refused(hosts: Hosts, name: str) -> None:
    found = problem(post(hosts.strict, manifest({"name": "g/"}, name=name)))
    assert found["pointer"] == "/name"
    problem(hosts.strict.get("/bundle?path=/a.txt&name=" + quote(name)))
    problem(hosts.strict.request("POST", "/bundle", FORM, urlencode({"path": "/a.txt", "name": name}).encode()))


@pytest.mark.case(38)
@pytest.mark.parametrize(
    ("name", "shown", "full"),
    [
        ("plain.zip", "plain.zip", "plain.zip"),
        ('a"b.zip', "a_b.zip", 'a"b.zip'),
        ("a\\b/c.zip", "a_b_c.zip", "a_b_c.zip"),
        ("50%.zip", "50_.zip", "50%.zip"),
        ("semi;colon, comma.zip", "semi;colon, comma.zip", "semi;colon, comma.zip"),
        ("caf\u00e9.zip", "cafe.zip", "caf\u00e9.zip"),
        ("\U0001f4e6 \u65e5\u672c.zip", "_ __.zip", "\U0001f4e6 \u65e5\u672c.zip"),
        ("x\u202egpj.zip", "x_gpj.zip", "x_gpj.zip"),
        ("..", ".._.zip", ".._.zip"),
    ],
    ids=lambda value: ascii(value)[1:-1],
)
def test_the_download_has_its_name_in_both_forms(hosts: Hosts, name: str, shown: str, full: str) -> None:
    if name == "..":
        shown = full = "...zip"
    for response in (
        post(hosts.strict, manifest({"name": "g/"}, name=name)),
        hosts.strict.get("/bundle?path=/a.txt&name=" + quote(name, safe="")),
    ):
        assert response.status == 200
        disposition = response.header("content-disposition") or ""
        plain, _, extended = disposition.removeprefix("attachment; ").partition("; ")
        assert plain == f'filename="{shown}"'
        assert unquote(extended.removeprefix("filename*=UTF-8''")) == full


@pytest.mark.case(38)
@pytest.mark.parametrize(
    "name", ["Host", "Range", "Content-Length", "Connection", "Transfer-Encoding", "Cookie", "X-Any"]
)
def test_a_manifest_cannot_say_what_headers_are_sent(hosts: Hosts, name: str) -> None:
    fields = {"name": "m", "url": hosts.upstream.url("/m"), "headers": {name: "x"}}
    found = problem(post(hosts.strict, manifest({"name": "g/"}, fields)))
    assert (found["kind"], found["pointer"]) == ("invalid-manifest", "/members/1/headers")


@pytest.mark.case(38)
def test_a_list_cannot_pass_on_what_frames_a_request(hosts: Hosts) -> None:
    passed = "Host:Range:Content-Length:Transfer-Encoding:Connection:Accept-Encoding:X-Own"
    query = urlencode({"h": f"X-Archive-Pass-Headers: {passed}", "body": "- 1 /echo echo"})
    sent = {"Range": "bytes=0-0", "Accept-Encoding": "gzip", "X-Own": "yes"}
    hosts.strict.get("/diary")
    assert hosts.strict.get(f"/list?{query}", sent).status == 502  # the echo is longer than the list says
    diary = json.loads(hosts.strict.get("/diary").body)
    seen = [entry["headers"] for entry in diary if entry["what"] == "asked" and entry["path"] == "/echo"]
    assert seen
    for headers in seen:
        assert headers["x-own"] == "yes"
        assert "range" not in headers
        assert "accept-encoding" not in headers


@pytest.mark.case(38)
@pytest.mark.parametrize(
    "header",
    [
        ("X-A", "a\r\nHost: evil"),
        ("X-A", "a\0"),
        ("X A", "a"),
        ("X-A\r\nB", "a"),
        ("Host", "evil"),
        ("Range", "bytes=0-"),
        ("Content-Length", "5"),
        ("Connection", "close"),
        ("Transfer-Encoding", "chunked"),
    ],
    ids=ascii,
)
def test_code_cannot_either(hosts: Hosts, header: tuple[str, str]) -> None:
    bundle = Bundle("x.zip")
    bundle.add_url(hosts.upstream.url("/m"), headers=dict([header]))
    reply = Archiver().respond(bundle)
    assert reply.status == 400
    assert json.loads(b"".join(reply.body))["members"][0]["index"] == 0
