"""What streamware is to reach, beside what it reached. Printed, never a verdict.

The rule of this file: a goal is one line of a table, and a goal that was not measured is not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bench.contenders import ASGI, FILES_ASGI, FILES_WSGI, MOD_ZIP, WIDE, WSGI, by_key
from bench.results import CaseResult, Results

__all__ = ["GOALS", "Goal", "Outcome", "outcomes"]

MIB = 1 << 20
Kind = Literal["cpu", "bytes", "wall", "ideal", "first byte", "memory", "memory a client", "done"]

_ZIPSTREAM_WSGI = "zipstream-ng-wsgi"
_ZIPSTREAM_ASGI = "zipstream-ng-asgi"


@dataclass(frozen=True, slots=True)
class Goal:
    """At most ``limit``: times the ``other``'s, or in the unit that ``kind`` has."""

    case: str
    ours: str
    kind: Kind
    limit: float
    other: str | None = None


class Outcome(NamedTuple):
    case: str
    ours: str
    what: str
    limit: str
    reached: str
    met: bool


GOALS = (
    Goal("local/big", WSGI, "cpu", 0.50, _ZIPSTREAM_WSGI),
    Goal("up/big", WSGI, "cpu", 0.50, _ZIPSTREAM_WSGI),
    Goal("up/mid", WSGI, "cpu", 0.55, _ZIPSTREAM_WSGI),
    Goal("local/small", WSGI, "cpu", 0.15, _ZIPSTREAM_WSGI),
    Goal("up/small", WSGI, "cpu", 0.45, _ZIPSTREAM_WSGI),
    Goal("local/big", ASGI, "cpu", 0.26, _ZIPSTREAM_ASGI),
    Goal("up/big", ASGI, "cpu", 0.28, _ZIPSTREAM_ASGI),
    Goal("local/big", WSGI, "cpu", 0.13, MOD_ZIP),
    Goal("up/big", WSGI, "cpu", 0.19, MOD_ZIP),
    Goal("up/mid", WSGI, "cpu", 0.26, MOD_ZIP),
    Goal("local/small", WSGI, "cpu", 0.26, MOD_ZIP),
    Goal("up/small", WSGI, "cpu", 2.5, MOD_ZIP),
    Goal("local/big", ASGI, "cpu", 0.18, MOD_ZIP),
    Goal("up/big", ASGI, "cpu", 0.25, MOD_ZIP),
    Goal("crc/big", WSGI, "cpu", 1.3, MOD_ZIP),
    Goal("crc/mid", WSGI, "cpu", 1.2, MOD_ZIP),
    Goal("text", WSGI, "cpu", 0.13, _ZIPSTREAM_WSGI),
    Goal("text", WSGI, "bytes", 1.15, _ZIPSTREAM_WSGI),
    Goal("text", WIDE, "wall", 0.55, WSGI),
    # At least twice as much for each CPU second, with checksums on: as one that computes SHA-256, and as one that
    # computes none.
    *(
        Goal(case, ours, "cpu", 0.50, other)
        for case, other in (("store/in", "aiofiles-sha256"), ("store/in", "aiofiles"), ("store/out", "aiofiles"))
        for ours in (FILES_WSGI, FILES_ASGI)
    ),
    *(Goal(case, ours, "memory", 24) for ours in (FILES_WSGI, FILES_ASGI) for case in ("store/in", "store/out")),
    *(
        goal
        for ours in (WSGI, ASGI)
        for goal in (
            Goal("late", ours, "ideal", 1.05),
            Goal("late", ours, "first byte", 0.120),
            Goal("slow", ours, "ideal", 1.08),
            Goal("slow", ours, "done", 0),
            Goal("slow", ours, "memory a client", 1.5),
            Goal("local/big", ours, "memory", 5),
            Goal("up/big", ours, "memory", 5),
            Goal("local/small", ours, "memory", 15),
            Goal("up/small", ours, "memory", 15),
            Goal("many", ours, "memory", 64),
        )
    ),
)


def outcomes(results: Results) -> Iterator[Outcome]:
    """Of the goals that were measured, in the order of the table."""
    for goal in GOALS:
        case = results.case(goal.case)
        reached = None if case is None else _reached(case, goal)
        if case is not None and reached is not None:
            what, unit, scale = _WORDS[goal.kind]
            what += f" of {by_key(goal.other).title}" if goal.other else ""
            limit, value = (f"{number * scale:.{unit[1]}f}{unit[0]}" for number in (goal.limit, reached))
            yield Outcome(case.title, by_key(goal.ours).title, what, limit, value, reached <= goal.limit)


# Kind -> what it is called, its unit with the digits shown, and what a figure is multiplied by.
_WORDS: dict[Kind, tuple[str, tuple[str, int], float]] = {
    "cpu": ("CPU", ("", 2), 1),
    "bytes": ("output", ("", 2), 1),
    "wall": ("wall time", ("", 2), 1),
    "ideal": ("wall time of the ideal", ("", 2), 1),
    "first byte": ("first byte", (" ms", 0), 1000),
    "memory": ("memory growth", (" MiB", 1), 1),
    "memory a client": ("memory of a client", (" MiB", 2), 1),
    "done": ("clients that got no whole answer", ("", 0), 1),
}


def _reached(case: CaseResult, goal: Goal) -> float | None:
    if goal.other is not None:
        return case.ratio(goal.ours, goal.other, goal.kind)
    row = case.row(goal.ours)
    if row is None:
        return None
    if goal.kind == "ideal":
        return row.middle("wall") / case.ideal if case.ideal else None
    if goal.kind == "first byte":
        return row.middle("first_byte")
    if goal.kind == "done":
        return float(row.clients - row.done)
    return row.grew / MIB / (max(1, row.clients) if goal.kind == "memory a client" else 1)
