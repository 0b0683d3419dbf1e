"""Fetch the tus client of the page from npm again: exactly the version that vendor/README.md names, or nothing.

The rule of this file: nothing is written before the package was found to be the one whose integrity is written down.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from base64 import b64encode
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "streamware" / "server" / "static" / "vendor"
# In the package, and here.
FILES = {"package/dist/tus.min.js": "tus.min.js", "package/LICENSE": "tus-js-client.LICENSE"}


def main() -> int:
    """Write the files, or with ``--check`` compare them; 1 where they are not what they should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    check = parser.parse_args().check
    said = (VENDOR / "README.md").read_text(encoding="utf-8")
    version, integrity = _one(r"tus-js-client-([0-9.]+)\.tgz", said), _one(r"(sha512-[A-Za-z0-9+/]+=*)", said)
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"tus-js-client@{version}"]
        subprocess.run(command, cwd=folder, check=True, timeout=300, stdout=subprocess.DEVNULL)
        package = Path(folder, f"tus-js-client-{version}.tgz")
        found = "sha512-" + b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if found != integrity:
            print(f"the package is not the one of vendor/README.md: {found}", file=sys.stderr)
            return 1
        with tarfile.open(package) as tar:
            fresh = {here: tar.extractfile(there).read() for there, here in FILES.items()}  # type: ignore[union-attr]
    other = [name for name, data in fresh.items() if not _is(VENDOR / name, data)]
    if not check:
        for name in other:
            (VENDOR / name).write_bytes(fresh[name])
    print(f"tus-js-client {version}: {', '.join(other) or 'nothing'} {'differs' if check else 'written'}")
    return 1 if check and other else 0


def _one(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"vendor/README.md has nothing like {pattern}")
    return match[1]


def _is(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


if __name__ == "__main__":
    sys.exit(main())
