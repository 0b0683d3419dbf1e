"""What the answers for one member must agree on: what was declared of it, and what the first of them has told.

The rule of this file: what was declared holds for every answer, and what one answer tells holds for all that follow;
whatever differs is an error, and what an answer does not say is no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from streamware.errors import ChecksumMismatch, MemberChanged, SizeMismatch, UpstreamError
from streamware.facts import Facts
from streamware.heads import Head, facts_of_whole, framed_length, same_version
from streamware.semantics import is_strong

__all__ = ["Terms"]

_NOTHING: Mapping[str, str] = {}


class Terms:
    """The terms of one member; ``given_...`` is what was declared, the rest what is known by now.

    ``place`` numbers where it is asked for: its URL is 0, mirrors follow. ``seen`` holds the validator that a place has
    shown, ``pin`` the one that is asked for, and ``coding`` is that of the answer whose bytes are given.

    :param size: bytes the content must have, None if that is to be found out.
    :param etag: the entity-tag it must carry, or None.
    :param digest: the SHA-256 it must have, or None; compared here with what is announced, not with the bytes.
    :param proved: a declared size and checksum of the whole are checked by whoever reads it whole.
    """

    __slots__ = (
        *("coding", "digest", "given_digest", "given_etag", "given_size", "gzip", "pin", "proved", "seen"),
        "size",
    )

    def __init__(self, *, size: int | None, etag: str | None, digest: bytes | None, proved: bool) -> None:
        self.given_size = self.size = size
        self.given_etag = self.pin = etag
        self.given_digest = self.digest = digest
        self.proved = proved
        self.gzip = False  # whether a gzip-coded answer is as good as another
        self.coding: str | None = None
        self.seen: dict[int, str] = {}

    def expected(self, place: int) -> str | None:
        """The validator that a place must show; None: any."""
        return self.given_etag or self.seen.get(place)

    def if_match(self) -> Mapping[str, str]:
        """What to say of the version when the whole is asked for."""
        # RFC 9110 section 13.1.1: a server that knows it has another version need not send it.
        etag = self.given_etag
        return {"If-Match": etag} if etag and is_strong(etag) else _NOTHING

    def whole(self, head: Head) -> Facts:
        """What an answer with the whole says of it.

        :raises UpstreamError: it is no such answer, or nobody could tell whether all of it came.
        """
        facts = facts_of_whole(head, gzip=self.gzip)
        if facts.size is None and not head.chunked and self.given_size is None and self.given_digest is None:
            raise UpstreamError(
                f"{head.url}: a body without length that ends when the connection does: its end proves nothing"
            )
        return facts

    def check(self, place: int, head: Head, facts: Facts) -> None:
        """Compare an answer with the terms.

        :raises IntegrityError: it differs.
        """
        size, pin, digest = self.size, self.expected(place), self.digest
        if size is not None and facts.size is not None and facts.size != size:
            raise SizeMismatch(f"{head.url}: {facts.size} bytes, and {size} were promised")
        if pin is not None and facts.coding is not None:
            pin = f"W/{pin.removeprefix('W/')}"  # a server that codes may weaken the tag (RFC 9110 section 8.8.1)
        if pin is not None and not same_version(pin, facts.validator):
            raise MemberChanged(f"{head.url}: the validator is {facts.validator}, and {pin} was expected")
        if digest is not None and facts.digest not in (None, digest):
            raise ChecksumMismatch(f"{head.url}: another SHA-256 is announced than the {digest.hex()} promised")

    def settle(self, place: int, facts: Facts) -> Facts:
        """Hold later answers to these facts; returns them with the size that is known."""
        if facts.validator is not None:
            self.seen[place] = facts.validator
            if self.pin is None:
                self.pin = facts.validator
        if self.digest is None:
            self.digest = facts.digest
        if self.size is None:
            self.size = facts.size
        return facts if facts.size == self.size else replace(facts, size=self.size)

    def go_on_with(self, facts: Facts) -> None:
        """From here on the bytes are of the answer that told these."""
        self.coding = facts.coding
        if self.given_etag is None or facts.coding is not None:
            self.pin = facts.validator

    def forget(self) -> None:
        """Go back to what was declared: no byte was given yet, and the next answer may come in another coding."""
        self.seen.clear()
        self.size, self.digest, self.pin = self.given_size, self.given_digest, self.given_etag

    def needs_end(self, head: Head, stop: int | None) -> bool:
        """Whether only an answer's end at ``stop`` shows that it is as long as it should be: it does not say, and no
        checksum will.
        """
        if self.proved or stop is None or stop != self.size:
            return False
        return head.status == 200 and framed_length(head) is None
