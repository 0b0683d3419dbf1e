"""BundleMiddleware under real WSGI servers, and by the letter of PEP 3333."""

from __future__ import annotations

import io
import socket
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from streamware.middleware import BundleMiddleware
from tests.hosts.inner_site import FILES, lines, wsgi_site
from tests.hosts.middleware_cases import MiddlewareCases, archiver, bundle, listed, local, unzipped
from tests.hosts.servers import Server, gunicorn, wsgiref_server

application = BundleMiddleware(wsgi_site, archiver=archiver(), local=local)


@pytest.fixture(scope="module", params=["wsgiref", "gunicorn"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with wsgiref_server(application) if request.param == "wsgiref" else gunicorn(f"{__name__}:application") as server:
        yield server


class TestUnderServers(MiddlewareCases):
    """All of them, on each server."""


def test_a_chunked_manifest() -> None:
    with gunicorn(f"{__name__}:application") as server:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Transfer-Encoding": "chunked"}
        response = server.request("POST", "/bundle", headers, iter([b"path=/a", b".txt"]))
        assert unzipped(response) == {"a.txt": FILES["/a.txt"]}
        assert server.request("POST", "/bundle", headers, iter([b"path=/", b"a" * 200_000])).status == 413


def test_a_length_is_demanded_where_chunks_have_no_end() -> None:
    with wsgiref_server(application) as server:
        headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        assert server.request("POST", "/bundle", headers, iter([b"{}"])).status == 411


def test_a_manifest_cut_short_is_no_manifest() -> None:
    with wsgiref_server(application) as server, socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(
            b"POST /bundle HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 99\r\n\r\npath=/a.txt"
        )
        client.shutdown(socket.SHUT_WR)
        assert b" 400 " in client.makefile("rb").readline()


# --- by the letter -----------------------------------------------------------------------------------------------


class Called:
    """One call of a WSGI app, read to the end and closed."""

    def __init__(self, app: Any, path: str = "/", query: str = "", method: str = "GET", **environ: Any) -> None:
        self.environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "REQUEST_METHOD": method}
        self.environ["QUERY_STRING"] = query
        setup_testing_defaults(self.environ)
        self.environ.update(environ)
        self.heads: list[tuple[str, dict[str, str], bool]] = []
        self.written: list[bytes] = []
        self.result: Any = app(self.environ, self.start_response)
        try:
            self.body = b"".join([*self.written, *self.result])
        finally:
            close = getattr(self.result, "close", None)
            if close:
                close()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        self.heads.append((status, {k.lower(): v for k, v in headers}, exc_info is not None))
        return self.written.append

    @property
    def status(self) -> str:
        return self.heads[-1][0]


def wrapped(app: Any) -> BundleMiddleware:
    return BundleMiddleware(app, archiver=archiver())


def test_it_keeps_to_pep_3333_on_both_sides() -> None:
    def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        assert environ["PATH_INFO"] in ("/a", "/b", "/list")
        data = b"- 1 /a one\n- 1 /b two" if environ["PATH_INFO"] == "/list" else b"x"
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))]
        if environ["PATH_INFO"] == "/list":
            headers.append(("X-Archive-Files", "zip"))
        start_response("200 OK", headers)
        return [data]

    app = validator(wrapped(validator(site)))
    for path, query in (("/bundle", "path=/a&path=/b"), ("/list", ""), ("/a", ""), ("/bundle", "")):
        called = Called(app, path, query)
        assert called.body
    assert Called(app, "/bundle", "path=/a", "HEAD").body == b""


def test_an_ordinary_iterable_is_the_apps_own() -> None:
    class Mine(list[bytes]):
        closed = False

        def close(self) -> None:
            self.closed = True

    made = Mine([b"x"])

    def site(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return made

    assert Called(wrapped(site)).result is made
    assert made.closed


def test_a_file_wrapper_reaches_the_server() -> None:
    def site(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        wrapper: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"file"))
        return wrapper

    called = Called(wrapped(site), **{"wsgi.file_wrapper": FileWrapper})
    assert isinstance(called.result, FileWrapper)
    assert called.body == b"file"


def test_write_passes() -> None:
    def site(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"one ")
        return [b"two"]

    called = Called(wrapped(site))
    assert called.written == [b"one "]
    assert called.body == b"one two"


def test_a_late_start_passes() -> None:
    closed = []

    def site(environ: Any, start_response: Any) -> Iterable[bytes]:
        try:
            start_response("200 OK", [("X", "1")])
            yield b"one "
            yield b"two"
        finally:
            closed.append(True)

    called = Called(wrapped(site))
    assert (called.body, called.heads, closed) == (b"one two", [("200 OK", {"x": "1"}, False)], [True])


def test_errors_pass() -> None:
    def fails(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise KeyError("early")

    def fails_late(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"x"
        raise KeyError("late")

    def recovers(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("X-Archive-Files", "zip")])
        try:
            raise KeyError("caught")
        except KeyError:
            start_response("500 Oh", [], sys.exc_info())
        return [b"sorry"]

    with pytest.raises(KeyError, match="early"):
        Called(wrapped(fails))
    with pytest.raises(KeyError, match="late"):
        Called(wrapped(fails_late))
    called = Called(wrapped(recovers))
    assert (called.body, called.heads) == (b"sorry", [("500 Oh", {}, True)])


def _list_eagerly(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("x-archive-FILES", "zip")])
    return [lines(("/a.txt", "a"))]


def _list_late(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("X-Archive-Files", "zip")])
    body = lines(("/a.txt", "a"))
    yield body[:7]
    yield b""
    yield body[7:]


def _list_written(environ: Any, start_response: Any) -> Iterable[bytes]:
    write = start_response("200 OK", [("X-Archive-Files", "zip")])
    body = lines(("/a.txt", "a"))
    write(body[:7])
    return [body[7:]]


def _list_written_late(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("X-Archive-Files", "zip")])(lines(("/a.txt", "a")))
    return
    yield b""


@pytest.mark.parametrize("page", [_list_eagerly, _list_late, _list_written, _list_written_late])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_however_a_list_is_answered(page: Any, method: str) -> None:
    def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return (page if environ["PATH_INFO"] == "/list" else wsgi_site)(environ, start_response)

    called = Called(wrapped(site), "/list", method=method)
    assert len(called.heads) == 1
    assert called.heads[0][1]["content-type"] == "application/zip"
    if method == "GET":
        with zipfile.ZipFile(io.BytesIO(called.body)) as archive:
            assert archive.read("a") == FILES["/a.txt"]
    else:
        assert called.body == b""


def test_what_an_app_does_to_its_environ_is_its_own_affair() -> None:
    seen = []

    def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/m":
            seen.append((environ["HTTP_COOKIE"], environ["SCRIPT_NAME"]))
            start_response("200 OK", [("Content-Length", "1")])
            return [b"x"]
        environ["HTTP_COOKIE"] = environ["SCRIPT_NAME"] = environ["REQUEST_METHOD"] = environ["PATH_INFO"] = "changed"
        start_response("200 OK", [("X-Archive-Files", "zip"), ("X-Archive-Pass-Headers", "Cookie")])
        return [b"- 1 /m m"]

    called = Called(wrapped(site), "/list", HTTP_COOKIE="own", SCRIPT_NAME="/app")
    assert called.status == "200 OK"
    assert seen == [("own", "/app")]


def test_a_list_that_fails_is_closed_and_raises() -> None:
    closed = []

    class Fails:
        def __iter__(self) -> Iterator[bytes]:
            yield b"- 1"
            raise KeyError("half a list")

        def close(self) -> None:
            closed.append(True)

    def site(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("X-Archive-Files", "zip")])
        return Fails()

    with pytest.raises(KeyError):
        Called(wrapped(site))
    assert closed == [True]


# --- members of all kinds ----------------------------------------------------------------------------------------


def _writes(environ: Any, start_response: Any) -> Iterable[bytes]:
    write = start_response("200 OK", [])
    write(b"1")
    write(b"2")
    yield b"3"
    write(b"4")
    yield b"5"


def _restarts(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "3")])
    try:
        raise KeyError
    except KeyError:
        start_response("200 OK", [("Content-Length", "5")], sys.exc_info())
    yield b""
    yield b"12345"


def _wraps_file(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    wrapper: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"12345"), 2)
    return wrapper


def _reads_input(environ: Any, start_response: Any) -> Iterable[bytes]:
    body = environ["wsgi.input"].read() + b"12345"
    assert "CONTENT_LENGTH" not in environ
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return (body,)


@pytest.mark.parametrize("page", [_writes, _restarts, _wraps_file, _reads_input])
def test_a_member_may_be_answered_in_any_way(page: Any) -> None:
    called = Called(wrapped(page), "/bundle", "path=/m")
    with zipfile.ZipFile(io.BytesIO(called.body)) as archive:
        assert archive.read("m") == b"12345"


def _never_starts(environ: Any, start_response: Any) -> Iterable[bytes]:
    return [b"x"]


def _gives_text(environ: Any, start_response: Any) -> Iterable[Any]:
    start_response("200 OK", [])
    return ["x"]


def _starts_twice(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b"x"]


def _has_no_status(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("fine", [])
    return [b"x"]


def _writes_for_ever(environ: Any, start_response: Any) -> Iterable[bytes]:
    write = start_response("200 OK", [])
    while True:
        write(bytes(1 << 20))


def _raises_os_error(environ: Any, start_response: Any) -> Iterable[bytes]:
    raise ConnectionResetError("a socket of its own")


@pytest.mark.parametrize(
    "page", [_never_starts, _gives_text, _starts_twice, _has_no_status, _writes_for_ever, _raises_os_error]
)
def test_a_member_that_breaks_the_rules_is_a_failed_member(page: Any) -> None:
    assert Called(wrapped(page), "/bundle", "path=/m").status.startswith("500")


def test_an_app_for_one_thread_is_entered_by_one() -> None:
    import threading

    threads = set()

    def site(environ: Any, start_response: Any) -> Iterable[bytes]:
        threads.add(threading.get_ident())
        start_response("200 OK", [("Content-Length", "1")])
        return [b"x"]

    query = "&".join(f"path=/{n}" for n in range(20))
    assert Called(wrapped(site), "/bundle", query, **{"wsgi.multithread": False}).status == "200 OK"
    assert threads == {threading.get_ident()}


def test_a_mounted_app_stays_mounted() -> None:
    seen = []

    def site(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(
            tuple(environ.get(k) for k in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "RAW_URI", "REQUEST_URI"))
        )
        start_response("200 OK", [("Content-Length", "1")])
        return [b"x"]

    path = "/caf\u00e9 x?q=1"
    called = Called(
        wrapped(site), "/bundle", bundle(path).partition("?")[2], SCRIPT_NAME="/app", RAW_URI="/app/bundle?x"
    )
    assert called.status == "200 OK"
    assert set(seen) == {("/app", "/caf\u00c3\u00a9 x", "q=1", "/app/caf%C3%A9%20x?q=1", None)}


def test_nested_middlewares_do_not_answer_for_members() -> None:
    inner = BundleMiddleware(wsgi_site, "/inner", archiver())
    with wsgiref_server(BundleMiddleware(inner, "/outer", archiver())) as server:
        found = unzipped(server.get("/outer?path=" + listed().replace("?", "%3F") + "&path=/a.txt"))
        assert found["list"].startswith(b"dde") or b"/a.txt" in found["list"]
        assert server.get("/outer?path=/inner%3Fpath=/a.txt").status == 404
        assert unzipped(server.get("/inner?path=/a.txt")) == {"a.txt": FILES["/a.txt"]}
