"""The two values WSGI and ASGI share: what a request asked about (Conditions), and what is answered (Reply).

The rule of this file: a header that could break out of its line never gets in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["BytesBody", "Conditions", "Reply", "ReplyBody"]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110 section 5.6.2, token
_VALUE = re.compile(r"[^\x00\r\n]*\Z")
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
    """

    method: str = "GET"
    range: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None
    unframed: str | None = None
    client: str = ""

    @classmethod
    def of(cls, method: str, headers: Iterable[tuple[str, str]]) -> Conditions:
        """Pick the conditional headers out of any header list; names in any case."""
        found: dict[str, str] = {}
        for name, value in headers:
            key = name.lower()
            if key in _SINGLE:
                found[key] = f"{found[key]}, {value}" if key in found else value
        return cls(method.upper(), **{k.replace("-", "_"): v for k, v in found.items()})

    @classmethod
    def from_environ(cls, environ: Mapping[str, object]) -> Conditions:
        """The conditions of a WSGI request."""
        headers = [(n, str(environ[k])) for n in _SINGLE if (k := "HTTP_" + n.upper().replace("-", "_")) in environ]
        return cls.of(str(environ["REQUEST_METHOD"]), headers)


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
