"""What the file service takes: memory that stays flat whatever the size, and hundreds of clients at once.

A small share runs by default; STREAMWARE_SOAK=1 runs the numbers that are promised: 4 GiB, and 200 uploads beside 200
downloads of 10 MiB each, on one worker.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from tests.conftest import SOAK
from tests.files.sending import Line, ask
from tests.files.services import Service, World
from tests.hosts.processes import linux, serving
from tests.hosts.servers import ROOT

MIB = 1024 * 1024
SIZE = 4096 * MIB if SOAK else 96 * MIB
CLIENTS, EACH = (200, 10 * MIB) if SOAK else (40, 1 * MIB)
GROWTH = 24.0  # MiB
DEFAULTS = {"upload_part_bytes": 64 * MIB}

_BLOCK = hashlib.shake_256(b"numbers").digest(MIB)


def peak(pid: int) -> float:
    """The most that a process has had resident since ``forget``, in MiB."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def forget(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def upload(service: Service, size: int, *, chunked: bool) -> str:
    """Send blocks; the path of what is stored."""
    with Line(service.port, 300) as line:
        length = [("Transfer-Encoding", "chunked")] if chunked else [("Content-Length", str(size))]
        line.head("POST", "/files", [*length, ("X-Filename", "big.bin")])
        for _ in range(size // MIB):
            line.send(b"100000\r\n" + _BLOCK + b"\r\n" if chunked else _BLOCK)
        if chunked:
            line.send(b"0\r\n\r\n")
        answer = line.answer()
    assert answer.status == 201, answer
    assert answer.document["size"] == size
    return str(answer.document["url"])


def download(service: Service, path: str) -> tuple[int, str]:
    own, count = hashlib.sha256(), 0
    with Line(service.port, 300) as line:
        line.head("GET", path)
        got = b""
        while b"\r\n\r\n" not in got:
            got += line.socket.recv(65536)
        head, _, rest = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert found
        size = int(found[1])
        own.update(rest)
        count = len(rest)
        block = memoryview(bytearray(MIB))
        while count < size and (taken := line.socket.recv_into(block)):
            own.update(block[:taken])
            count += taken
    return count, own.hexdigest()


@linux
@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_memory_stays_flat(kind: str, world: World) -> None:
    service = world.service(kind, world.local(), policy=DEFAULTS)
    try:
        download(service, upload(service, 8 * MIB, chunked=False))  # what is made once is there now
        download(service, upload(service, 8 * MIB, chunked=True))
        pid = serving(service.pid)
        forget(pid)
        before = peak(pid)
        began = time.monotonic()
        path = upload(service, SIZE, chunked=kind == "uvicorn")
        sent, up = time.monotonic() - began, peak(pid)
        forget(pid)
        began = time.monotonic()
        count, sha256 = download(service, path)
        got, down = time.monotonic() - began, peak(pid)
        told = f"{kind}, {SIZE // MIB} MiB: up {sent:.1f} s, {up - before:+.1f} MiB; down {got:.1f} s, "
        told += f"{down - before:+.1f} MiB"
        print(told)
        own = hashlib.sha256()
        for _ in range(SIZE // MIB):
            own.update(_BLOCK)
        assert (count, sha256) == (SIZE, own.hexdigest())
        assert up - before <= GROWTH, told
        assert down - before <= GROWTH, told
        assert ask(service.port, "DELETE", path).status == 204
        assert ask(service.port, "POST", "/sweep").status == 200
    finally:
        service.stop()


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_many_clients_at_once(kind: str, world: World) -> None:
    """None of them fails, and whoever looks after the service's health is answered all the while."""
    # Each of gunicorn's connections needs a thread of its own; those beyond, the look at its health too, wait for one.
    options = ("--threads", str(2 * CLIENTS + 20)) if kind == "gunicorn" else ()
    service = world.service(kind, world.local(), policy=DEFAULTS, options=options)
    try:
        arguments = [str(service.port), str(CLIENTS), str(CLIENTS), str(EACH)]
        delays: list[float] = []
        with subprocess.Popen(
            [sys.executable, "-m", "tests.files.load", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as load:
            while load.poll() is None:
                began = time.monotonic()
                assert ask(service.port, "GET", "/healthz").status == 200
                delays.append(time.monotonic() - began)
                time.sleep(0.05)
            out, errors = load.communicate()
        assert load.returncode == 0, errors[-3000:]
        told = json.loads(out)
        print(kind, told, f"{len(delays)} looks, the longest {max(delays):.2f} s, half below {median(delays):.3f} s")
        assert told["outcomes"] == {"uploaded": CLIENTS, "downloaded": CLIENTS}
        assert len(delays) >= 3
        assert max(delays) < 30, told
    finally:
        service.stop()
