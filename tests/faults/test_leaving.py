"""Clients that leave at random bytes: afterwards a server holds nothing of them, not a file, thread or upstream.

What it holds is counted from outside, by the kernel and at the upstream, after as many downloads as warm it up: pools
of threads and of connections have a size, and may reach it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streamware import Archiver, Bundle, Policy
from streamware.edge import AsyncBody
from streamware.errors import StreamwareError
from tests.conftest import SOAK
from tests.faults.trials.origin import File, Origin, text
from tests.faults.upstreams import Peer, Request, Script, ScriptedUpstream
from tests.hosts.processes import Usage, linux, serving
from tests.resume.replicas import Replica, asgi_command, serve_command, wsgi_command

DOWNLOADS = {"uvicorn": 200, "gunicorn": 200, "serve": 200 if SOAK else 60}
KIB = 1024

CONTENT = text(1 << 20, "leaving")
FILE = File(CONTENT, '"leaving"')


# What is freed is given back at once: else the allocator's own savings, some 15 MiB more or less, are all one sees.
RETURNING = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
POOLED = Policy().pool_connections
VERSIONS = 20  # bundles, so that what is remembered of their members does not grow for ever


@pytest.fixture
def sites() -> Sites:
    return Sites()


@pytest.fixture
def upstream(sites: Sites) -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(sites) as upstream:
        yield upstream


class Sites(dict[str, Script]):
    """A site for each path anybody asks for; those below /slow say nothing for a while in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self.busy = 0  # answers that are being given

    def get(self, path: str, default: object = None) -> Script:  # type: ignore[override]
        acts = ("stall",) if path.startswith("/slow") else ()
        origin = Origin(FILE, acts=acts, at=len(CONTENT) // 2)

        def counted(request: Request, peer: Peer) -> None:
            with self._lock:
                self.busy += 1
            try:
                origin(request, peer)
            finally:
                with self._lock:
                    self.busy -= 1

        with self._lock:
            return self.setdefault(path, counted)


def leave(port: int, manifest: bytes, rng: random.Random) -> int:
    """Ask for a bundle and go after so many bytes; how many came."""
    count = rng.choice([0, 1, rng.randrange(2000), rng.randrange(6 << 20), rng.randrange(6 << 20)])
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", port))
        head = f"Host: test\r\nContent-Type: application/json\r\nContent-Length: {len(manifest)}\r\n\r\n"
        sock.sendall(b"POST /bundle HTTP/1.1\r\n" + head.encode() + manifest)
        came = 0
        while came < count:
            piece = sock.recv(min(64 * KIB, count - came))
            if not piece:
                break
            came += len(piece)
        if rng.random() < 0.3:  # not a proper end, but a reset
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return came


def manifest(upstream: ScriptedUpstream, number: int, rng: random.Random, *, files: bool) -> bytes:
    """Six members of 1 MiB, one in twenty of which stalls half-way the first time it is asked for."""
    members: list[dict[str, object]] = []
    for index in range(6):
        if files and rng.random() < 0.3:
            members.append({"name": f"{index}", "path": "/tree/file"})
        else:
            kind = "slow" if rng.random() < 0.05 else "fast"
            members.append({"name": f"{index}", "url": upstream.url(f"/{kind}/{number % VERSIONS}/{index}")})
    name = rng.choice(["b.zip", "b.zip", "b.tar"])
    compress = "deflate" if name == "b.zip" and rng.random() < 0.2 else "stored"
    return json.dumps({"name": name, "compress": compress, "members": members}).encode()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Inside, nothing is freed but by its last reference."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.case(27)
@pytest.mark.parametrize("how", ["closed", "aborted", "failed"])
@pytest.mark.parametrize("format", ["zip", "tar"])
def test_a_body_that_ended_early_waits_for_no_collector(how: str, format: str) -> None:
    """Else what it held, a MiB and more, would stay until enough others have gone the same way."""
    origin = Origin(FILE, acts=["stall" if how == "aborted" else "reset"], at=len(CONTENT) // 2, always=True)
    archiver = Archiver(Policy(retry_pause_seconds=0.01, max_tries=2))
    with ScriptedUpstream(origin) as upstream, uncollected():
        bundle = Bundle(f"b.{format}")
        for name in "abc":
            bundle.add_url(upstream.url(f"/{name}"), size=len(CONTENT))
        body = archiver.open(bundle)
        next(body)
        with ThreadPoolExecutor(1) as pool:
            if how == "aborted":
                pool.submit(lambda body: time.sleep(0.1) or body.abort(), body)
            if how != "closed":
                with pytest.raises(StreamwareError):
                    for _ in body:
                        pass
        body.close()
        gone = weakref.ref(body)
        del body
        archiver.close()  # awaits the threads that read ahead
        assert gone() is None


@pytest.mark.case(27)
@pytest.mark.parametrize("acts", ["stall", "reset", ""])
def test_nor_does_one_on_an_event_loop(acts: str) -> None:
    origin = Origin(FILE, acts=[acts] if acts else [], at=len(CONTENT) // 2, always=True)
    archiver = Archiver(Policy(retry_pause_seconds=0.01, max_tries=2))

    async def leaves(upstream: ScriptedUpstream) -> weakref.ref[object]:
        left = asyncio.Event()

        async def receive() -> dict[str, object]:
            await left.wait()
            return {"type": "http.disconnect"}

        bundle = Bundle("b.tar")
        for name in "abc":
            bundle.add_url(upstream.url(f"/{name}"), size=len(CONTENT))
        body = archiver.open(bundle)
        gone = weakref.ref(body)
        carried = AsyncBody(archiver, body, receive)
        del body
        with contextlib.suppress(StreamwareError):
            async for _ in carried:
                if acts != "reset":
                    asyncio.get_running_loop().call_later(0.05, left.set)
                    if not acts:
                        await left.wait()
        await carried.close()
        return gone

    with ScriptedUpstream(origin) as upstream, uncollected():
        gone = asyncio.run(leaves(upstream))
        archiver.close()
        assert gone() is None


@linux
@pytest.mark.case(27)
@pytest.mark.parametrize("host", ["uvicorn", "gunicorn", "serve"])
def test_whoever_leaves_is_forgotten(host: str, sites: Sites, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(CONTENT)
    command = {
        "uvicorn": asgi_command("tests.faults.trials.app:asgi"),
        "gunicorn": wsgi_command("tests.faults.trials.app:wsgi()"),
        "serve": serve_command(root, tmp_path, allow=upstream.url("").rstrip("/"), state="memory:"),
    }[host]

    env = {"UPSTREAMS": upstream.url("/"), **RETURNING}
    with Replica(command, tmp_path / "log", env) as server:
        pid = serving(server.pid)

        def downloads(numbers: range, at_once: int) -> int:
            def one(number: int) -> int:
                rng = random.Random(f"leaving {number}")
                return leave(server.port, manifest(upstream, number, rng, files=host == "serve"), rng)

            with ThreadPoolExecutor(at_once) as pool:
                return sum(pool.map(one, numbers))

        downloads(range(1000, 1100), 32)  # so many that every pool of threads is as large as it will be
        time.sleep(2)
        idle = Usage.of(pid)
        kept = upstream.open_connections
        came = downloads(range(DOWNLOADS[host]), 8)
        began = time.monotonic()
        while True:
            now, still, took = Usage.of(pid), upstream.open_connections, time.monotonic() - began
            told = f"{host}: {DOWNLOADS[host]} left after {came / 2**20:.0f} MiB;"
            told += f" {kept} connections kept and {idle} before, {still} and {now} {took:.2f} s after"
            # Connections that wait for the next request are pooled, as many as there happen to be.
            files = now.files - still <= idle.files - kept and still <= POOLED
            if files and now.threads <= idle.threads and now.resident <= idle.resident + 8 and not sites.busy:
                break
            assert took < 5, told
            time.sleep(0.05)
        print(told)
