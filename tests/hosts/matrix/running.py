"""A host that runs, with an upstream that fails on demand; and the requests all cases make.

The rule of this file: it starts, asks and stops; what is right is for the tests to say.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from tests.faults.upstreams import Peer, Request, ScriptedUpstream, answer
from tests.hosts.matrix.apps import UPSTREAM
from tests.hosts.matrix.client import Download, Got, fetch, open_files
from tests.hosts.matrix.hosts import Host
from tests.resume.replicas import Replica

__all__ = ["FLOOD", "GATED", "Running", "Upstream", "query", "run_host", "upstream"]

PIECE = bytes(range(256)) * 256  # 64 KiB
GATED = PIECE * 32
FLOOD = 96 << 20  # bytes
_ENDLESS = 1 << 40  # bytes, promised


@dataclass
class Upstream:
    """Members that begin well, with 320 KiB, and then do what they are named for; ``/gated`` waits for ``gate``.

    ``/floods`` gives all it has as soon as it is taken; ``flooded`` counts these bytes.
    """

    server: ScriptedUpstream
    flooded: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def manifest(self, *paths: str, name: str = "u.zip") -> str:
        members = [{"name": path[1:], "url": self.server.url(path)} for path in paths]
        return json.dumps({"name": name, "members": members})


@contextmanager
def upstream() -> Iterator[Upstream]:
    def begin(request: Request, peer: Peer, length: int) -> bool:
        peer.send(answer(b"", 'ETag: "v1"', length=length))
        if request.method == "HEAD":
            return False
        peer.send(PIECE * 5)
        return True

    def resets(request: Request, peer: Peer) -> None:
        if begin(request, peer, 1 << 20):
            peer.reset()

    def stalls(request: Request, peer: Peer) -> None:
        if begin(request, peer, _ENDLESS):
            peer.stall()

    def drips(request: Request, peer: Peer) -> None:
        if begin(request, peer, _ENDLESS):
            peer.drip(PIECE * 300, size=len(PIECE), seconds=0.02)

    def gated(request: Request, peer: Peer) -> None:
        if begin(request, peer, len(GATED)):
            made.gate.wait(5)
            peer.send(GATED[len(PIECE) * 5 :])

    def floods(request: Request, peer: Peer) -> None:
        made.flooded = len(PIECE) * 5
        if begin(request, peer, FLOOD):
            while made.flooded < FLOOD:
                peer.send(PIECE)
                made.flooded += len(PIECE)

    paths = {"/resets": resets, "/stalls": stalls, "/drips": drips, "/gated": gated, "/floods": floods}
    with ScriptedUpstream(paths) as server:
        made = Upstream(server)
        made.gate.set()
        yield made


@dataclass
class Running:
    """A host that answers at ``url``."""

    host: Host
    replica: Replica
    upstream: Upstream
    work: Path

    @property
    def url(self) -> str:
        return self.replica.url

    def get(self, asked: str, *options: str, seconds: float = 10) -> Got:
        return fetch(self.url + asked, self.host.curl, *options, seconds=seconds)

    def post(self, manifest: str, *, seconds: float = 10) -> Got:
        return fetch(f"{self.url}/bundle", self.host.curl, data=manifest, seconds=seconds)

    def begin(self, name: str, path: str) -> Download:
        """Begin the download of one of the upstream's members."""
        manifest = self.upstream.manifest(path)
        return Download(self.work / name, f"{self.url}/bundle", self.host.curl, data=manifest)

    def wait_until_deaf(self, seconds: float) -> None:
        """Until it listens no more, or ``seconds`` have passed: some listen, and answer nobody, to their very end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.replica.port), 1).close()
            except OSError:
                return
            time.sleep(0.02)

    def ends_within(self, seconds: float) -> bool:
        try:
            self.replica.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def open_files(self) -> int:
        return open_files(self.replica.pid)


@contextmanager
def run_host(host: Host, upstream: Upstream, work: Path) -> Iterator[Running]:
    assert host.package  # or it is skipped here
    env = {UPSTREAM: upstream.server.url("/")}
    replica = Replica(host.arguments(), work / "log", env)
    try:
        replica.start()
        yield Running(host, replica, upstream, work)
    finally:
        try:
            replica.kill()
        except ProcessLookupError:
            pass  # it has ended, as the last test of a host wants it


def query(*paths: str, name: str = "q.zip", **more: str) -> str:
    return "/bundle?" + urlencode([("path", path) for path in paths] + [("name", name), *more.items()])
