"""What a client is told when something went wrong before the first byte (RFC 9457, problem details).

The rule of this file: fixed texts and what the client itself sent, nothing else; and never much of it.
"""

from __future__ import annotations

import json

from streamware.errors import MembersFailed, StreamwareError, UpstreamStatus
from streamware.reply import BytesBody, Reply

__all__ = ["problem"]

_MAX_REPORTED = 100  # members in one problem
_MAX_TEXT = 500  # characters of any text that came from outside


def problem(error: StreamwareError, *, instance: str | None = None) -> Reply:
    """The error as application/problem+json. ``detail`` is in it only where the error's class makes it public.

    ``members`` lists those at fault: ``index``, ``name``, ``reason`` (the error's kind) and, if their server answered,
    its ``status``. ``members_omitted`` counts those that were too many to list.
    """
    document: dict[str, object] = {
        "type": f"urn:streamware:problem:{error.kind}",
        "title": error.title,
        "status": error.status,
    }
    if error.detail_is_public and error.detail:
        document["detail"] = _told(error.detail)
    if instance is not None:
        document["instance"] = instance
    if error.pointer is not None:
        document["pointer"] = _told(error.pointer)
    failures = error.failures if isinstance(error, MembersFailed) else (error,)
    members = [_failure(f) for f in failures[:_MAX_REPORTED] if f.member is not None or f.index is not None]
    if members:
        document["members"] = members
    if len(failures) > _MAX_REPORTED:
        document["members_omitted"] = len(failures) - _MAX_REPORTED
    data = json.dumps(document, ensure_ascii=False).encode()
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(data))),
        ("Cache-Control", "no-store"),
    ]
    headers.extend(getattr(error, "headers", ()))
    waits = [e.retry_after for e in (error, *failures) if e.retry_after is not None]
    if waits:
        headers.append(("Retry-After", str(max(0, *waits))))
    return Reply(error.status, tuple(headers), BytesBody(data))


def _failure(error: StreamwareError) -> dict[str, object]:
    told: dict[str, object] = {} if error.index is None else {"index": error.index}
    if error.member is not None:
        told["name"] = _told(error.member)
    told["reason"] = error.kind
    if isinstance(error, UpstreamStatus):
        told["status"] = error.upstream_status
    return told


def _told(text: str) -> str:
    """Text from outside, of bounded length, without what JSON in UTF-8 cannot hold."""
    return (text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…").encode("utf-8", "replace").decode()
