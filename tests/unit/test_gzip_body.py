"""One gzip member, whatever pieces it comes in: its header, its DEFLATE bytes, and what its end proves."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import tracemalloc
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from streamware.errors import (
    ChecksumMismatch,
    LimitExceeded,
    MemberTooLarge,
    SizeMismatch,
    StreamwareError,
    UpstreamError,
)
from streamware.formats.gzip_header import MAX_HEADER_BYTES, header_end
from streamware.sources.gzipped import GzipBody, Promises

TEXT = b"".join(b"2026-11-21 12:00:%02d request %d took %d ms\n" % (n % 60, n, n * 7919 % 311) for n in range(3000))
NOISE = random.Random(11).randbytes(70_000)
FIXED = b"\x1f\x8b\x08%c\0\0\0\0\0\xff"


def header(flags: int = 0, *, extra: bytes = b"", name: bytes = b"", comment: bytes = b"") -> bytes:
    made = FIXED % flags
    if flags & 4:
        made += len(extra).to_bytes(2, "little") + extra
    made += (name + b"\0" if flags & 8 else b"") + (comment + b"\0" if flags & 16 else b"")
    return made + ((zlib.crc32(made) & 0xFFFF).to_bytes(2, "little") if flags & 2 else b"")


def deflated(data: bytes, level: int = 6) -> bytes:
    coder = zlib.compressobj(level, zlib.DEFLATED, -15)
    return coder.compress(data) + coder.flush()


def member(data: bytes, head: bytes = FIXED % 0, *, crc: int | None = None, size: int | None = None) -> bytes:
    crc = zlib.crc32(data) if crc is None else crc
    size = len(data) if size is None else size
    return head + deflated(data) + crc.to_bytes(4, "little") + size.to_bytes(4, "little")


def passed(coded: bytes, step: int, *, check: bool = True, **promises: Any) -> tuple[bytes, tuple[int, int]]:
    body = GzipBody("http://a/b", Promises(**promises), check=check)
    out = [body.feed(coded[at : at + step]) for at in range(0, len(coded), step)]
    return b"".join(out), body.finish()


# --- the header --------------------------------------------------------------------------------------------------

HEADERS = [
    header(),
    header(1),  # FTEXT
    header(2),
    header(4, extra=b""),
    header(4, extra=b"AB\x03\x00xyz"),
    header(8, name=b"today.log"),
    header(16, comment=b"of today"),
    header(31, extra=b"\0" * 300, name=b"\xe9", comment=b"x" * 1000),
]


@pytest.mark.parametrize("head", HEADERS)
def test_a_header_ends_where_its_flags_say(head: bytes) -> None:
    assert header_end(head + b"\x03\x00") == len(head)
    for end in range(len(head)):
        assert header_end(head[:end]) is None
    assert gzip.decompress(member(TEXT, head)) == TEXT


@pytest.mark.parametrize(
    "head",
    [
        b"<html>",
        b"\x1f\x8c",
        b"\x1f\x8b\x07",
        b"PK\3\4",
        FIXED % 0x20,
        FIXED % 0x80,
        header(2)[:-1] + bytes([header(2)[-1] ^ 1]),
        header(31, name=b"n")[:-1] + b"!",
        FIXED % 8 + b"x" * MAX_HEADER_BYTES,
        FIXED % 4 + b"\xff\xff" + b"x" * 0xFFFF,
    ],
)
def test_a_header_that_is_none_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match="gzip"):
        header_end(head)


def test_a_header_that_never_ends_is_not_kept() -> None:
    body = GzipBody("http://a/b", Promises(), check=True)
    body.feed(FIXED % 16)
    for _ in range(65):
        assert body.feed(b"x" * 1000) == b""
    with pytest.raises(UpstreamError, match="more than 65536 bytes"):
        body.feed(b"x" * 1000)


# --- the body ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("step", [1, 2, 7, 9, 4096, 1 << 20])
@pytest.mark.parametrize("data", [b"", b"x", TEXT, NOISE], ids=["nothing", "a byte", "text", "noise"])
def test_what_passes_is_the_deflate_between_header_and_trailer(data: bytes, step: int, check: bool) -> None:
    head = HEADERS[-1]
    out, (crc, size) = passed(member(data, head), step, check=check)
    assert out == deflated(data)
    assert (crc, size) == (zlib.crc32(data), len(data))


@pytest.mark.parametrize("step", [1, 8, 1000, 1 << 20])
@pytest.mark.parametrize(
    ("coded", "error"),
    [
        pytest.param(member(TEXT, crc=1), ChecksumMismatch, id="crc"),
        pytest.param(member(TEXT, size=1), SizeMismatch, id="isize"),
        pytest.param(member(TEXT) * 2, UpstreamError, id="two members"),
        pytest.param(member(TEXT) + b"\0" * 512, UpstreamError, id="padding"),
        pytest.param(member(TEXT) + b"!", UpstreamError, id="garbage"),
        pytest.param(member(TEXT)[:-1], SizeMismatch, id="short trailer"),
        pytest.param(member(TEXT)[:-8], SizeMismatch, id="no trailer"),
        pytest.param(member(TEXT)[:-3000], SizeMismatch, id="cut"),
        pytest.param(FIXED % 0, SizeMismatch, id="header alone"),
        pytest.param(b"", SizeMismatch, id="nothing"),
        pytest.param(FIXED % 0 + b"\xff" * 500, ChecksumMismatch, id="no deflate"),
        pytest.param(TEXT, UpstreamError, id="no gzip"),
    ],
)
def test_anything_but_one_whole_member_is_an_error(coded: bytes, error: type[StreamwareError], step: int) -> None:
    with pytest.raises(error):
        passed(coded, step)


@pytest.mark.parametrize("level", [0, 6])
def test_each_damaged_byte_is_seen(level: int) -> None:
    """No flip of a bit gives other content under the same trailer."""
    coded = FIXED % 0 + deflated(TEXT[:300], level) + zlib.crc32(TEXT[:300]).to_bytes(4, "little") + b"\x2c\1\0\0"
    want = passed(coded, 64)
    for at in range(10, len(coded)):
        broken = coded[:at] + bytes([coded[at] ^ 1 << at % 8]) + coded[at + 1 :]
        try:
            out, told = passed(broken, 64)
        except StreamwareError:
            continue
        assert told == want[1]
        assert zlib.decompress(out, -15) == TEXT[:300]


@pytest.mark.parametrize(
    ("promises", "error"),
    [
        ({"size": len(TEXT)}, None),
        ({"size": len(TEXT) - 1}, SizeMismatch),
        ({"digest": sha256(TEXT).digest()}, None),
        ({"digest": sha256(TEXT[1:]).digest()}, ChecksumMismatch),
        ({"most": len(TEXT)}, None),
        ({"most": len(TEXT) - 1}, LimitExceeded),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_promises_are_about_the_content(check: bool, promises: Any, error: type[StreamwareError] | None) -> None:
    if error is None:
        assert passed(member(TEXT), 1000, check=check, **promises)[1] == (zlib.crc32(TEXT), len(TEXT))
    elif check or error is not SizeMismatch:
        with pytest.raises(error):
            passed(member(TEXT), 1000, check=check, **promises)


def test_a_bomb_ends_where_it_is_too_much_and_holds_little() -> None:
    coder = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(coder.compress(bytes(1 << 20)) for _ in range(256)) + coder.flush()
    assert len(bomb) < 300_000
    tracemalloc.start()
    with pytest.raises(LimitExceeded):
        passed(bomb, len(bomb), most=200 << 20)
    assert passed(bomb, len(bomb))[1][1] == 256 << 20
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("blocked", [("isal",), ("isal", "zlib_ng")], ids=["no isal", "zlib alone"])
def test_every_engine_inflates_alike(blocked: tuple[str, ...]) -> None:
    """This file's tests once more, in a process where these cannot be imported."""
    script = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[2:]))
import pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-k", "not engine", sys.argv[1]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, __file__, *blocked],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.soak
def test_beyond_4_gib_isize_is_what_is_left_over() -> None:
    coder = zlib.compressobj(1, zlib.DEFLATED, 31)
    zeros, count = bytes(1 << 20), 4097
    coded = b"".join(coder.compress(zeros) for _ in range(count)) + coder.flush()
    with pytest.raises(MemberTooLarge):
        passed(coded, 1 << 18, large=False)
    assert passed(coded, 1 << 18)[1][1] == count << 20
    assert passed(coded, 1 << 18, check=False, size=count << 20)[1][1] == count << 20
