"""Every promise that is made of a member's bytes is held against them: lengths, checksums, digests, framing."""

from __future__ import annotations

import base64
import io
import json
import random
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from streamware import Archiver, Bundle, Conditions, Member, Policy
from streamware.digests import announced_digest, parse_digest
from streamware.errors import (
    ChecksumMismatch,
    InvalidManifest,
    MemberError,
    SizeMismatch,
    StreamwareError,
    UpstreamError,
)
from streamware.manifest import from_json, to_json
from streamware.middleware import BundleMiddleware
from streamware.model import Content, Data, File, Stream, Url
from streamware.pump import Body
from tests.faults.upstreams import Peer, Request, Script, ScriptedUpstream, answer, content, free_port, in_turn
from tests.hosts.servers import Broken, wsgiref_server

DATA = random.Random(6).randbytes(200_000)
SIZE = len(DATA)
OTHER = DATA[:150_000] + b"!" + DATA[150_001:]
DIGEST = sha256(DATA).digest()
FIELD = f"sha-256=:{base64.b64encode(DIGEST).decode()}:"
WRONG = f"sha-256=:{base64.b64encode(sha256(OTHER).digest()).decode()}:"
POLICY = Policy(
    read_timeout_seconds=5.0, connect_timeout_seconds=2.0, retry_pause_seconds=0.01, allow=("http://127.0.0.1/",)
)


@pytest.fixture
def archiver() -> Iterator[Archiver]:
    made = Archiver(POLICY)
    yield made
    made.close()


def whole(body: Body) -> bytes:
    try:
        return b"".join(body)
    finally:
        body.close()


def unpacked(archive: bytes, name: str) -> dict[str, bytes]:
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
            assert zipped.testzip() is None
            return {n: zipped.read(n) for n in zipped.namelist()}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tarred:
        return {m.name: tarred.extractfile(m).read() for m in tarred}  # type: ignore[union-attr]


def breaks(body: Body, error: type[Exception]) -> bytes:
    """What came before the error; nothing that ends an archive is in it."""
    got: list[bytes] = []
    with pytest.raises(error):
        got.extend(body)
    body.close()
    assert b"PK\x01\x02" not in b"".join(got)
    return b"".join(got)


# --- how a digest is written -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [
        FIELD,
        f"sha-512=:AAAA:, {FIELD}",
        f"md5=:AAAA:,{FIELD};q=1 , unixsum=7",
        f"{WRONG}, {FIELD}",  # RFC 9651 section 4.2.2: the last counts
    ],
)
def test_a_digest_that_is_announced(field: str) -> None:
    assert announced_digest(field) == DIGEST


@pytest.mark.parametrize(
    "field",
    [
        *("", "sha-256", "sha-256=?1", "sha-256=::", "sha-256=:AAAA:", "sha-512=:AAAA:", DIGEST.hex()),
        FIELD.replace("sha-256", "SHA-256"),  # RFC 9651 section 3.2: keys are lower case
        FIELD.replace("sha-256", "x-sha-256"),
        FIELD[:-1],
        FIELD + "x",
        FIELD.replace("=:", "= :", 1),
    ],
)
def test_a_field_that_announces_none(field: str) -> None:
    assert announced_digest(field) is None


def test_a_digest_may_be_given_in_several_ways() -> None:
    bundle = Bundle()
    for digest in (DIGEST, DIGEST.hex(), DIGEST.hex().upper(), FIELD):
        bundle.add_url("http://h/a", digest=digest)
        bundle.add_stream("s", list, digest=digest)
    assert {member.digest for member in bundle.members} == {DIGEST}
    for wrong in (b"", DIGEST[:-1], DIGEST + b"x", "", "x", DIGEST.hex()[:-1], "sha-256=:AAAA:"):
        with pytest.raises(InvalidManifest):
            bundle.add_url("http://h/a", digest=wrong)
    with pytest.raises(ValueError, match="hexadecimal"):
        parse_digest(DIGEST.hex() + "\n")


@pytest.mark.case(34)
@pytest.mark.parametrize(
    "value", ["", "x" * 64, DIGEST.hex()[:-1], "sha-256=:AAAA:", "sha-512=:AAAA:", 5, True, [], {}]
)
def test_a_digest_in_a_manifest_is_checked(value: Any) -> None:
    body = json.dumps({"name": "b.zip", "members": [{"name": "a", "url": "http://h/a", "digest": value}]}).encode()
    with pytest.raises(StreamwareError) as caught:
        from_json(body, POLICY)
    assert (caught.value.status, caught.value.pointer) == (400, "/members/0/digest")


def test_a_digest_goes_through_a_manifest() -> None:
    for text in (DIGEST.hex(), FIELD):
        body = f'{{"name": "b.zip", "members": [{{"name": "a", "url": "http://h/a", "digest": "{text}"}}]}}'.encode()
        bundle = from_json(body, POLICY)
        assert bundle.members == [Member("a", Url("http://h/a"), digest=DIGEST)]
        assert from_json(to_json(bundle), POLICY).members == bundle.members


def test_a_texts_own_digest_is_checked_at_once() -> None:
    for text, fits in (("hello", True), ("hullo", False)):
        digest = sha256(b"hello").hexdigest()
        body = f'{{"name": "b", "members": [{{"name": "a", "text": "{text}", "digest": "{digest}"}}]}}'.encode()
        if fits:
            from_json(body, POLICY)
        else:
            with pytest.raises(InvalidManifest, match="digest"):
                from_json(body, POLICY)


# --- digests that are declared -----------------------------------------------------------------------------------


@pytest.mark.case(20)
@pytest.mark.parametrize("name", ["b.zip", "b.tar"])
@pytest.mark.parametrize("kind", ["url", "file", "stream", "data"])
@pytest.mark.parametrize("compress", ["stored", "deflate"])
@pytest.mark.parametrize("data", [DATA, DATA[:-1] + b"!", b"small", b""], ids=["long", "other", "small", "empty"])
def test_a_declared_digest_is_checked_of_every_kind(
    archiver: Archiver, tmp_path: Path, name: str, kind: str, compress: Any, data: bytes
) -> None:
    (tmp_path / "f").write_bytes(data)
    with ScriptedUpstream(content(data)) as upstream:
        held: dict[str, Content] = {
            "url": Url(upstream.url(), trusted=True),
            "file": File(str(tmp_path / "f")),
            "stream": Stream(lambda: [data[:70_000], data[70_000:]]),
            "data": Data(data),
        }
        for right in (True, False):
            bundle = Bundle(name, compress=compress)
            bundle.add_data("first", b"first")
            digest = sha256(data if right else b"another").digest()
            bundle.add(Member("a", held[kind], len(data) if kind == "stream" else None, digest=digest))
            bundle.add_data("last", b"last")
            if right:
                assert unpacked(whole(archiver.open(bundle)), name) == {"first": b"first", "a": data, "last": b"last"}
            elif data:
                assert b"last" not in breaks(archiver.open(bundle), ChecksumMismatch)
            else:
                with pytest.raises(ChecksumMismatch):
                    archiver.open(bundle)


@pytest.mark.case(20)
def test_a_stream_of_unknown_size_with_a_digest(archiver: Archiver) -> None:
    for digest, right in ((DIGEST, True), (sha256(OTHER).digest(), False)):
        bundle = Bundle("b.zip")
        bundle.add_stream("s", lambda: [DATA[:9], DATA[9:]], digest=digest)
        if right:
            assert unpacked(whole(archiver.open(bundle)), "b.zip") == {"s": DATA}
        else:
            breaks(archiver.open(bundle), ChecksumMismatch)


def test_size_and_digest_pin_a_member(archiver: Archiver) -> None:
    """As size and CRC-32 do: the archive has a strong tag, which the digest is part of, and can be had in parts."""
    tags = set()
    with ScriptedUpstream(content(DATA, etag=None)) as upstream:
        for digest in (DIGEST, sha256(OTHER).digest(), None):
            bundle = Bundle("b.zip")
            bundle.add_url(upstream.url("/a"), size=len(DATA), digest=digest)
            reply = archiver.respond(bundle, Conditions(method="HEAD"))
            tag = reply.header("ETag")
            assert (tag is not None and not tag.startswith("W/")) is (digest is not None)
            assert (reply.header("Accept-Ranges") == "bytes") is (digest is not None)
            tags.add(tag)
        assert len(tags) == 3
        bundle = Bundle("b.zip")
        bundle.add_url(upstream.url("/a"), size=len(DATA), digest=DIGEST)
        archive = whole(archiver.open(bundle))
        reply = archiver.respond(bundle, Conditions(range="bytes=1000-1999"))
        assert reply.status == 206
        assert whole(reply.body) == archive[1000:2000]  # type: ignore[arg-type]
        # A part of the member proves nothing of the digest, and breaks on nothing.
        bundle.members = [Member("a", bundle.members[0].content, len(DATA), digest=sha256(OTHER).digest())]
        reply = archiver.respond(bundle, Conditions(range="bytes=1000-1999"))
        assert whole(reply.body) == archive[1000:2000]  # type: ignore[arg-type]


# --- digests that are announced ----------------------------------------------------------------------------------


@pytest.mark.case(20)
@pytest.mark.parametrize("name", ["b.zip", "b.tar"])
@pytest.mark.parametrize(
    ("field", "right"),
    [(FIELD, True), (f"sha-512=:AAAA:, {FIELD}", True), ("sha-256=:broken:", True), (WRONG, False)],
)
def test_an_upstreams_own_digest_is_checked(archiver: Archiver, name: str, field: str, right: bool) -> None:
    with ScriptedUpstream(content(DATA, f"Repr-Digest: {field}")) as upstream:
        bundle = Bundle(name)
        bundle.add_url(upstream.url("/a"))
        if right:
            assert unpacked(whole(archiver.open(bundle)), name) == {"a": DATA}
        else:
            breaks(archiver.open(bundle), ChecksumMismatch)


@pytest.mark.case(19, 20)
def test_what_is_announced_must_be_what_was_declared(archiver: Archiver) -> None:
    with ScriptedUpstream(content(OTHER, f"Repr-Digest: {WRONG}")) as upstream:
        for size in (None, len(OTHER)):
            bundle = Bundle("b.zip")
            bundle.add_url(upstream.url("/a"), size=size, digest=DIGEST)
            with pytest.raises(ChecksumMismatch):  # before a byte of it was read
                archiver.open(bundle)


@pytest.mark.case(17, 19)
def test_a_digest_that_is_announced_goes_with_the_member_while_it_is_healed(archiver: Archiver) -> None:
    def short(request: Request, peer: Peer) -> None:
        peer.send(answer(DATA[:90_000], 'ETag: "v1"', f"Repr-Digest: {FIELD}", length=len(DATA)))
        peer.close()

    for mirror, right in ((DATA, True), (OTHER, False)):  # a server that keeps its tag, and changes its mind
        with ScriptedUpstream(in_turn(short, content(mirror))) as upstream:
            bundle = Bundle("b.tar")
            bundle.add_url(upstream.url("/a"), size=len(DATA))
            if right:
                assert unpacked(whole(archiver.open(bundle)), "b.tar") == {"a": DATA}
            else:
                breaks(archiver.open(bundle), ChecksumMismatch)


@pytest.mark.case(20, 24)
def test_a_wrapped_apps_own_digest_is_checked() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        field = FIELD if environ["PATH_INFO"] == "/right" else WRONG
        start_response("200 OK", [("Content-Length", str(len(DATA))), ("Repr-Digest", field)])
        return [DATA]

    with wsgiref_server(BundleMiddleware(app, path="/bundle")) as server:
        got = server.get("/bundle?path=/right&name=b.zip")
        assert unpacked(got.body, "b.zip") == {"right": DATA}
        with pytest.raises(Broken):
            server.get("/bundle?path=/wrong&name=b.zip")


# --- declared to be empty ----------------------------------------------------------------------------------------


@pytest.mark.case(4, 12)
@pytest.mark.parametrize("kind", ["missing", "full", "chunked", "empty", "empty chunked"])
@pytest.mark.parametrize("name", ["b.zip", "b.tar"])
def test_a_url_declared_empty_is_asked(archiver: Archiver, name: str, kind: str) -> None:
    """Nothing of it is opened for the archive, which would look complete whatever the server has."""
    scripts = {
        "missing": lambda request, peer: peer.send(answer(b"", status="404 Not Found")),
        "full": content(DATA),
        "chunked": content(DATA, chunked=True),
        "empty": content(b""),
        "empty chunked": content(b"", chunked=True),
    }
    with ScriptedUpstream(scripts[kind]) as upstream:
        for others in (0, 9):  # few are asked by the very GETs that would deliver them
            bundle = Bundle(name)
            for number in range(others):
                bundle.add_url(upstream.url(f"/{number}"), f"other {number}", size=0)
            bundle.add_url(upstream.url("/a"), "a", size=0)
            reply = archiver.respond(bundle)
            assert reply.status == (200 if kind.startswith("empty") else 502)
            archive = whole(reply.body)  # type: ignore[arg-type]
            if reply.status == 200:
                assert unpacked(archive, name)["a"] == b""
        upstream.wait_closed(10)


class AskedOnce:
    """An app's body that fails where it is asked again after its end."""

    def __init__(self) -> None:
        self.ended = False

    def __iter__(self) -> AskedOnce:
        return self

    def __next__(self) -> bytes:
        if self.ended:
            raise ValueError("read of closed file")
        self.ended = True
        raise StopIteration


@pytest.mark.case(24)
def test_an_empty_body_is_not_asked_again_after_its_end() -> None:
    def app(environ: Any, start_response: Any) -> AskedOnce:
        start_response("200 OK", [("Content-Length", "0")])
        return AskedOnce()

    with wsgiref_server(BundleMiddleware(app, path="/bundle")) as server:
        query = "&".join(f"path=/{number}" for number in range(9))  # few would be asked in another way
        assert set(unpacked(server.get(f"/bundle?{query}").body, "b.zip").values()) == {b""}


@pytest.mark.case(4, 12, 24)
@pytest.mark.parametrize("length", [True, False])
def test_a_path_declared_empty_is_asked(length: bool) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        found, data = environ["PATH_INFO"] != "/missing", DATA if environ["PATH_INFO"] == "/full" else b""
        told = [("Content-Length", str(len(data)))] if length else []
        start_response("200 OK" if found else "404 Not Found", told)
        yield b"" if environ["REQUEST_METHOD"] == "HEAD" else data

    with wsgiref_server(BundleMiddleware(app, path="/bundle")) as server:
        for path, status in (("/missing", 404), ("/full", 502), ("/empty", 200)):
            manifest = {"name": "b.zip", "members": [{"name": "a", "path": path, "size": 0}]}
            fields = {"Content-Type": "application/json"}
            got = server.request("POST", "/bundle", fields, body=json.dumps(manifest).encode())
            assert got.status == status
            if status == 200:
                assert unpacked(got.body, "b.zip") == {"a": b""}


# --- framing that proves nothing ---------------------------------------------------------------------------------


def raw(head: str, body: bytes = b"hello") -> Script:
    def script(request: Request, peer: Peer) -> None:
        peer.send(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)
        peer.close()

    return script


@pytest.mark.parametrize(
    ("head", "body"),
    [
        pytest.param("200 OK\r\nContent-Length: -5", b"hello", marks=pytest.mark.case(8)),
        pytest.param("200 OK\r\nContent-Length: 5, 5", b"hello", marks=pytest.mark.case(8)),
        pytest.param("200 OK\r\nContent-Length: 5\r\nContent-Length: 6", b"hello", marks=pytest.mark.case(7, 8)),
        pytest.param("200 OK\r\nContent-Length: +5", b"hello", marks=pytest.mark.case(8)),
        pytest.param("200 OK\r\nContent-Length: 0x5", b"hello", marks=pytest.mark.case(8)),
        pytest.param(
            "200 OK\r\nTransfer-Encoding: gzip, chunked", b"5\r\nhello\r\n0\r\n\r\n", marks=pytest.mark.case(8)
        ),
        pytest.param("200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip", b"hello", marks=pytest.mark.case(9)),
        pytest.param("200 OK\r\nConnection: close", b"hello", marks=pytest.mark.case(11)),
        pytest.param(
            "206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/5",
            b"hello",
            marks=pytest.mark.case(14),
        ),
        pytest.param("200 OK\r\nContent-Length : 5", b"hello", marks=pytest.mark.case(7)),
        pytest.param("999 Huh\r\nContent-Length: 5", b"hello", marks=pytest.mark.case(4)),
        pytest.param("200 OK\r\n" + "X: y\r\n" * 200 + "Content-Length: 5", b"hello", marks=pytest.mark.case(7)),
    ],
)
def test_an_answer_that_can_be_read_in_two_ways_is_refused(archiver: Archiver, head: str, body: bytes) -> None:
    with ScriptedUpstream(raw(head, body)) as upstream:
        bundle = Bundle("b.zip")
        bundle.add_url(upstream.url("/a"))
        reply = archiver.respond(bundle)
        assert (reply.status, reply.header("Content-Type")) == (502, "application/problem+json")
        reply.body.close()
        with pytest.raises(UpstreamError):
            archiver.open(bundle)
        upstream.wait_closed()


@pytest.mark.case(8)
def test_a_length_beside_chunks_counts_for_nothing(archiver: Archiver) -> None:
    head = "200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked"
    with ScriptedUpstream(raw(head, b"5\r\nhello\r\n0\r\n\r\n")) as upstream:
        bundle = Bundle("b.zip")
        bundle.add_url(upstream.url("/a"))
        body = archiver.open(bundle)
        assert body.length is None
        assert unpacked(whole(body), "b.zip") == {"a": b"hello"}


@pytest.mark.case(10, 11)
@pytest.mark.parametrize("sent", [len(DATA), len(DATA) - 1, 0])
@pytest.mark.parametrize(
    "known", [{"digest": DIGEST}, {"size": len(DATA)}, {"size": len(DATA), "crc32": zlib.crc32(DATA)}]
)
def test_an_end_that_only_the_connection_tells_is_proved(archiver: Archiver, sent: int, known: Any) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(DATA[:sent], length=None))
        peer.close()

    with ScriptedUpstream(script) as upstream:
        bundle = Bundle("b.zip")
        bundle.add_url(upstream.url("/a"), "a", **known)
        if sent == len(DATA):
            assert unpacked(whole(archiver.open(bundle)), "b.zip") == {"a": DATA}
        else:
            breaks(archiver.open(bundle), MemberError)


@pytest.mark.case(12, 18, 20)
@pytest.mark.parametrize("known", [{"size": 199_999}, {"size": 200_001}, {"crc32": 1}, {"digest": bytes(32)}])
def test_what_is_declared_is_held_against_what_comes(archiver: Archiver, known: Any) -> None:
    with ScriptedUpstream(content(DATA, chunked=True)) as upstream:
        bundle = Bundle("b.zip")
        bundle.add_url(upstream.url("/a"), "a", **{"size": len(DATA), **known})
        breaks(archiver.open(bundle), MemberError)
        assert known.get("size") == 200_001 or len(upstream.requests) == 1  # nothing that another try could mend


@pytest.mark.case(11, 12)
@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("name", ["b.zip", "b.tar"])
@pytest.mark.parametrize("length", [100, 70_000, 200_000])
def test_a_body_that_goes_on_behind_the_declared_size_is_another(
    archiver: Archiver, framing: str, name: str, length: int
) -> None:
    """Its beginning alone would be an archive that looks complete."""

    def script(request: Request, peer: Peer) -> None:
        if framing == "chunked":
            content(DATA[:length], chunked=True)(request, peer)
        else:
            peer.send(answer(DATA[:length], 'ETag: "v1"', length=None))
            peer.close()

    with ScriptedUpstream(script) as upstream:
        for size in (length, length - 1):
            bundle = Bundle(name)
            bundle.add_data("first", b"first")
            bundle.add_url(upstream.url("/a"), size=size)
            bundle.add_data("last", b"last")
            if size == length:
                assert unpacked(whole(archiver.open(bundle)), name)["a"] == DATA[:length]
            else:
                assert b"last" not in breaks(archiver.open(bundle), SizeMismatch)


@pytest.mark.case(17)
@pytest.mark.parametrize("how", ["close", "stall"])
def test_a_declared_size_that_came_is_enough(archiver: Archiver, how: str) -> None:
    """What a server does behind it, short of sending more, takes nothing away from it."""

    def script(request: Request, peer: Peer) -> None:
        peer.send(answer(b"5\r\nhello\r\n", "Transfer-Encoding: chunked", length=None))
        peer.close() if how == "close" else peer.stall()

    made = Archiver(Policy(read_timeout_seconds=0.3))
    with ScriptedUpstream(script) as upstream:
        bundle = Bundle("b.zip")
        bundle.add_url(upstream.url("/a"), size=5)
        assert unpacked(whole(made.open(bundle)), "b.zip") == {"a": b"hello"}
        upstream.wait_closed()
    made.close()


@pytest.mark.case(13)
@pytest.mark.parametrize(
    "head", ["405 No\r\nContent-Length: 0", "200 OK\r\nContent-Length: 7", "200 OK\r\nContent-Length: 0"]
)
def test_a_head_that_lies_decides_nothing(archiver: Archiver, head: str) -> None:
    def script(request: Request, peer: Peer) -> None:
        (raw(head, b"") if request.method == "HEAD" else content(DATA))(request, peer)

    with ScriptedUpstream(script) as upstream:
        bundle = Bundle("b.zip")
        bundle.add_url(upstream.url("/a"), "a")
        reply = archiver.respond(bundle, Conditions(if_none_match='"x"'))  # asks with HEAD first
        if head.endswith("7"):
            breaks(reply.body, MemberError) if reply.status == 200 else reply.body.close()  # type: ignore[arg-type]
        else:
            assert unpacked(whole(reply.body), "b.zip") == {"a": DATA}  # type: ignore[arg-type]
        assert unpacked(whole(archiver.open(bundle)), "b.zip") == {"a": DATA}


@pytest.mark.case(1)
def test_nobody_there_is_told_by_name(archiver: Archiver) -> None:
    bundle = Bundle("b.zip")
    bundle.add_url(f"http://127.0.0.1:{free_port()}/a.log")
    reply = archiver.respond(bundle)
    told = b"".join(reply.body)
    reply.body.close()
    assert reply.status == 502
    assert b"upstream-unreachable" in told
    assert b"a.log" in told
