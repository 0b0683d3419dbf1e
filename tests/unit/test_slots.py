"""How many answers may be open at one upstream: waited for, given back, never lost."""

from __future__ import annotations

import gc
import threading
import time

from streamware.slots import Slot, Slots


def test_each_origin_has_its_own() -> None:
    slots = Slots(2)
    held = [slots.take(origin, 0) for origin in ("a", "a", "b", "b")]
    assert None not in held
    assert slots.take("a", 0) is None
    assert slots.take("c", 0) is not None
    assert isinstance(held[0], Slot)
    held[0].free()
    held[0].free()
    again = slots.take("a", 0)
    assert again is not None
    assert slots.take("a", 0) is None


def test_one_that_is_forgotten_comes_back() -> None:
    slots = Slots(1)
    slot = slots.take("a", 0)
    assert slots.take("a", 0) is None
    del slot
    gc.collect()
    assert slots.take("a", 0) is not None


def test_whoever_waits_gets_what_is_freed() -> None:
    slots = Slots(1)
    slot = slots.take("a", 0)
    assert slot is not None
    timer = threading.Timer(0.15, slot.free)
    timer.start()
    assert slots.take("a", 10) is not None
    timer.join()


def test_a_wait_ends_by_time_and_by_giving_up() -> None:
    slots = Slots(1)
    slot = slots.take("a", 0)
    started = time.monotonic()
    assert slots.take("a", 0.25) is None
    assert 0.2 < time.monotonic() - started < 2
    given_up = threading.Event()
    timer = threading.Timer(0.05, given_up.set)
    timer.start()
    assert slots.take("a", 60, given_up.is_set) is None
    assert time.monotonic() - started < 3
    timer.join()
    assert slot is not None


def test_more_than_half_are_to_spare() -> None:
    for most, held in ((1, 1), (2, 1), (3, 2), (4, 2), (256, 128)):
        slots = Slots(most)
        kept = []
        while slots.spare("a"):
            kept.append(slots.take("a", 0))
        assert len(kept) == held, most
        assert slots.spare("b")


def test_many_threads_never_hold_more_than_there_are() -> None:
    slots = Slots(3)
    lock = threading.Lock()
    held = most = done = 0

    def work() -> None:
        nonlocal held, most, done
        for _ in range(200):
            slot = slots.take("a", 30)
            assert slot is not None
            with lock:
                held += 1
                most = max(most, held)
            with lock:
                held -= 1
                done += 1
            slot.free()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == 2400
    assert most <= 3
    gc.collect()
    assert not slots._origins  # nothing is kept of an origin that nobody asks


def test_a_few_may_be_read_in_large_pieces_wherever_they_lead() -> None:
    slots = Slots(50)
    taken = [slots.take(f"host {number % 3}", 0) for number in range(20)]
    assert [slot.large for slot in taken if slot] == [True] * 16 + [False] * 4
    first = taken[0]
    assert first is not None
    first.free()
    first.free()
    more = [slots.take("host", 0), slots.take("host", 0)]
    assert [slot.large for slot in more if slot] == [True, False]
