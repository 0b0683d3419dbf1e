"""Falcon resources: a bundle, or another server's file, as the answer to a GET; for WSGI and ASGI apps.

The rule of this file: it translates. A Falcon request becomes a call of the Archiver, the Reply becomes a Falcon
response; what is answered is decided below. It is the only library file, besides ``server/``, that imports falcon.

Each resource has one method to override. ``falcon.HTTPError`` and its kin raised there are answered by Falcon as usual,
any ``StreamwareError`` as a problem (RFC 9457).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Any

import falcon
import falcon.asgi

from streamware.admission import Ticket
from streamware.edge import AsyncBody, Receive, admitted, run
from streamware.errors import StreamwareError
from streamware.model import Bundle
from streamware.reply import Conditions, Reply
from streamware.service import Archiver

__all__ = ["AsyncBundleResource", "AsyncProxyResource", "BundleResource", "ProxyResource"]

_log = logging.getLogger(__name__)

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
_BODILESS = (204, 304)


class _Resource:
    """What all four share. The resource never closes the archiver: whoever made it does."""

    def __init__(self, archiver: Archiver) -> None:
        self.archiver = archiver
        self._met = False  # the host, by a first request

    def _meet(self, request: Mapping[str, Any]) -> None:
        if not self._met:
            self._met = True
            self.archiver.meet(request)


class _WsgiResource(_Resource, ABC):
    def on_get(self, req: falcon.Request, resp: falcon.Response, **params: Any) -> None:
        self._meet(req.env)
        try:
            reply = self._ask(req, params)
        except StreamwareError as error:
            reply = self.archiver.problem(error)
        _begin(req, resp, reply)
        if not _sends_body(req, reply):
            reply.body.close()
        resp.stream = reply.body

    def on_head(self, req: falcon.Request, resp: falcon.Response, **params: Any) -> None:
        self.on_get(req, resp, **params)

    @abstractmethod
    def _ask(self, req: falcon.Request, params: dict[str, Any]) -> Reply: ...


class AsgiResource(_Resource, ABC):
    """Sends the Reply that ``_ask`` gives, on ``falcon.asgi.App``; the client's leaving ends it at once."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **params: Any) -> None:
        self._meet(req.scope)
        try:
            reply = await self._ask(req, params)
        except StreamwareError as error:
            reply = self.archiver.problem(error)
        _begin(req, resp, reply)
        if _sends_body(req, reply):
            resp.stream = AsyncBody(self.archiver, reply.body, receive=_receive_of(req))
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


# --- shared by both flavours -------------------------------------------------------------------------------------


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


def _sends_body(req: falcon.Request, reply: Reply) -> bool:
    """Whether Falcon will touch ``resp.stream``: it neither iterates nor closes one that it does not send."""
    return req.method != "HEAD" and reply.status not in _BODILESS


def _begin(req: falcon.Request, resp: falcon.Response, reply: Reply) -> None:
    """Put the head of a reply on a response.

    The stream must be set even where no body goes out: without one Falcon answers a HEAD with ``Content-Length: 0``.
    """
    resp.status = reply.status
    if reply.status not in _BODILESS:
        # Where no type is known Falcon would claim its default, JSON; RFC 9110 section 8.3 lets it be this one.
        resp.content_type = "application/octet-stream"
    seen = set()
    for name, value in reply.headers:
        key = name.lower()
        if key in seen or key == "set-cookie":
            resp.append_header(name, value)
        else:
            resp.set_header(name, value)
            seen.add(key)
    if "content-length" not in seen and reply.body.length is not None and _sends_body(req, reply):
        resp.content_length = reply.body.length


def _receive_of(req: falcon.asgi.Request) -> Receive | None:
    """The ASGI ``receive`` of a request, to watch for the client's leaving; None where there is nothing to watch.

    Falcon (4.4) has no public way to it, and its own loop over ``resp.stream`` never looks whether the client is still
    there (falcon#2015). Nothing else reads events at that time: Falcon takes the first one itself, ``req.stream`` takes
    the rest of the request while the responder runs, and the watcher of server-sent events runs only where there is no
    stream.
    """
    receive: Receive | None = getattr(req, "_receive", None)
    if receive is None:
        _warn_of_blindness(falcon.__version__)
    elif getattr(receive, "disconnected", False):
        # falcon.testing: its ``simulate_get()`` says that it has left before it asks, and yet collects the answer.
        return None
    return receive


@cache
def _warn_of_blindness(version: str) -> None:
    _log.warning("falcon %s hides the request's receive(): a client that leaves is noticed only by its server", version)
