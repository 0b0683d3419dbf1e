"""What read-ahead is for: many small members of an upstream that answers late, through real hosts."""

from __future__ import annotations

import http.client
import io
import json
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hosts.ahead_upstream import BODY, SECONDS
from tests.hosts.servers import ROOT, Server, gunicorn, uvicorn

MEMBERS = 500
IDEAL = -(-MEMBERS // 16) * SECONDS  # seconds, over 16 connections
NOISY = 1.5  # what a busy machine may take of it; a quiet one takes 1.1 or less


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.hosts.ahead_upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@contextmanager
def host(kind: str, upstream: str) -> Iterator[Server]:
    env = {"UPSTREAM": upstream, "LISTING": "/dev/null"}
    start = gunicorn if kind == "wsgi" else uvicorn
    with start(f"tests.hosts.main_apps:{kind}_middleware", env=env) as server:
        yield server


def most_at_once(upstream: str) -> int:
    connection = http.client.HTTPConnection(upstream.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", "/most")
        return int(connection.getresponse().read())
    finally:
        connection.close()


@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_500_small_members_of_a_late_upstream(kind: str, form: str, upstream: str, tmp_path: Path) -> None:
    with host(kind, upstream) as server:

        def took(size: int | None, count: int = MEMBERS) -> float:
            members = [{"name": str(n), "url": f"{upstream}/{n}"} for n in range(count)]
            if size is not None:
                members = [{**member, "size": size} for member in members]
            manifest = json.dumps({"name": f"b.{form}", "members": members}).encode()
            began = time.monotonic()
            response = server.request("POST", "/bundle", {"Content-Type": "application/json"}, manifest)
            seconds = time.monotonic() - began
            assert response.status == 200, response.body[:500]
            assert contents(response.body, form) == [(str(n), BODY) for n in range(count)]
            return seconds

        took(None, 2)  # a process that has just started is not what is measured
        # Whatever else the machine does makes it slower, never faster: the best of three tells.
        given = min(took(len(BODY)) for _ in range(3)) / IDEAL
        # As small as they are, whoever is asked for the size gives the bytes along with it.
        asked = min(took(None) for _ in range(3)) / IDEAL
    print(f"{MEMBERS} members, {kind}, {form}: {given:.2f} of the ideal {IDEAL:.2f} s; sizes asked for: {asked:.2f}")
    assert given < NOISY
    assert asked < NOISY
    assert most_at_once(upstream) <= 16


def contents(data: bytes, form: str) -> list[tuple[str, bytes]]:
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(name, archive.read(name)) for name in archive.namelist()]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(entry.name, tar.extractfile(entry).read()) for entry in tar]  # type: ignore[union-attr]
