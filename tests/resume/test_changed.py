"""A member that changed between cut and resume is seen, and two versions never make one file. And what may not change.

A link pins its members when it is made. An ordinary bundle is pinned by the ETag that its client has seen: with
If-Range it gets the new one whole, with If-Match a refusal.
"""

from __future__ import annotations

import http.client
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hosts.nginx import nginx
from tests.resume.clients import Got, curl, curl_held, head, read_into, scan
from tests.resume.replicas import Replica, asgi_command, save_link, serve_command, wsgi_command
from tests.synthetic import content

MIB = 1 << 20
SIZE = 6 * MIB + 5  # a block of the ledger and a part of one
LONG = 24 * MIB  # more than sockets can hold between an upstream and a slow client

pytestmark = pytest.mark.judge("nginx", "curl")


@dataclass
class Site:
    """Three members: a file of an upstream, a local one, one of the wrapped app's."""

    work: Path
    upstream: str
    serve: Replica
    other: Replica
    apps: dict[str, Replica]

    def folder(self, kind: str) -> Path:
        return self.work / {"url": "upstream", "tree": "root", "inner": "inner"}[kind]

    def write(self, name: str, version: int, *kinds: str, size: int = SIZE) -> None:
        """A version of the member; all are of one size, so that nothing but the validator tells them apart."""
        for kind in kinds:
            # A file is replaced, not overwritten, as whoever cares for readers does. nginx tells whole seconds apart;
            # elsewhere the time that an archive could quote stays the same, too.
            path, later = self.folder(kind) / name, 1_000_000_000 if kind == "url" else 1000
            new = path.with_suffix(".new")
            new.write_bytes(content(size, version))
            os.utime(new, ns=(0, 1_700_000_000_000_000_000 + version * later))
            new.rename(path)

    def manifest(self, name: str, *members: tuple[str, str]) -> dict[str, object]:
        listed = [
            {"name": f"{kind}-{file}", "url": f"{self.upstream}/{file}"}
            if kind == "url"
            else {"name": f"{kind}-{file}", "path": f"/{kind}/{file}"}
            for kind, file in members
        ]
        return {"name": name, "members": listed}

    def listed(self, manifest: dict[str, object]) -> str:
        """The path of a bundle that the wrapped app lists."""
        name = str(manifest["name"])
        (self.work / "lists" / name).write_text(json.dumps(manifest))
        return f"/lists/{name}?as={name.rpartition('.')[2]}"


@pytest.fixture(scope="module")
def site(work: Path) -> Iterator[Site]:
    for name in ("upstream", "root", "inner", "lists"):
        (work / name).mkdir()
    with ExitStack() as stack:
        upstream = stack.enter_context(nginx(work / "upstream", work / "nginx"))
        state = f"sqlite:///{work / 'state.sqlite3'}"
        env = {
            "INNER": str(work / "inner"),
            "ROOT": str(work / "root"),
            "LISTS": str(work / "lists"),
            "UPSTREAM": f"{upstream}/",
        }
        line = serve_command(work / "root", work, allow=upstream, state=state)
        serve, other = (stack.enter_context(Replica(line, work / f"serve-{n}.log")) for n in (1, 2))
        apps = {
            "wsgi": stack.enter_context(
                Replica(wsgi_command("tests.resume.apps:wsgi()"), work / "wsgi.log", {**env, "LEDGER": ""})
            ),
            "asgi": stack.enter_context(
                Replica(asgi_command("tests.resume.apps:asgi"), work / "asgi.log", {**env, "LEDGER": state})
            ),
        }
        yield Site(work, upstream, serve, other, apps)


CUTS = {"before": SIZE // 2, "inside": SIZE + SIZE // 2, "behind": 2 * SIZE + SIZE // 2}


@pytest.mark.case(19, 43)
@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", ["url", "tree"])
def test_a_link_never_goes_on_with_another_version(kind: str, cut: str, form: str, site: Site, tmp_path: Path) -> None:
    """The member in the middle changes when the download stands before it, inside it, behind it.

    What the file holds afterwards is of the version that the link was made for, to the last byte, whatever curl says.
    """
    for name in ("first.bin", "middle.bin", "last.bin"):
        site.write(name, 1, kind)
    manifest = site.manifest(f"link.{form}", (kind, "first.bin"), (kind, "middle.bin"), (kind, "last.bin"))
    path = save_link(site.serve.url, manifest)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert curl(whole, f"{site.serve.url}{path}").wait()[0] == 0
    wanted = whole.read_bytes()
    tag = read_into(out, f"{site.serve.url}{path}", CUTS[cut]).etag

    site.write("middle.bin", 2, kind)
    for replica in (site.serve, site.other):
        code, said = curl(out, f"{replica.url}{path}").wait()
        got = out.read_bytes()
        assert wanted.startswith(got), said
        # Behind it, nothing of it may be wanted any more: its checksum is known.
        assert code != 0 or (cut == "behind" and got == wanted)
        for headers in ({}, {"If-Range": tag}):
            try:
                answer = scan(f"{replica.url}{path}", headers=headers)
            except http.client.IncompleteRead:
                continue
            assert answer.status == 410, answer
    site.write("first.bin", 2, kind)
    assert scan(f"{site.serve.url}{path}").status == 410

    if kind == "url":  # the very version the link was made for is as good as ever
        site.write("first.bin", 1, kind)
        site.write("middle.bin", 1, kind)
        code, said = curl(out, f"{site.other.url}{path}").wait()
        assert (code, out.read_bytes()) == (0, wanted), said


@pytest.mark.parametrize("host", ["wsgi", "asgi"])
@pytest.mark.parametrize("kind", ["url", "tree", "inner"])
def test_a_client_that_says_what_it_has_gets_the_new_version_whole(
    kind: str, host: str, site: Site, tmp_path: Path
) -> None:
    site.write("one.bin", 1, kind)
    site.write("two.bin", 1, kind)
    path = site.listed(site.manifest(f"{kind}.zip", (kind, "one.bin"), (kind, "two.bin")))
    url = f"{site.apps[host].url}{path}"
    out = tmp_path / "out"
    old = read_into(out, url, SIZE // 3)
    same = scan(url, start=SIZE // 3, headers={"If-Range": old.etag})
    assert (same.status, same.etag) == (206, old.etag)

    site.write("two.bin", 2, kind)
    new = head(url)
    total = int(new.headers["content-length"])
    assert new.etag != old.etag
    assert total == int(old.headers["content-length"])
    tail = io.BytesIO()  # quotes checksums, and nothing of the new version has passed yet
    scan(url, start=total - 400, into=tail)
    fresh = io.BytesIO()
    answer = scan(url, start=SIZE // 3, headers={"If-Range": old.etag}, into=fresh)
    assert (answer.status, answer.etag, answer.count) == (200, new.etag, total)
    assert fresh.getvalue().endswith(tail.getvalue())
    assert answer.sha256 == scan(url).sha256
    assert scan(url, start=SIZE // 3, headers={"If-Match": old.etag}).status == 412
    assert scan(url, start=SIZE // 3, headers={"If-Match": new.etag}).status == 206


@pytest.mark.case(19)
@pytest.mark.parametrize("where", ["begun", "resumed"])
@pytest.mark.parametrize("kind", ["url", "tree", "inner"])
def test_a_member_that_changes_under_a_download_breaks_it(kind: str, where: str, site: Site, tmp_path: Path) -> None:
    """It was promised in the head, and is another one when its turn comes."""
    site.write("long.bin", 1, kind, size=LONG)
    site.write("next.bin", 1, kind)
    path = site.listed(site.manifest(f"under-{kind}.zip", (kind, "long.bin"), (kind, "next.bin")))
    url = f"{site.apps['asgi'].url}{path}"
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert curl(whole, url).wait()[0] == 0
    wanted = whole.read_bytes()
    had = b""
    if where == "resumed":
        read_into(out, url, MIB)
        had = out.read_bytes()
    # What goes on opens a member when no more than 8 MiB stand before it (Policy.ahead_bytes). Here the change comes
    # first, for until then nobody takes more than one.
    code, rest, said = curl_held(url, len(had), MIB, lambda: site.write("next.bin", 2, kind))
    got = had + rest
    if where == "begun" and kind != "tree":
        # From the answer that told of it for the head, and was held open: of the version that was promised.
        assert (code, got == wanted) == (0, True), said
    else:
        assert code == 18, said
        assert wanted.startswith(got)
        assert LONG < len(got) < LONG + 20_000  # to within the next one's first record


def rewound(site: Site) -> list[Callable[[], object]]:
    """What must not make a difference, each done before the same bundle is asked for once more."""
    return [lambda: None, lambda: None, site.serve.restart, lambda: (site.other.kill(), site.other.start())]


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_the_same_members_are_the_same_bytes_wherever_and_whenever(form: str, site: Site) -> None:
    """On serve, WSGI and ASGI, two replicas, after restarts, with a ledger that is empty or knows all."""
    kinds = ("url", "tree")
    for kind in kinds:
        site.write("same.bin", 7, kind)
    manifest = site.manifest(f"same.{form}", *((kind, "same.bin") for kind in kinds))
    path = save_link(site.serve.url, manifest)
    listed = site.listed(manifest)
    answers: list[Got] = []
    for between in rewound(site):
        between()
        answers += [scan(f"{replica.url}{path}") for replica in (site.serve, site.other)]
        answers += [scan(f"{site.apps[host].url}{listed}") for host in ("wsgi", "asgi")]
        answers += [head(f"{site.other.url}{path}")]
    assert {a.status for a in answers} == {200}
    assert len({a.etag for a in answers}) == 1
    assert len({a.sha256 for a in answers if a.count}) == 1
    # From a start that only a checksum can fill in, cold and warm.
    total = answers[0].count
    site.write("same.bin", 7, *kinds)  # another inode, so other local versions
    tails = [scan(f"{site.apps['wsgi'].url}{listed}", start=total - 300) for _ in range(2)]
    assert len({t.sha256 for t in tails}) == 1
    assert {t.status for t in tails} == {206}


@pytest.mark.case(41)
def test_a_member_that_cannot_be_pinned_is_never_resumed(site: Site, tmp_path: Path) -> None:
    """A weak validator: 200, whole, no Accept-Ranges, and curl refuses to go on."""
    site.write("weak.bin", 1, "inner")
    manifest = {"name": "weak.zip", "members": [{"name": "w", "path": "/weak/weak.bin"}]}
    for replica in site.apps.values():
        url = f"{replica.url}{site.listed(manifest)}"
        answer = scan(url, start=1000)
        assert answer.status == 200
        assert "accept-ranges" not in answer.headers
        out = tmp_path / f"{replica.port}"
        with out.open("wb") as file:
            scan(url, count=5000, into=file)
        code, said = curl(out, url).wait()
        assert (code, out.stat().st_size) == (33, 5000), said


def test_a_broken_answer_is_seen_by_the_reader(site: Site) -> None:
    """The harness itself: a body that ends early raises, whatever reads it."""
    site.write("whole.bin", 1, "tree", size=LONG)
    url = f"{site.serve.url}/tree/whole.bin"
    with pytest.raises((http.client.IncompleteRead, OSError)):
        scan(url, at_end=None, into=_Killing(site.serve))
    site.serve.start()


class _Killing:
    """Takes a body and kills its server in the middle."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._taken = 0

    def write(self, data: bytes) -> None:
        self._taken += len(data)
        if self._taken > MIB and self._replica.running:
            self._replica.kill()
