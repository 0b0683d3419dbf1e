"""The report: a member that tells which others were left out.

The rule of this file: it says what clients may know of an error, one line a member, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

from streamware.errors import MemberError

__all__ = ["ERRORS_NAME", "report"]

ERRORS_NAME = "_errors.txt"


def _in_a_line(name: str) -> str:
    """A name as the report shows it: nothing in it begins another line or column."""
    return "".join(c if c.isprintable() else "_" for c in name)


def report(failures: Iterable[MemberError]) -> tuple[str, bytes]:
    """The name and content of the member that tells which others were left out."""
    lines = [f"{_in_a_line(error.member or '')}\t{error.title}\n" for error in failures]
    return ERRORS_NAME, "".join(lines).encode()
