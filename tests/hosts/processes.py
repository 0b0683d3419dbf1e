"""What a serving process holds: open files, threads, resident memory, as the kernel tells them. Linux alone.

The rule of this file: it looks at the process that serves, which under gunicorn is not the one that was started.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Usage", "linux", "serving"]

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process holds is read from /proc")


def serving(pid: int) -> int:
    """The only child of a master process, or the process itself."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) <= 1, f"{pid} has more than one worker"
    return int(children[0]) if children else pid


@dataclass(frozen=True)
class Usage:
    files: int
    threads: int
    resident: float  # MiB

    @classmethod
    def of(cls, pid: int) -> Usage:
        proc = Path(f"/proc/{pid}")
        found = re.search(r"^VmRSS:\s+(\d+) kB", (proc / "status").read_text(), re.MULTILINE)
        assert found
        return cls(
            sum(1 for _ in (proc / "fd").iterdir()), sum(1 for _ in (proc / "task").iterdir()), int(found[1]) / 1024
        )
