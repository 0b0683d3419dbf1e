"""What a client is told of faults that show before the first byte, and what it gets where only an answer's form is odd.

The rule of this file: one server process, real upstreams, curl; a refusal is a problem that names the member, and no
upstream is asked for more than it takes to know.
"""

from __future__ import annotations

import io
import ssl
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.curl import Download, bundle
from tests.faults.test_upstream_faults import certificate
from tests.faults.upstreams import Peer, Request, Script, ScriptedUpstream, answer, content, free_port
from tests.resume.replicas import Replica, asgi_command

TEXT = b"".join(b"%d\n" % n for n in range(30_000))
ETAG = 'ETag: "v1"'

pytestmark = pytest.mark.judge("curl", "openssl")


class World:
    """A server, an upstream in the clear and three with TLS. ``scripts`` are by path; ``said`` is the server's log."""

    def __init__(self, work: Path, stack: ExitStack) -> None:
        self.scripts: dict[str, Script] = {"/sound": content(TEXT)}
        self.plain = stack.enter_context(ScriptedUpstream(self.scripts))
        self.nobody = f"http://127.0.0.1:{free_port()}"
        good = certificate(work, "good", "20200101000000Z", "21200101000000Z")
        old = certificate(work, "old", "20200101000000Z", "20200102000000Z")
        strange = certificate(work, "strange", "20200101000000Z", "21200101000000Z")
        trusted = work / "trusted.pem"
        trusted.write_bytes(good[0].read_bytes() + old[0].read_bytes())
        self.secure = {name: self._tls(stack, pair[1]) for name, pair in vars_of(good, old, strange)}
        self.urls = {
            "unknown": self.secure["strange"].url("/sound", host="localhost"),
            "expired": self.secure["old"].url("/sound", host="localhost"),
            "other name": self.secure["good"].url("/sound", host="127.0.0.1"),
            "good": self.secure["good"].url("/sound", host="localhost"),
        }
        allowed = [self.plain.url("/"), f"{self.nobody}/", "http://no-such-host.invalid/"]
        allowed += [url.removesuffix("sound") for url in self.urls.values()]
        env = {"UPSTREAMS": " ".join(allowed), "SSL_CERT_FILE": str(trusted)}
        self._server = Replica(asgi_command("tests.faults.trials.app:asgi"), work / "log", env)
        self._server.start()
        stack.callback(self._server.kill)
        self.said = self._server.said
        self.url = f"{self._server.url}/bundle"
        self._work = work

    def _tls(self, stack: ExitStack, context: ssl.SSLContext) -> ScriptedUpstream:
        return stack.enter_context(ScriptedUpstream(self.scripts, tls=context))

    def get(self, *members: Mapping[str, object], name: str = "b.zip", more: tuple[str, ...] = ()) -> Download:
        path = self._work / f"{time.monotonic_ns()}.archive"
        return bundle(self.url, path, {"name": name, "members": list(members)}, more=more)

    def one(self, script: Script, **more: object) -> Download:
        """A bundle of a sound member and one that is scripted."""
        self.scripts["/odd"] = script
        del self.plain.requests[:]
        odd = {"name": "odd", "url": self.plain.url("/odd"), **more}
        return self.get({"name": "sound", "url": self.plain.url("/sound")}, odd)


def vars_of(*pairs: tuple[Path, ssl.SSLContext]) -> list[tuple[str, tuple[Path, ssl.SSLContext]]]:
    return list(zip(("good", "old", "strange"), pairs, strict=True))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path_factory.mktemp("answers"), stack)


def members_of(got: Download) -> dict[str, bytes]:
    assert got.whole, (got, got.body[:500])
    with zipfile.ZipFile(io.BytesIO(got.body)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def fails(got: Download, status: int, kind: str, name: str = "odd") -> dict[str, object]:
    """A problem that names the member and the reason; what was told of it."""
    assert (got.problem["status"], got.status) == (status, status), got.problem
    members = got.problem["members"]
    assert isinstance(members, list)
    assert [(m["name"], m["reason"]) for m in members] == [(name, kind)]
    told: dict[str, object] = members[0]
    return told


# --- nobody there, or not who was asked for ----------------------------------------------------------------------


@pytest.mark.case(1)
def test_a_server_that_is_down(world: World) -> None:
    fails(world.get({"name": "odd", "url": f"{world.nobody}/x"}), 502, "upstream-unreachable")


@pytest.mark.case(2)
def test_a_name_that_nobody_has(world: World) -> None:
    got = world.get({"name": "odd", "url": "http://no-such-host.invalid/x"})
    assert got.status in (502, 504)
    fails(got, got.status, "upstream-timeout" if got.status == 504 else "upstream-unreachable")


@pytest.mark.case(3)
@pytest.mark.parametrize("kind", ["unknown", "expired", "other name"])
def test_a_certificate_that_proves_nothing(kind: str, world: World) -> None:
    fails(world.get({"name": "odd", "url": world.urls[kind]}), 502, "upstream-unreachable")
    assert not any(upstream.requests for upstream in world.secure.values())
    assert "CERTIFICATE_VERIFY_FAILED" in world.said()


@pytest.mark.case(3)
def test_a_certificate_that_does(world: World) -> None:
    assert members_of(world.get({"name": "a", "url": world.urls["good"]})) == {"a": TEXT}
    del world.secure["good"].requests[:]


# --- answers that are no use -------------------------------------------------------------------------------------


@pytest.mark.case(4)
@pytest.mark.parametrize("status", [401, 403, 404, 410, 429, 500, 503])
def test_a_member_that_is_not_to_be_had(status: int, world: World) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"", "Retry-After: 7", status=f"{status} No"))

    got = world.one(script)
    assert fails(got, 502, "upstream-status")["status"] == status


@pytest.mark.case(6)
def test_a_server_that_thinks_too_long(world: World) -> None:
    fails(world.one(lambda request, peer: peer.stall()), 504, "upstream-timeout")


@pytest.mark.case(7)
@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    ],
    ids=["garbage", "a flood of headers", "two lengths"],
)
def test_a_head_that_is_none(raw: bytes, world: World) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(raw)
        peer.close()

    fails(world.one(script), 502, "upstream-error")


@pytest.mark.case(9)
def test_a_coding_nobody_asked_for(world: World) -> None:
    coded = content(zlib.compress(TEXT), ETAG, "Content-Encoding: gzip", etag=None)
    got = world.one(coded)
    assert got.status == 502, got.problem


@pytest.mark.case(12)
def test_a_member_of_another_size_than_promised(world: World) -> None:
    world.scripts["/odd"] = content(TEXT)
    got = world.get({"name": "odd", "url": world.plain.url("/odd"), "size": len(TEXT) + 1})
    fails(got, 502, "size-mismatch")
    got = world.one(content(TEXT), size=len(TEXT) + 1)  # what was promised is not asked for before its turn
    assert got.broken
    assert b"PK\1\2" not in got.body


# --- answers in an odd form that are of use ----------------------------------------------------------------------


@pytest.mark.case(10)
@pytest.mark.parametrize("known", [True, False])
def test_chunks_without_a_length(known: bool, world: World) -> None:
    chunked = content(TEXT, chunked=True, head=False)
    got = world.one(chunked, **({"size": len(TEXT)} if known else {}))
    assert members_of(got)["odd"] == TEXT
    heads = world.get(
        {"name": "odd", "url": world.plain.url("/odd"), **({"size": len(TEXT)} if known else {})},
        more=("--dump-header", str(got.path.with_suffix(".head"))),
    )
    assert heads.whole
    said = got.path.with_suffix(".head").read_text().lower()
    assert ("content-length:" in said) == known
    assert ("transfer-encoding: chunked" in said) != known
    assert "accept-ranges" not in said or known


@pytest.mark.case(10)
def test_a_tar_needs_the_size(world: World) -> None:
    world.scripts["/odd"] = content(TEXT, chunked=True, head=False)
    member: dict[str, object] = {"name": "odd", "url": world.plain.url("/odd")}
    got = world.get(member, name="b.tar")
    assert (got.status, got.problem["type"]) == (400, "urn:streamware:problem:size-unknown")
    got = world.get({**member, "size": len(TEXT)}, name="b.tar")
    assert got.whole
    with tarfile.open(got.path) as archive:
        file = archive.extractfile("odd")
        assert file is not None
        assert file.read() == TEXT


@pytest.mark.case(11)
def test_a_body_that_ends_with_its_connection(world: World) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"" if request.method == "HEAD" else TEXT, ETAG, length=None, version="1.0"))
        peer.close()

    fails(world.one(script), 502, "upstream-error")
    assert members_of(world.one(script, size=len(TEXT)))["odd"] == TEXT


@pytest.mark.case(13)
@pytest.mark.parametrize("lie", ["405", "0", "text/html"])
def test_head_never_decides_alone(lie: str, world: World) -> None:
    """Of many members HEAD is asked first."""
    sound = content(TEXT)

    def script(request: Request, peer: Peer) -> None:
        if request.method != "HEAD":
            sound(request, peer)
        elif lie == "405":
            peer.send(answer(b"", status="405 Method Not Allowed"))
        else:
            peer.send(answer(b"", length=0 if lie == "0" else None))

    world.scripts["/odd"] = script
    many = [{"name": f"{number}", "url": world.plain.url("/odd")} for number in range(12)]
    got = world.get(*many)
    assert set(members_of(got).values()) == {TEXT}


@pytest.mark.case(12, 18)
def test_more_than_was_promised_is_cut_off_where_a_checksum_proves_the_rest(world: World) -> None:
    longer = content(TEXT + b"and more", chunked=True, head=False)
    got = world.one(longer, size=len(TEXT), crc32=f"{zlib.crc32(TEXT):08x}")
    assert members_of(got)["odd"] == TEXT
    got = world.one(longer, size=len(TEXT))
    assert got.broken, got


@pytest.mark.case(20)
@pytest.mark.parametrize("size", [1000, len(TEXT)])
def test_a_checksum_that_is_not_met(size: int, world: World) -> None:
    got = world.one(content(TEXT[:size]), crc32="00000001")
    assert got.broken, got
    assert b"PK\1\2" not in got.body
    assert b"PK\5\6" not in got.body


# --- what is no download at all ----------------------------------------------------------------------------------


@pytest.mark.case(44)
def test_other_methods_are_refused(world: World, tmp_path: Path) -> None:
    for method, allowed in (("PUT", "GET, HEAD, POST"), ("DELETE", "GET, HEAD, POST")):
        head = tmp_path / "head"
        got = bundle(world.url, tmp_path / "body", more=("-X", method, "--dump-header", str(head)))
        assert got.status == 405
        found = [line for line in head.read_text().splitlines() if line.lower().startswith("allow:")]
        assert sorted(found[0].split(":")[1].replace(" ", "").split(",")) == sorted(allowed.replace(" ", "").split(","))
