"""Large members that cost no disk, for what depends on sizes and versions and not on content.

The rule of this file: what it makes can be made new at any time, by its time alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["make_sparse", "renew"]


def make_sparse(folder: Path, sizes: Sequence[int]) -> list[str]:
    """Files of zeros of these sizes in bytes; their names. Reading them is as fast as reading gets."""
    folder.mkdir(parents=True)
    names = [f"member-{number:06}.bin" for number in range(len(sizes))]
    for name, size in zip(names, sizes, strict=True):
        with (folder / name).open("wb") as file:
            file.truncate(size)
    return names


def renew(folder: Path) -> None:
    """Make every file below a new version of itself, so that nothing that was learned of it is true any more."""
    for path in folder.iterdir():
        found = path.stat()
        os.utime(path, (found.st_mtime + 1, found.st_mtime + 1))
