"""The stored files of ``streamware serve``: the file service for programs, pages for people, figures of both.

The rule of this file: what may be done, and what comes of it, the file service says; here it is only told to people,
who are those that say they take HTML.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import falcon
import falcon.asgi

from streamware.edge import App, AsyncBody, Message, Receive, Scope, Send, run
from streamware.filestore import FileStore
from streamware.leftovers import Swept
from streamware.policy import Policy
from streamware.reply import BytesBody, Reply
from streamware.resources import AsgiResource, AsyncFilesResource
from streamware.resources_base import begin
from streamware.server.metrics import Metrics
from streamware.server.page import POLICY, View
from streamware.server.uploads_page import NEWEST, PAGE_FILES, discard_page, uploads_page
from streamware.service import Archiver
from streamware.stored import StoredFile, Upload
from streamware.upload_errors import (
    DeleteForbidden,
    FileUnknown,
    LengthRequired,
    UploadInvalid,
    UploadTooLarge,
    UploadTooSlow,
)

__all__ = ["CountedStore", "Counting", "Discard", "Uploads", "page_reply", "view_of"]

_log = logging.getLogger("streamware.server")

_BRINGS = ("POST", "PATCH")
_MOST_FORM = 1 << 20  # bytes of a form that asks to delete files


def view_of(req: falcon.Request, plain: View = View()) -> View:  # noqa: B008 - a frozen value
    """How a list is wanted; what makes no sense is as if it were not there."""
    sort, page = req.get_param("sort", default=""), req.get_param("page", default="1")
    view = plain._replace(
        query=req.get_param("q", default="")[:200],
        page=int(page) if page.isascii() and page.isdigit() and len(page) < 8 else 1,
    )
    if sort not in ("name", "size", "time") and req.get_param("order") is None:
        return view
    known = sort if sort in ("name", "size", "time") else plain.sort
    return view._replace(sort=known, descending=req.get_param("order") == "desc")


def page_reply(page: str, headers: Sequence[tuple[str, str]] = (), *, status: int = 200) -> Reply:
    """A page as the answer."""
    data = page.encode("utf-8", "replace")
    own = (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", str(len(data))),
        ("Content-Security-Policy", POLICY),
        # With less, browsers would say of its own forms that they come from nowhere, and be refused.
        ("Referrer-Policy", "same-origin"),
    )
    return Reply(status, (*headers, *own), BytesBody(data))


def _for_people(req: falcon.Request) -> bool:
    return "text/html" in req.accept.lower()


def see_other(way: str) -> Reply:
    """What a form is answered with, so that a reload does not send it again (RFC 9110 section 15.4.4)."""
    return Reply(303, (("Location", way), ("Content-Length", "0"), ("Cache-Control", "no-store")))


class Uploads(AsyncFilesResource):
    """``/files``: the file service; to people, a page of it, and after their form the way back to that page."""

    def __init__(self, archiver: Archiver) -> None:
        super().__init__(archiver)
        self._page = _Page(archiver)

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **params: Any) -> None:
        if _for_people(req):
            await self._page.on_get(req, resp, **params)
        else:
            await super().on_get(req, resp, **params)
            resp.append_header("Vary", "Accept")

    async def on_head(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **params: Any) -> None:
        await self.on_get(req, resp, **params)

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **params: Any) -> None:
        await super().on_post(req, resp, **params)
        if resp.status_code != 201 or resp.content_type != "application/json" or not _for_people(req):
            return  # a client of tus among them
        body: Any = resp.stream
        told = json.loads(b"".join([piece async for piece in body]))
        await body.close()
        reply = see_other(f"files?new={len(told.get('files', (told,)))}")
        begin(req, resp, reply)
        resp.stream = AsyncBody(self.archiver, reply.body)


class _Page(AsgiResource):
    async def _ask(self, req: falcon.asgi.Request, params: dict[str, Any]) -> Reply:
        return await run(self.archiver, self._look, req)

    def _look(self, req: falcon.asgi.Request) -> Reply:
        store, policy = self.archiver.files, self.archiver.policy
        assert store is not None
        after, new = req.get_param("after"), req.get_param("new", default="")
        try:
            files, on = store.listed(limit=PAGE_FILES, after=after)
        except ValueError as error:
            raise UploadInvalid("after must be what a page before has given.") from error
        page = uploads_page(
            files,
            view_of(req, NEWEST),
            after=after,
            on=on,
            most=policy.max_upload_bytes,
            discards=policy.allow_delete,
            stored=int(new) if new.isascii() and new.isdigit() and len(new) < 6 else 0,
        )
        return page_reply(page, [("Vary", "Accept"), ("Cache-Control", "no-cache")])


class Discard(AsgiResource):
    """``/files/delete``: where the form of the page leads; asks its user once more before it deletes."""

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **params: Any) -> None:
        await self.on_get(req, resp, **params)

    async def _ask(self, req: falcon.asgi.Request, params: dict[str, Any]) -> Reply:
        if req.method != "POST":
            return see_other("../files")
        length = req.content_length
        if length is None:
            raise LengthRequired("a form without length")
        if length > _MOST_FORM:
            raise UploadTooLarge(f"A form may have {_MOST_FORM} bytes here.")
        try:
            data = await asyncio.wait_for(req.stream.read(length), self.archiver.policy.read_timeout_seconds)
        except asyncio.TimeoutError as error:
            raise UploadTooSlow() from error
        return await run(self.archiver, self._discard, data)

    def _discard(self, data: bytes) -> Reply:
        store, policy = self.archiver.files, self.archiver.policy
        assert store is not None
        if not policy.allow_delete:
            raise DeleteForbidden()
        try:
            form = parse_qs(data.decode("ascii"), max_num_fields=policy.max_listed_files + 10)
        except ValueError as error:
            raise UploadInvalid("The form cannot be read, or names too many files at once.") from error
        found = store.files([path.removeprefix("/files/") for path in form.get("path", ())])
        if not found:
            raise FileUnknown("none of those that are to be deleted")
        if form.get("sure") != ["yes"]:
            return page_reply(discard_page(list(found.values()), "../"), [("Cache-Control", "no-store")])
        for each in found:
            try:
                store.end(each)
            except FileUnknown:
                pass  # as it is to be
        return see_other("../files")


class CountedStore(FileStore):
    """A file store that tells its figures, and the log what it has swept out."""

    def __init__(self, url: str, database: str, policy: Policy, metrics: Metrics) -> None:
        super().__init__(url, database, policy=policy)
        self._metrics = metrics

    def finish(self, upload: Upload) -> StoredFile:
        return self._stored(super().finish(upload))

    def join(self, ids: Sequence[str], name: str, media_type: str, **about: str) -> StoredFile:
        return self._stored(super().join(ids, name, media_type, **about))

    def _stored(self, file: StoredFile) -> StoredFile:
        self._metrics.file_stored(file.size)
        return file

    def sweep(self) -> Swept:
        swept = super().sweep()
        self._metrics.files_swept(swept.files)
        if any(swept[:5]):
            _log.info("swept the file store: %s", swept)
        return swept


class Counting:
    """ASGI middleware that counts the requests that bring something to ``/files``, and their bytes."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _BRINGS or not _of_files(scope["path"]):
            await self._app(scope, receive, send)
            return
        metrics, outcome = self._metrics, "left"

        async def received() -> Message:
            message = await receive()
            metrics.upload_received(len(message.get("body", b"")))
            return message

        async def sent(message: Message) -> None:
            nonlocal outcome
            if message["type"] == "http.response.start":
                outcome = "taken" if message["status"] < 400 else "refused"
            await send(message)

        metrics.upload_started()
        try:
            await self._app(scope, received, sent)
        finally:
            metrics.upload_ended(outcome)


def _of_files(path: str) -> bool:
    return path == "/files" or (path.startswith("/files/") and path != "/files/delete")
