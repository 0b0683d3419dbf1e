"""The page of ``streamware serve``, judged by a real browser: with its script, without, on large and small screens."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import judge
from tests.hosts.chromium import CONTRAST, NAMELESS, Browser
from tests.hosts.serve_process import Served

pytestmark = pytest.mark.judge("chromium", "bash")

NASTY = "<img src=x onerror=alert(1)> & 'q'.txt"
CONTENTS = {
    "docs/guide.txt": b"guide\n" * 1000,
    "docs/more/deep.bin": bytes(range(256)) * 200,
    "file2.log": b"2" * 2000,
    "file10.log": b"10" * 500,
    NASTY: b"nasty",
    "notes.md": b"notes",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("page") / "things"
    for name, data in CONTENTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "line\nbreak").write_text("x")
    with Served(root) as server:
        yield server


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(judge("chromium"), tmp_path / "browser") as browser:
        browser.screen(1200, 800)
        yield browser


def row(name: str) -> str:
    """Where the box of a row is."""
    return f'input[aria-label="Select {name}"]'


def total(browser: Browser) -> str:
    browser.until(lambda: browser.run("document.getElementById('total').ariaBusy") == "false")
    return str(browser.run("document.getElementById('total').textContent"))


def ticked(browser: Browser) -> list[str]:
    names: list[str] = browser.run(
        "[...document.querySelectorAll('tbody tr:has(:checked) bdi')].map(e => e.textContent)"
    )
    return names


def names(browser: Browser) -> list[str]:
    found: list[str] = browser.run(
        "[...document.querySelectorAll('tbody tr:not([hidden]) bdi')].map(e => e.textContent)"
    )
    return found


def unpacked(path: Path) -> dict[str, bytes]:
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {n: archive.read(n) for n in archive.namelist() if not n.endswith("/")}


def test_without_scripts_the_form_is_enough(served: Served, browser: Browser) -> None:
    browser.scripts(on=False)
    browser.open(served.url)
    browser.click(row("docs"))
    browser.click(row("file2.log"))
    browser.click("button.main")
    taken = {n: CONTENTS[n] for n in ("docs/guide.txt", "docs/more/deep.bin", "file2.log")}
    assert unpacked(browser.downloaded("things.zip")) == taken
    browser.click("button.second")
    assert unpacked(browser.downloaded("things.tar")) == taken


def test_the_total_is_measured_while_one_chooses(served: Served, browser: Browser) -> None:
    browser.open(served.url)
    assert browser.run("[...document.querySelectorAll('.buttons button')].every(b => b.disabled)")
    browser.click(row("docs"))
    assert total(browser) == "1 selected · 2 files · 57.2 kB"
    browser.click(row("file2.log"))
    assert total(browser) == "2 selected · 3 files · 59.2 kB"
    assert browser.run("document.getElementById('total').getAttribute('aria-live')") == "polite"
    assert browser.run("document.getElementById('all').indeterminate")
    browser.click("#clear")
    assert ticked(browser) == []
    assert browser.complaints() == []


def test_a_choice_is_taken_by_a_get_with_names_below_the_folder(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/browse/docs/")
    browser.click(row("more"))
    browser.click(row("guide.txt"))
    browser.run("document.querySelector('input[name=name]').value = 'two words é'")
    browser.events.clear()
    browser.click("button.main")
    found = unpacked(browser.downloaded("two words é.zip"))
    assert found == {"guide.txt": CONTENTS["docs/guide.txt"], "more/deep.bin": CONTENTS["docs/more/deep.bin"]}
    asked = [e["params"]["request"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert [r["method"] for r in asked] == ["GET"]
    # all of the folder is asked for in one line, which can be resumed however many files it holds
    assert asked[0]["url"].count("path=") == 1


def test_a_long_choice_goes_by_post(tmp_path: Path, browser: Browser) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for n in range(400):
        (many / f"{n:03}-{'x' * 40}.txt").write_text(str(n))
    with Served(many) as served:
        browser.open(served.url)
        browser.press("a", "Control")
        browser.click("tbody tr:nth-child(400) input")
        browser.events.clear()
        browser.click("button.second")
        found = unpacked(browser.downloaded("many.tar"))
        assert len(found) == 399
        asked = [e["params"]["request"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
        assert [r["method"] for r in asked] == ["POST"]


def test_keys_do_what_a_mouse_does(served: Served, browser: Browser) -> None:
    browser.open(served.url)
    order = names(browser)
    browser.run("document.querySelector('tbody input').focus()")
    browser.press("ArrowDown")
    browser.press(" ")
    assert ticked(browser) == order[1:2]
    browser.press("ArrowDown", "Shift")
    browser.press("ArrowDown", "Shift")
    assert ticked(browser) == order[1:4]
    browser.press("Escape")
    assert ticked(browser) == []
    browser.press("a", "Control")
    assert len(ticked(browser)) == len(order) - 1  # all but the one that cannot be had by itself
    browser.press("Escape")
    browser.press("/")
    for key in "LOG":
        browser.press(key)
    assert names(browser) == ["file2.log", "file10.log"]
    browser.press("ArrowDown")
    browser.press(" ")
    assert ticked(browser) == ["file2.log"]
    browser.run("document.querySelector('input[type=search]').focus()")
    browser.press("Escape")
    assert names(browser) == order
    browser.run("document.querySelector('tbody input').focus()")
    browser.press("Enter")
    browser.until(lambda: browser.run("location.pathname") == "/browse/docs/")


def test_a_click_with_shift_takes_all_between(served: Served, browser: Browser) -> None:
    browser.open(served.url)
    order = [n for n in names(browser) if "␊" not in n]
    browser.click(row("docs"))
    browser.click(row("notes.md"), "Shift")
    assert ticked(browser) == order[: order.index("notes.md") + 1]
    browser.click("tbody tr:nth-child(1) .t")  # anywhere in a row
    assert "docs" not in ticked(browser)


def test_sorting_in_place_keeps_the_choice(served: Served, browser: Browser) -> None:
    browser.open(served.url)
    browser.click(row("notes.md"))
    browser.click("th[data-key=size] a")
    assert names(browser)[:3] == ["docs", "file2.log", "file10.log"]
    assert ticked(browser) == ["notes.md"]
    assert browser.run("document.querySelector('th[data-key=size]').getAttribute('aria-sort')") == "descending"
    assert browser.run("location.search") == "?sort=size&order=desc"
    browser.open(served.url + browser.run("location.search"))  # and the server sees it the same way
    assert names(browser)[:3] == ["docs", "file2.log", "file10.log"]


def test_names_are_text_and_nothing_else(served: Served, browser: Browser) -> None:
    browser.open(served.url)
    assert NASTY in names(browser)
    assert "line␊break" in names(browser)
    assert browser.run("document.images.length") == 0
    assert browser.run("document.querySelector('input:disabled').value") == "/tree/line%0Abreak"
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("target", ["/", "/browse/docs/", "/nothing"])
def test_it_can_be_read_on_every_screen(
    served: Served, browser: Browser, target: str, dark: bool, tmp_path: Path
) -> None:
    """WCAG 2.2, 1.4.3: text stands out 4.5 to 1; and nothing sticks out to the side of a small screen."""
    browser.screen(1200, 800, dark=dark)
    browser.open(served.url + target)
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(18, 22, 26)") is dark
    if target == "/":
        browser.click(row("docs"))
        total(browser)
    browser.picture(tmp_path / "large.png")
    assert browser.run(CONTRAST) == []
    browser.screen(360, 700, dark=dark, mobile=True)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    browser.picture(tmp_path / "small.png")
    assert (tmp_path / "small.png").read_bytes() != (tmp_path / "large.png").read_bytes()
    failed = [c for c in browser.complaints() if "404" not in c]
    assert failed == []


def test_every_control_has_a_name_and_a_place_in_the_order(served: Served, browser: Browser) -> None:
    browser.open(served.url)
    nameless = browser.run(NAMELESS)
    assert nameless == []
    # one stop for the whole list, and arrows inside it
    assert browser.run("document.querySelectorAll('tbody [tabindex=\"0\"]').length") == 1


def test_a_problem_is_a_page_for_people(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/bundle?path=/tree/gone.txt&path=/tree/notes.md")
    assert browser.run("document.querySelector('h1').textContent") == "A member does not exist."
    assert "gone.txt" in browser.run("document.body.textContent")
    browser.click(".problem a")
    browser.until(lambda: browser.run("location.pathname") == "/")
