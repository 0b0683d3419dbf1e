"""What was measured, and what is said about it: medians, and medians of the ratios of each round.

The rule of this file: it computes and does nothing else, so that a report can be written anew from a file of results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, NamedTuple

__all__ = ["CaseResult", "Results", "Row", "Sample", "Table"]

GIB = 1 << 30


class Sample(NamedTuple):
    cpu: float  # seconds of the server's whole process tree
    wall: float  # seconds
    first_byte: float  # seconds
    bytes: int  # as they came over the wire


@dataclass(frozen=True, slots=True)
class Row:
    """One contender in one case. Samples stand in the order of the rounds, the first with the first of all others.

    ``failure`` says why there are none or too few. ``done`` of ``clients`` got a whole answer, where they are many.
    """

    contender: str
    title: str
    samples: tuple[Sample, ...] = ()
    grew: int = 0  # bytes of memory above what the idle server held, at the worst moment
    failure: str | None = None
    clients: int = 0
    done: int = 0
    threads: int = 0

    def middle(self, kind: str) -> float:
        return float(median(getattr(sample, kind) for sample in self.samples))


@dataclass(frozen=True, slots=True)
class CaseResult:
    key: str
    title: str
    count: int  # members
    bytes: int  # of members' content, for each client
    rows: tuple[Row, ...]
    ideal: float | None = None  # seconds; None where there is no such thing
    skipped: Mapping[str, str] = field(default_factory=dict)  # contender's title -> why

    def row(self, contender: str) -> Row | None:
        """With samples; None where it was not measured."""
        return next((row for row in self.rows if row.contender == contender and row.samples), None)

    def cpu_per_gib(self, row: Row) -> float:
        """CPU seconds for each GiB of members' content, whatever went over the wire."""
        return row.middle("cpu") / (self.bytes * max(1, row.clients) / GIB)

    def ratio(self, one: str, other: str, kind: str = "cpu") -> float | None:
        """The median, over the rounds both took part in, of what one spent for each second of the other."""
        a, b = self.row(one), self.row(other)
        if a is None or b is None:
            return None
        return float(median(getattr(x, kind) / getattr(y, kind) for x, y in zip(a.samples, b.samples, strict=False)))


class Table(NamedTuple):
    """What a set that measures in its own way has to say."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Results:
    machine: Mapping[str, str]
    cases: tuple[CaseResult, ...]
    tables: tuple[Table, ...] = ()

    def case(self, key: str) -> CaseResult | None:
        return next((case for case in self.cases if case.key == key), None)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Results:
        told = json.loads(text)
        tables = tuple(Table(*table) for table in told["tables"])
        return cls(told["machine"], tuple(_case(case) for case in told["cases"]), tables)


def _case(told: Mapping[str, Any]) -> CaseResult:
    return CaseResult(**{**told, "rows": tuple(_row(row) for row in told["rows"])})


def _row(told: Mapping[str, Any]) -> Row:
    samples: Sequence[Sequence[float]] = told["samples"]
    return Row(**{**told, "samples": tuple(Sample(*sample) for sample in samples)})  # type: ignore[arg-type]
