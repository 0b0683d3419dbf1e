"""Archives past the limits of the old formats - 65,535 members, 4 GiB, 8 GiB - and archives that were cut off.

The rule of this file: nothing large lies on the disk; zeros are written as holes, or only pass through a pipe.
"""

from __future__ import annotations

import hashlib
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from streamware import Archiver, Bundle
from streamware.errors import SourceError
from tests.conftest import judge
from tests.interop.conftest import Make, pieces_of
from tests.interop.kinds import WHEN, noise
from tests.interop.readers import READERS, Pieces, java_file, java_pipe, python_zip, run, succeed

GIB = 1 << 30
BIG = 4 * GIB + 1000
ZEROS = bytes(1 << 20)


def zeros(size: int) -> Iterator[bytes]:
    for _ in range(size // len(ZEROS)):
        yield ZEROS
    yield ZEROS[: size % len(ZEROS)]


def zeros_crc32(size: int) -> int:
    crc = 0
    for piece in zeros(size):
        crc = zlib.crc32(piece, crc)
    return crc


def sparse(pieces: Iterable[bytes], path: Path) -> Path:
    """Write pieces to a file, blocks of zeros as holes."""
    succeed([judge("dd"), f"of={path}", "bs=4096", "iflag=fullblock", "conv=sparse", "status=none"], pieces)
    return path


# --- 70,000 members ----------------------------------------------------------------------------------------------


def test_python_reads_70_000_members(make: Make, tmp_path: Path) -> None:
    path, shelf = make("many")
    found = python_zip(path, tmp_path)
    assert {n: f.sha256 for n, f in found.items()} == {n: e.sha256 for n, e in shelf.expected.items()}


def test_java_reads_70_000_members(make: Make, archiver: Archiver, tmp_path: Path) -> None:
    path, shelf = make("many")
    wanted = {n: (e.sha256, e.modified) for n, e in shelf.expected.items()}
    assert {n: (f.sha256, f.modified) for n, f in java_file(path, tmp_path).items()} == wanted
    found = java_pipe(pieces_of(archiver, shelf.bundle), tmp_path)
    assert {n: (f.sha256, f.modified) for n, f in found.items()} == wanted


def test_unzip_and_7z_test_70_000_members(make: Make) -> None:
    path, _ = make("many")
    assert b"70000 files" in succeed([judge("unzip"), "-Zt", str(path)])
    succeed([judge("unzip"), "-tqq", str(path)])
    assert b"Files: 70000\n" in succeed([judge("7z"), "t", "-bd", str(path)])


def test_bsdtar_lists_70_000_members(make: Make, archiver: Archiver) -> None:
    path, shelf = make("many")
    names = "".join(f"{name}\n" for name in shelf.expected).encode()
    assert succeed([judge("bsdtar"), "-tf", str(path)]) == names
    assert succeed([judge("bsdtar"), "-tf", "-"], pieces_of(archiver, shelf.bundle)) == names


# --- 4 GiB and more ----------------------------------------------------------------------------------------------


def large(*, crc: bool) -> Bundle:
    """A member past 4 GiB, and small ones behind it whose offsets are past 4 GiB too."""
    bundle = Bundle("large.zip")
    crc32 = zeros_crc32(BIG) if crc else None
    bundle.add_stream("zeros.bin", lambda: zeros(BIG), BIG, crc32=crc32, modified=WHEN)
    bundle.add_stream("framed.bin", lambda: [noise(70_000)], 70_000, modified=WHEN)
    bundle.add_data("tail.txt", b"behind it all", modified=WHEN)
    return bundle


def check_tail(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert [i.file_size for i in archive.infolist()] == [BIG, 70_000, 13]
        assert archive.getinfo("tail.txt").header_offset > 4 * GIB
        assert archive.read("tail.txt") == b"behind it all"
        assert archive.read("framed.bin") == noise(70_000)


def test_a_member_past_4_gib(archiver: Archiver, tmp_path: Path) -> None:
    path = sparse(pieces_of(archiver, large(crc=True)), tmp_path / "large.zip")
    check_tail(path)
    assert succeed([judge("unzip"), "-p", str(path), "tail.txt"]) == b"behind it all"
    assert succeed([judge("7z"), "x", "-so", str(path), "tail.txt"]) == b"behind it all"
    listing = succeed([judge("bsdtar"), "-tvf", str(path)])
    assert f" {BIG} ".encode() in listing
    assert b"tail.txt" in listing


@pytest.mark.soak
@pytest.mark.parametrize("crc", [True, False], ids=["stored", "framed"])
def test_every_reader_takes_a_member_past_4_gib(crc: bool, archiver: Archiver, tmp_path: Path) -> None:
    path = sparse(pieces_of(archiver, large(crc=crc)), tmp_path / "large.zip")
    check_tail(path)
    succeed([judge("unzip"), "-tqq", str(path)])
    succeed([judge("7z"), "t", "-bd", str(path)])
    succeed([judge("bsdtar"), "-xf", str(path), "-O"], discard=True)
    for found in (java_file(path, tmp_path), java_pipe(pieces_of(archiver, large(crc=crc)), tmp_path)):
        assert [f.size for f in found.values()] == [BIG, 70_000, 13]
        assert found["tail.txt"].sha256 == hashlib.sha256(b"behind it all").hexdigest()
    listing = succeed([judge("bsdtar"), "-tvf", "-"], pieces_of(archiver, large(crc=crc)))
    assert b"tail.txt" in listing


@pytest.mark.soak
def test_offsets_past_4_gib_without_a_large_member(archiver: Archiver, tmp_path: Path) -> None:
    bundle = Bundle("offsets.zip")
    crc32 = zeros_crc32(GIB)
    for number in range(5):
        bundle.add_stream(f"{number}.bin", lambda: zeros(GIB), GIB, crc32=crc32)
    path = sparse(pieces_of(archiver, bundle), tmp_path / "offsets.zip")
    succeed([judge("unzip"), "-tqq", str(path)])
    succeed([judge("7z"), "t", "-bd", str(path)])
    assert [f.size for f in java_file(path, tmp_path).values()] == [GIB] * 5
    assert [f.size for f in java_pipe(pieces_of(archiver, bundle), tmp_path).values()] == [GIB] * 5


@pytest.mark.soak
def test_a_member_of_unknown_size_may_pass_4_gib_when_announced(archiver: Archiver, tmp_path: Path) -> None:
    bundle = Bundle("announced.zip")
    bundle.add_stream("zeros.bin", lambda: zeros(BIG), may_exceed_4gib=True)
    bundle.add_data("tail.txt", b"behind it all")
    path = sparse(pieces_of(archiver, bundle), tmp_path / "announced.zip")
    succeed([judge("unzip"), "-tqq", str(path)])
    succeed([judge("7z"), "t", "-bd", str(path)])
    assert [f.size for f in java_file(path, tmp_path).values()] == [BIG, 13]
    assert [f.size for f in java_pipe(pieces_of(archiver, bundle), tmp_path).values()] == [BIG, 13]


# --- TAR, 8 GiB and more -----------------------------------------------------------------------------------------


def huge_tar() -> Bundle:
    bundle = Bundle("huge.tar")
    bundle.add_stream("huge.bin", lambda: zeros(9 * GIB), 9 * GIB, modified=WHEN)
    bundle.add_data("tail.txt", b"behind it all", modified=WHEN)
    return bundle


def test_the_header_of_a_tar_member_past_8_gib(archiver: Archiver) -> None:
    body = archiver.open(huge_tar())
    try:
        assert body.length is not None
        assert body.length > 9 * GIB
        head = b"".join(islice(body, 4))
    finally:
        body.close()
    with tarfile.open(fileobj=Pieces([head]), mode="r|") as archive:
        info = archive.next()
        assert info is not None
        assert info.size == 9 * GIB
        assert info.pax_headers["size"] == str(9 * GIB)
    # The ustar field says it too, in base-256: readers that overlook the pax record (busybox 1.35) go by this one.
    start = head.index(b"huge.bin", 1024)
    assert head[start + 124] == 0x80
    assert struct.unpack(">Q", head[start + 128 : start + 136]) == (9 * GIB,)
    _, listing, _ = run([judge("tar"), "-tvf", "-"], [head])
    assert f" {9 * GIB} ".encode() in listing


@pytest.mark.soak
@pytest.mark.parametrize("reader", ["tar", "bsdtar"])
def test_a_tar_member_past_8_gib(reader: str, archiver: Archiver) -> None:
    listing = succeed([judge(reader), "-tvf", "-"], pieces_of(archiver, huge_tar()))
    assert f" {9 * GIB} ".encode() in listing
    assert b"tail.txt" in listing


# --- cut off -----------------------------------------------------------------------------------------------------


class Gone(Exception):
    """What the broken member raises."""


def broken(data: bytes, after: int) -> Iterator[bytes]:
    yield from (data[:after],) if after else ()
    raise Gone


FAILING = {  # what the failing member declares of itself
    "zip-stored": ("cut.zip", {"size": 200_000, "crc32": zlib.crc32(noise(200_000))}),
    "zip-framed": ("cut.zip", {"size": 200_000}),
    "zip-inline": ("cut.zip", {"size": 40_000}),
    "zip-unsized": ("cut.zip", {}),
    "tar": ("cut.tar", {"size": 200_000}),
    "tar.gz": ("cut.tar.gz", {"size": 200_000}),
    "tar.zst": ("cut.tar.zst", {"size": 200_000}),
}
CUTS = [
    pytest.param(kind, after, name, id=f"{kind}-after-{after}-{name}")
    for kind in FAILING
    for after in (0, 30_000)
    for name, reader in READERS.items()
    if FAILING[kind][0][4:] in reader.formats
]


@pytest.mark.parametrize(("kind", "after", "name"), CUTS)
def test_a_reader_notices_a_download_that_broke(
    kind: str, after: int, name: str, archiver: Archiver, tmp_path: Path
) -> None:
    archive, facts = FAILING[kind]
    bundle = Bundle(archive)
    # Enough that a compressor cannot hold all of it back: bsdtar 3.6.2 takes no bytes at all for an empty archive.
    bundle.add_data("whole.bin", noise(400_000))
    bundle.add_stream("broken.bin", lambda: broken(noise(200_000), after), **facts)  # type: ignore[arg-type]
    bundle.add_data("never.txt", b"never reached")
    came = []
    body = archiver.open(bundle)
    try:
        with pytest.raises(SourceError) as raised:
            came.extend(body)
    finally:
        body.close()
    assert isinstance(raised.value.__cause__, Gone)
    path = tmp_path / archive
    path.write_bytes(b"".join(came))
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises((AssertionError, tarfile.ReadError, zipfile.BadZipFile, EOFError, OSError)):
        READERS[name].read([path.read_bytes()] if READERS[name].piped else path, folder)
