"""The stand-alone app: ROOT on a page, as JSON, as raw files and, through the middleware, as archives.

The rule of this file: the event loop never touches the file system. Whatever looks at ROOT runs on the archiver's
threads and comes back as a Reply.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import falcon
import falcon.asgi

from streamware.edge import App, run
from streamware.edge_uploads import ExpectContinue
from streamware.errors import MemberForbidden, MemberNotFound
from streamware.middleware import AsyncBundleMiddleware
from streamware.model import File, Member, Members, Stored
from streamware.reply import BytesBody, Conditions, Reply
from streamware.resources import AsgiResource, AsyncFileResource
from streamware.server.files import Place, Root
from streamware.server.folder_page import folder_page, order
from streamware.server.guard import Guard
from streamware.server.listing import Pieces, folder_json, total_json
from streamware.server.metrics import CONTENT_TYPE, Metrics
from streamware.server.page import ASSETS, ASSETS_VERSION, base_of
from streamware.server.raw import reply_for_file
from streamware.server.tokens import Tokens
from streamware.server.uploads import Counting, Discard, Uploads, page_reply, view_of
from streamware.service import Archiver
from streamware.stored import is_file_id
from streamware.target import parse_href

__all__ = ["make_app"]

_NOT_FOUND = "There is nothing here."


def make_app(
    root: str, archiver: Archiver, metrics: Metrics, *, hidden: Iterable[str] = (), tokens: Tokens | None = None
) -> Guard:
    """The whole ASGI app.

    :param root: the directory to serve; absolute, links resolved.
    :param archiver: makes the archives, and has the file store if uploads are taken; closed by whoever made it.
    :param hidden: paths that are as if they were not there.
    :param tokens: who may use the server; None for everybody who can connect.
    """
    files = Root(root, max_members=archiver.policy.max_members, hidden=hidden)
    app = falcon.asgi.App()
    app.set_error_serializer(_problem)
    folder = _Folder(archiver, files)
    app.add_route("/", folder)
    app.add_route("/browse/{path:path}", folder)
    app.add_route("/tree/{path:path}", _Raw(archiver, files))
    app.add_route("/totals/{path:path}", _Totals(archiver, files))
    app.add_route("/assets/{name}", _Asset())
    app.add_route("/healthz", _Health())
    app.add_route("/metrics", _Figures(metrics))
    local: Callable[[str], Members | None] = files.members
    if archiver.files is not None:
        app.add_route("/files", Uploads(archiver))
        app.add_route("/files/delete", Discard(archiver))
        app.add_route("/files/{id}", AsyncFileResource(archiver))
        local = _Local(files)
    # Falcon asks for dict where ASGI promises a mapping.
    inner = ExpectContinue(cast(App, app))
    bundles = AsyncBundleMiddleware(inner, path="/bundle", archiver=archiver, local=local)
    return Guard(Counting(bundles, metrics), tokens)


class _Local:
    """The members that stand for an href without a request to ourselves: files below ROOT, and stored ones.

    Of these nothing is looked up here: the planning of the bundle asks for all of them at once.
    """

    def __init__(self, files: Root) -> None:
        self._files = files

    def __call__(self, href: str) -> Members | None:
        head, _, rest = parse_href(href).raw_path[1:].partition(b"/")
        if unquote_to_bytes(head) == b"files" and is_file_id(last := unquote_to_bytes(rest).decode("latin-1")):
            return Members([Member("", Stored(last))])
        return self._files.members(href)


class _Below(AsgiResource):
    """A resource whose URL ends in a path below ROOT."""

    def __init__(self, archiver: Archiver, files: Root) -> None:
        super().__init__(archiver)
        self._files = files

    async def _ask(self, req: falcon.asgi.Request, params: dict[str, Any]) -> Reply:
        place = _place(req)
        if place is None:
            raise falcon.HTTPNotFound
        try:
            return await run(self.archiver, self._reach, req, place)
        except MemberNotFound as error:
            raise falcon.HTTPNotFound from error
        except MemberForbidden as error:
            raise falcon.HTTPForbidden(title="This server may not read that.") from error

    def _reach(self, req: falcon.asgi.Request, place: Place) -> Reply:
        if self._files.hides(place):
            raise MemberNotFound("hidden")
        return self.look(req, place)

    def look(self, req: falcon.asgi.Request, place: Place) -> Reply:
        """Answer; runs on a thread of the archiver and may block."""
        raise falcon.HTTPNotFound


class _Folder(_Below):
    def look(self, req: falcon.asgi.Request, place: Place) -> Reply:
        if req.path != "/" and not place.parts:
            return _redirect("../")
        if not place.folder and self._files.is_folder(place):
            return _redirect(Place(place.parts[-1:], folder=True).href)
        listing = self._files.listing(place)
        view = view_of(req)
        headers = [("Vary", "Accept"), ("Cache-Control", "no-cache")]
        if (
            req.get_param("format") == "json"
            or req.client_prefers(("text/html", "application/json")) == "application/json"
        ):
            headers.append(("Content-Type", "application/json"))
            pieces = folder_json(self._files.name, place, listing, order(listing.items, view))
            return Reply(200, tuple(headers), Pieces(pieces))
        uploads = self.archiver.files is not None
        page = folder_page(self._files.name, place, listing, view, uploads=uploads)
        return page_reply(page, headers)


class _Raw(_Below):
    def look(self, req: falcon.asgi.Request, place: Place) -> Reply:
        if self._files.is_folder(place):
            way = Place(place.parts, folder=True).href
            return _redirect(base_of(req.scope["raw_path"]) + (f"browse/{way}" if way else ""))
        if place.folder:
            raise MemberNotFound("a file is not asked for with a slash")
        conditions = Conditions.of(req.method, req.headers.items())
        file = File(place.path, root=self._files.top)
        return reply_for_file(file, conditions, self.archiver.policy, self.archiver.problem)


class _Totals(_Below):
    def look(self, req: falcon.asgi.Request, place: Place) -> Reply:
        headers = [("Content-Type", "application/json"), ("Cache-Control", "no-cache")]
        return _whole(total_json(place, self._files.total(place)), headers)


class _Asset:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        if name not in ASSETS:
            raise falcon.HTTPNotFound
        resp.content_type, resp.data = ASSETS[name]
        # The page asks for each by the hash of what is in them.
        fresh = "public, max-age=31536000, immutable"
        resp.set_header("Cache-Control", fresh if req.get_param("v") == ASSETS_VERSION else "no-cache")

    on_head = on_get


class _Health:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.content_type, resp.data = "text/plain; charset=utf-8", b"ok"
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get


class _Figures:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        # On the loop's own executor: it must answer while every thread of the archiver is at work.
        resp.data = await asyncio.get_running_loop().run_in_executor(None, self._metrics.text)
        resp.content_type = CONTENT_TYPE
        resp.set_header("Cache-Control", "no-store")


def _place(req: falcon.asgi.Request) -> Place | None:
    """The place a request speaks of, from its path as it came: decoded, a path cannot be taken apart any more."""
    raw: bytes = req.scope["raw_path"]
    head, _, rest = raw[1:].partition(b"/")
    return None if b"/" in unquote_to_bytes(head) else Place.of(rest)


def _redirect(way: str) -> Reply:
    return Reply(302, (("Location", way), ("Content-Length", "0"), ("Cache-Control", "no-cache")))


def _whole(data: bytes, headers: list[tuple[str, str]]) -> Reply:
    return Reply(200, (*headers, ("Content-Length", str(len(data)))), BytesBody(data))


def _problem(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Falcon's own errors in the form of all others (RFC 9457)."""
    status = falcon.http_status_to_code(error.status)
    title = _NOT_FOUND if isinstance(error, falcon.HTTPNotFound) else error.title
    document = {"type": "about:blank", "title": title, "status": status}
    if error.description:
        document["detail"] = error.description
    resp.content_type = "application/problem+json"
    resp.data = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
