"""Members opened before their turn: how many, how early, in which order they come, and what of it may go wrong.

Upstreams are real sockets whose every byte a test decides; what they saw is what is judged.
"""

from __future__ import annotations

import gc
import io
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamware import Archiver, Bundle, Conditions, Member, Policy, StreamwareError
from streamware.errors import BodyClosed, UpstreamStatus
from streamware.middleware import BundleMiddleware
from streamware.pump import Body
from tests.faults.upstreams import Peer, Request, Script, ScriptedUpstream, answer, content, free_port, in_turn
from tests.hosts.servers import until
from tests.synthetic import Synthetic

SMALL = 3000
LARGE = 4_000_000  # more than a socket holds, and than a member's share of the budget
FORMATS = ["zip", "tar"]


@pytest.fixture
def archiver() -> Iterator[Archiver]:
    before = set(threading.enumerate())
    made = Archiver(Policy(read_timeout_seconds=5.0))
    yield made
    made.close()
    until(lambda: not [t for t in set(threading.enumerate()) - before if t.name.startswith("streamware")], 3)


def bundle_of(upstream: ScriptedUpstream, sizes: list[int | None], form: str = "zip", **options: Any) -> Bundle:
    bundle = Bundle("b", form, **options)  # type: ignore[arg-type]
    for number, size in enumerate(sizes):
        bundle.add_url(upstream.url(f"/{number}"), size=size)
    return bundle


def filler(size: int, number: int) -> bytes:
    """Content that no other member has any of."""
    return (b"%06d " % number * (size // 7 + 1))[:size]


def number_of(request: Request) -> int:
    return int(request.target.lstrip("/"))


def files(size: int) -> Script:
    """``/N`` is a file of ``size`` bytes that no other is like."""
    return lambda request, peer: content(filler(size, number_of(request)))(request, peer)


def members_of(data: bytes, form: str) -> list[tuple[str, bytes]]:
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            return [(name, archive.read(name)) for name in archive.namelist()]
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as tar:
        return [(entry.name, tar.extractfile(entry).read()) for entry in tar]  # type: ignore[union-attr]


def drained(body: Body) -> tuple[bytes, StreamwareError | None]:
    """All that a body gives until its end, and how that came."""
    got = []
    try:
        for piece in body:
            got.append(piece)
    except StreamwareError as error:
        return b"".join(got), error
    finally:
        body.close()
    return b"".join(got), None


class Gauge:
    """How many requests an upstream is answering, and the most it ever was."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def around(self, script: Script) -> Script:
        def counted(request: Request, peer: Peer) -> None:
            with self._lock:
                self.now += 1
                self.most = max(self.most, self.now)
            try:
                script(request, peer)
            finally:
                with self._lock:
                    self.now -= 1

        return counted


class Gate:
    """Holds all requests back until so many are there, or, after that, until ``open()``."""

    def __init__(self, script: Script, wanted: Callable[[Request], bool] = lambda request: True) -> None:
        self.waiting: list[int] = []
        self._script = script
        self._wanted = wanted
        self._open = threading.Event()

    def __call__(self, request: Request, peer: Peer) -> None:
        if request.method == "GET" and self._wanted(request):
            self.waiting.append(number_of(request))
            while not self._open.is_set():
                peer.pause(0.005)
        self._script(request, peer)

    def open(self) -> None:
        self._open.set()


# --- what comes out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["sizes", "chunked"])
@pytest.mark.parametrize("form", [*FORMATS, "tar.gz"])
def test_members_keep_their_order_whichever_is_answered_first(archiver: Archiver, form: str, known: bool) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.pause(0.001 * (number_of(request) * 7 % 11))
        content(filler(SMALL, number_of(request)), chunked=not known)(request, peer)

    if form == "tar" and not known:
        pytest.skip("a TAR header needs the size")
    with ScriptedUpstream(script) as upstream:
        body = archiver.open(bundle_of(upstream, [SMALL if known else None] * 60, form))
        got = b"".join(body)
        body.close()
        upstream.wait_closed(32)
        archiver.close()
    assert members_of(got, form) == [(str(n), filler(SMALL, n)) for n in range(60)]


@pytest.mark.parametrize("size", [SMALL, 300_000, LARGE])
@pytest.mark.parametrize("form", FORMATS)
def test_every_window_of_what_was_read_ahead_is_a_slice_of_the_whole(archiver: Archiver, form: str, size: int) -> None:
    """The mixture has all sizes, local members in between, and members that are wanted in part."""
    sizes = [size, 100, 70_000, size, 0, 600_000, 1]
    with ScriptedUpstream(lambda q, p: content(filler(sizes[number_of(q)], number_of(q)))(q, p)) as upstream:
        bundle = Bundle("b", form)  # type: ignore[arg-type]
        for number, each in enumerate(sizes):
            bundle.add_url(upstream.url(f"/{number}"), size=each, etag='"v1"')
            bundle.add_data(f"{number}.txt", b"-" * (number * 1000))
        body = archiver.open(bundle)
        whole = b"".join(body)
        body.close()
        third = len(whole) // 3
        for start, stop in ((0, third), (third, 2 * third), (2 * third, len(whole)), (50, len(whole) - 50)):
            reply = archiver.respond(bundle, Conditions(range=f"bytes={start}-{stop - 1}"))
            assert reply.status == 206
            assert b"".join(reply.body) == whole[start:stop]
            reply.body.close()
        both = archiver.respond(bundle, Conditions(range=f"bytes=0-99,{third}-{third + 999},200-299"))
        joined = b"".join(both.body)
        both.body.close()
        assert whole[:100] in joined
        assert whole[third : third + 1000] in joined
        assert whole[200:300] in joined
        archiver.close()
    for number, each in enumerate(sizes):
        assert (str(number), filler(each, number)) in members_of(whole, form)


def test_small_members_that_are_there_are_joined(archiver: Archiver) -> None:
    with ScriptedUpstream(files(SMALL)) as upstream:
        body = archiver.open(bundle_of(upstream, [SMALL] * 60))
        next(body)
        until(lambda: len(upstream.requests) == 60)
        time.sleep(0.1)  # the last answers are on their way
        assert body.ready()
        pieces = list(body)
        body.close()
        archiver.close()
    assert len(pieces) <= 3


# --- how much, and how early -------------------------------------------------------------------------------------


def test_sixteen_are_open_at_once_over_sixteen_connections(archiver: Archiver) -> None:
    gauge = Gauge()

    def slow(request: Request, peer: Peer) -> None:
        peer.pause(0.004)
        files(SMALL)(request, peer)

    with ScriptedUpstream(gauge.around(slow)) as upstream:
        body = archiver.open(bundle_of(upstream, [SMALL] * 500))
        assert len(members_of(b"".join(body), "zip")) == 500
        body.close()
        assert 12 <= gauge.most <= 16  # a busy machine may keep some of the threads waiting
        assert upstream.connections <= 17
        archiver.close()


def asked_for(upstream: ScriptedUpstream) -> int:
    """Bytes of files of 20,000 that were asked for, once no more are."""
    seen = -1
    while seen != len(upstream.requests):
        seen = len(upstream.requests)
        time.sleep(0.2)
    return seen * 20_000


def test_many_stalled_clients_share_what_is_held_ahead() -> None:
    archiver = Archiver(Policy(ahead_bytes=800_000, ahead_total_bytes=400_000))
    with ScriptedUpstream(files(20_000)) as upstream:
        passed_on = []

        def stalled() -> Body:
            body = archiver.open(bundle_of(upstream, [20_000] * 100))
            passed_on.append(len(next(body)))
            return body

        bodies = [stalled() for _ in range(4)]
        before = asked_for(upstream)
        assert before <= 400_000 + 4 * (800_000 // 16 + 20_000) + sum(passed_on)
        for body in bodies[:3]:
            body.close()
        del body, bodies  # one that nobody closes gives back what it held as well
        gc.collect()
        alone = stalled()
        assert asked_for(upstream) - before > 400_000
        assert len(members_of(b"".join(archiver.open(bundle_of(upstream, [20_000] * 100))), "zip")) == 100
        alone.close()
        archiver.close()


def test_a_stalled_client_holds_no_more_than_the_budget() -> None:
    archiver = Archiver(Policy(ahead_bytes=800_000))
    with ScriptedUpstream(files(20_000)) as upstream:
        body = archiver.open(bundle_of(upstream, [20_000] * 300))
        next(body)
        seen = 0
        while seen != len(upstream.requests):
            seen = len(upstream.requests)
            time.sleep(0.2)
        # The budget's worth, and those that went into the first piece.
        assert 20 <= seen <= 40 + 15
        assert sum(map(len, body)) > 280 * 20_000
        body.close()
        archiver.close()


def test_very_small_members_are_bounded_by_their_number(archiver: Archiver) -> None:
    with ScriptedUpstream(files(10)) as upstream:
        body = archiver.open(bundle_of(upstream, [10] * 300))
        seen = -1
        while seen != len(upstream.requests):
            seen = len(upstream.requests)
            time.sleep(0.2)
        assert seen <= 4 * 16 + 2
        body.close()
        archiver.close()


@pytest.mark.parametrize("form", FORMATS)
def test_a_large_member_is_opened_only_when_the_one_before_it_nears_its_end(form: str) -> None:
    archiver = Archiver(Policy(ahead_bytes=1_000_000))
    with ScriptedUpstream(files(LARGE)) as upstream:
        body = archiver.open(bundle_of(upstream, [LARGE] * 2, form))
        got, when = 0, 0
        for piece in body:
            got += len(piece)
            if len(upstream.requests) == 2:
                when = when or got
            elif got > LARGE - 600_000:
                until(lambda: len(upstream.requests) == 2, 2)  # it was asked for by now, if not yet heard of
        body.close()
        archiver.close()
    assert LARGE - 1_000_000 - 600_000 <= when <= LARGE


def test_what_stands_ready_holds_no_connection(archiver: Archiver) -> None:
    gauge = Gauge()
    with ScriptedUpstream(gauge.around(files(SMALL))) as upstream:
        body = archiver.open(bundle_of(upstream, [SMALL] * 30))
        until(lambda: len(upstream.requests) == 30)
        until(lambda: gauge.now == 0)
        assert upstream.connections <= 16
        body.close()
        archiver.close()


def test_sources_for_one_thread_and_generators_are_not_opened_early(archiver: Archiver) -> None:
    threads: list[threading.Thread] = []

    class Serial(Synthetic):
        serial = True

        def open(self, start: int, length: int | None) -> Any:
            threads.append(threading.current_thread())
            return super().open(start, length)

    def made() -> Iterator[bytes]:
        threads.append(threading.current_thread())
        yield b"x" * 100

    with ScriptedUpstream(files(SMALL)) as upstream:
        bundle = bundle_of(upstream, [SMALL] * 3)
        for number in range(3):
            bundle.add(Member(f"s{number}", Serial(100, instant=False), size=100))
            bundle.add_stream(f"m{number}", made, size=100)
        body = archiver.open(bundle)
        until(lambda: len(upstream.requests) == 3)
        assert threads == []
        assert len(members_of(b"".join(body), "zip")) == 9
        body.close()
        archiver.close()
    assert set(threads) == {threading.current_thread()}


# --- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALL, 100_000])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.case(26)
def test_a_failure_waits_for_its_turn_and_nothing_comes_after_it(archiver: Archiver, form: str, size: int) -> None:
    def script(request: Request, peer: Peer) -> None:
        if number_of(request) == 30:
            peer.send(answer(b"", status="404 Not Found"))
        else:
            files(size)(request, peer)

    with ScriptedUpstream(script) as upstream:
        body = archiver.open(bundle_of(upstream, [size] * 40, form))
        data, error = drained(body)
        upstream.wait_closed(32)
        archiver.close()
    assert error is not None
    assert (error.member, error.index) == ("30", 30)
    assert filler(size, 29)[-3000:] in data
    assert filler(100, 31) not in data
    assert b"PK\1\2" not in data
    assert form == "zip" or not data.endswith(bytes(1024))


@pytest.mark.case(26)
@pytest.mark.parametrize("form", FORMATS)
def test_the_last_member_fails_after_99_percent(archiver: Archiver, form: str) -> None:
    def script(request: Request, peer: Peer) -> None:
        if number_of(request) == 99:
            peer.send(answer(filler(SMALL, 99)[:-10], length=SMALL))
            peer.close()
        else:
            files(SMALL)(request, peer)

    with ScriptedUpstream(script) as upstream:
        body = archiver.open(bundle_of(upstream, [SMALL] * 100, form))
        data, error = drained(body)
        archiver.close()
    assert error is not None
    assert error.member == "99"
    assert filler(SMALL, 98) in data
    assert b"PK\1\2" not in data
    assert form == "zip" or not data.endswith(bytes(1024))


@pytest.mark.parametrize("on_error", ["skip", "report"])
def test_a_member_that_fails_is_left_out_in_its_place(archiver: Archiver, on_error: str) -> None:
    """Sizes are not known, so members are left out as they come."""

    def script(request: Request, peer: Peer) -> None:
        if number_of(request) % 5 == 3 and request.method == "GET":
            peer.send(answer(b"", status="404 Not Found"))
        else:
            content(filler(SMALL, number_of(request)), chunked=True, head=False)(request, peer)

    with ScriptedUpstream(script) as upstream:
        bundle = bundle_of(upstream, [None] * 20, compress="deflate", on_error=on_error)
        for number in range(20):  # left out when it is asked, and not before
            bundle.members[number] = Member(str(number), bundle.members[number].content)
        body = archiver.open(bundle)
        got = members_of(b"".join(body), "zip")
        body.close()
        archiver.close()
    good = [(str(n), filler(SMALL, n)) for n in range(20) if n % 5 != 3]
    assert got[: len(good)] == good
    assert len(got) - len(good) == (on_error == "report")


def fails_once(kind: str, good: Script) -> Script:
    def fail(request: Request, peer: Peer) -> None:
        if kind == "reset":
            peer.reset()
        elif kind == "cut head":
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")
            peer.close()
        elif kind == "cut body":
            peer.send(answer(b"x" * 10, length=SMALL))
            peer.close()
        else:
            peer.send(b"nonsense\r\n\r\n")
            peer.close()

    return in_turn(fail, good)


@pytest.mark.parametrize("kind", ["reset", "cut head", "cut body", "nonsense"])
@pytest.mark.parametrize("form", FORMATS)
def test_what_fails_early_and_passes_is_tried_again_at_its_turn(archiver: Archiver, form: str, kind: str) -> None:
    scripts = {f"/{n}": files(SMALL) for n in range(20)}
    gate = Gate(files(SMALL))
    scripts["/0"] = gate  # so that the others are early for sure
    scripts["/7"] = fails_once(kind, files(SMALL))
    with ScriptedUpstream(scripts) as upstream:
        opener = Opened(archiver, bundle_of(upstream, [SMALL] * 20, form))
        until(lambda: "GET /7" in upstream.asked)
        gate.open()
        got = opener.read()
        archiver.close()
    assert members_of(got, form) == [(str(n), filler(SMALL, n)) for n in range(20)]


def test_a_refusal_is_not_asked_for_again(archiver: Archiver) -> None:
    scripts = {f"/{n}": files(SMALL) for n in range(20)}
    scripts["/7"] = lambda request, peer: peer.send(answer(b"", status="403 No"))
    with ScriptedUpstream(scripts) as upstream:
        body = archiver.open(bundle_of(upstream, [SMALL] * 20))
        with pytest.raises(StreamwareError):
            b"".join(body)
        body.close()
        assert Counter(upstream.asked)["GET /7"] == 1
        archiver.close()


def test_an_upstream_that_cannot_be_reached_early_may_be_at_its_turn(archiver: Archiver) -> None:
    port = free_port()
    gate = Gate(files(SMALL))
    with ScriptedUpstream(gate) as upstream:
        bundle = bundle_of(upstream, [SMALL] * 2)
        bundle.members.append(Member("2", bundle.members[0].content, size=SMALL))
        bundle.add_url(f"http://127.0.0.1:{port}/3", size=SMALL)
        opener = Opened(archiver, bundle)
        until(lambda: len(gate.waiting) == 3)
        time.sleep(0.1)  # the refused connection takes no time
        with ScriptedUpstream(files(SMALL), port=port):
            gate.open()
            got = opener.read()
            archiver.close()
    assert len(members_of(got, "zip")) == 4


@pytest.mark.case(28)
def test_answers_that_died_while_the_client_stalled_are_asked_for_again(archiver: Archiver) -> None:
    """Large ones wait open; their server gives them up, some after their first bytes."""
    tries: Counter[int] = Counter()
    died = threading.Semaphore(0)

    def script(request: Request, peer: Peer) -> None:
        number = number_of(request)
        tries[number] += 1
        if number and tries[number] == 1:
            peer.send(answer(b"", 'ETag: "v1"', length=600_000))
            peer.pause(0.05)
            peer.reset()
            died.release()
        else:
            content(filler(600_000, number))(request, peer)

    with ScriptedUpstream(script) as upstream:
        body = archiver.open(bundle_of(upstream, [600_000] * 4))
        for _ in range(3):
            assert died.acquire(timeout=5)
        got = b"".join(body)
        body.close()
        archiver.close()
    assert members_of(got, "zip") == [(str(n), filler(600_000, n)) for n in range(4)]
    assert tries == {0: 1, 1: 2, 2: 2, 3: 2}


def test_answers_that_waited_too_long_are_not_trusted() -> None:
    archiver = Archiver(Policy(held_seconds=0.05))
    with ScriptedUpstream(files(600_000)) as upstream:
        body = archiver.open(bundle_of(upstream, [600_000] * 3))
        until(lambda: len(upstream.requests) == 3)
        time.sleep(0.2)
        assert len(members_of(b"".join(body), "zip")) == 3
        body.close()
        archiver.close()
        assert Counter(upstream.asked)["GET /2"] == 2


def test_a_connection_that_died_idle_is_replaced(archiver: Archiver) -> None:
    """The upstream closes each connection after its second answer without a word."""
    served: Counter[int] = Counter()

    def script(request: Request, peer: Peer) -> None:
        served[request.connection] += 1
        files(SMALL)(request, peer)
        if served[request.connection] == 2:
            peer.close()

    with ScriptedUpstream(script) as upstream:
        body = archiver.open(bundle_of(upstream, [SMALL] * 100))
        got = b"".join(body)
        body.close()
        archiver.close()
    assert len(members_of(got, "zip")) == 100


# --- endings -----------------------------------------------------------------------------------------------------


class Opened(threading.Thread):
    """Opens and reads an archive on a thread of its own; ``read()`` gives it, or raises what that raised."""

    def __init__(self, archiver: Archiver, bundle: Bundle) -> None:
        super().__init__(daemon=True)
        self._archiver = archiver
        self._bundle = bundle
        self._got = b""
        self.body: Body | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.body = body = self._archiver.open(self._bundle)
            try:
                self._got = b"".join(body)
            finally:
                body.close()
        except BaseException as error:
            self.error = error

    def read(self) -> bytes:
        self.join(10)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self._got


@pytest.mark.case(27)
@pytest.mark.parametrize("where", ["large bodies", "small bodies"])
def test_abort_ends_everything_within_a_second(where: str) -> None:
    """Sixteen are open and none says anything more; the reader waits for the second."""
    size = 600_000 if where == "large bodies" else SMALL  # of large ones the body is not read
    gauge = Gauge()

    def stalls(request: Request, peer: Peer) -> None:
        if number_of(request) == 0:
            files(SMALL)(request, peer)
            return
        peer.send(answer(b"x", 'ETag: "v1"', length=size))
        gauge.around(lambda q, p: p.stall())(request, peer)

    with ScriptedUpstream(stalls) as upstream:
        sizes: list[int | None] = [SMALL, *[size] * 20]
        own = Archiver(Policy(read_timeout_seconds=5.0, ahead_bytes=9_500_000))
        body = own.open(bundle_of(upstream, sizes))
        ended: list[BaseException] = []

        def read() -> None:
            try:
                for _ in body:
                    pass
            except StreamwareError as error:
                ended.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        until(lambda: gauge.now == 16)
        began = time.monotonic()
        body.abort()
        reader.join(5)
        body.close()
        body.close()
        until(lambda: upstream.open_connections <= 1)  # the first one's, which is whole
        assert time.monotonic() - began < 1
        assert isinstance(ended[0], BodyClosed)
        assert gauge.most == 16
        own.close()
        upstream.wait_closed()


@pytest.mark.case(27)
def test_abort_does_not_wait_for_openings(archiver: Archiver) -> None:
    """No status has come for any: whoever reads is let go at once, and answers that come later are closed."""
    gate = Gate(files(LARGE), lambda request: number_of(request) > 0)
    with ScriptedUpstream(gate) as upstream:
        body = archiver.open(bundle_of(upstream, [LARGE] * 3))
        ended: list[float] = []

        def read() -> None:
            with pytest.raises(BodyClosed):
                for _ in body:
                    pass
            ended.append(time.monotonic())

        reader = threading.Thread(target=read)
        reader.start()
        until(lambda: len(gate.waiting) >= 2)
        began = time.monotonic()
        body.abort()
        reader.join(5)
        body.close()
        assert ended[0] - began < 1
        gate.open()
        upstream.wait_closed(1)
        archiver.close()
        upstream.wait_closed()


class Silent(Synthetic):
    """Blocks where it is opened, until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(SMALL, instant=False)
        self.asked = threading.Event()
        self.told = threading.Event()

    def open(self, start: int, length: int | None) -> Any:
        self.asked.set()
        self.told.wait(10)
        raise BodyClosed("told to stop")

    def abort(self) -> None:
        self.told.set()


@pytest.mark.case(27)
@pytest.mark.parametrize("others", [0, 5], ids=["at its turn", "ahead"])
def test_sources_that_are_being_opened_are_told_to_stop(archiver: Archiver, others: int) -> None:
    silent = [Silent() for _ in range(1 + others)]
    bundle = Bundle("b.zip")
    bundle.add(Member("first", Synthetic(200_000), size=200_000))
    for number, source in enumerate(silent):
        bundle.add(Member(str(number), source, size=SMALL))
    opener = Opened(archiver, bundle)
    for source in silent:
        assert source.asked.wait(5)
    until(lambda: opener.body is not None)  # those ahead are asked before its own thread has got it
    assert opener.body is not None
    began = time.monotonic()
    opener.body.abort()
    with pytest.raises(BodyClosed):
        opener.read()
    assert time.monotonic() - began < 1
    assert all(source.told.wait(1) for source in silent)


def test_fifty_that_end_early_leave_no_thread_and_no_connection(archiver: Archiver) -> None:
    with ScriptedUpstream(files(LARGE)) as upstream:
        for number in range(50):
            body = archiver.open(bundle_of(upstream, [LARGE] * 5))
            if number % 2:
                next(body)
            body.close()
        upstream.wait_closed()
        until(lambda: not [t for t in threading.enumerate() if t.name == "streamware-ahead"], 5)


# --- threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_bundles_inside_of_bundles_do_not_wait_for_each_other(threads: int) -> None:
    """Each of 20 members of the outer bundle is a bundle of 10 members itself, in the same archiver's threads."""
    archiver = Archiver(Policy(ahead_threads=threads, read_timeout_seconds=5.0))

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith("/inner"):
            reply = archiver.respond(bundle_of(upstream, [SMALL] * 10, "tar"))
            start_response(f"{reply.status} OK", list(reply.headers))
            return reply.body  # type: ignore[return-value]
        start_response("404 No", [("Content-Length", "0")])
        return []

    def slow(request: Request, peer: Peer) -> None:
        peer.pause(0.002)
        files(SMALL)(request, peer)

    with ScriptedUpstream(slow) as upstream:
        wrapped = BundleMiddleware(app, path="/bundle", archiver=archiver)
        query = "&".join(f"path=/inner/{n}" for n in range(20))
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/bundle",
            "QUERY_STRING": f"{query}&name=b.zip",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.multithread": True,
            "wsgi.url_scheme": "http",
            "HTTP_HOST": "x",
        }
        statuses: list[str] = []
        result: list[bytes] = []

        def ask() -> None:
            made = wrapped(environ, lambda status, headers, exc_info=None: statuses.append(status))  # type: ignore[arg-type,misc,return-value]
            try:
                result.append(b"".join(made))
            finally:
                made.close()  # type: ignore[attr-defined]

        asker = threading.Thread(target=ask, daemon=True)
        asker.start()
        asker.join(20)
        assert not asker.is_alive()
        archiver.close()
    assert statuses == ["200 OK"]
    outer = members_of(result[0], "zip")
    assert len(outer) == 20
    assert all(len(members_of(data, "tar")) == 10 for _, data in outer)


def test_without_a_thread_to_spare_members_are_opened_at_their_turn() -> None:
    """Another bundle has the only thread, and keeps it."""
    archiver = Archiver(Policy(ahead_threads=1, read_timeout_seconds=5.0))
    gate = Gate(files(SMALL), lambda request: number_of(request) == 1)
    with ScriptedUpstream(gate) as stuck, ScriptedUpstream(files(SMALL)) as upstream:
        first = archiver.open(bundle_of(stuck, [SMALL] * 3))
        until(lambda: gate.waiting == [1])
        body = archiver.open(bundle_of(upstream, [SMALL] * 30))
        assert len(members_of(b"".join(body), "zip")) == 30
        body.close()
        gate.open()
        assert len(members_of(b"".join(first), "zip")) == 3
        first.close()
        archiver.close()


def test_the_first_failure_is_still_answered_with_a_status(archiver: Archiver) -> None:
    scripts = {f"/{n}": files(SMALL) for n in range(1, 10)}
    with ScriptedUpstream(scripts) as upstream:
        reply = archiver.respond(bundle_of(upstream, [SMALL] * 10))
        assert reply.status in (404, 502)
        with pytest.raises(UpstreamStatus):
            archiver.open(bundle_of(upstream, [SMALL] * 10))
        archiver.close()
