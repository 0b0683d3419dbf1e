"""AsyncBundleMiddleware under uvicorn, and message by message."""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from streamware.middleware import AsyncBundleMiddleware
from tests.hosts.inner_site import FILES, asgi_site, lines
from tests.hosts.middleware_cases import MiddlewareCases, archiver, bundle, listed, local, unzipped
from tests.hosts.servers import Server, uvicorn

application = AsyncBundleMiddleware(asgi_site, archiver=archiver(), local=local)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with uvicorn(f"{__name__}:application") as server:
        yield server


class TestUnderUvicorn(MiddlewareCases):
    """All of them."""


def test_a_chunked_manifest(server: Server) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Transfer-Encoding": "chunked"}
    response = server.request("POST", "/bundle", headers, iter([b"path=/a", b".txt"]))
    assert unzipped(response) == {"a.txt": FILES["/a.txt"]}
    assert server.request("POST", "/bundle", headers, iter([b"path=/", b"a" * 200_000])).status == 413


# --- message by message ------------------------------------------------------------------------------------------


class Exchange:
    """One request to an ASGI app. ``leave()`` is the client's leaving; ``sent`` what it was sent."""

    def __init__(self, path: str = "/", query: str = "", method: str = "GET", **scope: Any) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"example.test")],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            **scope,
        }
        self.sent: list[dict[str, Any]] = []
        self._gone = asyncio.Event()
        self._asked = False

    async def receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self._gone.set()

    async def run(self, app: Any, seconds: float = 10) -> Exchange:
        await asyncio.wait_for(app(self.scope, self.receive, self.send), seconds)
        return self

    @property
    def status(self) -> int:
        assert [m["type"] for m in self.sent].count("http.response.start") == 1
        status: int = self.sent[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        bodies = self.sent[1:]
        assert all(m["type"] == "http.response.body" for m in bodies)
        assert [bool(m.get("more_body")) for m in bodies] == [True] * (len(bodies) - 1) + [False]
        return b"".join(m.get("body", b"") for m in bodies)

    def unzipped(self) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(self.body)) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}


def wrapped(app: Any, **more: Any) -> AsyncBundleMiddleware:
    return AsyncBundleMiddleware(app, archiver=archiver(), **more)


def page(data: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": data})

    return app


LIST = (b"x-archive-files", b"zip")


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "something.else"])
def test_what_is_no_http_passes_untouched(kind: str) -> None:
    got: list[Any] = []

    async def app(*arguments: Any) -> None:
        got.extend(arguments)

    exchange = Exchange("/bundle", type=kind)
    scope, receive, send = exchange.scope, exchange.receive, exchange.send
    asyncio.run(wrapped(app)(scope, receive, send))
    assert [a is b for a, b in zip(got, (scope, receive, send), strict=True)] == [True] * 3


def test_other_messages_pass_as_they_are() -> None:
    messages = [
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.start", "status": 200, "headers": [(b"x", b"1")], "trailers": True},
        {"type": "http.response.pathsend", "path": "/x"},
        {"type": "http.response.trailers", "headers": []},
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async def trial() -> None:
        exchange = await Exchange().run(wrapped(app))
        assert [a is b for a, b in zip(exchange.sent, messages, strict=True)] == [True] * 4

    asyncio.run(trial())


def test_errors_pass() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("early")

    async def fails_in_list(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [LIST]})
        raise KeyError("in the list")

    async def trial(app: Any, match: str) -> None:
        exchange = Exchange()
        with pytest.raises(KeyError, match=match):
            await exchange.run(wrapped(app))
        assert exchange.sent == []

    asyncio.run(trial(fails, "early"))
    asyncio.run(trial(fails_in_list, "in the list"))


def test_a_list_that_ends_early_is_the_apps_fault() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [LIST]})
        await send({"type": "http.response.body", "body": b"0 0 @directory x", "more_body": True})

    async def trial() -> None:
        assert (await Exchange().run(wrapped(app))).status == 500

    asyncio.run(trial())


def test_an_endless_list_is_stopped() -> None:
    stopped = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [LIST]})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
        finally:
            stopped.append(True)

    async def trial() -> None:
        assert (await Exchange().run(wrapped(app))).status == 500

    asyncio.run(trial())
    assert stopped == [True]


def test_what_an_app_does_to_its_scope_is_its_own_affair() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/m":
            seen.append((scope["headers"], scope["root_path"]))
            await page(b"x", (b"content-length", b"1"))(scope, receive, send)
            return
        scope.update(path="/changed", root_path="/changed", method="PUT", headers=[])
        await page(b"- 1 /m m", LIST, (b"x-archive-pass-headers", b"cookie"))(scope, receive, send)

    async def trial() -> None:
        exchange = Exchange("/list", headers=[(b"cookie", b"own"), (b"x", b"y")])
        assert (await exchange.run(wrapped(app))).unzipped() == {"m": b"x"}

    asyncio.run(trial())
    assert seen == [([(b"cookie", b"own")], "")]


def test_a_list_sent_as_a_file_is_asked_for_as_bytes(tmp_path: Any) -> None:
    extensions = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/list":
            await asgi_site(scope, receive, send)
            return
        extensions.append(sorted(scope.get("extensions", ())))
        await send({"type": "http.response.start", "status": 200, "headers": [LIST]})
        if "http.response.pathsend" in scope.get("extensions", ()):
            await send({"type": "http.response.pathsend", "path": "/x"})
        else:
            assert (await receive())["type"] == "http.request"
            await send({"type": "http.response.body", "body": lines(("/a.txt", "a"))})

    async def trial() -> None:
        exchange = await Exchange("/list", extensions={"http.response.pathsend": {}}).run(wrapped(app))
        assert exchange.unzipped() == {"a": FILES["/a.txt"]}

    asyncio.run(trial())
    assert extensions == [["http.response.pathsend"], []]


def test_a_mounted_app_stays_mounted() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["root_path"], scope["path"], scope["raw_path"], scope["query_string"], scope["state"]))
        scope["state"]["mine"] = True
        await page(b"x", (b"content-length", b"1"))(scope, receive, send)

    async def trial(path: str) -> None:
        exchange = Exchange(path, "path=/caf%C3%A9%2520x%3Fq=1", root_path="/app", state={"db": 1})
        assert list((await exchange.run(wrapped(app))).unzipped()) == ["caf\u00e9 x"]
        assert exchange.scope["state"] == {"db": 1}

    asyncio.run(trial("/app/bundle"))
    assert seen[-1] == ("/app", "/app/caf\u00e9 x", b"/app/caf%C3%A9%20x", b"q=1", {"db": 1, "mine": True})
    asyncio.run(trial("/bundle"))  # a server that leaves root_path out of path
    assert seen[-1] == ("/app", "/caf\u00e9 x", b"/caf%C3%A9%20x", b"q=1", {"db": 1, "mine": True})


@pytest.mark.case(24)
def test_a_body_that_fails_raises_and_never_ends() -> None:
    async def trial() -> None:
        exchange = Exchange("/bundle", "path=/a.txt&path=/fails-late")
        with pytest.raises(Exception, match="on fire"):
            await exchange.run(wrapped(asgi_site))
        assert exchange.sent[0]["status"] == 200
        assert all(m["more_body"] for m in exchange.sent[1:])

    asyncio.run(trial())


def test_a_client_that_left_while_posting_is_not_answered() -> None:
    async def trial() -> None:
        exchange = Exchange("/bundle", method="POST")
        exchange._asked = True
        exchange.leave()
        assert (await exchange.run(wrapped(asgi_site))).sent == []

    asyncio.run(trial())


@pytest.mark.case(27)
@pytest.mark.parametrize("path", ["/waits-before", "/waits-within"])
def test_a_client_that_leaves_ends_an_app_that_waits(path: str) -> None:
    """Also while the archive has not begun: members are still asked, and none has answered."""
    ended: list[float] = []
    waiting = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            if scope["path"] == "/waits-within":
                headers = [(b"content-length", b"100000")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                if scope["method"] == "GET":
                    await send({"type": "http.response.body", "body": bytes(70_000), "more_body": True})
            waiting.set()
            await asyncio.sleep(60)
        finally:
            ended.append(time.monotonic())

    async def trial() -> None:
        exchange = Exchange("/bundle", "path=" + path)
        task = asyncio.create_task(exchange.run(wrapped(app)))
        await asyncio.wait_for(waiting.wait(), 5)
        await asyncio.sleep(0.1)
        left = time.monotonic()
        exchange.leave()
        await task
        assert ended
        assert max(ended) - left < 1
        assert all(m.get("more_body") for m in exchange.sent[1:])

    asyncio.run(trial())


@pytest.mark.case(24)
def test_an_app_that_gives_nothing_in_time_is_a_timeout() -> None:
    from streamware import Archiver, Policy

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def trial() -> None:
        middleware = AsyncBundleMiddleware(app, archiver=Archiver(Policy(read_timeout_seconds=0.2)))
        assert (await Exchange("/bundle", "path=/x").run(middleware)).status == 504

    asyncio.run(trial())


def test_an_app_is_never_far_ahead_of_its_reader() -> None:
    made = []
    open_gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % (400 * 65536))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        for n in range(400):
            made.append(n)
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": n < 399})

    async def trial() -> None:
        exchange = Exchange("/bundle", "path=/x")
        taken = 0

        async def slow(message: Any) -> None:
            nonlocal taken
            taken += len(message.get("body", b""))
            if taken:
                await open_gate.wait()

        task = asyncio.create_task(wrapped(app)(exchange.scope, exchange.receive, slow))
        await asyncio.sleep(0.5)
        assert len(made) < 40, "a slow client must stop the app"
        open_gate.set()
        await asyncio.wait_for(task, 10)
        assert len(made) == 400

    asyncio.run(trial())


def test_what_an_app_does_after_its_answer_is_not_cut_off() -> None:
    done = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await page(b"x", (b"content-length", b"1"))(scope, receive, send)
        await asyncio.sleep(0.05)
        done.append(scope["method"])

    async def trial() -> None:
        await Exchange("/bundle", "path=/x").run(wrapped(app))
        await asyncio.sleep(0.2)

    asyncio.run(trial())
    assert done
    assert set(done) <= {"GET", "HEAD"}


def test_an_app_that_sends_a_body_for_a_head_is_stopped() -> None:
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3000000")]})
        if scope["method"] == "HEAD":
            sent.append(0)
        for n in range(30):
            sent[-1] += scope["method"] == "HEAD"
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": n < 29})

    async def trial() -> None:
        query = "&".join(["path=/x"] * 9)  # more than are asked by the GETs that then deliver them
        began = time.monotonic()
        exchange = await Exchange("/bundle", query, "HEAD").run(wrapped(app))
        assert exchange.status == 200
        assert time.monotonic() - began < 0.9

    asyncio.run(trial())
    assert sent == [1] * 9


def test_nested_middlewares_do_not_answer_for_members() -> None:
    async def trial() -> None:
        inner = AsyncBundleMiddleware(asgi_site, "/inner", archiver())
        outer = AsyncBundleMiddleware(inner, "/outer", archiver())
        found = (await Exchange("/outer", "path=" + listed().replace("?", "%3F")).run(outer)).unzipped()
        assert b"/a.txt" in found["list"]
        assert (await Exchange("/outer", "path=/inner%3Fpath=/a.txt").run(outer)).status == 404
        assert (await Exchange("/inner", "path=/a.txt").run(outer)).unzipped() == {"a.txt": FILES["/a.txt"]}

    asyncio.run(trial())


def test_bundles_of_bundles_need_no_thread_of_the_outer_ones() -> None:
    """An app that makes archives of its own, on the same archiver with one pump thread, as members of a bundle."""
    from streamware import Archiver, Bundle, Policy
    from streamware.edge import run
    from streamware.edge_replies import send_reply

    shared = Archiver(Policy(pump_threads=1, read_timeout_seconds=5))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        made = Bundle("inner.zip")
        made.add_data("x", bytes(300_000))
        reply = await run(shared, shared.respond, made)
        await send_reply(shared, reply, scope["method"], receive, send)

    async def trial() -> None:
        middleware = AsyncBundleMiddleware(app, archiver=shared)
        found = (await Exchange("/bundle", "path=/i.zip&path=/j.zip").run(middleware, 20)).unzipped()
        assert set(found) == {"i.zip", "j.zip"}

    asyncio.run(trial())


def test_many_at_once(server: Server) -> None:
    import threading

    failures: list[BaseException] = []
    path = bundle("/a.txt", "/big", "/b.bin", "/unmeasured")

    def client() -> None:
        try:
            assert len(unzipped(server.get(path))) == 4
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
