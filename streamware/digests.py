"""SHA-256 digests of contents, as they are written down: 64 hexadecimal digits, or the form of RFC 9530.

The rule of this file: pure, and what it returns is 32 bytes or nothing.
"""

from __future__ import annotations

import re
from base64 import b64decode

__all__ = ["announced_digest", "parse_digest"]

_HEX = re.compile(r"[0-9A-Fa-f]{64}\Z")
# A member of a dictionary (RFC 9651 section 3.2) whose value is a byte sequence; no other value holds a comma, but for
# strings, of which digests are never made.
_SHA_256 = re.compile(r"(?:\A|,)[ \t]*sha-256=:([0-9A-Za-z+/]{43}=):[ \t]*(?:;[^,]*)?(?=,|\Z)")


def parse_digest(text: str) -> bytes:
    """The 32 bytes of a SHA-256: 64 hexadecimal digits, or ``sha-256=:base64:`` (RFC 9530 section 2).

    :raises ValueError: it is neither.
    """
    if _HEX.match(text):
        return bytes.fromhex(text)
    digest = announced_digest(text)
    if digest is None:
        raise ValueError("must be a SHA-256 of 64 hexadecimal digits, or sha-256=:base64:")
    return digest


def announced_digest(field: str) -> bytes | None:
    """The SHA-256 that a Repr-Digest field announces (RFC 9530 section 3); None where there is none that can be read.

    Other algorithms are passed over. Of one key that stands twice the last counts (RFC 9651 section 4.2.2).
    """
    found = _SHA_256.findall(field)
    return b64decode(found[-1]) if found else None
