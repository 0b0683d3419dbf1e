"""Every kind of archive, judged by every reader of its format: names, sizes, bytes, times and modes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from streamware import Archiver
from tests.conftest import judge
from tests.interop import readers
from tests.interop.conftest import Make, pieces_of
from tests.interop.kinds import KINDS, Expected
from tests.interop.readers import READERS, Found, Reader

CODED = {"tar": "tar", "pax": "tar", "tar.gz": "tar.gz", "tar.zst": "tar.zst"}
PAIRS = [
    pytest.param(kind, name, id=f"{kind}-{name}")
    for kind in KINDS
    for name, reader in READERS.items()
    if CODED.get(kind, "zip") in reader.formats and kind != "many"  # 70,000 members: test_limits.py
]


def compare(reader: Reader, expected: dict[str, Expected], found: dict[str, Found]) -> None:
    told = {
        name: Found(
            member.size,
            member.sha256,
            member.modified & ~1 if reader.even else member.modified,
            member.mode if reader.modes else None,
        )
        for name, member in expected.items()
    }
    # Extracting makes the folders on the way to a member, which are none of the archive.
    ways = {name for name in found.keys() - told.keys() if name.endswith("/") and any(n.startswith(name) for n in told)}
    seen = {
        name: member if reader.modes else Found(member.size, member.sha256, member.modified)
        for name, member in found.items()
        if name not in ways
    }
    assert sorted(seen) == sorted(told)
    assert {name: member for name, member in seen.items() if member != told[name]} == {}


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_a_reader_finds_what_was_put_in(kind: str, name: str, make: Make, archiver: Archiver, tmp_path: Path) -> None:
    reader = READERS[name]
    path, shelf = make(kind)
    archive = pieces_of(archiver, shelf.bundle) if reader.piped else path
    compare(reader, shelf.expected, reader.read(archive, tmp_path))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "many"])
def test_the_same_bundle_gives_the_same_bytes(kind: str, make: Make, archiver: Archiver) -> None:
    path, shelf = make(kind)
    assert b"".join(pieces_of(archiver, shelf.bundle)) == path.read_bytes()


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/St_Johns"])
@pytest.mark.parametrize("name", ["unzip", "7z", "bsdtar", "java"])
def test_times_are_right_in_any_time_zone(name: str, zone: str, make: Make, tmp_path: Path) -> None:
    path, shelf = make("times")
    found = getattr(readers, {"7z": "seven_zip", "java": "java_file"}.get(name, name))(path, tmp_path, zone)
    assert {n: f.modified for n, f in found.items()} == {n: e.modified for n, e in shelf.expected.items()}


def test_comments_are_shown(make: Make) -> None:
    path, _ = make("commented")
    wanted = "Made für you: two files, ünïcode included"
    with zipfile.ZipFile(path) as archive:
        assert archive.comment.decode() == wanted
        assert archive.getinfo("a.txt").comment.decode() == "kommentár"
    assert "Made für you" in readers.succeed([judge("unzip"), "-z", str(path)]).decode()
    assert "Made für you" in readers.succeed([judge("7z"), "l", str(path)]).decode()
