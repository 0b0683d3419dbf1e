"""Runs of small members, which are read and sent together: the same bytes, checks and failures as one by one."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from streamware import Archiver, Bundle, Policy
from streamware.errors import MemberChanged, StreamwareError, TooSlow
from streamware.sources.file import FileSource
from tests.synthetic import ranged, read

POLICY = Policy()


def files(folder: Path, count: int, size: int = 10_240) -> list[Path]:
    rng = random.Random(7)
    made = []
    for number in range(count):
        path = folder / f"{number}.bin"
        path.write_bytes(rng.randbytes(size))
        os.utime(path, (1_700_000_000 + 40_000 * number, 1_700_000_000 + 40_000 * number))
        made.append(path)
    return made


def bundle_of(paths: list[Path], form: str = "zip") -> Bundle:
    bundle = Bundle(f"b.{form}")
    for path in paths:
        bundle.add_file(path)
    return bundle


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_run_is_the_same_bytes_as_its_windows(form: str, tmp_path: Path) -> None:
    bundle = Bundle(f"b.{form}")
    for number, path in enumerate(files(tmp_path, 90)):
        bundle.add_file(path, f"\u00fc/{number}" if number % 7 == 0 else f"n/{number}", comment="c" * (number % 3))
        if number % 10 == 0:
            bundle.add_directory(f"empty{number}")
            bundle.add_data(f"data{number}", b"d" * number * 50)
        if number % 30 == 0:
            path.write_bytes(bytes(70_000 + number))
    whole = read(Archiver(), bundle)
    archiver, at, got = Archiver(), 0, []
    while at < len(whole):  # most of these end inside a member, so that it is sent on its own
        stop = min(len(whole), at + 7001)
        got.append(ranged(archiver, bundle, f"bytes={at}-{stop - 1}")[2])
        at = stop
    assert b"".join(got) == whole
    at = 0
    while at < len(whole):  # and these hold runs
        data = ranged(archiver, bundle, f"bytes={at}-{at + 299_999}")[2]
        assert data == whole[at : at + 300_000]
        at += 300_000


def test_pieces_are_large_and_bounded(tmp_path: Path) -> None:
    body = Archiver().open(bundle_of(files(tmp_path, 200)))
    assert body.members == 1  # a status waits for the first alone
    pieces = list(map(len, body))
    body.close()
    assert sum(pieces) == body.length
    assert len(pieces) <= 3 + sum(pieces) // POLICY.chunk_bytes
    assert max(pieces) < POLICY.chunk_bytes + POLICY.inline_bytes + 1000
    assert (body.members, body.bytes_in) == (200, 200 * 10_240)


@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize("at", [1, 2, 40, 99])
def test_a_failure_in_a_run_leaves_the_header_and_nothing_after_it(form: str, at: int, tmp_path: Path) -> None:
    paths = files(tmp_path, 100)
    bundle = bundle_of(paths, form)
    whole = read(Archiver(), bundle)
    body = Archiver().open(bundle)
    os.utime(paths[at], (1, 1))
    got = []
    with pytest.raises(MemberChanged) as caught:
        got.extend(body)
    with pytest.raises(MemberChanged):
        next(body)
    body.close()
    assert (caught.value.member, caught.value.index) == (f"{at}.bin", at)
    sent, start = b"".join(got), whole.index(paths[at].read_bytes())
    assert len(sent) == start
    assert sent[: start - 512] == whole[: start - 512]
    assert sent[-100:].count(f"{at}.bin".encode()) == (form == "zip")


def test_abort_ends_a_run(tmp_path: Path) -> None:
    body = Archiver().open(bundle_of(files(tmp_path, 100)))
    next(body)
    body.abort()
    with pytest.raises(StreamwareError):
        list(body)
    body.close()


def test_a_wrong_checksum_of_data_in_memory_is_seen() -> None:
    bundle = Bundle("b.zip")
    bundle.add_data("a", b"first")
    bundle.add_data("b", b"second")
    bundle.members[1] = replace(bundle.members[1], crc32=5)
    body = Archiver().open(bundle)
    with pytest.raises(StreamwareError, match="CRC"):
        list(body)
    body.close()


def test_a_file_is_not_opened_to_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = files(tmp_path, 1)
    told = FileSource(str(path)).probe()
    assert told == FileSource(path.name, str(tmp_path)).probe()  # which opens it
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    assert FileSource(str(path)).probe() == told
    assert opened == [] or os.access not in os.supports_effective_ids


@pytest.mark.parametrize("made", [False, True], ids=["files", "streams"])
def test_what_takes_too_long_ends_inside_of_a_member(made: bool, tmp_path: Path) -> None:
    """Readers take what ends between two members for whole more easily than what ends behind a header."""
    bundle = Bundle("b.zip")
    for number in range(9):
        name = f"{number}.bin"
        if made:
            bundle.add_stream(name, lambda: [b"x" * 5000], size=5000)
        else:
            (tmp_path / name).write_bytes(b"x" * 5000)
            bundle.add_file(tmp_path / name)
    body = Archiver(Policy(max_bundle_seconds=0.05, chunk_bytes=4096)).open(bundle)
    got = bytearray(next(body))
    time.sleep(0.1)

    def rest() -> None:
        for piece in body:
            got.extend(piece)

    with pytest.raises(TooSlow):
        rest()
    body.close()
    header = got.rindex(b"PK\3\4")
    assert bytes(got[header + 30 :]).partition(b"UT")[0] in {f"{number}.bin".encode() for number in range(9)}
    assert len(got) < header + 100
