"""Work of several threads, given in order: what comes out, what is held, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator

import pytest

from streamware.crew import Crew, Room
from streamware.errors import BodyClosed, SourceError
from streamware.line import ALL_BEFORE, Late, Line, in_order

WAIT = 10.0  # seconds; none is ever waited for in full


class Blocked:
    """Work that a thread stays in until it is let go."""

    def __init__(self, data: bytes = b"done") -> None:
        self.data = data
        self.entered = threading.Event()
        self.leave = threading.Event()

    def __call__(self) -> bytes:
        self.entered.set()
        assert self.leave.wait(WAIT)
        return self.data


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew(2, "streamware-deflate", Room(2**20))
    yield crew
    crew.close()


def parts_of(*parts: bytes | Late | Exception | None) -> Generator[bytes | Late | None, None, None]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


def late(data: bytes, weight: int = 100, **how: bool) -> Late:
    return Late(lambda: data, weight, **how)


def fails() -> bytes:
    raise ValueError("of the work itself")


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_everything_comes_in_order(threads: int) -> None:
    crew = Crew(threads, "streamware-deflate", Room(2**20)) if threads else None
    line = Line(crew, 1000)
    parts = [late(b"%d," % n) if n % 3 else b"%d," % n for n in range(500)]
    assert b"".join(p or b"" for p in in_order(parts_of(*parts), line)) == b"".join(b"%d," % n for n in range(500))
    assert line.position == sum(len(b"%d," % n) for n in range(500))
    assert line.held == 0
    line.close()
    if crew is not None:
        crew.close()


def test_what_no_thread_is_at_is_made_by_whoever_takes(crew: Crew) -> None:
    blocks = [Blocked(), Blocked()]
    for block in blocks:
        assert crew.start(block)
        assert block.entered.wait(WAIT)
    makers: list[threading.Thread] = []

    def make() -> bytes:
        makers.append(threading.current_thread())
        return b"x"

    line = Line(crew, 1000)
    assert b"".join(p or b"" for p in in_order(parts_of(*(Late(make, 10) for _ in range(50))), line)) == b"x" * 50
    assert set(makers) == {threading.current_thread()}
    for block in blocks:
        block.leave.set()


def test_a_closed_crew_holds_nothing_up(crew: Crew) -> None:
    crew.close()
    assert list(in_order(parts_of(late(b"a"), late(b"b")), Line(crew, 1000))) == [b"a", b"b"]


def test_what_is_small_wakes_nobody(crew: Crew) -> None:
    names: set[str] = set()

    def make() -> bytes:
        names.add(threading.current_thread().name)
        return b"x"

    assert len(list(in_order(parts_of(*(Late(make, 10, here=True) for _ in range(50))), Line(crew, 1000)))) == 50
    assert names == {threading.current_thread().name}


def test_later_ones_are_made_while_the_first_is_awaited(crew: Crew) -> None:
    first = Blocked(b"1")
    rest = [late(b"%d" % n) for n in range(2, 8)]
    given = in_order(parts_of(Late(first, 100), *rest), Line(crew, 10_000))
    taker: list[bytes | None] = []
    thread = threading.Thread(target=lambda: taker.extend(given))
    thread.start()
    assert first.entered.wait(WAIT)
    eventually(lambda: all(one.make is None for one in rest))
    assert not taker
    first.leave.set()
    thread.join(WAIT)
    assert taker == [b"1", b"2", b"3", b"4", b"5", b"6", b"7"]


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_no_more_is_under_way_than_may_be(crew: Crew) -> None:
    line = Line(crew, 1000)
    asked = 0

    def parts() -> Generator[bytes | Late | None, None, None]:
        nonlocal asked
        for _ in range(50):
            asked += 1
            assert line.held <= 1000
            yield late(b"x", 300)

    given = in_order(parts(), line)
    next(given)
    assert asked <= 5
    assert sum(1 for _ in given) == 49


def test_together_they_borrow_no_more_than_there_is() -> None:
    crew = Crew(1, "streamware-deflate", Room(3 * 2**20))
    lines = [Line(crew, 16 * 2**20) for _ in range(3)]
    mib = 2**20
    taken = [[line.put(late(b"", mib)) for _ in range(3)] for line in lines]
    assert sum(map(sum, taken)) == 3
    assert not crew.room.lend(mib)
    for line in lines:
        line.close()
    assert crew.room.lend(3 * mib)
    assert not crew.room.lend(1)
    crew.close()


def test_threads_of_a_library_borrow_for_what_they_hold() -> None:
    crew = Crew(4, "streamware-deflate", Room(9 * 2**20))
    lines = [Line(crew, 2**20) for _ in range(3)]
    assert [line.threads() for line in lines] == [3, 1, 1]
    lines[0].close()
    assert lines[1].threads() == 3
    assert Line().threads() == 1
    for line in lines:
        line.close()
    crew.close()


def test_a_body_nobody_closed_gives_back_what_it_borrowed() -> None:
    crew = Crew(1, "streamware-deflate", Room(2**20))
    line = Line(crew, 16 * 2**20)
    assert line.put(late(b"", 2**20))
    assert not crew.room.lend(2**20)
    del line
    eventually(lambda: crew.room.lend(2**20))
    crew.close()


def test_none_comes_after_all_that_is_under_way(crew: Crew) -> None:
    parts = parts_of(late(b"a"), late(b"b"), None, late(b"c"), None)
    assert list(in_order(parts, Line(crew, 10_000))) == [b"a", b"b", None, b"c", None]


def test_what_needs_all_before_is_not_asked_for_earlier(crew: Crew) -> None:
    line = Line(crew, 10_000)
    seen: list[int] = []

    def parts() -> Generator[bytes | Late | None, None, None]:
        yield late(b"abc")
        yield Late(then=lambda _: b"%d" % line.position)
        yield late(b"de")
        yield ALL_BEFORE
        seen.append(line.position)
        yield b"."

    assert b"".join(p or b"" for p in in_order(parts(), line)) == b"abc3de."
    assert seen == [6]


def test_an_error_of_the_parts_comes_after_all_that_was_before(crew: Crew) -> None:
    given = in_order(parts_of(late(b"a"), late(b"b"), b"c", SourceError("broken")), Line(crew, 10_000))
    assert [next(given), next(given), next(given)] == [b"a", b"b", b"c"]
    with pytest.raises(SourceError, match="broken"):
        next(given)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_at_its_place_is_followed_by_nothing(threads: int) -> None:
    def refuses(_: bytes) -> bytes:
        raise SourceError("refused")

    crew = Crew(threads, "streamware-deflate", Room(2**20)) if threads else None
    given = in_order(parts_of(late(b"a"), Late(lambda: b"b", 9, refuses), late(b"c"), late(b"d")), Line(crew, 10_000))
    assert next(given) == b"a"
    with pytest.raises(SourceError, match="refused"):
        next(given)
    assert list(given) == []
    if crew is not None:
        crew.close()


@pytest.mark.parametrize("threads", [0, 2])
def test_what_fails_in_a_thread_is_raised_at_its_place(threads: int) -> None:
    crew = Crew(threads, "streamware-deflate", Room(2**20)) if threads else None
    given = in_order(parts_of(late(b"a"), Late(fails, 9), late(b"c")), Line(crew, 10_000))
    assert next(given) == b"a"
    with pytest.raises(ValueError, match="of the work itself"):
        next(given)
    if crew is not None:
        crew.close()


def test_abort_ends_who_waits_at_once(crew: Crew) -> None:
    line = Line(crew, 10_000)
    blocks = [Blocked() for _ in range(4)]
    raised: list[BaseException] = []

    def parts() -> Generator[bytes | Late | None, None, None]:
        for number, block in enumerate(blocks):
            yield Late(block, 100)
            # A thread that comes late would find it made by whoever takes: then nobody waits, and abort() ends nothing.
            assert number > 1 or block.entered.wait(WAIT)

    given = in_order(parts(), line)

    def taker() -> None:
        try:
            next(given)
        except BodyClosed as error:
            raised.append(error)

    thread = threading.Thread(target=taker)
    thread.start()
    assert blocks[0].entered.wait(WAIT)
    assert blocks[1].entered.wait(WAIT)
    line.abort()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert len(raised) == 1
    for block in blocks:
        block.leave.set()
    line.close()
    eventually(lambda: crew._idle == 2)  # none hangs
    assert not blocks[2].entered.is_set()  # nor is anything begun
    assert not blocks[3].entered.is_set()


def test_after_abort_nothing_is_made(crew: Crew) -> None:
    for given_crew in (None, crew):
        line = Line(given_crew, 10_000)
        line.abort()
        with pytest.raises(BodyClosed):
            list(in_order(parts_of(late(b"a")), line))


def test_closing_early_closes_the_parts(crew: Crew) -> None:
    closed: list[bool] = []

    def parts() -> Generator[bytes | Late | None, None, None]:
        try:
            while True:
                yield late(b"x")
        finally:
            closed.append(True)

    given = in_order(parts(), Line(crew, 1000))
    next(given)
    given.close()
    assert closed == [True]
