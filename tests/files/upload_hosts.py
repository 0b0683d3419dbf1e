"""What each host makes of uploads, as it is kept in the repository and told in docs/hosts.md.

The rule of this file: that of ``tests.hosts.matrix.verdicts``: the documents say what was measured and nothing else.
``STREAMWARE_WRITE_HOSTS=1`` measures anew and writes both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.files.upload_apps import KIND, WORK
from tests.hosts.matrix.hosts import HOSTS, Host
from tests.hosts.matrix.verdicts import WRITE
from tests.resume.replicas import Replica

__all__ = ["COLUMNS", "UPLOAD_HOSTS", "Verdicts", "in_documents", "kept", "serving", "table"]

UPLOAD_HOSTS = tuple(host for host in HOSTS if not host.http2)
COLUMNS = {
    "chunked": "body without length",
    "expect": "100 Continue",
    "cut": "cut, length known",
    "cut-chunked": "cut, without length",
    "lengths": "length and chunks",
    "two": "two lengths",
    "refused": "refused early, 10 MB",
    "drips": "drips",
}
_KEPT = Path(__file__).with_name("measured.json")
_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "hosts.md"
_BEGIN, _END = "<!-- uploads measured: begin -->\n", "<!-- uploads measured: end -->\n"


@contextmanager
def serving(host: Host, work: Path) -> Iterator[Replica]:
    """The host with the app of ``upload_apps``, and its files in ``work``."""
    assert host.package  # or it is skipped here
    arguments = [part.replace("tests.hosts.matrix.apps", "tests.files.upload_apps") for part in host.arguments()]
    replica = Replica(arguments, work / "log", {WORK: str(work), KIND: host.kind})
    try:
        replica.start()
        yield replica
    finally:
        try:
            replica.kill()
        except ProcessLookupError:
            pass  # it ended by itself, which the tests have seen


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
            f" if that is as it should be: {WRITE}=1 python -m pytest tests/files/test_upload_hosts.py"
        )

    def __enter__(self) -> Verdicts:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._writing:
            order = {host.name: self._kept[host.name] for host in UPLOAD_HOSTS if host.name in self._kept}
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
    for host in UPLOAD_HOSTS:
        cells = [measured.get(host.name, {}).get(column, "-") for column in COLUMNS]
        lines.append(f"| **{host.name}** | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def in_documents() -> str:
    """What docs/hosts.md has between its two marks."""
    return _DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN)[2].partition(_END)[0]
