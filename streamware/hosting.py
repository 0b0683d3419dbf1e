"""What can be told of the host a request came through: whether a broken body shows there, and who is asking.

The rule of this file: pure, and it believes only what the host itself put into the environ or scope, as measured on
each; a host it does not know counts as a good one.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Network, ip_address
from sys import modules
from typing import Any, NamedTuple

__all__ = ["Host", "client_of", "closes_when_told", "host_of", "is_http_10", "unframed", "untold"]

_MAX_CLIENT = 200  # characters of what a header says of the client


class Host(NamedTuple):
    """A host that has to be known about.

    ``unframed``: why the end of a body without Content-Length cannot be trusted there, None where it can. ``advice``:
    what its operator is to do.
    """

    name: str
    unframed: str | None
    advice: str


_UWSGI = Host(
    "uWSGI",
    "uWSGI ends a broken body as if it were whole",
    "It shows a broken download only where the download has a Content-Length; others are refused. Serve with gunicorn "
    "--worker-class gthread.",
)
_GRANIAN = Host(
    "granian (WSGI)",
    "granian ends a broken WSGI body as if it were whole",
    "It shows a broken download only where the download has a Content-Length; others are refused. Serve an ASGI app, "
    "or with gunicorn --worker-class gthread.",
)
_WSGIREF = Host(
    "wsgiref",
    "wsgiref sends a body without length until the connection ends, however it ends",
    "It is made for development: downloads without a Content-Length are refused. Serve with gunicorn --worker-class "
    "gthread or waitress.",
)
_DAPHNE = Host(
    "daphne",
    "daphne hangs where a body breaks, and says nothing to the client",
    "It must not serve downloads: it takes a whole body into memory when the client is slow, and a download that "
    "breaks leaves the connection, and later failures, hanging. Downloads without a Content-Length are refused. Serve "
    "with uvicorn, hypercorn or granian.",
)
_GUNICORN_SYNC = Host(
    "gunicorn (sync)",
    None,
    "A sync worker serves one download at a time, and is killed with it after --timeout seconds. Use --worker-class "
    "gthread --threads 16.",
)
_HYPERCORN_WSGI = Host(
    "hypercorn (WSGI)",
    None,
    "It does not tell a WSGI app that a client has left, so a download that nobody reads runs on to its end. Serve an "
    "ASGI app, or with gunicorn --worker-class gthread.",
)


def host_of(
    request: Mapping[str, Any], start_response: object = None, *, loaded: Container[str] = modules
) -> Host | None:
    """The host, from a WSGI environ or an ASGI scope, if it is one that has to be known about; None for all others.

    :param start_response: the WSGI host's own, where it is at hand: hypercorn is known by nothing else.
    :param loaded: the names of the modules that this process has loaded.
    """
    if "wsgi.version" not in request:
        # daphne leaves no mark but that it, alone of all hosts, does not say which version of the spec it speaks. It is
        # also loaded without serving, by Django projects that name it as an app, so neither sign is enough.
        silent = "asgi" in request and "spec_version" not in request["asgi"]
        return _DAPHNE if silent and "daphne.server" in loaded else None
    software = str(request.get("SERVER_SOFTWARE", ""))
    if "uwsgi.version" in request:
        return _UWSGI
    if software == "Granian" or _module(type(request.get("wsgi.input"))).startswith("granian."):
        return _GRANIAN
    # The second is what CGI and FastCGI by wsgiref show, below any server.
    if software.startswith("WSGIServer/") or _module(request.get("wsgi.file_wrapper")) == "wsgiref.util":
        return _WSGIREF
    if "gunicorn.socket" in request and not request.get("wsgi.multithread"):
        return _GUNICORN_SYNC
    return _HYPERCORN_WSGI if _module(start_response).startswith("hypercorn.") else None


def is_http_10(request: Mapping[str, Any]) -> bool:
    """Whether the request is HTTP/1.0 (or older), of a client or of a proxy in front.

    Such a client knows no chunks: a body without Content-Length ends for it when the connection does (RFC 9112 section
    6.3).
    """
    version = str(request.get("SERVER_PROTOCOL") or request.get("http_version") or "")
    return version.upper().removeprefix("HTTP/") in ("1.0", "1", "0.9")  # granian says "1"


def unframed(request: Mapping[str, Any], *, loaded: Container[str] = modules) -> str | None:
    """Why a body without Content-Length would look whole to the client when it broke off; None: it would not.

    :param request: a WSGI environ or an ASGI scope.
    """
    if is_http_10(request):
        return "the request is HTTP/1.0, which tells no broken body from a whole one"
    host = host_of(request, loaded=loaded)
    return None if host is None else host.unframed


def untold(request: Mapping[str, Any]) -> str | None:
    """Why the end of a request's body without Content-Length cannot be told from a connection that broke off; None: it
    can.

    Measured with bodies cut in the middle and between two chunks, closed and reset (docs/hosts.md). Where there is a
    Content-Length, counting tells everywhere.

    :param request: a WSGI environ or an ASGI scope.
    """
    if "wsgi.version" not in request:
        return None  # "http.disconnect" comes instead of the body's last message, on all that are known
    if host_of(request) is _GRANIAN:
        return "granian ends a WSGI request's body that broke off as if it were whole"
    if not request.get("wsgi.input_terminated"):
        # uWSGI gives nothing of such a body, wsgiref its chunks undecoded and then waits for ever, hypercorn what came
        # until the connection broke; others could do any of these.
        return "this WSGI host does not say (wsgi.input_terminated) that it decodes a body and tells its end"
    return None


def closes_when_told(request: Mapping[str, Any], *, loaded: Container[str] = modules) -> bool:
    """Whether ``Connection: close`` in an answer has the host close the connection, and is allowed there.

    WSGI forbids an app that header, and some hosts fail over it; hypercorn alone takes it.

    :param request: a WSGI environ or an ASGI scope.
    """
    if "wsgi.version" not in request:
        return str(request.get("http_version", "")).startswith("1")
    # It says neither who it is nor that it decodes, and has the whole body in memory.
    silent = "SERVER_SOFTWARE" not in request and "wsgi.input_terminated" not in request and host_of(request) is None
    in_memory = _module(type(request.get("wsgi.input"))) == "_io"
    return silent and in_memory and "hypercorn.app_wrappers" in loaded


def client_of(request: Mapping[str, Any], headers: Iterable[tuple[str, str]], header: str | None = None) -> str:
    """Who is asking, as a key to count by; "" where nothing says so. An IPv6 client counts by its /64.

    :param request: a WSGI environ or an ASGI scope.
    :param headers: the request's, names in lower case.
    :param header: the header in which a trusted server in front names the client. Of ``X-Forwarded-For`` the last
        address is taken, for that one alone is not the client's to choose; any other is taken as it stands.
    """
    if header is not None:
        wanted = header.lower()
        said = ", ".join(value for name, value in headers if name == wanted)
        if wanted == "x-forwarded-for":
            said = said.rpartition(",")[2]
        if said.strip():
            return _counted(said.strip()[:_MAX_CLIENT])
    peer = request.get("client") or (request.get("REMOTE_ADDR", ""),)
    return _counted(str(peer[0] or ""))


def _counted(said: str) -> str:
    """An address as it counts, without a port; anything else as it is."""
    bare = said[1:].partition("]")[0] if said.startswith("[") else said
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return said
    if isinstance(address, IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or IPv6Network((address, 64), strict=False))


def _module(thing: object) -> str:
    return str(getattr(thing, "__module__", None) or "")
