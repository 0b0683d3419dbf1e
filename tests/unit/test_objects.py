"""Objects in a local folder: whole and durable or not there, and what is said where something is wrong with it."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamware.errors import MemberNotFound
from streamware.object_errors import mapped
from streamware.objects import Objects, ObjectWriter
from streamware.upload_errors import StoreFailed, StoreFull, StoreUnavailable

pytest.importorskip("obstore")

MIB = 1024 * 1024
HOME = "0a/0a1b"


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects((tmp_path / "kept").as_uri())


def files_below(folder: Path) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(top, name), folder) for top, _, names in os.walk(folder) for name in names
    )


def put(objects: Objects, key: str, data: bytes = b"content") -> None:
    writer = objects.writer(key)
    writer.write(data)
    writer.close()


def fill(writer: ObjectWriter, size: int) -> None:
    for _ in range(0, 8 * MIB, size):
        writer.write(bytes(size))


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a b%20ü"
    objects = Objects(folder.as_uri())
    assert objects.folder == str(folder)
    assert objects.name == f"file://{folder}"
    assert folder.stat().st_mode & 0o777 == 0o700
    put(objects, f"{HOME}/0")
    assert Objects(folder.as_uri()).keys_of("0a1b") == [f"{HOME}/0"]


def test_a_folder_belongs_to_the_first_database_that_asks(objects: Objects, tmp_path: Path) -> None:
    assert objects.belong_to("first")
    assert objects.belong_to("first")
    assert not objects.belong_to("second")
    assert not Objects((tmp_path / "kept").as_uri()).belong_to("second")
    assert files_below(tmp_path / "kept") == [".streamware-store/database"]
    (tmp_path / "kept" / ".streamware-store" / "database").write_bytes(b"\xff")
    assert not objects.belong_to("first")


def cached(path: Path) -> float:
    """The share of a file that is in the page cache."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        count = -(-len(pages) // mmap.PAGESIZE)
        found = (ctypes.c_ubyte * count)()
        begin = ctypes.c_ubyte.from_buffer(pages)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.mincore(ctypes.c_void_p(ctypes.addressof(begin)), ctypes.c_size_t(len(pages)), found) == 0
        finally:
            del begin
    return sum(page & 1 for page in found) / count


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no advice about its page cache")
def test_a_large_object_leaves_the_page_cache_and_a_small_one_stays(objects: Objects, tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    with probe.open("wb") as file:
        file.write(bytes(MIB))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached(probe) > 0.5:
        pytest.skip("this file system keeps its files in memory")
    for name, size in ("large", 40 * MIB), ("small", 4 * MIB):
        writer = objects.writer(f"{HOME}/{name}")
        for _ in range(size // MIB):
            writer.write(os.urandom(MIB))
        writer.close()
    home = tmp_path / "kept" / HOME
    assert cached(home / "large") < 0.1
    assert cached(home / "small") > 0.9


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("file:///nowhere/at/all", "no such folder"),
        ("file://host/dir", "absolute path"),
        ("file:dir", "absolute path"),
        ("kept", "file:///DIR"),
        ("ftp://host/dir", "file:///DIR"),
        ("s3://", "file:///DIR"),
        ("s3://key:secret@bucket/x", "options"),
        ("s3://bucket/x?aws_secret_access_key=secret", "options"),
    ],
)
def test_urls_that_name_no_store(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        Objects(url)
    assert "secret" not in str(caught.value)


def test_options_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no options"):
        Objects(tmp_path.as_uri(), {"allow_http": "true"})
    for name in ("nonsense", "aws_nonsense"):
        with pytest.raises(ValueError, match="nonsense"):
            Objects("s3://bucket/x", {name: "1"})
    with pytest.raises(ValueError, match="cannot be used"):
        Objects("s3://bucket/x", {"timeout": "soon"})


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be used as a store"):
        Objects((tmp_path / "file").as_uri())


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 5])
def test_an_object_is_there_when_it_is_closed_and_not_before(objects: Objects, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    writer = objects.writer(f"{HOME}/0")
    for start in range(0, size, 100_000):
        writer.write(memoryview(data)[start : start + 100_000])
    assert objects.keys_of("0a1b") == []
    writer.close()
    assert (tmp_path / "kept" / HOME / "0").read_bytes() == data
    writer.discard()
    assert objects.keys_of("0a1b") == [f"{HOME}/0"]
    with pytest.raises(StoreFailed):
        writer.write(b"more")
    with pytest.raises(StoreFailed):
        writer.close()


@pytest.mark.parametrize("size", [0, 1, 3 * MIB])
def test_nothing_stays_of_what_is_discarded(objects: Objects, tmp_path: Path, size: int) -> None:
    writer = objects.writer(f"{HOME}/0")
    writer.write(bytes(size))
    writer.discard()
    writer.discard()
    assert files_below(tmp_path / "kept") == []


def test_all_that_leads_to_an_object_is_synced(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, []

    def fsync(fd: int) -> None:
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), tmp_path / "kept"))
        real(fd)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("what a descriptor is of is read from /proc")
    monkeypatch.setattr(os, "fsync", fsync)
    put(objects, f"{HOME}/0")
    assert synced == [f"{HOME}/0", HOME, "0a", "."]


def test_two_write_one_key_and_one_of_them_is_whole(objects: Objects, tmp_path: Path) -> None:
    one, other = objects.writer(f"{HOME}/0"), objects.writer(f"{HOME}/0")
    one.write(b"1" * 2 * MIB)
    other.write(b"2" * 2 * MIB)
    one.close()
    other.discard()
    assert files_below(tmp_path / "kept") == [f"{HOME}/0"]
    assert (tmp_path / "kept" / HOME / "0").read_bytes() == b"1" * 2 * MIB


def test_many_write_and_delete_at_once(objects: Objects, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                key = f"0a/0a{number % 3}/{number}-{turn}"
                put(objects, key)
                objects.clean(0)
                objects.delete([key])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A sweep with no age at all takes what is just being written, too, and that is all that may go wrong.
    assert all(isinstance(failure, StoreFailed) for failure in failures), failures
    assert not [name for name in files_below(tmp_path / "kept") if "#" not in name]


def test_what_is_deleted_may_be_gone_already(objects: Objects, tmp_path: Path) -> None:
    put(objects, f"{HOME}/0")
    put(objects, f"{HOME}/1")
    objects.delete([f"{HOME}/0", f"{HOME}/2", "ff/ff/0", f"{HOME}/1"])
    assert files_below(tmp_path / "kept") == []
    assert not (tmp_path / "kept" / HOME).exists()
    objects.delete([])


def test_old_ones_are_listed_and_leftovers_removed(objects: Objects, tmp_path: Path) -> None:
    put(objects, f"{HOME}/0")
    put(objects, f"{HOME}/1")
    put(objects, "ff/ffee/0")
    (tmp_path / "kept" / "notes.txt").write_bytes(b"somebody's")
    (tmp_path / "kept" / "0a" / "stray").write_bytes(b"somebody's")
    (tmp_path / "kept" / HOME / "2#1").write_bytes(b"left by a writer that was killed")
    (tmp_path / "kept" / HOME / "3#12").write_bytes(b"being written")
    old = time.time() - 1000
    for name in (f"{HOME}/0", f"{HOME}/2#1"):
        os.utime(tmp_path / "kept" / name, (old, old))
    assert objects.keys_of("0a1b") == [f"{HOME}/0", f"{HOME}/1"]
    assert list(objects.old_keys(500)) == [f"{HOME}/0"]
    assert sorted(objects.old_keys(0)) == [f"{HOME}/0", f"{HOME}/1", "ff/ffee/0"]
    assert objects.clean(500) == 1
    assert objects.clean(500) == 0
    assert f"{HOME}/3#12" in files_below(tmp_path / "kept")


def test_who_reads_is_seen_from_another_process(objects: Objects) -> None:
    put(objects, f"{HOME}/0")
    asked = f"""
from streamware.objects import Objects
while input():
    print(Objects({objects.name!r}).unread("{HOME}/0"), flush=True)
"""
    command = [sys.executable, "-c", asked]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other_process:
        assert other_process.stdin is not None
        assert other_process.stdout is not None
        reading, other = objects.reading(f"{HOME}/0"), objects.reading(f"{HOME}/0")
        assert reading is not None
        assert other is not None
        for expected, done in ((False, reading), (False, reading), (False, other), (True, other)):
            other_process.stdin.write("?\n")
            other_process.stdin.flush()
            assert other_process.stdout.readline() == f"{expected}\n"
            assert objects.unread(f"{HOME}/0") is expected
            done.close()
        other_process.stdin.write("\n")
    assert objects.unread(f"{HOME}/nothing")
    with pytest.raises(MemberNotFound):
        objects.reading(f"{HOME}/nothing")


def test_a_folder_that_is_not_the_one_it_was(objects: Objects, tmp_path: Path) -> None:
    """As where its disk is not mounted: an empty folder stands there, which is no store without any files."""
    put(objects, f"{HOME}/0")
    writer = objects.writer(f"{HOME}/1")
    (tmp_path / "kept").rename(tmp_path / "elsewhere")
    (tmp_path / "kept").mkdir()
    for call in (
        lambda: objects.writer(f"{HOME}/2"),
        lambda: objects.delete([f"{HOME}/0"]),
        lambda: objects.keys_of("0a1b"),
        lambda: list(objects.old_keys(0)),
        lambda: objects.clean(0),
    ):
        with pytest.raises(StoreUnavailable, match="mounted"):
            call()
    writer.discard()
    (tmp_path / "kept").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "kept")
    assert objects.keys_of("0a1b") == [f"{HOME}/0"]


def test_a_folder_that_vanishes_while_it_is_written_to(objects: Objects, tmp_path: Path) -> None:
    writer = objects.writer(f"{HOME}/0")
    writer.write(bytes(2 * MIB))
    shutil.rmtree(tmp_path / "kept")
    with pytest.raises((StoreFailed, StoreUnavailable)):
        writer.close()
    writer.discard()


# --- other file systems ------------------------------------------------------------------------------------------


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a file system of its own cannot be mounted: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=4m"):
        objects = Objects((tmp_path / "small").as_uri())
        put(objects, f"{HOME}/0", bytes(MIB))
        for size in (MIB, 100_000):
            writer = objects.writer(f"{HOME}/1")
            with pytest.raises(StoreFull):
                fill(writer, size)
            with pytest.raises(StoreFailed):
                writer.close()
            writer.discard()
            assert files_below(tmp_path / "small") == [f"{HOME}/0"]
        put(objects, f"{HOME}/2", bytes(2 * MIB))
        # no room for another object, however small, which shows only as it is closed
        (tmp_path / "small" / "rest").write_bytes(bytes(MIB - 16 * 4096))
        writer = objects.writer(f"{HOME}/3")
        writer.write(bytes(900_000))
        with pytest.raises(StoreFull):
            writer.close()
        writer.discard()
        assert objects.keys_of("0a1b") == [f"{HOME}/0", f"{HOME}/2"]


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_disk_that_cannot_be_written_to(tmp_path: Path) -> None:
    with mounted(tmp_path / "fixed", "size=4m"):
        objects = Objects((tmp_path / "fixed").as_uri())
        put(objects, f"{HOME}/0")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "fixed")], check=True)
        writer = objects.writer(f"{HOME}/1")
        with pytest.raises(StoreFull, match="Read-only"):
            fill(writer, MIB)
        writer.discard()
        with pytest.raises(StoreFull, match="Read-only"):
            objects.delete([f"{HOME}/0"])


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(28, "No space left on device"), StoreFull),
        (OSError(122, "Disk quota exceeded"), StoreFull),
        (OSError(30, "Read-only file system"), StoreFull),
        (OSError("Unable to copy data to file: Disk quota exceeded (os error 122)"), StoreFull),
        (OSError("Server returned non-2xx status code: 507 Insufficient Storage: "), StoreFull),
        (OSError("Server returned non-2xx status code: 403 Forbidden: <Code>QuotaExceeded</Code>"), StoreFull),
        (OSError("Server returned non-2xx status code: 503 Service Unavailable: "), StoreUnavailable),
        (OSError("Server returned non-2xx status code: 429 Too Many Requests: "), StoreUnavailable),
        (OSError("after 3 retries - HTTP error: error sending request"), StoreUnavailable),
        (OSError("Stale file handle (os error 116)"), StoreUnavailable),
        (OSError("Too many open files (os error 24)"), StoreUnavailable),
        (OSError("HTTP error: builder error"), StoreFailed),
        (OSError("Server returned non-2xx status code: 403 Forbidden: "), StoreFailed),
        (OSError("Server returned non-2xx status code: 400 Bad Request: connection timed out"), StoreFailed),
        (OSError("Input/output error (os error 5)"), StoreFailed),
        (FileNotFoundError("Object at location x not found"), MemberNotFound),
        (RuntimeError("something else"), StoreFailed),
    ],
)
def test_what_errors_mean(error: Exception, kind: type[Exception]) -> None:
    assert type(mapped(error, "trying")) is kind


def test_a_fork_is_told_and_not_waited_for(objects: Objects) -> None:
    """A process that is forked after obstore was used would wait for ever for threads that it has not got."""
    script = f"""
import os
from streamware.objects import Objects
objects = Objects({objects.name!r})
objects.writer("0a/0a/0").close()
if os.fork() == 0:
    try:
        objects.writer("0a/0a/1").close()
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.wait()
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "StoreFailed" in done.stdout
    assert "forked" in done.stdout
