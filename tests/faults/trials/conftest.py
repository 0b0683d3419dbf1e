"""What came of the fault trials, as a table at the end of the run."""

from __future__ import annotations

from collections import Counter

import pytest

__all__ = ["TALLY", "Tally"]

_KINDS = ("complete", "later", "broken off", "refused", "WRONG", "unclear")


class Tally:
    """Outcomes by fault; ``missed`` are the seeds of trials that could be healed and were not."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self.healable = 0
        self.missed: list[int] = []

    def note(self, fault: str, kind: str, *, healable: bool, seed: int) -> None:
        counts = self._counts.setdefault(fault, Counter())
        counts[kind] += 1
        if healable:
            self.healable += 1
            counts["healable"] += 1
            counts["healed"] += kind == "complete"
            if kind != "complete":
                self.missed.append(seed)

    def table(self) -> list[str]:
        if not self._counts:
            return []
        rows = [*self._counts.items(), ("all", sum(self._counts.values(), Counter()))]
        head = f"{'fault':12}" + "".join(f"{kind:>12}" for kind in (*_KINDS, "healed"))
        return [head] + [
            f"{fault:12}"
            + "".join(f"{counts[kind]:>12}" for kind in _KINDS)
            + f"{counts['healed']:>5} of {counts['healable']:3}"
            for fault, counts in rows
        ]


TALLY = Tally()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = TALLY.table()
    if lines:
        terminalreporter.section("fault trials")
        for line in lines:
            terminalreporter.write_line(line)
