"""Where it was measured: the machine, the versions, the day and the command.

The rule of this file: without these a number means nothing; they are asked, never typed.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from bench.modules import versions
from bench.servers import ROOT, Cores, find_program
from streamware.checksums import ENGINE

__all__ = ["describe"]

_PACKAGES = (
    *("streamware", "falcon", "urllib3", "isal", "gunicorn", "uvicorn", "zipstream-ng", "stream-zip", "requests"),
    *("aiohttp", "starlette", "httpx", "aiofiles", "obstore", "sqlalchemy"),
)


def describe(cores: Cores, modules: Path | None, given: Sequence[str], mod_zip: str | None) -> dict[str, str]:
    """Labels and what stands beside them, in the order they are shown in."""
    shown = [Path(word).name if Path(word).is_absolute() else word for word in given]
    pinned = "servers on one core, clients and upstream on another"
    return {
        "Date": date.today().isoformat(),
        "Command": f"tox -e bench -- {shlex.join(shown)}" if shown else "tox -e bench",
        "Machine": f"{_processor()}, {os.cpu_count()} cores, {_memory()}",
        "System": f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}",
        "Pinning": pinned if cores.pinned else "none: one core, or no taskset; servers and clients share what there is",
        "Load": _load(),
        "streamware": f"{_commit()}CRC-32 by {ENGINE}",
        "Versions": ", ".join(_versions(modules, mod_zip)),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _memory() -> str:
    found = re.search(r"^MemTotal: *([0-9]+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return f"{int(found[1]) / (1 << 20):.0f} GiB" if found else "memory unknown"


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f} before it began"


def _commit() -> str:
    done = _said("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    return f"commit {done}, " if done else ""


def _versions(modules: Path | None, mod_zip: str | None) -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if node := _said("node", "--version"):
        found.append(f"Node {node.lstrip('v')}")
    found += [f"{name} {version}" for name, version in versions(modules).items()]
    if tusd := re.search(r"^Version: v?(\S+)", _said("tusd", "-version")):
        found.append(f"tusd {tusd[1]}")
    if nginx := _said("nginx", "-v"):
        found.append(nginx.rpartition(": ")[2].replace("/", " ") + (" with mod_zip" if mod_zip else ""))
    return found


def _said(program: str, *options: str) -> str:
    path = find_program(program)
    if path is None:
        return ""
    done = subprocess.run([path, *options], capture_output=True, text=True, timeout=20, check=False)
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else ""
