"""``kill -9`` between each two steps of writing and deleting, and within a write: all of them, one after the other.

After each, with a new process on the same state: a file is whole and listed, or absent, or a tus upload with a true
offset that can be completed to the right digest; and after a sweep rows, parts and objects agree.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import SOAK
from tests.files.agreement import agree
from tests.files.crashing import Steps
from tests.files.sending import Tus, ask, content, digest, form, listed, post
from tests.files.services import Place, Service, World
from tests.hosts.servers import until

pytestmark = pytest.mark.case(53)

PART = 64 * 1024
DATA = content("crash", 2 * PART + 1000)
OTHER = content("crash too", PART + 10)
KNOWN = {digest(DATA): len(DATA), digest(OTHER): len(OTHER)}


@dataclass
class Scene:
    """What was told to the client, up to the crash."""

    port: int
    stored: set[str] = field(default_factory=set)  # paths of what was answered with 201 or 204 as whole
    open: dict[str, bytes] = field(default_factory=dict)  # paths of tus uploads that were announced, and their content
    kept: dict[str, int] = field(default_factory=dict)  # the last offset that was acknowledged
    partial: set[str] = field(default_factory=set)  # those that are to be joined
    ending: set[str] = field(default_factory=set)  # paths that were asked to go away


def raw(scene: Scene) -> None:
    answer = post(scene.port, "a.bin", DATA)
    assert answer.status == 201, answer
    scene.stored.add(answer.document["url"])


def multipart(scene: Scene) -> None:
    media_type, body = form([("a.bin", DATA), ("b.bin", OTHER)])
    answer = ask(scene.port, "POST", "/files", {"Content-Type": media_type}, body)
    assert answer.status == 201, answer
    scene.stored.update(file["url"] for file in answer.document["files"])


def tus(scene: Scene) -> None:
    """Created with a first piece, and sent in two more requests, the first of several parts."""
    path = _create(scene, DATA, DATA[:100])
    _patch(scene, path, 2 * PART)
    _patch(scene, path, len(DATA))
    scene.stored.add(path)


def _create(scene: Scene, data: bytes, first: bytes, **headers: str) -> str:
    answer = Tus().create(scene.port, len(data), "tus.bin", first, **headers)
    assert answer.status == 201, answer
    path = answer.headers["location"]
    scene.open[path] = data
    scene.kept[path] = len(first)
    return path


def _patch(scene: Scene, path: str, end: int, **headers: str) -> None:
    at = scene.kept[path]
    answer = Tus().patch(scene.port, path, at, scene.open[path][at:end], **headers)
    assert answer.status == 204, answer
    scene.kept[path] = end


def deferred(scene: Scene) -> None:
    """The length is told with the last request."""
    answer = Tus().create(scene.port, None)
    assert answer.status == 201, answer
    path = answer.headers["location"]
    scene.kept[path] = 0
    scene.open[path] = OTHER
    assert Tus().patch(scene.port, path, 0, OTHER[:PART]).status == 204
    scene.kept[path] = PART
    answer = Tus().patch(scene.port, path, PART, OTHER[PART:], Upload_Length=str(len(OTHER)))
    assert answer.status == 204, answer
    scene.kept[path] = len(OTHER)
    scene.stored.add(path)


def joined(scene: Scene) -> None:
    paths = []
    for part in (DATA[:PART], DATA[PART:]):
        path = _create(scene, part, part, Upload_Concat="partial")
        paths.append(path)
        scene.partial.add(path)
    told = {**Tus.version, "Upload-Concat": f"final;{' '.join(paths)}"}
    for path in paths:
        scene.ending.add(path)
    answer = ask(scene.port, "POST", "/files", told, b"")
    assert answer.status == 201, answer
    for path in paths:
        del scene.open[path], scene.kept[path]
    scene.stored.add(answer.headers["location"])


def terminated(scene: Scene) -> None:
    path = _create(scene, DATA, DATA[:100])
    _patch(scene, path, PART)
    scene.ending.add(path)
    answer = ask(scene.port, "DELETE", path, Tus.version)
    assert answer.status == 204, answer
    del scene.open[path], scene.kept[path]
    assert ask(scene.port, "HEAD", path, Tus.version).status in (404, 410)


def deleted(scene: Scene) -> None:
    raw(scene)
    (path,) = scene.stored
    scene.ending.add(path)
    answer = ask(scene.port, "DELETE", path)
    assert answer.status == 204, answer
    assert ask(scene.port, "GET", path).status == 404


def expired(scene: Scene) -> None:
    """A file that is kept for no time at all is swept away."""
    answer = post(scene.port, "a.bin", DATA)
    assert answer.status == 201, answer
    scene.ending.add(answer.document["url"])
    assert ask(scene.port, "POST", "/sweep").status == 200


SCENES: tuple[Callable[[Scene], None], ...] = (raw, multipart, tus, deferred, joined, terminated, deleted, expired)


def check(scene: Scene, place: Place) -> None:
    """The invariant, by a new process."""
    port, client = scene.port, Tus()
    for path in scene.stored - scene.ending:
        answer = ask(port, "GET", path)
        assert answer.status == 200, (path, answer)
        assert digest(answer.body) in KNOWN
    for path in scene.ending:
        assert ask(port, "GET", path).status in (200, 404, 410)
    for path, data in scene.open.items():
        if path in scene.ending and ask(port, "HEAD", path, client.version).status in (404, 410):
            continue
        at = client.offset(port, path)
        assert scene.kept[path] <= at <= len(data), (path, at, scene.kept[path])
    found = list(listed(port))
    for told in found:
        body = ask(port, "GET", told["url"]).body
        assert len(body) == told["size"] == KNOWN[digest(body)], told
        assert told["sha256"] in (None, digest(body))
    agree(place, None)
    for path, data in scene.open.items():
        if path not in scene.ending:
            # A client that is told that all has come sends nothing more, and then there must be a file.
            client.complete(port, path, data)
            answer = ask(port, "GET", path)
            if path not in scene.partial:
                assert (answer.status, digest(answer.body)) == (200, digest(data)), (path, answer.status)
    for told in list(listed(port)):  # so that the next check has no more to look at than this one
        assert ask(port, "DELETE", told["url"]).status == 204


class Bench:
    """A service whose worker dies at a step, and comes back by its master."""

    def __init__(self, world: World, place: Place, steps: Steps, **policy: float) -> None:
        self.place = place
        self.steps = steps
        policy["upload_part_bytes"] = PART
        self.service: Service = world.service("gunicorn", place, crash=steps.folder, policy=policy)

    def play(self, scene: Callable[[Scene], None], number: int, when: str) -> tuple[Scene, list[str]]:
        """Play a scene with a crash at a step (0: none); what was told, and the steps that were taken."""
        told = Scene(self.service.port)
        self.steps.bury()
        if number:
            self.steps.die(number, when)
        else:
            self.steps.record()
        broke: Any = None
        try:
            scene(told)
        except (OSError, http.client.HTTPException) as error:
            broke = error
        taken = self.steps.taken()
        assert self.steps.died == (broke is not None), (number, when, taken, broke)
        self.steps.record()
        return told, taken


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_crash_between_any_two_steps(scene: Callable[[Scene], None], world: World) -> None:
    _crash_everywhere(scene, world, world.local())


@pytest.mark.soak
@pytest.mark.judge("postgres")
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_crash_between_any_two_steps_with_postgresql_and_s3(scene: Callable[[Scene], None], world: World) -> None:
    _crash_everywhere(scene, world, world.shared())


def _crash_everywhere(scene: Callable[[Scene], None], world: World, place: Place) -> None:
    policy = {"file_seconds": 0.001} if scene is expired else {}
    bench = Bench(world, place, Steps(world.work / f"steps-{id(place)}"), **policy)
    told, taken = bench.play(scene, 0, "")
    assert taken, "nothing was written"
    check(told, place)
    # One of many folders that are made durable one after the other is as good as another.
    dull = {n for n in range(2, len(taken)) if taken[n - 2 : n + 1] == ["os.fsync"] * 3 and not SOAK}
    points = [(number, "before") for number in range(1, len(taken) + 1) if number not in dull]
    points += [(number, "within") for number, name in enumerate(taken, 1) if name == "ObjectWriter.write"]
    points.append((len(taken), "after"))
    for number, when in points:
        told, _ = bench.play(scene, number, when)
        with suppress(OSError, http.client.HTTPException):  # the old listener's backlog may still be reset
            ask(bench.service.port, "GET", "/healthz")
        try:
            check(told, place)
        except AssertionError as error:
            raise AssertionError(
                f"died {when} step {number} of {taken}: {error}\n{bench.service.said()[-3000:]}"
            ) from error
        if SOAK or number % 4 == 0:
            agree(place)
    agree(place)
    bench.service.stop()


def test_a_digest_that_could_not_be_taken_is_taken_by_the_next_process(world: World) -> None:
    """Of bytes that came to different processes, and with the last one killed before it had read them again."""
    place, client = world.local(), Tus()
    service = world.service("uvicorn", place, sweeping=True)
    try:
        data = content("digest", 12_000_000)
        path = client.create(service.port, len(data)).headers["location"]
        assert client.patch(service.port, path, 0, data[:1_000_000]).status == 204
        service.restart()
        assert client.patch(service.port, path, 1_000_000, data[1_000_000:]).status == 204
        service.restart()
        answer = ask(service.port, "HEAD", path)
        assert answer.headers["etag"] in (f'"{path.rpartition("/")[2]}"', f'"{digest(data)}"')
        until(lambda: ask(service.port, "HEAD", path).headers["etag"] == f'"{digest(data)}"', 30)
        answer = ask(service.port, "GET", path)
        assert digest(answer.body) == digest(data)
        assert answer.headers["repr-digest"].startswith("sha-256=:")
        assert [file["sha256"] for file in listed(service.port)] == [digest(data)]
        # Whoever began to read it by its first entity-tag goes on by that.
        first = {"Range": "bytes=100-199", "If-Range": f'"{path.rpartition("/")[2]}"'}
        answer = ask(service.port, "GET", path, first)
        assert (answer.status, answer.body) == (206, data[100:200])
    finally:
        service.stop()
    agree(place)
