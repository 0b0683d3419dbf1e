"""Every kind of archive we write, each with what a reader must find in it.

The rule of this file: content is made from a fixed seed, and what is expected is written down when a member is added,
not computed from the archive.
"""

from __future__ import annotations

import hashlib
import io
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streamware import Bundle

__all__ = ["KINDS", "Expected", "Shelf", "noise"]

# An odd second, which the two-second times of ZIP's old fields cannot hold (APPNOTE 4.4.6).
WHEN = 1_700_000_001
DEFAULT_TIME = 315_532_800  # 1980-01-01, for members that have no time


@dataclass(frozen=True, slots=True)
class Expected:
    """One member as a reader must see it; ``sha256`` None for a directory."""

    size: int
    sha256: str | None
    modified: int
    mode: int


class Shelf:
    """A bundle in the making, beside a note of what was put in."""

    def __init__(self, name: str, **options: object) -> None:
        self.bundle = Bundle(name, **options)  # type: ignore[arg-type]
        self.expected: dict[str, Expected] = {}

    def note(self, name: str, data: bytes, modified: int | None, mode: int) -> None:
        when = DEFAULT_TIME if modified is None else modified
        self.expected[name] = Expected(len(data), hashlib.sha256(data).hexdigest(), when, mode)

    def data(self, name: str, data: bytes, *, modified: int | None = WHEN, mode: int = 0o644, found: str = "") -> None:
        self.bundle.add_data(name, data, modified=modified, mode=mode)
        self.note(found or name, data, modified, mode)

    def stream(
        self,
        name: str,
        data: bytes,
        *,
        sized: bool = True,
        crc: bool = False,
        modified: int | None = WHEN,
        mode: int = 0o644,
    ) -> None:
        """A member that comes in pieces of uneven size."""
        self.bundle.add_stream(
            name,
            lambda: uneven(data),
            len(data) if sized else None,
            crc32=zlib.crc32(data) if crc else None,
            modified=modified,
            mode=mode,
        )
        self.note(name, data, modified, mode)

    def directory(self, name: str, *, modified: int = WHEN, mode: int = 0o755) -> None:
        self.bundle.add_directory(name, modified=modified, mode=mode)
        self.expected[name.rstrip("/") + "/"] = Expected(0, None, modified, mode)


def uneven(data: bytes) -> Iterator[bytes]:
    dice = random.Random(len(data))
    position = 0
    while position < len(data):
        step = dice.choice((1, 7, 1000, 65_535, 65_536, 100_003))
        yield data[position : position + step]
        position += step


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def prose(size: int) -> bytes:
    words = [b"member ", b"bundle ", b"window ", b"plan\n", b"segment ", b"reply "]
    dice = random.Random(size)
    return b"".join(dice.choice(words) for _ in range(size // 5 + 1))[:size]


def traps() -> bytes:
    """Content that a reader searching for signatures stumbles over: an archive in itself, and bare signatures."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("wrong.txt", b"a reader that prints this lost its way")
    return inner.getvalue() * 30 + b"PK\x07\x08PK\x01\x02PK\x03\x04PK\x05\x06" * 4000 + inner.getvalue()


EDGES = (0, 1, 100, 65_534, 65_535, 65_536, 65_537, 131_070, 131_071, 300_000)


def stored() -> Shelf:
    """Sizes and CRCs known: plain STORED members without a descriptor."""
    shelf = Shelf("stored.zip")
    for size in EDGES:
        shelf.stream(f"given/{size}.bin", noise(size), crc=True)
    shelf.data("held.bin", noise(200_001), mode=0o600)
    shelf.data("held.sh", b"#!/bin/sh\n", mode=0o755)
    shelf.stream("traps.bin", traps(), crc=True)
    return shelf


def framed() -> Shelf:
    """Sizes known, CRCs not: stored DEFLATE blocks and a descriptor behind everything too large to be read ahead."""
    shelf = Shelf("framed.zip")
    for size in EDGES:
        shelf.stream(f"{size}.bin", noise(size))
    shelf.stream("traps.bin", traps(), mode=0o444)
    shelf.stream("zeros.bin", bytes(1_000_000))
    return shelf


def inline() -> Shelf:
    """Small members of unknown CRC, which are read whole before their header."""
    shelf = Shelf("inline.zip")
    for size in (0, 1, 2, 10, 999, 65_535, 65_536):
        shelf.stream(f"{size}.txt", prose(size), mode=0o640)
    return shelf


def unsized() -> Shelf:
    """Sizes not known either."""
    shelf = Shelf("unsized.zip")
    for size in EDGES:
        shelf.stream(f"{size}.bin", noise(size), sized=False)
    shelf.stream("traps.bin", traps(), sized=False)
    return shelf


def deflated() -> Shelf:
    shelf = Shelf("deflated.zip", compress="deflate")
    for size in EDGES:
        shelf.stream(f"prose/{size}.txt", prose(size))
    shelf.data("zeros.bin", bytes(3_000_000))
    shelf.data("noise.bin", noise(500_000))
    shelf.stream("unsized.txt", prose(400_000), sized=False)
    shelf.stream("traps.bin", traps(), crc=True)
    return shelf


def blocks(level: str = "") -> Shelf:
    """Members of several blocks, which are compressed each by itself, and of just one, and of one and nothing."""
    shelf = Shelf(f"blocks{level.replace(':', '-')}.zip", compress=f"deflate{level}")
    block = 256 * 1024
    for size in (1, block - 1, block, block + 1, 3 * block, 5 * block + 12_345):
        shelf.stream(f"prose/{size}.txt", prose(size))
        shelf.stream(f"noise/{size}.bin", noise(size))
    shelf.stream("unsized.txt", prose(2 * block), sized=False)
    shelf.data("zeros.bin", bytes(20 * block))
    for number in range(100):
        shelf.data(f"small/{number}.txt", prose(number * 400))
    shelf.stream("traps.bin", traps() + noise(2 * block) + traps(), crc=True)
    return shelf


def blocks_for_size() -> Shelf:
    return blocks(":9")


def auto() -> Shelf:
    """Some members shrink, others are left alone by their name or by a look at their first block."""
    shelf = Shelf("auto.zip", compress="auto")
    shelf.data("small.txt", prose(500))
    shelf.data("text.txt", prose(300_000))
    shelf.data("photo.jpg", noise(300_000))
    shelf.stream("noise.bin", noise(300_001))
    shelf.stream("noise-unsized.bin", noise(300_002), sized=False)
    shelf.stream("log.txt", prose(300_003), sized=False)
    shelf.stream("empty.txt", b"")
    return shelf


def directories() -> Shelf:
    shelf = Shelf("directories.zip")
    shelf.directory("empty")
    shelf.directory("private/", mode=0o700)
    shelf.data("private/inside.txt", b"inside", mode=0o600)
    shelf.directory("a/b/c", modified=WHEN - 100)
    shelf.stream("a/b/c/d.bin", noise(70_000))
    return shelf


def unicode_names() -> Shelf:
    shelf = Shelf("names.zip")
    shelf.data("Grüße/naïve café.txt", b"latin")
    shelf.stream("日本語/文書.bin", noise(70_001))
    shelf.data("party \N{PARTY POPPER}.txt", b"beyond the basic plane")
    # Written decomposed, found composed: libarchive 3.6.2 composes names by itself, so we do it for everybody.
    shelf.data("e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}.txt", b"composed", found="été.txt")
    shelf.data("long/" + "n" * 250 + ".txt", b"as long as a file system takes")
    shelf.directory("مجلد")
    return shelf


def commented() -> Shelf:
    shelf = Shelf("commented.zip", comment="Made für you: two files, ünïcode included")
    shelf.bundle.add_data("a.txt", b"with a comment", modified=WHEN, mode=0o644, comment="kommentár")
    shelf.note("a.txt", b"with a comment", WHEN, 0o644)
    shelf.stream("b.bin", noise(70_000))
    return shelf


def times() -> Shelf:
    shelf = Shelf("times.zip")
    shelf.data("none.txt", b"1", modified=None)
    shelf.data("odd.txt", b"2", modified=1_000_000_001)
    shelf.data("summer.txt", b"3", modified=1_720_000_001)
    shelf.data("late.txt", b"4", modified=2_145_916_801)
    return shelf


def plain_times() -> Shelf:
    """Without the extended-timestamp extra: two-second times, read as they stand."""
    shelf = Shelf("plain-times.zip", timestamps=False)
    shelf.data("even.txt", b"1", modified=WHEN - 1)
    shelf.stream("framed.bin", noise(70_000), modified=WHEN + 1)
    return shelf


def many() -> Shelf:
    """More members than 16 bits count: ZIP64 end records (APPNOTE 4.3.14)."""
    shelf = Shelf("many.zip")
    for number in range(70_000):
        shelf.data(f"{number % 100:02}/{number}.txt", b"%d" % number)
    return shelf


def tar() -> Shelf:
    shelf = Shelf("plain.tar")
    for size in (0, 1, 511, 512, 513, 10_239, 10_240, 10_241, 300_000):
        shelf.stream(f"{size}.bin", noise(size))
    shelf.directory("empty", mode=0o750)
    shelf.data("run.sh", b"#!/bin/sh\n", mode=0o755, modified=1_000_000_001)
    shelf.data("none.txt", b"no time", modified=None)
    shelf.data("n" * 100, b"fits to the byte")
    shelf.data("d" * 150 + "/" + "n" * 100, b"fits into prefix and name")
    return shelf


def pax() -> Shelf:
    """What ustar cannot hold goes into pax records."""
    shelf = Shelf("pax.tar")
    shelf.data("n" * 101, b"one byte too long")
    shelf.data("/".join(["deep" * 20] * 10) + "/file.txt", b"far too long")
    shelf.data("d" * 156 + "/" + "n" * 99, b"no place to cut")
    shelf.data("Grüße/日本語 \N{PARTY POPPER}.txt", b"not ASCII")
    shelf.data("e\N{COMBINING ACUTE ACCENT}.txt", b"composed", found="é.txt")
    shelf.stream("ü" * 100 + ".bin", noise(70_000), mode=0o600)
    shelf.directory("ñ" * 80)
    return shelf


def tar_gz() -> Shelf:
    shelf = Shelf("coded.tar.gz")
    shelf.data("text.txt", prose(400_000))
    shelf.stream("noise.bin", noise(200_000))
    shelf.data("long.txt", prose(2_000_000))
    shelf.directory("empty")
    shelf.data("ü" * 100 + ".txt", b"pax inside")
    return shelf


def tar_zst() -> Shelf:
    shelf = tar_gz()
    shelf.bundle.name, shelf.bundle.format = "coded.tar.zst", "tar.zst"
    return shelf


KINDS: dict[str, Callable[[], Shelf]] = {
    "stored": stored,
    "framed": framed,
    "inline": inline,
    "unsized": unsized,
    "deflated": deflated,
    "blocks": blocks,
    "blocks-9": blocks_for_size,
    "auto": auto,
    "directories": directories,
    "unicode": unicode_names,
    "commented": commented,
    "times": times,
    "plain-times": plain_times,
    "many": many,
    "tar": tar,
    "pax": pax,
    "tar.gz": tar_gz,
    "tar.zst": tar_zst,
}
