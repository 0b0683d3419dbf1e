"""docs/hosts.md says what the host suite has measured, word for word."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.hosts.matrix.hosts import HOSTS
from tests.hosts.matrix.verdicts import MATRIX, WRITE

ROOT = Path(__file__).resolve().parents[3]
NOT_ASKED = {("gunicorn sync", "grace"), ("hypercorn HTTP/2", "default"), ("hypercorn HTTP/2", "recommended")}


@pytest.mark.skipif(os.environ.get(WRITE) == "1", reason="this run writes what the documents say")
def test_the_documents_say_what_was_measured() -> None:
    assert MATRIX.in_documents() == MATRIX.table()


@pytest.mark.skipif(os.environ.get(WRITE) == "1", reason="this run writes what the documents say")
def test_every_host_was_measured() -> None:
    assert MATRIX.seen() == {(host.name, column) for host in HOSTS for column in MATRIX.columns} - NOT_ASKED


def test_what_is_advised_was_measured() -> None:
    text = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
    commands, settings = re.findall(r"^```(?:nginx)?\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)[:2]
    assert set(commands.splitlines()) <= {host.shown() for host in HOSTS}
    shipped = {line.strip() for line in (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8").splitlines()}
    assert set(settings.splitlines()) <= shipped
