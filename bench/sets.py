"""The members that are bundled: how many, how large, of what; and their files on disk.

The rule of this file: the same seed makes the same bytes, and a set is made once, before any clock runs.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple
from zlib import crc32

__all__ = ["SETS", "TINY", "Made", "MadeSet", "MemberSet", "make_set", "scaled"]

KIB = 1 << 10
MIB = 1 << 20
_BLOB = 4 * MIB
_STEP = 7919  # prime, so that no two members begin at the same place of the blob


@dataclass(frozen=True, slots=True)
class MemberSet:
    """``count`` members of ``size`` bytes each. Random bytes cannot be compressed, log lines about five times."""

    key: str
    count: int
    size: int
    content: Literal["random", "log"] = "random"

    @property
    def bytes(self) -> int:
        return self.count * self.size


TINY = MemberSet("tiny", 3, 20_000)
SETS = {
    each.key: each
    for each in (
        MemberSet("big", 2, 256 * MIB),
        MemberSet("mid", 300, MIB),
        MemberSet("small", 6000, 10 * KIB),
        MemberSet("text", 6, 8 * MIB, "log"),
        MemberSet("many", 100_000, 64),
        MemberSet("late", 500, 20 * KIB),
        MemberSet("slow", 80, 256 * KIB),
        MemberSet("file", 1, 1024 * MIB),
    )
}


class Made(NamedTuple):
    name: str
    size: int
    crc32: int
    modified: int  # Unix seconds


class MadeSet(NamedTuple):
    key: str
    folder: Path
    members: tuple[Made, ...]

    @property
    def bytes(self) -> int:
        return sum(member.size for member in self.members)

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def scaled(wanted: MemberSet, scale: float) -> MemberSet:
    """Fewer members; where they are few already, smaller ones. Never none, and no larger than they were."""
    if scale >= 1:
        return replace(wanted, count=round(wanted.count * scale))
    if wanted.count >= 80:
        return replace(wanted, count=max(8, round(wanted.count * scale)))
    return replace(wanted, size=max(MIB, round(wanted.size * scale)))


def make_set(wanted: MemberSet, root: Path, seed: int = 5) -> MadeSet:
    """Write the files of a set into ``root/key``. Whoever made it removes it."""
    folder = root / wanted.key
    folder.mkdir(parents=True)
    blob = (_log_lines if wanted.content == "log" else random.Random(seed).randbytes)(_BLOB)
    members = []
    suffix = "log" if wanted.content == "log" else "bin"
    for number in range(wanted.count):
        path = folder / f"f{number:05}.{suffix}"
        crc = _write(path, wanted.size, blob, number * _STEP % _BLOB)
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
        members.append(Made(path.name, wanted.size, crc, 1_700_000_000 + number))
    return MadeSet(wanted.key, folder, tuple(members))


def _write(path: Path, size: int, blob: bytes, start: int) -> int:
    crc = 0
    with path.open("wb") as file:
        while size:
            piece = blob[start : start + size]
            file.write(piece)
            crc = crc32(piece, crc)
            size -= len(piece)
            start = 0
    return crc


def _log_lines(size: int, seed: int = 5) -> bytes:
    rng = random.Random(seed)
    lines: list[str] = []
    length = 0
    while length < size:
        line = (
            f"2026-11-{rng.randint(1, 30):02}T{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}."
            f"{rng.randint(0, 999):03}Z host{rng.randint(1, 40):02} app[{rng.randint(100, 9999)}]: "
            f"{rng.choice(('INFO', 'WARN', 'DEBUG', 'ERROR'))} request id={rng.getrandbits(64):016x} "
            f"path=/api/v1/{rng.choice(('users', 'orders', 'items', 'carts'))}/{rng.randint(1, 99999)} "
            f"status={rng.choice((200, 200, 200, 404, 500))} took={rng.randint(1, 900)}ms\n"
        )
        lines.append(line)
        length += len(line)
    return "".join(lines).encode()[:size]
