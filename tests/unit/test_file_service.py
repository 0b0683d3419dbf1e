"""The file service on a real database and a real folder, asked as hosts ask it, rule by rule."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamware.errors import StreamwareError
from streamware.file_request import FileRequest
from streamware.file_service import FileService
from streamware.filestore import FileStore
from streamware.intake import Intake, take
from streamware.policy import Policy
from streamware.problems import problem
from streamware.reply import Conditions, Reply
from streamware.semantics import content_disposition, parse_http_date
from streamware.stored import is_file_id
from streamware.upload_errors import StoreUnavailable, UploadBroken, UploadTooSlow

pytest.importorskip("obstore")
pytest.importorskip("sqlalchemy")

_OFFSET_TYPE = "application/offset+octet-stream"
_TABLES = ("streamware_files", "streamware_parts")

NOBODYS = "6d1f0a7c-9b52-4c1e-8f7a-0c2b5d3e4f60"  # a good id, and no file's


class Answer:
    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers = {name.lower(): value for name, value in reply.headers}
        assert len(self.headers) == len(reply.headers), f"a header twice: {reply.headers}"
        try:
            self.body = b"".join(reply.body)
        finally:
            reply.body.close()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        base, _, found = self.headers["location"].rpartition("/")
        assert base == "/files"
        assert is_file_id(found)
        return found

    @property
    def kind(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["status"] == self.status
        return str(self.json["type"]).rpartition(":")[2]


class Site:
    """A file service, and what is behind it."""

    def __init__(self, folder: Path, *, tus_only: bool = False, **limits: Any) -> None:
        self.folder = folder
        self.store = FileStore((folder / "b").as_uri(), f"sqlite:///{folder}/r.sqlite3", policy=Policy(**limits))
        self.service = FileService(self.store, problem, tus_only=tus_only)

    def begin(self, method: str, id: str | None = None, **asked: Any) -> Reply | Intake:
        client, untold = asked.pop("client", "192.0.2.1"), asked.pop("untold", None)
        query, repeated = asked.pop("query", ""), asked.pop("repeated", ())
        asked_conditions = asked.pop("conditions", {})
        headers = {name.replace("_", "-"): str(value) for name, value in asked.items() if value is not None}
        return self.service.ask(
            FileRequest(
                method=method,
                base="/files",
                id=id,
                query=query,
                headers=headers,
                repeated=frozenset(repeated),
                untold=untold,
                conditions=Conditions(method, client=client, **asked_conditions),
            )
        )

    def ask(
        self, method: str, id: str | None = None, body: bytes | Iterable[bytes] | None = None, **asked: Any
    ) -> Answer:
        if isinstance(body, bytes):
            asked.setdefault("content_length", len(body))
            body = [body[i : i + 1000] for i in range(0, len(body), 1000)]
        elif body is not None:
            asked.setdefault("transfer_encoding", "chunked")
        begun = self.begin(method, id, **asked)
        reply = begun if isinstance(begun, Reply) else take(begun, body or ())
        assert self.service.admission.active == 0
        return Answer(reply)

    def tus(
        self, method: str, id: str | None = None, body: bytes | Iterable[bytes] | None = None, **asked: Any
    ) -> Answer:
        if method == "PATCH":
            asked.setdefault("content_type", _OFFSET_TYPE)
        answer = self.ask(method, id, body, tus_resumable="1.0.0", **asked)
        assert answer.headers["tus-resumable"] == "1.0.0"
        return answer

    def offset(self, id: str) -> int:
        head = self.tus("HEAD", id)
        assert head.status == 200
        assert head.headers["cache-control"] == "no-store"
        return int(head.headers["upload-offset"])

    def content(self, id: str) -> bytes:
        chunks = self.store.source(id).open(0, self.store.file(id).size)
        try:
            return b"".join(chunks)
        finally:
            chunks.close()

    def ids(self) -> list[str]:
        """Of all rows."""
        with closing(sqlite3.connect(self.folder / "r.sqlite3")) as database:
            return [key for (key,) in database.execute(f"SELECT id FROM {_TABLES[0]}")]

    def empty(self) -> bool:
        """Whether there is no row and no byte of anything."""
        with closing(sqlite3.connect(self.folder / "r.sqlite3")) as database:
            rows = [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _TABLES]
        return not any(rows) and not list((self.folder / "b").glob("??/*/*"))


class Sites:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Site] = []

    def __call__(self, **limits: Any) -> Site:
        folder = self._folder / str(len(self._made))
        folder.mkdir()
        self._made.append(Site(folder, **limits))
        return self._made[-1]

    def close(self) -> None:
        for site in self._made:
            site.store.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Sites]:
    sites = Sites(tmp_path)
    yield sites
    sites.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.store.close()


@pytest.fixture
def site(shared: Site) -> Site:
    """One with the default limits, and nothing in it: to make one takes longer than most of the tests."""
    for key in shared.ids():
        shared.store.give_up(key)
    assert shared.empty()
    return shared


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def broken(*pieces: bytes, error: StreamwareError | None = None) -> Iterator[bytes]:
    yield from pieces
    raise error or UploadBroken()


# --- raw uploads ---------------------------------------------------------------------------------------------------


def test_a_raw_upload(site: Site) -> None:
    data = bytes(range(256)) * 20
    for body in (data, iter([data[:7], b"", data[7:]])):
        told = site.ask(
            "POST",
            None,
            body,
            content_type="Text/Plain; charset=utf-8",
            content_disposition='attachment; filename="ä.txt"',
        )
        assert told.status == 201
        file = site.store.file(told.id)
        assert told.json == {
            "id": told.id,
            "name": "ä.txt",
            "size": len(data),
            "type": "text/plain; charset=utf-8",
            "sha256": hashlib.sha256(data).hexdigest(),
            "crc32": f"{zlib.crc32(data):08x}",
            "created": file.created,
            "url": f"/files/{told.id}",
        }
        assert site.content(told.id) == data
        assert "tus-resumable" not in told.headers


def test_two_uploads_of_one_name_are_two_files(site: Site) -> None:
    ids = {site.ask("POST", None, b"x", x_filename="same").id for _ in range(3)}
    assert len(ids) == 3
    assert len(site.ask("GET").json["files"]) == 3


def test_an_empty_file(site: Site) -> None:
    for body in (b"", iter([])):
        told = site.ask("POST", None, body)
        assert (told.status, told.json["size"], told.json["crc32"]) == (201, 0, "00000000")
        assert site.content(told.id) == b""


def test_no_file_is_made_of_a_request_that_says_nothing_of_a_body(site: Site) -> None:
    for pieces, status in (([], 411), ([b""], 411), ([b"abc"], 201)):  # the last is HTTP/2
        assert site.ask("POST", None, pieces, transfer_encoding=None).status == status
        assert site.empty() == (status == 411)


@pytest.mark.parametrize("length", [10, None])
@pytest.mark.parametrize("cut", [0, 1, 9])
def test_a_raw_upload_that_breaks_off_leaves_nothing(site: Site, length: int | None, cut: int) -> None:
    for error in (UploadBroken(), UploadTooSlow(), StoreUnavailable()):
        answer = site.ask("POST", None, broken(b"x" * cut, error=error), **_framed(length))
        assert answer.status == error.status
        assert site.empty()
    if length is not None:  # the end of what came is no error to the host, but the count tells
        answer = site.ask("POST", None, iter([b"x" * cut]), **_framed(length))
        assert (answer.status, answer.kind) == (400, "upload-broken")
        assert site.empty()


def _framed(length: int | None) -> dict[str, Any]:
    return {"transfer_encoding": "chunked"} if length is None else {"content_length": length, "transfer_encoding": None}


def test_more_than_the_length_leaves_nothing(site: Site) -> None:
    assert site.ask("POST", None, iter([b"xxx"]), **_framed(2)).status in (400, 413)
    assert site.empty()


def test_an_intake_that_is_forgotten_leaves_nothing(site: Site) -> None:
    intake = site.begin("POST", content_length=5)
    assert not isinstance(intake, Reply)
    intake.write(b"abc")
    assert site.service.admission.active == 1
    intake.close()
    intake.close()
    assert site.service.admission.active == 0
    assert site.empty()
    assert intake.fail(UploadBroken()).status == 400


def test_a_host_that_fails_in_the_middle_leaves_nothing(site: Site) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"abc"
        raise ZeroDivisionError

    intake = site.begin("POST", content_length=5)
    assert not isinstance(intake, Reply)
    with pytest.raises(ZeroDivisionError):
        take(intake, pieces())
    assert site.service.admission.active == 0
    assert site.empty()


def test_sizes_are_limited_before_and_while_the_body_comes(make: Sites) -> None:
    site = make(max_upload_bytes=10)
    refused = site.begin("POST", content_length=11)
    assert isinstance(refused, Reply)  # before a byte of it
    assert refused.status == 413
    counted: list[bytes] = []

    def endless() -> Iterator[bytes]:
        while True:
            counted.append(b"abcd")
            yield b"abcd"

    assert site.ask("POST", None, endless()).status == 413
    assert len(counted) == 3
    assert site.empty()
    assert site.ask("POST", None, b"x" * 10).status == 201
    assert site.ask("POST", None, iter([b"x" * 10])).status == 201


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"content_length": "3", "transfer_encoding": "chunked"}, 400),
        ({"content_length": "3", "repeated": ("content-length",)}, 400),
        ({"content_length": "+3"}, 400),
        ({"content_length": "3", "content_encoding": "gzip"}, 415),
        ({"content_length": "3", "content_range": "bytes 0-2/3"}, 400),
        ({"transfer_encoding": "chunked", "untold": "this host cannot"}, 411),
        ({"untold": "this host cannot"}, 411),
        ({"content_length": "3", "repr_digest": "sha-256=:x:"}, 400),
    ],
)
def test_what_is_refused_before_the_body(site: Site, asked: dict[str, Any], status: int) -> None:
    refused = site.begin("POST", **asked)
    assert isinstance(refused, Reply)
    assert refused.status == status
    assert site.empty()


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PUT"])
def test_framing_counts_for_every_method(site: Site, method: str) -> None:
    assert site.ask(method, content_length="3", transfer_encoding="chunked").status == 400


@pytest.mark.parametrize("field", ["repr_digest", "content_digest"])
@pytest.mark.parametrize(
    ("name", "known"), [("sha256", "sha-256"), ("sha512", "sha-512"), ("md5", "md5"), ("sha1", "sha")]
)
def test_digests_of_raw_uploads(site: Site, field: str, name: str, known: str) -> None:
    right = b64(hashlib.new(name, b"data").digest())
    wrong = b64(hashlib.new(name, b"other").digest())
    for body in (b"data", [b"da", b"ta"]):
        answer = site.ask("POST", None, body, **{field: f"{known}=:{wrong}:"})
        assert (answer.status, answer.kind) == (400, "digest-mismatch")
        assert site.empty()
    assert site.ask("POST", None, b"data", **{field: f"unheard-of=:AAAA:, {known}=:{right}:"}).status == 201


# --- tus: creation -------------------------------------------------------------------------------------------------


def test_creation_and_the_core(site: Site) -> None:
    metadata = f"filename {b64('ü.txt'.encode())},filetype {b64(b'text/plain')},empty"
    told = site.tus("POST", upload_length=10, upload_metadata=metadata)
    assert told.status == 201
    assert told.headers["upload-offset"] == "0"
    assert told.headers["upload-expires"].endswith(" GMT")
    head = site.tus("HEAD", told.id)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["upload-offset"] == "0"
    assert head.headers["upload-length"] == "10"
    assert head.headers["upload-metadata"] == metadata
    assert head.headers["cache-control"] == "no-store"
    assert "upload-defer-length" not in head.headers

    assert site.ask("GET", told.id).status == 404
    assert site.ask("HEAD", told.id).status == 404
    assert site.ask("GET").json["files"] == []

    answer = site.tus("PATCH", told.id, b"01234", upload_offset=0)
    assert (answer.status, answer.headers["upload-offset"], answer.body) == (204, "5", b"")
    assert "upload-expires" in answer.headers
    assert site.offset(told.id) == 5
    answer = site.tus("PATCH", told.id, iter([b"56", b"789"]), upload_offset=5)
    assert (answer.status, answer.headers["upload-offset"]) == (204, "10")
    assert "upload-expires" not in answer.headers
    assert answer.headers["repr-digest"] == f"sha-256=:{b64(hashlib.sha256(b'0123456789').digest())}:"

    file = site.store.file(told.id)
    assert (file.name, file.media_type, file.size, file.crc32) == ("ü.txt", "text/plain", 10, zlib.crc32(b"0123456789"))
    assert site.content(told.id) == b"0123456789"

    # A client that did not hear of the end asks again.
    head = site.tus("HEAD", told.id)
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("10", "10")
    assert head.headers["upload-metadata"] == metadata
    for body in (b"", iter([]), iter([b""])):
        assert site.tus("PATCH", told.id, body, upload_offset=10).status == 204
    for body in (b"x", iter([b"x"])):
        assert site.tus("PATCH", told.id, body, upload_offset=10).status == 413
    assert site.tus("PATCH", told.id, b"01234", upload_offset=5).status == 409
    assert site.content(told.id) == b"0123456789"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"upload_length": "10", "upload_defer_length": "1"},
        {"upload_defer_length": "0"},
        {"upload_defer_length": "2"},
        {"upload_defer_length": "true"},
        *({"upload_length": length} for length in ("-1", "+1", "1 ", "1.0", "", "a", "1, 1", str(1 << 63))),
        {"upload_length": "1", "upload_metadata": "a !"},
        {"upload_length": "1", "upload_metadata": "filename not*base64"},
        {"upload_length": "1", "upload_concat": "whole"},
        {"upload_length": "1", "content_type": _OFFSET_TYPE, "content_length": "1", "upload_checksum": "md5 AAAA"},
    ],
)
def test_creations_that_are_refused(site: Site, asked: dict[str, str]) -> None:
    assert site.tus("POST", **asked).status == 400
    assert site.empty()


def test_creation_of_too_much(make: Sites) -> None:
    site = make(max_upload_bytes=10)
    assert site.tus("POST", upload_length=11).status == 413
    assert site.tus("POST", None, b"x" * 11, upload_defer_length=1, content_type=_OFFSET_TYPE).status == 413
    assert site.tus("POST", None, b"x" * 6, upload_length=5, content_type=_OFFSET_TYPE).status == 413
    assert site.empty()
    assert site.tus("POST", upload_length=10).status == 201


def test_creation_needs_no_body_and_so_no_length_of_one(site: Site) -> None:
    assert site.tus("POST", upload_length=1, untold="this host cannot").status == 201
    assert site.tus("POST", upload_length=1, untold="this host cannot", content_type=_OFFSET_TYPE).status == 411
    key = site.tus("POST", upload_length=1).id
    assert site.tus("PATCH", key, upload_offset=0, untold="this host cannot").status == 411


def test_an_upload_of_no_bytes_is_a_file_at_once(site: Site) -> None:
    told = site.tus("POST", upload_length=0)
    assert told.status == 201
    assert site.content(told.id) == b""
    assert site.offset(told.id) == 0
    assert site.tus("PATCH", told.id, b"", upload_offset=0).status == 204


def test_creation_with_upload(site: Site) -> None:
    told = site.tus("POST", None, b"01234", upload_length=10, content_type=_OFFSET_TYPE)
    assert (told.status, told.headers["upload-offset"]) == (201, "5")
    assert "upload-expires" in told.headers
    assert site.offset(told.id) == 5
    told = site.tus("POST", None, iter([b"01234", b"56789"]), upload_length=10, content_type=_OFFSET_TYPE)
    assert (told.status, told.headers["upload-offset"]) == (201, "10")
    assert "upload-expires" not in told.headers
    assert site.content(told.id) == b"0123456789"
    told = site.tus("POST", None, b"", upload_length=10, content_type=_OFFSET_TYPE)
    assert (told.status, told.headers["upload-offset"]) == (201, "0")


def test_a_creation_that_breaks_off_is_nothing_and_one_that_can_be_answered_goes_on(site: Site) -> None:
    answer = site.tus("POST", None, broken(b"abc"), upload_length=10, content_type=_OFFSET_TYPE)
    assert answer.status == 400
    assert not {"location", "upload-offset"} & set(answer.headers)
    assert site.empty()
    answer = site.tus("POST", None, broken(b"abc", error=UploadTooSlow()), upload_length=10, content_type=_OFFSET_TYPE)
    assert (answer.status, answer.headers["upload-offset"]) == (408, "3")
    assert site.offset(answer.id) == 3


def test_deferred_length(site: Site) -> None:
    key = site.tus("POST", upload_defer_length=1).id
    head = site.tus("HEAD", key)
    assert head.headers["upload-defer-length"] == "1"
    assert "upload-length" not in head.headers
    assert site.tus("PATCH", key, b"abc", upload_offset=0).status == 204
    assert site.tus("PATCH", key, b"d", upload_offset=3, upload_length=2).status == 400
    assert site.tus("PATCH", key, b"def", upload_offset=3, upload_length=5).status == 413
    assert site.tus("PATCH", key, b"d", upload_offset=3, upload_length="5x").status == 400
    assert site.tus("PATCH", key, b"d", upload_offset=3, upload_length=5).status == 204
    head = site.tus("HEAD", key)
    assert (head.headers["upload-length"], head.headers["upload-offset"]) == ("5", "4")
    assert "upload-defer-length" not in head.headers
    assert site.tus("PATCH", key, b"e", upload_offset=4, upload_length=6).status == 400
    assert site.tus("PATCH", key, b"e", upload_offset=4, upload_length=5).status == 204
    assert site.content(key) == b"abcde"


def test_a_deferred_length_may_be_where_it_stands(site: Site) -> None:
    key = site.tus("POST", upload_defer_length=1).id
    assert site.tus("PATCH", key, b"abc", upload_offset=0).status == 204
    assert site.tus("PATCH", key, b"", upload_offset=3, upload_length=3).status == 204
    assert site.content(key) == b"abc"


def test_deferred_lengths_are_limited(make: Sites) -> None:
    site = make(max_upload_bytes=5)
    key = site.tus("POST", upload_defer_length=1).id
    assert site.tus("PATCH", key, b"abc", upload_offset=0, upload_length=6).status == 413
    assert site.tus("PATCH", key, b"abcdef", upload_offset=0).status == 413
    assert site.tus("PATCH", key, iter([b"abc", b"def"]), upload_offset=0).status == 413
    assert site.offset(key) == 3


# --- tus: going on -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"upload_offset": None}, 400),
        ({"upload_offset": "-1"}, 400),
        ({"upload_offset": "0, 0"}, 400),
        ({"upload_offset": "1"}, 409),
        ({"content_type": None}, 415),
        ({"content_type": "application/octet-stream"}, 415),
        ({"content_length": "11"}, 413),
        ({"upload_length": "11"}, 400),
        ({"upload_checksum": "sha1 x"}, 400),
        ({"upload_checksum": "unheard AAAA"}, 400),
        ({"content_digest": "sha-256=x"}, 400),
        ({"transfer_encoding": "chunked"}, 400),
    ],
)
def test_a_patch_that_is_refused_changes_nothing(site: Site, asked: dict[str, Any], status: int) -> None:
    key = site.tus("POST", upload_length=10).id
    headers = {"upload_offset": "0", "content_type": _OFFSET_TYPE, "content_length": "3", "tus_resumable": "1.0.0"}
    refused = site.begin("PATCH", key, **(headers | asked))
    assert isinstance(refused, Reply)
    assert refused.status == status
    assert refused.header("tus-resumable") == "1.0.0"
    assert (refused.header("upload-offset") == "0") == (status == 409)
    assert site.offset(key) == 0


@pytest.mark.parametrize("cut", [0, 1, 5, 10])
@pytest.mark.parametrize("error", [UploadBroken(), UploadTooSlow()])
def test_what_came_before_a_patch_broke_off_is_kept(site: Site, cut: int, error: StreamwareError) -> None:
    key = site.tus("POST", upload_length=10).id
    answer = site.tus("PATCH", key, broken(b"0123456789"[:cut], error=error), upload_offset=0, **_framed(10))
    assert answer.status == error.status
    assert answer.headers["upload-offset"] == str(cut)
    assert site.offset(key) == cut
    answer = site.tus("PATCH", key, b"0123456789"[cut:], upload_offset=cut)
    assert answer.status == 204
    assert site.content(key) == b"0123456789"
    assert site.store.file(key).sha256 == hashlib.sha256(b"0123456789").digest()


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),  # bytes sent
            st.integers(1, 7),  # in pieces of so many
            st.sampled_from([None, UploadBroken(), UploadTooSlow(), ZeroDivisionError()]),
            st.booleans(),  # with a checksum
            st.booleans(),  # with a length
        ),
        max_size=12,
    )
)
def test_an_upload_that_is_interrupted_anyhow_goes_on_where_it_stands(
    shared: Site, requests: list[tuple[int, int, Exception | None, bool, bool]]
) -> None:
    site, data = shared, bytes(range(100))
    key = site.tus("POST", upload_length=len(data)).id
    expected = 0
    for count, size, error, checked, told in [*requests, (100, 100, None, True, True)]:
        sent = data[expected : expected + count]
        stop = len(sent) if error is None else len(sent) // 2

        def pieces(
            sent: bytes = sent, stop: int = stop, size: int = size, error: Exception | None = error
        ) -> Iterator[bytes]:
            for at in range(0, stop, size):
                yield sent[at : min(at + size, stop)]
            if error is not None:
                raise error

        asked = _framed(len(sent) if told else None)
        if checked:
            asked["upload_checksum"] = f"sha1 {b64(hashlib.sha1(sent).digest())}"
        try:
            status = site.tus("PATCH", key, pieces(), upload_offset=expected, **asked).status
        except ZeroDivisionError:
            status = 500
        assert status == (204 if error is None else getattr(error, "status", 500))
        expected += 0 if checked and error is not None else stop
        assert site.offset(key) == expected
        if expected < len(data):
            assert site.tus("PATCH", key, b"x", upload_offset=expected + 1).status == 409
    assert site.content(key) == data
    assert site.store.file(key).sha256 == hashlib.sha256(data).digest()


def test_a_host_that_fails_keeps_what_came(site: Site) -> None:
    key = site.tus("POST", upload_length=10).id
    intake = site.begin(
        "PATCH", key, upload_offset=0, content_type=_OFFSET_TYPE, content_length=10, tus_resumable="1.0.0"
    )
    assert not isinstance(intake, Reply)
    intake.write(b"abc")
    intake.close()
    assert site.offset(key) == 3


def test_a_patch_past_the_end_keeps_nothing_beyond(site: Site) -> None:
    key = site.tus("POST", upload_length=5).id
    assert site.tus("PATCH", key, b"012345", upload_offset=0).status == 413
    assert site.offset(key) == 0
    assert site.tus("PATCH", key, iter([b"012", b"345"]), upload_offset=0).status == 413
    assert site.offset(key) == 3
    assert site.tus("PATCH", key, iter([b"34"]), upload_offset=3).status == 204
    assert site.content(key) == b"01234"


def test_a_later_patch_takes_over(site: Site) -> None:
    key = site.tus("POST", upload_length=10).id
    asked = {"content_type": _OFFSET_TYPE, "tus_resumable": "1.0.0"}
    first = site.begin("PATCH", key, upload_offset=0, content_length=10, **asked)
    assert not isinstance(first, Reply)
    first.write(b"0123")
    assert site.service.admission.active == 1
    head = site.begin("HEAD", key, tus_resumable="1.0.0")
    assert isinstance(head, Reply)
    assert head.header("upload-offset") == "4"
    second = site.begin("PATCH", key, upload_offset=4, content_length=6, **asked)
    assert not isinstance(second, Reply)
    with pytest.raises(StreamwareError) as locked:
        first.write(b"xxxx")
    assert locked.value.status == 423
    assert first.fail(locked.value).status == 423
    second.write(b"456789")
    assert second.finish().status == 204
    assert site.service.admission.active == 0
    assert site.content(key) == b"0123456789"


def test_a_patch_goes_on_where_its_client_was_told_whatever_comes_late(site: Site) -> None:
    """Of a request that its client has cut off, bytes may still be under way when it asks how far it came."""
    key = site.tus("POST", upload_length=10).id
    asked = {"content_type": _OFFSET_TYPE, "tus_resumable": "1.0.0"}
    first = site.begin("PATCH", key, upload_offset=0, content_length=10, **asked)
    assert not isinstance(first, Reply)
    first.write(b"0123")
    head = site.begin("HEAD", key, tus_resumable="1.0.0")
    assert isinstance(head, Reply)
    assert head.header("upload-offset") == "4"
    first.write(b"late")
    second = site.begin("PATCH", key, upload_offset=4, content_length=6, **asked)
    assert not isinstance(second, Reply)
    with pytest.raises(StreamwareError) as locked:
        first.write(b"xx")
    assert first.fail(locked.value).status == 423
    second.write(b"456789")
    assert second.finish().status == 204
    assert site.content(key) == b"0123456789"
    assert site.store.file(key).sha256 == hashlib.sha256(b"0123456789").digest()
    assert len(list((site.folder / "b").glob("??/*/*"))) == 2  # nothing of what was late


def test_a_patch_that_was_not_told_where_it_goes_on_takes_nothing_back(site: Site) -> None:
    """As when a browser sends a request again by itself: what the first one brought is worth more."""
    key = site.tus("POST", upload_length=10).id
    asked = {"content_type": _OFFSET_TYPE, "tus_resumable": "1.0.0"}
    first = site.begin("PATCH", key, upload_offset=0, content_length=10, **asked)
    assert not isinstance(first, Reply)
    first.write(b"0123")
    again = site.begin("PATCH", key, upload_offset=0, content_length=10, **asked)
    assert isinstance(again, Reply)
    assert (again.status, again.header("upload-offset")) == (409, "4")
    first.write(b"456789")
    assert first.finish().status == 204
    assert site.content(key) == b"0123456789"


def test_an_upload_left_by_a_process_that_died_before_its_last_row_becomes_a_file(site: Site) -> None:
    for ask in (
        lambda key: site.tus("HEAD", key),
        lambda key: site.tus("PATCH", key, b"", upload_offset=3),
    ):
        upload = site.store.begin("a", "text/plain", length=3, kind="tus")
        appender = site.store.append(upload)
        appender.write(b"abc")
        appender.keep()
        assert site.ask("GET", upload.id).status == 404
        assert ask(upload.id).headers["upload-offset"] == "3"
        assert site.content(upload.id) == b"abc"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "crc32"])
def test_checksums(site: Site, algorithm: str) -> None:
    def of(data: bytes) -> str:
        if algorithm == "crc32":
            return f"crc32 {b64(zlib.crc32(data).to_bytes(4, 'big'))}"
        return f"{algorithm} {b64(hashlib.new(algorithm, data).digest())}"

    key = site.tus("POST", upload_length=6).id
    answer = site.tus("PATCH", key, b"abc", upload_offset=0, upload_checksum=of(b"xyz"))
    assert (answer.status, answer.kind, answer.headers["upload-offset"]) == (460, "digest-mismatch", "0")
    assert site.offset(key) == 0
    assert site.tus("PATCH", key, broken(b"ab"), upload_offset=0, upload_checksum=of(b"abc")).status == 400
    assert site.offset(key) == 0  # half of it proves nothing
    assert site.tus("PATCH", key, b"abc", upload_offset=0, upload_checksum=of(b"abc")).status == 204
    assert site.tus("PATCH", key, iter([b"de", b"f"]), upload_offset=3, upload_checksum=of(b"def")).status == 204
    assert site.content(key) == b"abcdef"
    answer = site.tus("POST", None, b"abc", upload_length=3, content_type=_OFFSET_TYPE, upload_checksum=of(b"x"))
    assert (answer.status, answer.headers["upload-offset"]) == (460, "0")
    assert site.offset(answer.id) == 0
    answer = site.tus("POST", None, b"abc", upload_length=3, content_type=_OFFSET_TYPE, upload_checksum=of(b"abc"))
    assert site.content(answer.id) == b"abc"


def test_a_content_digest_of_a_patch_counts_too(site: Site) -> None:
    key = site.tus("POST", upload_length=3).id
    wrong, right = (b64(hashlib.sha256(data).digest()) for data in (b"x", b"abc"))
    assert site.tus("PATCH", key, b"abc", upload_offset=0, content_digest=f"sha-256=:{wrong}:").status == 400
    assert site.offset(key) == 0
    assert site.tus("PATCH", key, b"abc", upload_offset=0, content_digest=f"sha-256=:{right}:").status == 204


@pytest.mark.parametrize(
    ("method", "version"), [(m, v) for m in ("POST", "HEAD", "PATCH", "DELETE") for v in ("0.2.2", "", "1.0.0, 1.0.0")]
)
def test_versions(site: Site, method: str, version: str) -> None:
    key = None if method == "POST" else site.tus("POST", upload_length=10).id
    answer = site.ask(method, key, tus_resumable=version, upload_length=5, upload_offset=0, content_type=_OFFSET_TYPE)
    assert (answer.status, answer.headers["tus-version"]) == (412, "1.0.0")
    assert answer.headers["tus-resumable"] == "1.0.0"


def test_requests_of_tus_without_a_version(site: Site) -> None:
    assert site.ask("POST", upload_length=5).status == 412
    assert site.ask("POST", upload_defer_length=1).status == 412
    key = site.tus("POST", upload_length=5).id
    assert site.ask("PATCH", key, b"", upload_offset=0, content_type=_OFFSET_TYPE).status == 412
    # What else there is of resumable uploads takes an ordinary answer.
    assert site.ask("POST", None, b"abc", upload_length=3, upload_complete="?1").status == 201


@pytest.mark.parametrize("id", [NOBODYS, "x", "../x", "%2e%2e%2f", "/", "0" * 36, NOBODYS.upper(), "é"])
def test_unknown_ids(site: Site, id: str) -> None:
    for method, asked in (
        ("GET", {}),
        ("HEAD", {}),
        ("HEAD", {"tus_resumable": "1.0.0"}),
        ("PATCH", {"tus_resumable": "1.0.0", "content_type": _OFFSET_TYPE, "upload_offset": "0"}),
        ("DELETE", {"tus_resumable": "1.0.0"}),
    ):
        answer = site.ask(method, id, **asked)
        assert (answer.status, answer.kind) == (404, "file-unknown")
        assert "upload-offset" not in answer.headers


def test_expired_uploads(site: Site) -> None:
    key = site.tus("POST", upload_length=10).id
    with closing(sqlite3.connect(site.folder / "r.sqlite3")) as database:
        database.execute(f"UPDATE {_TABLES[0]} SET expires = 1")
        database.commit()
    head = site.tus("HEAD", key)
    assert (head.status, head.kind) == (410, "upload-expired")
    assert "upload-offset" not in head.headers
    assert site.tus("PATCH", key, b"x", upload_offset=0).status == 410
    assert site.tus("DELETE", key).status == 410


def test_a_raw_upload_is_none_of_tus(site: Site) -> None:
    intake = site.begin("POST", content_length=5)
    assert not isinstance(intake, Reply)
    intake.write(b"abc")
    (key,) = site.ids()
    for method in ("HEAD", "PATCH", "DELETE"):
        answer = site.begin(method, key, tus_resumable="1.0.0", content_type=_OFFSET_TYPE, upload_offset=3)
        assert isinstance(answer, Reply)
        assert answer.status == 404
    intake.write(b"de")
    assert intake.finish().status == 201
    assert site.content(key) == b"abcde"
    assert site.offset(key) == 5


# --- tus: termination, concatenation, options ----------------------------------------------------------------------


def test_termination(site: Site) -> None:
    key = site.tus("POST", None, b"abc", upload_length=10, content_type=_OFFSET_TYPE).id
    assert site.ask("DELETE", key).status == 403  # as a file, which cannot be deleted here
    assert site.offset(key) == 3
    answer = site.tus("DELETE", key)
    assert (answer.status, answer.body) == (204, b"")
    assert site.tus("HEAD", key).status == 404
    assert site.tus("DELETE", key).status == 404
    assert site.empty()


def test_termination_of_what_is_a_file(make: Sites) -> None:
    for allowed in (False, True):
        site = make(allow_delete=allowed)
        key = site.tus("POST", None, b"abc", upload_length=3, content_type=_OFFSET_TYPE).id
        answer = site.tus("DELETE", key)
        assert answer.status == (204 if allowed else 403)
        assert site.empty() == allowed


def test_concatenation(site: Site) -> None:
    def partial(data: bytes, **asked: Any) -> str:
        told = site.tus("POST", upload_length=len(data), upload_concat="partial", **asked)
        assert told.status == 201
        for at in range(0, len(data), 3):
            assert site.tus("PATCH", told.id, data[at : at + 3], upload_offset=at).status == 204
        return told.id

    first, second, third = partial(b"hello "), partial(b"w"), partial(b"orld")
    empty = site.tus("POST", upload_length=0, upload_concat="partial").id
    for key in (first, empty):
        head = site.tus("HEAD", key)
        assert head.headers["upload-concat"] == "partial"
        assert head.headers["upload-length"] == head.headers["upload-offset"]
        assert site.ask("GET", key).status == 404  # a part is never a file
    assert site.ask("GET").json["files"] == []

    concat = f"final;/files/{first} https://example.com/files/{second} /files/{empty} /files/{third}"
    told = site.tus("POST", upload_concat=concat, upload_metadata=f"filename {b64(b'x.txt')}")
    assert told.status == 201
    assert site.content(told.id) == b"hello world"
    file = site.store.file(told.id)
    assert (file.name, file.crc32) == ("x.txt", zlib.crc32(b"hello world"))
    head = site.tus("HEAD", told.id)
    assert (head.headers["upload-concat"], head.headers["upload-length"]) == (concat, "11")
    assert head.headers["upload-offset"] == "11"
    assert site.tus("PATCH", told.id, b"", upload_offset=11).status == 403
    assert site.tus("HEAD", first).status == 404  # used up
    assert site.tus("POST", upload_concat=concat).status == 404


def test_concatenations_that_are_refused(make: Sites) -> None:
    site = make(max_upload_bytes=10)
    half = site.tus("POST", upload_length=6, upload_concat="partial").id
    whole = site.tus("POST", None, b"abcdef", upload_length=6, upload_concat="partial", content_type=_OFFSET_TYPE).id
    again = site.tus("POST", None, b"ghijkl", upload_length=6, upload_concat="partial", content_type=_OFFSET_TYPE).id
    plain = site.tus("POST", upload_length=6).id
    file = site.ask("POST", None, b"abc").id
    for concat, status in (
        (f"final;/files/{whole} /files/{half}", 400),
        (f"final;/files/{whole} /files/{plain}", 400),
        (f"final;/files/{whole} /files/{file}", 404),
        (f"final;/files/{whole} /files/{uuid.uuid4()}", 404),
        (f"final;/files/{whole} /files/{whole}", 400),
        (f"final;/files/{whole} /files/{again}", 413),
        ("final;", 400),
    ):
        assert site.tus("POST", upload_concat=concat).status == status, concat
    assert site.tus("POST", upload_concat=f"final;/files/{whole}", upload_length=6).status == 400
    assert site.offset(whole) == 6
    assert site.tus("POST", upload_concat=f"final;/files/{whole}").status == 201


def test_a_slash_behind_the_collection_means_nothing(site: Site) -> None:
    told = site.tus("POST", "", upload_length=3)
    assert told.status == 201
    assert site.offset(told.id) == 0
    assert site.ask("GET", "").json == {"files": [], "next": None}


@pytest.mark.parametrize(
    ("path", "key", "base"),
    [
        ("/files", None, "/files"),
        ("/files/", None, "/files"),
        ("/files/", "", "/files"),
        ("/files/x", "x", "/files"),
        ("/a/files/x/", "x", "/a/files"),
        ("/ä b/x", "x", "/%C3%A4%20b"),
        ("/", None, ""),
        ("/x", "x", ""),
        ("//evil.example/", None, "/evil.example"),
        ("//evil.example/x", "x", "/evil.example"),
        ("///x", "x", ""),
    ],
)
def test_where_files_are_told_to_be(site: Site, path: str, key: str | None, base: str) -> None:
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": path.encode().decode("latin-1"), "CONTENT_LENGTH": "0"}
    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-length", b"0")]}
    for asked in (FileRequest.from_environ(environ, id=key), FileRequest.from_scope(scope, id=key)):
        assert asked.base == base
        if not key:
            intake = site.service.ask(asked)
            assert not isinstance(intake, Reply)
            answer = Answer(intake.finish())
            assert answer.json["url"] == answer.headers["location"] == f"{base}/{answer.json['id']}"


def test_options(make: Sites) -> None:
    site = make(max_upload_bytes=12345)
    for key in (None, str(uuid.uuid4())):
        answer = site.ask("OPTIONS", key, tus_resumable="9")
        assert answer.status == 204
        assert answer.headers["tus-version"] == answer.headers["tus-resumable"] == "1.0.0"
        assert answer.headers["tus-max-size"] == "12345"
        assert set(answer.headers["tus-checksum-algorithm"].split(",")) == {"sha1", "sha256", "crc32"}
        assert set(answer.headers["tus-extension"].split(",")) == {
            *("creation", "creation-with-upload", "creation-defer-length", "checksum"),
            *("expiration", "termination", "concatenation"),
        }
        assert ("POST" if key is None else "PATCH") in answer.headers["allow"].split(", ")


def test_overridden_methods(site: Site) -> None:
    key = site.tus("POST", upload_length=3).id
    asked = {"x_http_method_override": "PATCH", "upload_offset": 0, "content_type": _OFFSET_TYPE}
    assert site.tus("POST", key, b"abc", **asked).status == 204
    assert site.content(key) == b"abc"
    other = site.tus("POST", upload_length=3).id
    assert site.tus("GET", other, x_http_method_override="DELETE").status == 404
    assert site.tus("POST", other, x_http_method_override="delete").status == 204
    assert site.tus("POST", other, x_http_method_override="GET").status == 405


# --- what there is, and what there is not --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "id", "allow"),
    [
        ("PUT", NOBODYS, "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("POST", NOBODYS, "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("PUT", None, "GET, HEAD, OPTIONS, POST"),
        ("DELETE", None, "GET, HEAD, OPTIONS, POST"),
        ("PATCH", None, "GET, HEAD, OPTIONS, POST"),
        ("BREW", None, "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_methods(site: Site, method: str, id: str | None, allow: str) -> None:
    answer = site.ask(method, id, content_length=3)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


def test_a_service_of_tus_alone(make: Sites) -> None:
    site = make(tus_only=True, allow_delete=True)
    assert site.ask("POST", None, b"abc").status == 412
    assert site.ask("GET").status == 405
    key = site.tus("POST", None, b"abc", upload_length=3, content_type=_OFFSET_TYPE).id
    assert site.ask("GET", key).headers["allow"] == "DELETE, HEAD, OPTIONS, PATCH"
    assert site.ask("HEAD", key).status == 412
    assert site.ask("DELETE", key).status == 412
    assert site.offset(key) == 3


def test_listing(make: Sites) -> None:
    site = make(max_listed_files=3)
    ids = [site.ask("POST", None, b"x" * n, x_filename=f"{n}").id for n in range(5)]
    site.tus("POST", upload_length=3)
    page = site.ask("GET")
    assert page.status == 200
    assert page.headers["cache-control"] == "no-store"
    assert len(page.json["files"]) == 3
    found = []
    query, pages = "limit=2", 0
    while True:
        page = site.ask("GET", query=query)
        found += page.json["files"]
        pages += 1
        if page.json["next"] is None:
            break
        base, _, query = page.json["next"].partition("?")
        assert base == "/files"
    assert pages == 3
    assert sorted(f["id"] for f in found) == sorted(ids)
    assert found[0].keys() == {"id", "name", "size", "type", "sha256", "crc32", "created", "url"}
    assert len(site.ask("GET", query="limit=1000").json["files"]) == 3
    for wrong in (
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "after=nonsense",
        "after=%00",
        "limit=" + "9" * 40,
        "a=1&" * 20,
    ):
        assert site.ask("GET", query=wrong).status == 400, wrong
    assert site.ask("HEAD").headers["content-length"] == site.ask("GET").headers["content-length"]


def test_deletion(make: Sites) -> None:
    site = make(allow_delete=True)
    key = site.ask("POST", None, b"abc").id
    upload = site.tus("POST", upload_length=3).id
    assert site.ask("DELETE", upload).status == 404
    assert site.ask("DELETE", key).status == 204
    assert site.ask("DELETE", key).status == 404
    assert site.ask("GET", key).status == 404
    assert site.offset(upload) == 0


# --- access --------------------------------------------------------------------------------------------------------


def test_authorization(make: Sites) -> None:
    asked: list[tuple[str, str | None]] = []

    def authorize(action: str, request: FileRequest) -> bool | str | None:
        asked.append((action, request.id))
        return {"alice": "alice", "all": True, "none": None, "empty": ""}.get(
            request.header("authorization") or "", False
        )

    site = make(authorize=authorize, allow_delete=True)
    key = str(uuid.uuid4())
    for method, each, action in (
        ("POST", None, "upload"),
        ("GET", None, "list"),
        ("HEAD", None, "list"),
        ("GET", key, "download"),
        ("GET", "no id", "download"),
        ("HEAD", key, "download"),
        ("PATCH", key, "upload"),
        ("DELETE", key, "delete"),
    ):
        asked.clear()
        answer = site.ask(method, each, content_length=0)
        assert (answer.status, answer.headers["www-authenticate"], answer.kind) == (401, "Bearer", "unauthorized")
        for said in ("none", "empty", "other"):
            answer = site.ask(method, each, content_length=0, authorization=said)
            assert (answer.status, answer.kind) == (403, "forbidden")
        assert asked == [(action, each)] * 4
    assert site.ask("POST", None, b"x", authorization="all").status == 201
    assert site.ask("OPTIONS").status == 204
    assert isinstance(site.begin("POST", content_length=10**9), Reply)  # before the body is read


def test_an_unfinished_upload_is_its_owners_alone(make: Sites) -> None:
    site = make(authorize=lambda action, request: request.header("authorization") or True, allow_delete=True)
    key = site.tus("POST", upload_length=6, authorization="alice").id
    nobodys = site.tus("POST", upload_length=6).id
    part = site.tus(
        "POST", None, b"x", upload_length=1, upload_concat="partial", content_type=_OFFSET_TYPE, authorization="alice"
    ).id
    for other in ("bob", None, "@client 192.0.2.1", "alice "):
        for method in ("HEAD", "PATCH", "DELETE"):
            assert site.tus(method, key, b"", upload_offset=0, authorization=other).status == 404
        assert site.tus("POST", upload_concat=f"final;/files/{part}", authorization=other).status == 404
    assert site.tus("HEAD", nobodys, authorization="bob").status == 404
    assert site.tus("HEAD", nobodys).status == 200
    assert site.tus("PATCH", key, b"abc", upload_offset=0, authorization="alice", client="198.51.100.7").status == 204
    assert site.tus("DELETE", key, authorization="alice").status == 204
    assert site.tus("POST", upload_concat=f"final;/files/{part}", authorization="alice").status == 201


def test_owners_that_are_addresses_are_told_from_names(make: Sites) -> None:
    site = make(authorize=lambda action, request: request.header("authorization") or True, max_files_per_identity=2)
    key = site.tus("POST", upload_length=6).id
    assert site.tus("HEAD", key, client="198.51.100.7").status == 200  # an address may change on the way
    assert site.tus("HEAD", key, authorization="@client 192.0.2.1").status == 404
    theirs = site.tus("POST", upload_length=6, authorization="@client 192.0.2.1").id
    assert site.tus("HEAD", theirs).status == 404
    assert site.tus("HEAD", theirs, authorization="@client 192.0.2.1").status == 200


def test_whose_address_has_changed_joins_what_they_began(make: Sites) -> None:
    site = make(max_files_per_identity=10)  # so that addresses are counted by
    begun = {"upload_length": 3, "upload_concat": "partial", "content_type": _OFFSET_TYPE}
    parts = [site.tus("POST", None, b"abc", **begun, client="192.0.2.1").headers["location"] for _ in range(2)]
    joined = site.tus("POST", upload_concat=f"final;{' '.join(parts)}", client="192.0.2.2")
    assert joined.status == 201
    assert site.content(joined.id) == b"abcabc"


def test_quotas(make: Sites) -> None:
    site = make(max_files_per_identity=2, max_bytes_per_identity=10)
    assert site.ask("POST", None, b"x" * 11).status == 507
    assert isinstance(site.begin("POST", content_length=11), Reply)  # before the body
    assert site.ask("POST", None, iter([b"x" * 11])).status == 507
    assert site.tus("POST", upload_length=11).status == 507
    assert site.empty()
    assert site.ask("POST", None, b"x" * 6).status == 201
    assert site.tus("POST", upload_length=5).status == 507
    assert site.tus("POST", upload_length=4).status == 201
    assert site.ask("POST", None, b"").status == 507
    assert site.ask("POST", None, b"", client="198.51.100.7").status == 201


def test_places(make: Sites) -> None:
    site = make(max_uploads=3, max_uploads_per_identity=2)

    def begin(client: str) -> Intake:
        intake = site.begin("POST", content_length=3, client=client)
        assert not isinstance(intake, Reply), intake
        return intake

    first, second = begin("a"), begin("a")
    refused = site.begin("POST", content_length=3, client="a")
    assert isinstance(refused, Reply)
    assert refused.status == 429
    assert int(refused.header("retry-after") or 0) > 0
    third = begin("b")
    refused = site.begin("POST", content_length=3, client="c")
    assert isinstance(refused, Reply)
    assert refused.status == 503
    assert int(refused.header("retry-after") or 0) > 0
    listed = site.begin("GET")
    assert isinstance(listed, Reply)
    assert listed.status == 200
    first.close()
    first.close()
    fourth = begin("a")
    assert site.service.admission.active == 3
    for intake in (second, third, fourth):
        intake.write(b"abc")
        assert intake.finish().status == 201
        intake.close()
    assert site.service.admission.active == 0


def test_the_place_of_a_request_whose_client_has_come_back_is_free(make: Sites) -> None:
    site = make(max_uploads=1, max_uploads_per_identity=1)
    key, other = (site.tus("POST", upload_length=10).id for _ in range(2))
    asked = {"content_type": _OFFSET_TYPE, "tus_resumable": "1.0.0", "content_length": 10}

    def begin(key: str, offset: int, **more: Any) -> Reply | Intake:
        return site.begin("PATCH", key, upload_offset=offset, **(asked | {"content_length": 10 - offset} | more))

    first = begin(key, 0)
    assert not isinstance(first, Reply)
    first.write(b"012")
    for refused, status in ((begin(other, 0), 429), (begin(key, 3, client="198.51.100.7"), 503), (begin(key, 1), 409)):
        assert isinstance(refused, Reply)
        assert refused.status == status
        assert site.service.admission.active == 1
    first.write(b"3")  # whoever was refused has taken nothing over
    second = begin(key, 4)
    assert not isinstance(second, Reply)
    assert site.service.admission.active == 1
    third = begin(key, 4)
    assert not isinstance(third, Reply)
    for late in (first, second):
        late.close()
    assert site.service.admission.active == 1
    third.write(b"456789")
    assert third.finish().status == 204
    assert site.service.admission.active == 0
    assert site.content(key) == b"0123456789"


def test_rates(make: Sites) -> None:
    site = make(max_uploads_per_minute=3)
    key = site.tus("POST", upload_length=10).id
    assert site.ask("POST", None, b"x").status == 201
    assert site.ask("POST", None, b"x" * 3, content_encoding="gzip").status == 415
    refused = site.ask("POST", None, b"x")
    assert (refused.status, refused.kind) == (429, "too-many-uploads")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert site.tus("PATCH", key, b"x", upload_offset=0).status == 204  # it goes on, and begins nothing
    assert site.ask("POST", None, b"x", client="198.51.100.7").status == 201


def test_a_database_that_is_gone_is_a_problem_and_no_accident(make: Sites) -> None:
    site = make()
    intake = site.begin("POST", content_length=3)
    assert not isinstance(intake, Reply)
    with closing(sqlite3.connect(site.folder / "r.sqlite3")) as database:
        for table in reversed(_TABLES):
            database.execute(f"ALTER TABLE {table} RENAME TO gone_{table}")
        database.commit()
        intake.write(b"abc")
        assert intake.finish().status == 503
        assert site.service.admission.active == 0
        for method, key in (("POST", None), ("GET", None), ("GET", str(uuid.uuid4()))):
            assert site.ask(method, key, content_length=0).status == 503
        for table in _TABLES:
            database.execute(f"ALTER TABLE gone_{table} RENAME TO {table}")
        database.commit()
    assert site.ask("GET").json["files"] == []
    assert site.ask("POST", None, b"abc").status == 201


# --- downloads -----------------------------------------------------------------------------------------------------


def test_a_download(site: Site) -> None:
    data = bytes(range(256)) * 40
    name = 'ä "b".txt'
    key = site.ask("POST", None, data, content_type="text/html", x_filename="%C3%A4 %22b%22.txt").id
    answer = site.ask("GET", key)
    digest = hashlib.sha256(data)
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["etag"] == f'"{digest.hexdigest()}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["repr-digest"] == f"sha-256=:{b64(digest.digest())}:"
    assert answer.headers["content-disposition"] == content_disposition(name)
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["cache-control"] == "private, no-transform"
    assert answer.headers["x-archive-crc32"] == f"{zlib.crc32(data):08x}"
    assert parse_http_date(answer.headers["last-modified"]) == site.store.file(key).created
    head = site.ask("HEAD", key)
    assert (head.status, head.headers) == (200, answer.headers)


def test_types_that_may_be_shown(make: Sites) -> None:
    site = make(inline_types=("image/png", "text/plain"))
    for media_type, kind in (
        ("image/png", "inline"),
        ("IMAGE/PNG", "inline"),
        ("text/plain; charset=utf-8", "inline"),
        ("image/svg+xml", "attachment"),
        ("text/html", "attachment"),
        ("text/plainx", "attachment"),
    ):
        answer = site.ask("GET", site.ask("POST", None, b"x", content_type=media_type).id)
        assert answer.headers["content-disposition"].startswith(kind + ";")
        assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_ranges_and_conditions(make: Sites) -> None:
    site = make(upload_part_bytes=1000)
    data = bytes(range(256)) * 40
    key = site.ask("POST", None, data).id
    etag = site.ask("GET", key).headers["etag"]

    def get(**conditions: str) -> Answer:
        return site.ask("GET", key, conditions=conditions)

    part = get(range="bytes=990-2010")
    assert (part.status, part.body) == (206, data[990:2011])
    assert part.headers["content-range"] == f"bytes 990-2010/{len(data)}"
    assert part.headers["x-archive-crc32"] == f"{zlib.crc32(data):08x}"
    several = get(range="bytes=0-9, 5000-5009")
    assert several.status == 206
    assert several.headers["content-type"].startswith("multipart/byteranges")
    assert data[:10] in several.body
    assert data[5000:5010] in several.body
    for tag in (etag, f'"{key}"'):  # the id is a validator from the first moment on
        assert get(range="bytes=0-9", if_range=tag).status == 206
        assert get(if_match=tag).status == 200
        assert get(if_none_match=tag).status == 304
    assert get(range="bytes=0-9", if_range='"other"').status == 200
    answer = get(if_match='"other"')
    assert (answer.status, answer.kind) == (412, "precondition-failed")
    assert answer.json["title"] == "The file is not the version that was asked for."
    answer = get(range=f"bytes={len(data)}-")
    assert (answer.status, answer.kind, answer.headers["content-range"]) == (
        416,
        "range-not-satisfiable",
        f"bytes */{len(data)}",
    )
    assert answer.json["title"] == "The file has no bytes in the range that was asked for."
    unchanged = get(if_none_match=etag)
    assert (unchanged.body, unchanged.headers["etag"]) == (b"", etag)
    assert unchanged.headers["cache-control"] == "private, no-transform"


def test_a_download_goes_on_when_its_file_is_deleted(make: Sites) -> None:
    site = make(allow_delete=True, upload_part_bytes=100_000, chunk_bytes=10_000)
    data = bytes(range(256)) * 2000
    key = site.ask("POST", None, data).id
    reply = site.begin("GET", key)
    assert isinstance(reply, Reply)
    received = next(reply.body)
    assert site.ask("DELETE", key).status == 204
    assert site.ask("GET", key).status == 404
    received += b"".join(reply.body)
    reply.body.close()
    assert received == data


def test_a_download_whose_bytes_are_lost_breaks_off_and_is_logged(
    make: Sites, caplog: pytest.LogCaptureFixture
) -> None:
    site = make(upload_part_bytes=100_000, chunk_bytes=10_000)
    key = site.ask("POST", None, bytes(300_000)).id
    last = max((site.folder / "b").glob("??/*/*"))
    last.write_bytes(bytes(1000))
    reply = site.begin("GET", key)
    assert isinstance(reply, Reply)
    with pytest.raises(StreamwareError):
        list(reply.body)
    reply.body.close()
    assert f"file {key} aborted after" in caplog.text
    for each in (site.folder / "b").glob("??/*/*"):
        each.unlink()
    answer = site.ask("GET", key)
    assert (answer.status, answer.kind) == (500, "store-failed")  # it is there, and cannot be had
