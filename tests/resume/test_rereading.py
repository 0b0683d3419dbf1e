"""What is read again from upstreams for the sake of checksums, counted at the upstream.

The bundle is 256 MiB, 2 GiB in the soak. "Window" is what a request asked for of the archive.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import SOAK
from tests.hosts.servers import until
from tests.resume.clients import head, scan
from tests.resume.replicas import Replica, metric, save_link, serve_command
from tests.resume.upstream import MIB, Origin, origin

BUNDLE = 2048 * MIB if SOAK else 256 * MIB
SEEDS = range(6 if SOAK else 2)
# Members of several blocks and of a part of one, no size a multiple of anything.
SIZES = [BUNDLE // 4 + 12345, BUNDLE // 2 - 777, 3 * MIB + 1, 5 * MIB - 3, 100_000]
SIZES.append(BUNDLE - sum(SIZES))

pytestmark = pytest.mark.judge("nginx")


class Site:
    """A bundle, and two replicas that share what they learn."""

    def __init__(self, members: Origin, replicas: tuple[Replica, Replica]) -> None:
        self.members = members
        self.replicas = replicas

    def renewed(self, name: str) -> tuple[str, int]:
        """A link to a bundle that nobody knows anything about, and its length."""
        self.members.renew()
        path = save_link(self.replicas[0].url, self.members.manifest(name))
        return path, int(head(f"{self.replicas[0].url}{path}").headers["content-length"])

    def delivered_for(self, url: str, start: int, stop: int | None = None, into: object = None) -> int:
        """Read a window; how many bytes the upstream delivered for it."""
        since = time.time()
        got = scan(url, start=start, stop=stop, into=into)
        assert got.status == (206 if start or stop else 200), got
        return self.members.delivered(since)

    def quiet(self) -> None:
        """Until no download is running any more: the last one has noticed that its client left."""
        for replica in self.replicas:
            until(lambda at=replica: metric(at, "streamware_active_downloads") == 0, 20)


@pytest.fixture(scope="module")
def site(work: Path) -> Iterator[Site]:
    (work / "empty").mkdir()
    with ExitStack() as stack:
        members = stack.enter_context(origin(work, SIZES))
        command = serve_command(work / "empty", work, allow=members.url)
        first, second = (stack.enter_context(Replica(command, work / f"{n}.log")) for n in (1, 2))
        yield Site(members, (first, second))


def random_cut(seed: int, total: int) -> int:
    return random.Random(seed).randrange(total // 20, total)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("at", ["the same replica", "its neighbour"])
def test_after_the_client_left_next_to_nothing_is_read_again(at: str, seed: int, site: Site) -> None:
    path, total = site.renewed("left.zip")
    first, second = site.replicas
    cut = random_cut(seed, total)
    pieced = hashlib.sha256()
    scan(f"{first.url}{path}", count=cut, into=pieced)
    site.quiet()
    if at == "its neighbour":
        time.sleep(1.5)  # what was learned last is written within a moment of the download's end
    replica = first if at == "the same replica" else second
    again = site.delivered_for(f"{replica.url}{path}", cut, into=pieced) - (total - cut)
    print(f"cut at {cut / total:.0%}, {at}: {again / MIB:+.2f} MiB beyond the window")
    assert again <= 8 * MIB
    assert pieced.hexdigest() == scan(f"{second.url}{path}").sha256


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("at", ["the same replica", "its neighbour"])
def test_after_kill_9_little_is_read_again(at: str, seed: int, site: Site) -> None:
    path, total = site.renewed("killed.zip")
    first, second = site.replicas
    cut = random_cut(seed + 100, total)
    pieced = hashlib.sha256()
    scan(f"{first.url}{path}", count=cut, into=pieced, at_end=first.kill)
    first.start()
    replica = first if at == "the same replica" else second
    again = site.delivered_for(f"{replica.url}{path}", cut, into=pieced) - (total - cut)
    print(f"killed at {cut / total:.0%}, {at}: {again / MIB:+.2f} MiB beyond the window")
    assert again <= 72 * MIB
    assert pieced.hexdigest() == scan(f"{second.url}{path}").sha256


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_cold_every_member_is_read_once_at_most(share: float, site: Site) -> None:
    path, total = site.renewed("cold.zip")
    start = int(total * share)
    tail = hashlib.sha256()
    delivered = site.delivered_for(f"{site.replicas[0].url}{path}", start, into=tail)
    print(f"cold from {share:.0%}: {delivered / MIB:.2f} MiB for a window of {(total - start) / MIB:.2f} MiB")
    # The block that the window begins in the middle of may come twice: its beginning alone was not wanted.
    assert delivered <= BUNDLE + 4 * MIB
    whole, rest = hashlib.sha256(), total - start
    assert rest
    scan(f"{site.replicas[1].url}{path}", start=start, into=whole)
    assert tail.hexdigest() == whole.hexdigest()
    # And what was learned by that serves the next, at any replica.
    time.sleep(1.5)
    again = site.delivered_for(f"{site.replicas[1].url}{path}", start) - (total - start)
    assert again <= 8 * MIB


def test_a_window_inside_a_member_reads_nothing_else(site: Site) -> None:
    path, total = site.renewed("middle.zip")
    rng = random.Random(5)
    inside = SIZES[0]
    for _ in range(6):
        start = rng.randrange(1000, inside - 3 * MIB)
        stop = start + rng.randrange(1, 3 * MIB)
        delivered = site.delivered_for(f"{site.replicas[0].url}{path}", start, stop)
        # Every 65,535 bytes of content stand behind 5 bytes of framing.
        assert (stop - start) - 5 * ((stop - start) // 65535 + 2) <= delivered <= stop - start
    assert inside < total


def test_a_window_of_a_tar_reads_nothing_else(site: Site) -> None:
    path, total = site.renewed("window.tar")
    for start in (1, total // 3, total // 2, total - 100_000):
        delivered = site.delivered_for(f"{site.replicas[0].url}{path}", start)
        assert delivered <= total - start
