"""Whether rows, parts and objects say the same, seen from outside: SQL read as it stands, objects listed as they lie.

The rule of this file: nothing is asked of the file service itself but to sweep; what it says of itself proves nothing.
"""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import boto3
import sqlalchemy as sa

from tests.files.services import Place

__all__ = ["Kept", "Row", "agree", "look"]

_DAY = 24 * 3600.0
SOON, LATE = 2 * _DAY, 400 * _DAY  # after what is left over is swept, and after unfinished uploads have expired
_KEY = re.compile(r"[0-9a-f]{2}/([0-9a-f-]{36})/[0-9a-f]{16}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Row:
    """A file or an upload, as its row has it; ``parts`` are offset, length, CRC-32 and key."""

    id: str
    state: str
    received: int
    length: int | None
    crc32: int
    sha256: bytes | None
    parts: tuple[tuple[int, int, int, str], ...]


@dataclass(frozen=True)
class Kept:
    """All that is kept at a place: rows by id, sizes of objects by key, and what writers left by halves."""

    rows: Mapping[str, Row]
    objects: Mapping[str, int]
    halves: tuple[str, ...]

    @property
    def strays(self) -> set[str]:
        """Keys of objects that are part of nothing, and belong to no upload that may still go on."""
        named = {key for row in self.rows.values() for *_, key in row.parts}
        running = {row.id for row in self.rows.values() if row.state == "open"}
        return {key for key in self.objects.keys() - named if key.split("/")[1] not in running}


def agree(place: Place, after: float | None = LATE) -> Kept:
    """Whether all that is kept at a place agrees; what that is.

    :param after: seconds from now that somebody sweeps. After LATE there must be whole files and nothing else, after
        SOON unfinished uploads besides; None: nobody sweeps, and only what is counted must be there and right.
    :raises AssertionError: it does not agree.
    """
    if after is not None:
        sweep(place, after)
    kept = look(place)
    seen: dict[str, str] = {}
    for row in kept.rows.values():
        if after is not None:
            assert row.state == "whole" or (row.state == "open" and after < LATE), f"{row.id} is {row.state}"
        if row.state == "gone":
            continue
        at, crc, own = 0, 0, hashlib.sha256()
        for offset, length, crc32, key in row.parts:
            assert offset == at, f"{row.id}: a part at {offset}, behind one that ends at {at}"
            assert key not in seen, f"{key} is part of {row.id} and of {seen.get(key)}"
            seen[key] = row.id
            assert kept.objects.get(key) == length, f"{row.id} counts {length} of {key}: {kept.objects.get(key)}"
            data = _read(place, key)
            assert (len(data), zlib.crc32(data)) == (length, crc32), f"{row.id}: other bytes in {key}"
            crc = zlib.crc32(data, crc)
            own.update(data)
            at += length
        assert at == row.received, f"{row.id}: its parts end at {at}, its row says {row.received}"
        assert row.state != "whole" or at == row.length, f"{row.id}: a whole file of {row.length} has {at}"
        assert crc == row.crc32, f"{row.id}: another CRC-32"
        assert row.sha256 in (None, own.digest()), f"{row.id}: another SHA-256"
    if after is not None:
        assert not kept.strays, f"objects of no row: {sorted(kept.strays)}"
        assert not kept.halves or after < LATE, f"left by writers: {kept.halves}"
    if after == LATE:
        assert kept.objects.keys() == seen.keys()
    return kept


def sweep(place: Place, after: float) -> None:
    """Sweep as if so many seconds had passed, until nothing more is to be done, and let others sweep again."""
    store = place.open()
    try:
        real = time.time
        for again in range(3):  # what has expired is given some hours for those who read it
            with patch("time.time", lambda n=again: real() + after + n * _DAY / 4):
                assert store.sweep().ours, "somebody else was sweeping"
                store.rows.claim("sweep", 0.0, time.time())
    finally:
        store.close()
    with _connected(place) as connection:
        connection.execute(sa.text("DELETE FROM streamware_leases"))


def look(place: Place) -> Kept:
    """What rows, parts and objects there are."""
    with _connected(place) as connection:
        parts: defaultdict[str, list[tuple[int, int, int, str]]] = defaultdict(list)
        wanted = sa.text('SELECT file, "offset", length, crc32, key FROM streamware_parts ORDER BY file, "offset"')
        for file, *part in connection.execute(wanted):
            parts[file].append((part[0], part[1], part[2], part[3]))
        rows = {
            row[0]: Row(row[0], row[1], row[2], row[3], row[4], row[5] and bytes(row[5]), tuple(parts.pop(row[0], ())))
            for row in connection.execute(
                sa.text("SELECT id, state, received, length, crc32, sha256 FROM streamware_files")
            )
        }
    assert not parts, f"parts of no file: {dict(parts)}"
    whole, halves = {}, []
    for key, size in _objects(place):
        if _KEY.fullmatch(key):
            whole[key] = size
        elif not key.startswith(".streamware"):  # whose store it is
            halves.append(key)
    return Kept(rows, whole, tuple(halves))


def _connected(place: Place) -> sa.Connection:
    engine = sa.create_engine(place.database, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    return engine.connect()


def _objects(place: Place) -> Iterator[tuple[str, int]]:
    """Keys and sizes of all that lies in a store, whole or not."""
    folder = place.folder
    if folder is not None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(folder)), path.stat().st_size
        return
    bucket, prefix, client = _bucket(place)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for found in page.get("Contents", ()):
            yield found["Key"].removeprefix(f"{prefix}/"), found["Size"]


def _read(place: Place, key: str) -> bytes:
    if place.folder is not None:
        return (place.folder / key).read_bytes()
    bucket, prefix, client = _bucket(place)
    return bytes(client.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"].read())


@cache
def _client(endpoint: str) -> Any:
    keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=endpoint, **keys)


def _bucket(place: Place) -> tuple[str, str, Any]:
    at = urlsplit(place.store)
    return at.netloc, at.path.strip("/"), _client(place.options["aws_endpoint"])
