"""Links: tokens that cannot be forged, manifests that come back as they were, and pins that hold."""

from __future__ import annotations

import io
import json
import logging
import os
import time
import tracemalloc
import zipfile
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path as Folder
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from itsdangerous import Signer

from streamware import Archiver, Bundle, Policy
from streamware.errors import (
    InvalidManifest,
    LedgerError,
    LimitExceeded,
    LinkExpired,
    LinkUnknown,
    MemberForbidden,
    MemberNotFound,
    NotAllowed,
    RequestError,
    SizeMismatch,
    SizeUnknown,
)
from streamware.links import Links
from streamware.manifest import from_json, parse_link, to_json
from streamware.memory_ledger import MemoryLedger
from streamware.model import Data, Facts, File, Member, Path, Source, Stream, Tree, Url
from streamware.reply import Conditions, Reply
from streamware.semantics import is_strong
from streamware.sources.subrequest import SubrequestSource
from tests.hosts.servers import wsgiref_server

KEY = "a key that all replicas have"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

Make = Callable[..., Archiver]


@pytest.fixture(name="make")
def _make() -> Iterator[Make]:
    made: list[Archiver] = []

    def make(**policy: Any) -> Archiver:
        made.append(Archiver(Policy(**{"link_key": KEY, **policy})))
        return made[-1]

    yield make
    for archiver in made:
        archiver.close()


@pytest.fixture(name="archiver")
def _archiver(make: Make) -> Archiver:
    return make()


class Site:
    """A small WSGI app: its pages have strong validators, but for those in ``loose``, which have none."""

    def __init__(self, **pages: bytes) -> None:
        self.pages = {f"/{name}": data for name, data in pages.items()}
        self.loose: set[str] = set()
        self.weak: set[str] = set()
        self.unmeasured: set[str] = set()
        self.forbidden: set[str] = set()
        self.modified = "Tue, 05 Nov 2024 06:07:08 GMT"
        self.asked: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.asked.append(path)
        data = self.pages.get(path)
        if data is None or path in self.forbidden:
            start_response("404 None" if data is None else "403 No", [("Content-Length", "0")])
            return []
        headers = [("Content-Type", "image/png" if "png" in path else "text/plain")]
        if path not in self.unmeasured:
            headers.append(("Content-Length", str(len(data))))
        tag = f'"{blake2b(data, digest_size=8).hexdigest()}"'
        if path not in self.loose:
            headers += [("ETag", f"W/{tag}" if path in self.weak else tag), ("Last-Modified", self.modified)]
        start_response("200 OK", headers)
        return iter(() if environ["REQUEST_METHOD"] == "HEAD" else (data,))

    def open(self, href: str, pinned: Facts | None = None) -> Source:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        return SubrequestSource(self, environ, href, pinned=pinned)


@pytest.fixture(name="site")
def _site() -> Site:
    return Site(a=b"a" * 200_000, b=b"b" * 1000, c=b"c", png=b"png" * 100)


def texts(*names: str, text: str = "hello", **more: Any) -> Bundle:
    bundle = Bundle("t.zip", **more)
    bundle.members = [Member(name, Data(text.encode())) for name in names]
    return bundle


def large() -> Bundle:
    """More than fits a URL."""
    return texts(*(f"{zlib.crc32(str(i).encode()):08x}" for i in range(300)))


def pages(*hrefs: str, name: str = "p.zip", **more: Any) -> Bundle:
    bundle = Bundle(name, **more)
    bundle.members = [Member(href.strip("/"), Path(href)) for href in hrefs]
    return bundle


def described(bundle: Bundle) -> dict[str, Any]:
    return {**vars(bundle), "members": list(bundle.members)}


def answer(archiver: Archiver, token: str, site: Site | None = None, *, local: Any = None, **more: str) -> Reply:
    """What whoever opens the link gets."""
    link = archiver.links.open(token, local)
    conditions = Conditions.of("GET", list(more.items()))
    return archiver.respond(link.bundle, conditions, subrequest=site.open if site else None, link=link)


def told(reply: Reply) -> tuple[int, str]:
    """The status and kind of a problem, or the status and nothing."""
    try:
        body = b"".join(reply.body)
    finally:
        reply.body.close()
    is_problem = reply.header("content-type") == "application/problem+json"
    return reply.status, json.loads(body)["type"].rpartition(":")[2] if is_problem else ""


def body(reply: Reply) -> bytes:
    try:
        return b"".join(reply.body)
    finally:
        reply.body.close()


# --- manifests written down --------------------------------------------------------------------------------------


def test_a_manifest_that_is_written_down_is_read_as_it_was() -> None:
    bundle = Bundle("n\u00e4me.tar", "tar", "deflate", "a comment", "skip", names="strict")
    bundle.members = [
        Member("p", Path("/x?y=%26 z"), 5, 0xABC, '"tag"', 0, 0o640, "c", True),
        Member("u", Url("http://a.test/x", ("http://b.test/y",)), etag='W/"w"', modified=-62135596800),
        Member("t/\u20ac", Data("\u20ac\n\"'\\".encode()), modified=253402300799),
        Member("d/", None, mode=0o755, modified=1),
        Member("0", Path("/0"), 0, 0),
    ]
    assert described(from_json(to_json(bundle), Policy())) == described(bundle)


@pytest.mark.parametrize(
    "member",
    [
        Member("f", File("/etc/passwd")),
        Member("", Tree("/etc")),
        Member("s", Stream(list)),
        Member("u", Url("http://a.test/", trusted=True)),
        Member("u", Url("http://a.test/", headers=(("Authorization", "secret"),))),
        Member("b", Data(b"\xff")),
        Member("old", None, modified=-62135596801),
        Member("far", None, modified=1 << 70),
        Member("half", Data(b""), comment="\ud800"),
    ],
)
def test_what_only_code_can_say_is_not_written_down(member: Member, archiver: Archiver) -> None:
    bundle = Bundle()
    bundle.members = [Member("fine", None), member]
    with pytest.raises(InvalidManifest):
        archiver.links.make(bundle)


@pytest.mark.parametrize("more", [{"duplicates": "refuse"}, {"timestamps": False}])
def test_settings_that_no_manifest_has_are_not_dropped(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifest):
        to_json(texts("a", **more))


@pytest.mark.parametrize(
    ("body", "kind", "query", "seconds"),
    [
        (b'{"name":"x.zip","members":[{"name":"a/"}],"expires_in":60}', JSON, b"", 60),
        (b'{"expires_in":null,"name":"x.zip","members":[{"name":"a/"}]}', JSON, b"", None),
        (b'{"name":"x.zip","members":[{"name":"a/"}]}', JSON, b"expires_in=7&other=1&path=/x", 7),
        (b"path=/a&expires_in=2592000", FORM, b"", 2592000),
        (b"path=/a&expires_in=", FORM, b"", None),
        (b"path=/a", FORM, b"", None),
    ],
)
def test_how_long_a_link_is_to_last(body: bytes, kind: str, query: bytes, seconds: int | None) -> None:
    bundle, found = parse_link(body, kind, query, Policy())
    assert (len(bundle.members), found) == (1, seconds)


@pytest.mark.parametrize("value", ["0", "-1", "2592001", "1.5", "1e3", "9" * 30, '""', '"x"', "true", "[1]"])
def test_no_link_lasts_longer_than_it_may(value: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_link(b'{"name":"x","expires_in":%s,"members":[{"name":"a/"}]}' % value.encode(), JSON, b"", Policy())
    assert caught.value.pointer == "/expires_in"
    with pytest.raises(RequestError):
        parse_link(b"path=/a&expires_in=" + (b"x" if value in ('""', '"x"') else value.encode()), FORM, b"", Policy())


def test_how_long_is_said_once() -> None:
    with pytest.raises(InvalidManifest):
        parse_link(b"path=/a&expires_in=5", FORM, b"expires_in=6", Policy())
    with pytest.raises(InvalidManifest):
        parse_link(b"path=/a", FORM, b"expires_in=6&expires_in=6", Policy())


def test_a_bundle_without_a_link_has_no_expiry(archiver: Archiver) -> None:
    with pytest.raises(InvalidManifest):
        from_json(b'{"name":"x.zip","members":[{"name":"a/"}],"expires_in":60}', archiver.policy)


# --- tokens ------------------------------------------------------------------------------------------------------


def test_a_small_manifest_lives_in_its_url(make: Make) -> None:
    made = make().links.make(texts("a"))
    assert len(made.token) < 300
    elsewhere = make()  # another replica, without a database in common
    assert [member.name for member in elsewhere.links.open(made.token).bundle.members] == ["a"]


def test_a_large_manifest_lives_in_the_ledger(make: Make) -> None:
    archiver = make()
    made = archiver.links.make(large())
    assert len(made.token) == 43
    assert len(archiver.links.open(made.token).bundle.members) == 300
    with pytest.raises(LinkUnknown):
        make().links.open(made.token)


def test_the_operator_sets_what_fits_a_url(make: Make) -> None:
    assert len(make(link_inline_bytes=1).links.make(texts("a")).token) == 43
    assert len(make(link_inline_bytes=100_000).links.make(large()).token) > 1500


class Noting(MemoryLedger):
    """A ledger that tells what was saved last."""

    saved: tuple[str, bytes, int]

    def save(self, token: str, body: bytes, expires: int) -> None:
        self.saved = token, body, expires
        super().save(token, body, expires)


def test_whoever_reads_the_database_has_no_link(make: Make) -> None:
    archiver, ledger = make(), Noting()
    links = Links(archiver.policy, archiver.upstream, ledger)
    made = links.make(large())
    key, row, expires = ledger.saved
    assert key != made.token
    assert made.token.encode() not in row + zlib.decompress(row)
    assert made.expires <= expires < made.expires + 1
    with pytest.raises(LinkUnknown):
        links.open(key)
    assert links.open(made.token)


@pytest.mark.parametrize("bundle", [texts("a"), large()], ids=["small", "large"])
def test_no_other_token_opens(bundle: Bundle, archiver: Archiver) -> None:
    token = archiver.links.make(bundle).token
    for place in range(len(token)):
        for other in "AB_-." if place < len(token) - 1 else "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ":
            if other != token[place]:
                with pytest.raises(LinkUnknown):
                    archiver.links.open(token[:place] + other + token[place + 1 :])
    for wrong in (token[:-1], token + "A", token + "=", " " + token, token + "/", token + "\n", token * 2):
        with pytest.raises(LinkUnknown):
            archiver.links.open(wrong)


@pytest.mark.parametrize(
    "token", ["", ".", "a.b", "x" * 43, "x" * 100_000, "\u00e9" * 43, "\udc80", "%00", "\0", "../x"]
)
def test_what_was_never_a_token(token: str, archiver: Archiver) -> None:
    with pytest.raises(LinkUnknown):
        archiver.links.open(token)


def test_another_key_opens_nothing(make: Make) -> None:
    token = make().links.make(texts("a")).token
    for key in ("another", b"another", KEY + " "):
        with pytest.raises(LinkUnknown):
            make(link_key=key).links.open(token)
    assert make(link_key=KEY.encode()).links.open(token)


def test_a_signature_of_the_same_key_for_something_else_opens_nothing(archiver: Archiver) -> None:
    payload = archiver.links.make(texts("a")).token.partition(".")[0]
    for salt in (b"itsdangerous.Signer", b"cookie-session"):
        with pytest.raises(LinkUnknown):
            archiver.links.open(Signer(KEY, salt).sign(payload).decode())


def test_unknown_and_forged_are_told_alike(archiver: Archiver) -> None:
    token = archiver.links.make(texts("a-secret-name")).token
    forged = ("A" if token[0] != "A" else "B") + token[1:]
    documents = []
    for wrong in (forged, "x" * 43, "y"):
        with pytest.raises(LinkUnknown) as caught:
            archiver.links.open(wrong)
        document = json.loads(body(archiver.problem(caught.value)))
        del document["instance"]
        documents.append(document)
    assert documents[0] == documents[1] == documents[2]
    assert documents[0] == {
        "type": "urn:streamware:problem:link-unknown",
        "title": "There is no such link.",
        "status": 404,
    }


@pytest.mark.parametrize("bundle", [texts("a-secret-name"), large()], ids=["small", "large"])
def test_a_link_ends_by_the_clock(bundle: Bundle, archiver: Archiver) -> None:
    made = archiver.links.make(bundle, seconds=1)
    assert time.time() < made.expires <= time.time() + 1.001
    assert archiver.links.open(made.token)
    while time.time() < made.expires:
        time.sleep(0.05)
    with pytest.raises(LinkExpired) as caught:
        archiver.links.open(made.token)
    problem = body(archiver.problem(caught.value))
    assert b"a-secret-name" not in problem
    assert json.loads(problem)["status"] == 410


def test_how_long_a_link_lasts_by_itself(make: Make) -> None:
    assert 86_390 < make().links.make(texts("a")).expires - time.time() <= 86_400
    assert 50 < make(link_max_seconds=60).links.make(texts("a")).expires - time.time() <= 60
    with pytest.raises(InvalidManifest):
        make(link_max_seconds=60).links.make(texts("a"), seconds=61)


def test_without_a_key_links_end_with_the_process(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    archiver, other = make(link_key=None), make(link_key=None)
    assert not caplog.records
    token = archiver.links.make(texts("a")).token
    archiver.links.make(texts("b"))
    assert [r.levelno for r in caplog.records if "link_key" in r.getMessage()] == [logging.WARNING]
    assert archiver.links.open(token)
    with pytest.raises(LinkUnknown):
        other.links.open(token)


def test_a_key_is_not_shown() -> None:
    assert KEY not in repr(Policy(link_key=KEY))
    for empty in ("", b""):
        with pytest.raises(ValueError, match="link_key"):
            Policy(link_key=empty)


def test_a_ledger_that_takes_no_more(make: Make) -> None:
    archiver = make()
    links = Links(archiver.policy, archiver.upstream, MemoryLedger(max_links=0))
    with pytest.raises(LedgerError) as caught:
        links.make(large())
    assert caught.value.status == 503
    assert links.open(links.make(texts("a")).token)


def test_a_row_that_is_damaged_or_swells_is_no_link(make: Make) -> None:
    archiver, ledger = make(), Noting()
    links = Links(archiver.policy, archiver.upstream, ledger)
    token = links.make(large()).token
    key, packed, expires = ledger.saved
    bomb = zlib.compress(bytes(96 << 20))
    for row in (packed[:-1], b"", b"y" + packed[1:], zlib.compress(b"[1]\n{}"), zlib.compress(b"7\n"), bomb):
        ledger.save(key, row, expires)
        tracemalloc.start()
        with pytest.raises(LinkUnknown):
            links.open(token)
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
        tracemalloc.stop()


def test_nothing_of_a_forged_token_is_unpacked(archiver: Archiver) -> None:
    bomb = Signer("another key").sign(urlsafe_b64encode(zlib.compress(bytes(64 << 20))).rstrip(b"="))
    began = time.process_time()
    with pytest.raises(LinkUnknown):
        archiver.links.open(bomb.decode())
    assert time.process_time() - began < 0.03


def test_limits_hold_for_links(make: Make) -> None:
    archiver = make(max_manifest_bytes=20_000)
    with pytest.raises(LimitExceeded):
        archiver.links.make(texts(*(f"name-{i:06}" for i in range(1000))))
    token = archiver.links.make(large()).token
    strict = Links(Policy(link_key=KEY, max_members=299), archiver.upstream, archiver.ledger)
    with pytest.raises(LimitExceeded):
        strict.open(token)


# --- pins --------------------------------------------------------------------------------------------------------


def test_members_are_pinned_and_the_app_decides_each_time(archiver: Archiver, site: Site) -> None:
    made = archiver.links.make(pages("/a", "/b"), subrequest=site.open)
    assert made.resumable
    site.asked.clear()
    whole = answer(archiver, made.token, site)
    assert whole.status == 200
    assert is_strong(whole.header("etag"))
    data = body(whole)
    part = answer(archiver, made.token, site, range="bytes=1000-")
    assert (part.status, body(part)) == (206, data[1000:])
    site.forbidden = {"/b"}
    for more in ({}, {"range": "bytes=-100"}, {"range": "bytes=0-9"}):
        reply = answer(archiver, made.token, site, **more)
        assert told(reply) == (403, "member-forbidden")


@pytest.mark.parametrize("name", ["p.zip", "p.tar"])
def test_a_member_that_changed_is_gone(name: str, archiver: Archiver, site: Site) -> None:
    token = archiver.links.make(pages("/a", "/b", name=name), subrequest=site.open).token
    site.pages["/b"] = b"B" * 1000
    for more in ({}, {"range": "bytes=1000-"}, {"range": "bytes=1000-", "if-range": '"x"'}):
        assert told(answer(archiver, token, site, **more)) == (410, "member-changed")
    site.pages["/b"] = b"longer" * 1000
    status, kind = told(answer(archiver, token, site))
    assert (status, kind) in ((410, "member-changed"), (410, "size-mismatch"))
    site.pages["/b"] = b"b" * 1000
    assert told(answer(archiver, token, site)) == (200, "")


def test_several_that_changed_are_gone_together(archiver: Archiver, site: Site) -> None:
    token = archiver.links.make(pages("/a", "/b", "/c"), subrequest=site.open).token
    site.pages |= {"/a": b"1", "/b": b"2", "/c": b"3"}
    assert told(answer(archiver, token, site))[0] == 410


def test_a_member_that_is_gone_says_so(archiver: Archiver, site: Site) -> None:
    token = archiver.links.make(pages("/a", "/b"), subrequest=site.open).token
    del site.pages["/b"]
    assert told(answer(archiver, token, site)) == (404, "member-not-found")


def test_a_time_that_changed_alone_changes_nothing(archiver: Archiver, site: Site) -> None:
    token = archiver.links.make(pages("/a"), subrequest=site.open).token
    whole = body(answer(archiver, token, site))
    site.modified = "Wed, 06 Nov 2024 06:07:08 GMT"
    assert body(answer(archiver, token, site)) == whole


def test_an_archive_made_in_another_way_is_another_archive(make: Make, site: Site) -> None:
    token = make().links.make(pages("/a", "/b"), subrequest=site.open).token
    assert told(answer(make(), token, site)) == (200, "")
    # As after an upgrade: whoever resumes must not get the rest of another layout.
    assert told(answer(make(inline_bytes=10), token, site)) == (410, "member-changed")


def test_a_member_that_cannot_be_pinned_still_gets_a_link(archiver: Archiver, site: Site) -> None:
    site.loose = {"/b"}
    made = archiver.links.make(pages("/a", "/b"), subrequest=site.open)
    assert not made.resumable
    reply = answer(archiver, made.token, site, range="bytes=5-")
    assert reply.status == 200
    assert reply.header("accept-ranges") is None
    reply.body.close()
    site.pages["/b"] = b"whatever it is now"
    assert told(answer(archiver, made.token, site)) == (200, "")
    site.pages["/a"] = b"but this one was pinned"
    assert told(answer(archiver, made.token, site))[0] == 410


def test_a_weak_validator_pins_nothing(archiver: Archiver, site: Site) -> None:
    site.weak = {"/b"}
    made = archiver.links.make(pages("/a", "/b"), subrequest=site.open)
    assert not made.resumable
    site.pages["/b"] = b"another"
    assert told(answer(archiver, made.token, site)) == (200, "")


def test_a_declared_size_and_checksum_pin(archiver: Archiver, site: Site) -> None:
    site.loose = {"/b"}
    bundle = pages("/a", "/b")
    data = site.pages["/b"]
    bundle.members[1] = Member("b", Path("/b"), len(data), zlib.crc32(data))
    made = archiver.links.make(bundle, subrequest=site.open)
    assert made.resumable
    assert told(answer(archiver, made.token, site)) == (200, "")
    site.pages["/b"] = b"short"
    assert told(answer(archiver, made.token, site)) == (410, "size-mismatch")


def test_what_cannot_be_had_gets_no_link(archiver: Archiver, site: Site) -> None:
    bundle = pages("/a")
    bundle.members = [Member("a", Path("/a"), size=5, crc32=0)]
    with pytest.raises(SizeMismatch):
        archiver.links.make(bundle, subrequest=site.open)
    site.forbidden = {"/b"}
    with pytest.raises(MemberForbidden) as caught:
        archiver.links.make(pages("/a", "/b"), subrequest=site.open)
    assert (caught.value.member, caught.value.index) == ("b", 1)
    site.unmeasured = {"/a"}
    with pytest.raises(SizeUnknown):
        archiver.links.make(pages("/a", name="x.tar"), subrequest=site.open)


@pytest.mark.parametrize("on_error", ["skip", "report"])
def test_what_was_left_out_stays_out(on_error: Any, archiver: Archiver, site: Site, tmp_path: Folder) -> None:
    made = archiver.links.make(pages("/a", "/later", "/b", on_error=on_error), subrequest=site.open)
    assert made.resumable
    site.pages["/later"] = b"now it is there"
    reply = answer(archiver, made.token, site)
    names = {"skip": ["a", "b"], "report": ["a", "b", "_errors.txt"]}[on_error]
    with zipfile.ZipFile(io.BytesIO(body(reply))) as archive:
        assert archive.namelist() == names
        if on_error == "report":
            assert archive.read("_errors.txt").decode().startswith("later\t")
    del site.pages["/b"]
    assert told(answer(archiver, made.token, site)) == (404, "member-not-found")


def test_media_types_decide_again_with_auto(archiver: Archiver, site: Site) -> None:
    bundle = pages("/a", "/png", compress="auto")
    bundle.members.append(Member("declared", Path("/png"), size=300))
    token = archiver.links.make(bundle, subrequest=site.open).token
    reply = answer(archiver, token, site)
    with zipfile.ZipFile(io.BytesIO(body(reply))) as archive:
        assert archive.read("png") == archive.read("declared") == site.pages["/png"]
    assert reply.status == 200
    site.pages["/png"] = b"PNG" * 100
    assert told(answer(archiver, token, site))[0] == 410


def test_a_compressed_archive_is_pinned_before_its_length_is_known(archiver: Archiver, site: Site) -> None:
    token = archiver.links.make(pages("/a", "/b", compress="deflate"), subrequest=site.open).token
    first = body(answer(archiver, token, site))
    assert body(answer(archiver, token, site)) == first
    site.pages["/b"] = b"else"
    assert told(answer(archiver, token, site))[0] == 410


# --- members this server holds -----------------------------------------------------------------------------------


def holding(folder: Folder) -> Callable[[int, Member], list[Member] | None]:
    """A middleware's hook: /all/ stands for all files of a folder, /f/NAME for one of them."""

    def stand_ins(index: int, member: Member) -> list[Member] | None:
        href = member.content.href if isinstance(member.content, Path) else ""
        if href == "/all/":
            return [Member("all", Tree(str(folder)))]
        return [Member(member.name, File(href[3:], root=str(folder)))] if href.startswith("/f/") else None

    return stand_ins


@pytest.mark.parametrize("loose", [False, True], ids=["resumable", "not resumable"])
@pytest.mark.parametrize("href", ["/all/", "/f/one"])
def test_local_members_are_pinned(href: str, loose: bool, archiver: Archiver, site: Site, tmp_path: Folder) -> None:
    site.loose = {"/b"} if loose else set()
    (tmp_path / "one").write_bytes(b"1" * 100_000)
    (tmp_path / "two").write_bytes(b"2")
    local = holding(tmp_path)
    made = archiver.links.make(pages(href, "/b"), subrequest=site.open, stand_ins=local)
    assert made.resumable is not loose
    assert len(made.token) < 600
    assert told(answer(archiver, made.token, site, local=local)) == (200, "")
    (tmp_path / "three").write_bytes(b"3")
    assert told(answer(archiver, made.token, site, local=local))[0] == (410 if href == "/all/" else 200)
    (tmp_path / "three").unlink()
    assert told(answer(archiver, made.token, site, local=local)) == (200, "")
    os.utime(tmp_path / "one", ns=(1, 1))
    assert told(answer(archiver, made.token, site, local=local)) == (410, "member-changed")
    (tmp_path / "one").unlink()
    assert told(answer(archiver, made.token, site, local=local))[0] == (410 if href == "/all/" else 404)


def test_a_local_file_that_nobody_may_read_can_be_left_out(archiver: Archiver, site: Site, tmp_path: Folder) -> None:
    (tmp_path / "one").write_bytes(b"1")
    local = holding(tmp_path)
    with pytest.raises(MemberNotFound):
        archiver.links.make(pages("/f/one", "/f/none"), stand_ins=local)
    token = archiver.links.make(pages("/f/one", "/f/none", on_error="skip"), stand_ins=local).token
    assert told(answer(archiver, token, local=local)) == (200, "")


# --- members of other servers ------------------------------------------------------------------------------------


def test_upstreams_are_pinned_and_admitted_each_time(make: Make, site: Site) -> None:
    with wsgiref_server(site) as server:
        url = f"http://127.0.0.1:{server.port}/"
        bundle = Bundle("u.zip")
        bundle.members = [Member("a", Url(url + "a")), Member("b", Url("http://127.0.0.1:1/b", (url + "b",)))]
        archiver = make(allow=(url, "http://127.0.0.1:1/"))
        made = archiver.links.make(bundle)
        assert made.resumable
        site.asked.clear()
        whole = body(answer(archiver, made.token))
        part = answer(archiver, made.token, range="bytes=200500-")
        assert (part.status, body(part)) == (206, whole[200500:])
        assert site.asked.count("/a") == 1  # its checksum was learned as it passed
        assert told(answer(make(), made.token)) == (403, "not-allowed")
        site.pages["/a"] = b"A" * 200_000
        assert told(answer(archiver, made.token)) == (410, "member-changed")
    with pytest.raises(NotAllowed):
        make().links.make(bundle)


def test_a_resumed_link_asks_only_for_what_it_needs(make: Make, site: Site) -> None:
    with wsgiref_server(site) as server:
        url = f"http://127.0.0.1:{server.port}/"
        bundle = Bundle("u.tar")
        bundle.members = [Member(name, Url(url + name)) for name in ("a", "b", "c")]
        archiver = make(allow=(url,))
        token = archiver.links.make(bundle).token
        site.asked.clear()
        part = answer(archiver, token, range="bytes=200704-")
        assert len(body(part)) == 204_800 - 200_704
        assert sorted(site.asked) == ["/b", "/c"]
