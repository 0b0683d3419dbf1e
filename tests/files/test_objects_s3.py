"""Objects on a real S3 endpoint: what is kept, what is left, and what is said when it is down, slow or refuses."""

from __future__ import annotations

import io
import random
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streamware import Archiver, Bundle, Conditions, Policy
from streamware.errors import BodyClosed, MemberNotFound, SizeMismatch
from streamware.filestore import FileStore
from streamware.objects import Objects
from streamware.upload_errors import StoreFailed, StoreUnavailable
from tests.files.s3 import S3, s3

pytest.importorskip("obstore")
pytest.importorskip("moto")

MIB = 1024 * 1024
CONTENT = random.Random(8).randbytes(20 * MIB)
HURRIED = {"connect_timeout": "200ms", "read_timeout": "200ms", "timeout": "5s"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


def put(objects: Objects, key: str, data: bytes = b"content") -> None:
    writer = objects.writer(key)
    for start in range(0, len(data), MIB):
        writer.write(memoryview(data)[start : start + MIB])
    writer.close()


def window(objects: Objects, key: str, start: int, length: int) -> bytes:
    chunks = objects.chunks(key, start, length, 100_000)
    try:
        return b"".join(chunks)
    finally:
        chunks.close()


def test_what_is_written_is_read(server: S3) -> None:
    url = server.bucket()
    objects = Objects(url, server.options)
    assert (objects.name, objects.folder) == (url, None)
    put(objects, "0a/0a1b/0", CONTENT)
    put(objects, "0a/0a1b/1", CONTENT[:5])
    put(objects, "0a/0a1b/2", b"")
    put(objects, "ff/ffee/0")
    assert objects.keys_of("0a1b") == ["0a/0a1b/0", "0a/0a1b/1", "0a/0a1b/2"]
    assert objects.keys_of("nobody") == []
    for start, stop in (
        (0, len(CONTENT)),
        (1, 2),
        (8 * MIB - 1, 8 * MIB + 1),
        (len(CONTENT) - 1, len(CONTENT)),
        (5, 5),
    ):
        assert window(objects, "0a/0a1b/0", start, stop - start) == CONTENT[start:stop]
    chunks = objects.chunks("0a/0a1b/0", 0, len(CONTENT), 100_000)
    assert not chunks.ready()
    assert 100_000 <= max(map(len, chunks)) <= 2 * MIB
    assert chunks.ready()
    chunks.close()
    with pytest.raises(BodyClosed):
        next(chunks)
    assert sorted(objects.old_keys(0)) == ["0a/0a1b/0", "0a/0a1b/1", "0a/0a1b/2", "ff/ffee/0"]
    assert list(objects.old_keys(600)) == []
    assert objects.reading("0a/0a1b/0") is None
    assert objects.unread("0a/0a1b/0")
    assert objects.clean(0) == 0
    objects.delete(["0a/0a1b/0", "0a/0a1b/1", "0a/0a1b/nothing", "ff/ffee/0"])
    objects.delete([])
    assert server.keys(url) == ["0a/0a1b/2"]


@pytest.mark.parametrize("size", [0, 5, 9 * MIB, 20 * MIB])
def test_nothing_stays_of_what_is_discarded(server: S3, size: int) -> None:
    url = server.bucket()
    writer = Objects(url, server.options).writer("0a/0a1b/0")
    writer.write(CONTENT[:size])
    writer.discard()
    writer.discard()
    assert server.keys(url) == []
    assert server.unfinished(url) == []
    with pytest.raises(StoreFailed):
        writer.close()


def test_more_than_one_request_can_delete_or_list(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamware.objects._AT_ONCE", 4)
    url = server.bucket()
    objects = Objects(url, server.options)
    bucket = url.split("/")[2]
    keys = [f"0a/0a1b/{number:04}" for number in range(11)]
    for key in keys:
        server.ask("PUT", f"/{bucket}/kept/{key}")
    assert objects.keys_of("0a1b") == keys
    objects.delete(keys)
    assert server.keys(url) == []


def test_what_is_not_there_or_shorter(server: S3) -> None:
    objects = Objects(server.bucket(), server.options)
    put(objects, "0a/0a1b/0", CONTENT[:100])
    with pytest.raises(MemberNotFound):
        objects.chunks("0a/0a1b/1", 0, 1, 1000)
    with pytest.raises(SizeMismatch):
        objects.chunks("0a/0a1b/0", 50, 51, 1000)
    with pytest.raises((SizeMismatch, StoreFailed)):
        objects.chunks("0a/0a1b/0", 100, 1, 1000)


def test_a_bucket_that_is_not_there(server: S3) -> None:
    objects = Objects("s3://nobodys/kept", server.options)
    for call in (
        lambda: put(objects, "0a/0a1b/0"),
        lambda: put(objects, "0a/0a1b/0", CONTENT),
        lambda: objects.chunks("0a/0a1b/0", 0, 1, 1000),
        lambda: objects.keys_of("0a1b"),
        lambda: list(objects.old_keys(0)),
        lambda: objects.delete(["0a/0a1b/0"]),
    ):
        with pytest.raises(StoreFailed):
            call()


def test_settings_from_the_environment(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.bucket()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    put(Objects(url), "0a/0a1b/0")
    assert server.keys(url) == ["0a/0a1b/0"]


def test_an_endpoint_that_is_down_or_hangs(tmp_path: Path) -> None:
    """And comes back: nothing has to be made anew. One that was restarted holds nothing any more."""
    with s3(tmp_path / "log") as server:
        url = server.bucket()
        objects = Objects(url, server.options | HURRIED)
        put(objects, "0a/0a1b/0", CONTENT[: 3 * MIB])
        running = objects.writer("0a/0a1b/1")
        running.write(CONTENT[: 9 * MIB])
        reading = objects.chunks("0a/0a1b/0", 0, 3 * MIB, 100_000)
        next(reading)
        server.freeze()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            put(objects, "0a/0a1b/2")
        with pytest.raises(StoreUnavailable):
            objects.chunks("0a/0a1b/0", 0, 1, 1000)
        assert time.monotonic() - began < 20
        server.thaw()
        reading.close()
        put(objects, "0a/0a1b/2")
        assert objects.keys_of("0a1b") == ["0a/0a1b/0", "0a/0a1b/2"]
        server.stop()
        for call in (running.close, lambda: objects.delete(["0a/0a1b/0"])):
            with pytest.raises(StoreUnavailable):
                call()
        running.discard()


def test_a_whole_store_there(server: S3, tmp_path: Path) -> None:
    policy = Policy(upload_part_bytes=9 * MIB)
    store = FileStore(server.bucket(), f"sqlite:///{tmp_path}/rows.sqlite3", policy=policy, options=server.options)
    archiver = Archiver(files=store)
    try:
        pieces = [CONTENT[start : start + MIB] for start in range(0, len(CONTENT), MIB)]
        files = [store.add("large.bin", pieces), store.add("small.txt", [b"some text"]), store.add("nothing", [])]
        assert len(store.parts(files[0].id)) == 3
        bundle = Bundle("b.zip")
        for file in files:
            bundle.add_stored(file.id)
        reply = archiver.respond(bundle)
        data = b"".join(reply.body)
        reply.body.close()
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            assert opened.testzip() is None
            assert not any(info.flag_bits & 8 for info in opened.infolist())
            assert opened.read("large.bin") == CONTENT
        for start in (1, 9 * MIB + 100, len(data) - 400):
            part = archiver.respond(bundle, Conditions(range=f"bytes={start}-"))
            assert part.status == 206
            assert b"".join(part.body) == data[start:]
            part.body.close()
    finally:
        archiver.close()
        store.close()


# --- what moto never does ----------------------------------------------------------------------------------------


class Scripted(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        server = self.server
        assert isinstance(server, Endpoint)
        self.rfile.read(int(self.headers.get("content-length") or 0))
        server.asked.append((self.command, self.headers.get("range")))
        if server.status is not None:
            self._send(server.status, [], b"<Error><Code>Scripted</Code></Error>")
            return
        first, last = (int(n) for n in (self.headers["range"] or "").removeprefix("bytes=").split("-"))
        data = CONTENT[first : last + 1]
        headers = [("Content-Range", f"bytes {first}-{last}/{len(CONTENT)}"), ("ETag", '"v"')]
        headers.append(("Last-Modified", "Sat, 21 Nov 2020 15:00:00 GMT"))
        self._send(206, headers, data, stop=server.stop_after)

    do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def _send(self, status: int, headers: list[tuple[str, str]], data: bytes, stop: int | None = None) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(data)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:stop])
        if stop is not None and stop < len(data):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Not to be printed."""


class Endpoint(ThreadingHTTPServer):
    """Answers everything with a status, or with ranges of CONTENT that break off after some bytes."""

    daemon_threads = True
    status: int | None = None
    stop_after: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Scripted)
        self.asked: list[tuple[str, str | None]] = []

    def objects(self) -> Objects:
        options = {"aws_endpoint": f"http://127.0.0.1:{self.server_port}", "allow_http": "true", "aws_region": "x"}
        keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "secret"}
        return Objects("s3://bucket/kept", options | keys)

    def handle_error(self, *_: object) -> None:
        """A client that left is none."""


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, StoreFailed), (401, StoreFailed), (400, StoreFailed), (503, StoreUnavailable)],
)
def test_what_an_endpoint_refuses(status: int, kind: type[Exception]) -> None:
    with endpoint() as server:
        server.status = status
        objects = server.objects()
        writer = objects.writer("0a/0a1b/0")
        writer.write(b"content")
        with pytest.raises(kind):
            writer.close()
        with pytest.raises(kind) as caught:
            objects.chunks("0a/0a1b/0", 0, 1, 1000)
        assert "secret" not in f"{caught.value}"
        assert len(server.asked) <= 8  # tried again, but not for ever


def test_an_answer_that_breaks_off_is_asked_for_again_from_there() -> None:
    with endpoint() as server:
        server.stop_after = 1_500_000
        assert window(server.objects(), "0a/0a1b/0", 1000, 8 * MIB) == CONTENT[1000 : 1000 + 8 * MIB]
        starts = [int((ranged or "").removeprefix("bytes=").partition("-")[0]) for _, ranged in server.asked]
        assert starts == sorted(starts)
        assert len(starts) >= 6


def test_one_that_never_gets_further_is_given_up() -> None:
    with endpoint() as server:
        server.stop_after = 0
        with pytest.raises((StoreUnavailable, StoreFailed)):
            window(server.objects(), "0a/0a1b/0", 0, MIB)


def test_a_reader_stops_when_it_is_told() -> None:
    with endpoint() as server:
        chunks = server.objects().chunks("0a/0a1b/0", 0, len(CONTENT), 100_000)
        next(chunks)
        threading.Timer(0.05, chunks.abort).start()
        with pytest.raises(BodyClosed):
            any(time.sleep(0.001) for _ in chunks)
        chunks.close()
