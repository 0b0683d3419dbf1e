"""Local files that are not what they seem, or do not stay what they were: through ``streamware serve`` to curl."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.curl import Running, bundle
from tests.hosts.serve_process import Served
from tests.hosts.servers import until

MIB = 1 << 20
LARGE = 24 * MIB  # more than the buffers between a server and curl hold
RATE = 40 * MIB

pytestmark = pytest.mark.judge("curl")


class Site(NamedTuple):
    """A folder below the root of a server, of one test."""

    folder: Path
    bundle: str

    def asked(self, *names: str, form: str = "zip") -> str:
        paths = "&".join(f"path=/tree/{self.folder.name}/{name}" for name in names)
        return f"{self.bundle}?{paths}&name=b.{form}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Served]]:
    place = tmp_path_factory.mktemp("place")
    for name in ("root", "outside"):
        (place / name).mkdir()
    (place / "outside" / "file").write_bytes(b"SECRET")
    with Served(place / "root") as server:
        yield place / "root", server
    shutil.rmtree(place)


@pytest.fixture
def site(served: tuple[Path, Served]) -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(dir=served[0]))
    (folder / "file").write_bytes(b"inside")
    yield Site(folder, f"{served[1].url}/bundle")
    shutil.rmtree(folder)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a link that leads out": lambda path: path.symlink_to("../../outside/file"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a folder outside": lambda path: path.symlink_to("../../outside"),
    "a fifo": os.mkfifo,
    "a socket": make_socket,
    "a device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    "nothing": lambda path: None,
}


@pytest.mark.case(22)
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_refused_and_nobody_waits_for_it(kind: str, site: Site, tmp_path: Path) -> None:
    try:
        SPECIAL[kind](site.folder / "odd")
    except PermissionError:
        pytest.skip("only the superuser makes devices")
    began = time.monotonic()
    got = bundle(site.asked("file", "odd"), tmp_path / "b.zip")
    assert got.refused, got
    assert got.status in (400, 403, 404)
    assert time.monotonic() - began < 5
    assert b"SECRET" not in got.body
    assert str(site.folder).encode() not in got.body


@pytest.mark.case(21)
@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_nobody_may_read(site: Site, tmp_path: Path) -> None:
    (site.folder / "odd").write_bytes(b"x")
    (site.folder / "odd").chmod(0)
    got = bundle(site.asked("odd"), tmp_path / "b.zip")
    assert got.refused, got
    assert str(site.folder).encode() not in got.body


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
    change: Callable[[Path], None], form: str, site: Site, tmp_path: Path
) -> None:
    for name in ("first", "last"):
        (site.folder / name).write_bytes(b"0" * LARGE)
    download = Running(site.asked("first", "last", form=form), tmp_path / "b", rate=RATE)
    until(lambda: download.size() > MIB, 20)
    change(site.folder / "last")
    got = download.wait()
    assert got.broken, got
    assert LARGE < len(got.body) < 2 * LARGE
    tail = got.body[LARGE:]
    assert b"PK\1\2" not in tail
    assert b"PK\5\6" not in tail
    assert not got.body.endswith(bytes(1024))
