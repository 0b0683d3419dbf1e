"""Checksums and compressors against the standard library's, whichever engine computes them."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from streamware.checksums import ENGINE, Compressor, combine, crc32, deflater, gzipper, zstandardizer

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


CODERS = pytest.mark.parametrize(
    ("coder", "decode"),
    [(deflater, inflate), (gzipper, gzip.decompress), (zstandardizer, unzstd)],
    ids=["deflate", "gzip", "zstd"],
)


def through(coder: Callable[[], Compressor], data: bytes, step: int = 50_000) -> bytes:
    made = coder()
    return b"".join(made.compress(data[at : at + step]) for at in range(0, len(data), step)) + made.finish()


@CODERS
@pytest.mark.parametrize("data", [b"", b"a", TEXT, NOISE, bytes(300_000)], ids=["empty", "a", "text", "noise", "zeros"])
def test_what_was_compressed_comes_back(
    coder: Callable[[], Compressor], decode: Callable[[bytes], bytes], data: bytes
) -> None:
    assert decode(through(coder, data)) == data


@CODERS
def test_text_shrinks_and_noise_hardly_grows(coder: Callable[[], Compressor], decode: Callable[[bytes], bytes]) -> None:
    assert len(through(coder, TEXT)) < len(TEXT) / 4
    assert len(through(coder, NOISE)) < len(NOISE) * 1.06 + 64  # a ZIP's plan allows for an eighth


@CODERS
def test_the_same_input_gives_the_same_bytes_at_any_time(
    coder: Callable[[], Compressor], decode: Callable[[bytes], bytes]
) -> None:
    first = through(coder, TEXT)
    time.sleep(1.01 if coder is gzipper else 0)  # gzip's clock counts seconds
    assert through(coder, TEXT) == first


def test_a_gzip_header_carries_no_time_and_no_name() -> None:
    data = through(gzipper, TEXT)
    assert data[:3] == b"\x1f\x8b\x08"
    assert data[3] == 0
    assert data[4:8] == bytes(4)
    assert data[-8:] == zlib.crc32(TEXT).to_bytes(4, "little") + len(TEXT).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("coder", "decoder"),
    [
        (deflater, lambda: zlib.decompressobj(-15)),
        (gzipper, lambda: zlib.decompressobj(31)),
        (zstandardizer, lambda: zstandard.ZstdDecompressor().decompressobj()),
    ],
    ids=["deflate", "gzip", "zstd"],
)
def test_after_a_pause_all_that_went_in_can_be_read(
    coder: Callable[[], Compressor], decoder: Callable[[], Any]
) -> None:
    made, reader = coder(), decoder()
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
from streamware.checksums import ENGINE, combine, crc32, deflater, gzipper
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

coder = gzipper()
print(json.dumps({
    "engine": ENGINE,
    "crc32": crc32(b"6789", crc32(b"12345")),
    "combined": [combine(crc32(text), crc32(text[:n]), n) == zlib.crc32(text + text[:n]) for n in LENGTHS],
    "gzip": base64.b64encode(coder.compress(text) + coder.finish()).decode(),
    "stored": archive("b.zip"),
    "deflated": archive("b.zip", compress="deflate"),
    "auto": archive("b.zip", compress="auto"),
    "tar.gz": archive("b.tar.gz"),
    "tar.zst": archive("b.tar.zst"),
    "signature": signature(),
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
    packed = base64.b64decode(found["gzip"])
    assert gzip.decompress(packed) == TEXT
    assert packed[4:8] == bytes(4)
    for kind in ("stored", "deflated", "auto"):
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
    for kind in ("deflated", "auto", "tar.gz", "tar.zst"):
        if here[kind]["etag"] == there[kind]["etag"] and not here[kind]["etag"].startswith("W/"):
            assert here[kind]["data"] == there[kind]["data"]
    assert (here["signature"] == there["signature"]) == (here["deflated"]["data"] == there["deflated"]["data"])


def test_without_zstandard_only_its_archives_cannot_be_had() -> None:
    found = without("zstandard")
    assert found["tar.zst"]["status"] == 500
    assert found["stored"] == without()["stored"]
    assert found["tar.gz"]["status"] == 200
