"""Local files: what is served, what never is, and what becomes of a file that changes on the way."""

from __future__ import annotations

import inspect
import io
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamware import Archiver, Bundle, Conditions, Member, StreamwareError
from streamware.errors import (
    BodyClosed,
    InvalidName,
    MemberChanged,
    MemberError,
    MemberNotFound,
    SizeMismatch,
    SourceError,
)
from streamware.model import File, Tree
from streamware.sources import file
from streamware.sources.file import FileSource, expand_tree, open_below
from tests.synthetic import read

ROOT = Path(__file__).resolve().parents[2]
MTIME = 1_600_000_000


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """Every test gives back what it opened."""
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder to serve, beside one that is nobody's business."""
    inside, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (inside / "sub" / "deep", outside):
        folder.mkdir(parents=True)
    (inside / "a.txt").write_bytes(b"inside")
    (inside / "sub" / "b.txt").write_bytes(b"below")
    (outside / "secret.txt").write_bytes(b"SECRET")
    return inside


def got(path: str | Path, root: Path | None = None) -> bytes:
    chunks = FileSource(str(path), None if root is None else str(root)).open(0, None)
    try:
        return b"".join(chunks)
    finally:
        chunks.close()


# --- what may be opened ------------------------------------------------------------------------------------------


def test_what_is_known_of_a_file(root: Path) -> None:
    path = root / "a.txt"
    path.chmod(0o4750)
    os.utime(path, ns=(0, MTIME * 10**9 + 999_999_999))
    facts = FileSource(str(path)).probe()
    assert (facts.size, facts.modified, facts.mode, facts.crc32) == (6, MTIME, 0o750, None)
    assert facts.validator is not None
    assert facts.validator[0] == facts.validator[-1] == '"'
    assert FileSource("a.txt", str(root)).probe() == facts
    os.utime(path, ns=(0, MTIME * 10**9 + 999_999_998))
    assert FileSource(str(path)).probe().validator != facts.validator


@pytest.mark.parametrize("path", ["a.txt", "./a.txt", "sub/b.txt", "sub//./b.txt", "sub/deep/../../a.txt"])
def test_paths_below_the_root(root: Path, path: str) -> None:
    if ".." in path:  # even where it leads back in
        with pytest.raises(MemberNotFound):
            got(path, root)
    else:
        assert got(path, root) == (root / path).read_bytes()
    with open(root / path, "rb") as file:
        assert got(root / path) == file.read()  # without a root a path is the operator's own


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "sub", "..", "gone.txt", "gone/a.txt", "a.txt/x", "/etc/passwd", "../outside/secret.txt"),
        *("sub/../../outside/secret.txt", "x" * 300, "y/" * 3000, "a\0b", "\ud800"),
    ],
)
def test_what_is_not_there(root: Path, path: str) -> None:
    for ask in (FileSource.probe, lambda source: source.open(0, None)):
        with pytest.raises(MemberNotFound):
            ask(FileSource(path, str(root)))
    with pytest.raises(OSError if "\0" not in path and "\ud800" not in path else (OSError, ValueError)):
        os.close(open_below(str(root), f"{path}/gone"))


@pytest.mark.parametrize("path", ["gone", "a\0b", "\ud800", "x" * 300, "/", "/dev/null", "/dev/zero", "/dev/tty"])
def test_without_a_root_too_only_files_are_served(path: str) -> None:
    with pytest.raises(MemberNotFound):
        FileSource(path).probe()


@pytest.mark.case(22)
@pytest.mark.parametrize(
    ("link", "target", "ok"),
    [
        ("l", "a.txt", True),
        ("l", "./sub/../a.txt", True),
        ("l", "{root}/a.txt", True),
        ("sub/l", "../a.txt", True),
        ("l", "../outside/secret.txt", False),
        ("l", "{root}/../outside/secret.txt", False),
        ("l", "/etc/passwd", False),
        ("l", "gone", False),
        ("l", "l", False),
        ("l", "sub", False),
        ("l", "..", False),
        ("l", "{root}x/a.txt", False),  # another folder, whose name begins as the root's does
    ],
)
def test_links_lead_anywhere_below_the_root_and_nowhere_else(root: Path, link: str, target: str, ok: bool) -> None:
    beside = root.with_name("rootx")
    beside.mkdir()
    (beside / "a.txt").write_bytes(b"SECRET")
    (root / link).symlink_to(target.format(root=root))
    if ok:
        assert got(link, root) == b"inside"
    else:
        with pytest.raises(MemberNotFound):
            got(link, root)


@pytest.mark.parametrize("target", ["sub", "{root}/sub", "../outside", "/etc", "l", "gone", "a.txt"])
def test_links_in_the_middle_of_a_path(root: Path, target: str) -> None:
    (root.with_name("outside") / "b.txt").write_bytes(b"SECRET")
    (root / "l").symlink_to(target.format(root=root))
    if target.endswith("sub"):
        assert got("l/b.txt", root) == b"below"
    else:
        for path in ("l/b.txt", "l/passwd", "l/secret.txt"):
            with pytest.raises(MemberNotFound):
                got(path, root)


def test_two_links_in_a_ring(root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    for path in ("one", "one/a.txt"):
        with pytest.raises(MemberNotFound):
            got(path, root)
    with pytest.raises(MemberNotFound):
        got(root / "one")


def test_the_root_may_be_a_link_itself(root: Path) -> None:
    linked = root.with_name("linked")
    linked.symlink_to(root)
    (root / "l").symlink_to(linked / "sub" / "b.txt")
    assert got("a.txt", linked) == b"inside"
    assert got("l", linked) == b"below"
    with pytest.raises(MemberNotFound):
        got("a.txt", root.with_name("gone"))


@pytest.mark.case(22)
def test_nobody_waits_for_a_fifo_a_socket_or_a_device(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)  # a socket's address must be short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        answers: list[str] = []

        def ask() -> None:
            for path in ("fifo", "socket", "/dev/zero"):
                for source in (FileSource(str(root / path)), FileSource(path, str(root))):
                    for way in (source.probe, lambda source=source: source.open(0, None)):
                        try:
                            way()
                        except MemberNotFound:
                            answers.append(path)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
        assert len(answers) == 12


@pytest.mark.case(21)
def test_what_may_not_be_read(root: Path) -> None:
    """In a process of its own, for it has to be one that is not root's."""
    (root / "a.txt").chmod(0)
    (root / "sub").chmod(0)
    (root / "listed").mkdir()
    (root / "listed" / "c.txt").write_bytes(b"c")
    (root / "listed").chmod(0o444)  # may be listed, not entered
    (root / "to_b").symlink_to("sub/b.txt")
    (root / "open.txt").write_bytes(b"open")
    root.chmod(0o755)
    script = """
import os, sys
from streamware import Archiver, Bundle
from streamware.errors import MemberError
from streamware.model import Member, File, Tree
from streamware.sources import file
from streamware.sources.file import FileSource, expand_tree

def kind(call):
    try:
        call()
    except MemberError as error:
        return f"{type(error).__name__} {error.member}"
    return "nothing"

os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.seteuid(65534)
for root in (None, "."):
    for path in ("a.txt", "sub/b.txt", "to_b", "listed/c.txt"):
        print(path, kind(FileSource(path, root).probe))
print("tree", kind(lambda: list(expand_tree(Member("p", Tree(".")), Tree(".")))))
print("top", kind(lambda: list(expand_tree(Member("p", Tree("sub")), Tree("sub")))))
bundle = Bundle("b.zip", on_error="skip")
for name in ("open.txt", "a.txt"):
    bundle.add(Member(name, File(name, ".")))
body = Archiver().open(bundle)
data = b"".join(body)
body.close()
print("skipped", b"open.txt" in data, b"a.txt" in data)
bundle.on_error = "abort"
reply = Archiver().respond(bundle)
print("answered", reply.status, b"member-forbidden" in b"".join(reply.body))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    for path in (root / "sub", root / "listed"):
        path.chmod(0o755)
    forbidden = [f"{path} MemberForbidden None" for path in ("a.txt", "sub/b.txt", "to_b", "listed/c.txt")]
    assert done.stdout.splitlines() == [
        *forbidden,
        *forbidden,
        "tree MemberForbidden p/sub/",
        "top MemberForbidden p/",
        "skipped True False",
        "answered 403 True",
    ], done.stderr


# --- files that change -------------------------------------------------------------------------------------------


def test_a_window_of_a_file(root: Path) -> None:
    source = FileSource("a.txt", str(root), chunk_bytes=2)
    for start, length, expected in ((0, 6, b"inside"), (2, 3, b"sid"), (6, 0, b""), (4, None, b"de")):
        chunks = source.open(start, length)
        assert chunks.ready()
        pieces = list(chunks)
        assert b"".join(pieces) == expected
        assert all(len(piece) <= 2 for piece in pieces)
        assert list(chunks) == []
        chunks.close()
        chunks.close()
        with pytest.raises(BodyClosed):
            next(chunks)
    for start, length in ((0, 7), (7, 1), (5, 2)):
        with pytest.raises(SizeMismatch):
            source.open(start, length)
    source.close()


def test_a_range_that_is_read_at_once(root: Path) -> None:
    source = FileSource("a.txt", str(root))
    for start, length, expected in ((0, 6, b"inside"), (2, 3, b"sid"), (6, 0, b"")):
        assert source.read(start, length) == expected
    for start, length in ((0, 7), (7, 1), (5, 2)):
        with pytest.raises(SizeMismatch):
            source.read(start, length)


@pytest.mark.parametrize("many", [True, False])
def test_places_are_filled_to_the_last_byte_whatever_the_system_reads_at_once(
    root: Path, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_a_stingy_file_system(fd: int, places: list[memoryview], offset: int) -> int:
        return file._read_into_one(fd, [places[0][:5]], offset)

    if not many:
        monkeypatch.setattr(file, "_read_into", of_a_stingy_file_system)
    content = bytes(range(100))
    (root / "b.bin").write_bytes(content)
    chunks = FileSource("b.bin", str(root)).open(3, 90)
    target = bytearray(60)
    view = memoryview(target)
    chunks.fill([view[:7], view[7:8], view[8:40], view[40:]])  # type: ignore[attr-defined]
    assert target == content[3:63]
    os.truncate(root / "b.bin", 80)
    with pytest.raises(SizeMismatch):
        chunks.fill([memoryview(bytearray(25))])  # type: ignore[attr-defined]
    chunks.abort()
    with pytest.raises(BodyClosed):
        chunks.fill([view])  # type: ignore[attr-defined]
    chunks.close()


def test_abort_ends_the_reading(root: Path) -> None:
    chunks = FileSource("a.txt", str(root), chunk_bytes=2).open(0, None)
    next(chunks)
    chunks.abort()
    chunks.abort()
    with pytest.raises(BodyClosed):
        next(chunks)
    chunks.close()


def rewrite(path: Path) -> None:
    """The same size and, to the nanosecond, the same time; and yet another file."""
    found = path.stat()
    other = path.with_name("other")
    other.write_bytes(bytes(b ^ 1 for b in path.read_bytes()))
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(path)


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def grow(path: Path) -> None:
    found = path.stat()
    with path.open("ab") as file:
        file.write(b"more")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def shrink(path: Path) -> None:
    found = path.stat()
    os.truncate(path, found.st_size // 2)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_link(path: Path) -> None:
    outside = path.parent.with_name("outside") / "secret.txt"
    path.unlink()
    path.symlink_to(outside)


CHANGES = [
    (rewrite, MemberChanged),
    (touch, MemberChanged),
    (grow, MemberChanged),
    (shrink, MemberChanged),
    (Path.unlink, MemberNotFound),
    (to_folder, MemberNotFound),
    (to_link, MemberNotFound),
]


@pytest.mark.parametrize(("change", "error"), CHANGES)
def test_a_file_that_changed_since_it_was_looked_at(
    root: Path, change: Callable[[Path], None], error: type[MemberError]
) -> None:
    path = root / "a.txt"
    version = hash(FileSource("a.txt", str(root)).probe().validator)
    pinned = FileSource("a.txt", str(root), version=version)
    chunks = pinned.open(0, 6)
    assert b"".join(chunks) == b"inside"
    chunks.close()
    assert pinned.read(0, 6) == b"inside"
    change(path)
    with pytest.raises(error):
        pinned.open(0, 6)
    with pytest.raises(error):
        pinned.read(0, 6)


def two(root: Path, form: str = "zip", first: int = 600_000, size: int = 400_000, **options: str) -> Bundle:
    """A large file, and one that is opened while the first is under way."""
    (root / "first.bin").write_bytes(b"1" * first)
    (root / "later.bin").write_bytes(b"2" * size)
    bundle = Bundle(f"b.{form}", **options)  # type: ignore[arg-type]
    for name in ("first.bin", "later.bin"):
        bundle.add(Member(name, File(name, str(root))))
    bundle.add_data("last.txt", b"3")
    return bundle


def broken(body: Iterator[bytes]) -> tuple[bytes, StreamwareError]:
    pieces: list[bytes] = []
    with pytest.raises(StreamwareError) as caught:
        pieces.extend(body)
    body.close()  # type: ignore[attr-defined]
    return b"".join(pieces), caught.value


@pytest.mark.case(21)
@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize("size", [1000, 400_000])
@pytest.mark.parametrize(("change", "error"), CHANGES)
def test_a_download_breaks_inside_a_file_that_changed_before_its_turn(
    root: Path, change: Callable[[Path], None], error: type[MemberError], size: int, form: str
) -> None:
    body = Archiver().open(two(root, form, size=size))
    head = next(body)
    change(root / "later.bin")
    data, raised = broken(body)
    assert type(raised) is error
    assert raised.member == "later.bin"
    data = head + data
    assert b"later.bin" in data
    assert b"last.txt" not in data
    assert b"PK\1\2" not in data
    assert b"SECRET" not in data
    assert not data.endswith(bytes(1024))


@pytest.mark.case(21)
@pytest.mark.parametrize("change", [touch, grow, shrink])
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_download_breaks_inside_a_file_that_changes_while_it_is_read(
    root: Path, change: Callable[[Path], None], form: str
) -> None:
    bundle = two(root, form, first=3_000_000)
    body = Archiver().open(bundle)
    head = next(body)
    change(root / "first.bin")
    data, raised = broken(body)
    data = head + data
    assert isinstance(raised, MemberChanged | SizeMismatch)
    assert raised.member == "first.bin"
    assert b"later.bin" not in data
    assert len(data) < 3_000_000  # not even the content of that file is whole


def test_a_file_replaced_while_it_is_read_is_read_on(root: Path) -> None:
    body = Archiver().open(two(root, first=3_000_000))
    pieces = [next(body)]
    (root / "first.bin").unlink()  # the one that was opened is still there
    pieces.extend(body)
    body.close()
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert archive.read("first.bin") == b"1" * 3_000_000


def test_a_changed_file_is_another_archive(root: Path) -> None:
    bundle = two(root)

    def etag() -> str:
        reply = Archiver().respond(bundle, Conditions("HEAD"))
        reply.body.close()
        return reply.header("ETag") or ""

    tags = [etag()]
    for change in (rewrite, touch, grow, shrink):
        change(root / "later.bin")
        tags.append(etag())
    assert len(set(tags)) == 5
    assert etag() == tags[-1]
    part = Archiver().respond(bundle, Conditions(range="bytes=5-", if_range=tags[0]))
    part.body.close()
    assert part.status == 200
    part = Archiver().respond(bundle, Conditions(range="bytes=5-", if_range=tags[-1]))
    part.body.close()
    assert part.status == 206


def test_a_file_that_vanishes_is_left_out_where_no_length_was_promised(root: Path) -> None:
    bundle = two(root, compress="deflate", on_error="report")
    body = Archiver().open(bundle)
    (root / "later.bin").unlink()
    data = b"".join(body)
    body.close()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["first.bin", "last.txt", "_errors.txt"]
        assert b"later.bin" in archive.read("_errors.txt")


# --- trees -------------------------------------------------------------------------------------------------------


def names(top: Path | str, prefix: str = "") -> list[str]:
    return [member.name for member in expand_tree(Member(prefix, Tree(str(top))), Tree(str(top)))]


def test_a_tree_is_sorted_and_has_its_empty_folders(root: Path) -> None:
    (root / "sub" / "deep" / "z.txt").write_bytes(b"z")
    for folder in ("empty", "a", "nest/inner"):
        (root / folder).mkdir(parents=True)
    (root / "a" / "x").write_bytes(b"x")
    (root / "B").write_bytes(b"B")
    (root / "empty").chmod(0o2750)
    os.utime(root / "empty", (MTIME, MTIME))
    expected = ["B", "a/x", "a.txt", "empty/", "nest/inner/", "sub/b.txt", "sub/deep/z.txt"]
    assert names(root) == expected
    assert names(f"{root}/") == expected
    [empty] = [m for m in expand_tree(Member("", Tree(str(root))), Tree(str(root))) if m.name == "empty/"]
    assert (empty.content, empty.mode, empty.modified) == (None, 0o750, MTIME)
    with tarfile.open(fileobj=io.BytesIO(read(Archiver(), tree(root, "b.tar")))) as archive:
        assert [m.name + "/" * m.isdir() for m in archive] == expected
        assert archive.extractfile("sub/b.txt").read() == b"below"  # type: ignore[union-attr]


def tree(top: Path, name: str, prefix: str = "", **options: str) -> Bundle:
    bundle = Bundle(name, **options)  # type: ignore[arg-type]
    bundle.add_tree(top, prefix)
    return bundle


@pytest.mark.parametrize("prefix", ["p", "p/", "/p", "/p/", "p/q"])
def test_a_prefix_is_a_folder(root: Path, prefix: str) -> None:
    assert names(root, prefix) == [f"{prefix.strip('/')}/{name}" for name in names(root)]


@pytest.mark.parametrize("prefix", ["", "/", "//"])
def test_no_prefix_is_no_folder(root: Path, prefix: str) -> None:
    assert names(root, prefix) == ["a.txt", "sub/b.txt", "sub/deep/"]


def test_links_in_a_tree(root: Path) -> None:
    (root / "ring").symlink_to("ring")
    (root / "dangling").symlink_to("gone")
    (root / "out").symlink_to("../outside/secret.txt")
    (root / "out_folder").symlink_to("../outside")
    (root / "folder").symlink_to("sub")
    (root / "up").symlink_to(".")
    (root / "file").symlink_to("sub/b.txt")
    os.mkfifo(root / "fifo")
    (root / "only").mkdir()
    os.mkfifo(root / "only" / "fifo")
    assert names(root) == ["a.txt", "file", "only/", "sub/b.txt", "sub/deep/"]
    data = read(Archiver(), tree(root, "b.zip"))
    assert b"SECRET" not in data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read("file") == b"below"


@pytest.mark.parametrize("top", ["gone", "a.txt", "a.txt/x", "dangling"])
def test_a_tree_that_is_not_there(root: Path, top: str) -> None:
    (root / "dangling").symlink_to("gone")
    with pytest.raises(MemberNotFound):
        names(root / top)
    reply = Archiver().respond(tree(root / top, "b.zip"))
    reply.body.close()
    assert reply.status == 404


def test_a_tree_without_anything_is_no_archive(tmp_path: Path) -> None:
    assert names(tmp_path) == []
    reply = Archiver().respond(tree(tmp_path, "b.zip", "prefix"))
    reply.body.close()
    assert reply.status == 400


def test_a_tree_behind_a_link_is_the_operators_wish(root: Path) -> None:
    linked = root.with_name("linked")
    linked.symlink_to(root)
    assert names(linked) == names(root)
    assert len(read(Archiver(), tree(linked, "b.tar"))) == len(read(Archiver(), tree(root, "b.tar")))


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name, data in ((b"\xff.txt", b"one"), (b"\xfe.txt", b"two"), ("é.txt".encode(), b"three")):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    os.mkdir(os.path.join(folder, b"d\xff"))
    with open(os.path.join(folder, b"d\xff", b"x"), "wb") as file:
        file.write(b"four")
    with zipfile.ZipFile(io.BytesIO(read(Archiver(), tree(tmp_path, "b.zip")))) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == {"d_/x": b"four", "é.txt": b"three", "_.txt": b"two", "_ (1).txt": b"one"}
    with pytest.raises(InvalidName):
        read(Archiver(), tree(tmp_path, "b.zip", names="strict"))


def test_a_tree_may_be_deeper_than_the_stack(tmp_path: Path) -> None:
    (tmp_path / ("d/" * 300)).mkdir(parents=True)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)
    try:
        assert names(tmp_path) == ["d/" * 300]
    finally:
        sys.setrecursionlimit(limit)


# --- races -------------------------------------------------------------------------------------------------------


@contextmanager
def swapping(*steps: Callable[[], None]) -> Iterator[None]:
    """Do the steps over and over in another thread."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def swap() -> None:
        try:
            while not stop.is_set():
                for step in steps:
                    step()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=swap, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not failed, failed


def for_a_while(enough: Callable[[], bool], seconds: float = 0.6) -> Iterator[None]:
    """Again and again; longer on a busy machine, until it is enough."""
    began = time.monotonic()
    while time.monotonic() < began + (seconds if enough() else 10):
        yield


@pytest.mark.case(22)
@pytest.mark.parametrize("component", ["sub", "sub/b.txt"])
def test_a_component_that_is_swapped_for_a_link_never_leads_out(root: Path, component: str) -> None:
    outside = root.with_name("outside")
    (outside / "b.txt").write_bytes(b"SECRET")
    path, real, link = root / component, root / "real", root / "link"
    link.symlink_to(outside / "b.txt" if component.endswith(".txt") else outside)
    seen: dict[object, int] = {}
    with swapping(
        lambda: path.rename(real), lambda: link.rename(path), lambda: path.rename(link), lambda: real.rename(path)
    ):
        for _ in for_a_while(lambda: min(seen.get(b"below", 0), seen.get(MemberNotFound, 0)) > 10):
            try:
                result: object = got("sub/b.txt", root)
            except MemberError as error:
                result = type(error)
            seen[result] = seen.get(result, 0) + 1
    assert set(seen) <= {b"below", MemberNotFound, SourceError}, seen
    assert min(seen[b"below"], seen[MemberNotFound]) > 10, seen  # else nothing was tried


def test_a_folder_that_is_swapped_for_a_link_is_never_listed_from_outside(root: Path) -> None:
    outside = root.with_name("outside")
    path, real, link = root / "sub", root / "real", root.with_name("link")
    link.symlink_to(outside)
    seen: set[str] = set()
    refused: list[SourceError] = []
    with swapping(
        lambda: path.rename(real), lambda: link.rename(path), lambda: path.rename(link), lambda: real.rename(path)
    ):
        for _ in for_a_while(lambda: len(refused) > 0):
            try:
                seen.update(names(root))
            except SourceError as error:
                refused.append(error)
    assert "sub/b.txt" in seen
    assert not [name for name in seen if "secret" in name], seen
    assert refused  # else nothing was tried


def test_a_few_files_at_a_time_are_read_in_large_pieces(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(200_000))
    source = FileSource(str(tmp_path / "large"))
    opened = [source.open(0, None) for _ in range(20)]
    first = [len(next(chunks)) for chunks in opened]
    assert first[0] == 200_000
    assert first[-1] == 64 * 1024
    for chunks in opened:
        chunks.close()
        chunks.close()
    again = source.open(0, None)
    assert len(next(again)) == 200_000
    again.close()
