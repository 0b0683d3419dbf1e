"""Local files that are not what they seem, or do not stay what they were: through ``streamware serve`` to curl."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.curl import Running, bundle
from tests.hosts.serve_process import Served
from tests.hosts.servers import until

MIB = 1 << 20
LARGE = 24 * MIB  # more than the buffers between a server and curl hold
RATE = 40 * MIB

pytestmark = pytest.mark.judge("curl")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file").write_bytes(b"inside" if folder == inside else b"SECRET")
    return inside


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    with Served(root) as served:
        yield served


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a link that leads out": lambda path: path.symlink_to("../outside/file"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a folder outside": lambda path: path.symlink_to("../outside"),
    "a fifo": os.mkfifo,
    "a socket": make_socket,
    "a device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    "nothing": lambda path: None,
}


@pytest.mark.case(22)
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_refused_and_nobody_waits_for_it(
    kind: str, root: Path, served: Served, tmp_path: Path
) -> None:
    try:
        SPECIAL[kind](root / "odd")
    except PermissionError:
        pytest.skip("only the superuser makes devices")
    began = time.monotonic()
    got = bundle(f"{served.url}/bundle?path=/tree/file&path=/tree/odd&name=b.zip", tmp_path / "b.zip")
    assert got.refused, got
    assert got.status in (400, 403, 404)
    assert time.monotonic() - began < 5
    assert b"SECRET" not in got.body
    assert str(tmp_path).encode() not in got.body


@pytest.mark.case(21)
@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_nobody_may_read(root: Path, served: Served, tmp_path: Path) -> None:
    (root / "odd").write_bytes(b"x")
    (root / "odd").chmod(0)
    got = bundle(f"{served.url}/bundle?path=/tree/odd&name=b.zip", tmp_path / "b.zip")
    assert got.refused, got
    assert str(tmp_path).encode() not in got.body


def shrink(path: Path) -> None:
    os.truncate(path, LARGE // 2)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"n" * LARGE)
    path.with_name("new").rename(path)


@pytest.mark.case(21, 26)
@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize("change", [Path.unlink, shrink, grow, rewrite, replace])
def test_a_last_file_that_changes_while_the_first_is_sent(
    change: Callable[[Path], None], form: str, root: Path, served: Served, tmp_path: Path
) -> None:
    for name in ("first", "last"):
        (root / name).write_bytes(b"0" * LARGE)
    url = f"{served.url}/bundle?path=/tree/first&path=/tree/last&name=b.{form}"
    download = Running(url, tmp_path / "b", rate=RATE)
    until(lambda: download.size() > MIB, 20)
    change(root / "last")
    got = download.wait()
    assert got.broken, got
    assert LARGE < len(got.body) < 2 * LARGE
    tail = got.body[LARGE:]
    assert b"PK\1\2" not in tail
    assert b"PK\5\6" not in tail
    assert not got.body.endswith(bytes(1024))
