"""How long a resumed request takes to its first byte, by where it goes on: at 1 %, 50 % and 99 % of a bundle.

The bundle is a ZIP whose checksums nobody declared, once on this server's disk and once behind nginx. "Warm" is after
one download of it, "cold" with a new version of every member. The rule of this file: the rounds take the places in
turn, and what counts is how a place compares with 1 % in the same run.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from bench.bed import Bed
from bench.clients import download
from bench.results import Table
from bench.sparse import make_sparse, renew

__all__ = ["run"]

GIB = 1 << 30
PLACES = (0.01, 0.5, 0.99)
_MEMBERS = 16
_FIRST = 1 << 16  # bytes after which a resumed download is left

PathOf = Callable[[], str]
Say = Callable[[str], None]


def run(bed: Bed, rounds: int, say: Say) -> Table | None:
    """Four lines: where the members are, and whether anything is known of them. None without nginx."""
    if bed.upstream is None:
        return None
    size = int(4 * GIB * bed.scale) // _MEMBERS
    folder = bed.live_folder("resume")
    names = make_sparse(folder, [size] * _MEMBERS)
    members = [{"name": name, "url": f"http://127.0.0.1:{bed.upstream}/{folder.name}/{name}"} for name in names]
    lines = []
    with bed.other_server(_command(folder, bed.work, f"http://127.0.0.1:{bed.upstream}/")) as server:
        local = "/bundle?" + "&".join(f"path=/tree/{name}" for name in names) + "&name=all.zip"

        def behind_nginx() -> str:
            return _link(server.port, {"name": "all.zip", "members": members})

        def on_disk() -> str:
            return local

        for where, path_of in (("on this disk", on_disk), ("behind nginx", behind_nginx)):
            path = path_of()
            total = download(server.port, path).bytes
            lines.append(_measured(f"{where}, warm", server.port, total, rounds, _always(path), say))
            lines.append(_measured(f"{where}, cold", server.port, total, rounds, _anew(folder, path_of), say))
    note = (
        f"A ZIP of {_MEMBERS * size / GIB:.1f} GiB whose checksums nobody declared, from `streamware serve`; median of "
        f"{rounds} rounds, and in brackets the ratio to 1 %."
    )
    return Table("The first byte of a resumed download", note, ["", *(f"at {p:.0%}, ms" for p in PLACES)], lines)


def _command(root: Path, work: Path, allow: str) -> list[str]:
    key = work / "link.key"
    key.write_text("a key for measuring alone, " * 3, encoding="utf-8")
    key.chmod(0o600)
    options = ["--allow", allow, "--state", f"sqlite:///{work / 'state.sqlite3'}", "--link-key", str(key)]
    return [sys.executable, "-m", "streamware", "serve", str(root), "--bind", "127.0.0.1:{port}", *options]


def _always(path: str) -> PathOf:
    return lambda: path


def _anew(folder: Path, path_of: PathOf) -> PathOf:
    """Each time with a new version of every member."""

    def path() -> str:
        renew(folder)
        return path_of()

    return path


def _link(port: int, manifest: object) -> str:
    """Save a manifest; the path of its link."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/bundle/links", json.dumps(manifest), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 201:
            raise OSError(f"no link: {answer.status} {said[:300]!r}")
        found = urlsplit(answer.getheader("Location") or "")
        return f"{found.path}?{found.query}" if found.query else found.path
    finally:
        connection.close()


def _measured(title: str, port: int, total: int, rounds: int, path_of: PathOf, say: Say) -> list[str]:
    taken: dict[float, list[float]] = {place: [] for place in PLACES}
    for number in range(rounds):
        turn = number % len(PLACES)
        for place in PLACES[turn:] + PLACES[:turn]:
            path = path_of()
            got = download(port, path, start=int(total * place), upto=_FIRST)
            taken[place].append(got.first_byte)
            time.sleep(0.05)  # for the server to see that nobody wants the rest
    say(f"resume       {title}: " + ", ".join(f"{median(found) * 1000:.1f} ms" for found in taken.values()))
    base = median(taken[PLACES[0]])
    return [title, *(f"{median(found) * 1000:.1f} ({median(found) / base:.2f})" for found in taken.values())]
