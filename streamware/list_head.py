"""The head of an app's answer that says that its body is a list, in the place of which an archive goes out.

The rule of this file: heads only; whether the list itself is any good is found out by whoever reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from streamware.errors import SourceError
from streamware.model import Format

__all__ = ["ListHead"]

_FORMATS: dict[str, Format] = {"zip": "zip", "tar": "tar", "tar.gz": "tar.gz", "tar.zst": "tar.zst"}
_FORMAT = re.compile(r"[ \t]*(zip|tar\.gz|tar\.zst|tar)(?![^ \t,;])")
_CONDITIONAL = frozenset({"if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "range"})

# These headers of a list say what is not so of its archive: framing, type, versions.
_OF_THE_LIST = frozenset(
    {
        "accept-ranges",
        "connection",
        "content-digest",
        "content-encoding",
        "content-length",
        "content-md5",
        "content-range",
        "content-type",
        "digest",
        "etag",
        "keep-alive",
        "last-modified",
        "proxy-connection",
        "repr-digest",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class ListHead:
    """The head of an app's answer that carries X-Archive-Files, if in vain.

    ``format`` is None where the value names none we know. ``fields`` are the headers by lower-case name. ``whole``: the
    body is the list, all of it and uncoded.
    """

    __slots__ = ("fields", "format", "headers", "status", "whole")

    def __init__(self, status: int, headers: Iterable[tuple[str, str]], method: str) -> None:
        self.status = status
        self.headers = list(headers)
        self.fields = {name.lower(): value for name, value in self.headers}
        match = _FORMAT.match(self.fields.get("x-archive-files", ""))
        self.format = _FORMATS[match[1]] if match else None
        coded = self.fields.get("content-encoding", "identity").strip().lower() not in ("identity", "")
        self.whole = status == 200 and method != "HEAD" and not coded

    def asks_for_archive(self, method: str, asked: Iterable[tuple[str, str]]) -> bool:
        """Whether an archive goes out instead of the answer; ``asked`` are the request's headers."""
        if self.format is None:
            return False
        if method not in ("GET", "HEAD"):
            return self.status == 200
        # A 412 or 416 comes of holding conditions that were meant for the archive against the list.
        return self.status in (200, 206, 304) or (
            self.status in (412, 416) and any(name.lower() in _CONDITIONAL for name, _ in asked)
        )

    def readable(self, method: str) -> bool:
        """Whether the body is the list. If not, the app is asked once more, with a plain GET.

        :raises SourceError: it is not, and what was asked by ``method`` cannot be asked by GET.
        """
        if not self.whole and method not in ("GET", "HEAD"):
            raise SourceError(f"the list is coded, and a {method} is not asked twice")
        return self.whole

    def of_the_archive(self) -> list[tuple[str, str]]:
        """Those of the headers that are as true of the archive as they are of the list."""
        return [
            (name, value)
            for name, value in self.headers
            if name.lower() not in _OF_THE_LIST and not name.lower().startswith("x-archive-")
        ]

    @classmethod
    def of_second(cls, status: int, headers: Iterable[tuple[str, str]]) -> ListHead:
        """The head of the answer to that plain GET.

        :raises SourceError: there is no list to be had.
        """
        head = cls(status, headers, "GET")
        if head.format is None or not head.whole:
            raise SourceError(f"a plain GET was answered with {status}, and no list or a coded one")
        return head
