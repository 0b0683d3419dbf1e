"""What ``streamware serve`` keeps from one run to the next: where, for whom, and what it does when it cannot."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sqlite3
import stat
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, urljoin

import pytest

from streamware.server.files import Place, Root
from streamware.server.state import State, open_state, state_directory
from tests.hosts.nginx import nginx
from tests.hosts.serve_process import Answer, Served, refused
from tests.synthetic import content

MIB = 1 << 20
KEY = "0123456789abcdef" * 4


@contextmanager
def started(root: Path, *options: str) -> Iterator[Served]:
    """A server that ends in good order, and had nothing to tell but what computes and where uploads go."""
    with Served(root, *options) as served:
        yield served
        served.signal()
        assert served.wait() == 0
    told = re.compile(r"\S+ \S+ INFO streamware\.server: (streamware |uploads are kept in |no uploads are taken: )")
    assert all(told.match(line) for line in served.log.splitlines())


def save(served: Served, *members: dict[str, object], name: str = "saved.zip") -> str:
    """Make a link; its path, which must hold on every replica."""
    body = json.dumps({"name": name, "members": members}).encode()
    answer = served.ask("/bundle/links", "POST", {"Content-Type": "application/json"}, body)
    assert answer.status == 201, answer.body
    return urljoin("/bundle/links", answer.headers["Location"])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- where ---------------------------------------------------------------------------------------------------------


def test_what_it_keeps_is_its_users_alone(root: Path, home: Path) -> None:
    with started(root) as served:
        assert served.ask("/bundle?path=/tree/a.txt").status == 200
    own = home / "streamware"
    assert {path.name for path in own.iterdir()} == {"state.sqlite3", "link.key", "files"}
    assert mode(own) == 0o700
    assert (mode(own / "state.sqlite3"), mode(own / "link.key")) == (0o600, 0o600)
    key = (own / "link.key").read_text()
    assert re.fullmatch(r"[0-9a-f]{64}\n", key)
    with started(root):
        pass
    assert (own / "link.key").read_text() == key


@pytest.mark.parametrize("given", [None, "", "relative/path"])
def test_the_state_directory_is_where_the_system_says(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", given or "")
    if given is None:
        monkeypatch.delenv("XDG_STATE_HOME")
    assert state_directory() == str(tmp_path / ".local" / "state" / "streamware")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    assert state_directory() == str(tmp_path / "elsewhere" / "streamware")


def test_memory_keeps_nothing(root: Path, home: Path) -> None:
    with started(root, "--state", "memory:") as served:
        link = save(served, {"name": "a.txt", "path": "/tree/a.txt"})
        assert served.ask(link).status == 200
    assert not home.exists()
    with started(root, "--state", "memory:") as served:
        assert served.ask(link).status == 404


def test_a_named_database_and_key_leave_the_state_directory_alone(root: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    with started(root, "--state", f"sqlite:///{tmp_path}/other.sqlite3", "--link-key", str(tmp_path / "key")):
        pass
    assert (tmp_path / "other.sqlite3").is_file()
    assert not home.exists()


def test_with_a_named_database_the_key_is_still_kept(root: Path, home: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/other.sqlite3"
    with started(root, "--state", url) as served:
        link = save(served, {"name": "a.txt", "path": "/tree/a.txt"})
    assert [path.name for path in (home / "streamware").iterdir()] == ["link.key"]
    with started(root, "--state", url) as served:
        assert served.ask(link).status == 200


# --- what cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory",
        "state.sqlite3",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////dev/null/state.sqlite3",
        "mysql://somebody:secret@127.0.0.1/x",
        "postgresql+asyncpg://somebody:secret@127.0.0.1/x",
    ],
)
def test_a_database_that_cannot_be_used_is_refused_by_its_name(url: str, root: Path, home: Path) -> None:
    said = refused(root, "--state", url)
    assert said.startswith("streamware serve: --state")
    assert "secret" not in said
    assert not home.exists()


@pytest.mark.parametrize("made", [None, b"", b"short", b" " * 100, b"x" * 5000])
def test_a_key_file_that_cannot_be_used_is_refused_by_its_name(made: bytes | None, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "key"
    if made is not None:
        file.write_bytes(made)
    said = refused(root, "--link-key", str(file))
    assert said.startswith(f"streamware serve: --link-key {str(file)!r}: ")
    assert ("No such file" in said) is (made is None)


def _a_file_in_its_place(own: Path) -> None:
    own.parent.mkdir()
    own.write_text("")


def _no_folder_above(own: Path) -> None:
    own.parent.write_text("")


def _a_folder_for_a_database(own: Path) -> None:
    (own / "state.sqlite3").mkdir(parents=True)


def _a_later_schema(own: Path) -> None:
    open_state(None, None, pytest.fail)
    with closing(sqlite3.connect(own / "state.sqlite3")) as connection, connection:
        done = connection.execute("UPDATE streamware_schema SET value = 9999 WHERE name = 'version'")
        assert done.rowcount == 1


def _a_short_key(own: Path) -> None:
    own.mkdir(parents=True)
    (own / "link.key").write_text("short\n")


def _a_folder_for_a_key(own: Path) -> None:
    (own / "link.key").mkdir(parents=True)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_a_file_in_its_place, "it is not a directory; what it learns and the key of its links will be lost"),
        (_no_folder_above, "what it learns and the key of its links will be lost"),
        (_a_folder_for_a_database, "state.sqlite3: Is a directory; what it learns will be lost"),
        (_a_later_schema, "state.sqlite3: "),
        (_a_short_key, "link.key: a key has 32 to 4096 characters"),
        (_a_folder_for_a_key, "link.key: Is a directory; links made now will be lost"),
    ],
)
def test_what_it_chose_itself_may_fail_with_a_warning(
    spoil: Callable[[Path], None], told: str, root: Path, home: Path
) -> None:
    spoil(home / "streamware")
    with Served(root) as served:
        link = save(served, {"name": "a.txt", "path": "/tree/a.txt"})
        assert served.ask(link).status == 200
        served.signal()
        assert served.wait() == 0
    assert served.log.startswith("streamware serve: warning: ")
    assert told in served.log
    assert served.log.count("\n") == 3  # and what computes, and whether there are uploads


def test_a_state_directory_no_url_can_name_is_told(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "what?"))
    said: list[str] = []
    assert open_state(None, None, said.append).ledger is None
    assert len(said) == 1
    assert "'?'" in said[0]


def test_a_user_without_a_home_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setenv("HOME", "nowhere")
    said: list[str] = []
    state = open_state(None, None, said.append)
    assert (state.ledger, state.files, len(state.link_key)) == (None, (), 64)
    lost = "what it learns and the key of its links will be lost when it ends"
    assert said == [f"no state directory: this user has no home directory; {lost}"]


# --- who shares it -------------------------------------------------------------------------------------------------


def test_all_who_start_at_once_have_one_key(home: Path) -> None:
    def start(_: int) -> State:
        return open_state(None, None, pytest.fail)

    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(start, range(8)))
    assert len({state.link_key for state in states}) == 1
    assert {path.name for path in (home / "streamware").iterdir()} == {"state.sqlite3", "link.key"}


def test_replicas_with_one_key_and_one_database_open_each_others_links(root: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / "other").write_text(KEY[::-1])
    url = f"sqlite:///{tmp_path}/shared.sqlite3"
    options = ("--state", url, "--link-key", str(tmp_path / "key"))
    long = [{"name": f"{n}-{os.urandom(8).hex()}.txt", "text": os.urandom(8).hex()} for n in range(200)]
    with started(root, *options) as one, started(root, *options, "--workers", "2") as two:
        for members in ([{"name": "a.txt", "path": "/tree/a.txt"}], long):
            link = save(one, *members)
            first, second = one.ask(link), two.ask(link)
            assert (first.status, first.body) == (200, second.body)
            assert first.headers["ETag"] == second.headers["ETag"]
            part = two.ask(link, headers={"Range": "bytes=20-", "If-Range": first.headers["ETag"]})
            assert (part.status, part.body) == (206, first.body[20:])
        assert len(link) < 150, "that one was to be a row in the database"
    with Served(root, "--state", url, "--link-key", str(tmp_path / "other")) as stranger:
        short = save(stranger, {"name": "a.txt", "path": "/tree/a.txt"})
        assert stranger.ask(link).status == 200
        with started(root, *options) as one:
            assert one.ask(short).status == 404


@pytest.mark.judge("nginx")
def test_what_was_learned_outlives_a_killed_server(root: Path, home: Path, tmp_path: Path) -> None:
    site = tmp_path / "upstream"
    site.mkdir()
    (site / "big.bin").write_bytes(content(20 * MIB, 7))
    with nginx(site, tmp_path / "nginx", log=True) as upstream:

        def read() -> int:
            """Bytes of bodies that the upstream has sent so far, unless they are heads' alone."""
            lines = (tmp_path / "nginx" / "access").read_text().splitlines()
            return sum(int(fields[3]) for fields in map(str.split, lines) if fields[0] == "GET")

        def rest(served: Served, link: str, whole: Answer) -> int:
            """Read a download's last kilobyte; what that costs the upstream."""
            size, before = len(whole.body), read()
            part = served.ask(link, headers={"Range": f"bytes={size - 1000}-", "If-Range": whole.headers["ETag"]})
            assert (part.status, part.body) == (206, whole.body[-1000:])
            return read() - before

        options = ("--allow", f"{upstream}/")
        with Served(root, *options) as served:
            link = save(served, {"name": "big.bin", "url": f"{upstream}/big.bin"}, {"name": "a", "path": "/tree/a.txt"})
            whole = served.ask(link)
            with zipfile.ZipFile(io.BytesIO(whole.body)) as archive:
                assert archive.read("big.bin") == content(20 * MIB, 7)
            os.killpg(served.process.pid, signal.SIGKILL)
        with started(root, *options) as served:
            assert rest(served, link, whole) <= 8 * MIB
        with started(root, *options) as served:
            assert rest(served, link, whole) < MIB, "by now all of it is known"
        # A server that knows nothing reads it all once more, and comes to the same bytes.
        key = str(home / "streamware" / "link.key")
        with started(root, *options, "--state", "memory:", "--link-key", key) as served:
            assert rest(served, link, whole) >= 20 * MIB


# --- who must not see it -------------------------------------------------------------------------------------------


def test_a_state_directory_below_root_is_not_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
    with started(root) as served:
        (root / "way").symlink_to("state/streamware")
        (root / "key").symlink_to("state/streamware/link.key")
        names = {entry["name"] for entry in json.loads(served.ask("/?format=json").body)["entries"]}
        assert names == {"a.txt", "state"}
        assert json.loads(served.ask("/browse/state/?format=json").body)["entries"] == []
        for path in ("state/streamware", "state/streamware/", "state/streamware/link.key", "way/link.key", "key"):
            for way in ("tree", "browse", "totals"):
                assert served.ask(f"/{way}/{path}").status == 404, (way, path)
            assert served.ask(f"/bundle?path={quote(f'/tree/{path}')}").status == 404
        answer = served.ask("/bundle?path=/tree/&name=all.zip")
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.namelist() == ["a.txt"]
        assert json.loads(served.ask("/totals/").body)["files"] == 1


@pytest.mark.parametrize("url", ["sqlite:///{root}/sub/kept.sqlite3", "sqlite+pysqlite:///sub/kept.sqlite3?timeout=5"])
def test_a_database_below_root_is_not_there(
    url: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "kept.sqlite3.txt").write_text("another")
    monkeypatch.chdir(root)
    state = open_state(url.format(root=root), None, pytest.fail)
    for suffix in ("-wal", "-shm"):
        (root / "sub" / f"kept.sqlite3{suffix}").touch()
    files = Root(str(root.resolve()), max_members=100, hidden=state.files)
    place = Place(("sub",), folder=True)
    assert [item.name for item in files.listing(place).items] == ["kept.sqlite3.txt"]
    assert files.hides(place.inner("kept.sqlite3-wal", folder=False))
    assert not files.hides(place.inner("kept.sqlite3.txt", folder=False))
