"""Whether rows, parts and objects say the same, seen from outside: SQL read as it stands, objects listed as they lie.

The rule of this file: nothing is asked of the file service itself but to sweep; what it says of itself proves nothing.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import sqlalchemy as sa

from tests.files.services import Place

__all__ = ["Kept", "Row", "agree", "look", "objects_of"]


@dataclass(frozen=True)
class Row:
    """A file or an upload, as its row has it; ``parts`` are offset, length, CRC-32 and key."""

    id: str
    state: str
    size: int
    crc32: int
    sha256: bytes | None
    parts: tuple[tuple[int, int, int, str], ...]


@dataclass(frozen=True)
class Kept:
    """All that is kept at a place: rows by id, and the bytes of objects by key."""

    rows: Mapping[str, Row]
    objects: Mapping[str, int]
    unfinished: tuple[str, ...]  # what writers have left: staged files, multipart uploads that nobody completed


def agree(place: Place, *, sweep: bool = True) -> Kept:
    """Sweep as if long after, then compare; what is kept then.

    :raises AssertionError: rows, parts and objects do not agree.
    """
    if sweep:
        swept(place)
    kept = look(place)
    named: dict[str, str] = {}
    for row in kept.rows.values():
        assert row.state in ("open", "whole"), f"{row.id} is {row.state} after a sweep"
        at = 0
        whole, own = zlib.crc32(b""), hashlib.sha256()
        for offset, length, crc32, key in row.parts:
            assert offset == at, f"{row.id}: a part at {offset}, after one that ends at {at}"
            assert key not in named, f"{key} is a part of {row.id} and of {named.get(key)}"
            named[key] = row.id
            assert kept.objects.get(key) == length, f"{row.id}: {key} should have {length}, has {kept.objects.get(key)}"
            data = read_object(place, key)
            assert (len(data), zlib.crc32(data)) == (length, crc32), f"{row.id}: {key} holds other bytes"
            whole = zlib.crc32(data, whole)
            own.update(data)
            at += length
        assert at == row.size, f"{row.id}: its parts end at {at}, its row says {row.size}"
        assert whole == row.crc32, f"{row.id}: another CRC-32"
        assert row.sha256 in (None, own.digest()), f"{row.id}: another SHA-256"
    orphans = sorted(kept.objects.keys() - named.keys())
    assert not orphans, f"objects of no row: {orphans}"
    assert not kept.unfinished, f"left by writers: {kept.unfinished}"
    return kept
