"""Node's contenders, installed by npm into a folder that later runs find again.

The rule of this file: a registry that is not there is no failure of the benchmark.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from bench.servers import find_program

__all__ = ["PACKAGES", "cache_folder", "install", "versions"]

PACKAGES = ("archiver@8", "yazl@3", "@tus/server@2", "@tus/file-store@2")


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "streamware-bench"


def install(folder: Path) -> Path | None:
    """The folder with ``node_modules`` in it; None where there is no npm or it could not install."""
    if all((folder / "node_modules" / name.rpartition("@")[0]).is_dir() for name in PACKAGES):
        return folder
    npm = find_program("npm")
    if npm is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-fund", "--no-audit", "--prefix", str(folder), *PACKAGES]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=180)
    except (OSError, subprocess.SubprocessError):
        return None
    return folder


def versions(folder: Path | None) -> dict[str, str]:
    """Of the packages that are there."""
    found = {}
    for name in (package.rpartition("@")[0] for package in PACKAGES if folder is not None):
        about = Path(folder or "", "node_modules", name, "package.json")
        if about.is_file():
            found[name] = str(json.loads(about.read_text(encoding="utf-8"))["version"])
    return found
