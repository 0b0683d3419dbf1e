"""What the suite has seen of each host, as it is kept in the repository and told in docs/hosts.md.

The rule of this file: the documents say what was measured and nothing else. A run that sees something else than what
is kept fails; ``python -m tests.hosts.matrix --write`` measures anew and writes both.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.hosts.matrix.hosts import HOSTS, Host

__all__ = ["COLUMNS", "WRITE", "Verdicts", "in_documents", "kept", "table"]

WRITE = "STREAMWARE_WRITE_HOSTS"
COLUMNS = {
    "broken": "breaks off, length known",
    "unframed": "length not known",
    "unframed-broken": "the same, breaks off",
    "leaves": "client leaves",
    "pauses": "client takes nothing",
    "sigterm": "SIGTERM",
    "grace": "grace exceeded",
    "default": "behind nginx, default",
    "recommended": "behind nginx, recommended",
}
_KEPT = Path(__file__).with_name("measured.json")
_DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "hosts.md"
_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


class Verdicts:
    """What is kept, and what this run has seen. Used as a context manager: on leaving, a writing run is written."""

    def __init__(self) -> None:
        self._kept = kept()
        self._writing = os.environ.get(WRITE) == "1"

    def saw(self, host: Host, column: str, seen: str) -> None:
        """Compare with what is kept; a writing run keeps it instead."""
        known = self._kept.setdefault(host.name, {})
        if self._writing:
            known.update({column: seen, "package": host.package})
        assert known.get(column) == seen, (
            f"{host.package}, {COLUMNS[column]}: docs/hosts.md says {known.get(column)!r}, this run saw {seen!r};"
            " if that is as it should be: python -m tests.hosts.matrix --write"
        )

    def __enter__(self) -> Verdicts:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._writing:
            order = {host.name: self._kept[host.name] for host in HOSTS if host.name in self._kept}
            _KEPT.write_text(json.dumps(order, indent=1, sort_keys=True) + "\n")
            before, _, rest = _DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN)
            after = rest.partition(_END)[2]
            _DOCUMENT.write_text(before + _BEGIN + table() + _END + after, encoding="utf-8")


def kept() -> dict[str, dict[str, str]]:
    """By host and column. Beside the columns stands ``package``: what was measured, in which version."""
    found: dict[str, dict[str, str]] = json.loads(_KEPT.read_text()) if _KEPT.exists() else {}
    return found


def table() -> str:
    """What is kept, as Markdown."""
    measured = kept()
    lines = ["| host | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for host in HOSTS:
        seen = measured.get(host.name, {})
        cells = [seen.get(column, "-") for column in COLUMNS]
        lines.append(f"| **{host.name}** ({seen.get('package', 'not measured')}) | " + " | ".join(cells) + " |")
    lines += ["", "Measured with:", "", "```", *(host.shown() for host in HOSTS), "```"]
    return "\n".join(lines) + "\n"


def in_documents() -> str:
    """What docs/hosts.md has between its two marks."""
    return _DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN)[2].partition(_END)[0]
