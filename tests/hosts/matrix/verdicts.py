"""What tests have seen of each host, as it is kept in the repository and told in docs/hosts.md.

The rule of this file: the documents say what was measured and nothing else. A run that sees something else than what
is kept fails; one with ``STREAMWARE_WRITE_HOSTS=1`` measures anew and writes both, and so does ``python -m
tests.hosts.matrix --write`` for the matrix.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.hosts.matrix.hosts import HOSTS, Host

__all__ = ["MATRIX", "WRITE", "Measured", "Verdicts"]

WRITE = "STREAMWARE_WRITE_HOSTS"
_DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "hosts.md"


class Measured:
    """A table of hosts: what is kept of it, and where docs/hosts.md has it.

    :param mark: of the two comments that it stands between.
    :param columns: titles by name.
    :param packages: whether it also says which versions were measured, and how they are started.
    """

    def __init__(
        self, kept: Path, mark: str, columns: Mapping[str, str], hosts: Sequence[Host], packages: bool
    ) -> None:
        self.columns = columns
        self.hosts = hosts
        self._path = kept
        self._begin, self._end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->\n"
        self._packages = packages

    def kept(self) -> dict[str, dict[str, str]]:
        """By host and column. Beside the columns stands ``package``: what was measured, in which version."""
        found: dict[str, dict[str, str]] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return found

    def seen(self) -> set[tuple[str, str]]:
        """The hosts and columns that something is kept of."""
        return {(name, column) for name, seen in self.kept().items() for column in seen if column != "package"}

    def table(self) -> str:
        """What is kept, as Markdown."""
        measured = self.kept()
        lines = ["| host | " + " | ".join(self.columns.values()) + " |", "|---" * (len(self.columns) + 1) + "|"]
        for host in self.hosts:
            seen = measured.get(host.name, {})
            name = f"**{host.name}**" + (f" ({seen.get('package', 'not measured')})" if self._packages else "")
            lines.append("| " + " | ".join([name, *(seen.get(column, "-") for column in self.columns)]) + " |")
        if self._packages:
            lines += ["", "Measured with:", "", "```", *(host.shown() for host in self.hosts), "```"]
        return "\n".join(lines) + "\n"

    def in_documents(self) -> str:
        """What docs/hosts.md has between the two marks."""
        return _DOCUMENT.read_text(encoding="utf-8").partition(self._begin)[2].partition(self._end)[0]

    def write(self, kept: Mapping[str, Mapping[str, str]]) -> None:
        """Keep this, and say it in docs/hosts.md."""
        order = {host.name: kept[host.name] for host in self.hosts if host.name in kept}
        self._path.write_text(json.dumps(order, indent=1, sort_keys=True) + "\n")
        before, _, rest = _DOCUMENT.read_text(encoding="utf-8").partition(self._begin)
        after = rest.partition(self._end)[2]
        _DOCUMENT.write_text(before + self._begin + self.table() + self._end + after, encoding="utf-8")


class Verdicts:
    """What this run has seen, against what is kept. Used as a context manager: on leaving, a writing run is written.

    :param again: the command that measures anew, for whoever reads a failure.
    """

    def __init__(self, measured: Measured, again: str) -> None:
        self._measured = measured
        self._again = again
        self._kept = measured.kept()
        self._writing = os.environ.get(WRITE) == "1"

    def saw(self, host: Host, column: str, seen: str) -> None:
        """Compare with what is kept; a writing run keeps it instead."""
        known = self._kept.setdefault(host.name, {})
        if self._writing:
            known.update({column: seen, "package": host.package})
        assert known.get(column) == seen, (
            f"{host.package}, {self._measured.columns[column]}: docs/hosts.md says {known.get(column)!r},"
            f" this run saw {seen!r}; if that is as it should be: {self._again}"
        )

    def __enter__(self) -> Verdicts:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._writing:
            self._measured.write(self._kept)


MATRIX = Measured(
    Path(__file__).with_name("measured.json"),
    "measured",
    {
        "broken": "breaks off, length known",
        "unframed": "length not known",
        "unframed-broken": "the same, breaks off",
        "leaves": "client leaves",
        "pauses": "client takes nothing",
        "sigterm": "SIGTERM",
        "grace": "grace exceeded",
        "default": "behind nginx, default",
        "recommended": "behind nginx, recommended",
    },
    HOSTS,
    packages=True,
)
