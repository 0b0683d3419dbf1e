"""The page of the uploads, judged by a real browser: drops, progress, breaks, and the plain form without scripts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import judge
from tests.files.sending import Tus
from tests.hosts.chromium import CONTRAST, NAMELESS, Browser
from tests.hosts.nginx import run_nginx
from tests.hosts.relay import Relay
from tests.hosts.serve_process import Served

pytestmark = pytest.mark.judge("chromium", "bash")

MIB = 1 << 20
NASTY = "<img src=x onerror=alert(1)> & 'q'.txt"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    top = tmp_path_factory.mktemp("files")
    (top / "things").mkdir()
    (top / "things" / "a.txt").write_text("alpha\n")
    options = ("--state", f"sqlite:///{top}/state.sqlite3", "--allow-delete", "--max-upload", "8M")
    with Served(top / "things", *options) as server:
        yield server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(judge("chromium"), tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(shared: Browser, served: Served) -> Browser:
    """The one browser, as a new one would be: nothing remembered, all as fast as it goes."""
    shared.scripts(on=True)
    shared.network()
    shared.screen(1200, 800)
    shared.open(f"{served.url}/assets/page.css")
    shared.run("localStorage.clear()")
    return shared


def stored(served: Served) -> dict[str, dict[str, object]]:
    """What is there, by name."""
    return {file["name"]: file for file in json.loads(served.ask("/files").body)["files"]}


def made(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def said(browser: Browser) -> str:
    return str(browser.run("document.getElementById('said').textContent"))


def text(browser: Browser) -> str:
    return str(browser.run("document.body?.textContent ?? ''"))


def states(browser: Browser) -> list[str]:
    found: list[str] = browser.run("[...document.querySelectorAll('#uploads li')].map(li => li.dataset.state)")
    return found


def part(browser: Browser) -> float:
    """How much of the one upload in the list the page says has gone, from 0 to 1."""
    return float(browser.run("(b => b ? b.value / b.max : -1)(document.querySelector('#uploads progress'))"))


def rows(browser: Browser) -> list[str]:
    found: list[str] = browser.run("[...document.querySelectorAll('#pick tbody bdi')].map(e => e.textContent)")
    return found


def opened(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.until(lambda: browser.run("document.getElementById('upload').hasAttribute('data-ready')"))


def at(browser: Browser, path: str) -> None:
    """Wait until a page is there, and loaded."""
    browser.until(lambda: browser.run("document.readyState + location.pathname") == f"complete{path}")


def arrived(browser: Browser, served: Served, path: Path) -> None:
    """Wait until a file is stored and shown; then it is the one that was sent."""
    browser.until(lambda: path.name in rows(browser))
    assert stored(served)[path.name]["sha256"] == sha256(path.read_bytes()).hexdigest()


def test_without_scripts_the_form_is_enough(served: Served, browser: Browser, tmp_path: Path) -> None:
    one, two = made(tmp_path / "one.bin", 300_000), made(tmp_path / "zwei - ü.bin", 10)
    browser.scripts(on=False)
    browser.open(f"{served.url}/files")
    browser.choose("#choose", one, two)
    browser.click("#send")
    browser.until(lambda: "2 files stored." in text(browser))
    there = stored(served)
    for path in (one, two):
        assert there[path.name]["sha256"] == sha256(path.read_bytes()).hexdigest()
    browser.click('input[aria-label="Select one.bin"]')
    browser.click('input[aria-label="Select zwei - ü.bin"]')
    browser.click("button.main[name=format]")
    with zipfile.ZipFile(browser.downloaded("files.zip")) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted([one.name, two.name])
    browser.click(".danger")
    at(browser, "/files/delete")
    assert "Delete 2 files?" in text(browser)
    browser.click("button.danger")
    at(browser, "/files")
    assert not {one.name, two.name} & set(stored(served))


def test_what_is_dropped_is_stored_and_can_be_taken_as_one(served: Served, browser: Browser, tmp_path: Path) -> None:
    paths = [made(tmp_path / "first.bin", 2 * MIB), made(tmp_path / NASTY, 5), made(tmp_path / "empty.dat", 0)]
    opened(browser, f"{served.url}/files")
    browser.drop(600, 500, *paths, stop="dragOver")
    assert browser.run("document.getElementById('upload').classList.contains('over')")
    browser.drop(600, 500, *paths)
    for path in paths:
        arrived(browser, served, path)
    browser.until(lambda: said(browser) == "3 files stored.")
    assert states(browser) == []
    assert not browser.run("document.getElementById('upload').classList.contains('over')")
    browser.click("#pick tbody tr:nth-child(1) .s")
    browser.click("#pick tbody tr:nth-child(3) .s", "Shift")
    browser.run("document.querySelector('input[name=name]').value = 'picked'")
    browser.click("button.main[name=format]")
    picked = browser.downloaded("picked.zip")
    subprocess.run([judge("unzip"), "-tq", picked], check=True, timeout=30)
    with zipfile.ZipFile(picked) as archive:
        for info, path in zip(sorted(archive.infolist(), key=lambda i: -i.file_size), paths, strict=False):
            assert archive.read(info) == path.read_bytes()
            assert not info.flag_bits & 8  # no descriptor: the checksum was known
    assert browser.complaints() == []


def arriving(browser: Browser) -> int:
    """Bytes that the server has of the upload that runs: what a browser says it has sent may be on its way for long."""
    url = urlsplit(browser.asked("PATCH")[0]["url"])
    return Tus().offset(url.port, url.path)


def nothing_comes(served: Served) -> bool:
    """Whether all requests that brought something have ended.

    One that a client has cut off may have some way to go, and if it ends between the answer that tells how far it came
    and the request that goes on from there, that is refused first, with 409.
    """
    return "streamware_active_uploads 0.0" in served.ask("/metrics").body.decode().splitlines()


def test_progress_is_seen_and_it_can_be_paused(served: Served, browser: Browser, tmp_path: Path) -> None:
    path = made(tmp_path / "paused.bin", 6 * MIB)
    opened(browser, f"{served.url}/files")
    browser.network(up=3 * MIB)
    browser.choose("#choose", path)
    seen: set[float] = set()
    browser.until(lambda: seen.add(part(browser)) or (part(browser) > 0.4 and arriving(browser) > 0))
    assert len([value for value in seen if 0 < value < 1]) >= 2
    assert browser.run("document.querySelector('#uploads progress').getAttribute('aria-label')") == "paused.bin"
    browser.click("#uploads button")
    assert states(browser) == ["paused"]
    browser.until(lambda: nothing_comes(served))
    assert "Paused at " in browser.run("document.querySelector('#uploads .state').textContent")
    assert browser.run("document.activeElement.textContent") == "Resume"  # the button that was pressed keeps the focus
    browser.network()
    browser.press("Enter")
    arrived(browser, served, path)
    patches = [int(request["headers"]["Upload-Offset"]) for request in browser.asked("PATCH")]
    assert patches[0] == 0
    assert patches[-1] > 0  # it went on, and did not begin anew
    assert len(patches) == 2
    assert browser.complaints() == []


def test_a_page_that_is_opened_again_goes_on(served: Served, browser: Browser, tmp_path: Path) -> None:
    path = made(tmp_path / "again.bin", 6 * MIB)
    opened(browser, f"{served.url}/files")
    browser.network(up=3 * MIB)
    browser.choose("#choose", path)
    browser.until(lambda: part(browser) > 0.4 and arriving(browser) > MIB)
    opened(browser, f"{served.url}/files")
    assert states(browser) == ["left"]
    told = browser.run("document.querySelector('#uploads .state').textContent")
    assert "% of 6.3 MB is here. Choose the same file again" in told
    assert 0 < part(browser) < 1
    assert path.name not in rows(browser)
    browser.until(lambda: nothing_comes(served))
    browser.network()
    browser.choose("#choose", path)
    arrived(browser, served, path)
    assert states(browser) == []
    assert browser.asked("POST") == []
    assert int(browser.asked("PATCH")[0]["headers"]["Upload-Offset"]) > MIB
    assert browser.run("localStorage.length") == 0
    assert browser.complaints() == []


def test_what_was_left_can_be_forgotten(served: Served, browser: Browser, tmp_path: Path) -> None:
    opened(browser, f"{served.url}/files")
    browser.network(up=MIB)
    browser.choose("#choose", made(tmp_path / "left.bin", 4 * MIB))
    browser.until(lambda: part(browser) > 0.1)
    opened(browser, f"{served.url}/files")
    browser.network()
    browser.click("#uploads button:not([hidden])")
    browser.until(lambda: states(browser) == [])
    assert browser.run("localStorage.length") == 0
    browser.until(lambda: browser.asked("DELETE"))
    opened(browser, f"{served.url}/files")
    assert states(browser) == []


def test_a_connection_that_is_cut_is_made_anew(served: Served, browser: Browser, tmp_path: Path) -> None:
    path = made(tmp_path / "cut.bin", 6 * MIB)
    with Relay(served.port) as relay:
        opened(browser, f"{relay.url}/files")
        browser.network(up=4 * MIB)
        browser.choose("#choose", path)
        for far in (0.2, 0.5):
            browser.until(lambda far=far: part(browser) > far and arriving(browser) > far * 3 * MIB)
            relay.cut()
        arrived(browser, served, path)
    patches = [int(request["headers"]["Upload-Offset"]) for request in browser.asked("PATCH")]
    assert patches == sorted(patches)
    assert patches[-1] > MIB


def test_without_a_network_it_waits_for_one(served: Served, browser: Browser, tmp_path: Path) -> None:
    path = made(tmp_path / "offline.bin", 6 * MIB)
    with Relay(served.port) as relay:
        opened(browser, f"{relay.url}/files")
        browser.network(up=3 * MIB)
        browser.choose("#choose", path)
        browser.until(lambda: part(browser) > 0.3)
        browser.network(online=False)
        relay.cut()
        browser.until(lambda: states(browser) == ["offline"])
        assert said(browser) == "offline.bin waits for the connection."
        browser.network()
        arrived(browser, served, path)


def test_a_refusal_is_told_in_the_servers_words(served: Served, browser: Browser, tmp_path: Path) -> None:
    opened(browser, f"{served.url}/files")
    assert "Up to 8.4 MB each." in browser.run("document.getElementById('limit').textContent")
    browser.choose("#choose", made(tmp_path / "large.bin", 9 * MIB), made(tmp_path / "small.bin", 10))
    browser.until(lambda: "failed" in states(browser) and "small.bin" in rows(browser))
    assert states(browser) == ["failed"]
    told = browser.run("document.querySelector('#uploads .state').textContent")
    assert told.startswith("The upload is larger than this server takes.")
    browser.click("#uploads li button:nth-of-type(2)")
    assert states(browser) == []


def test_all_of_it_can_be_done_by_keys(served: Served, browser: Browser, tmp_path: Path) -> None:
    path = made(tmp_path / "keys.bin", 100)
    opened(browser, f"{served.url}/files")
    browser.run("document.querySelector('.sections [aria-current]').focus()")
    reached = []
    for _ in range(6):
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.id || document.activeElement.name"))
        if reached[-1] == "choose":
            break
    assert reached[-1] == "choose"
    face = "getComputedStyle(document.getElementById('choose-face')).outlineStyle"
    assert browser.run(face) == "solid"  # where one is can be seen
    browser.choose("#choose", path)
    arrived(browser, served, path)
    browser.run("document.querySelector('#pick tbody input').focus()")
    browser.press(" ")
    assert browser.run("document.querySelector('#pick tbody input').checked")
    assert browser.run("document.querySelector('#pick tbody bdi').textContent") == "keys.bin"
    assert browser.run("document.getElementById('total').textContent").startswith("1 selected")
    assert browser.run(NAMELESS) == []
    assert browser.run("document.querySelectorAll('tbody [tabindex=\"0\"]').length") == 1


def test_below_a_prefix_of_a_proxy_it_works_alike(served: Served, browser: Browser, tmp_path: Path) -> None:
    path = made(tmp_path / "prefix.bin", 200_000)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    passed = f"proxy_pass http://{served.host}:{served.port}/; proxy_request_buffering off; client_max_body_size 0;"
    server = f"server {{ listen 127.0.0.1:{port}; location /deep/way/ {{ {passed} }} }}"
    with run_nginx(server, port, tmp_path / "nginx"):
        opened(browser, f"http://127.0.0.1:{port}/deep/way/files")
        browser.choose("#choose", path)
        arrived(browser, served, path)
        browser.click('input[aria-label="Select prefix.bin"]')
        browser.run("document.querySelector('input[name=name]').value = 'prefixed'")
        browser.click("button.second[name=format]")
        assert browser.downloaded("prefixed.tar").stat().st_size > 200_000
        browser.click(".sections a")
        at(browser, "/deep/way/")
        browser.click(".sections a:nth-child(2)")
        browser.until(lambda: browser.run("!!document.querySelector('#upload[data-ready]')"))
        assert browser.run("location.pathname") == "/deep/way/files"
        browser.scripts(on=False)
        browser.open(f"http://127.0.0.1:{port}/deep/way/files")
        browser.choose("#choose", made(tmp_path / "plain.bin", 10))
        browser.click("#send")
        browser.until(lambda: "1 file stored." in text(browser))
        assert browser.run("location.pathname") == "/deep/way/files"


def test_with_a_token_as_password_it_works_alike(browser: Browser, tmp_path: Path) -> None:
    path = made(tmp_path / "token.bin", 200_000)
    (tmp_path / "root").mkdir()
    (tmp_path / "tokens").write_text(f"alice {'a' * 32}\n")
    options = ("--state", f"sqlite:///{tmp_path}/state.sqlite3", "--token", f"{tmp_path}/tokens")
    with Served(tmp_path / "root", *options) as served:
        opened(browser, f"http://me:{'a' * 32}@{served.host}:{served.port}/files")
        browser.choose("#choose", path)
        browser.until(lambda: path.name in rows(browser))
        assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_on_every_screen(served: Served, browser: Browser, dark: bool, tmp_path: Path) -> None:
    """WCAG 2.2, 1.4.3: text stands out 4.5 to 1; and nothing sticks out to the side of a small screen."""
    browser.screen(1200, 800, dark=dark)
    opened(browser, f"{served.url}/files")
    browser.choose("#choose", made(tmp_path / ("long-name-" * 20 + ".bin"), 1000))
    browser.until(lambda: said(browser) == "1 file stored.")
    browser.network(up=MIB // 4)
    browser.choose("#choose", made(tmp_path / "running.bin", MIB))
    browser.until(lambda: states(browser) == ["running"])
    browser.run("document.querySelector('#pick tbody input').click()")
    browser.picture(tmp_path / "large.png")
    assert browser.run(CONTRAST) == []
    assert browser.run(NAMELESS) == []
    browser.screen(360, 700, dark=dark, mobile=True)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    browser.picture(tmp_path / "small.png")
    browser.network()
    browser.until(lambda: states(browser) == [])
    browser.click(".danger")
    at(browser, "/files/delete")
    assert browser.run(CONTRAST) == []
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.complaints() == []
