"""Under which key the ledger knows each member of a bundle.

The rule of this file: only what names one content for good has a key: identity, strong validator and size.
"""

from __future__ import annotations

from streamware.facts import Looked
from streamware.ledger import version_key
from streamware.member_rows import TRUSTED, UNTRUSTED, Row
from streamware.model import Facts, Url
from streamware.semantics import is_strong

__all__ = ["Versions"]

_KEY = 16  # bytes
_NOTHING = bytes(_KEY)


class Versions:
    """The keys of a bundle's members, 16 bytes each."""

    __slots__ = ("_keys",)

    def __init__(self, members: int) -> None:
        self._keys = bytearray(_KEY * members)  # zeros where nothing pins one

    def append(self) -> None:
        """One member more, which nothing pins."""
        self._keys += bytes(_KEY)

    def pin(self, index: int, member: Row, facts: Facts | Looked) -> None:
        """Note the key of a member, if it has one."""
        validator = facts.validator if member.etag is None else member.etag
        size = facts.size if member.size is None else member.size
        if size is None or validator is None or not is_strong(validator):
            return
        identity = facts.identity
        if member.kind in (TRUSTED, UNTRUSTED):
            identity = f"url:{member.stored}"
        elif isinstance(member.stored, Url) and isinstance(member.stored.url, str):
            # What a function makes is another text each time, and perhaps another file.
            identity = f"url:{member.stored.url}"
        if identity is None:
            return
        self._keys[_KEY * index : _KEY * (index + 1)] = version_key(identity, validator, size)

    def of(self, index: int) -> bytes | None:
        """The key of a member; None where nothing pins it."""
        key = bytes(self._keys[_KEY * index : _KEY * (index + 1)])
        return key if key != _NOTHING else None
