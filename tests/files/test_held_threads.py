"""Requests for files that have to wait: they hold none of the threads that give downloads out.

This module is also the app that the server runs. It has one thread for downloads and one for uploads; a request that
says so waits on whichever thread it was asked on, as one does for a slow store, until the test lets it go.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import falcon
import falcon.asgi
import pytest

from streamware import Archiver, FileStore, Policy
from streamware.file_request import FileRequest
from streamware.resources import AsyncFileResource, AsyncFilesResource
from tests.hosts.falcon_servers import hosting

DATA = bytes(range(251)) * 400  # more than an answer that is made in memory
TUS = {"Tus_Resumable": "1.0.0"}

_waits, _over = threading.Event(), threading.Event()


def authorize(action: str, request: FileRequest) -> bool:
    if request.header("x-wait"):
        _waits.set()
        _over.wait(30)
    return True


class Waiting:
    """GET answers once a request waits; POST ends its waiting."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        while not _waits.is_set():
            await asyncio.sleep(0.01)

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        _over.set()


def asgi() -> Any:
    policy = Policy(authorize=authorize, allow_delete=True, pump_threads=1)
    archiver = Archiver(policy, files=FileStore(os.environ["STORE"], os.environ["STATE"], policy=policy))
    app = falcon.asgi.App()
    app.add_route("/waiting", Waiting())
    app.add_route("/files", AsyncFilesResource(archiver))
    app.add_route("/files/{id}", AsyncFileResource(archiver))
    return app


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("HEAD", {}, 200), ("HEAD", TUS, 200), ("DELETE", {}, 204), ("DELETE", TUS, 204)],
)
def test_what_waits_for_a_store_holds_no_download(
    method: str, headers: dict[str, str], status: int, tmp_path: Path
) -> None:
    env = {"STORE": f"file://{tmp_path}/store", "STATE": f"sqlite:///{tmp_path}/state.sqlite3"}
    with (
        hosting("asgi", f"{__name__}:asgi()", log=tmp_path / "log", env=env) as host,
        ThreadPoolExecutor(1) as other,
    ):
        path = host.ask("/files", "POST", DATA).headers["location"]
        waiting = other.submit(host.ask, path, method, X_Wait="1", **headers)
        try:
            assert host.ask("/waiting").status == 200
            assert host.ask(path).body == DATA
            assert not waiting.done()
        finally:
            host.ask("/waiting", "POST")
        assert waiting.result(20).status == status
