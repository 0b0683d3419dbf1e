"""How long a resumed request takes to its first byte, by where it goes on: at 1 %, 50 % and 99 % of a bundle.

    python -m bench.resume [--gib N] [--rounds N]

The bundle is a ZIP of sparse files whose checksums nobody declared, once on this server's disk and once behind nginx.
"Warm" is after one download of it, "cold" with a new version of every member. The rounds take the places in turn, and
what counts is how a place compares with 1 % in the same run.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.resume.clients import head, scan
from tests.resume.replicas import Replica, save_link, serve_command
from tests.resume.upstream import MIB, Origin, origin

__all__ = ["main"]

PLACES = (0.01, 0.5, 0.99)
SECONDS = 120.0


def first_byte(port: int, path: str, start: int) -> float:
    """Seconds from the request to the first byte of its body; the rest is not waited for."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        began = time.perf_counter()
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: bench\r\nRange: bytes={start}-\r\nConnection: close\r\n\r\n".encode()
        )
        got = b""
        while not got.partition(b"\r\n\r\n")[2]:
            piece = connection.recv(4096)
            if not piece:
                raise ConnectionError(f"no body: {got[:300]!r}")
            got += piece
        took = time.perf_counter() - began
        if not got.startswith(b"HTTP/1.1 206"):
            raise ConnectionError(f"no 206: {got[:300]!r}")
        return took


def table(title: str, replica: Replica, rounds: int, path_of: Callable[[], str]) -> None:
    """Measure and print; ``path_of()`` is asked before every request and may change what is known."""
    taken: dict[float, list[float]] = {place: [] for place in PLACES}
    for number in range(rounds):
        turn = number % len(PLACES)
        for place in PLACES[turn:] + PLACES[:turn]:
            path = path_of()
            total = int(head(f"{replica.url}{path}").headers["content-length"])
            taken[place].append(first_byte(replica.port, path, int(total * place)))
            time.sleep(0.05)  # for the server to see that nobody wants the rest
    base = statistics.median(taken[PLACES[0]])
    print(f"\n{title}")
    print(f"{'at':>6}{'median ms':>12}{'worst ms':>12}{'ratio':>9}")
    for place in PLACES:
        middle = statistics.median(taken[place])
        print(f"{place:6.0%}{middle * 1000:12.1f}{max(taken[place]) * 1000:12.1f}{middle / base:9.2f}")


def measure(where: str, replica: Replica, members: Origin, rounds: int, path_of: Callable[[], str]) -> None:
    """Warm, after one download; then cold, with a new version of every member before each request."""
    path = path_of()
    whole = scan(f"{replica.url}{path}")
    size = f"{whole.count / (1 << 30):.1f} GiB {where}"
    table(f"{size}, warm", replica, rounds, lambda: path)

    def anew() -> str:
        members.renew()
        return path_of()

    table(f"{size}, cold", replica, rounds, anew)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m bench.resume", description="First bytes of resumed requests.")
    parser.add_argument("--gib", type=float, default=4, metavar="N", help="size of the bundle (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=21, metavar="N", help="(default: %(default)s)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-resume-") as folder:
        work = Path(folder)
        with origin(work, [int(args.gib * 1024 * MIB) // 16] * 16) as members:
            command = serve_command(members.root, work, allow=members.url)
            with Replica(command, work / "log") as replica:
                local = "/bundle?" + "&".join(f"path=/tree/{name}" for name in members.names) + "&name=all.zip"
                measure("on this disk", replica, members, args.rounds, lambda: local)
                measure(
                    "behind nginx",
                    replica,
                    members,
                    args.rounds,
                    lambda: save_link(replica.url, members.manifest("all.zip")),
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
