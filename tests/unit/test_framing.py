"""Stored blocks: any window, any cuts, the same bytes."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamware.errors import SizeMismatch
from streamware.formats.framing import (
    BLOCK,
    FullBlocks,
    content_span,
    framed_length,
    frames,
    full_blocks,
    open_frames,
)

SIZES = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1, 200_001]
PATTERN = bytes((i * 7 + i // 256) % 256 for i in range(65_521)) * 4


def content_of(size: int) -> bytes:
    return PATTERN[:size]


def framed(content: bytes) -> bytes:
    """The same by the book: RFC 1951 section 3.2.4, block by block."""
    blocks = [content[i : i + BLOCK] for i in range(0, len(content), BLOCK)] or [b""]
    out = b""
    for block in blocks:
        out += bytes([block is blocks[-1]]) + len(block).to_bytes(2, "little")
        out += (len(block) ^ 0xFFFF).to_bytes(2, "little") + block
    return out


REFERENCE = {size: framed(content_of(size)) for size in SIZES}


def cut(content: bytes, sizes: list[int]) -> Iterator[bytes]:
    position, turn = 0, 0
    while position < len(content):
        step = sizes[turn % len(sizes)]
        yield content[position : position + step]
        position, turn = position + step, turn + 1


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int, int]:
    """A size and a window of its frames, often with an end in or beside a header."""
    size = draw(st.sampled_from(SIZES))
    length = framed_length(size)
    beside = st.builds(lambda block, by: block * (BLOCK + 5) + by, st.integers(0, size // BLOCK), st.integers(-3, 8))
    place = st.one_of(st.integers(0, length), beside.map(lambda at: min(max(at, 0), length)))
    start, stop = sorted((draw(place), draw(place)))
    return size, start, stop


@pytest.mark.parametrize("size", [0, *SIZES])
def test_the_whole_is_a_deflate_stream_of_the_promised_length(size: int) -> None:
    content = content_of(size)
    whole = b"".join(frames([content] if content else [], size, 0, framed_length(size)))
    assert len(whole) == framed_length(size)
    inflater = zlib.decompressobj(-15)
    assert inflater.decompress(whole) == content
    assert inflater.eof
    assert inflater.unused_data == b""


@settings(max_examples=300)
@given(window=windows(), cuts=st.lists(st.sampled_from([1, 5, 1000, 16_384, BLOCK, BLOCK + 1, 262_144]), min_size=1))
def test_a_window_is_the_slice(window: tuple[int, int, int], cuts: list[int]) -> None:
    size, start, stop = window
    if min(cuts) == 1:
        cuts = [*cuts, 40_000]  # single bytes, but not all the way
    low, high = content_span(size, start, stop)
    pieces = cut(content_of(size)[low:high], cuts)
    assert b"".join(frames(pieces, size, start, stop)) == REFERENCE[size][start:stop]


@pytest.mark.parametrize("size", [1, BLOCK, BLOCK + 1])
def test_every_short_window_around_the_headers(size: int) -> None:
    reference = REFERENCE[size]
    places = [p for p in (*range(8), *range(BLOCK, BLOCK + 12), len(reference)) if p <= len(reference)]
    for start in places:
        for stop in places:
            if start <= stop:
                low, high = content_span(size, start, stop)
                assert b"".join(frames([content_of(size)[low:high]], size, start, stop)) == reference[start:stop]


@settings(max_examples=100)
@given(size=st.sampled_from([0, *SIZES]), cuts=st.lists(st.sampled_from([700, 16_384, BLOCK, 262_144]), min_size=1))
def test_an_unknown_size_gives_the_same_bytes(size: int, cuts: list[int]) -> None:
    content = content_of(size)
    assert b"".join(open_frames(cut(content, cuts))) == framed(content)


def test_empty_pieces_change_nothing() -> None:
    content = content_of(BLOCK + 1)
    pieces = [b"", content[:9], b"", content[9:], b""]
    assert b"".join(open_frames(pieces)) == framed(content)
    assert b"".join(frames(pieces, len(content), 0, framed_length(len(content)))) == framed(content)


def test_nothing_yet_is_handed_on_in_its_place() -> None:
    content = content_of(BLOCK + 1)
    pieces: list[bytes | None] = [None, content[:10], None, content[10:], None]
    sized = list(frames(pieces, len(content), 0, framed_length(len(content))))
    assert [p is None for p in sized] == [True, False, True, False, True]
    unsized = list(open_frames(pieces))
    assert [p is None for p in unsized] == [True, True, False, True, False]
    for given_back in (sized, unsized):
        assert b"".join(p for p in given_back if p is not None) == framed(content)


def test_output_pieces_are_about_as_large_as_the_input() -> None:
    piece = content_of(131_072)
    size = 8 * len(piece)
    sized = [len(p) for p in frames([piece] * 8, size, 0, framed_length(size))]
    assert sized == [len(piece) + 5 * n for n in (3, 2, 2, 2, 2, 2, 2, 2)]
    unsized = [len(p) for p in open_frames([piece] * 8)]
    assert len(unsized) == 9
    assert min(unsized[:-1]) >= BLOCK


@pytest.mark.parametrize(("given", "promised"), [(99, 100), (101, 100), (BLOCK, BLOCK + 1), (BLOCK + 1, BLOCK)])
def test_more_or_less_content_than_promised_is_an_error(given: int, promised: int) -> None:
    with pytest.raises(SizeMismatch):
        list(frames(cut(content_of(given), [50]), promised, 0, framed_length(promised)))


def test_less_content_than_a_window_wants_is_an_error() -> None:
    size, start, stop = 200_001, 70_000, 140_000
    low, high = content_span(size, start, stop)
    content = content_of(size)
    with pytest.raises(SizeMismatch):
        list(frames([content[low : high - 1]], size, start, stop))
    with pytest.raises(SizeMismatch):
        list(frames([content[low : high + 1]], size, start, stop))


def test_there_is_no_content_past_the_end() -> None:
    assert content_span(10, 0, 1000) == (0, 10)
    assert content_span(BLOCK, BLOCK + 5, 2 * BLOCK) == (BLOCK, BLOCK)


@given(size=st.integers(1, 2**45), data=st.data())
def test_the_span_of_a_window_adds_up(size: int, data: st.DataObject) -> None:
    length = framed_length(size)
    places = sorted(data.draw(st.lists(st.integers(0, length), min_size=1, max_size=4)))
    edges = [0, *places, length]
    spans = [content_span(size, a, b) for a, b in pairwise(edges)]
    assert spans[0][0] == 0
    assert spans[-1][1] == size
    assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_full_blocks_are_those_of_which_none_is_the_last_there() -> None:
    stride = BLOCK + 5
    for start in (0, 1, 5, stride, 2 * stride):
        for stop in (
            start,
            start + 5,
            start + 6,
            start + stride,
            start + stride + 5,
            start + stride + 6,
            start + 400_000,
        ):
            count = full_blocks(start, stop)
            if start % stride:
                assert count == 0
            else:
                assert start + count * stride + 6 <= stop or count == 0
                assert start + (count + 1) * stride + 6 > stop


def test_blocks_filled_in_place_are_those_made_by_joining() -> None:
    content, made = content_of(200_001), FullBlocks(2)
    reading = io.BytesIO(content)

    def read(places: list[memoryview]) -> None:
        assert [len(place) for place in places] == [BLOCK, BLOCK]
        for place in places:
            reading.readinto(place)

    first = made.fill(read)
    assert first == REFERENCE[200_001][: 2 * (BLOCK + 5)]
    assert b"".join(made.contents(first)) == content[: 2 * BLOCK]


def test_blocks_that_somebody_holds_are_left_alone_and_the_others_made_anew_in_place() -> None:
    made = FullBlocks(1)

    def piece_of(byte: int) -> bytes:
        def read(places: list[memoryview]) -> None:
            places[0][:] = bytes([byte]) * BLOCK

        return made.fill(read)

    held = [piece_of(byte) for byte in range(6)]
    for byte, piece in enumerate(held):
        assert piece == b"\0\xff\xff\0\0" + bytes([byte]) * BLOCK
    piece, places = piece_of(6), set()
    for byte in range(7, 30):
        before, piece = piece, b""
        piece = piece_of(byte)
        assert (before[5], piece[5]) == (byte - 1, byte)
        places.add(id(piece))
    assert len(places) == 2
