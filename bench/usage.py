"""What a tree of processes uses: CPU seconds, memory, threads. Linux only.

The rule of this file: it reads what the kernel counts and starts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["cpu_seconds", "forget_peak", "peak_bytes", "resident_bytes", "threads", "tree"]


def tree(pid: int) -> Iterator[int]:
    """A process and all below it that still run."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def cpu_seconds(pid: int) -> float:
    """What all threads of the tree have used so far in user and kernel, those that have ended included."""
    # clock_getcpuclockid(3) gives this id on Linux. It counts nanoseconds, /proc hundredths of a second.
    return sum(time.clock_gettime(~each << 3 | 2) for each in tree(pid))


def resident_bytes(pid: int) -> int:
    """What the tree holds now; memory that processes share counts for each."""
    return sum(_field(each, "VmRSS") for each in tree(pid)) * 1024


def peak_bytes(pid: int) -> int:
    """The most that each process of the tree held since it started or ``forget_peak``, added up."""
    return sum(_field(each, "VmHWM") for each in tree(pid)) * 1024


def forget_peak(pid: int) -> None:
    """Let peaks count from what is held now. Where the kernel refuses, they go on."""
    for each in tree(pid):
        with suppress(OSError):
            Path(f"/proc/{each}/clear_refs").write_text("5")


def threads(pid: int) -> int:
    return sum(_field(each, "Threads") for each in tree(pid))


def _field(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0
