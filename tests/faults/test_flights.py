"""Small members whose requests one thread sends over connections that are there: what comes whole is taken as it is,
and whatever does not is opened as always, with what has come of it.

What upstreams saw is what is judged, and how many threads and requests it took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamware import Archiver, Bundle, Policy
from streamware.errors import BodyClosed, MemberChanged, StreamwareError, UpstreamStatus
from streamware.pump import Body
from tests.faults.test_read_ahead import bundle_of, drained, filler, members_of, number_of
from tests.faults.test_upstream_faults import certificate
from tests.faults.upstreams import Peer, Request, Script, ScriptedUpstream, Tally, answer, content
from tests.hosts.servers import until

SMALL = 3000
ODD = 30  # the member whose answer is odd


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def archiver(tally: Tally) -> Iterator[Archiver]:
    made = Archiver(Policy(read_timeout_seconds=5.0, retry_pause_seconds=0.01), observer=tally)
    yield made
    made.close()


def files(request: Request, peer: Peer) -> None:
    content(filler(SMALL, number_of(request)))(request, peer)


class Upstream(ScriptedUpstream):
    """Files, but for one whose first answer a script gives, once connections are warm."""

    def __init__(self, odd: Script | None = None, **options: object) -> None:
        self.turned = threading.Event()

        def script(request: Request, peer: Peer) -> None:
            if odd is not None and number_of(request) == ODD and self.warm and not self.turned.is_set():
                self.turned.set()
                odd(request, peer)
            else:
                files(request, peer)

        self.warm = False
        super().__init__(script, **options)  # type: ignore[arg-type]

    def warmed(self, archiver: Archiver) -> None:
        """Leave connections in the pool."""
        assert len(members_of(whole(archiver.open(bundle_of(self, [SMALL] * 20))), "zip")) == 20
        del self.requests[:]
        self.warm = True


def whole(body: Body) -> bytes:
    data, error = drained(body)
    if error is not None:
        raise error
    return data


def crew() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("streamware-ahead")}


EXPECTED = [(str(n), filler(SMALL, n)) for n in range(100)]


def test_each_is_asked_for_once_over_connections_that_are_there(archiver: Archiver) -> None:
    with Upstream() as upstream:
        upstream.warmed(archiver)
        before = upstream.connections
        assert members_of(whole(archiver.open(bundle_of(upstream, [SMALL] * 100))), "zip") == EXPECTED
        assert upstream.connections <= max(before, 17)
        assert sorted(upstream.asked) == sorted(f"GET /{n}" for n in range(100))
        archiver.close()


def test_over_tls_too(archiver: Archiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, context = certificate(tmp_path, "good", "20200101000000Z", "21200101000000Z")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with Upstream(tls=context) as upstream:
        bundle = Bundle("b.zip")
        for number in range(100):
            bundle.add_url(upstream.url(f"/{number}", host="localhost"), size=SMALL)
        for _ in range(2):
            assert members_of(whole(archiver.open(bundle)), "zip") == EXPECTED
        assert upstream.connections <= 17
        archiver.close()


def _cut(request: Request, peer: Peer) -> None:
    peer.send(answer(filler(SMALL, ODD)[:1000], 'ETag: "v1"', length=SMALL))
    peer.close()


def _gone(request: Request, peer: Peer) -> None:
    peer.close()


def _moved(request: Request, peer: Peer) -> None:
    peer.send(answer(b"", f"Location: /0{ODD}", status="302 Found"))


def _slow(request: Request, peer: Peer) -> None:
    data = answer(filler(SMALL, ODD), 'ETag: "v1"')
    peer.send(data[:30])
    peer.pause(1.3)
    peer.send(data[30:2000])
    peer.pause(0.1)
    peer.send(data[2000:])


def _interim(request: Request, peer: Peer) -> None:
    peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(filler(SMALL, ODD)))


def _long_winded(request: Request, peer: Peer) -> None:
    peer.send(answer(filler(SMALL, ODD) + b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsmuggled!", length=SMALL))


def _busy(request: Request, peer: Peer) -> None:
    peer.send(answer(b"later", "Retry-After: 0", status="503 Service Unavailable"))


@pytest.mark.parametrize(
    ("odd", "asked"),
    [
        (_cut, 2),
        (_gone, 2),
        (_moved, 1),
        (_slow, 1),
        (_interim, 1),
        (_long_winded, 1),
        (_busy, 2),
        (lambda q, p: content(filler(SMALL, ODD), chunked=True)(q, p), 1),
        (lambda q, p: p.drip(answer(filler(SMALL, ODD)), size=500, seconds=0.01), 1),
    ],
    ids=["cut", "gone", "moved", "slow", "interim", "smuggled", "busy", "chunked", "in bites"],
)
def test_what_does_not_come_as_usual_comes_all_the_same(
    archiver: Archiver, tally: Tally, odd: Script, asked: int
) -> None:
    with Upstream(odd) as upstream:
        upstream.warmed(archiver)
        assert members_of(whole(archiver.open(bundle_of(upstream, [SMALL] * 100))), "zip") == EXPECTED
        assert upstream.turned.is_set()
        assert upstream.asked.count(f"GET /{ODD}") == asked
        archiver.close()


@pytest.mark.parametrize(
    "reply",
    [
        answer(filler(SMALL, ODD) + b"more"),
        answer(filler(SMALL, ODD)[:-1]),
        answer(filler(SMALL, ODD), "Content-Encoding: gzip"),
        answer(filler(SMALL, ODD), f"Content-Length: {SMALL}"),
        answer(filler(SMALL, ODD), "nothing"),
        answer(b"", status="404 Not Found"),
    ],
    ids=["long", "short", "coded", "two lengths", "no field", "404"],
)
def test_what_is_wrong_fails_at_its_turn(archiver: Archiver, reply: bytes) -> None:
    with Upstream(lambda request, peer: peer.send(reply)) as upstream:
        upstream.warmed(archiver)
        upstream.turned = _Never()
        data, error = drained(archiver.open(bundle_of(upstream, [SMALL] * 100)))
        assert isinstance(error, StreamwareError)
        assert error.member == str(ODD)
        assert filler(SMALL, ODD - 1) in data
        assert b"PK\1\2" not in data
        archiver.close()


class _Never(threading.Event):
    """So that every answer for the odd one is scripted."""

    def is_set(self) -> bool:
        return False


def test_another_version_than_was_pinned_is_not_taken(archiver: Archiver) -> None:
    with Upstream(content(filler(SMALL, ODD), etag='"v2"')) as upstream:
        upstream.warmed(archiver)
        upstream.turned = _Never()
        bundle = Bundle("b.zip")
        for number in range(100):
            bundle.add_url(upstream.url(f"/{number}"), size=SMALL, etag='"v1"')
        _, error = drained(archiver.open(bundle))
        assert isinstance(error, MemberChanged)
        assert error.member == str(ODD)
        archiver.close()


def test_a_status_is_asked_for_once(archiver: Archiver, tally: Tally) -> None:
    with Upstream(lambda request, peer: peer.send(answer(b"", status="410 Gone"))) as upstream:
        upstream.warmed(archiver)
        upstream.turned = _Never()
        _, error = drained(archiver.open(bundle_of(upstream, [SMALL] * 100)))
        assert isinstance(error, UpstreamStatus)
        assert upstream.asked.count(f"GET /{ODD}") == 1
        archiver.close()


def test_leaving_in_the_middle_closes_what_is_on_its_way(archiver: Archiver) -> None:
    def silent(request: Request, peer: Peer) -> None:
        if upstream.warm and number_of(request) >= 20:
            peer.stall()
        files(request, peer)

    upstream = Upstream()
    upstream._script = silent
    with upstream:
        upstream.warmed(archiver)
        body = archiver.open(bundle_of(upstream, [SMALL] * 100))
        next(body)
        until(lambda: any(number_of(r) >= 20 for r in upstream.requests))
        began = time.monotonic()
        body.abort()
        with pytest.raises(BodyClosed):
            for _ in body:
                pass
        body.close()
        assert time.monotonic() - began < 1
        until(lambda: not [t for t in crew() if t.is_alive()] or time.monotonic() - began > 3, 4)
        archiver.close()
        upstream.wait_closed()
