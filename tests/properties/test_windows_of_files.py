"""Windows of archives of local files, whose blocks are made in buffers that are used again: always slices of the whole.

The archive is compared with one made by the book, so that no buffer can leave the same mistake in both.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamware import Archiver, Bundle, Conditions, Policy
from streamware.formats.framing import BLOCK, framed_length, frames
from streamware.memory_ledger import MemoryLedger

_BLOCKS = 4 * BLOCK
_SIZES = (0, 1, 65536, 65537, _BLOCKS - 1, _BLOCKS, _BLOCKS + 1, 2 * _BLOCKS, 2 * _BLOCKS + 1, 300_000, 700_001)
_CHUNKS = (1000, 65_536, 200_000, 256 * 1024, 1024 * 1024)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for size in _SIZES:
        (folder / str(size)).write_bytes(random.Random(size).randbytes(size))
    return folder


def bundle_of(folder: Path, sizes: Iterable[int]) -> Bundle:
    bundle = Bundle("b.zip")
    for number, size in enumerate(sizes):
        bundle.add_file(folder / str(size), f"{number}")
    return bundle


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(_SIZES), min_size=1, max_size=4),
    st.sampled_from(_CHUNKS),
    st.randoms(use_true_random=False),
)
def test_every_window_is_a_slice_of_the_whole(folder: Path, sizes: list[int], chunk: int, rng: random.Random) -> None:
    archiver = Archiver(Policy(chunk_bytes=chunk))
    with_all_held = list(archiver.open(bundle_of(folder, sizes)))
    whole = b"".join(with_all_held)
    let_go = bytearray()
    for piece in archiver.open(bundle_of(folder, sizes)):
        let_go += piece
        del piece
    assert let_go == whole
    for size in sizes:
        content = (folder / str(size)).read_bytes()
        if size > 65536:
            content = b"".join(frames([content], size, 0, framed_length(size)))
        assert content in whole
    for _ in range(4):
        archiver.ledger = MemoryLedger()
        start = rng.choice((0, rng.randrange(len(whole)), whole.find(b"\0\xff\xff\0\0") % len(whole)))
        stop = rng.randrange(start, len(whole))
        reply = archiver.respond(bundle_of(folder, sizes), Conditions(range=f"bytes={start}-{stop}"))
        assert reply.status == 206
        assert b"".join(reply.body) == whole[start : stop + 1]
        reply.body.close()
