"""Replicas behind a front: the one that serves a download is killed, and the download goes on through the same front.

The bundle is a ZIP of members behind nginx that nobody knows a checksum of: 256 MiB, 2 GiB in the soak.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import SOAK, judge
from tests.hosts.chromium import Browser
from tests.hosts.postgres import postgres
from tests.resume.clients import curl, digest, scan
from tests.resume.front import front
from tests.resume.replicas import Replica, metric, save_link, serve_command
from tests.resume.upstream import MIB, Origin, origin

BUNDLE = 2048 * MIB if SOAK else 256 * MIB
RATE = 256 * MIB if SOAK else 64 * MIB  # bytes a second, of a client that is to be cut off


@pytest.fixture(scope="module")
def members(work: Path) -> Iterator[Origin]:
    with origin(work, [BUNDLE // 8 + 4321 * n for n in range(-4, 4)]) as members:
        yield members


def command(members: Origin, work: Path, state: str | None = None) -> list[str]:
    (work / "empty").mkdir(exist_ok=True)
    return serve_command(work / "empty", work, allow=members.url, state=state)


def serving(replicas: Sequence[Replica]) -> Replica:
    """The replica that is sending an archive right now."""
    busy = [replica for replica in replicas if metric(replica, "streamware_active_downloads")]
    assert len(busy) == 1
    return busy[0]


def check(out: Path, url: str) -> None:
    """The file opens, and is what another download gives in one go."""
    done = subprocess.run([judge("unzip"), "-tqq", out], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:]
    whole = scan(url)
    assert (whole.status, whole.count, whole.sha256) == (200, out.stat().st_size, digest(out))
    out.unlink()


@pytest.mark.judge("nginx", "curl", "unzip", "postgres")
def test_a_download_outlives_the_replica_that_served_it(members: Origin, tmp_path: Path) -> None:
    """Two replicas, one PostgreSQL: kill -9 of the one that serves, twice, and ``curl -C - -O`` through the front."""
    members.renew()
    with ExitStack() as stack:
        state = stack.enter_context(postgres(tmp_path / "postgres"))
        line = command(members, tmp_path, state)
        first, second = (stack.enter_context(Replica(line, tmp_path / f"{n}.log")) for n in (1, 2))
        url = stack.enter_context(front((first, second), tmp_path / "front"))
        link = f"{url}{save_link(url, members.manifest('all.zip'))}"
        out = tmp_path / "all.zip"
        for share in (0.35, 0.8):
            tool = curl(out, link, rate=RATE)
            tool.wait_for(int(BUNDLE * share))
            dead = serving((first, second))
            dead.kill()
            code, said = tool.wait()
            assert code == 18, (code, said)  # "transferred a partial file"
            assert BUNDLE * share <= out.stat().st_size < BUNDLE
            if share < 0.5:
                dead.start()  # the second time its neighbour is all there is
        code, said = curl(out, link).wait(240)
        assert code == 0, said
        check(out, link)


@pytest.mark.judge("nginx", "curl", "unzip")
def test_a_download_outlives_its_only_replica(members: Origin, tmp_path: Path) -> None:
    """One replica on SQLite, killed and started again in between."""
    members.renew()
    line = command(members, tmp_path)
    with Replica(line, tmp_path / "log") as replica, front((replica,), tmp_path / "front") as url:
        link = f"{url}{save_link(url, members.manifest('all.zip'))}"
        out = tmp_path / "all.zip"
        for share in (0.3, 0.7):
            tool = curl(out, link, rate=RATE)
            tool.wait_for(int(BUNDLE * share))
            replica.kill()
            code, said = tool.wait()
            assert code == 18, (code, said)
            replica.start()
        code, said = curl(out, link).wait(240)
        assert code == 0, said
        check(out, link)


class Downloads:
    """A browser's page of downloads, which is where its user pauses and goes on."""

    ITEM = "document.querySelector('downloads-manager')?.shadowRoot?.querySelector('downloads-item')?.shadowRoot"

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        browser.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(browser.downloads),
            eventsEnabled=True,
        )

    def begin(self, url: str) -> None:
        assert self._browser.call("Page.navigate", url=url)["isDownload"]

    def show(self) -> None:
        self._browser.call("Page.navigate", url="chrome://downloads")
        self._browser.until(lambda: self._browser.run(f"!!({self.ITEM})"))

    def received(self) -> int:
        """Bytes so far."""
        return max((e["receivedBytes"] for e in self._progress()), default=0)

    def state(self) -> str:
        return next((str(e["state"]) for e in reversed(self._progress())), "")

    def _progress(self) -> list[dict[str, object]]:
        return [e["params"] for e in self._browser.events if e["method"] == "Browser.downloadProgress"]

    def button(self) -> str:
        """What the button that pauses would do now: "Pause" or "Resume"."""
        return str(self._browser.run(f"{self.ITEM}.getElementById('pause-or-resume').innerText")).strip()

    def press(self) -> None:
        was = self.button()
        self._browser.run(f"{self.ITEM}.getElementById('pause-or-resume').click()")
        self._browser.until(lambda: self.button() != was)


class Slowed(NamedTuple):
    """A browser, its downloads, a link to the bundle, and the one replica behind it."""

    browser: Browser
    downloads: Downloads
    link: str
    replica: Replica


@pytest.fixture
def slowed(members: Origin, tmp_path: Path) -> Iterator[Slowed]:
    """The front lets each download have 40 MiB a second, so that there is something to pause."""
    members.renew()
    line = command(members, tmp_path)
    with ExitStack() as stack:
        replica = stack.enter_context(Replica(line, tmp_path / "log"))
        url = stack.enter_context(front((replica,), tmp_path / "front", bytes_per_second=40 * MIB))
        browser = stack.enter_context(Browser(judge("chromium"), tmp_path / "browser"))
        link = f"{url}{save_link(url, members.manifest('all.zip'))}"
        yield Slowed(browser, Downloads(browser), link, replica)


@pytest.mark.judge("nginx", "chromium", "bash", "unzip")
def test_a_browser_goes_on_after_a_pause(slowed: Slowed) -> None:
    """Paused while the server goes away, so that going on takes a new request."""
    browser, downloads, link, replica = slowed
    downloads.begin(link)
    downloads.show()
    browser.until(lambda: downloads.received() > BUNDLE // 5, 60)
    downloads.press()
    assert downloads.button() == "Resume"
    held = downloads.received()
    replica.restart()
    time.sleep(1)
    assert downloads.received() <= held + 40 * MIB < BUNDLE
    assert downloads.state() == "inProgress"
    downloads.press()
    browser.until(lambda: downloads.state() != "inProgress", 300)
    assert downloads.state() == "completed"
    # The replica that came back was asked for the rest alone.
    assert 0 < metric(replica, "streamware_bytes_out_total") <= BUNDLE - held + MIB
    check(browser.downloaded("all.zip"), link)
