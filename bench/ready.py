"""The ready-made archive that nginx serves as the floor.

The rule of this file: it holds the very bytes that streamware would send.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from streamware import Archiver, Bundle, Policy

__all__ = ["write_archive"]


def write_archive(jobs: Path, name: str, to: Path) -> None:
    """Pack the members of a job, always from the files of this disk."""
    job: dict[str, Any] = json.loads(jobs.read_text(encoding="utf-8"))[name]
    bundle = Bundle(to.name, compress=job["compress"])
    for member, *_ in job["members"]:
        bundle.add_file(f"{job['folder']}/{member}", member)
    archiver = Archiver(Policy())
    try:
        body = archiver.open(bundle)
        try:
            with to.open("wb") as file:
                for piece in body:
                    file.write(piece)
        finally:
            body.close()
    finally:
        archiver.close()
