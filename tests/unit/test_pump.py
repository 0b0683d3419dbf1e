"""How a body ends: whole, or visibly broken inside a member; and what is opened when."""

from __future__ import annotations

import io
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamware import Archiver, Bundle, Conditions, Member, StreamwareError
from streamware.errors import (
    BodyClosed,
    ChecksumMismatch,
    MemberChanged,
    MemberNotFound,
    SizeMismatch,
    SourceError,
)
from streamware.model import Facts
from tests.synthetic import Synthetic, content, ranged, read


class Failing(Synthetic):
    """Gives ``good`` bytes and then fails; with ``good`` None already when it is opened."""

    def __init__(self, size: int, good: int | None, **facts: bool) -> None:
        super().__init__(size, **facts)
        self.good = good

    def open(self, start: int, length: int | None):  # type: ignore[no-untyped-def]
        if self.good is None:
            raise MemberNotFound("gone")
        return super().open(start, length)

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        for piece in super()._pieces(start, stop):
            if start + len(piece) > (self.good or 0):
                raise MemberChanged("broke")
            start += len(piece)
            yield piece


def drain(body) -> tuple[bytes, StreamwareError | None]:  # type: ignore[no-untyped-def]
    got = []
    try:
        for piece in body:
            got.append(piece)
    except StreamwareError as error:
        return b"".join(got), error
    finally:
        body.close()
    return b"".join(got), None


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("good", [None, 0, 200_000])
@pytest.mark.parametrize("size", [5000, 400_000])
def test_a_failing_member_leaves_its_header_and_no_end(form: str, good: int | None, size: int) -> None:
    bundle = Bundle("b", form)  # type: ignore[arg-type]
    bundle.add_data("first.txt", b"1" * 1000)
    bundle.add(Member("failing.bin", Failing(size, None if good is None else min(good, size // 2))))
    bundle.add_data("last.txt", b"2" * 1000)
    got, error = drain(Archiver().open(bundle))
    assert isinstance(error, MemberNotFound if good is None else MemberChanged)
    assert (error.member, error.index) == ("failing.bin", 1)
    if form == "tar.gz":
        coder = zlib.decompressobj(31)
        got = coder.decompress(got)
        assert not coder.eof
    assert b"first.txt" in got
    assert b"failing.bin" in got
    assert b"last.txt" not in got
    assert b"PK\1\2" not in got
    assert b"PK\5\6" not in got
    if form != "zip":
        assert not got.endswith(bytes(1024))


@pytest.mark.case(26)
def test_a_failing_last_member_lets_nothing_of_the_directory_out() -> None:
    bundle = Bundle("b.zip")
    for number in range(50):
        bundle.add_data(f"{number}.txt", b"x")
    bundle.add(Member("failing.bin", Failing(400_000, 399_000, crc_known=False)))
    got, error = drain(Archiver().open(bundle))
    assert isinstance(error, MemberChanged)
    assert b"PK\1\2" not in got


def test_a_failure_of_the_first_member_comes_before_any_byte() -> None:
    bundle = Bundle("b.zip")
    bundle.add_directory("empty")
    bundle.add(Member("gone.bin", Failing(400_000, None)))
    with pytest.raises(MemberNotFound):
        Archiver().open(bundle)
    reply = Archiver().respond(bundle)
    assert reply.status == 404
    assert b"gone.bin" in b"".join(reply.body)


@pytest.mark.case(20)
@pytest.mark.parametrize("size", [100, 65_536, 300_000])
def test_a_wrong_checksum_stops_inside_the_member(size: int) -> None:
    bundle = Bundle("b.zip")
    bundle.add_data("first.txt", b"1")
    bundle.add(Member("wrong.bin", Synthetic(size), size=size, crc32=1))
    body = Archiver().open(bundle)
    promised = body.length
    got, error = drain(body)
    assert isinstance(error, ChecksumMismatch)
    data_ends = got.index(b"wrong.bin") + len(b"wrong.bin") + size
    assert len(got) < data_ends < (promised or 0)


def test_an_error_comes_again_at_every_further_next() -> None:
    bundle = Bundle("b.zip")
    bundle.add(Member("failing.bin", Failing(400_000, 100_000)))
    body = Archiver().open(bundle)
    with pytest.raises(MemberChanged):
        for _ in body:
            pass
    for _ in range(2):
        with pytest.raises(MemberChanged):
            next(body)
    body.close()
    with pytest.raises(BodyClosed):
        next(body)


def test_a_finished_body_stays_finished() -> None:
    bundle = Bundle("b.zip")
    bundle.add_data("a", b"a")
    body = Archiver().open(bundle)
    assert sum(map(len, body)) == body.length
    assert list(body) == []
    body.close()
    body.close()
    assert list(body) == []


def test_a_body_that_was_closed_early_is_no_finished_one() -> None:
    source = Synthetic(1_000_000, cut=65536)
    bundle = Bundle("b.zip")
    bundle.add(Member("a", source))
    body = Archiver().open(bundle)
    next(body)
    assert source.live == 1
    body.close()
    assert source.live == 0
    with pytest.raises(BodyClosed):
        next(body)


class Stuck(Synthetic):
    """Blocks in the middle of its content until it is aborted."""

    def open(self, start: int, length: int | None):  # type: ignore[no-untyped-def]
        chunks = super().open(start, length)
        released = threading.Event()

        class StuckChunks:
            given = False
            aborted = False

            def __iter__(self):  # type: ignore[no-untyped-def]
                return self

            def __next__(self) -> bytes:
                if self.aborted:
                    raise BodyClosed("aborted")
                if not self.given:
                    self.given = True
                    return next(chunks)
                released.wait(20)
                raise BodyClosed("aborted")

            def ready(self) -> bool:
                return not self.given

            def abort(self) -> None:
                self.aborted = True
                released.set()

            def close(self) -> None:
                chunks.close()

        return StuckChunks()


def test_abort_from_another_thread_ends_a_blocked_read() -> None:
    source = Stuck(1_000_000, instant=False)
    bundle = Bundle("b.zip")
    bundle.add(Member("a", source))
    body = Archiver().open(bundle)
    ended: list[BaseException] = []

    def consume() -> None:
        try:
            for _ in body:
                pass
        except StreamwareError as error:
            ended.append(error)

    thread = threading.Thread(target=consume)
    thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    body.abort()
    thread.join(5)
    assert time.monotonic() - started < 1
    assert isinstance(ended[0], BodyClosed)
    body.close()
    assert source.live == 0


def test_what_is_there_goes_out_before_anybody_is_waited_for() -> None:
    source = Stuck(1_000_000, instant=False, cut=100)
    bundle = Bundle("b.zip")
    bundle.add_data("first.txt", b"1" * 10)
    bundle.add(Member("slow.bin", source))
    body = Archiver().open(bundle)
    first = next(body)
    assert b"first.txt" in first
    assert source.opened == []
    assert content(100, 0) in next(body)
    body.abort()
    body.close()


def test_small_members_are_joined_when_nobody_has_to_be_waited_for() -> None:
    bundle = Bundle("b.zip")
    for number in range(2000):
        bundle.add(Member(f"{number}", Synthetic(1000, crc_known=True)))
    pieces = list(map(len, Archiver().open(bundle)))
    assert sum(pieces) > 2_000_000
    assert len(pieces) < 12


def test_a_large_piece_is_not_copied_for_the_header_before_it() -> None:
    bundle = Bundle("b.zip")
    for number in range(3):
        bundle.add(Member(f"{number}", Synthetic(600_000, number, cut=300_000, crc_known=True)))
    body = Archiver().open(bundle)
    pieces = list(body)
    body.close()
    large = [piece for piece in pieces if len(piece) == 300_000]
    assert len(large) >= 4
    assert len(b"".join(pieces)) == body.length


def test_what_is_read_in_small_pieces_to_spare_memory_is_not_joined_again(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content(600_000, 0))
    bodies, sizes = [], []
    for _ in range(17):  # files that are read at the same time, one more than in large pieces
        bundle = Bundle("b.zip")
        bundle.add_file(path)
        bodies.append(Archiver().open(bundle))
        sizes.append([len(next(bodies[-1]))])
    for body, pieces in zip(bodies, sizes, strict=True):
        pieces += map(len, body)
        body.close()
    large, small = max(sizes[0]), max(sizes[-1])
    assert large >= 256 * 1024
    assert small <= 65 * 1024


class Serial(Synthetic):
    """For one thread alone, so that nobody opens it before its turn."""

    serial = True


def test_bytes_leave_before_the_second_member_is_opened() -> None:
    sources = [Serial(100_000, n, instant=False) for n in range(3)]
    bundle = Bundle("b.zip")
    for number, source in enumerate(sources):
        bundle.add(Member(f"{number}", source, size=100_000))
    body = Archiver().open(bundle)
    next(body)
    assert [len(s.opened) for s in sources] == [1, 0, 0]
    body.close()


def test_a_window_reads_only_what_it_needs() -> None:
    sources = [Synthetic(100_000, n, crc_known=True) for n in range(3)]
    bundle = Bundle("b.zip")
    for number, source in enumerate(sources):
        bundle.add(Member(f"{number}", source))
    whole = read(Archiver(), bundle)
    for source in sources:
        source.opened.clear()
    at = whole.index(content(100_000, 1)) + 40_000
    _, _, data = ranged(Archiver(), bundle, f"bytes={at}-{at + 99}")
    assert data == whole[at : at + 100]
    assert [s.opened for s in sources] == [[], [(40_000, 100)], []]
    _, _, data = ranged(Archiver(), bundle, "bytes=-50")
    assert data == whole[-50:]
    assert [len(s.opened) for s in sources] == [0, 1, 0]


# --- streams and factories ---


@pytest.mark.case(23)
@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([b"123"], SizeMismatch),
        ([b"12345", b"67890", b"1"], SizeMismatch),
        (["text"], SourceError),
        ([None], SourceError),
    ],
)
def test_a_stream_that_is_not_what_it_said_breaks_the_body(pieces: list[object], error: type[Exception]) -> None:
    bundle = Bundle("b.zip")
    bundle.add_data("first", b"1")
    bundle.add_stream("made", lambda: iter(pieces), size=10)  # type: ignore[arg-type,return-value]
    _, raised = drain(Archiver().open(bundle))
    assert isinstance(raised, error)


@pytest.mark.case(23)
def test_an_oserror_of_a_stream_never_leaves_bare() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 70_000
        raise ConnectionResetError("of somebody else's socket")

    bundle = Bundle("b.zip")
    bundle.add_stream("made", broken)
    _, error = drain(Archiver().open(bundle))
    assert isinstance(error, SourceError)
    assert isinstance(error.__cause__, ConnectionResetError)


def test_the_iterator_of_a_factory_is_closed() -> None:
    closed: list[bool] = []

    def made() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.append(True)

    bundle = Bundle("b.zip")
    bundle.add_stream("made", made)
    body = Archiver().open(bundle)
    next(body)  # the header, for nobody knows how long the factory will think
    next(body)
    body.close()
    assert closed == [True]


def test_the_same_content_gives_the_same_bytes_whatever_its_pieces() -> None:
    data = content(1_000_000, 5)

    def cut(size: int) -> Bundle:
        bundle = Bundle("b.zip", compress="deflate")
        bundle.add_stream("made", lambda: (data[i : i + size] for i in range(0, len(data), size)))
        bundle.add_stream("sized", lambda: (data[i : i + size] for i in range(0, len(data), size)), size=len(data))
        return bundle

    archives = [read(Archiver(), cut(size)) for size in (1000, 65_536, 999_999)]
    assert archives[0] == archives[1] == archives[2]
    for compress in ("stored", "auto"):
        bundles = [cut(1000), cut(70_001)]
        for bundle in bundles:
            bundle.compress = compress  # type: ignore[assignment]
        assert read(Archiver(), bundles[0]) == read(Archiver(), bundles[1])


@pytest.mark.parametrize("name", ["noise.bin", "photo.jpg"])
def test_auto_leaves_alone_what_does_not_shrink(name: str) -> None:
    import random

    noise = random.Random(1).randbytes(300_000)
    bundle = Bundle("b.zip", compress="auto")
    bundle.add_data(name, noise)
    bundle.add_data("log.txt", b"the same line over and over\n" * 10_000)
    archive = zipfile.ZipFile(io.BytesIO(read(Archiver(), bundle)))
    assert archive.read(name) == noise
    assert archive.testzip() is None
    assert archive.getinfo(name).compress_size < 300_100
    assert archive.getinfo("log.txt").compress_size < 30_000


# --- leaving members out ---


@pytest.mark.parametrize("compress", ["stored", "deflate"])
@pytest.mark.parametrize("on_error", ["skip", "report"])
def test_members_that_fail_before_the_head_are_left_out(on_error: str, compress: str) -> None:
    class Gone(Failing):
        def probe(self, *, keep: bool = False) -> Facts:
            raise MemberNotFound("gone")

    bundle = Bundle("b.zip", on_error=on_error, compress=compress)  # type: ignore[arg-type]
    bundle.add_data("first.txt", b"1")
    bundle.add(Member("gone.bin", Gone(5, None)))
    bundle.add_data("last.txt", b"2")
    archive = zipfile.ZipFile(io.BytesIO(read(Archiver(), bundle)))
    assert archive.testzip() is None
    expected = ["first.txt", "last.txt"]
    if on_error == "report":
        expected.append("_errors.txt")
        assert b"gone.bin" in archive.read("_errors.txt")
    assert archive.namelist() == expected


@pytest.mark.parametrize("on_error", ["skip", "report"])
def test_a_late_failure_is_left_out_only_where_no_length_was_promised(on_error: str) -> None:
    def bundle(**known: bool) -> Bundle:
        made = Bundle("b.zip", on_error=on_error)  # type: ignore[arg-type]
        made.add(Member("first.txt", Synthetic(70_000, **known)))
        made.add(Member("gone.bin", Failing(70_000, None, **known)))
        made.add_data("last.txt", b"2")
        return made

    archive = zipfile.ZipFile(io.BytesIO(read(Archiver(), bundle(size_known=False))))
    assert archive.testzip() is None
    assert archive.namelist() == ["first.txt", "last.txt", *(["_errors.txt"] if on_error == "report" else [])]
    _, error = drain(Archiver().open(bundle()))
    assert isinstance(error, MemberNotFound)


def test_no_report_where_nothing_was_left_out() -> None:
    bundle = Bundle("b.zip", on_error="report", compress="deflate")
    bundle.add_data("first.txt", b"1" * 1000)
    archive = zipfile.ZipFile(io.BytesIO(read(Archiver(), bundle)))
    assert archive.namelist() == ["first.txt"]
    assert archive.testzip() is None


# --- validators ---


def _etag(bundle: Bundle) -> str | None:
    reply = Archiver().respond(bundle, Conditions("HEAD"))
    reply.body.close()
    return reply.header("ETag")


def _bundle(**changes: object) -> Bundle:
    facts: dict[str, object] = {"name": "a", "size": 100, "seed": 1, "modified": 1_600_000_000, "mode": 0o644}
    facts.update(changes)
    bundle = Bundle("b.zip", comment=facts.get("comment"), timestamps=bool(facts.get("timestamps", True)))  # type: ignore[arg-type]
    bundle.add(
        Member(
            str(facts["name"]),
            Synthetic(facts["size"], facts["seed"]),  # type: ignore[arg-type]
            modified=facts["modified"],  # type: ignore[arg-type]
            mode=facts["mode"],  # type: ignore[arg-type]
        )
    )
    bundle.add_data("b", b"b")
    return bundle


def test_the_etag_is_the_same_until_something_changes() -> None:
    first = _etag(_bundle())
    assert first is not None
    assert not first.startswith("W/")
    assert _etag(_bundle()) == first
    changes = (
        {"name": "c"},
        {"size": 101},
        {"seed": 2},
        {"modified": 1_600_000_001},
        {"mode": 0o600},
        {"comment": "x"},
        {"timestamps": False},
    )
    tags = [_etag(_bundle(**change)) for change in changes]
    assert len({first, *tags}) == len(changes) + 1
    swapped = _bundle()
    swapped.members.reverse()
    assert _etag(swapped) not in (first, *tags)


@pytest.mark.case(41)
def test_what_nobody_pins_has_no_strong_validator_and_no_ranges() -> None:
    bundle = Bundle("b.zip")
    bundle.add_stream("made", lambda: [b"12345"], size=5)
    reply = Archiver().respond(bundle, Conditions(range="bytes=0-3"))
    assert reply.status == 200
    assert reply.header("Accept-Ranges") is None
    assert reply.header("ETag") is None
    assert reply.header("Last-Modified") is None
    assert len(b"".join(reply.body)) == int(reply.header("Content-Length") or 0)


@pytest.mark.case(44)
def test_head_opens_no_member_and_tells_what_get_would() -> None:
    source = Synthetic(100_000)
    bundle = Bundle("b.zip")
    bundle.add(Member("a", source))
    head = Archiver().respond(bundle, Conditions("HEAD"))
    head.body.close()
    assert source.opened == []
    get = Archiver().respond(bundle)
    get.body.close()
    assert head.status == get.status == 200
    assert head.headers == get.headers
