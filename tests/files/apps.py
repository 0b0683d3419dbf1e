"""The apps that the file service is tested in, as somebody would write them who mounts it beside a site of their own.

The rule of this file: set up from one variable, FILES_APP, a JSON object: ``store``, ``options``, ``database``,
``policy`` (fields of Policy), ``ledger`` (a URL, or null), ``crash`` (a folder, see ``crashing``), ``sweeping``.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import falcon
import falcon.asgi

from streamware import Archiver, FileStore, Policy
from streamware.edge_uploads import ExpectContinue
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware
from streamware.resources import (
    AsyncFileResource,
    AsyncFilesResource,
    AsyncTusResource,
    FileResource,
    FilesResource,
    TusResource,
)
from tests.files import crashing

__all__ = ["asgi", "wsgi"]


class _Health:
    """Says at once that the process answers, and which it is."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.text = str(os.getpid())


class _AsyncHealth:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.text = str(os.getpid())


class _Sweep:
    """Looks at once for what is to be removed; the answer is what that did."""

    def __init__(self, archiver: Archiver) -> None:
        self._archiver = archiver

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        assert self._archiver.files is not None
        resp.text = str(self._archiver.files.sweep())


class _AsyncSweep(_Sweep):
    async def on_post(  # type: ignore[override]
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response
    ) -> None:
        assert self._archiver.files is not None
        resp.text = str(await asyncio.to_thread(self._archiver.files.sweep))


def wsgi() -> Any:
    archiver = _archiver()
    app = falcon.App()
    app.add_route("/healthz", _Health())
    app.add_route("/sweep", _Sweep(archiver))
    app.add_route("/files", FilesResource(archiver))
    app.add_route("/files/{id}", FileResource(archiver))
    app.add_route("/uploads", TusResource(archiver))
    app.add_route("/uploads/{id}", TusResource(archiver))
    return BundleMiddleware(app, archiver=archiver)


def asgi() -> Any:
    archiver = _archiver()
    app = falcon.asgi.App()
    app.add_route("/healthz", _AsyncHealth())
    app.add_route("/sweep", _AsyncSweep(archiver))
    app.add_route("/files", AsyncFilesResource(archiver))
    app.add_route("/files/{id}", AsyncFileResource(archiver))
    app.add_route("/uploads", AsyncTusResource(archiver))
    app.add_route("/uploads/{id}", AsyncTusResource(archiver))
    return ExpectContinue(AsyncBundleMiddleware(app, archiver=archiver))


def _archiver() -> Archiver:
    settings = json.loads(os.environ["FILES_APP"])
    policy = Policy(**settings["policy"])
    store = FileStore(settings["store"], settings["database"], policy=policy, options=settings["options"])
    if settings["crash"]:
        crashing.watch(settings["crash"])
    if settings["sweeping"]:
        store.start()
    return Archiver(policy, settings["ledger"], files=store)
