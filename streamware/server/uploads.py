"""The stored files of ``streamware serve``: the file service for programs, pages for people, figures of both.

The rule of this file: what may be done, and what comes of it, the file service says; here it is only told to people,
who are those that say they take HTML.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import falcon
import falcon.asgi

from streamware.edge import App, Message, Receive, Scope, Send, run
from streamware.filestore import FileStore
from streamware.policy import Policy
from streamware.reply import BytesBody, Reply
from streamware.resources import AsgiResource, AsyncFilesResource
from streamware.server.metrics import Metrics
from streamware.server.page import POLICY, View
from streamware.server.uploads_page import NEWEST, PAGE_FILES, discard_page, uploads_page
from streamware.service import Archiver
from streamware.stored import StoredFile, Upload
from streamware.sweeper import Swept
from streamware.upload_errors import DeleteForbidden, FileUnknown, LengthRequired, UploadInvalid, UploadTooLarge

__all__ = ["CountedStore", "Counting", "Discard", "Uploads", "page_reply", "view_of"]

_log = logging.getLogger("streamware.server")

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


def see_other(way: str) -> Reply:
    """What a form is answered with, so that a reload does not send it again (RFC 9110 section 15.4.4)."""
    return Reply(303, (("Location", way), ("Content-Length", "0"), ("Cache-Control", "no-store")))


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
        data = await req.stream.read(length)
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
        for id in found:
            try:
                store.end(id)
            except FileUnknown:
                pass  # as it is to be
        return see_other("../files")
