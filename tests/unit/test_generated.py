"""Content that is made here: every window of it, and every way in which a factory may break its word."""

from __future__ import annotations

import io
import logging
import zipfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware import Archiver, Bundle
from streamware.checksums import crc32
from streamware.errors import BodyClosed, MemberNotFound, SizeMismatch, SourceError
from streamware.model import Chunks, Source
from streamware.sources.generated import DataSource, StreamSource
from tests.synthetic import read

DATA = bytes(range(100))


def taken(chunks: Chunks) -> bytes:
    try:
        return b"".join(chunks)
    finally:
        chunks.close()


def cut(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """The data in pieces of these sizes; the rest at the end."""
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


def stream(*pieces: Any, size: int | None = None, etag: str | None = None) -> StreamSource:
    return StreamSource(lambda: iter(pieces), size=size, etag=etag)


# --- bytes in memory ---------------------------------------------------------------------------------------------


def test_all_is_known_of_bytes_in_memory() -> None:
    facts = DataSource(DATA).probe(keep=True)
    assert (facts.size, facts.crc32, facts.modified) == (100, crc32(DATA), None)
    assert facts.validator is not None
    assert facts.validator[0] == facts.validator[-1] == '"'
    assert DataSource(bytes(bytearray(DATA))).probe() == facts
    assert DataSource(DATA[:-1] + b"x").probe().validator != facts.validator
    assert DataSource.instant
    assert isinstance(DataSource(b""), Source)


@pytest.mark.parametrize(("start", "length"), [(0, None), (0, 100), (0, 0), (40, 20), (40, None), (99, 1), (100, 0)])
def test_windows_of_bytes_in_memory(start: int, length: int | None) -> None:
    chunks = DataSource(DATA).open(start, length)
    assert chunks.ready()
    assert taken(chunks) == DATA[start : None if length is None else start + length]


def test_bytes_in_memory_after_abort_and_close() -> None:
    source = DataSource(DATA)
    chunks = source.open(0, None)
    chunks.abort()
    chunks.abort()
    with pytest.raises(BodyClosed):
        next(chunks)
    chunks.close()
    chunks.close()
    source.close()
    assert taken(source.open(0, None)) == DATA


def test_bytes_that_change_after_they_were_added_are_not_seen() -> None:
    data = bytearray(b"before")
    bundle = Bundle("b.tar")
    bundle.add_data("a", data)  # type: ignore[arg-type]
    data[:] = b"after!"
    assert b"before" in read(Archiver(), bundle)


# --- streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("etag", [None, '"v"', 'W/"v"'])
@pytest.mark.parametrize("size", [None, 0, 7])
def test_a_stream_is_asked_nothing_before_it_is_opened(size: int | None, etag: str | None) -> None:
    def never() -> Iterable[bytes]:
        raise AssertionError("called")

    facts = StreamSource(never, size=size, etag=etag).probe(keep=True)
    assert (facts.size, facts.validator, facts.crc32, facts.modified) == (size, etag, None, None)


@given(
    st.lists(st.integers(0, 40), max_size=8),
    st.integers(0, 100),
    st.integers(0, 100),
    st.booleans(),
)
def test_every_window_is_a_slice(sizes: list[int], one: int, other: int, size_known: bool) -> None:
    start, stop = sorted((one, other))
    source = StreamSource(lambda: cut(DATA, sizes), size=100 if size_known else None, etag=None)
    assert taken(source.open(start, stop - start)) == DATA[start:stop]
    assert taken(source.open(start, None)) == DATA[start:]
    assert taken(source.open(0, 100 if size_known else None)) == DATA


@pytest.mark.parametrize(
    "pieces",
    [
        [b"12", b"", b"345"],
        [bytearray(b"12345")],
        [memoryview(b"123"), b"45"],
        [array("H", [0x3231, 0x3433]).tobytes(), b"5"],
        (b"12345",),
        b"",
    ],
)
def test_pieces_may_be_of_any_kind_of_bytes(pieces: Any) -> None:
    expected = b"12345" if pieces else b""
    chunks = StreamSource(lambda: pieces, size=len(expected), etag=None).open(0, len(expected))
    got = list(chunks)
    chunks.close()
    assert b"".join(got) == expected
    assert all(type(piece) is bytes and piece for piece in got)


@pytest.mark.case(23)
@pytest.mark.parametrize(
    "factory",
    [lambda: ["text"], lambda: [5], lambda: [None], lambda: "text", lambda: b"bytes", lambda: None, lambda: 5],
)
def test_what_is_no_bytes(factory: Callable[[], Any]) -> None:
    with pytest.raises(SourceError):
        taken(StreamSource(factory, size=5, etag=None).open(0, 5))


@pytest.mark.case(23)
@pytest.mark.parametrize(
    "pieces", [[], [b""], [b"1234"], [b"123456"], [b"12345", b"6"], [b"12345", b"", b"6"], [b"1" * 1000]]
)
def test_too_few_and_too_many_bytes(pieces: list[bytes]) -> None:
    with pytest.raises(SizeMismatch):
        taken(stream(*pieces, size=5).open(0, 5))
    if len(b"".join(pieces)) < 5:
        with pytest.raises(SizeMismatch):
            taken(stream(*pieces, size=5).open(2, 3))


def test_only_the_last_byte_promised_tells_whether_there_are_more() -> None:
    def goes_on() -> Iterator[bytes]:
        yield b"12345"
        raise AssertionError("asked for more than was wanted")

    assert taken(StreamSource(goes_on, size=10, etag=None).open(0, 5)) == b"12345"
    assert taken(StreamSource(goes_on, size=10, etag=None).open(2, 2)) == b"34"


def test_empty_pieces_after_the_end_are_no_bytes() -> None:
    assert taken(stream(b"12345", b"", b"", size=5).open(0, 5)) == b"12345"


def test_a_stream_that_ends_stays_ended() -> None:
    chunks = stream(b"12345", size=5).open(0, 5)
    assert list(chunks) == [b"12345"]
    assert list(chunks) == []
    assert chunks.ready()
    chunks.close()


# --- foreign code that fails -------------------------------------------------------------------------------------


def failing(error: BaseException, at: str) -> Callable[[], Iterable[bytes]]:
    class Iterating:
        def __iter__(self) -> Iterator[bytes]:
            if at == "iter":
                raise error
            return self

        def __next__(self) -> bytes:
            raise error

    def factory() -> Iterable[bytes]:
        if at == "factory":
            raise error
        return Iterating()

    return factory


@pytest.mark.case(23)
@pytest.mark.parametrize("at", ["factory", "iter", "next"])
def test_errors_of_foreign_code_are_ours_with_their_cause(at: str) -> None:
    for error in (OSError("disk"), ConnectionResetError(), ValueError("x")):
        with pytest.raises(SourceError) as caught:
            taken(StreamSource(failing(error, at), size=5, etag=None).open(0, 5))
        assert caught.value.__cause__ is error
    own = MemberNotFound("it knows us")
    with pytest.raises(MemberNotFound) as told:
        taken(StreamSource(failing(own, at), size=5, etag=None).open(0, 5))
    assert told.value is own
    with pytest.raises(KeyboardInterrupt):
        taken(StreamSource(failing(KeyboardInterrupt(), at), size=5, etag=None).open(0, 5))


class Closing:
    """An iterable that counts how often it, and its iterator, were closed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = pieces
        self.closed = 0
        self.iterator: Closing | None = None

    def __iter__(self) -> Iterator[bytes]:
        self.iterator = Closing(iter(self.pieces))
        return self.iterator

    def __next__(self) -> bytes:
        return next(self.pieces)  # type: ignore[call-overload,no-any-return]

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("reads", [0, 1, 3])
def test_both_an_iterable_and_its_iterator_are_closed(reads: int) -> None:
    made: list[Closing] = []

    def factory() -> Iterable[bytes]:
        made.append(Closing([b"12345"] * 3))
        return made[-1]

    chunks = StreamSource(factory, size=15, etag=None).open(0, 15)
    for _ in range(reads):
        next(chunks)
    chunks.close()
    assert made[0].closed == 1
    assert made[0].iterator is not None
    assert made[0].iterator.closed == 1


def test_abort_ends_the_reading_and_close_the_generator() -> None:
    ended: list[bool] = []

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 10
        finally:
            ended.append(True)

    chunks = StreamSource(endless, size=None, etag=None).open(25, None)
    assert next(chunks) == b"x" * 5
    assert not chunks.ready()
    chunks.abort()
    with pytest.raises(BodyClosed):
        next(chunks)
    assert ended == []
    chunks.close()
    assert ended == [True]


@pytest.mark.parametrize("size", [None, 100_000])
def test_a_factory_is_called_anew_for_each_download(size: int | None) -> None:
    calls: list[int] = []

    def factory() -> Iterable[bytes]:
        calls.append(1)
        return [b"x" * 100_000]

    bundle = Bundle("b.zip")
    bundle.add_stream("a", factory, size=size)
    archiver = Archiver()
    assert read(archiver, bundle) == read(archiver, bundle)
    assert len(calls) == 2


class Rude(Closing):
    """Fails when it is closed."""

    def close(self) -> None:
        super().close()
        raise OSError("while closing")


@pytest.mark.parametrize("leaves", [True, False])
def test_what_fails_at_its_closing_fails_for_the_log_alone(leaves: bool, caplog: pytest.LogCaptureFixture) -> None:
    made: list[Rude] = []

    def factory() -> Iterable[bytes]:
        made.append(Rude([b"x" * 100_000] * 3))
        return made[-1]

    bundle = Bundle("b.zip")
    bundle.add_stream("a", factory)
    bundle.add_data("last", b"2")
    body = Archiver().open(bundle)
    data = next(body) + next(body)
    if not leaves:
        data += b"".join(body)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == ["a", "last"]
    body.close()
    assert [rude.closed for rude in made] == [1]
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == ["a stream failed while it was closed"]
