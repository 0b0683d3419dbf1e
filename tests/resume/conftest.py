"""What these tests leave behind: nothing. Archives of some hundred MiB are not kept for the next three runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what the tests of a module share; gone when they are done."""
    folder = tmp_path_factory.mktemp("resume")
    yield folder
    shutil.rmtree(folder)
