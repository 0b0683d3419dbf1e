"""Other people's programs, each as one function from an archive to what it found there.

The rule of this file: a reader must end with success, print nothing on its error output, and be shown the archive
either as a file or through a pipe that cannot seek. What a reader cannot tell stands beside it, with its version.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import subprocess
import tarfile
import tempfile
import threading
import zipfile
from calendar import timegm
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

from tests.conftest import judge

__all__ = ["READERS", "Found", "Pieces", "Reader", "run", "succeed"]

TIMEOUT_SECONDS = 240
ENVIRONMENT = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Found:
    """One member as a reader saw it. ``sha256`` is None for a directory; a None elsewhere: the reader does not tell."""

    size: int
    sha256: str | None
    modified: int | None = None
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """``read(archive, folder)``: ``archive`` is a path, or pieces for a reader that is ``piped``; ``folder`` is empty.

    ``even`` readers look at the two-second times only; ``modes`` says whether permission bits come out at all.
    """

    read: Callable[..., dict[str, Found]]
    formats: tuple[str, ...]
    piped: bool = False
    even: bool = False
    modes: bool = True


def run(
    argv: list[str], pieces: Iterable[bytes] | None = None, *, zone: str = "UTC", discard: bool = False
) -> tuple[int, bytes, bytes]:
    """Run a program, with ``pieces`` fed to it through a pipe: exit status, output unless discarded, error output."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            argv,
            env={**ENVIRONMENT, "TZ": zone},
            stdin=subprocess.PIPE if pieces is not None else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if discard else out,
            stderr=err,
            umask=0o022,
        )
        watchdog = threading.Timer(TIMEOUT_SECONDS, process.kill)
        watchdog.start()
        try:
            if pieces is not None:
                assert process.stdin is not None
                # A reader that has seen the end may leave; whether it was right to is for its verdict to say.
                with suppress(BrokenPipeError):
                    for piece in pieces:
                        process.stdin.write(piece)
                with suppress(BrokenPipeError):
                    process.stdin.close()
            process.wait(TIMEOUT_SECONDS)
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.close()
        out.seek(0)
        err.seek(0)
        return process.returncode, out.read(), err.read()


def succeed(
    argv: list[str], pieces: Iterable[bytes] | None = None, *, zone: str = "UTC", discard: bool = False
) -> bytes:
    """Run a program that must succeed without a word on its error output; what it printed."""
    status, out, err = run(argv, pieces, zone=zone, discard=discard)
    assert (status, err) == (0, b""), f"{argv[0]} ended with {status}: {err[:2000]!r} {out[-2000:]!r}"
    return out


class Pieces(RawIOBase):
    """Pieces as a file that cannot seek."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def walk(folder: Path) -> dict[str, Found]:
    """What an extracting program left on disk. Folders that only hold other members are no members themselves."""
    return dict(_walk(folder, folder))


def _walk(folder: Path, root: Path) -> Iterator[tuple[str, Found]]:
    for path in sorted(folder.iterdir()):
        facts = path.lstat()
        name = path.relative_to(root).as_posix()
        when, mode = int(facts.st_mtime // 1), stat.S_IMODE(facts.st_mode)
        if stat.S_ISDIR(facts.st_mode):
            yield f"{name}/", Found(0, None, when, mode)
            yield from _walk(path, root)
        else:
            assert stat.S_ISREG(facts.st_mode), f"{name} is no regular file"
            yield name, Found(facts.st_size, digest(path), when, mode)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        state = hashlib.sha256()
        for piece in iter(functools.partial(file.read, 1 << 20), b""):
            state.update(piece)
    return state.hexdigest()


def unzip(archive: Path, folder: Path, zone: str = "UTC") -> dict[str, Found]:
    program = judge("unzip")
    succeed([program, "-tqq", str(archive)])
    succeed([program, "-qq", str(archive), "-d", str(folder)], zone=zone)
    return walk(folder)


def seven_zip(archive: Path, folder: Path, zone: str = "UTC") -> dict[str, Found]:
    succeed([judge("7z"), "x", "-y", "-bd", f"-o{folder}", str(archive)], zone=zone)
    return walk(folder)


def bsdtar(archive: Path, folder: Path, zone: str = "UTC") -> dict[str, Found]:
    succeed([judge("bsdtar"), "-xpf", str(archive), "-C", str(folder), "--no-same-owner"], zone=zone)
    return walk(folder)


def bsdtar_pipe(pieces: Iterable[bytes], folder: Path) -> dict[str, Found]:
    succeed([judge("bsdtar"), "-xpf", "-", "-C", str(folder), "--no-same-owner"], pieces)
    return walk(folder)


def gnu_tar(archive: Path, folder: Path) -> dict[str, Found]:
    succeed([judge("tar"), "-xpf", str(archive), "-C", str(folder), "--no-same-owner"])
    return walk(folder)


def gnu_tar_pipe(pieces: Iterable[bytes], folder: Path, *options: str) -> dict[str, Found]:
    succeed([judge("tar"), *options, "-xpf", "-", "-C", str(folder), "--no-same-owner"], pieces)
    return walk(folder)


def gzip_tar_pipe(pieces: Iterable[bytes], folder: Path) -> dict[str, Found]:
    judge("gzip")
    return gnu_tar_pipe(pieces, folder, "--gzip")


def zstd_tar_pipe(pieces: Iterable[bytes], folder: Path) -> dict[str, Found]:
    judge("zstd")
    return gnu_tar_pipe(pieces, folder, "--zstd")


def zstd_then_python(archive: Path, folder: Path) -> dict[str, Found]:
    plain = folder / "plain.tar"
    succeed([judge("zstd"), "-q", "-d", str(archive), "-o", str(plain)])
    return python_tar(plain, folder)


def python_zip(archive: Path, folder: Path) -> dict[str, Found]:
    found = {}
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            data = opened.read(info)  # checks the CRC-32
            assert len(data) == info.file_size
            kind = stat.S_IFMT(info.external_attr >> 16)
            assert kind == (stat.S_IFDIR if info.is_dir() else stat.S_IFREG), oct(kind)
            assert info.filename not in found, f"twice: {info.filename}"
            found[info.filename] = Found(
                len(data),
                None if info.is_dir() else hashlib.sha256(data).hexdigest(),
                timegm((*info.date_time, 0, 0, 0)),
                stat.S_IMODE(info.external_attr >> 16),
            )
    return found


def python_tar(archive: Path, folder: Path) -> dict[str, Found]:
    with tarfile.open(archive, "r") as opened:
        return _tar_members(opened)


def python_tar_pipe(pieces: Iterable[bytes], folder: Path) -> dict[str, Found]:
    with tarfile.open(fileobj=Pieces(pieces), mode="r|*") as opened:
        return _tar_members(opened)


def _tar_members(opened: tarfile.TarFile) -> dict[str, Found]:
    found = {}
    for info in opened:
        content = opened.extractfile(info)
        assert (content is None) == info.isdir()
        data = content.read() if content is not None else b""
        name = info.name + ("/" if info.isdir() else "")
        assert name not in found, f"twice: {name}"
        sha256 = None if info.isdir() else hashlib.sha256(data).hexdigest()
        found[name] = Found(len(data), sha256, int(info.mtime), info.mode)
    return found


@functools.cache
def _java() -> list[str]:
    """The command that runs Judge.java, compiled once a run; the classes go when the interpreter does."""
    folder = tempfile.TemporaryDirectory()
    java, javac = judge("java"), judge("javac")
    succeed([javac, "-d", folder.name, str(Path(__file__).with_name("Judge.java"))])
    _java_classes.append(folder)
    return [java, "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:+UseSerialGC", "-cp", folder.name, "Judge"]


_java_classes: list[tempfile.TemporaryDirectory[str]] = []


def _java_lines(out: bytes) -> dict[str, Found]:
    found = {}
    for line in out.decode().splitlines():
        name, size, sha256, when = line.split(" ")
        text = bytes.fromhex(name).decode()
        assert text not in found, f"twice: {text}"
        directory = size == "dir"
        found[text] = Found(0 if directory else int(size), None if directory else sha256, int(when))
    return found


def java_file(archive: Path, folder: Path, zone: str = "UTC") -> dict[str, Found]:
    return _java_lines(succeed([*_java(), "file", str(archive)], zone=zone))


def java_pipe(pieces: Iterable[bytes], folder: Path) -> dict[str, Found]:
    return _java_lines(succeed([*_java(), "stream"], pieces))


ZIP, TAR, GZ, ZST = ("zip",), ("tar",), ("tar.gz",), ("tar.zst",)
TARS = (*TAR, *GZ, *ZST)

READERS: Mapping[str, Reader] = {
    "unzip": Reader(unzip, ZIP),  # Info-ZIP 6.0-28 (Debian 12)
    "7z": Reader(seven_zip, ZIP),  # p7zip 16.02
    "bsdtar": Reader(bsdtar, (*ZIP, *TARS)),  # libarchive 3.6.2
    # A ZIP's modes stand in its central directory, which comes after the members have left the pipe.
    "bsdtar-pipe": Reader(bsdtar_pipe, ZIP, piped=True, modes=False),
    "bsdtar-pipe-tar": Reader(bsdtar_pipe, TARS, piped=True),
    "python": Reader(python_zip, ZIP, even=True),  # zipfile knows the two-second times only
    "java": Reader(java_file, ZIP, modes=False),  # java.util.zip.ZipFile, OpenJDK 17: has no notion of modes
    "java-pipe": Reader(java_pipe, ZIP, piped=True, modes=False),  # java.util.zip.ZipInputStream, OpenJDK 17
    "tar": Reader(gnu_tar, TARS),  # GNU tar 1.34
    "tar-pipe": Reader(gnu_tar_pipe, TAR, piped=True),
    "tar-pipe-gzip": Reader(gzip_tar_pipe, GZ, piped=True),
    "tar-pipe-zstd": Reader(zstd_tar_pipe, ZST, piped=True),
    "zstd": Reader(zstd_then_python, ZST),  # zstd 1.5.4
    "python-tar": Reader(python_tar, (*TAR, *GZ)),
    "python-tar-pipe": Reader(python_tar_pipe, (*TAR, *GZ), piped=True),
}
