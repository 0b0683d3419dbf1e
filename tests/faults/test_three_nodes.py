"""Three nodes of a cluster, each with a large log; one dies in the middle of its own while all three are being sent.

With a mirror the archive that arrives is whole; without one curl reports that it is not. With STREAMWARE_SOAK=1 the
logs have 500 MiB each.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import SOAK, judge
from tests.faults.curl import Running, bundle
from tests.hosts.nginx import Nginx, nginx
from tests.hosts.serve_process import Served
from tests.hosts.servers import until
from tests.resume.clients import digest
from tests.resume.upstream import sparse_member

MIB = 1 << 20
SIZE = (500 if SOAK else 32) * MIB
# Slow enough that the log is not all under way when its node dies: the system's buffers hold some 20 MiB.
RATE = (250 if SOAK else 50) * MIB
NODES = ("a", "b", "c")

pytestmark = pytest.mark.judge("nginx", "curl", "unzip")


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "logs"
    for seed, node in enumerate(NODES):
        (root / node).mkdir(parents=True)
        sparse_member(root / node / "app.log", SIZE, seed)
        os.utime(root / node / "app.log", (1_700_000_000, 1_700_000_000))
    yield root
    for file in tmp_path.rglob("*.*"):
        if file.is_file() and file.stat().st_size > MIB:
            file.unlink()


@pytest.mark.case(17)
@pytest.mark.parametrize("mirrored", [True, False], ids=["with a mirror", "without"])
def test_a_node_dies_in_the_middle_of_its_log(mirrored: bool, logs: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        nodes = {n: stack.enter_context(nginx(logs / n, tmp_path / f"nginx-{n}")) for n in NODES}
        copies = stack.enter_context(nginx(logs, tmp_path / "nginx-copies", log=True))
        allow = [part for url in (*nodes.values(), copies) for part in ("--allow", f"{url}/")]
        served = stack.enter_context(Served(tmp_path / "logs", *allow))
        manifest = described(nodes, copies if mirrored else None)

        whole = bundle(f"{served.url}/bundle", tmp_path / "whole.zip", manifest)
        assert whole.whole, whole
        promised = whole.path.stat().st_size

        download = Running(f"{served.url}/bundle", tmp_path / "logs.zip", manifest, rate=RATE)
        until(lambda: download.size() > SIZE * 1.03 or not download.running, 60)
        nodes["b"].kill()
        got = download.wait()

    came = got.path.stat().st_size
    print(f"{'a' if mirrored else 'no'} mirror: curl {got.code}, {came} of {promised} bytes, {got.said.strip()}")
    if mirrored:
        assert got.whole, got
        assert digest(got.path) == digest(whole.path)
        subprocess.run([judge("unzip"), "-tqq", got.path], check=True, timeout=120)
        assert "GET /b/app.log 206 " in (tmp_path / "nginx-copies" / "access").read_text()
    else:
        assert (got.code, got.status) == (18, 200), got
        assert SIZE < came < 2 * SIZE + MIB


def described(nodes: dict[str, Nginx], copies: Nginx | None) -> dict[str, object]:
    members: list[dict[str, object]] = []
    for name, url in nodes.items():
        mirrors = [f"{copies}/{name}/app.log"] if copies else []
        members.append({"name": f"{name}/app.log", "url": f"{url}/app.log", "mirrors": mirrors})
    return {"name": "logs.zip", "members": members}
