"""Two replicas on one PostgreSQL and one S3 endpoint: whatever one of them began, the other goes on with."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.conftest import SOAK
from tests.files.agreement import agree
from tests.files.bundles import bundle_path, edges, no_descriptors, resumes
from tests.files.sending import Line, Tus, ask, content, digest, post
from tests.files.services import Place, Service, World
from tests.hosts.servers import until

pytestmark = pytest.mark.judge("postgres")

DATA = content("replicas", 900_000)


class Pair:
    def __init__(self, world: World, kinds: tuple[str, str]) -> None:
        self.place: Place = world.shared()
        self.a, self.b = (world.service(kind, self.place) for kind in kinds)

    @property
    def both(self) -> tuple[Service, Service]:
        return self.a, self.b


@pytest.fixture(scope="module", params=[("gunicorn", "uvicorn"), ("serve", "serve")], ids="-".join)
def pair(request: pytest.FixtureRequest, world: World) -> Iterator[Pair]:
    pair = Pair(world, request.param)
    yield pair
    for service in pair.both:
        service.stop()
    agree(pair.place)


@pytest.mark.case(45)
@pytest.mark.parametrize("killed", [False, True])
def test_an_upload_that_broke_on_one_goes_on_on_the_other(pair: Pair, killed: bool) -> None:
    tus = Tus()
    path = tus.create(pair.a.port, len(DATA), "broken.bin").headers["location"]
    with Line(pair.a.port) as line:
        line.head("PATCH", path, tus.head(path, 0, len(DATA)))
        line.send(DATA[:500_001])
        # What is not kept yet dies with its process: with serve, up to 64 MiB.
        sure = 0 if pair.a.kind == "serve" else 300_000
        if killed:
            until(lambda: tus.offset(pair.b.port, path) >= sure)
            pair.a.kill()
    if killed:
        assert sure <= tus.offset(pair.b.port, path) <= 500_001
    else:
        until(lambda: tus.offset(pair.b.port, path) == 500_001)
    tus.complete(pair.b.port, path, DATA)
    if killed:
        pair.a.start()
    for service in pair.both:
        answer = ask(service.port, "GET", path)
        assert (answer.status, digest(answer.body)) == (200, digest(DATA))


def test_both_tell_the_same_of_a_file(pair: Pair) -> None:
    stored = post(pair.a.port, "same.bin", DATA).document
    answers = [ask(service.port, "GET", stored["url"]) for service in pair.both]
    for answer in answers:
        assert answer.body == DATA
    for name in ("etag", "last-modified", "content-disposition", "repr-digest", "content-type", "content-length"):
        assert answers[0].headers[name] == answers[1].headers[name], name
    assert answers[0].headers["etag"] == f'"{digest(DATA)}"'


def test_a_bundle_of_stored_files_goes_on_from_any_byte_on_the_other(pair: Pair) -> None:
    contents = [content(f"member {n}", size) for n, size in enumerate((300_000, 10, 450_000))]
    urls = [post(pair.a.port, f"{n}.bin", data).document["url"] for n, data in enumerate(contents)]
    path = bundle_path(urls)
    first = ask(pair.a.port, "GET", path)
    assert first.status == 200, first
    no_descriptors(first.body, contents)
    pair.b.restart()  # so that it has learned nothing
    head = ask(pair.b.port, "HEAD", path)
    assert head.headers["etag"] == first.headers["etag"]
    assert head.headers["content-length"] == str(len(first.body))
    assert head.headers["accept-ranges"] == "bytes"
    starts = edges(first.body)
    if not SOAK:
        starts = random.Random(6).sample(starts, 12)
    resumes(pair.b.port, path, first.body, first.headers["etag"], starts)
    assert ask(pair.b.port, "GET", path).body == first.body
