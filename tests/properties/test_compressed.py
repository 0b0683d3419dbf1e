"""What must hold for every compressed bundle: the same bytes at any time, with any threads, and in any window."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamware import Archiver, Bundle, Member, Policy
from tests.synthetic import Synthetic, content, ranged, read

_BLOCK = 256 * 1024
_EDGES = (0, 1, 16_383, 16_384, 65_536, 65_537, _BLOCK - 1, _BLOCK, _BLOCK + 1, 2 * _BLOCK, 3 * _BLOCK + 5)
_SIZES = st.one_of(st.sampled_from(_EDGES), st.integers(0, 100_000))


@pytest.fixture(scope="module", autouse=True)
def archivers() -> Iterator[None]:
    # One reads in other pieces, one has hardly any room, so that most is compressed by who reads.
    for policy in (
        Policy(deflate_threads=1),
        Policy(deflate_threads=2),
        Policy(deflate_threads=5, chunk_bytes=10_000),
        Policy(deflate_threads=2, deflate_bytes=300_000, deflate_total_bytes=200_000),
    ):
        ARCHIVERS.append(Archiver(policy))
    yield
    for archiver in ARCHIVERS:
        archiver.close()


ARCHIVERS: list[Archiver] = []


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    compress = draw(st.sampled_from(("deflate", "deflate:1", "deflate:6", "auto")))
    bundle = Bundle("b", draw(st.sampled_from(("zip", "zip", "zip", "tar.gz", "tar.zst"))), compress)
    for number in range(draw(st.integers(1, 7))):
        source = Synthetic(
            draw(_SIZES),
            draw(st.integers(0, 50)),
            cut=draw(st.sampled_from((4096, 65_536, 300_000))),
            instant=draw(st.booleans()),
            size_known=bundle.format != "zip" or draw(st.integers(0, 3)) > 0,
        )
        bundle.add(Member(f"{number}.{draw(st.sampled_from(('txt', 'jpg')))}", source))
    return bundle


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(bundles(), st.randoms(use_true_random=False))
def test_any_threads_give_the_same_bytes_and_any_window_is_a_slice(bundle: Bundle, rng: random.Random) -> None:
    whole = read(ARCHIVERS[0], bundle)
    tags = set()
    for archiver in ARCHIVERS:
        assert read(archiver, bundle) == whole
        reply = archiver.respond(bundle)
        tags.add(reply.header("ETag"))
        length = reply.header("Content-Length")
        assert b"".join(reply.body) == whole
        reply.body.close()
        sizes_known = all(m.content.size_known for m in bundle.members)
        assert (length is not None) == (sizes_known and bundle.format == "zip")
        if length is not None:
            assert int(length) == len(whole)
            for _ in range(3):
                start = rng.randrange(len(whole))
                stop = min(len(whole), start + rng.choice((1, 30, 70_000, len(whole))))
                status, _, data = ranged(archiver, bundle, f"bytes={start}-{stop - 1}")
                assert status == 206
                assert data == whole[start:stop]
    assert len(tags) == 1
    assert all(member.content.live == 0 for member in bundle.members)
    wanted = {member.name: content(member.content.size, member.content.seed) for member in bundle.members}
    if bundle.format == "zip":
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == wanted
    elif bundle.format == "tar.gz":
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:gz") as tar:
            assert {m.name: tar.extractfile(m).read() for m in tar} == wanted
