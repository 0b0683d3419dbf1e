"""Checksums learned in passing: what is read again, what is not, and that nothing learned changes an archive."""

from __future__ import annotations

import io
import random
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware import Archiver, Bundle, Conditions, Member, StreamwareError
from streamware.ledger import BLOCK_BYTES
from streamware.recall import Sums
from tests.synthetic import Synthetic, content, ranged, read

BIG = 3 * BLOCK_BYTES + 12_345


def bundle_of(*sources: Synthetic, **options: str) -> Bundle:
    bundle = Bundle("b.zip", **options)  # type: ignore[arg-type]
    for number, source in enumerate(sources):
        bundle.add(Member(f"{number}.bin", source))
    return bundle


def asked(source: Synthetic) -> list[tuple[int, int | None]]:
    opened, source.opened = source.opened, []
    return opened


@given(
    st.integers(0, 3 * BLOCK_BYTES),
    st.lists(st.integers(0, BLOCK_BYTES + 1), max_size=6),
    st.randoms(use_true_random=False),
)
def test_sums_are_those_of_the_blocks_and_of_the_whole_run(start: int, cuts: list[int], rng: random.Random) -> None:
    data = content(sum(cuts), rng.randrange(100))
    found: dict[int, int] = {}
    lengths: dict[int, int] = {}

    def told(block: int, crc: int, length: int) -> None:
        found[block], lengths[block] = crc, length

    sums = Sums(start, told)
    at = 0
    for cut in cuts:
        sums.feed(data[at : at + cut])
        at += cut
    assert sums.finish() == zlib.crc32(data)
    stop = start + len(data)
    first = -(-start // BLOCK_BYTES)
    for block, crc in found.items():
        begin, end = block * BLOCK_BYTES - start, min(stop, (block + 1) * BLOCK_BYTES) - start
        assert crc == zlib.crc32(data[begin:end])
        assert lengths[block] == end - begin
    assert sorted(found) == [b for b in range(first, -(-stop // BLOCK_BYTES)) if b * BLOCK_BYTES < stop]


def test_after_a_whole_download_the_directory_needs_no_reading() -> None:
    archiver = Archiver()
    sources = [Synthetic(BIG, 1, cut=300_000), Synthetic(70_000, 2), Synthetic(1000, 3)]
    bundle = bundle_of(*sources)
    whole = read(archiver, bundle)
    for source in sources:
        asked(source)
    status, _, data = ranged(archiver, bundle, "bytes=-190")
    assert (status, data) == (206, whole[-190:])
    assert [asked(source) for source in sources] == [[], [], []]


def test_a_cold_directory_reads_every_member_once() -> None:
    sources = [Synthetic(BIG, 1, cut=300_000), Synthetic(70_000, 2), Synthetic(1000, 3)]
    bundle = bundle_of(*sources)
    whole = read(Archiver(), bundle)
    for source in sources:
        asked(source)
    archiver = Archiver()
    _, _, data = ranged(archiver, bundle, "bytes=-190")
    assert data == whole[-190:]
    assert [asked(source) for source in sources] == [[(0, BIG)], [(0, 70_000)], [(0, 1000)]]
    _, _, data = ranged(archiver, bundle, "bytes=-190")
    assert data == whole[-190:]
    assert [asked(source) for source in sources] == [[], [], []]


def test_a_resume_reads_again_only_the_block_it_was_cut_in() -> None:
    archiver = Archiver()
    source = Synthetic(BIG, 1, cut=300_000)
    bundle = bundle_of(source)
    whole = read(Archiver(), bundle)
    asked(source)
    body = archiver.open(bundle)
    cut = 2 * BLOCK_BYTES + 1_000_000
    got = b""
    while len(got) < cut:
        got += next(body)
    body.close()
    assert asked(source) == [(0, BIG)]
    _, _, rest = ranged(archiver, bundle, f"bytes={cut}-")
    assert whole[:cut] + rest == whole
    (first, _), *again = asked(source)
    assert first > 2 * BLOCK_BYTES
    assert again == [(2 * BLOCK_BYTES, BLOCK_BYTES)]


def test_ranges_served_in_any_order_add_up() -> None:
    archiver = Archiver()
    source = Synthetic(BIG, 1, cut=300_000)
    bundle = bundle_of(source)
    whole = read(Archiver(), bundle)
    step = 3_000_000
    starts = list(range(0, len(whole) - 200, step))
    random.Random(4).shuffle(starts)
    for start in starts:
        _, _, data = ranged(archiver, bundle, f"bytes={start}-{min(start + step, len(whole) - 200) - 1}")
        assert data == whole[start : min(start + step, len(whole) - 200)]
    asked(source)
    _, _, data = ranged(archiver, bundle, "bytes=-90")
    assert data == whole[-90:]
    # Each range cut a block in two that no range saw whole.
    assert sum(length or 0 for _, length in asked(source)) <= BIG


def test_a_window_that_quotes_no_checksum_reads_nothing_else() -> None:
    source = Synthetic(BIG, 1, cut=300_000)
    bundle = bundle_of(source, Synthetic(BIG, 2, cut=300_000))
    ranged(Archiver(), bundle, "bytes=5000000-5999999")
    ((start, length),) = asked(source)
    assert start > 4_900_000
    assert (length or 0) <= 1_000_000


def test_nothing_learned_changes_length_bytes_or_validator() -> None:
    def made() -> Bundle:
        return bundle_of(*(Synthetic(size, n, cut=99_999) for n, size in enumerate((0, 5, 65_536, 65_537, 5_000_000))))

    warm, bundle = Archiver(), made()
    first = read(warm, bundle)
    for archiver in (warm, Archiver()):
        reply = archiver.respond(bundle, Conditions("HEAD"))
        reply.body.close()
        assert reply.header("Accept-Ranges") == "bytes"
        assert reply.header("Content-Length") == str(len(first))
        assert read(archiver, bundle) == first
    tags = {a.respond(bundle, Conditions("HEAD")).header("ETag") for a in (warm, Archiver())}
    assert len(tags) == 1


def test_what_passes_outweighs_what_the_ledger_says() -> None:
    archiver = Archiver()
    sources = [Synthetic(BIG, 1, cut=300_000), Synthetic(3000, 2)]
    bundle = bundle_of(*sources)
    whole = read(archiver, bundle)
    ledger = archiver.ledger
    lies: list[bytes] = []
    honest = ledger.learn

    def lie(version: bytes, block: int, crc: int, length: int = BLOCK_BYTES) -> None:
        lies.append(version)
        honest(version, block, crc ^ 1)

    ledger.learn = lie  # type: ignore[method-assign]
    read(archiver, bundle)
    del ledger.learn  # type: ignore[method-assign]
    assert ledger.sums(lies[:1])[lies[0]][0] != zlib.crc32(content(BIG, 1)[:BLOCK_BYTES])
    assert read(archiver, bundle) == whole
    assert ledger.sums(lies[:1])[lies[0]][0] == zlib.crc32(content(BIG, 1)[:BLOCK_BYTES])


def test_a_source_without_a_name_is_read_again_and_never_remembered() -> None:
    source = Synthetic(BIG, 1, cut=300_000, unnamed=True)
    archiver, bundle = Archiver(), bundle_of(source)
    whole = read(archiver, bundle)
    asked(source)
    _, _, data = ranged(archiver, bundle, "bytes=-90")
    assert data == whole[-90:]
    assert asked(source) == [(0, BIG)]


# --- compressed members ---


class Text(Synthetic):
    """Content that shrinks."""

    def _pieces(self, start: int, stop: int):  # type: ignore[no-untyped-def]
        line = b"%08d the quick brown fox\n" % self.seed
        whole = line * (self.size // len(line) + 1)
        for at in range(start, stop, self.cut):
            yield whole[at : min(at + self.cut, stop)]


@pytest.mark.parametrize("compress", ["deflate", "auto"])
def test_the_second_download_of_a_compressed_bundle_is_measured_and_resumable(compress: str) -> None:
    archiver = Archiver()
    sources = [Text(2_000_000, 1), Synthetic(900_000, 2, cut=77_777), Text(3_000_000, 3)]
    bundle = bundle_of(*sources, compress=compress)
    first = archiver.respond(bundle)
    assert first.header("Content-Length") is None
    assert first.header("Accept-Ranges") is None
    tag = first.header("ETag")
    assert tag is not None
    assert not tag.startswith("W/")
    whole = b"".join(first.body)
    first.body.close()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
    second = archiver.respond(bundle)
    assert second.header("Content-Length") == str(len(whole))
    assert second.header("Accept-Ranges") == "bytes"
    assert second.header("ETag") == tag
    assert b"".join(second.body) == whole
    second.body.close()
    for source in sources:
        asked(source)
    at = whole.index(b"2.bin") + 1000  # inside the last member
    for start, stop in ((at, at + 500), (at, len(whole)), (40, 90_000), (len(whole) - 300, len(whole))):
        status, _, data = ranged(archiver, bundle, f"bytes={start}-{stop - 1}")
        assert (status, data) == (206, whole[start:stop])
        if start == at:
            assert [bool(asked(source)) for source in sources] == [False, False, True]


def test_a_wrong_compressed_size_breaks_visibly_and_is_put_right() -> None:
    archiver = Archiver()
    bundle = bundle_of(Text(2_000_000, 1), compress="deflate")
    whole = read(archiver, bundle)
    ledger = archiver.ledger
    honest = ledger.learn_coded
    ledger.learn_coded = lambda key, length: honest(key, length + 7)  # type: ignore[method-assign]
    read(archiver, bundle)
    del ledger.learn_coded  # type: ignore[method-assign]
    with pytest.raises(StreamwareError):
        read(archiver, bundle)
    assert read(archiver, bundle) == whole
