"""What the file service promises, in one go: cut off, killed, gone on with, fetched back, and bundled with others.

``streamware serve`` on its embedded default, and on PostgreSQL and S3; curl and tuspy are the clients.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import SOAK, judge
from tests.files.bundles import bundle_path, edges, no_descriptors, resumes
from tests.files.cutting import Cutter
from tests.files.sending import ask, content, listed, post
from tests.files.services import Service, World, gone

MIB = 1024 * 1024
SIZE = 2048 * MIB if SOAK else 12 * MIB
PIECE = 16 * MIB if SOAK else 1 * MIB


@pytest.fixture
def big(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "big.iso"
    rng = random.Random(2)
    with path.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(rng.randbytes(MIB))
    yield path
    path.unlink()


def digest(path: Path) -> str:
    own = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(MIB):
            own.update(piece)
    return own.hexdigest()


def curl(*arguments: str) -> subprocess.Popen[bytes]:
    quiet = [judge("curl"), "-q", "-sS", "--noproxy", "*", "-m", "300"]
    return subprocess.Popen([*quiet, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.case(46)
@pytest.mark.judge("curl")
@pytest.mark.parametrize("where", ["default", pytest.param("shared", marks=pytest.mark.judge("postgres"))])
def test_shown(where: str, world: World, big: Path, tmp_path: Path) -> None:
    service = Service("serve", world.shared() if where == "shared" else None, world.work, world.nursery, state=tmp_path)
    service.start()
    try:
        with Cutter(service.port) as line:
            _send_with_curl_and_cut(line, big)
            assert list(listed(service.port)) == []
            url = _send_with_tuspy_killed_three_times(world, line, big, tmp_path)
            _fetch_with_curl_from_where_it_stands(line, url, big, tmp_path / "back.iso")
        _bundle(service)
    finally:
        service.stop()


def _send_with_curl_and_cut(line: Cutter, big: Path) -> None:
    headers = ["-H", "Transfer-Encoding: chunked", "-H", f'Content-Disposition: attachment; filename="{big.name}"']
    client = curl("-X", "POST", "-T", str(big), *headers, "-H", "Expect:", f"{line.url}/files")
    line.arm(SIZE // 2, client.kill)
    client.communicate(timeout=300)
    assert client.returncode == -signal.SIGKILL
    assert line.struck.wait(10)


def _send_with_tuspy_killed_three_times(world: World, line: Cutter, big: Path, tmp_path: Path) -> str:
    running: list[int] = []

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(running[-1], signal.SIGKILL)

    memory = tmp_path / "tuspy.json"
    for time_round in range(4):
        if time_round < 3:
            line.arm(SIZE // 4 + 12_345, kill)
        else:
            line.disarm()
        log = tmp_path / f"tuspy-{time_round}.log"
        command = ["tests.files.tuspy_client", f"{line.url}/files", str(big), str(memory), str(PIECE)]
        running.append(world.nursery.bear(command, log))
        gone(running[-1], 300)
        said = log.read_text()
        assert ("uploaded" in said) == (time_round == 3), said
    return said.split()[-1].removeprefix(line.url)


def _fetch_with_curl_from_where_it_stands(line: Cutter, url: str, big: Path, back: Path) -> None:
    for share in (3, 2, None):
        if share:
            line.arm((SIZE - (back.stat().st_size if back.exists() else 0)) // share, way="down")
        else:
            line.disarm()
        client = curl("-C", "-", "-o", str(back), f"{line.url}{url}")
        _, said = client.communicate(timeout=300)
        assert (client.returncode == 0) == (share is None), said
    sha256 = digest(big)
    assert digest(back) == sha256
    told = ask(line.target, "HEAD", url)
    assert told.headers["content-length"] == str(SIZE)
    deadline = time.monotonic() + (120 if SOAK else 20)
    while told.headers["etag"] != f'"{sha256}"':  # it may still be read over once
        assert time.monotonic() < deadline, told.headers
        time.sleep(0.1)
        told = ask(line.target, "HEAD", url)
    assert big.name in told.headers["content-disposition"]


def _bundle(service: Service) -> None:
    contents = [content(f"three {n}", size) for n, size in enumerate((700_000, 1, 1_300_000))]
    urls = [post(service.port, f"{n}.bin", data).document["url"] for n, data in enumerate(contents)]
    path = bundle_path(urls)
    first = ask(service.port, "GET", path)
    assert first.status == 200, first
    no_descriptors(first.body, contents)
    service.kill()
    service.forget_ledger()
    service.start()
    resumes(service.port, path, first.body, first.headers["etag"], edges(first.body)[:: 1 if SOAK else 4])
