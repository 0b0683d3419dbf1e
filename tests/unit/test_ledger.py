"""The ledger of one process: what it remembers, how much of it, for how long."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.errors import LedgerError
from streamware.ledger import BLOCK_BYTES, MAX_BLOCK, key_near, version_key
from streamware.memory_ledger import MemoryLedger

V1, V2, V3, V4 = (bytes([n]) * 16 for n in range(1, 5))


def best_of(call: Callable[[int], None], *, rounds: int = 20, calls: int = 500) -> float:
    """Seconds of one call, in the round in which nothing else disturbed."""
    rates = []
    for number in range(rounds):
        before = time.perf_counter()
        for each in range(calls):
            call(number * calls + each)
        rates.append((time.perf_counter() - before) / calls)
    return min(rates)


# --- blocks ------------------------------------------------------------------------------------------------------


def test_a_block_is_a_power_of_two_that_everybody_aligns_to() -> None:
    assert BLOCK_BYTES == 4 * 1024 * 1024


def test_blocks_are_remembered_in_any_order() -> None:
    ledger = MemoryLedger()
    wanted = {block: zlib.crc32(b"%d" % block) for block in (*range(40), 1000, MAX_BLOCK)}
    blocks = list(wanted)
    random.Random(3).shuffle(blocks)
    for block in blocks:
        ledger.learn(V1, block, wanted[block])
    ledger.learn(V2, 0, 0xFFFFFFFF)
    ledger.learn(V3, 7, 0)
    assert ledger.sums([V1, V2, V3, V4]) == {V1: wanted, V2: {0: 0xFFFFFFFF}, V3: {7: 0}}


@given(st.lists(st.tuples(st.sampled_from([V1, V2]), st.integers(0, 5), st.integers(0, 3)), max_size=30))
def test_the_last_word_on_a_block_counts(told: list[tuple[bytes, int, int]]) -> None:
    ledger = MemoryLedger()
    wanted: dict[bytes, dict[int, int]] = {}
    for version, block, crc in told:
        changed = wanted.get(version, {}).get(block) != crc
        assert ledger.learn_all([(version, block, crc)]) == ([(version, block, crc)] if changed else [])
        wanted.setdefault(version, {})[block] = crc
    assert ledger.sums([V1, V2]) == wanted


def test_neighbors_have_keys_that_begin_alike() -> None:
    def key(identity: str, validator: str = '"1"', size: int = 5) -> bytes:
        made = version_key(identity, validator, size)
        assert len(made) == len(key_near(made, b"x")) == 16
        assert key_near(made, b"x")[:4] == made[:4]
        return made

    one = key("url:https://host/a/b?sign=/x/y")
    near = [
        key("url:https://host/a/c"),
        key("url:https://host/a/b?sign=/z"),
        key("url:https://host/a/b?sign=/x/y", '"2"'),
    ]
    far = [key("url:https://host/b/b"), key("file:1/2/3"), key("nameless")]
    assert all(other[:4] == one[:4] for other in near)
    assert all(other[:4] != one[:4] for other in far)
    assert len({one[4:], *(other[4:] for other in (*near, *far))}) == 7
    assert key("\udcff", '"\udcff"') != key("\udcfe", '"\udcff"')


def test_learning_in_many_threads_loses_nothing() -> None:
    ledger = MemoryLedger()

    def learn(first: int) -> None:
        for block in range(first, 20_000, 4):
            ledger.learn(V1, block, block)
            if block % 1000 == first:
                assert ledger.sums([V1])[V1][block] == block

    threads = [threading.Thread(target=learn, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ledger.sums([V1]) == {V1: {block: block for block in range(20_000)}}


def test_what_is_forgotten_is_gone_whole() -> None:
    ledger = MemoryLedger()
    for block in range(3):
        ledger.learn(V1, block, block)
        ledger.learn(V2, block, block)
    ledger.forget(V1)
    ledger.forget(V3)
    assert ledger.sums([V1, V2]) == {V2: {0: 0, 1: 1, 2: 2}}
    ledger.learn(V1, 2, 9)
    assert ledger.sums([V1]) == {V1: {2: 9}}


@pytest.mark.parametrize(
    ("version", "block", "crc"),
    [
        (b"short", 0, 0),
        ("0123456789abcdef", 0, 0),
        (None, 0, 0),
        (V1, -1, 0),
        (V1, MAX_BLOCK + 1, 0),
        (V1, "0", 0),
        (V1, 0.0, 0),
        (V1, 0, -1),
        (V1, 0, 2**32),
        (V1, 0, None),
        (V1, True, 0),
    ],
)
def test_what_cannot_be_is_not_learned(version: object, block: object, crc: object) -> None:
    ledger = MemoryLedger()
    ledger.learn(version, block, crc)  # type: ignore[arg-type]
    assert ledger.sums([V1]) == {}


def test_what_was_known_for_an_hour_is_news_again() -> None:
    """So that a database that lost it is told. (The hour is half the lifetime here, and the lifetime short.)"""
    ledger = MemoryLedger(seconds=1)
    ledger.learn(V1, 0, 5)
    ledger.learn(V2, 0, 5)
    ledger.learn(V2, 1, 6)
    ledger.learn_coded(V3, 9)
    assert ledger.learn_all([(V1, 0, 5), (V2, 1, 6)]) == []
    assert not ledger.learn_coded_news(V3, 9)
    time.sleep(0.6)
    assert ledger.learn_all([(V1, 0, 5), (V2, 1, 6)]) == [(V1, 0, 5), (V2, 0, 5), (V2, 1, 6)]
    assert ledger.learn_coded_news(V3, 9)
    assert ledger.learn_all([(V1, 0, 5), (V2, 1, 6)]) == []
    time.sleep(0.6)
    assert ledger.sums([V1, V2]) == {V1: {0: 5}, V2: {0: 5, 1: 6}}  # and lives on


def test_entries_expire() -> None:
    ledger = MemoryLedger(seconds=0.3)
    ledger.learn(V1, 0, 5)
    ledger.learn(V2, 3, 5)
    ledger.learn_coded(V3, 9)
    assert ledger.sums([V1, V2]) == {V1: {0: 5}, V2: {3: 5}}
    assert ledger.coded([V3]) == {V3: 9}
    time.sleep(0.4)
    assert ledger.sums([V1, V2]) == {}
    assert ledger.coded([V3]) == {}


# --- bounds ------------------------------------------------------------------------------------------------------


def test_the_version_of_no_use_for_longest_leaves_first() -> None:
    ledger = MemoryLedger(max_versions=3)
    for version in (V1, V2, V3):
        ledger.learn(version, 0, 1)
    ledger.sums([V1])
    ledger.learn(V2, 0, 1)
    ledger.learn(V4, 0, 1)
    assert set(ledger.sums([V1, V2, V3, V4])) == {V1, V2, V4}


def test_the_compressed_size_of_no_use_for_longest_leaves_first() -> None:
    ledger = MemoryLedger(max_versions=3)
    for key in (V1, V2, V3):
        ledger.learn_coded(key, 1)
    ledger.coded([V1])
    ledger.learn_coded(V4, 2**40)
    assert ledger.coded([V1, V2, V3, V4]) == {V1: 1, V3: 1, V4: 2**40}


def test_blocks_are_bounded_but_the_version_at_hand_stays() -> None:
    ledger = MemoryLedger(max_blocks=100)
    for version in (V1, V2):
        for block in range(60):
            ledger.learn(version, block, block)
    assert set(ledger.sums([V1, V2])) == {V2}
    for block in range(500):
        ledger.learn(V3, block, block)
    found = ledger.sums([V2, V3])
    assert set(found) == {V3}
    assert len(found[V3]) == 100


def test_room_is_made_again_and_again() -> None:
    """The count of blocks must not drift: with it, either nothing would leave, or everything."""
    ledger = MemoryLedger(max_versions=50, max_blocks=200)
    dice = random.Random(5)
    for _ in range(20_000):
        version = dice.randbytes(1) * 16
        action = dice.random()
        if action < 0.8:
            ledger.learn(version, dice.choice((0, 0, 1, 2, 9)), dice.randrange(4))
        elif action < 0.9:
            ledger.forget(version)
        else:
            ledger.sums([version])
    found = ledger.sums([bytes([n]) * 16 for n in range(256)])
    assert 40 <= len(found) <= 50
    assert 40 <= sum(map(len, found.values())) <= 200


def test_a_hundred_thousand_versions_take_5_mib_at_most() -> None:
    ledger = MemoryLedger()
    tracemalloc.start()
    try:
        for number in range(150_000):
            ledger.learn(number.to_bytes(16, "big"), 0, 0x80000000 + number)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    kept = len(ledger.sums([number.to_bytes(16, "big") for number in range(150_000)]))
    assert 99_000 <= kept <= 100_000
    assert used <= 5 * 1024 * 1024
    assert used / kept <= 50


def test_one_block_or_many_leave_in_one_order() -> None:
    ledger = MemoryLedger(max_versions=3)
    ledger.learn(V1, 1, 1)
    ledger.sums([])
    for version in (V2, V3):
        time.sleep(0.002)  # of another time than those before
        ledger.learn(version, 0, 1)
        ledger.sums([])
    ledger.learn(V2, 1, 2)  # no longer one of one block
    ledger.learn(V4, 0, 1)
    assert ledger.sums([V1, V2, V3, V4]) == {V2: {0: 1, 1: 2}, V3: {0: 1}, V4: {0: 1}}
    time.sleep(0.002)
    ledger.sums([V2])
    ledger.learn(V1, 7, 1)
    assert ledger.sums([V1, V2, V3, V4]) == {V1: {7: 1}, V2: {0: 1, 1: 2}, V4: {0: 1}}


def test_a_key_is_not_found_across_two() -> None:
    ledger = MemoryLedger(max_versions=3)
    ledger.learn(bytes(16), 0, 0)
    ledger.learn(b"\1" + bytes(15), 0, 0)
    assert ledger.sums([bytes(8) + b"\1" + bytes(7), bytes(15) + b"\1", bytes(16)]) == {bytes(16): {0: 0}}


def test_a_further_block_takes_few_bytes() -> None:
    ledger = MemoryLedger()
    tracemalloc.start()
    try:
        for block in range(100_000):
            ledger.learn(V1, block, 0x80000000 + block)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used <= 100_000 * 10


def test_learning_and_flushing_take_microseconds() -> None:
    ledger = MemoryLedger()
    versions = [os.urandom(16) for _ in range(10_000)]
    assert best_of(lambda n: ledger.learn(versions[n], 0, n)) <= 5e-6
    assert best_of(lambda n: ledger.learn(versions[n], 0, n)) <= 5e-6
    assert best_of(lambda n: ledger.learn(V1, n, n)) <= 5e-6
    assert best_of(lambda n: ledger.flush()) <= 20e-6


# --- threads and forks -------------------------------------------------------------------------------------------


def test_threads_do_not_disturb_each_other() -> None:
    ledger = MemoryLedger()
    switch, failed = sys.getswitchinterval(), []

    def work(number: int) -> None:
        dice = random.Random(number)
        own = bytes([100 + number]) * 16
        try:
            for block in range(1500):
                ledger.learn(V1, block, block)
                ledger.learn(own, block, number)
                ledger.learn_coded(own, block)
                if dice.random() < 0.05:
                    assert ledger.sums([own, V1])[own] == dict.fromkeys(range(block + 1), number)
                    ledger.forget(V2)
        except BaseException as error:
            failed.append(error)

    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(switch)
    assert not failed
    assert ledger.sums([V1]) == {V1: {block: block for block in range(1500)}}


# --- compressed sizes and links ----------------------------------------------------------------------------------


def test_compressed_sizes_are_remembered() -> None:
    ledger = MemoryLedger()
    ledger.learn_coded(V1, 0)
    ledger.learn_coded(V2, 2**40 + 5)
    ledger.learn_coded(V2, 2**40 + 6)
    ledger.learn_coded(V3, -1)
    ledger.learn_coded(b"short", 5)
    assert ledger.coded([V1, V2, V3, b"short"]) == {V1: 0, V2: 2**40 + 6}


def test_links_are_kept_and_replaced() -> None:
    ledger = MemoryLedger()
    assert ledger.load("a") is None
    ledger.save("a", b"one", 5)
    ledger.save("b", b"two", 2**40)
    ledger.save("a", b"three", 7)
    assert ledger.load("a") == (b"three", 7)
    assert ledger.load("b") == (b"two", 2**40)


@pytest.mark.parametrize("bound", [{"max_links": 3}, {"max_link_bytes": 30}])
def test_links_are_bounded_and_none_is_dropped_for_another(bound: dict[str, int]) -> None:
    ledger = MemoryLedger(**bound)  # type: ignore[arg-type]
    later, before = int(time.time()) + 1000, int(time.time()) - 1
    ledger.save("old", b"x" * 10, before)
    for token in "ab":
        ledger.save(token, b"x" * 10, later)
    assert ledger.load("old") == (b"x" * 10, before)
    ledger.save("c", b"x" * 10, later)  # in the place of the one that has expired
    assert ledger.load("old") is None
    with pytest.raises(LedgerError) as caught:
        ledger.save("d", b"x" * 10, later)
    assert (caught.value.status, caught.value.kind, caught.value.detail_is_public) == (503, "ledger-unavailable", False)
    ledger.save("a", b"y" * 10, later)
    assert [ledger.load(token) for token in "abcd"] == [(b"y" * 10, later), *[(b"x" * 10, later)] * 2, None]


def test_closing_is_harmless() -> None:
    ledger = MemoryLedger()
    ledger.learn(V1, 0, 1)
    ledger.close()
    ledger.close()
    assert ledger.sums([V1]) == {V1: {0: 1}}
