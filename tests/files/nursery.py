"""Serving processes born in a tenth of a second: a process that has imported everything, and forks.

The rule of this file: what is born runs a server's own command line in a session of its own, exactly as if it had been
typed; nothing was started in the parent besides imports. Run as a program it reads one order a line on stdin, a JSON
object with ``arguments``, ``env``, ``cwd`` and ``log``, and answers with the process's id.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.hosts.servers import ROOT

__all__ = ["Nursery"]

# What servers and the apps in them import anyhow. None of these may start a thread while it is imported.
_IMPORTS = """
    asyncio boto3 falcon falcon.asgi gunicorn.app.wsgiapp gunicorn.workers.gthread httptools multipart obstore
    obstore.store prometheus_client psycopg requests sqlalchemy.dialects.postgresql sqlalchemy.dialects.sqlite
    streamware.middleware streamware.resources streamware.server.cli tusclient.client urllib3 uvicorn uvicorn.main
    uvicorn.protocols.http.httptools_impl
"""


class Nursery:
    """The parent. ``bear`` starts a process, and whoever has it started ends it; ``close`` ends the parent alone."""

    def __init__(self, log: Path) -> None:
        self._lock = threading.Lock()
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.files.nursery"],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": _with_root(os.environ.get("PYTHONPATH", ""))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def bear(self, arguments: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> int:
        """Run ``python -m`` with some arguments, its output added to ``log``; the id of the process and its group."""
        order = {"arguments": [*arguments], "env": dict(env or {}), "cwd": str(ROOT), "log": str(log)}
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, f"the nursery has ended: {self._log.read_text()}"
        return int(answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _with_root(path: str) -> str:
    return os.pathsep.join(part for part in (str(ROOT), path) if part)


def _attend() -> None:
    for name in _IMPORTS.split():
        __import__(name)
    assert threading.active_count() == 1
    assert len(os.listdir("/proc/self/task")) == 1 if os.path.isdir("/proc/self/task") else True
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead leave nothing behind
    while line := sys.stdin.readline():
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _live(order)
        print(pid, flush=True)


def _live(order: dict[str, Any]) -> NoReturn:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    os.closerange(3, 64)
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    module, *arguments = order["arguments"]
    sys.argv = [module, *arguments]
    code: Any = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    _attend()
