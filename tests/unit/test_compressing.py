"""Bodies that are compressed by several threads: how they break, what they hold, and that nothing is left of them."""

from __future__ import annotations

import random
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from io import BytesIO

import pytest

from streamware import Archiver, Bundle, Member, Policy
from streamware.coding import BLOCK, coded_key
from streamware.errors import BodyClosed, MemberChanged, MemberNotFound, SizeMismatch, StreamwareError
from streamware.memory_ledger import MemoryLedger
from streamware.plan import Method
from tests.synthetic import Synthetic, content, read
from tests.unit.test_pump import Failing, drain

WAIT = 10.0  # seconds; none is ever waited for in full


@pytest.fixture(params=[1, 3], ids=["alone", "threads"])
def archiver(request: pytest.FixtureRequest) -> Iterator[Archiver]:
    archiver = Archiver(Policy(deflate_threads=request.param))
    yield archiver
    archiver.close()


def compressing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "streamware-deflate"]


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("compress", ["deflate", "deflate:9", "auto"])
@pytest.mark.parametrize("good", [None, 0, 10_000, 1_500_000])
def test_a_failing_member_breaks_inside_itself(archiver: Archiver, compress: str, good: int | None) -> None:
    bundle = Bundle("b.zip", compress=compress)  # type: ignore[arg-type]
    bundle.add(Member("first.txt", Synthetic(3 * BLOCK, 1)))
    bundle.add(Member("second.txt", Synthetic(20_000, 2)))
    bundle.add(Member("failing.txt", Failing(2_000_000, good)))
    bundle.add(Member("last.txt", Synthetic(20_000, 3)))
    got, error = drain(archiver.open(bundle))
    assert isinstance(error, MemberNotFound if good is None else MemberChanged)
    assert (error.member, error.index) == ("failing.txt", 2)
    at = got.index(b"PK\3\4", got.index(b"second.txt"))
    reader = zlib.decompressobj(-15)
    name_and_extra = int.from_bytes(got[at + 26 : at + 28], "little") + int.from_bytes(got[at + 28 : at + 30], "little")
    assert reader.decompress(got[at + 30 + name_and_extra :]) == content(good or 0, 0)[: (good or 0) // 65536 * 65536]
    assert not reader.eof
    assert b"last.txt" not in got
    assert b"PK\1\2" not in got


@pytest.mark.parametrize("wrong", [-1000, 1000])
def test_what_comes_to_more_or_less_than_before_breaks_and_is_learned_anew(archiver: Archiver, wrong: int) -> None:
    bundle = Bundle("b.zip", compress="deflate")
    source = Synthetic(5 * BLOCK, 1)
    bundle.add(Member("a.txt", source))
    bundle.add(Member("b.txt", Synthetic(10, 2)))
    whole = read(archiver, bundle)
    promised = archiver.open(bundle)
    assert promised.length == len(whole)
    promised.close()
    with zipfile.ZipFile(BytesIO(whole)) as archive:
        coded = archive.getinfo("a.txt").compress_size
    key = next(key for key, told in archiver.ledger._coded.items() if told >> 48 == coded)  # type: ignore[attr-defined]
    archiver.ledger.learn_coded(key, coded + wrong)
    body = archiver.open(bundle)
    assert body.length == len(whole) + wrong
    got, error = drain(body)
    assert isinstance(error, SizeMismatch)
    assert error.member == "a.txt"
    assert b"b.txt" not in got
    assert read(archiver, bundle) == whole


class Asked(MemoryLedger):
    """Counts how often it is asked what members come to."""

    times = 0

    def coded(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        self.times += 1
        return super().coded(keys)


@pytest.mark.parametrize(("name", "times"), [("b.zip", 1), ("b.tar", 0), ("b.tar.gz", 0), ("b.tar.zst", 0)])
def test_only_what_compresses_member_by_member_asks_what_they_come_to(name: str, times: int) -> None:
    with closing(Archiver()) as archiver:
        archiver.ledger = asked = Asked()
        bundle = Bundle(name, compress="deflate")
        bundle.add(Member("a.txt", Synthetic(5, 1)))
        read(archiver, bundle)
        assert asked.times == times


def test_members_that_cannot_be_had_are_left_out_in_the_middle(archiver: Archiver) -> None:
    bundle = Bundle("b.zip", compress="deflate", on_error="report")
    for number in range(6):
        bundle.add(Member(f"{number}.txt", Failing(BLOCK, None) if number % 2 else Synthetic(2 * BLOCK, number)))
    with zipfile.ZipFile(BytesIO(read(archiver, bundle))) as archive:
        assert archive.namelist() == ["0.txt", "2.txt", "4.txt", "_errors.txt"]
        assert archive.testzip() is None
        assert archive.read("_errors.txt").count(b"\n") == 3


class Halting(Synthetic):
    """Says that it may have to be waited for, and after ``good`` bytes it has to be."""

    def __init__(self, size: int, good: int) -> None:
        super().__init__(size, instant=False)
        self.good = good
        self.go_on = threading.Event()

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        for piece in super()._pieces(start, stop):
            if start >= self.good:
                assert self.go_on.wait(WAIT)
            start += len(piece)
            yield piece


def test_what_is_compressed_leaves_before_anybody_is_waited_for(archiver: Archiver) -> None:
    source = Halting(4 * BLOCK, 2 * BLOCK)
    bundle = Bundle("b.zip", compress="deflate")
    bundle.add(Member("a.txt", source))
    body = archiver.open(bundle)
    got: list[bytes] = []
    reader = zlib.decompressobj(-15)
    thread = threading.Thread(target=lambda: got.extend(body))
    thread.start()

    def inflated() -> bytes:
        sent = b"".join(got)
        return reader.copy().decompress(sent[sent.index(b"a.txt") + 5 + 9 :]) if b"a.txt" in sent else b""

    eventually(lambda: len(inflated()) == 2 * BLOCK)
    source.go_on.set()
    thread.join(WAIT)
    body.close()
    assert len(inflated()) == 4 * BLOCK


def test_no_more_is_read_than_may_be_under_way() -> None:
    archiver = Archiver(Policy(deflate_threads=2))
    bundle = Bundle("b.zip", compress="deflate")
    bundle.add(Member("a.txt", Synthetic(200 * BLOCK)))
    body = archiver.open(bundle)
    for _ in range(5):
        before = body.bytes_in
        assert next(body)
        assert body.bytes_in - before <= 60 * BLOCK  # one piece sent, of so well compressed text
    room = archiver._deflaters.room  # type: ignore[union-attr]
    assert body._walk._line.held <= 6 * BLOCK
    body.close()
    assert room.lend(archiver.policy.deflate_total_bytes)
    archiver.close()


class Noise(Synthetic):
    """Comes to as much in the archive as it has."""

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        dice = random.Random(start)
        for _ in range(start, stop, BLOCK):
            yield dice.randbytes(BLOCK)


@pytest.mark.parametrize("name", ["b.zip", "b.tar.gz", "b.tar.zst"])
def test_abort_and_close_leave_nothing_behind(name: str) -> None:
    archiver = Archiver(Policy(deflate_threads=3))
    room = archiver._deflaters.room  # type: ignore[union-attr]
    for after in (0, 1, 3):
        source = Noise(4000 * BLOCK)
        bundle = Bundle(name, compress="deflate:9")
        bundle.add(Member("a.txt", source))
        body = archiver.open(bundle)
        raised: list[BaseException] = []

        def drain_it(body=body, raised=raised) -> None:  # type: ignore[no-untyped-def]
            try:
                for _ in body:
                    pass
            except StreamwareError as error:
                raised.append(error)

        thread = threading.Thread(target=drain_it)
        thread.start()
        eventually(lambda body=body, after=after: body.bytes_out > after * 1000)
        start = time.monotonic()
        body.abort()
        thread.join(WAIT)
        assert time.monotonic() - start < WAIT / 2
        assert isinstance(raised[0], BodyClosed)
        body.close()
        assert source.live == 0
        eventually(lambda: room.lend(archiver.policy.deflate_total_bytes))
        room.give_back(archiver.policy.deflate_total_bytes)
    archiver.close()
    eventually(lambda: not compressing())


def test_no_more_threads_than_allowed_whatever_the_number_of_bodies() -> None:
    archiver = Archiver(Policy(deflate_threads=3))
    bodies = []
    for number in range(8):
        bundle = Bundle("b.zip", compress="deflate:6")
        bundle.add(Member("a.txt", Synthetic(20 * BLOCK, number)))
        bodies.append(archiver.open(bundle))
    most = 0
    for pieces in zip(*bodies, strict=True):
        assert all(pieces)
        most = max(most, len(compressing()))
    assert 1 <= most <= 3
    for body in bodies:
        body.close()
    archiver.close()


def test_bodies_go_on_after_the_archiver_is_closed() -> None:
    archiver = Archiver(Policy(deflate_threads=3))
    bundle = Bundle("b.zip", compress="deflate:6")
    bundle.add(Member("a.txt", Synthetic(20 * BLOCK)))
    body = archiver.open(bundle)
    archiver.close()
    whole = b"".join(body)
    body.close()
    with zipfile.ZipFile(BytesIO(whole)) as archive:
        assert archive.read("a.txt") == content(20 * BLOCK, 0)


def test_one_thread_is_none_besides_the_readers() -> None:
    archiver = Archiver(Policy(deflate_threads=1))
    bundle = Bundle("b.zip", compress="deflate")
    bundle.add(Member("a.txt", Synthetic(20 * BLOCK)))
    before = set(compressing())
    read(archiver, bundle)
    assert set(compressing()) <= before
    archiver.close()


def test_level_and_method_have_their_own_sizes_in_the_ledger(archiver: Archiver) -> None:
    source = Synthetic(3 * BLOCK, 1)
    sizes = {}
    for compress in ("deflate", "deflate:2", "deflate:9", "auto"):
        bundle = Bundle("b.zip", compress=compress)  # type: ignore[arg-type]
        bundle.add(Member("a.txt", source))
        body = archiver.open(bundle)
        assert body.length is None
        body.close()
        sizes[compress] = len(read(archiver, bundle))
        body = archiver.open(bundle)
        assert body.length == sizes[compress]
        body.close()
    assert coded_key(b"v" * 16, Method.DEFLATE, 2) != coded_key(b"v" * 16, Method.DEFLATE, None)
