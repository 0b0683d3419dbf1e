"""``python -m tests.hosts.matrix``: run the suite; with ``--write``, keep what it sees and write docs/hosts.md."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.hosts.matrix.verdicts import WRITE

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--write" in arguments:
        arguments.remove("--write")
        os.environ[WRITE] = "1"
    sys.exit(pytest.main(["-q", str(Path(__file__).parent), *arguments]))
