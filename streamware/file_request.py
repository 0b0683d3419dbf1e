"""A request to the file service, as WSGI and ASGI hosts share it.

The rule of this file: it tells what came and decides nothing. Header names are lower case; a header that came in
several lines is joined with commas (RFC 9110 section 5.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from streamware.reply import Conditions

__all__ = ["FileRequest"]


@dataclass(frozen=True, kw_only=True)
class FileRequest:
    """What is asked of the file service; also what ``Policy.authorize`` is shown.

    :param method: in upper case.
    :param base: the path of the collection that files are in, as it stands in URLs, encoded and without a slash at its
        end: ``/files``.
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
