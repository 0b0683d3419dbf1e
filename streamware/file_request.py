"""A request to the file service, as WSGI and ASGI hosts share it.

The rule of this file: it tells what came and decides nothing. Header names are lower case; a header that came in
several lines is joined with commas (RFC 9110 section 5.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote

from streamware.hosting import untold
from streamware.reply import Conditions

__all__ = ["FileRequest"]


@dataclass(frozen=True, kw_only=True)
class FileRequest:
    """What is asked of the file service; also what ``Policy.authorize`` is shown.

    :param method: in upper case.
    :param base: the path of the collection that files are in, as it stands in URLs, encoded and without a slash at its
        end: ``/files``; "" at the root.
    :param id: what stands behind it in the request's path, as text of any kind; None where the collection is asked.
    :param query: of the URL, without its question mark, as it came.
    :param headers: by lower-case name.
    :param repeated: lower-case names of headers that came in more than one line.
    :param conditions: method, range, conditional headers, and who is asking.
    :param untold: why the end of a body without Content-Length cannot be told from a connection that broke off; None
        where the host tells.
    :param context: the WSGI environ or ASGI scope, for ``Policy.authorize``.
    """

    method: str
    base: str
    id: str | None = None
    query: str = ""
    headers: Mapping[str, str]
    repeated: frozenset[str] = frozenset()
    conditions: Conditions = Conditions()
    untold: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def header(self, name: str) -> str | None:
        """A header's value, None where it did not come. ``name`` in lower case."""
        return self.headers.get(name)

    @cached_property
    def chunked(self) -> bool:
        """Whether the body comes without a length, its end told by the transfer coding (or HTTP/2's own)."""
        return "content-length" not in self.headers

    @property
    def ambiguous(self) -> bool:
        """Whether servers differ on where the body ends, so that what follows it is nobody's request (RFC 9112
        section 6.1)."""
        return "content-length" in self.headers and "transfer-encoding" in self.headers

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, Any], *, id: str | None = None, client_header: str | None = None
    ) -> FileRequest:
        """A WSGI request. Of a header that came more than once WSGI tells too little: ``repeated`` is empty.

        :param id: the last segment of the path, where one file is asked for; as it is decoded.
        :param client_header: the header in which a trusted server in front names the client (``Policy.client_header``).
        """
        headers = {
            key[5:].replace("_", "-").lower(): str(value)
            for key, value in environ.items()
            # Who writes "Content_Length" means to be read differently by different servers.
            if key.startswith("HTTP_") and key not in ("HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE")
        }
        for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if environ.get(key):  # some hosts say "" where there is none
                headers[key.replace("_", "-").lower()] = str(environ[key])
        path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
        conditions = Conditions.from_environ(environ, client_header=client_header)
        return cls(
            method=conditions.method,
            base=_base(path.encode("latin-1", "replace"), id),
            id=id,
            query=str(environ.get("QUERY_STRING", "")),
            headers=headers,
            conditions=conditions,
            untold=untold(environ),
            context=environ,
        )

    @classmethod
    def from_scope(
        cls, scope: Mapping[str, Any], *, id: str | None = None, client_header: str | None = None
    ) -> FileRequest:
        """An ASGI request; see ``from_environ``."""
        headers: dict[str, str] = {}
        repeated = set()
        for raw_name, raw_value in scope.get("headers", ()):
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name in headers:
                repeated.add(name)
                value = f"{headers[name]}, {value}"
            headers[name] = value
        root, path = scope.get("root_path", "").rstrip("/"), scope["path"]
        if not f"{path}/".startswith(f"{root}/"):
            path = root + path  # servers differ on whether it is there already
        conditions = Conditions.from_scope(scope, client_header=client_header)
        return cls(
            method=conditions.method,
            base=_base(path.encode("utf-8", "replace"), id),
            id=id,
            query=scope.get("query_string", b"").decode("latin-1"),
            headers=headers,
            repeated=frozenset(repeated),
            conditions=conditions,
            untold=untold(scope),
            context=scope,
        )


def _base(path: bytes, id: str | None) -> str:
    """The collection's path of a request's, encoded."""
    if id:  # "" is what follows a slash behind the collection
        path = path.rstrip(b"/").rpartition(b"/")[0]
    # One slash at its beginning: with two, or with one before the id's own, it would name another host.
    path = path.strip(b"/")
    return quote(b"/" + path) if path else ""
