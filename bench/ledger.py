"""What the ledger costs a download: memory and SQLite against a ledger that learns nothing.

One uvicorn for each ledger serves the same files, each download of them a new version of every file, so that all there
is to learn is learned anew. The rule of this file: the downloads take turns, and what counts is a server's CPU against
the mean of the two that learn nothing in the same round. That there are two of these shows the noise of the run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

from bench.bed import Bed
from bench.clients import download
from bench.results import Table
from bench.servers import Server
from bench.sparse import make_sparse, renew
from bench.usage import cpu_seconds

__all__ = ["run"]

MIB = 1 << 20
_SIZES = {"128 MiB": 128 * MIB, "1 MiB": MIB, "16 KiB": MIB // 64}
_LEDGERS = ("none", "none again", "memory", "sqlite")
_GOALS = {"memory": "1.03", "sqlite": "1.05"}
_SETTLE = 0.4  # seconds after a download, for what is written behind its end
_PATH = "/bundle?path=/all&name=all.zip"

Say = Callable[[str], None]


class _Cost(NamedTuple):
    wall: float  # seconds
    cpu: float  # seconds


def run(bed: Bed, rounds: int, say: Say) -> Table:
    """One line for each ledger and size of members."""
    lines: list[list[str]] = []
    for title, size in _SIZES.items():
        # The small ones as much work, by their number.
        total = int(512 * MIB * bed.scale) // (1 if size >= MIB else 16)
        folder = bed.live_folder(f"ledger-{size}")
        make_sparse(folder, [size] * max(1, total // size))
        costs = _compare(bed, folder, rounds)
        for name, found in costs.items():
            wall, cpu = (median(_ratios(costs, name, kind)) for kind in _Cost._fields)
            each = median(spent.cpu for spent in found) / (max(1, total // size) * size / (1 << 30))
            lines.append([title, name, f"{cpu:.3f}", _GOALS.get(name, ""), f"{wall:.3f}", f"{each:.3f}"])
            say(f"ledger       members of {title}, {name}: CPU {cpu:.3f}, wall {wall:.3f} of none")
    note = (
        "A download's CPU, its server's writing behind it included, and wall time, against servers that learn nothing: "
        f"median of {rounds} rounds. What the two that learn nothing differ from 1 by is the noise."
    )
    columns = ["members of", "ledger", "CPU ratio", "goal", "wall ratio", "CPU s/GiB"]
    return Table("What the ledger costs", note, columns, lines)


def _compare(bed: Bed, folder: Path, rounds: int) -> Mapping[str, Sequence[_Cost]]:
    costs: dict[str, list[_Cost]] = {name: [] for name in _LEDGERS}
    quiet = ["--lifespan", "off", "--no-access-log", "--log-level", "warning"]
    command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", *quiet]
    with ExitStack() as stack:
        servers = {}
        for name in _LEDGERS:
            url = f"sqlite:///{bed.work / folder.name}.sqlite3" if name == "sqlite" else name
            told = {"LEDGER": url, "FILES": str(folder)}
            server = bed.other_server([*command, "--factory", "bench.programs.ledger_app:app"], told)
            servers[name] = stack.enter_context(server)
        for number in range(-1, rounds):  # what is before 0 only warms up
            turn = number % len(_LEDGERS)
            for name in _LEDGERS[turn:] + _LEDGERS[:turn]:
                spent = _cost(servers[name], folder)
                if number >= 0:
                    costs[name].append(spent)
    return costs


def _cost(server: Server, folder: Path) -> _Cost:
    """One download of everything in the folder, all of it new."""
    renew(folder)
    cpu = cpu_seconds(server.pid)
    wall = download(server.port, _PATH).seconds
    time.sleep(_SETTLE)
    return _Cost(wall, cpu_seconds(server.pid) - cpu)


def _ratios(costs: Mapping[str, Sequence[_Cost]], name: str, kind: str) -> Iterator[float]:
    """What a contender spent in each round against those two that learn nothing."""
    for spent, one, other in zip(costs[name], costs["none"], costs["none again"], strict=True):
        yield getattr(spent, kind) / fmean((getattr(one, kind), getattr(other, kind)))
