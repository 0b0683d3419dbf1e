"""Who takes part: streamware, and what a user would pick instead.

The rule of this file: a contender is one line of a table; all run one process on one core, but where their lines say
otherwise.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = [
    "ASGI",
    "BARE",
    "CONTENDERS",
    "DAV",
    "FILES_ASGI",
    "FILES_WSGI",
    "FLOOR",
    "MOD_ZIP",
    "SINK",
    "WIDE",
    "WSGI",
    "Contender",
    "Takes",
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
SINK = "sink"
FILES_WSGI = "files-wsgi"  # the two that file services are held against
FILES_ASGI = "files-asgi"
DAV = "dav"

Takes = Literal["", "post", "put", "tus"]


@dataclass(frozen=True, slots=True)
class Contender:
    """``host`` is what serves it: gthread, uvicorn, aiohttp, node, tusd or nginx; ``target`` what it is told to run.

    ``takes`` tells how a file service is sent a file; "" is for those that make archives.
    """

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
    takes: Takes = ""


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
_STORED = {host: (*modules, "obstore", "sqlalchemy", "multipart") for host, modules in _HOSTS.items()}
_FILES = "bench.programs.files_app"
_AIOFILES = "bench.programs.aiofiles_app:make"
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
    Contender(
        FILES_WSGI, "streamware files, gunicorn", "gthread", f"{_FILES}:wsgi", needs=_STORED["gthread"], takes="post"
    ),
    Contender(
        FILES_ASGI, "streamware files, uvicorn", "uvicorn", f"{_FILES}:asgi", needs=_STORED["uvicorn"], takes="post"
    ),
    Contender(
        "files-tus",
        "streamware files by tus, uvicorn",
        "uvicorn",
        f"{_FILES}:asgi",
        needs=_STORED["uvicorn"],
        only="store/in",
        takes="tus",
    ),
    Contender("aiofiles", "aiohttp, aiofiles", "aiohttp", _AIOFILES, needs=("aiohttp", "aiofiles"), takes="post"),
    Contender(
        "aiofiles-large",
        "aiohttp, aiofiles, pieces of 1 MiB",
        "aiohttp",
        _AIOFILES,
        {"BENCH_CHUNK": "1048576"},
        needs=("aiohttp", "aiofiles"),
        takes="post",
    ),
    Contender(
        "aiofiles-sha256",
        "aiohttp, aiofiles, SHA-256",
        "aiohttp",
        _AIOFILES,
        {"BENCH_DIGEST": "sha256"},
        needs=("aiohttp", "aiofiles"),
        only="store/in",
        takes="post",
    ),
    Contender(
        "aiohttp-file",
        "aiohttp, FileResponse",
        "aiohttp",
        _AIOFILES,
        {"BENCH_SEND": "FileResponse"},
        needs=("aiohttp", "aiofiles"),
        only="store/out",
        takes="post",
    ),
    Contender(
        SINK,
        "a body hashed and dropped, uvicorn",
        "uvicorn",
        "bench.programs.sink:asgi",
        needs=("uvicorn",),
        only="store/in",
        takes="post",
    ),
    # Under Node 20 it ends when a client that it gave a file to goes away.
    Contender("tus-node", "@tus/server, Node", "node", "bench/programs/tus.mjs", only="store/in", takes="tus"),
    Contender("tusd", "tusd, Go", "tusd", only="store/in", takes="tus"),
    Contender(DAV, "WebDAV PUT, nginx", "nginx", takes="put"),
)
_BY_KEY = {contender.key: contender for contender in CONTENDERS}


def by_key(key: str) -> Contender:
    return _BY_KEY[key]


def lacking(contender: Contender) -> str | None:
    """Which Python module it lacks here; None where it lacks none."""
    return next((f"no module {name}" for name in contender.needs if importlib.util.find_spec(name) is None), None)


def server_command(contender: Contender, store: Path, *, threads: int = 8, program: str | None = None) -> list[str]:
    """The command line of a contender that is not nginx; ``{port}`` in it stands for the port.

    :param store: the folder for one that is told of it by no environment.
    :param threads: how many clients gunicorn serves at the same time.
    :param program: the path of a host that is no Python module.
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
    if contender.host == "node" and program is not None:
        return [program, contender.target or "bench/programs/node.mjs", "{port}"]
    if contender.host == "tusd" and program is not None:
        where = ["-host", "127.0.0.1", "-port", "{port}", "-base-path", "/files/", "-upload-dir", str(store)]
        return [program, *where, "-expose-metrics=false", "-verbose=false"]
    raise ValueError(f"{contender.key} is not started by a command line")
