"""What importing streamware adds to importing the libraries it needs.

The rule of this file: the interpreters take turns, each a new one.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from statistics import median

from bench.bed import Bed
from bench.results import Table
from bench.servers import ROOT

__all__ = ["run"]

_LINES = ("pass", "import urllib3, falcon", "import streamware", "import streamware, falcon")

Say = Callable[[str], None]


def run(bed: Bed, rounds: int, say: Say) -> Table:
    """CPU of a new interpreter that runs one line."""
    taken: dict[str, list[float]] = {line: [] for line in _LINES}
    for number in range(-1, 3 * rounds):
        for line in _LINES:
            before = _children()
            subprocess.run([sys.executable, "-c", line], cwd=ROOT, check=True, timeout=60)
            if number >= 0:
                taken[line].append(_children() - before)
    base = taken[_LINES[1]]
    lines = []
    for line, found in taken.items():
        more = median(x - y for x, y in zip(found, base, strict=True))
        lines.append([f"`{line}`", f"{1000 * median(found):.0f}", f"{1000 * more:+.0f}"])
        say(f"startup      {line}: {1000 * median(found):.0f} ms")
    note = f"CPU of a new interpreter, median of {3 * rounds}. The goal is 60 ms more than urllib3 and falcon."
    return Table("Start-up", note, ["", "ms", "more than urllib3 and falcon, ms"], lines)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
