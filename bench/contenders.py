"""Who takes part: streamware, and what a user would pick instead.

The rule of this file: a contender is one line of a table; all run one process on one core, but where their lines say
otherwise.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "ASGI",
    "BARE",
    "CONTENDERS",
    "FLOOR",
    "MOD_ZIP",
    "WIDE",
    "WSGI",
    "Contender",
    "by_key",
    "lacking",
    "server_command",
]

WSGI = "streamware-wsgi"  # keys of the two that the others are held against
ASGI = "streamware-asgi"
WIDE = "streamware-wsgi-cores"
MOD_ZIP = "mod_zip"
FLOOR = "floor"
BARE = "bare"


@dataclass(frozen=True, slots=True)
class Contender:
    """``host`` is what serves it: gthread, uvicorn, aiohttp, node or nginx; ``target`` what the host is told to run."""

    key: str
    title: str
    host: str
    target: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # modules that must be importable
    local: bool = True  # takes part where members are files
    upstream: bool = True  # and where they are behind another server
    deflate: bool = True  # can compress
    uses_crcs: bool = False  # does better when checksums are known
    pinned: bool = True  # to one core
    only: str = ""  # the one case it takes part in; "" leaves that to the case


_OURS = "bench.programs.streamware_app"
_PEERS = "bench.programs.peers"


def _peer(library: str, module: str, host: str, client: str) -> Contender:
    where = {"gthread": "wsgi", "uvicorn": "asgi"}[host]
    server = {"gthread": "gunicorn", "uvicorn": "uvicorn"}[host]
    return Contender(
        f"{library}-{where}" + ("-requests" if client == "requests" else ""),
        f"{library}, {client}, {server}",
        host,
        f"{_PEERS}:{where}",
        {"BENCH_LIBRARY": library, "BENCH_CLIENT": client},
        (module, client, *_HOSTS[host]),
        local=client != "requests",  # on local files the client makes no difference
        uses_crcs=library == "stream-zip",
    )


_HOSTS = {"gthread": ("gunicorn", "falcon"), "uvicorn": ("uvicorn", "falcon")}
CONTENDERS = (
    Contender(WSGI, "streamware, gunicorn", "gthread", f"{_OURS}:wsgi", needs=_HOSTS["gthread"], uses_crcs=True),
    Contender(ASGI, "streamware, uvicorn", "uvicorn", f"{_OURS}:asgi", needs=_HOSTS["uvicorn"], uses_crcs=True),
    Contender(
        WIDE,
        "streamware, gunicorn, all cores",
        "gthread",
        f"{_OURS}:wsgi",
        needs=_HOSTS["gthread"],
        pinned=False,
        only="text",
    ),
    Contender(
        "streamware-wsgi-6",
        "streamware, level 6, gunicorn",
        "gthread",
        f"{_OURS}:wsgi",
        {"BENCH_COMPRESS": "deflate:6"},
        needs=_HOSTS["gthread"],
        only="text",
    ),
    *(
        _peer(library, module, host, client)
        for library, module in (("zipstream-ng", "zipstream"), ("stream-zip", "stream_zip"))
        for host in _HOSTS
        for client in ("urllib3", "requests")
    ),
    Contender(
        "starlette",
        "stream-zip, Starlette, httpx, uvicorn",
        "uvicorn",
        "bench.programs.starlette_app:asgi",
        needs=("starlette", "stream_zip", "httpx", "uvicorn"),
        uses_crcs=True,
    ),
    Contender("aiohttp", "zipfile, aiohttp", "aiohttp", "bench.programs.aiohttp_app:make", needs=("aiohttp",)),
    Contender("archiver", "archiver, Node", "node", env={"BENCH_LIBRARY": "archiver"}),
    Contender("yazl", "yazl, Node", "node", env={"BENCH_LIBRARY": "yazl"}, uses_crcs=True),
    Contender(MOD_ZIP, "mod_zip, nginx", "nginx", deflate=False, uses_crcs=True),
    Contender(
        BARE,
        "a ready-made archive read and summed, gunicorn",
        "gthread",
        "bench.programs.bare:wsgi",
        needs=("gunicorn", "isal", "urllib3"),
        deflate=False,
    ),
    Contender(FLOOR, "a ready-made archive, nginx", "nginx", uses_crcs=True),
)
_BY_KEY = {contender.key: contender for contender in CONTENDERS}


def by_key(key: str) -> Contender:
    return _BY_KEY[key]


def lacking(contender: Contender) -> str | None:
    """Which Python module it lacks here; None where it lacks none."""
    return next((f"no module {name}" for name in contender.needs if importlib.util.find_spec(name) is None), None)


def server_command(contender: Contender, *, threads: int = 8, node: str | None = None) -> list[str]:
    """The command line of a contender that is not nginx; ``{port}`` in it stands for the port.

    :param threads: how many clients gunicorn serves at the same time.
    """
    python = [sys.executable, "-m"]
    if contender.host == "gthread":
        options = ["--worker-class", "gthread", "--threads", str(threads), "--workers", "1", "--timeout", "600"]
        quiet = ["--graceful-timeout", "1", "--log-level", "warning", "--no-control-socket"]
        return [*python, "gunicorn", "--bind", "127.0.0.1:{port}", *options, *quiet, contender.target]
    if contender.host == "uvicorn":
        quiet = ["--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "1"]
        return [*python, "uvicorn", "--host", "127.0.0.1", "--port", "{port}", *quiet, contender.target]
    if contender.host == "aiohttp":
        return [*python, "aiohttp.web", "-H", "127.0.0.1", "-P", "{port}", contender.target]
    if contender.host == "node" and node is not None:
        return [node, "bench/programs/node.mjs", "{port}"]
    raise ValueError(f"{contender.key} is not started by a command line")
