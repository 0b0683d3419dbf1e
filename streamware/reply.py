"""The two values WSGI and ASGI share: what a request asked about (Conditions), and what is answered (Reply).

The rule of this file: a header that could break out of its line never gets in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from streamware.hosting import client_of, is_http_10, unframed

__all__ = ["BytesBody", "Conditions", "Reply", "ReplyBody"]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110 section 5.6.2, token
_VALUE = re.compile(r"[^\x00\r\n]*\Z")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_SINGLE = (
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The part of a request that decides how a representation is answered (RFC 9110 sections 13 and 14).

    Header values as received, None where absent; lists that came in several lines are joined with commas.

    ``unframed``: why a body without Content-Length cannot be trusted to show that it broke, None where it can.
    ``http_10``: the request is HTTP/1.0. ``client``: who is asking, as a key to count by; "" where that is not known.
    ``request_id``: the ``X-Request-Id`` it came with, for the log, if that is short and plain.
    """

    method: str = "GET"
    range: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None
    unframed: str | None = None
    http_10: bool = False
    client: str = ""
    request_id: str | None = None

    @classmethod
    def of(cls, method: str, headers: Iterable[tuple[str, str]]) -> Conditions:
        """Pick the conditional headers out of any header list; names in any case. Of the host it knows nothing."""
        found: dict[str, Any] = {}
        for name, value in headers:
            key = name.lower()
            if key in _SINGLE:
                found[key] = f"{found[key]}, {value}" if key in found else value
            elif key == "x-request-id" and _REQUEST_ID.match(value):
                found["request-id"] = value
        return cls(method.upper(), **{k.replace("-", "_"): v for k, v in found.items()})

    @classmethod
    def from_environ(cls, environ: Mapping[str, Any], *, client_header: str | None = None) -> Conditions:
        """The conditions of a WSGI request.

        :param client_header: the header in which a trusted server in front names the client (``Policy.client_header``).
        """
        headers = [(k[5:].replace("_", "-").lower(), str(v)) for k, v in environ.items() if k.startswith("HTTP_")]
        return cls._through(environ, str(environ["REQUEST_METHOD"]), headers, client_header)

    @classmethod
    def from_scope(cls, scope: Mapping[str, Any], *, client_header: str | None = None) -> Conditions:
        """The conditions of an ASGI request; see ``from_environ``."""
        headers = [(n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in scope.get("headers", ())]
        return cls._through(scope, scope["method"], headers, client_header)

    @classmethod
    def _through(
        cls, request: Mapping[str, Any], method: str, headers: list[tuple[str, str]], client_header: str | None
    ) -> Conditions:
        return replace(
            cls.of(method, headers),
            unframed=unframed(request),
            http_10=is_http_10(request),
            client=client_of(request, headers, client_header),
        )

    def unconditional(self) -> Conditions:
        """The same request as a plain GET: no range and no condition."""
        return Conditions(unframed=self.unframed, http_10=self.http_10, client=self.client, request_id=self.request_id)


class ReplyBody(Protocol):
    """Bytes in pieces. Whoever iterates calls ``close()``; ``abort()`` may come from any thread. Both are idempotent.

    ``length`` in bytes, None when not known. ``ready()`` says whether the next piece needs no waiting.
    """

    @property
    def length(self) -> int | None: ...

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def ready(self) -> bool: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class BytesBody:
    """A body that is in memory already."""

    __slots__ = ("_pieces", "length")

    def __init__(self, data: bytes = b"") -> None:
        self.length: int | None = len(data)
        self._pieces = iter((data,) if data else ())

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def ready(self) -> bool:
        return True

    def abort(self) -> None:
        self._pieces = iter(())

    def close(self) -> None:
        self._pieces = iter(())


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. ``headers`` are checked here, once, for every host.

    The host sends ``body`` unless the request was a HEAD, and closes it in either case.

    :raises ValueError: a header name is no token, or a value holds CR, LF or NUL.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: ReplyBody = field(default_factory=BytesBody)

    def __post_init__(self) -> None:
        for name, value in self.headers:
            if not _NAME.match(name) or not _VALUE.match(value):
                raise ValueError(f"a header that cannot be sent: {name!r}: {value!r}")
            value.encode("latin-1")  # PEP 3333: native strings of latin-1 characters; anything else is a bug here

    def header(self, name: str) -> str | None:
        """The first value of a header, or None. ``name`` in any case."""
        key = name.lower()
        return next((v for n, v in self.headers if n.lower() == key), None)
