"""Archives for the judges: made by the public API, once a kind, as a file and as a stream."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamware import Archiver, Bundle
from tests.interop.kinds import KINDS, Shelf

__all__ = ["pieces_of"]

Make = Callable[[str], tuple[Path, Shelf]]


@pytest.fixture(scope="package")
def archiver() -> Iterator[Archiver]:
    archiver = Archiver()
    yield archiver
    archiver.close()


def pieces_of(archiver: Archiver, bundle: Bundle) -> Iterator[bytes]:
    """An archive as it streams, counted against the promised length."""
    body = archiver.open(bundle)
    count = 0
    try:
        for piece in body:
            count += len(piece)
            yield piece
        assert body.length in (None, count)
    finally:
        body.close()


@pytest.fixture(scope="package")
def make(archiver: Archiver, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """``make(kind)``: the archive as a file, and what is in it."""
    folder = tmp_path_factory.mktemp("archives")

    @functools.cache
    def make(kind: str) -> tuple[Path, Shelf]:
        shelf = KINDS[kind]()
        path = folder / shelf.bundle.name
        with path.open("wb") as file:
            file.writelines(pieces_of(archiver, shelf.bundle))
        return path, shelf

    return make
