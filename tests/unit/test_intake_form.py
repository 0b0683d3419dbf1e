"""Forms as browsers and enemies send them: every file in one is stored, or nothing is."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from streamware.file_request import FileRequest
from streamware.file_service import FileService
from streamware.filestore import FileStore
from streamware.intake import take
from streamware.policy import Policy
from streamware.problems import problem
from streamware.reply import Reply
from streamware.upload_errors import UploadBroken

pytest.importorskip("obstore")
pytest.importorskip("sqlalchemy")
pytest.importorskip("multipart")

_BOUNDARY = "----FormAbC123"
_TABLES = ("streamware_files", "streamware_parts")
_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"


def part(name: str, data: bytes, *, filename: str | None = None, media_type: str | None = None) -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"'
    if media_type is not None:
        head += f"\r\nContent-Type: {media_type}"
    return f"--{_BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


class Site:
    """A file service on a real database and folder."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folder = folder
        self.store = FileStore((folder / "b").as_uri(), f"sqlite:///{folder}/r.sqlite3", policy=Policy(**limits))
        self.service = FileService(self.store, problem)

    def post(self, pieces: Iterable[bytes], **more: str) -> tuple[int, dict[str, Any]]:
        headers = {"content-type": _TYPE, "transfer-encoding": "chunked"} | {
            k.replace("_", "-"): v for k, v in more.items()
        }
        asked = self.service.ask(FileRequest(method="POST", base="/files", headers=headers))
        reply = asked if isinstance(asked, Reply) else take(asked, pieces)
        assert self.service.admission.active == 0
        return reply.status, json.loads(b"".join(reply.body))

    def content(self, id: str) -> bytes:
        chunks = self.store.source(id).open(0, self.store.file(id).size)
        try:
            return b"".join(chunks)
        finally:
            chunks.close()

    def empty(self) -> bool:
        """Whether there is no row and no byte of anything."""
        with closing(sqlite3.connect(self.folder / "r.sqlite3")) as database:
            rows = [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _TABLES]
        return not any(rows) and not list((self.folder / "b").glob("??/*/*"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.store.close()


def test_files_are_stored_and_fields_returned(site: Site) -> None:
    status, told = site.post(
        [
            form(
                part("comment", "grün".encode()),
                part("f", b"first", filename="../a.txt", media_type="text/plain"),
                part("tag", b"1"),
                part("f", b"second\r\n--" + _BOUNDARY[:-1].encode(), filename="a.txt"),
                part("tag", b"2"),
                part("tag", b""),
                part("f", b"", filename="empty", media_type="x"),
            )
        ]
    )
    assert status == 201
    assert told["fields"] == {"comment": "grün", "tag": ["1", "2", ""]}
    assert [(f["name"], f["size"], f["type"]) for f in told["files"]] == [
        ("a.txt", 5, "text/plain"),
        ("a.txt", 9 + len(_BOUNDARY), "application/octet-stream"),
        ("empty", 0, "application/octet-stream"),
    ]
    assert len({f["id"] for f in told["files"]}) == 3
    assert all(f["url"] == f"/files/{f['id']}" and len(f["sha256"]) == 64 for f in told["files"])
    assert site.content(told["files"][1]["id"]) == b"second\r\n--" + _BOUNDARY[:-1].encode()
    assert len(site.store.listed(limit=10)[0]) == 3


def test_a_form_in_pieces_of_any_size_is_the_same_form(site: Site) -> None:
    whole = form(part("a", b"x" * 50), part("f", b"\r\n\r\n--data\r", filename="n", media_type="text/css")) + b"\r\n"
    for size in (1, 2, 3, 7, 64):
        status, told = site.post(whole[i : i + size] for i in range(0, len(whole), size))
        assert status == 201, told
        assert site.content(told["files"][0]["id"]) == b"\r\n\r\n--data\r"


def test_a_form_cut_at_any_byte_stores_nothing(site: Site) -> None:
    whole = form(part("f", b"one", filename="1"), part("g", b"two", filename="2"))
    end = len(whole) - 2  # the line end behind the last boundary is none of the form
    for cut in range(end):
        status, told = site.post([whole[:cut], b""])
        assert status == 400, (cut, told)
    assert site.empty()
    assert site.post([whole[:end]])[0] == 201


def test_a_connection_that_breaks_stores_nothing(site: Site) -> None:
    whole = form(part("f", b"one", filename="1"), part("g", b"two", filename="2"))

    def broken(cut: int) -> Iterator[bytes]:
        yield whole[:cut]
        raise UploadBroken

    for cut in (0, 10, 100, len(whole) - 40, len(whole)):
        assert site.post(broken(cut))[0] == 400
    assert site.empty()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (form(), 400),
        (form(part("a", b"text")), 400),  # no file
        (form(part("f", b"", filename="")), 400),  # a file field that was left empty
        (form(part("f", b"x", filename="x")).replace(b"\r\n", b"\n"), 400),
        (b"preamble\r\n" + form(part("f", b"x", filename="x")), 201),  # RFC 2046 allows one
        (b"x" * 100_000, 400),
        (form(part("f", b"x", filename="x")).replace(b"form-data", b"attachment"), 400),
        (form(part("f", b"x", filename="x")).replace(b'name="f"; ', b""), 400),
        (form(b"--" + _BOUNDARY.encode() + b"\r\nContent-Type: text/plain\r\n\r\nx\r\n"), 400),
        (form(part("f", b"x", filename="x", media_type="text/plain\r\n folded")), 400),
        (form(part("f", b"x", filename="x", media_type="text/plain\r\nContent-Length: 2")), 400),
        (form(part("f", b"x", filename="x", media_type="text/plain\r\nNo colon")), 400),
        (form(part("f", b"x", filename="x")).replace(b'"x"', b'"\xff"'), 400),
        (form(part("f", b"x", filename="x", media_type="a/b" + "\r\nX-H: 1" * 10_000)), 413),
        (form(part("f", b"x", filename="x", media_type="a" * (1 << 20))), 413),
        (form(*[part("f", b"x")] * 20_000), 413),
        (form(part("f", b"x", filename="x"), part("a", b"x" * 65_536)), 413),
        (form(part("f", b"x", filename="x"), *[part("a" * 1000, b"")] * 66), 413),
    ],
)
@pytest.mark.parametrize("size", [1 << 22, 1000])
def test_hostile_forms(site: Site, body: bytes, status: int, size: int) -> None:
    found, told = site.post(body[i : i + size] for i in range(0, len(body), size))
    assert found == status, told
    assert site.empty() == (status != 201)


def test_limits_of_files_hold_in_forms(tmp_path: Path) -> None:
    site = Site(tmp_path, max_upload_bytes=10, max_form_parts=2)
    fits = part("f", b"x" * 10, filename="x")
    assert site.post([form(fits, fits)])[0] == 201
    for each in site.store.listed(limit=9)[0]:
        site.store.end(each.id)
    assert site.post([form(fits, part("f", b"x" * 11, filename="x"))])[0] == 413
    assert site.post([form(fits, fits, fits)])[0] == 413
    assert site.empty()
    site.store.close()


def test_a_file_of_a_form_does_not_expire_while_the_rest_comes(tmp_path: Path) -> None:
    site = Site(tmp_path, upload_seconds=1.0)
    try:

        def pieces() -> Iterator[bytes]:
            yield part("f", b"first", filename="a.txt")
            for piece in (*part("g", b"2", filename="b.txt").partition(b"2"), *part("tag", b"3").partition(b"3")):
                time.sleep(0.6)
                site.store.sweep()
                yield piece
            yield form()

        status, told = site.post(pieces())
        assert status == 201, told
        assert [site.content(file["id"]) for file in told["files"]] == [b"first", b"2"]
    finally:
        site.store.close()


def test_a_quota_that_is_full_leaves_nothing_of_a_form(tmp_path: Path) -> None:
    site = Site(tmp_path, max_files_per_identity=2, authorize=lambda action, request: "alice")
    file = part("f", b"x", filename="x")
    assert site.post([form(file, file, file)])[0] == 507
    assert site.empty()
    assert site.post([form(file, file)])[0] == 201
    assert site.post([form(file)])[0] == 507
    site.store.close()


def test_names_in_forms(site: Site) -> None:
    for sent, stored in (
        ("a%22b.txt", 'a"b.txt'),
        ("a%0D%0Ab", "a__b"),
        ("grün.txt", "grün.txt"),
        (r"C:\dir\a.txt", "a.txt"),
        ("..", "upload"),
        ("x" * 10_000, "x" * 1024),
    ):
        status, told = site.post([form(part("f", b"", filename=sent))])
        assert (status, told["files"][0]["name"]) == (201, stored)


def test_a_file_without_a_name(site: Site) -> None:
    status, told = site.post([form(part("f", b"x", filename=""))])
    assert (status, told["files"][0]["name"]) == (201, "upload")


def test_filename_star_means_nothing_in_forms(site: Site) -> None:
    body = form(part("f", b"x", filename="plain")).replace(b'"plain"', b"\"plain\"; filename*=UTF-8''other")
    assert site.post([body])[1]["files"][0]["name"] == "plain"


def test_little_may_follow_the_end(site: Site) -> None:
    whole = form(part("f", b"x", filename="x"))
    assert site.post([whole, b"\r\nepilogue", b"\r\n"])[0] == 201
    assert site.post([whole, *[b"x" * 1000] * 5])[0] == 400
    assert len(site.store.listed(limit=9)[0]) == 1


@pytest.mark.parametrize("boundary", ["", "boundary=", 'boundary="a\nb"', "boundary=" + "x" * 71])
def test_forms_need_a_boundary(site: Site, boundary: str) -> None:
    assert site.post([], content_type=f"multipart/form-data; {boundary}")[0] == 400


def test_a_digest_of_the_whole_form_counts(site: Site) -> None:
    whole = form(part("f", b"x", filename="x"))
    right = b64encode(hashlib.sha256(whole).digest()).decode()
    assert site.post([whole], content_digest=f"sha-256=:{b64encode(bytes(32)).decode()}:")[0] == 400
    assert site.empty()
    assert site.post([whole], content_digest=f"sha-256=:{right}:")[0] == 201
