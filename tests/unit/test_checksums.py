"""Checksums and compressors against the standard library's, whichever engine computes them."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from streamware.checksums import ENGINE, combine, crc32, deflate, engines, zstandardizer

ROOT = Path(__file__).resolve().parents[2]
NOISE = random.Random(1).randbytes(100_000)
TEXT = b"".join(b"line %d of a log that says much the same\n" % number for number in range(20_000))


# --- CRC-32 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"a", 0xE8B7BE43),
        (b"123456789", 0xCBF43926),
        (b"The quick brown fox jumps over the lazy dog", 0x414FA339),
        (bytes(32), 0x190A55AD),
        (b"\xff" * 32, 0xFF6CAB0B),
    ],
)
def test_known_checksums(data: bytes, crc: int) -> None:
    assert crc32(data) == crc
    assert crc32(memoryview(data)) == crc


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_a_checksum_goes_on_from_piece_to_piece(pieces: list[bytes]) -> None:
    crc = 0
    for piece in pieces:
        crc = crc32(piece, crc)
    assert crc == crc32(b"".join(pieces)) == zlib.crc32(b"".join(pieces))


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_of_runs_combine_in_any_order(one: bytes, two: bytes, three: bytes) -> None:
    left = combine(combine(crc32(one), crc32(two), len(two)), crc32(three), len(three))
    right = combine(crc32(one), combine(crc32(two), crc32(three), len(three)), len(two) + len(three))
    assert left == right == zlib.crc32(one + two + three)


@pytest.mark.parametrize("length", [1, 255, 256, 65_535, 65_536, 4 * 2**20, 4 * 2**20 + 1])
def test_checksums_of_long_runs_combine(length: int) -> None:
    assert combine(crc32(NOISE), crc32(bytes(length)), length) == zlib.crc32(bytes(length), zlib.crc32(NOISE))
    assert combine(crc32(bytes(length)), crc32(NOISE), len(NOISE)) == zlib.crc32(NOISE, zlib.crc32(bytes(length)))


def test_lengths_beyond_any_memory_combine() -> None:
    half = 2**40
    once = combine(crc32(b"a"), 0, half)
    assert combine(once, 0, half) == combine(crc32(b"a"), 0, 2 * half)
    assert combine(once, 0, 0) == once


# --- compressors -------------------------------------------------------------------------------------------------


def inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(-15)
    got = inflater.decompress(data)
    assert inflater.eof
    assert inflater.unused_data == b""
    return got


def unzstd(data: bytes) -> bytes:
    reader = zstandard.ZstdDecompressor().decompressobj()
    got = reader.decompress(data)
    assert reader.unused_data == b""
    return got


LEVELS = pytest.mark.parametrize("level", [None, *range(1, 10)])


@LEVELS
@pytest.mark.parametrize("data", [b"", b"a", TEXT, NOISE, bytes(300_000)], ids=["empty", "a", "text", "noise", "zeros"])
def test_what_was_deflated_comes_back(data: bytes, level: int | None) -> None:
    assert inflate(deflate(data, level=level)) == data


@LEVELS
def test_text_shrinks_and_noise_hardly_grows(level: int | None) -> None:
    assert len(deflate(TEXT, level=level)) < len(TEXT) / 4
    assert len(deflate(NOISE, level=level)) < len(NOISE) * 1.001 + 16


def test_a_higher_level_makes_it_smaller() -> None:
    assert len(deflate(TEXT, level=9)) <= len(deflate(TEXT, level=6)) < len(deflate(TEXT, level=2))


@LEVELS
def test_the_same_input_gives_the_same_bytes(level: int | None) -> None:
    assert deflate(TEXT, NOISE[:1000], level=level) == deflate(TEXT, NOISE[:1000], level=level)


@LEVELS
@given(st.lists(st.sampled_from((b"", b"a", TEXT[:500], TEXT[300:70_000], NOISE[:40_000], bytes(33_000)))))
def test_parts_behind_one_another_are_one_stream(level: int | None, parts: list[bytes]) -> None:
    out, before, whole = b"", b"", b""
    for part in parts:
        out += deflate(part, before, level=level, last=False)
        before = (before + part)[-40_000:]
        whole += part
        reader = zlib.decompressobj(-15)
        assert reader.decompress(out) == whole  # all of it, already
        assert not reader.eof
    assert inflate(out + deflate(b"", before, level=level)) == whole


def test_a_part_refers_to_what_is_before_it() -> None:
    half = NOISE[:30_000]
    assert len(deflate(half, half)) < 1000 < len(deflate(half))


def test_zstandard_gives_the_same_bytes_whatever_the_cuts_and_threads() -> None:
    data = TEXT * 4
    made = set()
    for threads, step in ((1, 50_000), (2, 50_000), (3, 1 << 20), (8, 777_777)):
        coder = zstandardizer(threads)
        out = [coder.compress(data[:512]) + coder.pause()]
        out += [coder.compress(data[at : at + step]) for at in range(512, len(data), step)]
        made.add(b"".join(out) + coder.finish())
    assert len(made) == 1
    assert unzstd(made.pop()) == data


def test_after_a_pause_all_that_went_in_can_be_read() -> None:
    made, reader = zstandardizer(), zstandard.ZstdDecompressor().decompressobj()
    assert reader.decompress(made.compress(b"first ") + made.pause()) == b"first "
    assert reader.decompress(made.pause() + made.compress(TEXT) + made.pause()) == TEXT
    assert reader.decompress(made.finish()) == b""
    assert reader.eof


# --- engines -----------------------------------------------------------------------------------------------------

SCRIPT = """
import base64, json, sys, zlib
for name in sys.argv[1:]:
    sys.modules[name] = None
from streamware import Archiver, Bundle, Conditions
from streamware.checksums import ENGINE, combine, crc32, deflate, engines
from streamware.coding import signature

text = b"".join(b"line %d of a log that says much the same\\n" % number for number in range(20_000))

LENGTHS = (0, 1, 127, 128, 255, 256, 32_768, 65_535, 65_536, 0x18080, 200_000)

def archive(name, **options):
    bundle = Bundle(name, **options)
    bundle.add_data("a.txt", text, modified=1_600_000_000)
    reply = Archiver().respond(bundle)
    data = b"".join(reply.body)
    reply.body.close()
    return {
        "status": reply.status,
        "etag": reply.header("ETag"),
        "data": base64.b64encode(data).decode(),
    }

print(json.dumps({
    "engine": ENGINE,
    "crc32": crc32(b"6789", crc32(b"12345")),
    "combined": [combine(crc32(text), crc32(text[:n]), n) == zlib.crc32(text + text[:n]) for n in LENGTHS],
    "engines": engines(),
    "levels": [zlib.decompressobj(-15).decompress(deflate(text, level=level)) == text for level in range(1, 10)],
    "small": len(deflate(text, level=9)),
    "by level": archive("b.zip", compress="deflate:9"),
    "stored": archive("b.zip"),
    "deflated": archive("b.zip", compress="deflate"),
    "auto": archive("b.zip", compress="auto"),
    "tar.gz": archive("b.tar.gz"),
    "tar.zst": archive("b.tar.zst"),
    "signature": signature(),
    "signatures": [signature(None, level) for level in range(1, 10)],
}))
"""


@cache
def without(*modules: str) -> dict[str, Any]:
    """What another process makes of the same content when these modules cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *modules],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


BLOCKED = pytest.mark.parametrize("blocked", [(), ("isal",), ("isal", "zlib_ng")], ids=["all", "no isal", "zlib alone"])


@BLOCKED
def test_the_best_engine_there_is_does_the_work(blocked: tuple[str, ...]) -> None:
    engines = {"isal": "isal", "zlib-ng": "zlib_ng", "zlib": "zlib"}
    there = [e for e, module in engines.items() if module not in blocked and importlib.util.find_spec(module)]
    assert without(*blocked)["engine"] == there[0]
    if not blocked:
        assert there[0] == ENGINE


@BLOCKED
def test_every_engine_gives_what_others_can_read(blocked: tuple[str, ...], tmp_path: Path) -> None:
    import base64
    import io
    import tarfile
    import zipfile

    found = without(*blocked)
    assert found["crc32"] == 0xCBF43926
    assert found["combined"] == [True] * 11
    assert found["levels"] == [True] * 9
    for kind in ("stored", "deflated", "auto", "by level"):
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(found[kind]["data"]))) as archive:
            assert archive.read("a.txt") == TEXT
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(found["tar.gz"]["data"])), mode="r:gz") as tar:
        member = tar.extractfile("a.txt")
        assert member is not None
        assert member.read() == TEXT


@BLOCKED
def test_a_strong_tag_stands_for_the_same_bytes_whichever_engine_made_them(blocked: tuple[str, ...]) -> None:
    here, there = without(), without(*blocked)
    assert here["stored"] == there["stored"]
    for kind in ("deflated", "auto", "by level", "tar.gz", "tar.zst"):
        if here[kind]["etag"] == there[kind]["etag"] and not here[kind]["etag"].startswith("W/"):
            assert here[kind]["data"] == there[kind]["data"]
    assert (here["signature"] == there["signature"]) == (here["deflated"]["data"] == there["deflated"]["data"])


@pytest.mark.parametrize(
    ("blocked", "named"),
    [
        ((), r"CRC-32: isal [\d.]+; deflate: isal [\d.]+, zlib-ng [\d.]+ for levels; zstd: zstandard [\d.]+"),
        (("isal",), r"CRC-32: zlib-ng [\d.]+; deflate: zlib-ng [\d.]+; zstd: zstandard [\d.]+"),
        (("zlib_ng",), r"CRC-32: isal [\d.]+; deflate: isal [\d.]+, zlib [\d.]+ for levels; zstd: zstandard [\d.]+"),
        (("isal", "zlib_ng", "zstandard"), r"CRC-32: zlib [\d.]+; deflate: zlib [\d.]+; zstd: none"),
    ],
)
def test_who_computes_what_can_be_told(blocked: tuple[str, ...], named: str) -> None:
    if not all(map(importlib.util.find_spec, ("isal", "zlib_ng"))):
        pytest.skip("not all engines are installed")
    assert re.fullmatch(named, without(*blocked)["engines"])
    if not blocked:
        assert engines() == without()["engines"]


def test_every_level_has_its_own_signature() -> None:
    found = without()
    assert len({found["signature"], *found["signatures"]}) == 10


def test_without_zstandard_only_its_archives_cannot_be_had() -> None:
    found = without("zstandard")
    assert found["tar.zst"]["status"] == 500
    assert found["stored"] == without()["stored"]
    assert found["tar.gz"]["status"] == 200
