"""Sizes that an archive cannot hold, and those that turn out only while it is sent."""

from __future__ import annotations

import pytest

from streamware import Archiver, Bundle, Member
from streamware.errors import MemberTooLarge
from tests.synthetic import Synthetic

MIB = 1 << 20


@pytest.mark.case(25)
def test_a_member_of_unknown_size_that_passes_4_gib(caplog: pytest.LogCaptureFixture) -> None:
    """Its header left no room for such a size, and is sent."""
    bundle = Bundle("b.zip")
    bundle.add(Member("huge", Synthetic((1 << 32) + 5, size_known=False, zeros=True, cut=8 * MIB)))
    bundle.add_data("behind", b"never sent")
    archiver = Archiver()
    body = archiver.open(bundle)
    count, last = 0, b""

    def read() -> None:
        nonlocal count, last
        for piece in body:
            count, last = count + len(piece), piece

    try:
        with pytest.raises(MemberTooLarge) as caught:
            read()
    finally:
        body.close()
        archiver.close()
    assert count < 1 << 32
    assert b"PK" not in last
    assert caught.value.member == "huge"
    assert "may_exceed_4gib" in caplog.text
