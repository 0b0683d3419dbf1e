"""CRC-32 and compression, and the one choice of who computes them.

The rule of this file: the accelerators are chosen once, here, and nothing outside knows which they are. isal is some
four times as fast as zlib at CRC-32 and eight times at deflate; where size counts more than time, zlib-ng takes the
place of zlib. No setting is used that makes random data grow by more than a thousandth.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache, lru_cache
from types import ModuleType
from typing import Any, Protocol

from streamware.errors import StreamwareError

__all__ = [
    "ENGINE",
    "BadDeflate",
    "Compressor",
    "Inflater",
    "combine",
    "crc32",
    "deflate",
    "engines",
    "inflater",
    "zstandardizer",
]


class Compressor(Protocol):
    """Takes bytes in, gives coded bytes out, some of them late."""

    def compress(self, data: bytes, /) -> bytes: ...

    def pause(self) -> bytes:
        """The bytes that are late, so that all that went in can be decoded; more may follow."""

    def finish(self) -> bytes:
        """The rest, and the end."""


class Inflater(Protocol):
    """Takes raw DEFLATE (RFC 1951), gives the content, at most so much at a time. Raises BadDeflate."""

    @property
    def eof(self) -> bool:
        """Whether the last block has ended."""

    @property
    def unused_data(self) -> bytes:
        """What followed it."""

    @property
    def unconsumed_tail(self) -> bytes:
        """What went in and has to go in once more."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_engine: ModuleType
try:
    from isal import isal_zlib

    _engine = isal_zlib
    ENGINE = "isal"
    # Levels 0 and 1 of isal are no faster by much, and 0 makes random data 23 % bigger.
    _LEVEL = 2
except ImportError:
    try:
        from zlib_ng import zlib_ng

        _engine = zlib_ng
        ENGINE = "zlib-ng"
        # Level 1 of zlib-ng makes random data 5 % bigger.
        _LEVEL = 2
    except ImportError:
        _engine = zlib
        ENGINE = "zlib"
        _LEVEL = 6


@cache
def _by_level() -> ModuleType:
    """Who compresses where a level is asked for; imported only then."""
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        return zlib
    return zlib_ng


def engines() -> str:
    """Who computes what, with versions, in a line for people."""
    quick, small = _version(_engine), _version(_by_level())
    levels = "" if small == quick else f", {small} for levels"
    try:
        import zstandard

        zstd = f"zstandard {zstandard.__version__}"
    except ImportError:
        zstd = "none"
    return f"CRC-32: {quick}; deflate: {quick}{levels}; zstd: {zstd}"


def _version(engine: ModuleType) -> str:
    if engine is zlib:
        return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    if engine.__name__.startswith("isal"):
        import isal

        return f"isal {isal.__version__}"
    import zlib_ng

    return f"zlib-ng {zlib_ng.__version__}"


def crc32(data: bytes | memoryview, value: int = 0) -> int:
    """The CRC-32 of APPNOTE 4.4.7, going on from ``value``."""
    crc: int = _engine.crc32(data, value)
    return crc


def combine(crc1: int, crc2: int, length2: int) -> int:
    """The CRC-32 of two runs of bytes after one another, from that of each and the length of the second."""
    crc: int = _combine(crc1, crc2, length2)
    return crc


# --- CRC-32 as arithmetic: polynomials over GF(2) modulo that of APPNOTE 4.4.7, bit 31 the term without x ---

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31


def _product(a: int, b: int) -> int:
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = a << 1 & 0xFFFFFFFF
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@lru_cache(maxsize=1)
def _zeros() -> list[list[int]]:
    """What appending zero bytes multiplies a CRC-32 by, for every digit of their number to the base 256."""
    tables = []
    step = _ONE >> 8  # one byte
    for _ in range(8):
        table = [_ONE]
        for _ in range(255):
            table.append(_product(table[-1], step))
        tables.append(table)
        step = _product(table[-1], step)
    return tables


def _combine_here(crc1: int, crc2: int, length2: int) -> int:
    """PERF: 4 us for a length of 4 MiB, 20 us at most for one below 2**40."""
    for table in _zeros():
        if length2 & 0xFF:
            crc1 = _product(crc1, table[length2 & 0xFF])
        length2 >>= 8
    return crc1 ^ crc2


_combine: Callable[[int, int, int], int] = getattr(_engine, "crc32_combine", _combine_here)


def deflate(data: bytes, before: bytes = b"", *, level: int | None = None, last: bool = True) -> bytes:
    """One part of a raw DEFLATE stream (RFC 1951): such parts behind one another are one stream.

    On its own, so that parts can be made at once on several threads (none of the engines holds the interpreter while
    it works), and always the same bytes for the same arguments.

    :param before: the content that stands before it, as far as it may refer to it; at most 32 KiB matter.
    :param level: None for the quickest engine, 1 to 9 for small size.
    :param last: whether the stream ends with it; else it ends on a whole byte.
    """
    engine = _engine
    if level is None:
        level = _LEVEL
    else:
        engine = _by_level()
        if engine is not zlib:
            level = max(level, 2)  # level 1 of zlib-ng makes random data 5 % bigger
    # PERF: 3 us for a new object, which holds 100 KiB and more; none is kept.
    if before:
        coder = engine.compressobj(level, zlib.DEFLATED, -15, zdict=before[-_REACH:])
    else:
        coder = engine.compressobj(level, zlib.DEFLATED, -15)
    out: bytes = coder.compress(data)
    out += coder.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
    return out


def inflater() -> Inflater:
    """A decompressor of raw DEFLATE. PERF: of log text isal takes 0.7 s/GiB, zlib-ng 1.1, zlib 2.0, CRC-32 included."""
    made: Inflater = _engine.decompressobj(-15)
    return made


BadDeflate: type[Exception] = _engine.error


_REACH = 32 * 1024  # RFC 1951 section 2: as far back as DEFLATE can refer


class _Zstandardizer:
    """A compressor object of zstandard with the names of ours."""

    __slots__ = ("_flush", "_pause", "compress")

    def __init__(self, made: Any, pause: int) -> None:
        self.compress: Callable[[bytes], bytes] = made.compress
        self._flush: Callable[..., bytes] = made.flush
        self._pause = pause

    def pause(self) -> bytes:
        return self._flush(self._pause)

    def finish(self) -> bytes:
        return self._flush()


def zstandardizer(threads: int = 1) -> Compressor:
    """A compressor to Zstandard (RFC 8878).

    The same input gives the same bytes whatever its cuts and whatever the number of threads: with the library's own
    threads, however many, it codes jobs of one size; without any (which is never asked for) it would not.

    :param threads: of the library's own, at least 1; each holds some 4 MiB.
    :raises StreamwareError: the zstandard package is not installed.
    """
    try:
        import zstandard
    except ImportError as error:
        raise StreamwareError("tar.zst needs the zstandard package: pip install 'streamware[zstd]'") from error
    # The library's own choice would be jobs of 8 MiB, and as much held for each thread.
    how = zstandard.ZstdCompressionParameters.from_level(3, threads=max(1, threads), job_size=_JOB)
    coder = zstandard.ZstdCompressor(compression_params=how).compressobj()
    return _Zstandardizer(coder, zstandard.COMPRESSOBJ_FLUSH_BLOCK)


_JOB = 1024 * 1024  # bytes that one thread codes at a time
