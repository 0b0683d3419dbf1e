"""Content in blocks: the same bytes whatever the cuts and the threads, and what other inflaters make of them."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Generator, Iterable, Iterator
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from streamware.coding import BLOCK, LEAD, Parts, Pieces, coded_key, deflated, gzipped, signature, zstandardized
from streamware.crew import Crew, Room
from streamware.errors import SourceError
from streamware.formats.framing import open_frames
from streamware.line import Line, in_order
from streamware.plan import Method

NOISE = random.Random(2).randbytes(3 * BLOCK)
TEXT = b"".join(b"%d: line %d of a log that says much the same\n" % (n * n, n) for n in range(30_000))
LEVELS = pytest.mark.parametrize("level", [None, 1, 6, 9])
SIZES = (0, 1, LEAD - 1, LEAD, LEAD + 1, 65_536, 65_537, BLOCK - 1, BLOCK, BLOCK + 1, LEAD + BLOCK, 2 * BLOCK, 900_001)


@pytest.fixture(scope="module", autouse=True)
def crews() -> Iterator[None]:
    for threads in (1, 2, 5):
        CREWS.append(Crew(threads, "streamware-deflate", Room(2**24)))
    yield
    for crew in CREWS[1:]:
        assert crew is not None
        crew.close()


CREWS: list[Crew | None] = [None]


def pieces_of(data: bytes, cuts: Iterable[int] = (), waits: bool = False) -> Pieces:
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for low, high in pairwise(at):
        if waits:
            yield None
        yield data[low:high]


def joined(parts: Parts, crew: Crew | None = None) -> bytes:
    return b"".join(part or b"" for part in in_order(parts, Line(crew, 4 * BLOCK)))


def inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(-15)
    got = inflater.decompress(data)
    assert inflater.eof
    assert inflater.unused_data == b""
    return got


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    size = draw(st.sampled_from(SIZES) | st.integers(0, 700_000))
    kind = draw(st.sampled_from(("text", "noise", "zeros", "both")))
    if kind == "zeros":
        return bytes(size)
    from_text = {"text": size, "noise": 0, "both": size // 2}[kind]
    at = draw(st.integers(0, 1000))
    return TEXT[at : at + from_text] + NOISE[at : at + size - from_text]


CUTS = st.lists(st.sampled_from(SIZES) | st.integers(0, 900_000), max_size=12)


@settings(max_examples=60, deadline=None)
@given(contents(), CUTS, st.booleans(), st.sampled_from((None, 6)), st.booleans(), st.integers(0, 3))
def test_the_same_content_gives_the_same_bytes_whatever_the_cuts_and_threads(
    data: bytes, cuts: list[int], waits: bool, level: int | None, probe: bool, threads: int
) -> None:
    whole = joined(deflated(pieces_of(data), level, probe=probe))
    assert joined(deflated(pieces_of(data, cuts, waits), level, probe=probe), CREWS[threads]) == whole
    assert inflate(whole) == data
    packed = joined(gzipped(pieces_of(data), level))
    assert joined(gzipped(pieces_of(data, cuts, waits), level), CREWS[threads]) == packed
    assert gzip.decompress(packed) == data


@settings(max_examples=15, deadline=None)
@given(contents(), CUTS, st.booleans())
def test_a_frame_of_zstandard_is_the_same_whatever_the_cuts_and_threads(
    data: bytes, cuts: list[int], waits: bool
) -> None:
    whole = b"".join(p or b"" for p in zstandardized(pieces_of(data)))
    for threads in (1, 2, 5):
        assert b"".join(p or b"" for p in zstandardized(pieces_of(data, cuts, waits), threads)) == whole
    reader = zstandard.ZstdDecompressor().decompressobj()
    assert reader.decompress(whole) == data
    assert reader.unused_data == b""


@pytest.mark.parametrize("level", [1, 6, 9])  # isal finds nothing at such a distance in one run, either
def test_a_block_refers_to_the_end_of_the_one_before(level: int | None) -> None:
    data = NOISE[:20_000] * 40
    assert len(joined(deflated(pieces_of(data), level, probe=False))) < 45_000


@LEVELS
def test_blocks_come_out_hardly_larger_than_one_run(level: int | None) -> None:
    data = TEXT[: 3 * BLOCK]
    one = zlib.compressobj(3 if level is None else level, zlib.DEFLATED, -15)
    assert len(joined(deflated(pieces_of(data), level, probe=False))) < 1.2 * len(one.compress(data) + one.flush())


@LEVELS
def test_noise_hardly_grows(level: int | None) -> None:
    assert len(joined(deflated(pieces_of(NOISE), level, probe=False))) < len(NOISE) * 1.001
    assert joined(deflated(pieces_of(NOISE), level, probe=True)) == b"".join(open_frames(pieces_of(NOISE)))


@pytest.mark.parametrize("size", [1, 100, 65_535, 65_536, 65_537, 300_000])
def test_what_does_not_shrink_is_left_alone(size: int) -> None:
    data = NOISE[:size]
    assert joined(deflated(pieces_of(data), None, probe=True)) == b"".join(open_frames(pieces_of(data)))


def test_the_first_64_kib_decide() -> None:
    shrinks, not_so = TEXT[:65_536] + NOISE[:400_000], NOISE[:65_536] + TEXT[:400_000]
    assert joined(deflated(pieces_of(shrinks), None, probe=True)) == joined(
        deflated(pieces_of(shrinks), None, probe=False)
    )
    assert joined(deflated(pieces_of(not_so), None, probe=True)) == b"".join(open_frames(pieces_of(not_so)))


def test_no_more_than_that_is_read_before_the_first_bytes_come_out() -> None:
    read = 0

    def pieces() -> Pieces:
        nonlocal read
        for at in range(0, len(NOISE), 1000):
            read += 1000
            yield NOISE[at : at + 1000]

    assert next(in_order(deflated(pieces(), None, probe=True), Line()))
    assert read <= 65_536 + 2 * 65_536


def test_the_first_bytes_of_a_compressed_archive_wait_for_no_more() -> None:
    def pieces() -> Pieces:
        yield TEXT[:LEAD]
        yield None
        raise AssertionError("it was asked for more")

    for parts in (in_order(gzipped(pieces(), None), Line()), zstandardized(pieces())):
        got = b""
        for part in parts:
            if part is None:
                break
            got += part
        reader = zlib.decompressobj(31) if got[:2] == b"\x1f\x8b" else zstandard.ZstdDecompressor().decompressobj()
        assert reader.decompress(got) == TEXT[:LEAD]
        parts.close()


def broken(data: bytes) -> Generator[bytes | None, None, None]:
    yield from pieces_of(data, (100_000, 300_000))
    raise SourceError("broken off")


def until_broken(parts: Pieces) -> bytes:
    got: list[bytes] = []
    with pytest.raises(SourceError, match="broken off"):
        got.extend(part for part in parts if part)
    return b"".join(got)


@pytest.mark.parametrize("size", [0, 1, 10_000, 65_536, 200_000, 700_000])
@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize("threads", [0, 2])
def test_where_content_breaks_off_all_before_comes_out_and_no_end(size: int, probe: bool, threads: int) -> None:
    got = until_broken(in_order(deflated(broken(TEXT[:size]), None, probe=probe), Line(CREWS[threads], 4 * BLOCK)))
    inflater = zlib.decompressobj(-15)
    assert inflater.decompress(got) == TEXT[:size]
    assert not inflater.eof


@pytest.mark.parametrize("threads", [0, 2])
def test_an_archive_that_breaks_off_has_no_end(threads: int) -> None:
    got = until_broken(in_order(gzipped(broken(TEXT[:700_000]), None), Line(CREWS[threads], 4 * BLOCK)))
    inflater = zlib.decompressobj(31)
    assert inflater.decompress(got) == TEXT[:700_000]
    assert not inflater.eof
    got = until_broken(zstandardized(broken(TEXT[:700_000])))
    reader = zstandard.ZstdDecompressor().decompressobj()
    assert reader.decompress(got) == TEXT[:700_000]
    assert not reader.eof


def test_a_gzip_header_carries_no_time_and_no_name() -> None:
    data = joined(gzipped(pieces_of(TEXT), None))
    assert data[:10] == b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    assert data[-8:] == zlib.crc32(TEXT).to_bytes(4, "little") + len(TEXT).to_bytes(4, "little")


def test_the_ledgers_key_tells_ways_to_compress_apart() -> None:
    keys = [coded_key(b"v" * 16, Method.DEFLATE, level) for level in (None, *range(1, 10))]
    keys += [coded_key(b"v" * 16, Method.AUTO, None), coded_key(b"w" * 16, Method.DEFLATE, None)]
    assert len(set(keys)) == 12
    assert len({signature(), signature("gzip"), signature("zstd"), signature(None, 6), signature("gzip", 6)}) == 5
