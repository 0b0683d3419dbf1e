"""Who is asked what before the head, from which thread, and that nothing of it stays open afterwards."""

from __future__ import annotations

import base64
import gc
import io
import json
import os
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path as FilePath
from typing import Any

import pytest

from streamware import Archiver, Bundle, Conditions, Member, Policy, Reply, StreamwareError
from streamware.checksums import crc32
from streamware.errors import ChecksumMismatch, MemberChanged, MemberError, MemberNotFound, SourceError
from streamware.model import Chunks, Facts, Path
from streamware.sources.generated import DataChunks
from streamware.sources.upstream import UpstreamSource
from tests.faults.upstreams import Peer, Request, Script, ScriptedUpstream, answer, content, free_port
from tests.synthetic import Synthetic, read

LARGE = bytes(4_000_000)  # more than two sockets hold, so that a server that nobody reads from is kept waiting


def late(seconds: float, script: Script) -> Script:
    def waits(request: Request, peer: Peer) -> None:
        peer.pause(seconds)
        script(request, peer)

    return waits


def refusing(status: str, *lines: str) -> Script:
    return lambda request, peer: peer.send(answer(b"", *lines, status=status))


@pytest.fixture
def archiver() -> Iterator[Archiver]:
    before = set(threading.enumerate())
    made = Archiver(Policy(read_timeout_seconds=5.0))
    yield made
    made.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("streamware") and t not in before]


def urls(upstream: ScriptedUpstream, *paths: str, name: str = "b.zip", **options: Any) -> Bundle:
    bundle = Bundle(name, **options)
    for path in paths:
        bundle.add_url(upstream.url(path))
    return bundle


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def whole(reply: Reply) -> bytes:
    assert reply.status == 200
    try:
        return b"".join(reply.body)
    finally:
        reply.body.close()


def problem(reply: Reply) -> dict[str, Any]:
    assert reply.header("Content-Type") == "application/problem+json"
    told: dict[str, Any] = json.loads(b"".join(reply.body))
    reply.body.close()
    assert told["status"] == reply.status
    return told


# --- how upstreams are asked -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy", [Policy(held_bytes=1), Policy(held_members=12), Policy()], ids=["by HEAD", "by GET", "read along"]
)
def test_upstreams_are_asked_side_by_side(policy: Policy) -> None:
    paths = [f"/{n}.bin" for n in range(12)]
    archiver = Archiver(policy)
    with ScriptedUpstream(late(0.2, content(b"x" * 1000))) as upstream:
        started = time.monotonic()
        reply = archiver.respond(urls(upstream, *paths))
        took = time.monotonic() - started
        assert reply.status == 200
        assert took < 12 * 0.2 / 2
        method = "HEAD" if policy.held_bytes == 1 else "GET"
        assert sorted(upstream.asked[:12]) == sorted(f"{method} {path}" for path in paths)
        reply.body.close()
        archiver.close()


def test_no_more_are_asked_at_once_than_the_policy_allows() -> None:
    archiver = Archiver(Policy(probe_connections=3))
    busy, most, lock = 0, 0, threading.Lock()

    def counted(request: Request, peer: Peer) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        peer.pause(0.02)
        with lock:
            busy -= 1
        content(b"x")(request, peer)

    with ScriptedUpstream(counted) as upstream:
        archiver.respond(urls(upstream, *(f"/{n}" for n in range(12))), Conditions("HEAD")).body.close()
        assert len(upstream.asked) == 12
        assert most == 3
        archiver.close()


@pytest.mark.parametrize("chunked", [False, True], ids=["measured", "chunked"])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_few_members_are_asked_by_the_gets_that_deliver_them(archiver: Archiver, count: int, chunked: bool) -> None:
    paths = [f"/{n}.bin" for n in range(count)]
    with ScriptedUpstream(content(b"x" * 3000, chunked=chunked, head=False)) as upstream:
        got = unzipped(read(archiver, urls(upstream, *paths)))
        assert got == {f"{n}.bin": b"x" * 3000 for n in range(count)}
        assert sorted(upstream.asked) == [f"GET {path}" for path in paths]
        archiver.close()


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("name", ["b.zip", "b.tar", "b.tar.gz"])
def test_many_small_members_come_along_with_the_asking(archiver: Archiver, ranges: bool, name: str) -> None:
    paths = [f"/{n}.bin" for n in range(20)]
    with ScriptedUpstream(content(b"x" * 3000, ranges=ranges)) as upstream:
        bundle = urls(upstream, *paths, name=name)
        data = read(archiver, bundle)
        if name == "b.zip":
            assert unzipped(data) == {f"{n}.bin": b"x" * 3000 for n in range(20)}
        else:
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                assert [tar.extractfile(e).read() for e in tar] == [b"x" * 3000] * 20  # type: ignore[union-attr]
        assert sorted(upstream.asked) == sorted(f"GET {path}" for path in paths)
        archiver.close()


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_what_is_larger_is_asked_for_again(archiver: Archiver, size: int) -> None:
    with ScriptedUpstream(content(b"x" * size)) as upstream:
        got = unzipped(read(archiver, urls(upstream, *(f"/{n}" for n in range(9)))))
        assert list(got.values()) == [b"x" * size] * 9
        assert len(upstream.asked) == (9 if size == 65_536 else 18)
        archiver.close()


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_where_most_are_large_the_others_are_asked_by_head(ranges: bool) -> None:
    archiver = Archiver(Policy(probe_connections=4))
    with ScriptedUpstream(content(b"x" * 300_000, ranges=ranges)) as upstream:
        reply = archiver.respond(urls(upstream, *(f"/{n}" for n in range(60))))
        assert reply.header("Content-Length") is not None
        asked = [line.partition(" ")[0] for line in upstream.asked[:60]]
        assert 16 <= asked.count("GET") <= 24
        assert asked.count("HEAD") == 60 - asked.count("GET")
        reply.body.close()
        archiver.close()


def test_no_more_comes_along_than_may_be_held() -> None:
    archiver = Archiver(Policy(held_bytes=200_000, probe_connections=1))
    with ScriptedUpstream(content(b"x" * 50_000)) as upstream:
        assert len(unzipped(read(archiver, urls(upstream, *(f"/{n}" for n in range(10)))))) == 10
        assert [line.partition(" ")[0] for line in upstream.asked].count("HEAD") == 7
        archiver.close()


def test_what_holds_it_counts_as_well() -> None:
    policy = Policy(probe_connections=1)
    archiver = Archiver(replace(policy, held_bytes=policy.inline_bytes + 3_000))
    with ScriptedUpstream(content(b"x")) as upstream:
        assert len(unzipped(read(archiver, urls(upstream, *(f"/{n}" for n in range(30)))))) == 30
        assert [line.partition(" ")[0] for line in upstream.asked].count("HEAD") == 20
        archiver.close()


def test_what_came_along_is_held_without_its_source(archiver: Archiver) -> None:
    with ScriptedUpstream(content(b"x" * 3000)) as upstream:
        reply = archiver.respond(urls(upstream, *(f"/{n}" for n in range(50))))
        gc.collect()
        assert sum(isinstance(made, UpstreamSource) for made in gc.get_objects()) <= 5
        assert set(unzipped(b"".join(reply.body)).values()) == {b"x" * 3000}
        assert len(upstream.asked) == 50
        reply.body.close()


def test_nobody_is_asked_for_a_bundle_with_a_name_that_is_refused(archiver: Archiver) -> None:
    with ScriptedUpstream(content(b"x" * 3000)) as upstream:
        bundle = urls(upstream, "/a", names="strict")
        bundle.add_url(upstream.url("/b"), "../b")
        told = problem(archiver.respond(bundle))
        assert told["status"] == 400
        assert told["members"] == [{"index": 1, "name": "../b", "reason": "invalid-name"}]
        assert not upstream.asked


def test_empty_members_come_along_too(archiver: Archiver) -> None:
    with ScriptedUpstream(content(b"")) as upstream:
        assert set(unzipped(read(archiver, urls(upstream, *(f"/{n}" for n in range(9))))).values()) == {b""}
        archiver.close()


def test_what_breaks_off_while_it_is_asked_for_comes_later(archiver: Archiver) -> None:
    data, broken = b"x" * 50_000, set[str]()

    def script(request: Request, peer: Peer) -> None:
        if request.target not in broken and request.headers.get("range", "").startswith("bytes=0-"):
            broken.add(request.target)
            part = f"Content-Range: bytes 0-{len(data) - 1}/{len(data)}"
            peer.send(answer(data[:20_000], part, 'ETag: "v1"', status="206 Partial Content", length=len(data)))
            peer.reset()
        else:
            content(data)(request, peer)

    with ScriptedUpstream(script) as upstream:
        got = unzipped(read(archiver, urls(upstream, *(f"/{n}" for n in range(9)))))
        assert list(got.values()) == [data] * 9
        assert len(broken) == 9
        archiver.close()


def test_bytes_that_are_not_what_was_announced_are_not_held(archiver: Archiver) -> None:
    wrong = "Repr-Digest: sha-256=:" + base64.b64encode(sha256(b"y").digest()).decode() + ":"
    with ScriptedUpstream(content(b"x" * 3000, wrong)) as upstream:
        with pytest.raises(ChecksumMismatch):
            read(archiver, urls(upstream, *(f"/{n}" for n in range(9))))
        archiver.close()


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions("HEAD"),
        Conditions(if_none_match='"x"'),
        Conditions(if_modified_since="Tue, 05 Nov 2024 06:07:08 GMT"),
        Conditions(if_match="*"),
        Conditions(range="bytes=0-"),
    ],
)
def test_who_may_not_want_the_members_asks_by_head(archiver: Archiver, conditions: Conditions) -> None:
    with ScriptedUpstream(content(b"x" * 3000)) as upstream:
        archiver.respond(urls(upstream, "/a", "/b"), conditions).body.close()
        assert sorted(upstream.asked[:2]) == ["HEAD /a", "HEAD /b"]
        assert [asked for asked in upstream.asked[2:] if asked not in ("GET /a", "GET /b")] == []
        archiver.close()


def test_a_declared_size_spares_the_asking(archiver: Archiver) -> None:
    with ScriptedUpstream(content(LARGE)) as upstream:
        bundle = Bundle("b.zip")
        for name in ("a", "b"):
            bundle.add_url(upstream.url(f"/{name}"), size=len(LARGE))
        reply = archiver.respond(bundle)
        assert int(reply.header("Content-Length") or 0) > 2 * len(LARGE)
        for _ in reply.body:
            pass
        reply.body.close()
        assert sorted(upstream.asked) == ["GET /a", "GET /b"]
        archiver.close()


def test_what_was_promised_when_asked_is_held_to_when_opened(archiver: Archiver) -> None:
    seen: list[str] = []

    def changing(request: Request, peer: Peer) -> None:
        seen.append(request.method)
        content(b"x" * 3000, etag='"v1"' if request.method == "HEAD" else '"v2"')(request, peer)

    with ScriptedUpstream(changing) as upstream:
        reply = archiver.respond(urls(upstream, "/a"), Conditions(range="bytes=0-", if_range='"x"'))
        assert reply.status == 502
        assert problem(reply)["members"] == [{"index": 0, "name": "a", "reason": "member-changed"}]
        assert seen == ["HEAD", "GET"]
        archiver.close()


# --- members that fail before the head ---------------------------------------------------------------------------


def test_one_that_fails_is_named_with_its_servers_status(archiver: Archiver) -> None:
    scripts = {"/a": content(b"a"), "/b": refusing("503 Busy", "Retry-After: 7")}
    with ScriptedUpstream(scripts) as upstream:
        reply = archiver.respond(urls(upstream, "/a", "/b"))
        assert (reply.status, reply.header("Retry-After")) == (502, "7")
        told = problem(reply)
        assert told["type"] == "urn:streamware:problem:upstream-status"
        assert told["members"] == [{"index": 1, "name": "b", "reason": "upstream-status", "status": 503}]
        assert str(upstream.port) not in json.dumps(told)
        archiver.close()


def test_all_that_fail_are_named_in_the_bundles_order(archiver: Archiver) -> None:
    scripts = {
        "/a": late(0.1, content(b"a")),
        "/b": late(0.15, refusing("404 Not Found")),
        "/c": late(0.1, refusing("403 Forbidden", "Retry-After: 3")),
        "/d": late(0.1, refusing("429 Slow Down", "Retry-After: 5")),
    }
    with ScriptedUpstream(scripts) as upstream:
        bundle = urls(upstream, "/a", "/b", "/c", "/d")
        bundle.add_url(f"http://127.0.0.1:{free_port()}/e", size=5)  # not asked: its size is known
        reply = archiver.respond(bundle)
        assert (reply.status, reply.header("Retry-After")) == (502, "5")
        told = problem(reply)
        assert told["type"] == "urn:streamware:problem:members-failed"
        assert [(m["index"], m["name"], m["status"]) for m in told["members"]] == [
            (1, "b", 404),
            (2, "c", 403),
            (3, "d", 429),
        ]
        archiver.close()


def test_after_a_failure_no_more_are_asked() -> None:
    archiver = Archiver(Policy(probe_connections=2))
    scripts = {f"/{n}": late(0.03, content(b"x")) for n in range(40)}
    scripts["/0"] = refusing("404 Not Found")
    with ScriptedUpstream(scripts) as upstream:
        reply = archiver.respond(urls(upstream, *scripts))
        assert problem(reply)["members"][0]["name"] == "0"
        assert len(upstream.asked) < 10
        archiver.close()


@pytest.mark.parametrize("name", ["b.zip", "b.tar", "b.tar.gz"])
@pytest.mark.parametrize("on_error", ["skip", "report"])
def test_what_fails_before_the_head_is_left_out(
    archiver: Archiver, name: str, on_error: str, tmp_path: FilePath
) -> None:
    scripts = {
        "/a": late(0.05, refusing("404 Not Found")),
        "/b": content(b"bbb", "Last-Modified: Tue, 05 Nov 2024 06:07:08 GMT"),
        "/c": refusing("500 Oh"),
        "/d": content(b"ddd"),
    }

    def bundle() -> Bundle:
        made = urls(upstream, "/a", "/b", "/c", name=name, on_error=on_error)
        made.add_url(upstream.url("/d"), size=3)
        made.add_file(tmp_path / "gone.txt")
        return made

    with ScriptedUpstream(scripts) as upstream:
        data = read(archiver, bundle())
        if name == "b.zip":
            got = unzipped(data)
        else:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                got = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
        report = got.pop("_errors.txt", b"").decode()
        assert got == {"b": b"bbb", "d": b"ddd"}
        if on_error == "report":
            assert [line.split("\t")[0] for line in report.splitlines()] == ["a", "c", "gone.txt"]
            assert str(upstream.port) not in report
            assert str(tmp_path) not in report
        else:
            assert report == ""
        etag = archiver.respond(bundle(), Conditions("HEAD")).header("ETag")
        assert etag is not None
        assert archiver.respond(bundle(), Conditions(if_none_match=etag)).status == 304
        scripts["/a"] = content(b"aaa")
        later = archiver.respond(bundle(), Conditions(if_none_match=etag))
        later.body.close()
        assert later.status == 200  # the archive without the member is another
        archiver.close()


def test_with_nothing_left_there_is_no_archive(archiver: Archiver) -> None:
    with ScriptedUpstream(refusing("404 Not Found")) as upstream:
        reply = archiver.respond(urls(upstream, "/a", "/b", on_error="skip"))
        assert problem(reply)["type"] == "urn:streamware:problem:empty-bundle"
        assert list(unzipped(whole(archiver.respond(urls(upstream, "/a", "/b", on_error="report"))))) == ["_errors.txt"]
        archiver.close()


def test_the_place_of_a_failing_member_is_that_in_the_bundle(archiver: Archiver) -> None:
    class Gone(Synthetic):
        def open(self, start: int, length: int | None) -> Any:
            raise MemberNotFound("gone")

    with ScriptedUpstream(refusing("404 Not Found")) as upstream:
        bundle = urls(upstream, "/a", name="b.tar", on_error="skip")
        bundle.add_directory("d")
        bundle.add_directory("d")
        bundle.add(Member("gone.bin", Gone(1000)))
        told = problem(archiver.respond(bundle))
        assert told["members"] == [{"index": 3, "name": "gone.bin", "reason": "member-not-found"}]
        archiver.close()


@pytest.mark.parametrize("name", ["b.tar", "b.tar.gz", "b.tar.zst"])
def test_a_tar_needs_every_size(archiver: Archiver, name: str) -> None:
    scripts = {"/a": content(LARGE), "/b": content(LARGE, chunked=True, head=False)}
    with ScriptedUpstream(scripts) as upstream:
        reply = archiver.respond(urls(upstream, "/a", "/b", name=name))
        assert reply.status == 400
        told = problem(reply)
        assert told["type"] == "urn:streamware:problem:size-unknown"
        assert told["members"] == [{"index": 1, "name": "b", "reason": "size-unknown"}]
        upstream.wait_closed()
        archiver.close()
    bundle = Bundle(name)
    bundle.add_stream("made", lambda: [b"x"])
    assert problem(archiver.respond(bundle))["members"][0]["name"] == "made"


# --- threads -----------------------------------------------------------------------------------------------------


class Noting:
    """A source that notes who used it, and what it was left holding. ``fails`` is raised by the probe."""

    def __init__(self, *, serial: bool | None = None, size: int | None = 5, fails: Exception | None = None) -> None:
        if serial is not None:
            self.serial = serial
        self.size = size
        self.fails = fails
        self.threads: set[int] = set()
        self.asked: list[str] = []
        self.holding = False

    def probe(self, *, keep: bool = False) -> Facts:
        self.threads.add(threading.get_ident())
        self.asked.append("keep" if keep else "look")
        time.sleep(0.005)  # so that each thread of a pool gets one
        if self.fails is not None:
            raise self.fails
        self.holding = keep
        return Facts(size=self.size, validator='"v"', modified=1_700_000_000, crc32=crc32(b"aaaaa"))

    def open(self, start: int, length: int | None) -> Chunks:
        self.threads.add(threading.get_ident())
        self.asked.append("open")
        self.holding = False
        return DataChunks(b"aaaaa"[start : None if length is None else start + length])

    def close(self) -> None:
        self.holding = False


def noted(*sources: Noting, name: str = "b.zip") -> Bundle:
    bundle = Bundle(name)
    for number, source in enumerate(sources):
        bundle.add(Member(f"{number}", source))
    return bundle


@pytest.mark.parametrize("count", [1, 3, 12])
def test_serial_sources_are_used_by_the_calling_thread_alone(count: int) -> None:
    sources = [Noting(serial=True) for _ in range(count)]
    read(Archiver(), noted(*sources))
    assert {thread for source in sources for thread in source.threads} == {threading.get_ident()}
    assert all(source.asked == ["keep" if count <= 8 else "look", "open"] for source in sources)


def test_serial_sources_among_others_still_are() -> None:
    others = [Noting(serial=False), Noting(), Noting()]
    serial = [Noting(serial=True), Noting(serial=True)]
    read(Archiver(), noted(others[0], serial[0], others[1], serial[1], others[2]))
    home = threading.get_ident()
    assert all(source.threads == {home} for source in serial)
    assert any(source.threads != {home} for source in others)


def test_paths_of_an_app_that_one_thread_may_enter_are_asked_by_the_calling_thread() -> None:
    made: list[Noting] = []

    def subrequest(href: str, facts: Facts | None) -> Noting:
        made.append(Noting(serial=True))
        return made[-1]

    bundle = noted(Noting(), Noting())
    for href in ("/a", "/b"):
        bundle.add(Member(href[1:], Path(href)))
    whole(Archiver().respond(bundle, subrequest=subrequest))
    assert {thread for source in made for thread in source.threads} == {threading.get_ident()}
    assert sum("keep" in source.asked for source in made) == 2


def test_a_subrequest_is_told_what_was_declared_and_what_was_found() -> None:
    told: list[tuple[str, Facts | None]] = []

    def subrequest(href: str, facts: Facts | None) -> Noting:
        told.append((href, facts))
        return Noting()

    bundle = Bundle("b.zip")
    bundle.add(Member("a", Path("/a"), size=5, etag='"v"'))
    bundle.add(Member("b", Path("/b")))
    unzipped(whole(Archiver().respond(bundle, Conditions(if_match="*"), subrequest=subrequest)))
    assert ("/a", Facts(size=5, validator='"v"')) in told
    assert ("/b", Facts(size=5, validator='"v"')) in told


# --- nothing is left open ----------------------------------------------------------------------------------------


def finish(reply: Reply) -> None:
    for _ in reply.body:
        pass
    reply.body.close()


def leave(reply: Reply) -> None:
    next(iter(reply.body))
    reply.body.close()


def leave_at_once(reply: Reply) -> None:
    reply.body.close()


def abort(reply: Reply) -> None:
    reply.body.abort()
    with pytest.raises(StreamwareError):
        next(iter(reply.body))
    reply.body.close()


@pytest.mark.parametrize("end", [finish, leave, leave_at_once, abort])
@pytest.mark.parametrize(
    ("conditions", "status", "asked"),
    [
        (Conditions(), 200, "keep"),
        (Conditions(if_range='"x"'), 200, "keep"),
        (Conditions(if_unmodified_since="Tue, 05 Nov 1985 06:07:08 GMT"), 412, "keep"),
        (Conditions("HEAD"), 200, "look"),
        (Conditions(if_none_match="*"), 304, "look"),
        (Conditions(if_match='"x"'), 412, "look"),
        (Conditions(range="bytes=0-"), 206, "look"),
        (Conditions(range="bytes=99999-"), 416, "look"),
    ],
)
def test_what_probes_kept_is_given_up(
    conditions: Conditions, status: int, asked: str, end: Callable[[Reply], None]
) -> None:
    sources = [Noting(), Noting(), Noting()]
    reply = Archiver().respond(noted(*sources), conditions)
    assert reply.status == status
    assert all(source.asked[0] == asked for source in sources)
    if status < 300 and reply.body.length:
        end(reply)
    # One that is being opened ahead just now is let go of by the thread that opens it.
    deadline = time.monotonic() + 10
    while any(source.holding for source in sources):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("bad", "name", "raised"),
    [
        ({"fails": MemberNotFound("gone")}, "b.zip", None),
        ({"fails": SourceError("disk")}, "b.zip", None),
        ({"size": None}, "b.tar", None),
        ({"fails": RuntimeError("a bug")}, "b.zip", RuntimeError),
    ],
    ids=["not found", "failed", "no size", "bug"],
)
@pytest.mark.parametrize("opens", [True, False])
def test_what_probes_kept_is_given_up_when_another_member_fails(
    bad: dict[str, Any], name: str, raised: type[Exception] | None, opens: bool
) -> None:
    sources = [Noting(), Noting(**bad), Noting()]
    bundle = noted(*sources, name=name)
    if opens or raised:
        with pytest.raises(raised or StreamwareError):
            Archiver().open(bundle) if opens else Archiver().respond(bundle)
    else:
        assert problem(Archiver().respond(bundle))["members"][0]["index"] == 1
    assert not any(source.holding for source in sources)


@pytest.mark.parametrize("declared", [{"size": 6}, {"etag": '"w"'}, {"name": "../up"}])
def test_what_probes_kept_is_given_up_when_a_promise_does_not_hold(declared: dict[str, Any]) -> None:
    sources = [Noting(), Noting()]
    bundle = Bundle("b.zip", names="strict", on_error="skip")
    bundle.add(Member("0", sources[0]))
    bundle.add(Member(**{"name": "1", "content": sources[1], **declared}))
    assert problem(Archiver().respond(bundle))["members"][0]["index"] == 1
    assert not any(source.holding for source in sources)


def test_what_probes_kept_of_later_members_is_given_up_when_the_first_fails_late() -> None:
    class Broken(Noting):
        def open(self, start: int, length: int | None) -> Chunks:
            raise MemberChanged("changed")

    sources = [Broken(), Noting(), Noting()]
    assert problem(Archiver().respond(noted(*sources)))["members"][0]["index"] == 0
    assert not any(source.holding for source in sources[1:])


def test_upstreams_that_were_asked_are_let_go_of(archiver: Archiver) -> None:
    with ScriptedUpstream(content(LARGE)) as upstream:
        for end in (leave_at_once, leave, abort):
            reply = archiver.respond(urls(upstream, "/a", "/b", "/c"))
            assert reply.status == 200
            end(reply)
            upstream.wait_closed()
        bundle = urls(upstream, "/a", "/b")
        bundle.add_url(f"http://127.0.0.1:{free_port()}/c")
        assert problem(archiver.respond(bundle))["members"][0]["name"] == "c"
        upstream.wait_closed()


def test_fifty_downloads_that_end_early_leave_no_socket_and_no_thread() -> None:
    def stalls(request: Request, peer: Peer) -> None:
        peer.send(answer(bytes(100_000), 'ETag: "v"', length=50_000_000))
        peer.stall()

    scripts = {"/large": content(LARGE), "/stalls": stalls, "/cut": content(LARGE[:1000]), "/gone": refusing("404 No")}
    threads_before, open_before = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    archiver = Archiver()
    with ScriptedUpstream(scripts) as upstream:
        open_inside = len(os.listdir("/proc/self/fd"))
        for number in range(50):
            kind = number % 5
            paths = ["/large", "/stalls", "/large"] if kind != 1 else ["/stalls", "/large"]
            if kind == 4:
                paths.append("/gone")
            bundle = urls(upstream, *paths)
            if kind == 3:
                bundle.add_url(upstream.url("/cut"), "cut", size=2000)
                bundle.members.insert(0, bundle.members.pop())
            reply = archiver.respond(bundle)
            if kind >= 3:
                assert problem(reply)["members"][0]["name"] == ("gone" if kind == 4 else "cut")
                continue
            assert reply.status == 200
            next(iter(reply.body))
            if kind == 1:
                timer = threading.Timer(0.03, reply.body.abort)
                timer.start()
                with pytest.raises(StreamwareError):
                    for _ in reply.body:
                        pass
                timer.join()
            elif kind == 2:
                reply.body.abort()
            reply.body.close()
        archiver.close()
        upstream.wait_closed()
        assert len(os.listdir("/proc/self/fd")) == open_inside
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert set(threading.enumerate()) <= threads_before


# --- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 2])
def test_a_tree_counts_with_its_members(tmp_path: FilePath, after: int) -> None:
    for number in range(6):
        (tmp_path / f"{number}").write_bytes(b"x")
    bundle = Bundle("b.zip")
    bundle.add_tree(tmp_path)
    for number in range(after):
        bundle.add_tree(tmp_path, f"again{number}")
        bundle.add_data(f"more{number}", b"")
    archiver = Archiver(Policy(max_members=5))
    assert problem(archiver.respond(bundle))["type"] == "urn:streamware:problem:limit-exceeded"
    assert len(unzipped(read(Archiver(Policy(max_members=6 + 7 * after)), bundle))) == 6 + 7 * after


def test_content_of_no_known_kind_is_the_callers_mistake() -> None:
    bundle = Bundle("b.zip")
    bundle.add(Member("a", "text", size=4))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Archiver().respond(bundle)


def test_errors_of_members_never_leave_respond(archiver: Archiver) -> None:
    for error in (MemberError("x"), MemberChanged("y"), SourceError("z")):
        assert problem(archiver.respond(noted(Noting(), Noting(fails=error))))["members"][0]["name"] == "1"
