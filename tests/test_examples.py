"""Every example runs as its first lines say: under a real server, against real upstreams, read by real readers.

Downloads are fetched with http.client and, once a host, with curl as the examples' users would.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from tusclient.client import TusClient

from tests.files.s3 import s3
from tests.hosts.falcon_servers import ROOT, Answer, File, Host, Node, hosting

EXAMPLES = ROOT / "examples"
HOSTS = {
    "cluster_logs": "wsgi",
    "django_tar": "wsgi",
    "fastapi_middleware": "asgi",
    "flask_middleware": "wsgi",
    "flask_streams": "wsgi",
    "forward_file": "asgi",
    "local_files_asgi": "asgi",
    "local_files_wsgi": "wsgi",
    "s3_files": "asgi",
    "upload_and_bundle": "wsgi",
    "upload_app_asgi": "asgi",
}
PROGRAMS = ("upload_client",)  # those that are run by themselves
LOG_A, LOG_B = (b"".join(b"%s %d\n" % (node, line) for line in range(20_000)) for node in (b"a", b"b"))
BLOB = bytes(range(256)) * 4096

Run = Callable[..., AbstractContextManager[Host]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(name: str, **env: str) -> AbstractContextManager[Host]:
        return hosting(HOSTS[name], f"{name}:app", log=tmp_path / "log", cwd=EXAMPLES, env=env)

    return run


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    log = {"Content-Type": "text/plain"}
    with (
        Node({"/logs/app.log": File(LOG_A, log), "/a.bin": File(BLOB, {"Content-Type": "image/x-blob"})}) as a,
        Node({"/logs/app.log": File(LOG_B, log), "/b.bin": File(BLOB[7:])}) as b,
    ):
        yield a, b


def unzip(answer: Answer, *, measured: bool = True) -> dict[str, bytes]:
    """The members of a ZIP by name; checks its CRCs and its Content-Length."""
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/zip"
    assert ("content-length" in answer.headers) == measured
    assert int(answer.headers.get("content-length", len(answer.body))) == len(answer.body)
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def filename(answer: Answer) -> str:
    return answer.headers["content-disposition"].split('filename="')[1].split('"')[0]


def test_cluster_logs(run: Run, nodes: tuple[Node, Node]) -> None:
    a, b = (node.url.removeprefix("http://").replace(":", "_") for node in nodes)
    with run("cluster_logs", NODES=",".join(node.url for node in nodes)) as host:
        answer = host.ask("/logs/app.log")
        assert filename(answer) == "app.log.zip"
        members = unzip(answer)
        assert list(members) == [f"{a}/app.log", f"{b}/app.log", "running_status.json"]
        assert (members[f"{a}/app.log"], members[f"{b}/app.log"]) == (LOG_A, LOG_B)
        assert json.loads(members["running_status.json"])["nodes"] == [node.url for node in nodes]
        for refused in ("/logs/..", "/logs/%2e%2e", "/logs/app.log%3fx", "/logs/passwd"):
            assert host.ask(refused).status == 404
        nodes[1].close()
        members = unzip(host.ask("/logs/app.log"))
        assert list(members) == [f"{a}/app.log", "running_status.json", "_errors.txt"]
        assert f"{b}/app.log" in members["_errors.txt"].decode()
    with (
        Node({f"/{b}/logs/app.log": File(LOG_B)}) as mirror,
        run("cluster_logs", NODES=",".join(node.url for node in nodes), MIRROR=mirror.url) as host,
    ):
        members = unzip(host.ask("/logs/app.log"))
        assert (members[f"{a}/app.log"], members[f"{b}/app.log"]) == (LOG_A, LOG_B)


def test_forward_file(run: Run, nodes: tuple[Node, Node]) -> None:
    a = nodes[0]
    with run("forward_file", STORE=a.url, STORE_TOKEN="of the store") as host:
        answer = host.ask("/exports/a.bin")
        assert (answer.status, answer.body) == (200, BLOB)
        assert answer.headers["content-type"] == "image/x-blob"
        assert int(answer.headers["content-length"]) == len(BLOB)
        assert a.asked("/a.bin")[0].headers["authorization"] == "Bearer of the store"
        part = host.ask("/exports/a.bin", Range="bytes=1000-1999", If_Range=answer.headers["etag"])
        assert (part.status, part.body) == (206, BLOB[1000:2000])
        assert host.ask("/exports/a.bin", If_None_Match=answer.headers["etag"]).status == 304
        assert host.ask("/exports/a.bin", "HEAD").headers["content-length"] == str(len(BLOB))
        assert host.ask("/exports/%2e%2e").status == 404


@pytest.mark.parametrize("name", ["local_files_wsgi", "local_files_asgi"])
def test_local_files(run: Run, tmp_path: Path, name: str) -> None:
    contents = {"blob.bin": BLOB, "smörgås.txt": b"ham\n", "empty": b""}
    for file, data in contents.items():
        (tmp_path / file).write_bytes(data)
    with run(name, FILES=os.pathsep.join(str(tmp_path / file) for file in contents)) as host:
        answer = host.ask("/files.zip")
        assert filename(answer) == "files.zip"
        assert unzip(answer) == contents
        head = host.ask("/files.zip", "HEAD")
        assert (head.headers["content-length"], head.body) == (str(len(answer.body)), b"")
        (tmp_path / "empty").unlink()
        assert host.ask("/files.zip").status == 404


def test_django_tar(run: Run, nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    with run("django_tar", SOURCES=f"{a.url}/a.bin,{b.url}/b.bin") as host:
        answer = host.ask("/backup.tar")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/x-tar")
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert filename(answer) == "backup.tar"
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
            files = {member.name: archive.extractfile(member) for member in archive}
            assert {name: file.read() for name, file in files.items() if file} == {"a.bin": BLOB, "b.bin": BLOB[7:]}
        head = host.ask("/backup.tar", "HEAD")
        assert (head.headers["content-length"], head.body) == (str(len(answer.body)), b"")
        part = host.ask("/backup.tar", Range="bytes=100000-199999", If_Range=answer.headers["etag"])
        assert (part.status, part.body) == (206, answer.body[100_000:200_000])
        assert host.ask("/backup.tar", If_None_Match=answer.headers["etag"]).status == 304
        nodes[1].files.clear()
        failed = host.ask("/backup.tar")
        assert failed.headers["content-type"] == "application/problem+json"
        assert json.loads(failed.body)["members"][0]["name"] == "b.bin"


def test_flask_streams(run: Run) -> None:
    with run("flask_streams") as host:
        answer = host.ask("/report.zip")
        members = unzip(answer, measured=False)
        assert list(members) == ["tables/squares.csv", "zeros.bin", "attachments/"]
        assert members["tables/squares.csv"].endswith(b"\n99999,9999800001\n")
        assert members["zeros.bin"] == bytes(1 << 20)
        assert members["attachments/"] == b""
        assert host.ask("/report.zip", "HEAD").body == b""


def test_flask_middleware(run: Run) -> None:
    path = "/bundle?path=/hello.txt&path=/private/diary.txt&name=mine.zip"
    with run("flask_middleware") as host:
        answer = host.ask(path, Cookie="session=secret")
        assert filename(answer) == "mine.zip"
        assert unzip(answer) == {"hello.txt": b"Hello, everybody.\n", "private/diary.txt": b"Dear diary.\n"}
        refused = host.ask(path)
        assert refused.status == 403
        assert json.loads(refused.body)["members"][0]["name"] == "private/diary.txt"
        assert host.ask("/hello.txt").body == b"Hello, everybody.\n"


def test_fastapi_middleware(run: Run) -> None:
    with run("fastapi_middleware") as host:
        answer = host.ask("/bundle?path=/notes/1.txt&path=/notes/2.txt&path=/numbers.csv&name=notes.zip")
        assert filename(answer) == "notes.zip"
        numbers = "".join(f"{number}\n" for number in range(5_000)).encode()
        expected = {"notes/1.txt": b"Buy milk.\n", "notes/2.txt": b"Call home.\n", "numbers.csv": numbers}
        assert unzip(answer, measured=False) == expected
        known = host.ask("/bundle?path=/notes/1.txt&path=/notes/2.txt&name=notes.zip")
        assert unzip(known) == {"notes/1.txt": b"Buy milk.\n", "notes/2.txt": b"Call home.\n"}
        assert host.ask("/bundle?path=/notes/1.txt&path=/notes/9.txt").status == 404
        assert host.ask("/notes/2.txt").body == b"Call home.\n"


@pytest.mark.judge("curl")
@pytest.mark.parametrize("name", ["local_files_wsgi", "local_files_asgi"])
def test_curl_saves_the_download_under_its_name(
    run: Run, tmp_path: Path, judge: Callable[[str], str], name: str
) -> None:
    (tmp_path / "blob.bin").write_bytes(BLOB)
    with run(name, FILES=str(tmp_path / "blob.bin")) as host:
        command = [judge("curl"), "-fsSOJ", "--max-time", "20", f"http://127.0.0.1:{host.port}/files.zip"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=30)
    with zipfile.ZipFile(tmp_path / "files.zip") as archive:
        assert archive.read("blob.bin") == BLOB


# --- stored files --------------------------------------------------------------------------------------------------


def client(*words: str, stdin: bytes | None = None, **env: str) -> tuple[int, dict[str, object]]:
    """What ``upload_client.py`` returns and prints."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / "upload_client.py"), *words]
    done = subprocess.run(command, input=stdin, capture_output=True, env={**os.environ, **env}, timeout=60)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def stored(host: Host, name: str, body: bytes, **headers: str) -> dict[str, str]:
    answer = host.ask("/files", "POST", body, Content_Disposition=f'attachment; filename="{name}"', **headers)
    assert answer.status == 201, answer
    told: dict[str, str] = json.loads(answer.body)
    assert told["url"] == answer.headers["location"] == f"/files/{told['id']}"
    assert (told["sha256"], int(told["crc32"], 16)) == (hashlib.sha256(body).hexdigest(), zlib.crc32(body))
    return told


def test_upload_and_bundle(run: Run, tmp_path: Path) -> None:
    with run("upload_and_bundle", KEEP=str(tmp_path / "kept")) as host:
        one, other = stored(host, "blob.bin", BLOB), stored(host, "b.log", LOG_B)
        got = host.ask(one["url"])
        assert (got.body, filename(got)) == (BLOB, "blob.bin")
        part = host.ask(one["url"], Range="bytes=1000-1999", If_Range=got.headers["etag"])
        assert (part.status, part.body) == (206, BLOB[1000:2000])
        path = f"/bundle?id={one['id']}&id={other['id']}"
        answer = host.ask(path)
        assert filename(answer) == "picked.zip"
        assert unzip(answer) == {"blob.bin": BLOB, "b.log": LOG_B}
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert not any(info.flag_bits & 8 for info in archive.infolist()), "there is a data descriptor"
    # A new process, which has seen none of these bytes, goes on with the archive.
    with run("upload_and_bundle", KEEP=str(tmp_path / "kept")) as host:
        for start in (1, len(BLOB), len(answer.body) - 40):
            rest = host.ask(path, Range=f"bytes={start}-", If_Range=answer.headers["etag"])
            assert (rest.status, rest.body) == (206, answer.body[start:])
        assert host.ask(f"/bundle?id={uuid4()}").status == 404
        listed = json.loads(host.ask("/files").body)
        assert {file["name"] for file in listed["files"]} == {"b.log", "blob.bin"}


def test_upload_app(run: Run, tmp_path: Path) -> None:
    tokens = {name: f"the-token-of-{name}" for name in ("ann", "bob")}
    listed = ",".join(f"{name}:{token}" for name, token in tokens.items())
    ann, bob = ({"Authorization": f"Bearer {token}"} for token in tokens.values())
    with run("upload_app_asgi", KEEP=str(tmp_path / "kept"), TOKENS=listed) as host:
        assert host.ask("/files", "POST", b"x").status == 401
        assert host.ask("/files", "POST", b"x", Authorization="Bearer nobody").status == 403
        mine = stored(host, "blob.bin", BLOB, **ann)
        assert host.ask(mine["url"], **ann).body == BLOB
        assert host.ask(mine["url"], **bob).status == 403
        assert host.ask(mine["url"]).status == 401
        assert host.ask("/files", **ann).status == 403
        url = f"http://127.0.0.1:{host.port}/uploads"
        uploader = TusClient(url, headers=bob).uploader(
            file_stream=io.BytesIO(LOG_A), chunk_size=100_000, metadata={"filename": "a.log"}
        )
        uploader.upload()
        ended = urlsplit(uploader.url).path
        got = host.ask(ended.replace("/uploads/", "/files/"), **bob)
        assert (got.body, filename(got)) == (LOG_A, "a.log")


def test_s3_files(run: Run, tmp_path: Path) -> None:
    with s3(tmp_path / "s3.log") as endpoint:
        store, database = endpoint.bucket(), f"sqlite:///{tmp_path}/files.sqlite3"
        with run("s3_files", STORE=store, DATABASE=database, **endpoint.environment) as host:
            told = stored(host, "blob.bin", BLOB)
            assert host.ask(told["url"], Range="bytes=5-9").body == BLOB[5:10]
            parts = [key for key in endpoint.keys(store) if not key.startswith(".streamware-store/")]
            assert len(parts) == 1


def test_upload_client(run: Run, tmp_path: Path) -> None:
    (tmp_path / "smörgås.log").write_bytes(LOG_A)
    (tmp_path / "large").write_bytes(bytes(32 << 20))
    token = "a-token-of-ann"
    with run("upload_app_asgi", KEEP=str(tmp_path / "kept"), TOKENS=f"ann:{token}") as host:
        url = f"http://127.0.0.1:{host.port}/files"
        code, told = client(str(tmp_path / "smörgås.log"), url, TOKEN=token)
        assert (code, told["name"], told["size"]) == (0, "smörgås.log", len(LOG_A))
        code, told = client("-", url, "piped.log", stdin=LOG_B, TOKEN=token)
        assert (code, told["name"], told["size"]) == (0, "piped.log", len(LOG_B))
        assert host.ask(str(told["url"]), Authorization=f"Bearer {token}").body == LOG_B
        # Refused before its body is read, which is larger than what fits between the two.
        code, told = client(str(tmp_path / "large"), url, TOKEN="of-nobody")
        assert (code, told["status"]) == (1, 403)


def test_every_example_is_short_tested_and_says_how_to_run() -> None:
    found = sorted(EXAMPLES.glob("*.py"))
    assert [path.stem for path in found] == sorted([*HOSTS, *PROGRAMS])
    tests = "\n".join(name for name in globals() if name.startswith("test_"))
    for path in found:
        text = path.read_text()
        assert len(text.splitlines()) < 60, path
        assert (f"{path.stem}:app" if path.stem in HOSTS else f"python {path.name}") in text.split('"""')[1], path
        assert path.stem.removesuffix("_wsgi").removesuffix("_asgi") in tests, path
        assert path.name in (ROOT / "docs" / "index.md").read_text()
