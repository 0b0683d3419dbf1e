"""The answer for one file as it is, by the same machinery as an archive's: a plan of one extent, decided and pumped.

The rule of this file: what is answered is the file's bytes and nothing else, or a connection that visibly breaks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from streamware.errors import SizeUnknown, StreamwareError
from streamware.memory_ledger import MemoryLedger
from streamware.model import Facts, Source
from streamware.plan import Entry, Extent, Known, Method, Plan, Segment, Table
from streamware.policy import Policy
from streamware.pump import Body, Witness
from streamware.reply import Conditions, Reply
from streamware.semantics import Representation, decide, is_strong
from streamware.upload_errors import FilePreconditionFailed, FileRangeNotSatisfiable

__all__ = ["reply_for_source"]

_NOTHING = MemoryLedger()  # there is no checksum to be remembered
_REFUSED = {412: FilePreconditionFailed, 416: FileRangeNotSatisfiable}


def reply_for_source(
    source: Source,
    facts: Facts,
    conditions: Conditions,
    policy: Policy,
    problem: Callable[[StreamwareError], Reply],
    *,
    media_type: str,
    etag: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    of_file: Iterable[tuple[str, str]] = (),
    witness: Witness | None = None,
) -> Reply:
    """Answer for one file: 200, 206, 304, 412 or 416. Blocks while it is opened; the caller closes the body.

    :param source: gives the version that ``facts`` tell of, and no other.
    :param facts: its size is known. A CRC-32 among them is verified while all of the file is sent.
    :param problem: makes the answer of an error (``Archiver.problem``).
    :param etag: the entity-tag to show, where it is not ``facts.validator``; to whoever asks by that one, that one is
        shown.
    :param headers: of every answer but a refusal.
    :param of_file: of answers that hold the file or a part of it, besides.
    :param witness: told of the body.
    :raises SizeUnknown: ``facts`` lack the size.
    :raises MemberError: it is not there, or cannot be read.
    """
    if facts.size is None:
        raise SizeUnknown()
    shown = _tag(conditions, facts.validator, etag)
    decision = decide(
        conditions,
        Representation(
            media_type=media_type,
            length=facts.size,
            etag=shown,
            # RFC 9110 section 8.8.2.1: never later than now.
            modified=None if facts.modified is None else min(facts.modified, int(time.time())),
            ranges=True,
        ),
        max_ranges=policy.max_ranges,
    )
    if decision.status in _REFUSED:
        refusal = problem(_REFUSED[decision.status]())
        return replace(refusal, headers=(*decision.headers, *refusal.headers))
    if decision.pieces is None:
        return Reply(decision.status, (*decision.headers, *headers))
    reply = Reply(decision.status, (*decision.headers, *headers, *of_file))  # checked before anything is opened
    if conditions.method == "HEAD":
        return reply
    entries = Table()
    entries.append(Entry(b"file", facts.size, facts.crc32, facts.modified or 0, 0o644, Method.PLAIN))
    body = Body(
        Plan(_Single(facts.size), etag=shown),
        entries,
        lambda _: source,
        decision.pieces,
        policy=policy,
        ledger=_NOTHING,
        version_of=lambda _: None,
        witness=witness,
    )
    body.prepare()
    return replace(reply, body=body)


def _tag(conditions: Conditions, validator: str | None, shown: str | None) -> str | None:
    """The entity-tag to answer under: the one that the request knows the file by, if it is one of the two.

    Quotes are part of a tag, and stand nowhere inside of one.
    """
    if shown is None or validator is None or not is_strong(validator):
        return validator if shown is None else shown
    fields = (conditions.if_range, conditions.if_match, conditions.if_none_match)
    named = " ".join(field for field in fields if field is not None)
    return validator if validator in named and shown not in named else shown


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
