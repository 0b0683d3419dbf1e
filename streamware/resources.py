"""Falcon resources: a bundle, another server's file, or the file service; for WSGI and ASGI apps.

The rules of this file: it is the only one that knows falcon, ``server/`` aside; and it translates. A Falcon request
becomes a call of the Archiver, the Reply becomes a Falcon response; what is answered is decided below.

Resources of bundles and of other servers' files have one method to override. ``falcon.HTTPError`` and its kin raised
there are answered by Falcon as usual, any ``StreamwareError`` as a problem (RFC 9457).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import falcon
import falcon.asgi

from streamware.admission import Ticket
from streamware.edge import AsyncBody, admitted, run
from streamware.errors import StreamwareError
from streamware.model import Bundle
from streamware.reply import Conditions, Reply
from streamware.resources_base import Resource, begin, receive_of, sends_body
from streamware.resources_files import AsgiFiles, WsgiFiles
from streamware.service import Archiver

__all__ = [
    "AsgiResource",
    "AsyncBundleResource",
    "AsyncFileResource",
    "AsyncFilesResource",
    "AsyncProxyResource",
    "AsyncTusResource",
    "BundleResource",
    "FileResource",
    "FilesResource",
    "ProxyResource",
    "TusResource",
]

# What a client may tell the upstream of a ProxyResource: what it takes, which part, and what it has already.
_PASSED = (
    "accept",
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
)


class _WsgiResource(Resource, ABC):
    def on_get(self, req: falcon.Request, resp: falcon.Response, **params: Any) -> None:
        self._meet(req.env)
        try:
            reply = self._ask(req, params)
        except StreamwareError as error:
            reply = self.archiver.problem(error)
        begin(req, resp, reply)
        if not sends_body(req, reply):
            reply.body.close()
        resp.stream = reply.body

    def on_head(self, req: falcon.Request, resp: falcon.Response, **params: Any) -> None:
        self.on_get(req, resp, **params)

    @abstractmethod
    def _ask(self, req: falcon.Request, params: dict[str, Any]) -> Reply: ...


class AsgiResource(Resource, ABC):
    """Sends the Reply that ``_ask`` gives, on ``falcon.asgi.App``; the client's leaving ends it at once."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **params: Any) -> None:
        self._meet(req.scope)
        try:
            reply = await self._ask(req, params)
        except StreamwareError as error:
            reply = self.archiver.problem(error)
        begin(req, resp, reply)
        if sends_body(req, reply):
            resp.stream = AsyncBody(self.archiver, reply.body, receive=receive_of(req))
        else:
            resp.stream = stream = AsyncBody(self.archiver, reply.body)
            await stream.close()

    async def on_head(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **params: Any) -> None:
        await self.on_get(req, resp, **params)

    @abstractmethod
    async def _ask(self, req: falcon.asgi.Request, params: dict[str, Any]) -> Reply: ...


class BundleResource(_WsgiResource):
    """A bundle as a download, on ``falcon.App``. Answers GET and HEAD, conditional and range requests.

    :param archiver: shared by all resources; closed by whoever made it, when the process ends.
    """

    @abstractmethod
    def make_bundle(self, req: falcon.Request, *args: Any, **params: Any) -> Bundle:
        """Describe the download. ``params`` are the fields of the route's template, by name.

        :raises falcon.HTTPError: answered by Falcon as usual.
        :raises StreamwareError: answered as a problem.
        """

    def _ask(self, req: falcon.Request, params: dict[str, Any]) -> Reply:
        return _bundled(self.archiver, req, self.make_bundle(req, **params))


class AsyncBundleResource(AsgiResource):
    """A bundle as a download, on ``falcon.asgi.App``. Answers GET and HEAD, conditional and range requests.

    Members are read on the archiver's own threads; a client that leaves ends every upstream at once.

    :param archiver: shared by all resources; closed by whoever made it, when the process ends.
    """

    @abstractmethod
    async def make_bundle(self, req: falcon.asgi.Request, *args: Any, **params: Any) -> Bundle:
        """Describe the download; see ``BundleResource.make_bundle``. Runs on the event loop."""

    async def _ask(self, req: falcon.asgi.Request, params: dict[str, Any]) -> Reply:
        bundle = await self.make_bundle(req, **params)
        return await admitted(
            self.archiver, _conditions(self.archiver, req).client, _bundled, self.archiver, req, bundle
        )


class ProxyResource(_WsgiResource):
    """One file of another server, passed on as it comes, on ``falcon.App``.

    Size, type, validators and ranges are the upstream's: the client's Accept, Range and conditional headers reach it,
    and its answer to them, be it 200, 206, 304 or 416, reaches the client.

    :param archiver: shared by all resources; closed by whoever made it, when the process ends.
    """

    @abstractmethod
    def make_url(self, req: falcon.Request, *args: Any, **params: Any) -> str:
        """The absolute URL to fetch, trusted as code is: quote what a client had a say in.

        ``params`` are the fields of the route's template, by name.

        :raises falcon.HTTPError: answered by Falcon as usual.
        :raises StreamwareError: answered as a problem.
        """

    def make_headers(self, req: falcon.Request, *args: Any, **params: Any) -> Mapping[str, str]:
        """Further headers for the upstream, such as Authorization; they replace the client's, by name."""
        return {}

    def _ask(self, req: falcon.Request, params: dict[str, Any]) -> Reply:
        return _forwarded(self.archiver, req, self.make_url(req, **params), self.make_headers(req, **params))


class AsyncProxyResource(AsgiResource):
    """One file of another server, passed on as it comes, on ``falcon.asgi.App``; see ``ProxyResource``.

    :param archiver: shared by all resources; closed by whoever made it, when the process ends.
    """

    @abstractmethod
    async def make_url(self, req: falcon.asgi.Request, *args: Any, **params: Any) -> str:
        """The absolute URL to fetch; see ``ProxyResource.make_url``. Runs on the event loop."""

    async def make_headers(self, req: falcon.asgi.Request, *args: Any, **params: Any) -> Mapping[str, str]:
        """Further headers for the upstream; see ``ProxyResource.make_headers``."""
        return {}

    async def _ask(self, req: falcon.asgi.Request, params: dict[str, Any]) -> Reply:
        url = await self.make_url(req, **params)
        headers = await self.make_headers(req, **params)
        return await run(self.archiver, _forwarded, self.archiver, req, url, headers)


# --- shared by both flavours of bundles and of other servers' files ----------------------------------------------


def _conditions(archiver: Archiver, req: falcon.Request) -> Conditions:
    header = archiver.policy.client_header
    if isinstance(req, falcon.asgi.Request):
        return Conditions.from_scope(req.scope, client_header=header)
    return Conditions.from_environ(req.env, client_header=header)


def _bundled(archiver: Archiver, req: falcon.Request, bundle: Bundle, ticket: Ticket | None = None) -> Reply:
    return archiver.respond(bundle, _conditions(archiver, req), ticket=ticket)


def _forwarded(archiver: Archiver, req: falcon.Request, url: str, extra: Mapping[str, str]) -> Reply:
    headers = {name: value for name, value in req.headers_lower.items() if name in _PASSED}
    headers.update((name.lower(), value) for name, value in extra.items())
    conditions = _conditions(archiver, req)
    return archiver.forward(url, method=req.method, headers=headers.items(), conditions=conditions)


# --- stored files ------------------------------------------------------------------------------------------------


class FilesResource(WsgiFiles):
    """All stored files, on ``falcon.App``: POST adds files, as a raw body, a form or by tus; GET lists them.

    ``app.add_route("/files", FilesResource(archiver))``, with a FileResource at ``/files/{id}``.

    :param archiver: made with ``files``; shared by all resources, closed by whoever made it.
    :raises ValueError: it was made without.
    """

    def on_get(self, req: falcon.Request, resp: falcon.Response, **params: Any) -> None:
        self._answer(req, resp, None)

    on_head = on_post = on_options = on_get


class FileResource(WsgiFiles):
    """One stored file, on ``falcon.App``: GET and HEAD give it out, PATCH goes on with an upload, DELETE ends it.

    ``app.add_route("/files/{id}", FileResource(archiver))``; see FilesResource.
    """

    def on_get(self, req: falcon.Request, resp: falcon.Response, id: Any, **params: Any) -> None:
        self._answer(req, resp, str(id))

    # A POST may stand for another method (X-HTTP-Method-Override).
    on_head = on_patch = on_delete = on_post = on_options = on_get


class TusResource(WsgiFiles):
    """Uploads by tus 1.0.0 and nothing else, on ``falcon.App``. One resource is for two routes: ``/uploads`` and
    ``/uploads/{id}``; see FilesResource.
    """

    _tus_only = True

    def on_post(self, req: falcon.Request, resp: falcon.Response, id: Any = None, **params: Any) -> None:
        self._answer(req, resp, None if id is None else str(id))

    on_head = on_patch = on_delete = on_options = on_post


class AsyncFilesResource(AsgiFiles):
    """All stored files, on ``falcon.asgi.App``; see FilesResource.

    With ``streamware.middleware.ExpectContinue`` around the app, clients that ask first are refused before they send.
    """

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **params: Any) -> None:
        await self._answer(req, resp, None)

    on_head = on_post = on_options = on_get


class AsyncFileResource(AsgiFiles):
    """One stored file, on ``falcon.asgi.App``; see FileResource."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, id: Any, **params: Any) -> None:
        await self._answer(req, resp, str(id))

    on_head = on_patch = on_delete = on_post = on_options = on_get


class AsyncTusResource(AsgiFiles):
    """Uploads by tus 1.0.0 and nothing else, on ``falcon.asgi.App``; see TusResource."""

    _tus_only = True

    async def on_post(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, id: Any = None, **params: Any
    ) -> None:
        await self._answer(req, resp, None if id is None else str(id))

    on_head = on_patch = on_delete = on_options = on_post
