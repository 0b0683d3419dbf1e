"""Seeded interruptions: client, server or line struck at a random byte of raw, multipart and tus uploads, of deletions.

Whatever id was ever announced is whole by SHA-256 or answers 404; uploads go on to the right digest, by clients of our
own, tuspy and tus-js-client; and in the end rows, parts and objects agree. STREAMWARE_SOAK=1 runs all 300.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import SOAK
from tests.files.agreement import agree
from tests.files.sending import ask, digest, listed
from tests.files.services import World
from tests.files.trials import KINDS, Setting, Trial
from tests.files.tusjs import TusPage

TRIALS = 300 if SOAK else 24
# Replicas share PostgreSQL and S3; a single one has SQLite and a folder.
SETTINGS = (
    ("gunicorn", False),
    ("uvicorn", False),
    ("serve", False),
    ("uvicorn", False),
    ("uvicorn", True),
    ("gunicorn", False),
    ("serve", False),
    ("gunicorn", True),
)

pytestmark = [pytest.mark.case(45, 46, 53), pytest.mark.judge("postgres", "chromium")]


class Settings:
    """All that were needed so far, by kind and whether they are shared; and one browser."""

    def __init__(self, world: World, stack: ExitStack) -> None:
        self.world = world
        self.made: dict[tuple[str, bool], Setting] = {}
        self._stack = stack
        self._page: TusPage | None = None

    def get(self, kind: str, shared: bool) -> Setting:
        if (kind, shared) not in self.made:
            self.made[kind, shared] = setting = Setting(self.world, kind, shared=shared)
            self._stack.callback(setting.close)
        return self.made[kind, shared]

    def page(self) -> TusPage:
        if self._page is None:
            self._page = self._stack.enter_context(TusPage(self.world.work / "browser"))
        return self._page


@pytest.fixture(scope="module")
def settings(world: World) -> Iterator[Settings]:
    with ExitStack() as stack:
        yield Settings(world, stack)


@pytest.mark.parametrize("seed", range(TRIALS))
def test_what_was_announced_is_whole(seed: int, settings: Settings, tmp_path: Path) -> None:
    kind = KINDS[seed % len(KINDS)]
    where = SETTINGS[seed % len(SETTINGS)]
    trial = Trial(seed, kind, settings.get(*where), tmp_path, settings.page() if kind == "tusjs" else None)
    try:
        trial.run()
    except BaseException:
        print(f"trial {seed}, {kind} at {where}:", *trial.told, sep="\n  ")
        raise


def test_afterwards_all_of_it_agrees(settings: Settings) -> None:
    for where, setting in settings.made.items():
        setting.check()
        port = setting.services[0].port
        for told in listed(port):
            body = ask(port, "GET", told["url"]).body
            assert digest(body) in setting.contents, (where, told)
            assert told["size"] == len(body)
            assert told["sha256"] in (None, digest(body))
        for service in setting.services:
            service.kill()
        agree(setting.place)
