"""The table of hosts: how each is started, and what is known of it that tests must heed.

The rule of this file: a host's command line stands here once; docs/hosts.md prints it from here.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

__all__ = ["GRACE_SECONDS", "HOSTS", "Host"]

GRACE_SECONDS = 2
_ROOT = Path(__file__).resolve().parents[3]
_APPS = "tests.hosts.matrix.apps"


@dataclass(frozen=True)
class Host:
    """A server program in one of its ways of running.

    ``command`` has the places {port}, {app} and {grace}, and begins with the program. ``packages``: what must be
    installed, "a|b" where either will do; none: it comes with Python. ``unframed``: whether it shows that a body
    without length broke off. ``drains``: whether downloads end before it does, after SIGTERM. ``notices``: whether it
    tells a WSGI app, at a yield, that the client has left.
    """

    name: str
    kind: str  # "wsgi" or "asgi"
    packages: tuple[str, ...]
    command: str
    unframed: bool = True
    drains: bool = True
    notices: bool = True
    http2: bool = False
    downloads: int = 4  # at once
    patience: float = 3.0  # seconds until a download that neither goes on nor ends is said to hang

    @property
    def curl(self) -> str:
        return "--http2-prior-knowledge" if self.http2 else "--http1.1"

    @property
    def package(self) -> str:
        """Names and versions of what is installed. Something missing: a skip, or a failure under ``CI=true``."""
        return ", ".join(_installed(choice) for choice in self.packages) or f"Python {platform.python_version()}"

    def shown(self) -> str:
        """The command as a user would type it."""
        return self.command.format(port=8000, app="module:app", grace=30)

    def arguments(self) -> list[str]:
        """The command as a test runs it; {port} is left to be filled in."""
        program, *options = shlex.split(
            self.command.format(port="{port}", app=f"{_APPS}:{self.kind}", grace=GRACE_SECONDS)
        )
        if program == "uwsgi":  # a program of its own, beside the interpreter
            return [str(Path(sys.executable).parent / program), *options, "--pythonpath", str(_ROOT)]
        if program == "python":
            return [sys.executable, *options]
        if program == "gunicorn":
            options.append("--no-control-socket")  # all of a user's gunicorns would share one
        return [sys.executable, "-m", program.removesuffix("-serve"), *options]


def _installed(choice: str) -> str:
    for package in choice.split("|"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            pass
    reason = f"{choice} is not installed (pip install '.[hosts]')"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _gunicorn(kind: str, worker: str, *packages: str, more: str = "", downloads: int = 4) -> Host:
    command = f"gunicorn --bind 127.0.0.1:{{port}} --worker-class {worker}{more} --graceful-timeout {{grace}} {{app}}"
    return Host(f"gunicorn {worker}", kind, ("gunicorn", *packages), command, downloads=downloads)


def _uvicorn(parser: str, *packages: str) -> Host:
    command = f"uvicorn --host 127.0.0.1 --port {{port}} --http {parser} --timeout-graceful-shutdown {{grace}} {{app}}"
    return Host(f"uvicorn {parser}", "asgi", ("uvicorn", *packages), command)


def _granian(kind: str, unframed: bool) -> Host:
    command = f"granian --host 127.0.0.1 --port {{port}} --interface {kind} --workers-kill-timeout {{grace}} {{app}}"
    return Host(f"granian {kind.upper()}", kind, ("granian",), command, unframed=unframed)


def _hypercorn(name: str, kind: str, *, http2: bool = False, notices: bool = True) -> Host:
    # On HTTP/2 a stream that broke off ends when its connection has been idle for --keep-alive seconds, and not before.
    more = " --keep-alive 1" if http2 else ""
    command = f"hypercorn --bind 127.0.0.1:{{port}} --graceful-timeout {{grace}}{more} {kind}:{{app}}"
    packages = ("hypercorn", "h2") if http2 else ("hypercorn",)
    return Host(f"hypercorn {name}", kind, packages, command, http2=http2, notices=notices)


_UWSGI = (
    "uwsgi --http-socket 127.0.0.1:{port} --master --die-on-term --need-app --lazy-apps --enable-threads --threads 4"
    " --module {app}"
)

HOSTS = (
    _gunicorn("wsgi", "sync", downloads=1),
    _gunicorn("wsgi", "gthread", more=" --threads 16"),
    _gunicorn("wsgi", "gevent", "gevent"),
    _gunicorn("asgi", "asgi"),
    Host("waitress", "wsgi", ("waitress",), "waitress-serve --listen=127.0.0.1:{port} {app}", drains=False),
    Host("cheroot", "wsgi", ("cheroot",), "cheroot --bind 127.0.0.1:{port} {app}", drains=False),
    Host("uWSGI", "wsgi", ("pyuwsgi|uwsgi",), _UWSGI, unframed=False, drains=False),
    Host("wsgiref", "wsgi", (), f"python -m {_APPS} {{port}}", unframed=False, drains=False),
    _granian("wsgi", unframed=False),
    _granian("asgi", unframed=True),
    _uvicorn("h11", "h11"),
    _uvicorn("httptools", "httptools"),
    _hypercorn("WSGI", "wsgi", notices=False),
    _hypercorn("HTTP/1.1", "asgi"),
    _hypercorn("HTTP/2", "asgi", http2=True),
    Host(
        "daphne",
        "asgi",
        ("daphne",),
        "daphne -b 127.0.0.1 -p {port} {app}",
        unframed=False,
        drains=False,
        patience=1.0,
    ),
)
