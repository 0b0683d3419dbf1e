"""One file of ROOT as it is, answered by the same machinery as an archive: a plan of one extent, decided and pumped.

The rule of this file: a file is served as what its name says and nothing else; what it may do in a browser is nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from mimetypes import MimeTypes

from streamware.memory_ledger import MemoryLedger
from streamware.model import File
from streamware.plan import Entry, Extent, Known, Method, Plan, Segment, Table
from streamware.policy import Policy
from streamware.pump import Body
from streamware.reply import Conditions, Reply
from streamware.semantics import Representation, decide
from streamware.sources.file import FileSource

__all__ = ["media_type", "reply_for_file"]

# The standard library's own table and not the machine's files, so that every server answers alike.
_TYPES = MimeTypes(filenames=())
_NOTHING = MemoryLedger()  # there is no checksum to be remembered
_TEXT = (".log", ".md", ".rst", ".toml", ".yaml", ".yml", ".ini", ".cfg", ".conf", ".sh", ".rs", ".go", ".ts", ".sql")
_CODED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


def media_type(name: str) -> str:
    """The media type a file name stands for; bytes where it says nothing."""
    lower = name.lower()
    if lower.endswith(_TEXT):
        return "text/plain; charset=utf-8"
    kind, coding = _TYPES.guess_type(f"/{lower}")
    if coding is not None:
        return _CODED.get(coding, "application/octet-stream")  # as it lies there, never as a Content-Encoding
    if kind is None:
        return "application/octet-stream"
    # HTML and XML name their own encoding; other text would be read as windows-1252.
    names_its_own = kind.endswith(("html", "xml"))
    return f"{kind}; charset=utf-8" if kind.startswith("text/") and not names_its_own else kind


def reply_for_file(file: File, conditions: Conditions, policy: Policy) -> Reply:
    """Answer for one file: 200, 206, 304, 412 or 416. Blocks while it is opened; the caller closes the body.

    :raises MemberError: it is not there, is no regular file, or may not be read.
    """
    facts = FileSource(file.path, file.root).probe()
    assert facts.size is not None
    decision = decide(
        conditions,
        Representation(
            media_type=media_type(file.path),
            length=facts.size,
            etag=facts.validator,
            # RFC 9110 section 8.8.2.1: never later than now.
            modified=None if facts.modified is None else min(facts.modified, int(time.time())),
            ranges=True,
        ),
        max_ranges=policy.max_ranges,
    )
    headers = (*decision.headers, ("Cache-Control", "no-cache"), ("Content-Security-Policy", "sandbox"))
    if decision.pieces is None or conditions.method == "HEAD":
        return Reply(decision.status, headers)
    entries = Table()
    entries.append(Entry(b"file", facts.size, None, facts.modified or 0, 0o644, Method.PLAIN))
    plan = Plan(_Single(facts.size), etag=facts.validator)
    source = FileSource(
        file.path, file.root, chunk_bytes=policy.chunk_bytes, version=hash(facts.validator)
    )  # the version that was decided on, and no other
    body = Body(
        plan,
        entries,
        lambda _: source,
        decision.pieces,
        policy=policy,
        ledger=_NOTHING,
        version_of=lambda _: None,
    )
    body.prepare()
    return Reply(decision.status, headers, body)


class _Single:
    """The layout of a file that is no archive: its bytes."""

    members = 1
    items = 1
    inline_bytes = 0

    def __init__(self, size: int) -> None:
        self._segments = (Extent(0, size),)

    def segments(self, item: int, known: Known) -> tuple[Segment, ...]:
        return self._segments

    def around(self, member: int, crc32: int) -> tuple[bytes, bytes]:
        return b"", b""

    def records(self, item: int, stop: int, known: Known, most: int) -> list[bytes]:
        return []

    def lengths(self, known: Known) -> Iterator[int | None]:
        return (segment.length for segment in self._segments)
