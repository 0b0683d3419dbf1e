"""The one function that answers: status, headers and body for every condition, and nothing left open behind any."""

from __future__ import annotations

import email.parser
import email.policy
import io
import json
import logging
import os
import re
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path as FilePath
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest

from streamware import Archiver, Bundle, Conditions, Member, Policy, Reply, StreamwareError
from streamware.checksums import crc32
from streamware.errors import MemberNotFound, SourceError
from streamware.model import Facts, Path, Url
from streamware.service import _warn_of
from tests.faults.upstreams import ScriptedUpstream, answer, free_port
from tests.synthetic import Synthetic, content

OLD, NEW = 1_700_000_000, 1_700_000_002  # what Synthetic gives for the seeds 0 and 2
OLD_DATE, NEW_DATE = formatdate(OLD, usegmt=True), formatdate(NEW, usegmt=True)


class Answered(NamedTuple):
    """A reply, read to its end and closed; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def taken(reply: Reply) -> Answered:
    try:
        body = b"".join(reply.body)
        assert reply.body.length in (None, len(body))
    finally:
        reply.body.close()
    names = [name.lower() for name, _ in reply.headers]
    assert len(names) == len(set(names))
    return Answered(reply.status, {name.lower(): value for name, value in reply.headers}, body)


def ask(bundle: Bundle | None = None, method: str = "GET", policy: Policy | None = None, **conditions: str) -> Answered:
    bundle = pinned() if bundle is None else bundle
    return taken(Archiver(policy).respond(bundle, Conditions(method, **conditions)))


def pinned(name: str = "b.zip", **options: Any) -> Bundle:
    """Two members whose size, version, time and checksum are known."""
    bundle = Bundle(name, **options)
    bundle.add(Member("new.bin", Synthetic(3000, 2, crc_known=True)))
    bundle.add(Member("old.bin", Synthetic(100_000, 0, crc_known=True)))
    return bundle


WHOLE = ask()
ETAG = WHOLE.headers["etag"]


# --- the whole ---------------------------------------------------------------------------------------------------


def test_the_whole_of_a_pinned_archive() -> None:
    assert WHOLE.status == 200
    etag = WHOLE.headers.pop("etag")
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    assert WHOLE.headers == {
        "content-type": "application/zip",
        "content-length": str(len(WHOLE.body)),
        "last-modified": NEW_DATE,
        "accept-ranges": "bytes",
        "content-disposition": "attachment; filename=\"b.zip\"; filename*=UTF-8''b.zip",
        "cache-control": "private, no-transform",
        "x-content-type-options": "nosniff",
        "x-accel-buffering": "no",
    }
    WHOLE.headers["etag"] = etag
    with zipfile.ZipFile(io.BytesIO(WHOLE.body)) as archive:
        assert archive.testzip() is None
        assert archive.read("old.bin") == content(100_000, 0)


@pytest.mark.parametrize(
    ("name", "media_type", "exact"),
    [
        ("b.zip", "application/zip", True),
        ("b.tar", "application/x-tar", True),
        ("b.tar.gz", "application/gzip", False),
        ("b.tgz", "application/gzip", False),
        ("b.tar.zst", "application/zstd", False),
    ],
)
def test_what_each_format_can_promise(name: str, media_type: str, exact: bool) -> None:
    whole = ask(pinned(name))
    assert whole.headers["content-type"] == media_type
    assert ("content-length" in whole.headers) == exact
    assert ("accept-ranges" in whole.headers) == exact
    assert whole.headers["last-modified"] == NEW_DATE
    ranged = ask(pinned(name), range="bytes=0-9")
    assert ranged.status == (206 if exact else 200)
    if name == "b.tar":
        with tarfile.open(fileobj=io.BytesIO(whole.body)) as archive:
            assert archive.getnames() == ["new.bin", "old.bin"]


@pytest.mark.parametrize("compress", ["deflate", "auto"])
def test_what_is_compressed_for_the_first_time_has_no_length_and_no_ranges(compress: str) -> None:
    whole = ask(pinned(compress=compress))
    assert "accept-ranges" not in whole.headers
    assert "content-length" not in whole.headers
    etag = whole.headers["etag"]
    assert etag.removeprefix("W/") != ETAG
    ranged = ask(pinned(compress=compress), range="bytes=0-9")
    assert ranged == whole
    assert ask(pinned(compress=compress), range="bytes=0-9", if_range=etag).body == whole.body
    assert ask(pinned(compress=compress), if_none_match=etag).status == 304
    with zipfile.ZipFile(io.BytesIO(whole.body)) as archive:
        assert archive.testzip() is None
        assert archive.getinfo("old.bin").compress_size < 10_000


def test_auto_promises_as_much_as_stored_where_nothing_is_to_be_compressed() -> None:
    bundle = Bundle("photos.zip", compress="auto")
    bundle.add(Member("a.jpg", Synthetic(3000, crc_known=True)))
    whole = ask(bundle)
    assert whole.headers["accept-ranges"] == "bytes"
    assert not whole.headers["etag"].startswith("W/")
    assert ask(bundle, range="bytes=1-5").body == whole.body[1:6]


class Weighed(Synthetic):
    """Content with any validator."""

    validator: str | None = None

    def probe(self, *, keep: bool = False) -> Facts:
        return replace(super().probe(), validator=self.validator)


@pytest.mark.parametrize("crc_known", [True, False])
@pytest.mark.parametrize(("validator", "pinning"), [('"v"', True), ('W/"v"', False), (None, False)])
def test_ranges_only_where_every_member_is_pinned(validator: str | None, pinning: bool, crc_known: bool) -> None:
    source = Weighed(70_000, crc_known=crc_known)
    source.validator = validator
    bundle = pinned()
    bundle.add(Member("c.bin", source))
    whole = ask(bundle)
    assert ("accept-ranges" in whole.headers) == pinning
    part = ask(bundle, range="bytes=10-19")
    assert (part.status, part.body) == ((206, whole.body[10:20]) if pinning else (200, whole.body))
    assert whole.headers["etag"].startswith('"') == pinning
    assert ask(bundle, range="bytes=10-19", if_range=whole.headers["etag"]).status == (206 if pinning else 200)
    assert ask(bundle, range="bytes=10-19", if_range=NEW_DATE).status == (206 if pinning else 200)
    assert ask(bundle, if_none_match=whole.headers["etag"]).status == 304
    # A declared size and checksum pin a member too.
    bundle.members[-1] = Member("c.bin", source, size=70_000, crc32=crc32(content(70_000, 0)))
    assert ask(bundle, range="bytes=10-19").status == 206


# --- conditions (RFC 9110 section 13) ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"if_none_match": ETAG}, 304),
        ({"if_none_match": f"W/{ETAG}"}, 304),
        ({"if_none_match": f'"x", {ETAG}'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"if_modified_since": NEW_DATE}, 304),
        ({"if_modified_since": formatdate(NEW + 9, usegmt=True)}, 304),
        ({"if_modified_since": OLD_DATE}, 200),
        ({"if_modified_since": "yesterday"}, 200),
        ({"if_none_match": '"x"', "if_modified_since": NEW_DATE}, 200),  # the tag decides alone
        ({"if_match": ETAG}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": '"x"'}, 412),
        ({"if_match": f"W/{ETAG}"}, 412),
        ({"if_unmodified_since": NEW_DATE}, 200),
        ({"if_unmodified_since": OLD_DATE}, 412),
        ({"if_match": ETAG, "if_unmodified_since": OLD_DATE}, 200),
        ({"if_match": '"x"', "if_none_match": ETAG}, 412),
        ({"if_match": ETAG, "if_none_match": ETAG}, 304),
    ],
)
def test_conditions(method: str, conditions: dict[str, str], status: int) -> None:
    answered = ask(None, method, **conditions)
    assert answered.status == status
    if status == 412:
        assert b"precondition-failed" in answered.body
    else:
        assert answered.body == (WHOLE.body if status == 200 and method == "GET" else b"")
    if status == 200:
        assert answered.headers == WHOLE.headers


def test_a_304_tells_what_a_cache_has_to_know_and_no_more() -> None:
    answered = ask(if_none_match=ETAG)
    # RFC 9110 section 15.4.5: of what a 200 would have said, these.
    assert answered.headers == {
        "etag": ETAG,
        "last-modified": NEW_DATE,
        "cache-control": "private, no-transform",
    }


def test_a_412_is_a_problem() -> None:
    answered = ask(if_match='"x"')
    assert answered.status == 412
    assert answered.headers["content-type"] == "application/problem+json"
    assert b"precondition-failed" in answered.body
    assert WHOLE.headers["etag"] not in answered.headers.values()


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (ETAG, 206),
        (f"W/{ETAG}", 200),
        ('"x"', 200),
        (NEW_DATE, 206),
        (OLD_DATE, 200),
        (formatdate(NEW + 1, usegmt=True), 200),
        ("nonsense", 200),
    ],
)
def test_if_range(condition: str, status: int) -> None:
    answered = ask(range="bytes=100-199", if_range=condition)
    assert answered.status == status
    assert answered.body == (WHOLE.body[100:200] if status == 206 else WHOLE.body)


def test_if_range_alone_is_nothing() -> None:
    assert ask(if_range='"x"') == WHOLE


# --- ranges (RFC 9110 section 14) --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, None),
        ("bytes=-7", -7, None),
        ("bytes=2990-3100", 2990, 3101),
        ("bytes=50000-99999999999", 50_000, None),
        ("bytes=10-19,20-29,40-49", 10, 50),  # near enough to be one
        ("bytes=40-49,10-19", 10, 50),
    ],
)
def test_one_range(asked: str, start: int, stop: int | None) -> None:
    part = ask(range=asked)
    wanted = WHOLE.body[start:stop]
    first = start % len(WHOLE.body)
    assert (part.status, part.body) == (206, wanted)
    assert part.headers.pop("content-range") == f"bytes {first}-{first + len(wanted) - 1}/{len(WHOLE.body)}"
    assert part.headers.pop("content-length") == str(len(wanted))
    assert part.headers == {n: v for n, v in WHOLE.headers.items() if n != "content-length"}


def test_several_ranges_come_in_parts_in_the_order_asked_for() -> None:
    spans = [(60_000, 60_100), (0, 10), (len(WHOLE.body) - 22, len(WHOLE.body))]
    asked = "bytes=" + ", ".join(f"{start}-{stop - 1}" for start, stop in spans)
    answered = ask(range=asked)
    assert answered.status == 206
    assert answered.headers["content-length"] == str(len(answered.body))
    assert "content-range" not in answered.headers
    head = f"Content-Type: {answered.headers['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + answered.body)
    assert message.get_content_type() == "multipart/byteranges"
    parts = list(message.iter_parts())  # type: ignore[attr-defined]
    assert [p["Content-Range"] for p in parts] == [f"bytes {a}-{b - 1}/{len(WHOLE.body)}" for a, b in spans]
    assert {p["Content-Type"] for p in parts} == {"application/zip"}
    for start, stop in spans:  # the parser above is for text: bytes are looked for by hand
        place = f"Content-Range: bytes {start}-{stop - 1}/{len(WHOLE.body)}\r\n\r\n".encode()
        assert answered.body.partition(place)[2].startswith(WHOLE.body[start:stop] + b"\r\n--")
    assert ask(range=asked) == answered


def test_too_many_ranges_get_the_whole() -> None:
    def many(count: int) -> str:
        return "bytes=" + ",".join(f"{n * 1000}-{n * 1000}" for n in range(count))

    assert ask(range=many(16)).status == 206
    assert ask(range=many(17)).body == WHOLE.body
    assert ask(None, "GET", Policy(max_ranges=2), range=many(2)).status == 206
    assert ask(None, "GET", Policy(max_ranges=2), range=many(3)).status == 200


def test_a_range_beyond_the_end() -> None:
    answered = ask(range=f"bytes={len(WHOLE.body)}-")
    assert answered.status == 416
    assert answered.headers == {
        "content-range": f"bytes */{len(WHOLE.body)}",
        "accept-ranges": "bytes",
        "content-type": "application/problem+json",
        "content-length": str(len(answered.body)),
        "cache-control": "no-store",
    }
    assert b"range-not-satisfiable" in answered.body


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=", "lines=1-2", "bytes=a-b", "bytes=1-2,x"])
def test_what_is_no_range_is_as_if_it_were_not_there(asked: str) -> None:
    assert ask(range=asked) == WHOLE


def test_head_tells_of_get_and_knows_no_ranges() -> None:
    assert ask(None, "HEAD", range="bytes=0-9") == Answered(200, WHOLE.headers, b"")


def test_ranges_come_before_nothing_and_after_conditions() -> None:
    assert ask(range="bytes=0-9", if_none_match=ETAG).status == 304
    assert ask(range="bytes=0-9", if_match='"x"').status == 412
    assert ask(range="bytes=999999-", if_range='"x"').status == 200


# --- headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fallback"),
    [
        ("Protokoll März 日本.zip", "Protokoll Marz __.zip"),
        ('say "hi" 100%.zip', "say _hi_ 100_.zip"),
        ("../../etc/passwd.zip", ".._.._etc_passwd.zip"),
        ("bad\r\nX-Evil: 1.zip", "bad__X-Evil: 1.zip"),
        ("half\udc80.zip", "half_.zip"),
    ],
)
def test_the_download_has_both_its_names(name: str, fallback: str) -> None:
    disposition = ask(pinned(name), "HEAD").headers["content-disposition"]
    match = re.fullmatch(r"attachment; filename=\"([ -~]*)\"; filename\*=UTF-8''([!-~]+)", disposition)
    assert match is not None
    assert match[1] == fallback
    full = unquote(match[2])
    assert not re.search(r"[\x00-\x1f/\\]", full)
    assert full == re.sub(r"[\x00-\x1f/\\\ud800-\udfff]", "_", name)
    part = ask(pinned(name), range="bytes=0-5")
    assert part.headers["content-disposition"] == disposition


def test_last_modified_is_absent_where_a_member_has_no_time() -> None:
    bundle = pinned()
    bundle.add_directory("empty")  # a directory has no content to change
    assert ask(bundle, "HEAD").headers["last-modified"] == NEW_DATE
    bundle.add_data("timeless", b"x")
    answered = ask(bundle)
    assert "last-modified" not in answered.headers
    assert ask(bundle, if_modified_since=formatdate(usegmt=True)).status == 200
    assert ask(bundle, range="bytes=0-9", if_range=NEW_DATE).status == 200
    assert ask(bundle, range="bytes=0-9", if_range=answered.headers["etag"]).status == 206
    bundle.members[-1] = Member("timeless", bundle.members[-1].content, modified=NEW + 5)
    assert ask(bundle, "HEAD").headers["last-modified"] == formatdate(NEW + 5, usegmt=True)


def test_last_modified_is_never_in_the_future() -> None:
    bundle = Bundle("b.zip")
    bundle.add_data("a", b"a", modified=time.time() + 86_400)
    before = int(time.time())
    told = parsedate_to_datetime(ask(bundle, "HEAD").headers["last-modified"]).timestamp()
    assert before <= told <= time.time()
    reply = Archiver().respond(pinned(), Conditions("HEAD"), modified=before + 86_400)
    assert before <= parsedate_to_datetime(reply.header("Last-Modified") or "").timestamp() <= time.time()


@pytest.mark.parametrize("modified", [0, OLD - 1000, NEW + 1000])
def test_a_given_time_stands_in_place_of_the_newest_members(modified: int) -> None:
    date = formatdate(modified, usegmt=True)
    archiver = Archiver()
    whole = taken(archiver.respond(pinned(), modified=modified))
    assert whole.headers["last-modified"] == date
    assert whole.body == WHOLE.body
    unmodified = archiver.respond(pinned(), Conditions(if_modified_since=date), modified=modified)
    assert (unmodified.status, unmodified.header("Last-Modified")) == (304, date)
    part = archiver.respond(pinned(), Conditions(range="bytes=0-9", if_range=date), modified=modified)
    assert taken(part).status == 206


def test_the_lists_own_tag_becomes_part_of_the_archives() -> None:
    archiver = Archiver()

    def etag(base: str | None) -> str | None:
        return archiver.respond(pinned(), Conditions("HEAD"), base_etag=base).header("ETag")

    tags = [etag(base) for base in (None, '"1"', 'W/"1"', '"2"')]
    assert len(set(tags)) == 4
    assert tags[0] == ETAG
    assert etag('"2"') == tags[3]
    assert all(re.fullmatch(r'"[0-9a-f]{32}"', tag or "") for tag in tags)
    matched = archiver.respond(pinned(), Conditions(if_none_match=tags[1]), base_etag='"1"')
    assert matched.status == 304
    assert taken(archiver.respond(pinned(), Conditions(if_none_match='"1"'), base_etag='"1"')).status == 200


EXTRA = (
    ("content-disposition", 'inline; filename="mine.zip"'),
    ("Set-Cookie", "a=1"),
    ("Set-Cookie", "b=2"),
    ("CACHE-CONTROL", "public, max-age=60"),
)


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        (Conditions(), 200),
        (Conditions("HEAD"), 200),
        (Conditions(range="bytes=0-9"), 206),
        (Conditions(if_none_match=ETAG), 304),
        (Conditions(if_match='"x"'), 412),
        (Conditions(range="bytes=9999999-"), 416),
    ],
)
def test_given_headers_replace_those_of_the_same_name(conditions: Conditions, status: int) -> None:
    reply = Archiver().respond(pinned(), conditions, headers=iter(EXTRA))
    reply.body.close()
    assert reply.status == status
    if status in (412, 416):  # a problem of our own: what is no description of the archive still goes along
        assert reply.headers[-2:] == EXTRA[1:3]
        return
    assert reply.headers[-4:] == EXTRA
    names = [name.lower() for name, _ in reply.headers[:-4]]
    assert not {"content-disposition", "cache-control", "set-cookie"} & set(names)
    if status in (200, 206):
        assert {"etag", "content-type", "content-length", "x-content-type-options"} <= set(names)


def test_a_header_that_cannot_be_sent_leaves_nothing_open() -> None:
    source = Synthetic(100_000)
    bundle = Bundle("b.zip")
    bundle.add(Member("a", source))
    watch = Watch()
    with pytest.raises(ValueError, match="cannot be sent"):
        Archiver(observer=watch).respond(bundle, headers=[("X-Bad", "a\r\nb")])
    assert source.live == 0
    assert watch.seen.count("started") == sum(seen.startswith("ended") for seen in watch.seen)


# --- problems ----------------------------------------------------------------------------------------------------


def problem_of(reply: Reply) -> tuple[int, dict[str, Any]]:
    answered = taken(reply)
    assert answered.headers["content-type"] == "application/problem+json"
    assert answered.headers["cache-control"] == "no-store"
    assert answered.headers["content-length"] == str(len(answered.body))
    told = json.loads(answered.body)
    assert told["status"] == answered.status
    return answered.status, told


def test_a_problem_is_found_in_the_log_by_the_id_it_shows(caplog: pytest.LogCaptureFixture) -> None:
    bundle = Bundle("b.zip")
    bundle.add_file("/nowhere/secret/file.txt", "shown.txt")
    with caplog.at_level(logging.INFO, "streamware"):
        status, told = problem_of(Archiver().respond(bundle, headers=EXTRA))
    assert status == 404
    assert told["members"] == [{"index": 0, "name": "shown.txt", "reason": "member-not-found"}]
    assert "secret" not in json.dumps(told)
    [record] = [r for r in caplog.records if told["instance"].removeprefix("urn:uuid:") in r.getMessage()]
    assert "/nowhere/secret/file.txt" in record.getMessage()
    assert record.levelno == logging.INFO


def test_faults_of_this_side_are_logged_louder(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "streamware"):
        Archiver().problem(SourceError("disk"))
        Archiver().problem(MemberNotFound("gone"))
    assert [r.levelno for r in caplog.records] == [logging.WARNING, logging.INFO]


@pytest.mark.parametrize(
    "conditions", [Conditions(if_none_match="*"), Conditions("HEAD"), Conditions(range="bytes=0-")]
)
def test_a_bundle_that_cannot_be_made_is_a_problem_whatever_was_asked(conditions: Conditions) -> None:
    assert problem_of(Archiver().respond(Bundle("none.zip"), conditions))[0] == 400


def test_a_policy_is_asked_before_anybody_else() -> None:
    with ScriptedUpstream(lambda request, peer: peer.send(answer(b"x"))) as upstream:
        bundle = Bundle("b.zip")
        bundle.add(Member("ok", Url(upstream.url("/ok/1"), trusted=False)))
        bundle.add(Member("bad", Url(upstream.url("/other"), trusted=False)))
        status, told = problem_of(Archiver(Policy(allow=[upstream.url("/ok/")])).respond(bundle))
        assert status == 403
        assert told["members"] == [{"index": 1, "name": "bad", "reason": "not-allowed"}]
        assert upstream.asked == []
        bundle.members.pop()
        archiver = Archiver(Policy(allow=[upstream.url("/ok/")]))
        assert taken(archiver.respond(bundle)).status == 200
        archiver.close()
    status, told = problem_of(Archiver(Policy(max_members=1)).respond(pinned()))
    assert (status, told["type"]) == (413, "urn:streamware:problem:limit-exceeded")


@pytest.mark.parametrize(
    "member",
    [Member("b", Path("/x")), Member("b", Url("http://127.0.0.1:9/", trusted=True), etag="no tag")],
    ids=["no app", "no tag"],
)
def test_a_member_that_cannot_even_be_asked_for_is_named(member: Member) -> None:
    bundle = pinned()
    bundle.add(member)
    status, told = problem_of(Archiver().respond(bundle))
    assert status == 400
    assert [(m["index"], m["name"]) for m in told["members"]] == [(2, "b")]


# --- open, forward, observer -------------------------------------------------------------------------------------


class Watch:
    """An observer that takes notes."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def download_started(self) -> None:
        self.seen.append("started")

    def first_byte(self, seconds: float) -> None:
        assert 0 <= seconds < 10
        self.seen.append("first byte")

    def download_ended(self, outcome: str, *, members: int, bytes_out: int, bytes_in: int) -> None:
        self.seen.append(f"ended {outcome} {members} {bytes_out} {bytes_in}")

    def upstream_opened(self) -> None: ...

    def upstream_retried(self) -> None: ...

    def upstream_failed(self) -> None: ...


class Breaking(Synthetic):
    """Gives less than it promised."""

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        return super()._pieces(start, min(stop, 65_536))


def test_the_observer_learns_of_each_download_once() -> None:
    watch = Watch()
    archiver = Archiver(observer=watch)
    taken(archiver.respond(pinned()))
    assert watch.seen == ["started", "first byte", f"ended complete 2 {len(WHOLE.body)} 103000"]
    watch.seen.clear()
    for conditions in (Conditions("HEAD"), Conditions(if_none_match="*"), Conditions(if_match='"x"')):
        archiver.respond(pinned(), conditions).body.close()
    archiver.respond(Bundle("none.zip")).body.close()
    assert watch.seen == []
    bundle = pinned()
    bundle.add(Member("large", Synthetic(500_000, crc_known=True)))
    reply = archiver.respond(bundle)
    first = next(iter(reply.body))
    reply.body.close()
    reply.body.close()
    assert watch.seen[:2] == ["started", "first byte"]
    assert watch.seen[2].startswith(f"ended left 3 {len(first)} ")
    assert len(watch.seen) == 3


@pytest.mark.parametrize("to_the_error", [True, False])
def test_a_download_has_ended_when_the_last_piece_before_the_error_was_given(to_the_error: bool) -> None:
    bundle = pinned()
    bundle.add(Member("broken", Breaking(100_000)))
    watch = Watch()
    body = Archiver(observer=watch).open(bundle)
    got = len(next(body))
    assert watch.seen == ["started", "first byte"]
    if to_the_error:
        with pytest.raises(StreamwareError):
            next(body)
        assert len(watch.seen) == 3
    body.close()
    assert watch.seen == ["started", "first byte", f"ended aborted 3 {got} {103_000 + 65_536}"]


def test_a_broken_download_is_logged_with_its_member(caplog: pytest.LogCaptureFixture) -> None:
    bundle = pinned("logs.zip")
    bundle.add(Member("broken", Breaking(100_000)))
    reply = Archiver().respond(bundle)
    with caplog.at_level(logging.WARNING, "streamware"), pytest.raises(StreamwareError):
        list(reply.body)
    reply.body.close()
    [record] = caplog.records
    assert "logs.zip" in record.getMessage()
    assert "'broken'" in record.getMessage()


def test_open_is_respond_without_a_request() -> None:
    body = Archiver().open(pinned())
    try:
        assert body.length == len(WHOLE.body)
        assert b"".join(body) == WHOLE.body
    finally:
        body.close()


def test_forwarding_never_raises() -> None:
    archiver = Archiver()
    with ScriptedUpstream(lambda request, peer: peer.send(answer(b"hello", 'ETag: "1"'))) as upstream:
        answered = taken(archiver.forward(upstream.url("/a"), headers=[("Range", "bytes=0-1")]))
        assert (answered.status, answered.headers["etag"], answered.body) == (200, '"1"', b"hello")
        assert upstream.requests[0].headers["range"] == "bytes=0-1"
        archiver.close()
    assert problem_of(archiver.forward(f"http://127.0.0.1:{free_port()}/"))[0] == 502
    assert problem_of(archiver.forward(upstream.url("/"), method="DELETE"))[0] == 405
    archiver.close()


def test_nothing_is_left_open_whatever_was_answered(tmp_path: FilePath) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(300_000))
    bundle = Bundle("b.zip")
    bundle.add_file(path)
    archiver = Archiver()
    etag = taken(archiver.respond(bundle)).headers["etag"]
    open_before = len(os.listdir("/proc/self/fd"))
    for conditions in (
        Conditions(),
        Conditions("HEAD"),
        Conditions(range="bytes=100-200000"),
        Conditions(range="bytes=0-9,5000-5009"),
        Conditions(if_none_match=etag),
        Conditions(if_match='"x"'),
        Conditions(range="bytes=999999-"),
    ):
        body = archiver.respond(bundle, conditions).body
        next(iter(body), None)
        body.close()
        assert len(os.listdir("/proc/self/fd")) == open_before


# --- where a broken body would look whole ------------------------------------------------------------------------

UNFRAMED = Conditions(unframed="the host is a bad one")
HTTP_10 = Conditions(unframed="it is HTTP/1.0", http_10=True)


class Unopened(Synthetic):
    def open(self, start: int, length: int | None) -> Any:
        raise AssertionError("opened")


@pytest.mark.case(31, 44)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("conditions", "status"), [(UNFRAMED, 500), (HTTP_10, 505)])
def test_no_body_without_length_where_a_broken_one_would_look_whole(
    conditions: Conditions, status: int, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = Bundle("b.zip", compress="deflate")
    bundle.add(Member("a.txt", Unopened(3000)))
    with caplog.at_level(logging.WARNING, "streamware"):
        reply = Archiver().respond(bundle, replace(conditions, method=method, if_none_match='"other"'))
    found, document = problem_of(reply)
    assert (found, document["type"]) == (status, "urn:streamware:problem:length-unknown")
    assert "HTTP/1.1" in document["title"]
    assert "TAR" in document["title"]
    assert "bad one" not in json.dumps(document)
    [record] = caplog.records
    assert str(conditions.unframed) in record.getMessage()
    assert "allow_unframed" in record.getMessage()


@pytest.mark.case(31)
@pytest.mark.parametrize("conditions", [UNFRAMED, HTTP_10])
def test_what_has_a_length_is_served_everywhere(conditions: Conditions) -> None:
    answered = taken(Archiver().respond(pinned(), conditions))
    assert answered == WHOLE
    assert taken(Archiver().respond(pinned("b.tar"), conditions)).status == 200
    part = taken(Archiver().respond(pinned(), replace(conditions, range="bytes=5-9")))
    assert (part.status, part.body) == (206, WHOLE.body[5:10])


@pytest.mark.case(31)
@pytest.mark.parametrize("name", ["b.tar.gz", "b.zip"])
def test_an_operator_may_take_the_risk(name: str) -> None:
    bundle = pinned(name, compress="deflate" if name == "b.zip" else "stored")
    answered = taken(Archiver(Policy(allow_unframed=True)).respond(bundle, HTTP_10))
    assert answered.status == 200
    assert "content-length" not in answered.headers


@pytest.mark.case(31)
def test_a_forwarded_body_without_length_is_held_to_the_same() -> None:
    def script(request: Any, peer: Any) -> None:
        status = "404 Not Found" if request.target == "/missing" else "200 OK"
        peer.send(answer(b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked", status=status, length=None))

    with ScriptedUpstream(script) as upstream:
        archiver, daring = Archiver(), Archiver(Policy(allow_unframed=True))
        url = upstream.url("/a")
        assert taken(archiver.forward(url)).body == b"hello"
        assert problem_of(archiver.forward(url, conditions=UNFRAMED))[0] == 500
        assert problem_of(archiver.forward(url, conditions=HTTP_10))[0] == 505
        assert taken(daring.forward(url, conditions=HTTP_10)).body == b"hello"
        assert taken(archiver.forward(upstream.url("/missing"), conditions=HTTP_10)).status == 404
        archiver.close()
        daring.close()
        upstream.wait_closed()


def test_a_host_to_be_warned_of_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"wsgi.version": (1, 0), "SERVER_SOFTWARE": "Granian"}
    _warn_of.cache_clear()
    for archiver in (Archiver(), Archiver()):
        archiver.meet(environ)
        archiver.meet({"wsgi.version": (1, 0), "SERVER_SOFTWARE": "waitress"})
    [record] = caplog.records
    assert (record.name, record.levelno) == ("streamware", logging.WARNING)
    assert record.getMessage().startswith("served by granian (WSGI). ")
    assert record.getMessage().endswith("(docs/hosts.md)")


# --- the log -----------------------------------------------------------------------------------------------------


def fields(record: logging.LogRecord) -> dict[str, Any]:
    names = "request_id bundle member_index member bytes_sent cause cause_text upstream"
    return {name: getattr(record, name) for name in names.split()}


@pytest.mark.case(17, 26)
@pytest.mark.parametrize("name", ["b.zip", "b.tar"])
def test_an_aborted_bundle_leaves_one_record_that_says_all(name: str, caplog: pytest.LogCaptureFixture) -> None:
    def script(request: Any, peer: Any) -> None:
        peer.send(answer(bytes(100_000), 'ETag: "1"', length=300_000))
        peer.close()

    with ScriptedUpstream(script) as upstream:
        bundle = Bundle(name, on_error="skip")
        bundle.add_file("/nonexistent/left-out")
        bundle.add_data("first", bytes(5))
        bundle.add_url(upstream.url("/second?signature=secret"), size=300_000)
        archiver = Archiver(Policy(max_tries=1))
        with caplog.at_level(logging.DEBUG, "streamware"):
            reply = archiver.respond(bundle, Conditions(request_id="abc-1"))
            got: list[bytes] = []
            with pytest.raises(StreamwareError) as caught:
                got.extend(reply.body)
            sent = sum(map(len, got))
            reply.body.close()
            archiver.close()
    assert caught.value.index == 2  # in the bundle, not among those that are in the archive
    [record] = [r for r in caplog.records if r.levelno >= logging.INFO]
    assert record.levelno == logging.WARNING
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", record.request)  # type: ignore[attr-defined]
    assert fields(record) == {
        "request_id": "abc-1",
        "bundle": name,
        "member_index": 2,
        "member": "second",
        "bytes_sent": sent,
        "cause": caught.value.kind,
        "cause_text": caught.value.detail,
        "upstream": f"127.0.0.1:{upstream.port}",
    }
    assert record.getMessage() == (
        f"request {record.request}: bundle '{name}' aborted after {sent} bytes in member 2 'second': "  # type: ignore[attr-defined]
        f"{caught.value.kind}: {caught.value.detail} (upstream: 127.0.0.1:{upstream.port}; X-Request-Id: abc-1)"
    )
    assert "secret" not in caplog.text


@pytest.mark.case(27)
def test_a_client_that_leaves_is_one_quiet_record(caplog: pytest.LogCaptureFixture) -> None:
    bundle = pinned()
    bundle.add(Member("large", Synthetic(500_000, crc_known=True)))
    with caplog.at_level(logging.DEBUG, "streamware"):
        body = Archiver().respond(bundle).body
        first = next(body)
        body.abort()
        with pytest.raises(StreamwareError):
            next(body)
        body.close()
    [record] = caplog.records
    assert (record.levelno, record.exc_info) == (logging.INFO, None)
    assert f"left by its client after {len(first)} bytes" in record.getMessage()
    assert record.bytes_sent == len(first)  # type: ignore[attr-defined]


@pytest.mark.case(1)
def test_what_fails_before_the_head_is_logged_as_a_problem_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    bundle = Bundle("b.zip")
    bundle.add_url(f"http://127.0.0.1:{free_port()}/a", size=100_000)
    with caplog.at_level(logging.DEBUG, "streamware"):
        status, document = problem_of(Archiver().respond(bundle))
    assert status == 502
    [record] = [r for r in caplog.records if r.levelno >= logging.INFO]
    assert document["instance"] in "urn:uuid:" + record.getMessage().split()[1].rstrip(":")


@pytest.mark.case(4)
@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
@pytest.mark.parametrize("size", [None, 10])
def test_an_upstreams_retry_after_reaches_the_client(status: str, size: int | None) -> None:
    def script(request: Any, peer: Any) -> None:
        peer.send(answer(b"", "Retry-After: 17", status=status))

    with ScriptedUpstream(script) as upstream:
        bundle = Bundle("b.zip")
        bundle.add_url(upstream.url("/a"), size=size)
        archiver = Archiver(Policy(max_tries=1))
        reply = archiver.respond(bundle)
        assert reply.status == 502
        assert reply.header("retry-after") == "17"
        archiver.close()
