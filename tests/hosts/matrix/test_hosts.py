"""Every host that the documents speak of, as a process, with curl as its client: good downloads and bad ones.

The rule of this file: a case is the same for all hosts. Where hosts differ, the table in ``hosts`` says so, or what was
seen is given to ``verdicts``, which holds it against docs/hosts.md.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hosts.inner_site import FILES
from tests.hosts.matrix.apps import READ_SECONDS
from tests.hosts.matrix.client import VISIBLE, fetch, refused, shown, unpacked
from tests.hosts.matrix.front import default_front
from tests.hosts.matrix.hosts import GRACE_SECONDS, HOSTS, Host
from tests.hosts.matrix.running import FLOOD, GATED, Running, Upstream, query, run_host, upstream
from tests.hosts.matrix.verdicts import MATRIX, Verdicts
from tests.hosts.servers import until
from tests.resume.front import front

PATHS = ("/a.txt", "/b.bin", "/big", "/empty")
WANTED = {path[1:]: FILES[path] for path in PATHS}
LATE = ("/a.txt", "/fails-late")  # the second breaks off in its middle


@pytest.fixture(scope="module")
def verdicts() -> Iterator[Verdicts]:
    with Verdicts(MATRIX, "python -m tests.hosts.matrix --write") as verdicts:
        yield verdicts


@pytest.fixture(scope="module", name="source")
def _source() -> Iterator[Upstream]:
    with upstream() as source:
        yield source


@pytest.fixture(scope="module", params=HOSTS, ids=lambda host: host.name.replace(" ", "-"))
def running(
    request: pytest.FixtureRequest, source: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with run_host(request.param, source, tmp_path_factory.mktemp("host")) as running:
        yield running


@pytest.fixture(scope="module")
def host(running: Running) -> Host:
    return running.host


# --- whole downloads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_with_a_length_arrives_whole(running: Running, kind: str) -> None:
    got = running.get(query(*PATHS, name=f"w.{kind}"))
    assert unpacked(got, kind) == WANTED
    assert got.length == len(got.body)
    assert got.headers["transfer-encoding"] is None


@pytest.mark.case(44)
def test_head_says_what_get_would(running: Running) -> None:
    asked = query(*PATHS)
    head, got = running.get(asked, "-I"), running.get(asked)
    assert (head.exit, head.status) == (0, 200)
    assert head.length == got.length == len(got.body)
    for name in ("etag", "content-type", "content-disposition", "accept-ranges"):
        assert head.headers[name] == got.headers[name]
    known = running.get(asked, "-H", f"If-None-Match: {got.headers['etag']}")
    assert (known.exit, known.status, known.body) == (0, 304, b"")


def test_a_part_is_a_part_of_the_whole(running: Running) -> None:
    asked = query(*PATHS)
    whole = running.get(asked).body
    part = running.get(asked, "-r", "1000-300000")
    assert (part.exit, part.status, part.length) == (0, 206, 299_001)
    assert part.body == whole[1000:300_001]


@pytest.mark.case(41)
def test_what_may_change_is_given_whole(running: Running) -> None:
    got = running.get(query("/a.txt", "/echo"), "-r", "10-20")
    assert set(unpacked(got)) == {"a.txt", "echo"}
    assert got.headers["accept-ranges"] in (None, "none")
    assert (got.headers["etag"] or "W/").startswith("W/")


def test_a_connection_can_be_used_again(running: Running) -> None:
    """After HEAD and after GET: nothing of one answer is left for the next. A host may also close it in between."""
    if running.host.http2:
        pytest.skip("curl 7.88 does not use such a connection again")
    connection = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=10)
    try:
        for method in ("GET", "HEAD", "GET", "HEAD", "GET"):
            try:
                connection.request(method, query("/a.txt", "/b.bin"))
                response = connection.getresponse()
            except ConnectionError:
                connection.close()
                connection.request(method, query("/a.txt", "/b.bin"))
                response = connection.getresponse()
            body = response.read()
            assert response.status == 200
            assert len(body) == (0 if method == "HEAD" else int(response.headers["content-length"]))
    finally:
        connection.close()


def test_an_archive_without_a_length(running: Running, host: Host, verdicts: Verdicts) -> None:
    """Whole where a break would be seen, refused elsewhere."""
    seen = []
    for got in (running.get(query(*PATHS, compress="deflate")), running.get(query("/a.txt", "/unmeasured"))):
        if host.unframed:
            assert len(unpacked(got)) > 1
            assert got.length is None
        else:
            assert refused(got, 500), got
        seen.append("served" if host.unframed else "refused, 500")
    verdicts.saw(host, "unframed", seen[0])


# --- broken downloads --------------------------------------------------------------------------------------------


@pytest.mark.case(17, 23, 26)
def test_a_break_shows(running: Running, host: Host, source: Upstream, verdicts: Verdicts) -> None:
    """Whether an app's page raises or an upstream resets; ZIP and TAR."""
    began = time.monotonic()
    seen = {shown(running.get(query(*LATE, name=f"b.{kind}"), seconds=host.patience)) for kind in ("zip", "tar")}
    seen.add(shown(running.post(source.manifest("/resets"), seconds=host.patience)))
    assert len(seen) == 1
    late = ""
    if host.http2:
        assert time.monotonic() - began > 3
        late = ", but only after `--keep-alive`"
    verdicts.saw(host, "broken", seen.pop() + late)


@pytest.mark.case(17, 23, 31)
def test_a_break_without_a_length_shows(running: Running, host: Host, source: Upstream, verdicts: Verdicts) -> None:
    seen = set()
    for got in (
        running.get(query(*LATE, name="b.tar.gz"), seconds=host.patience),
        running.post(source.manifest("/resets", name="b.tar.gz"), seconds=host.patience),
    ):
        if host.unframed:
            seen.add(shown(got))
        else:
            assert refused(got, 500), got
            seen.add("refused, 500")
    assert len(seen) == 1
    verdicts.saw(host, "unframed-broken", seen.pop())


def test_a_break_shows_to_a_bare_socket(running: Running, host: Host) -> None:
    """Not by some rule of curl's: fewer bytes come than were announced, and then no more."""
    if host.http2:
        pytest.skip("no bare sockets in HTTP/2: streams are reset, as curl has told")
    address = urlsplit(running.url)
    got = b""
    with socket.create_connection((address.hostname, address.port), host.patience) as sock:
        sock.sendall(f"GET {query(*LATE)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        try:
            while data := sock.recv(65536):
                got += data
        except TimeoutError:
            assert host.name == "daphne", "the connection stayed open"
        except ConnectionResetError:
            pass
    if not got:
        return  # granian drops what it had not sent yet: the whole answer, the body, or some of it
    head, _, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: ([0-9]+)\r?$", head)
    assert length, got[:200]
    assert len(body) < int(length[1])
    assert b"PK\x05\x06" not in body[-22:]


# --- HTTP/1.0 ----------------------------------------------------------------------------------------------------


@pytest.mark.case(31)
def test_http_1_0_gets_archives_of_known_length_only(running: Running, host: Host) -> None:
    if host.http2:
        pytest.skip("HTTP/2 is not HTTP/1.0")
    whole = running.get(query(*PATHS), "--http1.0")
    assert unpacked(whole) == WANTED
    assert whole.length == len(whole.body)
    assert shown(running.get(query(*LATE), "--http1.0", seconds=host.patience))
    for asked in (query("/a.txt", name="t.tar.gz"), query("/a.txt", "/unmeasured")):
        got = running.get(asked, "--http1.0")
        assert refused(got, 505), got


# --- behind nginx ------------------------------------------------------------------------------------------------


@pytest.mark.case(32)
def test_behind_nginx_as_it_comes(
    running: Running, host: Host, source: Upstream, verdicts: Verdicts, tmp_path: Path
) -> None:
    """HTTP/1.0 to the host: what has a length is whole or visibly broken, and never cached broken; the rest refused."""
    if host.http2:
        pytest.skip("nginx speaks HTTP/1 to its upstreams")
    with default_front(running.replica.port, tmp_path) as url:
        assert unpacked(fetch(url + query(*PATHS))) == WANTED
        seen = shown(fetch(url + query(*LATE), seconds=host.patience))
        assert refused(fetch(url + query(*LATE, name="b.tar.gz")), 505)
        cached = f"{url}/cached" + query(*LATE)
        for _ in range(2):
            got = fetch(cached, seconds=host.patience)
            assert shown(got) == seen
            assert got.headers["x-cache"] == "MISS"
        caches = [fetch(f"{url}/cached" + query(*PATHS)) for _ in range(2)]
        assert [unpacked(got) for got in caches] == [WANTED] * 2
        assert caches[1].headers["x-cache"] == "HIT", "so that the cache is known to work"
    verdicts.saw(host, "default", f"{seen}; without length refused, 505")


@pytest.mark.case(32)
def test_behind_nginx_as_recommended(running: Running, host: Host, verdicts: Verdicts, tmp_path: Path) -> None:
    if host.http2:
        pytest.skip("nginx speaks HTTP/1 to its upstreams")
    with front([running.replica], tmp_path / "front") as url:
        assert unpacked(fetch(url + query(*PATHS))) == WANTED
        seen = shown(fetch(url + query(*LATE), seconds=host.patience))
        got = fetch(url + query(*LATE, name="b.tar.gz"), seconds=host.patience)
        if host.unframed:
            without = shown(got)
        else:
            assert refused(got, 500), got
            without = "refused, 500"
    verdicts.saw(host, "recommended", seen if seen == without else f"{seen}; without length {without}")


# --- leaving -----------------------------------------------------------------------------------------------------


@pytest.mark.case(27)
def test_a_client_that_leaves(running: Running, host: Host, source: Upstream, verdicts: Verdicts) -> None:
    """ASGI: noticed within 1 s even while the upstream says nothing. WSGI: at the next piece, and where none comes,
    when the upstream has been silent for as long as it may be. Nothing stays open, and the log shows no failure."""

    def left(path: str, seconds: float, *, quietly: bool = True) -> float:
        download = running.begin("leaves.zip", path)
        download.wait_for(150_000)
        files, said = running.open_files(), len(running.replica.said())
        download.leave()
        took = until(lambda: source.server.open_connections <= before, seconds)
        until(lambda: running.open_files() < files, 5)
        if quietly:
            assert "Traceback" not in running.replica.said()[said:]
        return took

    unpacked(running.post(source.manifest("/gated")))  # what is open after this stays open
    before = source.server.open_connections
    files = running.open_files()
    if host.kind == "asgi":
        assert left("/stalls", 1.0) < 1.0
        assert left("/drips", 1.0) < 1.0
        seen = "at once"
    else:
        left("/stalls", READ_SECONDS + 1.5, quietly=False)  # the upstream's failure may be told
        if host.notices:
            left("/drips", 1.5)
        seen = "at the next piece" if host.notices else "**not noticed**"
    until(lambda: running.open_files() <= files, 5)
    verdicts.saw(host, "leaves", seen)


@pytest.mark.case(28)
def test_a_client_that_takes_nothing(running: Running, host: Host, source: Upstream, verdicts: Verdicts) -> None:
    """The upstream is read no faster than the client reads: what has been taken and not sent is held in memory."""
    download = running.begin("pauses.zip", "/floods")
    download.wait_for(150_000)
    download.pause()
    taken, since = source.flooded, time.monotonic()
    while time.monotonic() - since < 0.3 and taken < FLOOD:
        if source.flooded != taken:
            taken, since = source.flooded, time.monotonic()
        time.sleep(0.01)
    download.leave()
    # A few MiB lie in the buffers of the four sockets on the way, and some hosts have one of their own.
    seen = "waits" if taken < FLOOD / 2 else "**takes all into memory**"
    verdicts.saw(host, "pauses", seen)


# --- ending ------------------------------------------------------------------------------------------------------


@pytest.mark.case(30)
def test_sigterm_in_the_middle(running: Running, host: Host, source: Upstream, verdicts: Verdicts) -> None:
    """The last test of a host, for it ends it: one download could end within the grace time, one never would."""
    source.gate.clear()
    begun = [running.begin("gated.zip", "/gated")]
    if host.downloads > 1:
        begun.append(running.begin("drips.zip", "/drips"))
    for download in begun:
        download.wait_for(300_000)
    os.kill(running.replica.pid, signal.SIGTERM)
    signalled = time.monotonic()
    running.wait_until_deaf(0.5)
    source.gate.set()
    got = begun[0].end()
    if host.drains:
        assert unpacked(got) == {"gated": GATED}
        seen = "completes"
    else:
        seen = f"cut, {shown(got)}"
    verdicts.saw(host, "sigterm", seen)
    if host.downloads > 1:
        assert shown(begun[1].end()) == VISIBLE
    exits = running.ends_within(signalled + GRACE_SECONDS + 2 - time.monotonic())
    assert exits == host.notices, "it runs a download that nobody reads to its end, and only then exits"
    if host.downloads > 1:
        verdicts.saw(host, "grace", f"cut, {VISIBLE}" if exits else f"cut, {VISIBLE}; **does not exit**")


@pytest.mark.case(30)
def test_a_sync_worker_is_killed_with_a_long_download(source: Upstream, tmp_path: Path) -> None:
    """gunicorn's --timeout, 30 s unless told otherwise, ends its sync workers in the middle of a download."""
    sync = next(host for host in HOSTS if host.name == "gunicorn sync")
    with run_host(replace(sync, command=f"{sync.command} --timeout 1"), source, tmp_path) as running:
        assert shown(running.begin("drips.zip", "/drips").end()) == VISIBLE
