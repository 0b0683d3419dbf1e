"""The page of the uploads as text: what is escaped, in which order things stand, where its links lead."""

from __future__ import annotations

import re
import uuid
from hashlib import sha256
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

import pytest

from streamware.server.page import ASSETS, View
from streamware.server.uploads_page import NEWEST, discard_page, order, uploads_page
from streamware.stored import StoredFile

NASTY = "<script>alert('x')&\".txt"


def stored(name: str, size: int = 1, created: int = 1_700_000_000) -> StoredFile:
    return StoredFile(str(uuid.uuid4()), name, "text/plain", size, 0, None, created)


def page(*found: StoredFile, view: View = NEWEST, **about: object) -> str:
    given = {"after": None, "on": None, "most": 1 << 30, "discards": False, **about}
    return uploads_page(found, view, **given)  # type: ignore[arg-type]


def test_names_are_text_and_nothing_is_inline() -> None:
    for text in (page(stored(NASTY), discards=True), discard_page([stored(NASTY)], "../")):
        assert "&lt;script&gt;alert(&#x27;x&#x27;)&amp;&quot;.txt" in text
        assert "<script>alert" not in text
        assert not re.search(r"\sstyle=|\son[a-z]+=|https?://(?!www\.w3\.org/)", text)
        assert re.findall(r"<script(?! src=)", text) == []
    assert "line␊break" in page(stored("line\nbreak"))


def test_each_file_can_be_opened_and_picked() -> None:
    file = stored("a.zip", size=1_500_000)
    text = page(file)
    assert f'name="path" value="/files/{file.id}"' in text
    assert f'<a class="archive" href="files/{file.id}">' in text
    assert "1.5 MB" in text
    assert "1 file · 1.5 MB" in text


@pytest.mark.parametrize(
    ("view", "names"),
    [
        (NEWEST, ["b10", "b9", "A1"]),
        (NEWEST._replace(sort="time", descending=False), ["A1", "b9", "b10"]),
        (NEWEST._replace(sort="name", descending=False), ["A1", "b9", "b10"]),
        (NEWEST._replace(sort="name", descending=True), ["b10", "b9", "A1"]),
        (NEWEST._replace(sort="size", descending=True), ["b9", "A1", "b10"]),
        (NEWEST._replace(query="B"), ["b10", "b9"]),
    ],
)
def test_the_order_is_the_views(view: View, names: list[str]) -> None:
    newest_first = [stored("b10", 1, 30), stored("b9", 5, 20), stored("A1", 3, 10)]
    assert [file.name for file in order(newest_first, view)] == names


def test_links_ask_for_what_they_say() -> None:
    heads = re.findall(r'<th [^>]*data-key="(\w+)"([^>]*)><a href="([^"]*)"', page(stored("a")))
    assert [key for key, *_ in heads] == ["name", "size", "time"]
    asked = {key: parse_qs(urlsplit(url.replace("&amp;", "&")).query) for key, _, url in heads}
    assert asked["name"] == {"sort": ["name"]}  # and not the page's own order, which no link names
    assert asked["size"] == {"sort": ["size"], "order": ["desc"]}
    assert asked["time"] == {"sort": ["time"]}
    assert [("aria-sort" in state) for _, state, _ in heads] == [False, False, True]


def test_several_pages_are_newest_first_and_lead_on() -> None:
    first = page(stored("a"), on="1.x&y")
    assert 'rel="next" href="files?after=1.x%26y"' in first
    assert "data-key" not in first
    assert 'id="filter"' not in first
    assert 'rel="first"' not in first
    last = page(stored("a"), after="1.x")
    assert 'rel="first" href="files"' in last
    assert 'rel="next"' not in last


def test_it_offers_what_is_allowed() -> None:
    assert "files/delete" not in page(stored("a"))
    assert "files/delete" in page(stored("a"), discards=True)
    assert "2 files stored." in page(stored("a"), stored=2)
    assert "Up to 20.0 GB each." in page(most=20_000_000_000)
    empty = page()
    assert "Nothing was uploaded yet." in empty
    assert '<table id="files" hidden>' in empty


def test_before_deleting_all_names_are_told_up_to_a_hundred() -> None:
    found = [stored(f"{n}.txt") for n in range(150)]
    text = discard_page(found, "../")
    assert "Delete 150 files?" in text
    assert "and 50 more" in text
    assert all(f'value="/files/{file.id}"' in text for file in found)


def test_the_vendored_script_is_the_one_that_is_written_down() -> None:
    said = files("streamware.server").joinpath("static/vendor/README.md").read_text(encoding="utf-8")
    assert sha256(ASSETS["tus.min.js"][1]).hexdigest() in said
