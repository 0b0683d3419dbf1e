"""What all Falcon resources share: a Reply is put on a Falcon response, and the client's leaving is seen.

The rule of this file: it translates and decides nothing. ``resources`` alone knows falcon; what is needed of its
requests and responses here, and in ``resources_files``, the protocols say.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

from streamware.edge import Receive
from streamware.reply import Reply
from streamware.service import Archiver

__all__ = ["AsgiRequest", "Request", "Resource", "Response", "WsgiRequest", "begin", "receive_of", "sends_body"]

_log = logging.getLogger("streamware.resources")

_BODILESS = (204, 304)


class Request(Protocol):
    """What of a Falcon request is looked at, in both flavours."""

    @property
    def method(self) -> str: ...


class WsgiRequest(Request, Protocol):
    @property
    def env(self) -> dict[str, Any]: ...


class AsgiRequest(Request, Protocol):
    @property
    def scope(self) -> dict[str, Any]: ...

    @property
    def stream(self) -> Any: ...  # its ``read(size)`` is awaited


class Response(Protocol):
    """What of a Falcon response is set, in both flavours; each takes more kinds of values than are set here."""

    status: Any
    content_type: Any
    content_length: Any
    stream: Any

    def set_header(self, name: str, value: str) -> None: ...

    def append_header(self, name: str, value: str) -> None: ...


class Resource:
    """What all resources share. The resource never closes the archiver: whoever made it does."""

    def __init__(self, archiver: Archiver) -> None:
        self.archiver = archiver
        self._met = False  # the host, by a first request

    def _meet(self, request: Mapping[str, Any]) -> None:
        if not self._met:
            self._met = True
            self.archiver.meet(request)


def sends_body(req: Request, reply: Reply) -> bool:
    """Whether Falcon will touch ``resp.stream``: it neither iterates nor closes one that it does not send."""
    return req.method != "HEAD" and reply.status not in _BODILESS


def begin(req: Request, resp: Response, reply: Reply) -> None:
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
    if "content-length" not in seen and reply.body.length is not None and sends_body(req, reply):
        resp.content_length = reply.body.length


def receive_of(req: AsgiRequest) -> Receive | None:
    """The ASGI ``receive`` of a request, to watch for the client's leaving; None where there is nothing to watch.

    Falcon (4.4) has no public way to it, and its own loop over ``resp.stream`` never looks whether the client is still
    there (falcon#2015). Nothing else reads events at that time: Falcon takes the first one itself, ``req.stream`` takes
    the rest of the request while the responder runs, and the watcher of server-sent events runs only where there is no
    stream.
    """
    receive: Receive | None = getattr(req, "_receive", None)
    if receive is None:
        _warn_of_blindness(getattr(sys.modules.get("falcon"), "__version__", "of an unknown version"))
    elif getattr(receive, "disconnected", False):
        # falcon.testing: its ``simulate_get()`` says that it has left before it asks, and yet collects the answer.
        return None
    return receive


@cache
def _warn_of_blindness(version: str) -> None:
    _log.warning("falcon %s hides the request's receive(): a client that leaves is noticed only by its server", version)
