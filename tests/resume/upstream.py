"""Large members behind nginx, and what nginx has delivered of them.

The rule of this file: the members are sparse, so that they cost no disk, but no two of their blocks are alike, so that
a block taken for another is noticed.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.hosts.nginx import nginx

__all__ = ["MIB", "Origin", "origin", "sparse_member"]

MIB = 1 << 20

_LINE = re.compile(r"(?P<method>\S+) \S+ [0-9]+ (?P<bytes>[0-9]+) (?P<end>[0-9.]+) (?P<took>[0-9.]+) \S+\n")


class Delivery(NamedTuple):
    began: float  # Unix seconds
    bytes: int


class Origin:
    """An nginx with members. ``url`` is without a final slash."""

    def __init__(self, url: str, root: Path, access: Path, names: Sequence[str]) -> None:
        self.url = url
        self.names = tuple(names)
        self.root = root
        self._access = access

    def manifest(self, name: str) -> dict[str, object]:
        """A bundle of all members, of which nothing is told but where they are."""
        return {"name": name, "members": [{"name": n, "url": f"{self.url}/{n}"} for n in self.names]}

    def renew(self) -> None:
        """Give every member a new version, so that nothing that was learned is true any more."""
        for name in self.names:
            found = (self.root / name).stat()
            os.utime(self.root / name, (found.st_mtime + 1, found.st_mtime + 1))

    def delivered(self, since: float = 0.0) -> int:
        """Bytes of bodies given to requests that began at ``since`` (Unix seconds) or later.

        A broken request is counted with what nginx had handed to the system. Waits until nothing more is told.
        """
        deadline = time.monotonic() + 20
        seen, lines = -1, ""
        while len(lines) != seen:
            assert time.monotonic() < deadline, "nginx keeps delivering"
            seen = len(lines)
            time.sleep(0.15)
            lines = self._access.read_text()
        return sum(d.bytes for d in _deliveries(lines) if d.began >= since)


def _deliveries(lines: str) -> Iterator[Delivery]:
    for line in _LINE.finditer(lines):
        if line["method"] == "GET":
            yield Delivery(float(line["end"]) - float(line["took"]), int(line["bytes"]))


def sparse_member(path: Path, size: int, seed: int) -> None:
    """A file of zeros with a few bytes of its own in every MiB, at places of their own."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for start in range(0, size, MIB):
            file.seek(start + rng.randrange(max(1, min(MIB, size - start) - 8)))
            file.write(rng.randbytes(min(8, size - start)))


@contextmanager
def origin(work: Path, sizes: Sequence[int]) -> Iterator[Origin]:
    """An nginx that serves members of these sizes."""
    root = work / "members"
    root.mkdir(parents=True)
    names = [f"member-{number:03}.bin" for number in range(len(sizes))]
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        sparse_member(root / name, size, number)
    with nginx(root, work / "nginx", log=True) as url:
        yield Origin(url, root, work / "nginx" / "access", names)
