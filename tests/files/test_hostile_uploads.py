"""Ids, names and types that somebody sends who means harm: they reach no folder, no header and no script.

Rows of docs/faults.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.files.agreement import agree
from tests.files.sending import Tus, ask, form, post
from tests.files.services import Service, World

KINDS = ("gunicorn", "uvicorn")


@pytest.fixture(scope="module", params=KINDS)
def service(request: pytest.FixtureRequest, world: World) -> Iterator[Service]:
    service = world.service(request.param, world.local())
    yield service
    service.stop()
    agree(service.place)


# --- 56, 57: hostile ids, names and types ---------------------------------------------------------------------------

_ID = "3f2b8a44-1c5e-4d0a-9b7e-0123456789ab"
HOSTILE_IDS = {
    "up": "..",
    "up and away": "../../etc/passwd",
    "encoded": "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "encoded twice": "%252e%252e%252f",
    "backslash": "..%5c..%5cetc",
    "nothing": "%00",
    "an id and nothing": f"{_ID}%00",
    "an id and more": f"{_ID}%0a",
    "braces": f"%7b{_ID}%7d",
    "upper case": _ID.upper(),
    "urn": f"urn:uuid:{_ID}",
    "37 characters": f"{_ID}0",
    "35 characters": _ID[:-1],
    "no hyphens": _ID.replace("-", ""),
    "version 1": _ID.replace("-4d0a-", "-1d0a-"),
    "other variant": _ID.replace("-9b7e-", "-cb7e-"),
    "digits of another script": _ID.replace("3", "%d9%a3"),
    "no UTF-8": "%ff%fe",
    "long": "a" * 3000,
    "a part's key": f"{_ID[:2]}/{_ID}/0000000000000000-01234567",
    "unknown": _ID,
}


@pytest.mark.case(56)
@pytest.mark.parametrize("hostile", HOSTILE_IDS)
def test_ids_that_are_none(service: Service, hostile: str) -> None:
    for method in ("GET", "HEAD", "DELETE", "PATCH"):
        headers = Tus().head("", 0, 0) if method == "PATCH" else {}
        answer = ask(service.port, method, f"/files/{HOSTILE_IDS[hostile]}", headers, b"" if headers else None)
        # Some hosts resolve ".." or refuse a path before any app sees it.
        assert answer.status in (404, 400) if hostile in ("nothing", "up", "no UTF-8") else answer.status == 404, answer
        assert b"Traceback" not in answer.body
    assert "Traceback" not in service.said()


HOSTILE_NAMES = {
    "climbs": "../../etc/cron.d/x",
    "windows": "C:\\Windows\\x.exe",
    "quotes": 'a"; filename="b.exe',
    "long": "x" * 10_000,
    "markup": "<script>alert(1)</script>.html",
    "dots": "..",
    "empty": "",
    "spaces": "   ",
    "device": "NUL",
    "right to left": "a\u202egnp.exe",
    "control": "a\x01\x1b[31mb",
    "newline": "a\r\nX-Evil: 1",
    "emoji": "\U0001f4e6 päck.zip",
}


@pytest.mark.case(57)
@pytest.mark.parametrize("hostile", HOSTILE_NAMES)
def test_names_are_data(service: Service, hostile: str) -> None:
    name, port, tus = HOSTILE_NAMES[hostile], service.port, Tus()
    encoded = quote(name, safe="")
    if len(encoded) < 4000:  # hosts take no longer header lines
        paths = [
            ask(port, "POST", "/files", {"Content-Disposition": f"attachment; filename*=UTF-8''{encoded}"}, b"data"),
            ask(port, "POST", "/files", {"X-Filename": encoded}, b"data"),
        ]
        urls = [answer.document["url"] for answer in paths if answer.status == 201]
        assert len(urls) == len(paths), paths
    else:
        urls = []
    media_type, body = form([(name.replace('"', "%22").replace("\r\n", "%0D%0A"), b"data")])
    answer = ask(port, "POST", "/files", {"Content-Type": media_type}, body)
    assert answer.status in (201, 400), answer  # a form may not hold every character
    if answer.status == 201:
        urls += [file["url"] for file in answer.document["files"]]
    answer = tus.create(port, 4, name, b"data")
    if answer.status == 201:
        urls.append(answer.headers["location"])
    else:
        assert answer.status in (400, 413, 431), answer
    for url in urls:
        answer = ask(port, "GET", url)
        assert answer.body == b"data"
        assert "x-evil" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff"
        shown = answer.headers["content-disposition"]
        assert shown.startswith("attachment"), shown
        assert shown.isascii()
        assert len(shown) < 5000
        if answer.headers.get("content-type", "").startswith("text/html"):
            assert "sandbox" in answer.headers["content-security-policy"]
    folder = service.place.folder
    assert folder is not None
    for path in folder.rglob("*"):
        assert path.name.startswith(".streamware") or all(c in "0123456789abcdef-" for c in path.name), path


@pytest.mark.case(57)
@pytest.mark.parametrize(
    "media_type",
    ["text/html", "image/svg+xml", "application/xhtml+xml", "text/html;charset=utf-7", "application/javascript", "x"],
)
def test_types_that_could_run_are_only_saved(service: Service, media_type: str) -> None:
    url = post(service.port, "a.html", b"<script>alert(1)</script>", media_type).document["url"]
    answer = ask(service.port, "GET", url)
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.case(57)
def test_a_picture_may_be_shown(service: Service) -> None:
    url = post(service.port, "a.png", b"\x89PNG", "image/png").document["url"]
    answer = ask(service.port, "GET", url)
    assert answer.headers["content-disposition"].startswith("inline")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
