"""The stored files of ``streamware serve`` from outside: its options, who gets in, and what stays from run to run."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import time
import zipfile
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path

import pytest

from streamware.server.cli import main
from streamware.server.settings import Settings, parse_seconds, parse_size
from streamware.server.storage import open_storage
from tests.files.s3 import S3
from tests.hosts.serve_process import Answer, Served, refused

ALICE, BOB = "a" * 32, "b" * 32
MIB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}
PEOPLE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all that change nothing of it, with everything allowed."""
    top = tmp_path_factory.mktemp("serve")
    (top / "root").mkdir()
    (top / "root" / "a.txt").write_text("alpha\n")
    options = ("--store", f"file://{top}/store", "--state", f"sqlite:///{top}/state.sqlite3")
    with Served(top / "root", *options, "--allow-delete", "--max-upload", "3M") as served:
        yield served


def put(served: Served, data: bytes, name: str = "a.bin", **headers: str) -> dict[str, object]:
    """Store a file; what the server says of it."""
    given = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Type": "application/octet-stream"}
    answer = served.ask("/files", "POST", {**given, **headers}, data)
    assert answer.status == 201, answer
    told: dict[str, object] = json.loads(answer.body)
    return told


def listed(served: Served, **headers: str) -> list[str]:
    return [file["name"] for file in json.loads(served.ask("/files", headers=headers).body)["files"]]


def form(*files: tuple[str, bytes]) -> tuple[dict[str, str], bytes]:
    """What a browser sends of a form with files; its content type, and the body."""
    pieces = [
        f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: text/plain\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return {"Content-Type": "multipart/form-data; boundary=limit"}, b"".join(pieces) + b"--limit--\r\n"


# --- what the command line says -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("20G", 20 << 30), ("3m", 3 << 20), ("5 KiB", 5120), ("1TB", 1 << 40), ("0100", 100)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30d", 30 * 86400), ("2h", 7200), ("1W", 604800), ("5 m", 300), ("7s", 7)]
)
def test_times(text: str, seconds: int) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5G", "G", "20X", "1e9", "20 G B", "٣"])
def test_sizes_and_times_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="a size is"):
        parse_size(text)
    with pytest.raises(ValueError, match="a time is"):
        parse_seconds(text)


def test_settings_become_limits(root: Path) -> None:
    policy = Settings(root=str(root), allow_delete=True, max_upload=5, keep_seconds=60).policy()
    assert (policy.allow_delete, policy.max_upload_bytes, policy.file_seconds) == (True, 5, 60)
    plain = Settings(root=str(root)).policy()
    assert (plain.allow_delete, plain.max_upload_bytes, plain.file_seconds) == (False, 1 << 40, None)
    assert plain.authorize is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--store", "ftp://host/x"], "--store: a store's URL is file:///DIR"),
        (["--store", "file:///does/not/exist"], "--store: a store cannot be made in /does/not"),
        (["--store", "file:///etc/passwd/x"], "--store: "),
        (["--store", "file:///proc/streamware"], "--store: /proc/streamware cannot be used as a store"),
        (["--store", "s3://key:secret@bucket/x"], "--store: a store's URL holds no keys"),
        (["--store", "file:///tmp/x", "--state", "memory:"], "--store needs a database that lasts"),
        (["--token", "/does/not/exist"], "--token '/does/not/exist': No such file"),
        (["--token", "/dev/null"], "--token '/dev/null': there is no token in it"),
        (["--max-upload", "much"], "--max-upload: a size is"),
        (["--keep", "0"], "--keep: a time is"),
    ],
)
def test_a_mistake_of_the_operator_is_told_and_nothing_listens(
    root: Path, home: Path, options: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(root), "--bind", "127.0.0.1:0", *options]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert told in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("store", "state", "ledger", "why"),
    [
        ("none", None, "sqlite:////tmp/state.sqlite3", "--store none"),
        (None, "memory:", None, "no database that lasts"),
        (None, "postgresql://127.0.0.1/x", "postgresql://127.0.0.1/x", "a --store that they share"),
    ],
)
def test_without_a_place_for_them_there_are_no_uploads(store: str, state: str, ledger: str, why: str) -> None:
    storage = open_storage(store, state, ledger, pytest.fail)
    assert storage.url is None
    assert why in storage.why


def test_a_folder_that_was_chosen_may_fail_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite3.files").write_text("in the way")
    database = f"sqlite:///{tmp_path}/state.sqlite3"
    said: list[str] = []
    assert open_storage(None, database, database, said.append).url is None
    assert len(said) == 1
    assert "state.sqlite3.files" in said[0]
    assert said[0].endswith("no uploads are taken")


def test_where_none_are_taken_nothing_speaks_of_them(root: Path, home: Path) -> None:
    with Served(root, "--store", "none") as served:
        assert served.ask("/files", "POST", body=b"x").status == 404
        assert served.ask("/files", headers={"Accept": "text/html"}).status == 404
        assert b"Uploads" not in served.ask("/", headers={"Accept": "text/html"}).body
        served.signal()
        assert served.wait() == 0
    assert "no uploads are taken: --store none" in served.log
    assert not (home / "streamware" / "files").exists()


# --- what stays, and where -----------------------------------------------------------------------------------------


def begun(served: Served, method: str, target: str, size: int, **headers: str) -> HTTPConnection:
    """A request whose body has come half way. The caller closes the connection."""
    connection = served.connect()
    connection.putrequest(method, target)
    for name, value in {**headers, "Content-Length": str(size)}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(b"x" * (size // 2))
    time.sleep(0.3)  # until it has been taken in
    return connection


def test_files_stay_from_run_to_run_and_uploads_may_end_within_the_grace(root: Path, home: Path) -> None:
    data = os.urandom(3 * MIB)
    with Served(root) as served:
        told = put(served, data)
        assert (told["size"], told["sha256"]) == (len(data), sha256(data).hexdigest())
        with closing(begun(served, "POST", "/files", 2 * MIB, X_Filename="slow.bin")) as slow:
            served.signal()
            time.sleep(0.3)
            slow.send(b"x" * MIB)
            assert slow.getresponse().status == 201
        assert served.wait() == 0
    assert stat.S_IMODE((home / "streamware" / "files").stat().st_mode) == 0o700
    with Served(root) as served:
        assert listed(served) == ["slow.bin", "a.bin"]
        assert served.ask(str(told["url"])).body == data
        pick = served.ask(f"/bundle?path=/files/{told['id']}&path=/tree/a.txt&name=pick.zip")
        with zipfile.ZipFile(io.BytesIO(pick.body)) as archive:
            assert archive.testzip() is None
            assert {n: archive.read(n) for n in archive.namelist()} == {"a.bin": data, "a.txt": b"alpha\n"}
            assert not archive.getinfo("a.bin").flag_bits & 8  # its checksum was known ahead: no descriptor
        with closing(begun(served, "POST", "/files", 2 * MIB)):
            served.signal()
            time.sleep(0.1)
            second = time.monotonic()
            served.signal()  # which ends it at once, whatever is coming in
            assert served.wait(5) == 128 + signal.SIGTERM
            assert time.monotonic() - second < 2


def test_what_has_expired_is_swept_and_what_was_cut_off_goes_on(root: Path, home: Path) -> None:
    with Served(root, "--keep", "1s", "--grace", "1") as served:
        told = put(served, b"x" * 1000)
        where = served.ask("/files", "POST", {**TUS, "Upload-Length": str(2 * MIB)}).headers["Location"]
        added = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
        with closing(begun(served, "PATCH", where, 2 * MIB, **TUS, **added)):
            time.sleep(1.8)
            assert served.ask(str(told["url"])).status == 404
            assert listed(served) == []
            end = time.monotonic()
            served.signal()
            assert served.wait() == 0
            assert time.monotonic() - end < 5
    with Served(root) as served:  # which sweeps at its start
        assert served.ask(where, "HEAD", TUS).headers["Upload-Offset"] == str(MIB)
        end = time.monotonic() + 10
        while "streamware_files_swept_total 1.0" not in served.ask("/metrics").body.decode():
            assert time.monotonic() < end
            time.sleep(0.05)
        served.signal()
        assert served.wait() == 0
    assert "swept the file store: 1 files and uploads deleted" in served.log
    kept = [path for path in (home / "streamware" / "files").rglob("*") if path.is_file() and path.stat().st_size]
    homes = [path.parent.name for path in kept if path.parent.name != ".streamware-store"]
    assert homes == [where.rpartition("/")[2]]


def test_a_store_in_s3_is_shared_by_workers_and_must_answer_at_the_start(
    root: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = S3(tmp_path / "s3.log")
    try:
        bucket = endpoint.bucket()
        for name, value in endpoint.environment.items():
            monkeypatch.setenv(name, value)
        with Served(root, "--store", bucket, "--workers", "2") as served:
            data = os.urandom(MIB)
            told = [put(served, data, f"{n}.bin") for n in range(4)]
            for _ in range(4):  # whichever answers
                assert set(listed(served)) == {"0.bin", "1.bin", "2.bin", "3.bin"}
            # An upload that one worker began goes on at another.
            where = served.ask("/files", "POST", {**TUS, "Upload-Length": "40"}).headers["Location"]
            for offset in range(0, 40, 5):
                headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
                went = served.ask(where, "PATCH", headers, b"12345")
                assert (went.status, went.headers["Upload-Offset"]) == (204, str(offset + 5))
            assert served.ask(where).body == b"12345" * 8
            pick = served.ask("/bundle?name=pick.zip&" + "&".join(f"path=/files/{file['id']}" for file in told))
            with zipfile.ZipFile(io.BytesIO(pick.body)) as archive:
                assert archive.testzip() is None
                assert [archive.read(name) for name in archive.namelist()] == [data] * 4
            served.signal()
            assert served.wait() == 0
        assert served.log.count("uploads are kept in s3://") == 2
        parts = [key for key in endpoint.keys(bucket) if not key.startswith(".streamware-store/")]
        assert len(parts) == 4 + 8  # and nothing of the trial
    finally:
        endpoint.stop()
    said = refused(root, "--store", bucket)
    assert "--store: " in said
    assert "secret" not in said


# --- limits --------------------------------------------------------------------------------------------------------


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(served: Served) -> None:
    connection = served.connect()
    connection.putrequest("POST", "/files")
    connection.putheader("Content-Length", str(3 * MIB + 1))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["type"] == "urn:streamware:problem:upload-too-large"
    connection.close()


def test_the_figures_count_uploads(served: Served) -> None:
    def figures() -> dict[str, float]:
        lines = served.ask("/metrics").body.decode().splitlines()
        return {name: float(value) for name, _, value in (x.partition(" ") for x in lines if x[0] != "#")}

    before = figures()
    put(served, b"x" * 1000, "figures.bin")
    assert served.ask("/files", "POST", {"Content-Encoding": "gzip"}, b"x" * 10).status == 415
    after = figures()

    def grown(name: str) -> float:
        return after[f"streamware_{name}"] - before[f"streamware_{name}"]

    assert grown('uploads_total{outcome="taken"}') == 1
    assert grown('uploads_total{outcome="refused"}') == 1
    assert 1000 <= grown("upload_bytes_total") <= 1010
    assert (grown("files_stored_total"), grown("files_stored_bytes_total")) == (1, 1000)
    assert after["streamware_active_uploads"] == 0


# --- tokens --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    top = tmp_path_factory.mktemp("guarded")
    (top / "a.txt").write_text("alpha\n")
    (top / "tokens").write_text(f"# who may\nalice {ALICE}\nbob {BOB}\n")
    options = ("--state", f"sqlite:///{top}/state.sqlite3", "--token", f"{top}/tokens")
    with Served(top, *options) as served:
        # A database has a store of its own: what another one's holds, it would sweep away.
        assert (top / "state.sqlite3.files").is_dir()
        yield served


@pytest.mark.parametrize(
    "target", ["/", "/tree/a.txt", "/bundle?path=/tree/a.txt", "/files", "/metrics", "/assets/page.css", "/nothing"]
)
def test_without_a_token_there_is_nothing(guarded: Served, target: str) -> None:
    answer = guarded.ask(target)
    assert answer.status == 401
    assert answer.headers.get_all("WWW-Authenticate") == [
        'Bearer realm="streamware"',
        'Basic realm="streamware", charset="UTF-8"',
    ]
    assert json.loads(answer.body)["type"] == "urn:streamware:problem:unauthorized"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    wrong = guarded.ask(target, headers={"Authorization": f"Bearer {'x' * 32}"})
    assert wrong.status == 401
    assert guarded.ask(target, "HEAD").status == 401


def test_health_is_for_everybody(guarded: Served) -> None:
    assert guarded.ask("/healthz").body == b"ok"
    assert guarded.ask("/healthz/../tree/a.txt").status in (401, 404)


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {ALICE}"}, {"Authorization": "Basic "}])
def test_with_one_there_is_everything(guarded: Served, headers: dict[str, str]) -> None:
    if headers["Authorization"] == "Basic ":
        headers = {"Authorization": "Basic " + b64encode(f"me:{BOB}".encode()).decode()}
    assert guarded.ask("/tree/a.txt", headers=headers).body == b"alpha\n"
    told = put(guarded, b"mine", "mine.txt", **headers)
    assert guarded.ask(str(told["url"]), headers=headers).body == b"mine"
    pick = guarded.ask(f"/bundle?path=/files/{told['id']}&path=/files%3Fformat%3Djson&name=a.tar", headers=headers)
    assert pick.status == 200  # requests that a bundle makes of the app itself are its caller's


def test_what_the_server_keeps_is_not_below_root(guarded: Served) -> None:
    mine = {"Authorization": f"Bearer {ALICE}"}
    put(guarded, b"x" * 1000, **mine)
    told = json.loads(guarded.ask("/?format=json", headers=mine).body)
    assert [entry["name"] for entry in told["entries"]] == ["a.txt"]
    for path in ("/tree/tokens", "/tree/state.sqlite3.files/", "/tree/state.sqlite3", "/browse/state.sqlite3.files/"):
        assert guarded.ask(path, headers=mine).status == 404, path
    all_of_it = guarded.ask("/bundle?path=/tree/&name=all.zip", headers=mine)
    assert zipfile.ZipFile(io.BytesIO(all_of_it.body)).namelist() == ["a.txt"]


def test_deleting_is_off_unless_it_is_allowed(served: Served, guarded: Served) -> None:
    told = put(served, b"x", "gone.bin")
    assert served.ask(str(told["url"]), "DELETE").status == 204
    assert served.ask(str(told["url"])).status == 404
    mine = {"Authorization": f"Bearer {ALICE}"}
    told = put(guarded, b"x", **mine)
    assert guarded.ask(str(told["url"]), "DELETE", mine).status == 403
    body = f"path=/files/{told['id']}&sure=yes".encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert guarded.ask("/files/delete", "POST", {**kind, **mine}, body).status == 403
    assert guarded.ask(str(told["url"]), headers=mine).body == b"x"
    assert b"Delete" not in guarded.ask("/files", headers={**PEOPLE, **mine}).body


def test_an_upload_is_refused_before_it_is_sent(guarded: Served) -> None:
    connection = guarded.connect()
    connection.putrequest("POST", "/files")
    connection.putheader("Content-Length", str(MIB))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize("size", [100, 3 * MIB])
def test_who_sends_all_the_same_gets_the_answer(guarded: Served, size: int) -> None:
    for _ in range(5):  # a connection that is closed too early loses it only now and then
        with closing(guarded.connect()) as connection:
            connection.request("POST", "/files", body=b"x" * size)
            answer = connection.getresponse()
            assert answer.status == 401
            assert json.loads(answer.read())["status"] == 401
            assert answer.headers["Connection"] == "close"


def test_an_unfinished_upload_is_its_owners(guarded: Served) -> None:
    alice, bob = ({**TUS, "Authorization": f"Bearer {token}"} for token in (ALICE, BOB))
    begun = guarded.ask("/files", "POST", {**alice, "Upload-Length": "5"})
    assert begun.status == 201
    where = begun.headers["Location"]
    add = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    assert guarded.ask(where, "HEAD", bob).status in (403, 404)
    assert guarded.ask(where, "PATCH", {**bob, **add}, b"12345").status in (403, 404)
    assert guarded.ask(where, "DELETE", bob).status in (403, 404)
    assert guarded.ask(where, "PATCH", {**alice, **add}, b"12345").status == 204
    assert guarded.ask(where, headers=bob).body == b"12345"  # and what is whole is for everybody with a token


# --- pages of other sites ------------------------------------------------------------------------------------------

FOREIGN: list[Mapping[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},  # another port is another site
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    {"Origin": "https://evil.example", "X-Forwarded-Host": "files.example"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_page_of_another_site_changes_nothing(served: Served, headers: Mapping[str, str]) -> None:
    told = put(served, b"stays", "stays.txt")
    before = listed(served)
    kind, body = form(("evil.txt", b"evil"))

    def ask(target: str, method: str, more: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
        return served.ask(target, method, {**headers, **(more or {})}, body)

    answer = ask("/files", "POST", kind, body)
    assert answer.status == 403
    assert json.loads(answer.body)["type"] == "urn:streamware:problem:forbidden"
    assert ask(str(told["url"]), "DELETE").status == 403
    assert ask(str(told["url"]), "POST", {"X-HTTP-Method-Override": "DELETE"}).status == 403
    assert ask(str(told["url"]), "PATCH", {**TUS, "Upload-Offset": "0"}, b"x").status == 403
    sure = f"path=/files/{told['id']}&sure=yes".encode()
    assert ask("/files/delete", "POST", {"Content-Type": "application/x-www-form-urlencoded"}, sure).status == 403
    assert ask("/bundle/links", "POST", {"Content-Type": "application/json"}, b"{}").status == 403
    assert listed(served) == before
    assert ask(str(told["url"]), "GET").status == 200  # reading is what it was


def test_its_own_pages_and_programs_do(served: Served) -> None:
    own = f"http://{served.host}:{served.port}"
    for headers in (
        {},
        {"Origin": own},
        {"Origin": own, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://files.example", "X-Forwarded-Host": "Files.Example"},
        {"Origin": "https://files.example", "Host": "files.example"},
    ):
        put(served, b"x", "own.txt", **headers)


# --- for people ----------------------------------------------------------------------------------------------------


def test_a_form_leads_back_to_the_page(served: Served) -> None:
    kind, body = form(("one.txt", b"1"), ("two.txt", b"22"))
    answer = served.ask("/files", "POST", {**kind, **PEOPLE}, body)
    assert (answer.status, answer.body) == (303, b"")
    assert answer.headers["Location"] == "files?new=2"
    page = served.ask("/files?new=2", headers=PEOPLE)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Accept" in page.headers["Vary"]
    text = page.body.decode()
    assert "2 files stored." in text
    assert "one.txt" in text
    # with the plain accept of programs nothing of this
    told = served.ask("/files", "POST", kind, body)
    assert told.status == 201
    assert [file["size"] for file in json.loads(told.body)["files"]] == [1, 2]
    assert served.ask("/files").headers["Content-Type"] == "application/json"
    # a form without a file is a problem, as a page
    empty = served.ask("/files", "POST", {**kind, **PEOPLE}, b"--limit--\r\n")
    assert (empty.status, empty.headers["Content-Type"]) == (400, "text/html; charset=utf-8")
    # nor has it anything to do with tus, whatever its client says that it takes
    begun = served.ask("/files", "POST", {**TUS, **PEOPLE, "Upload-Length": "3"})
    assert (begun.status, begun.body) == (201, b"")
    assert "Location" in begun.headers


def test_what_an_answer_depends_on_is_said_once(served: Served) -> None:
    for way in ("/files", "/files?limit=0", "/files?after=nowhere", "/files/none"):
        for accept in ("*/*", "text/html"):
            answer = served.ask(way, headers={"Accept": accept})
            assert answer.headers.get_all("Vary") == ["Accept"], (way, accept, answer)


def test_deleting_by_the_page_asks_first(served: Served) -> None:
    told = [put(served, b"x", f"del{n}.txt") for n in range(3)]
    kind = {**PEOPLE, "Content-Type": "application/x-www-form-urlencoded"}
    body = "&".join(f"path=%2Ffiles%2F{file['id']}" for file in told).encode()
    asked = served.ask("/files/delete", "POST", kind, body)
    assert asked.status == 200
    assert "Delete 3 files?" in asked.body.decode()
    assert all(served.ask(str(file["url"])).status == 200 for file in told)
    done = served.ask("/files/delete", "POST", kind, body + b"&sure=yes")
    assert (done.status, done.headers["Location"]) == (303, "../files")
    assert all(served.ask(str(file["url"])).status == 404 for file in told)
    assert served.ask("/files/delete", "POST", kind, body).status == 404
    assert served.ask("/files/delete", "POST", kind, b"path=/tree/a.txt&sure=yes").status == 404
    assert served.ask("/files/delete", "POST", kind, b"&".join([b"path=x"] * 2000)).status == 400
    assert served.ask("/files/delete").headers["Location"] == "../files"
