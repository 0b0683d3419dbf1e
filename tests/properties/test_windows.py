"""What must hold for every bundle: the promised length is what comes, and a window is a slice of the whole."""

from __future__ import annotations

import io
import os
import random
import tarfile
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamware import Archiver, Bundle, Member
from tests.synthetic import RangeFile, Synthetic, content, ranged, read

_SOAK = os.environ.get("STREAMWARE_SOAK") == "1"
_EDGES = (0, 1, 511, 512, 513, 65535, 65536, 65537, 2 * 65535 - 1, 2 * 65535, 2 * 65535 + 1, 3 * 65535 + 7, 262144)

_SIZES = st.one_of(st.sampled_from(_EDGES), st.integers(0, 3000))
_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12) | st.sampled_from(
    ("a.txt", "a.txt", "dir/b.bin", "dir/", "d" * 150 + "/" + "e" * 90, "日本語.txt", "../up", "A.TXT")
)


@st.composite
def members(draw: st.DrawFn) -> Member:
    name = draw(_NAMES)
    modified = draw(st.none() | st.integers(-(2**33), 2**34))
    mode = draw(st.none() | st.integers(0, 0o777))
    if draw(st.integers(0, 9)) == 0:
        return Member(name.rstrip("/") + "/", None, modified=modified, mode=mode)
    source = Synthetic(
        draw(_SIZES),
        draw(st.integers(0, 50)),
        cut=draw(st.sampled_from((1000, 4096, 65535, 65536, 300_000))),
        crc_known=draw(st.booleans()),
        instant=draw(st.booleans()),
    )
    return Member(
        name.rstrip("/") or "x", source, modified=modified, mode=mode, comment=draw(st.sampled_from(("", "é")))
    )


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    form = draw(st.sampled_from(("zip", "zip", "tar")))
    bundle = Bundle("b", form, comment=draw(st.none() | st.just("a comment")), timestamps=draw(st.booleans()))
    bundle.members = draw(st.lists(members(), min_size=1, max_size=6))
    return bundle


@settings(
    max_examples=6000 if _SOAK else 700,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(bundles(), st.randoms(use_true_random=False))
def test_every_window_is_a_slice_of_the_whole(bundle: Bundle, rng: random.Random) -> None:
    archiver = Archiver()
    whole = read(archiver, bundle)
    for _ in range(6):
        start = rng.randrange(len(whole))
        stop = min(len(whole), start + rng.choice((1, 2, 30, 1000, 70_000, len(whole))))
        status, headers, data = ranged(archiver, bundle, f"bytes={start}-{stop - 1}")
        assert status == 206
        assert headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
        assert data == whole[start:stop]
    assert all(m.content is None or m.content.live == 0 for m in bundle.members)
    if bundle.format == "zip":
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            assert archive.testzip() is None
    else:
        with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
            assert sum(m.size for m in archive) == sum(m.content.size for m in bundle.members if m.content)
        assert len(whole) % 10240 == 0


@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize("count", [1, 65_534, 65_535, 65_536, 65_537])
def test_the_number_of_members_may_pass_every_limit(form: str, count: int) -> None:
    bundle = Bundle(f"many.{form}")
    for number in range(count):
        bundle.add_data(f"{number % 100}/{number}", b"x" if number % 1000 == 0 else b"")
    archiver = Archiver()
    whole = read(archiver, bundle)
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            assert len(archive.infolist()) == count
            last = archive.infolist()[-1].filename
    else:
        with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
            infos = archive.getmembers()
            assert len(infos) == count
            last = infos[-1].name
    assert last == f"{(count - 1) % 100}/{count - 1}"
    for start in (0, len(whole) // 3, len(whole) - 22):
        _, _, data = ranged(archiver, bundle, f"bytes={start}-{start + 99}")
        assert data == whole[start : start + 100]


def test_no_member_at_all_is_refused() -> None:
    reply = Archiver().respond(Bundle("none.zip"))
    assert reply.status == 400
    reply.body.close()


@pytest.mark.parametrize("crc_known", [True, False], ids=["crc", "no-crc"])
@pytest.mark.parametrize("size", [2**32 - 2, 2**32 - 1, 2**32, 2**32 + 1])
def test_a_zip_member_around_4_gib_reads_back_by_ranges(size: int, crc_known: bool) -> None:
    if not crc_known and size != 2**32 and not _SOAK:
        size = 2**32 - 1  # each such archive is read several times over for its checksum
    bundle = Bundle("large.zip")
    bundle.add(Member("first.txt", Synthetic(1000, 3)))
    bundle.add(Member("large.bin", Synthetic(size, cut=1 << 20, zeros=True, crc_known=crc_known)))
    bundle.add(Member("last.txt", Synthetic(70_000, 4, crc_known=True)))
    archive = RangeFile(Archiver(), bundle)
    with zipfile.ZipFile(io.BufferedReader(archive)) as reader:
        infos = reader.infolist()
        assert [i.file_size for i in infos] == [1000, size, 70_000]
        assert reader.read("first.txt") == content(1000, 3)
        assert reader.read("last.txt") == content(70_000, 4)
        with reader.open("large.bin") as member:
            assert member.read(100_000) == bytes(100_000)


@pytest.mark.parametrize("size", [8 * 2**30 - 1, 8 * 2**30, 2**40])
def test_a_tar_member_around_8_gib_reads_back_by_ranges(size: int) -> None:
    bundle = Bundle("large.tar")
    bundle.add(Member("first.txt", Synthetic(1000, 3)))
    bundle.add(Member("large.bin", Synthetic(size, cut=1 << 20, zeros=True)))
    bundle.add(Member("last.txt", Synthetic(70_000, 4)))
    with tarfile.open(fileobj=RangeFile(Archiver(), bundle), bufsize=512) as reader:
        assert [m.size for m in reader.getmembers()] == [1000, size, 70_000]
        last = reader.extractfile("last.txt")
        assert last is not None
        assert last.read() == content(70_000, 4)


def test_a_hundred_members_beyond_4_gib_have_their_offsets_in_zip64() -> None:
    bundle = Bundle("far.zip")
    for number in range(100):
        bundle.add(
            Member(
                f"{number}.bin",
                Synthetic(50_000_000, number, cut=1 << 20, crc_known=number > 97, zeros=True),
                crc32=None if number > 97 else 0,
            )
        )
    archive = RangeFile(Archiver(), bundle)
    with zipfile.ZipFile(io.BufferedReader(archive)) as reader:
        assert reader.infolist()[-1].header_offset > 2**32
        with reader.open("99.bin") as member:
            assert member.read(1000) == bytes(1000)
