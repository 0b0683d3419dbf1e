"""What stream-zip is told of a member, the same from its synchronous and from its asynchronous side.

The rule of this file: what is known is told.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from stream_zip import NO_COMPRESSION_64, ZIP_64

from bench.programs.given import Given, Job

__all__ = ["stream_zip_fields"]


def stream_zip_fields(job: Job, member: Given) -> tuple[str, datetime, int, Any]:
    """All but the content. Stored without a known CRC-32, stream-zip has to hold a whole member in memory."""
    method: Any = ZIP_64
    if job.compress != "deflate":
        method = NO_COMPRESSION_64 if member.crc32 is None else NO_COMPRESSION_64(member.size, member.crc32)
    return member.name, datetime.fromtimestamp(member.modified, timezone.utc), 0o644, method
