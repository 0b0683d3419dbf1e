"""What the ledger costs a download: memory and SQLite against a ledger that learns nothing, in one run.

    python -m bench.ledger [--rounds N] [--mib N]

One uvicorn for each ledger serves the same files, each download of them a new version of every file, so that all there
is to learn is learned anew. The downloads take turns. What counts is a server's CPU time for one download (of all its
threads, the one that writes to the database included) and the download's wall time, against the mean of the two servers
that learn nothing in the same round, and of these ratios the median over all rounds: a round in which the machine was
busy with something else spoils only itself. That there are two which learn nothing shows the noise of the run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple
from urllib.parse import urlencode

from streamware import Archiver, Policy
from streamware.ledger import BLOCK_BYTES, Ledger
from streamware.middleware import AsyncBundleMiddleware
from streamware.model import Member, Tree
from tests.resume.clients import scan
from tests.resume.replicas import Replica, asgi_command

__all__ = ["app", "main"]

MIB = 1 << 20
SIZES = {"members of 128 MiB": 128 * MIB, "members of 1 MiB": MIB, "members of 16 KiB": MIB // 64}
CONTENDERS = ("none", "none again", "memory", "sqlite")
TARGETS = {"memory": 1.03, "sqlite": 1.05}
SETTLE_SECONDS = 0.4  # after a download, for what is written behind its end


class Nothing(Ledger):
    """Learns nothing and knows nothing."""

    def sums(self, versions: Sequence[bytes]) -> dict[bytes, dict[int, int]]:
        return {}

    def learn(self, version: bytes, block: int, crc32: int, length: int = BLOCK_BYTES) -> None:
        pass

    def forget(self, version: bytes) -> None:
        pass

    def coded(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        return {}

    def learn_coded(self, key: bytes, length: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def save(self, token: str, body: bytes, expires: int) -> None:
        """Nobody makes links here."""

    def load(self, token: str) -> tuple[bytes, int] | None:
        return None

    def close(self) -> None:
        pass


def app() -> AsyncBundleMiddleware:
    """What uvicorn serves: every file below FILES, with the ledger that LEDGER names."""
    ledger = os.environ["LEDGER"]
    archiver = Archiver(Policy(), ledger if ledger.startswith("sqlite:") else None)
    if ledger.startswith("none"):
        archiver.ledger = Nothing()

    async def no_page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return AsyncBundleMiddleware(no_page, archiver=archiver, local=lambda href: [Member("", Tree(os.environ["FILES"]))])


class Cost(NamedTuple):
    wall: float  # seconds
    cpu: float  # seconds


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used so far, those that have ended included."""
    return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) gives on Linux


def cost(replica: Replica, url: str, members: Path) -> Cost:
    """One download of everything below ``members``, all of it new."""
    for path in members.iterdir():
        os.utime(path)
    cpu, wall = cpu_seconds(replica.pid), time.perf_counter()
    scan(url)
    took = time.perf_counter() - wall
    time.sleep(SETTLE_SECONDS)
    return Cost(took, cpu_seconds(replica.pid) - cpu)


def make_members(folder: Path, count: int, size: int) -> None:
    """Sparse files: they cost no disk, and reading them is as fast as it gets, so that nothing hides the cost."""
    folder.mkdir()
    for number in range(count):
        with (folder / f"{number:06}.bin").open("wb") as file:
            file.truncate(size)


def compare(title: str, members: Path, total: int, rounds: int) -> bool:
    """Print a table; whether the targets were met."""
    costs: dict[str, list[Cost]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        replicas = {}
        for name in CONTENDERS:
            ledger = f"sqlite:///{folder}/ledger.sqlite3" if name == "sqlite" else name
            env = {"LEDGER": ledger, "FILES": str(members)}
            replicas[name] = stack.enter_context(Replica(asgi_command("bench.ledger:app"), Path(folder, name), env))
        query = urlencode({"path": "/all", "name": "all.zip"})
        for number in range(-1, rounds):  # what is before 0 only warms up
            turn = number % len(CONTENDERS)
            for name in CONTENDERS[turn:] + CONTENDERS[:turn]:
                spent = cost(replicas[name], f"{replicas[name].url}/bundle?{query}", members)
                if number >= 0:
                    costs[name].append(spent)
    gib = total / (1 << 30)
    print(f"\n{title}, {total // MIB} MiB, median of {rounds} rounds")
    print(f"{'ledger':12}{'wall ratio':>12}{'CPU ratio':>12}{'CPU s/GiB':>12}{'target':>9}")
    met = True
    for name, found in costs.items():
        wall, cpu = (median(ratios(costs, name, kind)) for kind in Cost._fields)
        target = TARGETS.get(name)
        met = met and (target is None or cpu <= target)
        each = median(spent.cpu for spent in found) / gib
        print(f"{name:12}{wall:12.3f}{cpu:12.3f}{each:12.3f}{'' if target is None else f'{target:9.2f}'}", flush=True)
    return met


def ratios(costs: Mapping[str, Sequence[Cost]], name: str, kind: str) -> Iterator[float]:
    """What a contender spent in each round against those two that learn nothing."""
    for spent, one, other in zip(costs[name], costs["none"], costs["none again"], strict=True):
        yield getattr(spent, kind) / fmean((getattr(one, kind), getattr(other, kind)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; 1 where a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description="What the ledger costs a download.")
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--mib", type=int, default=2048, metavar="N", help="size of a bundle (default: %(default)s)")
    args = parser.parse_args(argv)
    met = True
    with tempfile.TemporaryDirectory(prefix="bench-ledger-") as work:
        for title, size in SIZES.items():
            total = args.mib * MIB if size >= MIB else args.mib * MIB // 16  # as much work, by the number of members
            members = Path(work) / f"{size}"
            make_members(members, max(1, total // size), size)
            met = compare(title, members, total, args.rounds) and met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
