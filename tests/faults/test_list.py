"""docs/faults.md promises what the tests show: every fault of its list has a test, and no test shows one it lacks."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def promised() -> list[int]:
    text = (ROOT / "docs" / "faults.md").read_text()
    return [int(number) for number in re.findall(r"^\| ([0-9]+) \|", text, re.MULTILINE)]


def shown() -> dict[int, list[str]]:
    """The files with a ``@pytest.mark.case`` (or ``marks=`` of it) by number."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")) + sorted((ROOT / "tests").rglob("*_cases.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pytest.mark.case", "mark.case"):
                for argument in node.args:  # what is computed is not counted, and the run's own table shows it
                    if isinstance(argument, ast.Constant):
                        found[argument.value].append(path.name)
    return found


def test_the_list_is_numbered_without_gaps() -> None:
    assert promised() == list(range(1, len(promised()) + 1))


def test_every_fault_has_a_test_and_every_mark_a_fault() -> None:
    listed, tested = set(promised()), set(shown())
    assert sorted(tested - listed) == [], "marks of no fault of docs/faults.md"
    assert sorted(listed - tested) == [], "faults of docs/faults.md without a test"
