"""What is opened early is what the walk asks for at its turn; and what that costs where members are many."""

from __future__ import annotations

import time
import tracemalloc
from itertools import islice
from typing import Any

import pytest

from streamware import Archiver, Bundle, Conditions, Member, Policy
from streamware.job import Job
from streamware.memory_ledger import MemoryLedger
from streamware.openings import openings
from streamware.plan import Window
from streamware.upstreams import Upstream
from tests.synthetic import Synthetic, read

SIZES = [0, 1, 100, 65_535, 65_536, 70_000, 200_000]


def opened(sources: list[Synthetic]) -> list[tuple[int, int, int | None]]:
    """What was asked of each, member by member."""
    return [(number, *asked) for number, source in enumerate(sources) for asked in source.opened]


def foretold(bundle: Bundle, window: Window) -> list[tuple[int, int, int | None]]:
    policy = Policy()
    assembly = Job(bundle, policy, Upstream(policy), MemoryLedger()).plan(keep=False)
    if assembly.plan.length is not None and window.stop is None:
        window = Window(window.start, assembly.plan.length)
    found = openings(assembly.plan, assembly.entries, assembly.plan.known(), [window], lambda member: True)
    return [(o.member, o.start, o.length) for o in found]


@pytest.mark.parametrize("crc_known", [False, True])
@pytest.mark.parametrize(
    ("form", "options"),
    [("zip", {}), ("zip", {"compress": "deflate"}), ("zip", {"compress": "auto"}), ("tar", {}), ("tar.gz", {})],
)
def test_the_whole(form: str, options: Any, crc_known: bool) -> None:
    sources = [Synthetic(size, n, crc_known=crc_known) for n, size in enumerate(SIZES)]
    bundle = Bundle("b", form, **options)  # type: ignore[arg-type]
    for number, source in enumerate(sources):
        bundle.add(Member(str(number), source))
        bundle.add_directory(f"d{number}")
    read(Archiver(), bundle)
    assert [(2 * n, *rest) for n, *rest in opened(sources)] == foretold(bundle, Window(0, None))


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_every_start_of_a_window(form: str) -> None:
    """To just before the directory, so that nothing is read for the sake of its checksum alone."""
    sources = [Synthetic(size, n, crc_known=True) for n, size in enumerate(SIZES)]
    bundle = Bundle("b", form)  # type: ignore[arg-type]
    for number, source in enumerate(sources):
        bundle.add(Member(str(number), source))
    archiver = Archiver()
    length = len(read(archiver, bundle))
    for start in range(0, length - 1, 9973):
        for stop in (start + 1, (start + length) // 2 + 1, length):
            for source in sources:
                source.opened.clear()
            reply = archiver.respond(bundle, Conditions(range=f"bytes={start}-{stop - 1}"))
            assert sum(map(len, reply.body)) == stop - start
            reply.body.close()
            assert opened(sources) == foretold(bundle, Window(start, stop)), (start, stop)


def test_of_100_000_members_few_are_looked_at() -> None:
    bundle = Bundle("b.zip")
    for number in range(100_000):
        bundle.add_url("http://127.0.0.1:1/x", str(number), size=20_000)
    policy = Policy()
    assembly = Job(bundle, policy, Upstream(policy), MemoryLedger()).plan(keep=False)
    plan = assembly.plan
    tracemalloc.start()
    try:
        known = plan.known()
        before = tracemalloc.get_traced_memory()[0]
        began = time.monotonic()
        coming = openings(plan, assembly.entries, known, [Window(0, plan.length)], lambda member: True)
        assert [o.member for o in islice(coming, 64)] == list(range(64))
        assert time.monotonic() - began < 0.1
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
