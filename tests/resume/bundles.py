"""Bundles of random members: what stands where, what each holds, and the manifest that asks for it.

The rule of this file: everything follows from the seed; no checksum is ever declared.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.synthetic import content

__all__ = ["Case", "Places", "make_case", "same_contents"]

KIB = 1024
MIB = 1 << 20
_MOST = 28 * MIB  # content of one bundle


@dataclass(frozen=True)
class Places:
    """The folders that members come from."""

    upstream: Path  # nginx serves it
    root: Path  # local files
    inner: Path  # the wrapped app's
    upstream_url: str

    def clear(self, seed: int) -> None:
        """Remove the members of a case."""
        for folder in (self.upstream, self.root, self.inner):
            shutil.rmtree(folder / f"t{seed}", ignore_errors=True)


@dataclass(frozen=True)
class Case:
    """One bundle. ``members`` are (name, size, seed of the content)."""

    name: str
    form: str
    members: tuple[tuple[str, int, int], ...]
    manifest: dict[str, object]


def make_case(seed: int, rng: random.Random, places: Places, *, inner: bool, compress: str = "stored") -> Case:
    """Write the members of a new bundle. ``inner``: some of them are the wrapped app's own."""
    form = "zip" if compress != "stored" else rng.choice(["zip", "zip", "zip", "tar"])
    kinds = ["url", "url", "file"] + (["inner", "inner", "whole"] if inner else [])
    members, listed, total = [], [], 0
    for number in range(rng.randint(1, 14)):
        size = min(_size(rng), _MOST - total)
        total += size
        kind = rng.choice(kinds)
        # One folder a kind and trial, so that equal files of two trials are two versions.
        path = f"t{seed}/{number:02}-{kind}" + rng.choice([".bin", ".log", " \u00e9.txt", ""])
        folder = {"url": places.upstream, "file": places.root}.get(kind, places.inner)
        content_seed = seed * 100 + number
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content(size, content_seed))
        modified = rng.randrange(1_000_000_000, 1_700_000_000)
        os.utime(folder / path, (modified, modified))
        quoted = path.replace(" ", "%20").replace("\u00e9", "%C3%A9")
        own = {"url": f"{places.upstream_url}/{quoted}"} if kind == "url" else {"path": _path(kind, quoted)}
        members.append((path, size, content_seed))
        listed.append({"name": path, **own})
    if rng.random() < 0.3:
        listed.insert(rng.randint(0, len(listed)), {"name": f"t{seed}/empty/"})
    name = f"trial-{seed}.{form}"
    manifest: dict[str, object] = {"name": name, "compress": compress, "members": listed}
    return Case(name, form, tuple(members), manifest)


def _path(kind: str, quoted: str) -> str:
    return f"/tree/{quoted}" if kind == "file" else f"/{kind}/{quoted}"


def _size(rng: random.Random) -> int:
    """Nothing, small enough to be read whole, about a frame or two, about a block of the ledger, several blocks."""
    kind = rng.random()
    if kind < 0.08:
        return 0
    if kind < 0.35:
        return rng.randint(1, 64 * KIB)
    if kind < 0.45:
        return rng.choice([64 * KIB, 65535, 65535 * 2]) + rng.randint(-1, 1)
    if kind < 0.75:
        return rng.randint(64 * KIB, MIB)
    if kind < 0.88:
        return rng.randint(MIB, 4 * MIB)
    if kind < 0.93:
        return rng.choice([4 * MIB, 8 * MIB]) + rng.randint(-1, 1)
    return rng.randint(4 * MIB, 14 * MIB)


def same_contents(case: Case, data: bytes) -> bool:
    """Whether an archive holds just the members, byte for byte."""
    wanted = {name: (size, seed) for name, size, seed in case.members}
    if case.form == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = [info.filename for info in archive.infolist() if not info.is_dir()]
            return sorted(found) == sorted(wanted) and all(archive.read(n) == content(*wanted[n]) for n in found)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = [info for info in archive if info.isfile()]
        return sorted(i.name for i in files) == sorted(wanted) and all(
            _read(archive, i) == content(*wanted[i.name]) for i in files
        )


def _read(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None
    return file.read()
