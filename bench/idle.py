"""A thousand clients that take the first bytes of a download and then nothing: what they cost an ASGI server.

The rule of this file: they are all there at the same time while it is counted.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

from bench.bed import Bed
from bench.cases import case_named
from bench.clients import download
from bench.contenders import ASGI, by_key
from bench.results import Table
from bench.usage import cpu_seconds, resident_bytes, threads

__all__ = ["run"]

_CLIENTS = 1000
_SECONDS = 3.0
_RECEIVE = 16384  # bytes of a client's buffer, so that the server and not the kernel holds what waits

Say = Callable[[str], None]


def run(bed: Bed, rounds: int, say: Say) -> Table:
    """One line for each server; the rounds are of no use here."""
    lines = []
    clients = max(50, round(_CLIENTS * min(1.0, bed.scale)))
    with bed.lay(case_named("slow")) as laid:
        for key in (ASGI, "zipstream-ng-asgi"):
            contender = by_key(key)
            if bed.why_not(contender, laid.case):
                continue
            with bed.server(contender, laid) as server, ExitStack() as stack:
                download(server.port, "/tiny.zip")
                idle = resident_bytes(server.pid)
                for _ in range(clients):
                    client = stack.enter_context(socket.socket())
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE)
                    client.connect(("127.0.0.1", server.port))
                    client.sendall(b"GET /archive.zip HTTP/1.1\r\nHost: bench\r\n\r\n")
                time.sleep(_SECONDS)
                before = cpu_seconds(server.pid)
                time.sleep(_SECONDS)
                cpu = (cpu_seconds(server.pid) - before) / _SECONDS
                grew = resident_bytes(server.pid) - idle
                held = threads(server.pid)
                lines.append([contender.title, f"{held}", f"{grew / clients / 1024:.0f}", f"{100 * cpu:.0f}"])
                say(f"idle         {contender.key}: {held} threads, {grew >> 20} MiB")
    note = f"{clients:,} clients that take the first bytes and then nothing. The goal is 40 threads at most."
    return Table("Clients that stand still", note, ["", "threads", "KiB a client", "CPU %"], lines)
