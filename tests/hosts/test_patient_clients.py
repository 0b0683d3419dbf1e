"""Clients that stay for long and take little: they hold neither a thread each on ASGI nor much memory on WSGI.

1,000 and 100 of them with STREAMWARE_SOAK=1, a fixed share else. The second of two tries counts where the first was too
slow, for the machine may have had other things to do.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

import falcon
import pytest

from streamware import Archiver, Bundle
from streamware.resources import BundleResource
from tests.conftest import SOAK
from tests.hosts.processes import Usage, linux, serving
from tests.hosts.serve_process import Served
from tests.hosts.servers import gunicorn, until
from tests.hosts.slow_clients import MIB, Client, Probe, run

IDLE, IDLE_SECONDS = (1000, 20.0) if SOAK else (150, 3.0)
SLOW, SLOW_SECONDS = (100, 20.0) if SOAK else (30, 3.0)
MOST_THREADS = 40
LONGEST = 0.5  # seconds that /healthz may take
LARGE = 1 << 30


class Health:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.text = str(os.getpid())


class Large(BundleResource):
    def make_bundle(self, req: falcon.Request, **params: Any) -> Bundle:
        bundle = Bundle("b.zip")
        bundle.add_file(os.environ["LARGE_FILE"])
        return bundle


wsgi = falcon.App()
wsgi.add_route("/healthz", Health())
wsgi.add_route("/bundle", Large(Archiver()))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "root" / "large"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(LARGE)
    return path


@pytest.fixture
def many_files() -> None:
    """Each client is a connection here, and a connection and a file in the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * IDLE + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"a process may open {hard} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


@linux
@pytest.mark.case(28, 29)
def test_clients_that_stand_still_hold_no_threads(large: Path, many_files: None) -> None:
    def measured() -> float:
        with Served(large.parent) as served:
            pid, probe = serving(served.process.pid), Probe()
            asked = b"GET /bundle?path=/tree/large&name=b.zip HTTP/1.1\r\nHost: test\r\n\r\n"
            threads = []
            over = threading.Event()

            def count() -> None:
                while not over.wait(0.1):
                    threads.append(Usage.of(pid).threads)

            counting = threading.Thread(target=count)
            counting.start()
            clients = [Client((served.host, served.port), asked) for _ in range(IDLE)]
            try:
                time.sleep(IDLE / 200)  # how long all of them may take to come
                with probe.watching(served.port):
                    run(clients[::2], clients[1::2], IDLE_SECONDS, rate=1024)
            finally:
                over.set()
                counting.join(5)
            worst = max(probe.waits)
            print(f"{IDLE} clients: {max(threads)} threads, /healthz {worst * 1000:.0f} ms, {Usage.of(pid)}")
            assert not probe.errors, probe.errors[:3]
            assert max(threads) <= MOST_THREADS
            assert all(client.came for client in clients[::2])
            until(lambda: Usage.of(pid).files < IDLE, 10)
            return worst

    assert measured() <= LONGEST or measured() <= LONGEST


@linux
@pytest.mark.case(28, 29)
def test_slow_clients_of_a_server_with_threads_cost_little(large: Path) -> None:
    def measured() -> float:
        with gunicorn(f"{__name__}:wsgi", threads=128, env={"LARGE_FILE": str(large)}) as server:
            address = ("127.0.0.1", server.port)
            asked = b"GET /bundle HTTP/1.1\r\nHost: test\r\n\r\n"
            run([Client(address, asked)], [], 0.5)  # what is loaded with the first request is loaded now
            pid = int(server.get("/healthz").body)
            idle, probe = Usage.of(pid), Probe()
            readers = []
            for _ in range(SLOW):  # all at once they would fill the system's buffers together, with all of the server
                readers.append(Client(address, asked))
                time.sleep(0.03)
            with probe.watching(server.port):
                peak = run(readers, [], SLOW_SECONDS, pid)
            worst, grown = max(probe.waits), peak - idle.resident
            came = sorted(reader.came / MIB / SLOW_SECONDS for reader in readers)
            print(f"{SLOW} clients: +{grown:.1f} MiB, /healthz {worst * 1000:.0f} ms, {came[0]:.2f} MiB/s and more")
            assert not probe.errors, probe.errors[:3]
            assert grown <= 8 + SLOW * 0.8  # each of the first 16 holds two pieces of 256 KiB, all others two of 64
            until(lambda: Usage.of(pid).files <= idle.files + 8, 10)
            return worst

    assert measured() <= LONGEST or measured() <= LONGEST
