"""What a contender is given: the members, listed beforehand, and how they are to be packed.

The rule of this file: it is read once, when a server starts, and told alike to every contender.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CHUNK", "Given", "Job", "body_reader", "read_jobs"]

CHUNK = 65536  # bytes the peers read at a time, as their documentation shows; a larger piece gains them little


@dataclass(frozen=True, slots=True)
class Given:
    name: str
    path: str
    url: str
    size: int
    crc32: int | None  # None: nobody knows it
    modified: int


@dataclass(frozen=True, slots=True)
class Job:
    local: bool  # members are files here, else behind another server
    compress: str  # "stored", "deflate" or what a contender takes besides
    members: tuple[Given, ...]


def read_jobs() -> dict[str, Job]:
    """By the name of the archive, without ``.zip``: the file that BENCH_JOBS names."""
    told = json.loads(Path(os.environ["BENCH_JOBS"]).read_text(encoding="utf-8"))
    compress = os.environ.get("BENCH_COMPRESS") or None
    return {
        name: Job(
            local=job["local"],
            compress=compress or job["compress"],
            members=tuple(
                Given(member, f"{job['folder']}/{member}", f"{job['url']}/{member}", size, crc, modified)
                for member, size, crc, modified in job["members"]
            ),
        )
        for name, job in told.items()
    }


def body_reader() -> Callable[[str], Iterator[bytes]]:
    """How a synchronous peer reads an upstream: with urllib3, or with requests where BENCH_CLIENT says so."""
    if os.environ.get("BENCH_CLIENT") == "requests":
        import requests

        session = requests.Session()

        def read(url: str) -> Iterator[bytes]:
            with session.get(url, stream=True, timeout=60) as response:
                response.raise_for_status()
                yield from response.iter_content(CHUNK)

        return read

    import urllib3

    pool = urllib3.PoolManager(maxsize=128)

    def read_pooled(url: str) -> Iterator[bytes]:
        response = pool.request("GET", url, preload_content=False, timeout=60)
        try:
            if response.status != 200:
                raise OSError(f"{url} answered {response.status}")
            yield from response.stream(CHUNK)
        finally:
            response.release_conn()

    return read_pooled
