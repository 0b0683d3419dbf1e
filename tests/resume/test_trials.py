"""Seeded trials: a bundle of random members, cut off up to five times, gone on with, compared with an uncut download.

Cut off by a client that stops at a byte, by curl killed as it writes, or by ``kill -9`` of the serving process; gone on
with by curl, wget or aria2c, at the same replica or at its neighbour. STREAMWARE_SOAK=1 runs all 200.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamware import Archiver, Policy
from tests.conftest import SOAK, judge
from tests.hosts.nginx import nginx
from tests.hosts.postgres import postgres
from tests.hosts.servers import until, wsgiref_server
from tests.resume.apps import Site, make_wsgi
from tests.resume.bundles import Case, Places, make_case, same_contents
from tests.resume.clients import HOST, aria2c, curl, head, read_into, scan, wget
from tests.resume.replicas import Replica, asgi_command, save_link, serve_command, wsgi_command

TRIALS = 200 if SOAK else 24

pytestmark = pytest.mark.judge("nginx", "curl", "wget", "aria2c", "unzip", "tar")


@dataclass
class Pair:
    """Two replicas of one kind. ``shared``: what one learns, and what is learned before it dies, is not lost."""

    kind: str
    shared: bool
    replicas: tuple[Replica, Replica]
    lists: Path

    def publish(self, case: Case, rng: random.Random) -> str:
        """Make a bundle something that can be asked for at both; its path."""
        if self.kind == "serve":
            return save_link(rng.choice(self.replicas).url, case.manifest)
        return listed(case, self.lists)

    def learn_sizes(self, path: str) -> None:
        """What is really compressed has a length, and can be gone on with, when it was downloaded once."""
        assert scan(f"{self.replicas[0].url}{path}").status == 200
        for replica in self.replicas:
            until(lambda at=replica: "content-length" in head(f"{at.url}{path}").headers, 10)


def listed(case: Case, lists: Path) -> str:
    (lists / case.name).write_text(json.dumps(case.manifest))
    return f"/lists/{case.name}?as={case.form}"


class World:
    """Everything that trials share: folders, the upstream, and the pairs that were needed so far."""

    def __init__(self, work: Path, stack: ExitStack) -> None:
        for name in ("upstream", "root", "inner", "lists"):
            (work / name).mkdir()
        self.work = work
        self.lists = work / "lists"
        self.upstream = stack.enter_context(nginx(work / "upstream", work / "nginx"))
        self.places = Places(work / "upstream", work / "root", work / "inner", self.upstream)
        self._stack = stack
        self._pairs: dict[tuple[str, str], Pair] = {}

    def pair(self, kind: str, state: str) -> Pair:
        if (kind, state) not in self._pairs:
            self._pairs[kind, state] = self._make(kind, state)
        return self._pairs[kind, state]

    def _make(self, kind: str, state: str) -> Pair:
        name = f"{kind}-{state}"
        ledger = {"memory": "", "sqlite": f"sqlite:///{self.work / name}.sqlite3"}.get(state)
        if ledger is None:
            ledger = self._stack.enter_context(postgres(self.work / "postgres"))
        env = {
            "INNER": str(self.places.inner),
            "ROOT": str(self.places.root),
            "LISTS": str(self.lists),
            "UPSTREAM": f"{self.upstream}/",
            "LEDGER": ledger,
        }
        command = {
            "serve": serve_command(self.places.root, self.work, allow=self.upstream, state=ledger),
            "wsgi": wsgi_command("tests.resume.apps:wsgi()"),
            "asgi": asgi_command("tests.resume.apps:asgi"),
        }[kind]
        first, second = (
            self._stack.enter_context(Replica(command, self.work / f"{name}-{number}.log", env)) for number in (1, 2)
        )
        return Pair(kind, state != "memory", (first, second), self.lists)

    def uncut(self, case: Case) -> tuple[bytes, str]:
        """The archive and its ETag from a server that never saw the bundle before."""
        archiver = Archiver(Policy(allow=(f"{self.upstream}/",), allow_unframed=True))
        try:
            app = make_wsgi(Site(self.places.inner, self.lists), self.places.root, archiver)
            with wsgiref_server(app) as server:
                answer = server.get(listed(case, self.lists), {"Host": HOST})
                assert answer.status == 200, answer.body[:2000]
                return answer.body, answer.header("ETag") or ""
        finally:
            archiver.close()


STATES = {"serve": ("sqlite", "postgres"), "wsgi": ("memory", "sqlite"), "asgi": ("sqlite", "memory")}


@pytest.fixture(scope="module")
def world(work: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(work, stack)


@pytest.mark.parametrize("seed", range(TRIALS))
def test_what_was_cut_off_goes_on_to_the_same_bytes(seed: int, world: World, tmp_path: Path) -> None:
    rng = random.Random(seed)
    kind = ("serve", "wsgi", "asgi")[seed % 3]
    pair = world.pair(kind, STATES[kind][seed // 3 % 2])
    compress = rng.choice(["deflate", "auto"]) if pair.shared and rng.random() < 0.15 else "stored"
    case = make_case(seed, rng, world.places, inner=kind != "serve", compress=compress)
    path = pair.publish(case, rng)
    if compress != "stored":
        pair.learn_sizes(path)
    said = head(f"{rng.choice(pair.replicas).url}{path}")
    assert said.status == 200, scan(f"{pair.replicas[0].url}{path}")
    assert said.headers["accept-ranges"] == "bytes"
    total, etag = int(said.headers["content-length"]), said.etag
    assert etag.startswith('"')

    out = tmp_path / case.name
    told = (
        aria_trial(pair, path, out, total, rng) if rng.random() < 0.2 else cut_trial(pair, path, out, total, etag, rng)
    )

    whole, tag = world.uncut(case)
    assert (tag, len(whole)) == (etag, total)
    assert out.read_bytes() == whole, told
    assert same_contents(case, whole)
    opened = [judge("unzip"), "-tqq", out] if case.form == "zip" else [judge("tar"), "-tf", out]
    done = subprocess.run(opened, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), (told, done.stdout[-1000:])
    world.places.clear(seed)


def cut_trial(pair: Pair, path: str, out: Path, total: int, etag: str, rng: random.Random) -> list[str]:
    """Up to five cuts at random bytes, then the rest; what was done, for whoever has to find out what went wrong."""
    told = []
    for _ in range(rng.randint(1, 5)):
        have = out.stat().st_size if out.exists() else 0
        if have >= total - 2:
            break
        # One in five in the last records, where checksums of everything before are quoted.
        low = max(have + 1, total - 3000) if rng.random() < 0.2 else have + 1
        upto = rng.randrange(low, total)
        replica = rng.choice(pair.replicas)
        how = rng.choice(["stop", "stop", "curl", "kill", "kill", "kill-curl"])
        told.append(f"{how} {have}-{upto} at {pair.replicas.index(replica)}")
        if how == "stop":
            got = read_into(out, f"{replica.url}{path}", upto, if_range=rng.choice([None, etag]))
            assert got.etag == etag, told
        elif how == "kill":
            read_into(out, f"{replica.url}{path}", upto, at_end=replica.kill)
            replica.start()
        else:
            tool = curl(out, f"{replica.url}{path}", rate=(upto - have) * 4)
            tool.wait_for(upto)
            if how == "curl":
                tool.kill()
            else:
                replica.kill()
                assert tool.wait()[0] in (0, 18, 56), told  # all came, too little came, the connection was reset
                replica.start()
    finish = rng.choice([curl, curl, wget])
    replica = rng.choice(pair.replicas)
    told.append(f"{finish.__name__} at {pair.replicas.index(replica)}")
    code, said = finish(out, f"{replica.url}{path}").wait()
    assert code == 0, (told, said)
    return told


def aria_trial(pair: Pair, path: str, out: Path, total: int, rng: random.Random) -> list[str]:
    """Eight ranges at once from the start, with the server killed under them, or not."""
    replica = rng.choice(pair.replicas)
    tool = aria2c(out, f"{replica.url}{path}", *(["--max-overall-download-limit", str(total * 3)]))
    told = [f"aria2c at {pair.replicas.index(replica)}"]
    for _ in range(rng.randint(0, 1)):
        upto = rng.randrange(total)
        told.append(f"kill at about {upto}")
        tool.wait_for(upto)
        replica.restart()
    code, said = tool.wait()
    assert code == 0, (told, said)
    return told
