"""What is measured: which members, from where, packed how, and who takes part.

The rule of this file: a case is one line of a table, and what is special about it stands in that line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.contenders import ASGI, CONTENDERS, DAV, FILES_ASGI, FILES_WSGI, FLOOR, MOD_ZIP, WSGI, Contender

__all__ = ["CASES", "MAIN", "Case", "case_named", "contenders_of", "takes_part"]


@dataclass(frozen=True, slots=True)
class Case:
    """``share`` of a set's members; ``clients`` above 0 are slow ones; ``late`` is in seconds.

    ``way`` is where the bytes go: out of an archive that is made of members, or one file "in" to a service that keeps
    it, or "out" of there again.
    """

    key: str
    title: str
    set: str
    local: bool = False
    compress: str = "stored"
    crcs: bool = False
    share: float = 1.0
    late: float = 0.0
    clients: int = 0
    most_rounds: int = 100
    only: tuple[str, ...] = ()  # contenders' keys; none stands for all that can
    way: Literal["archive", "in", "out"] = "archive"


_ASKING = (WSGI, ASGI, "zipstream-ng-wsgi", "aiohttp", "archiver", MOD_ZIP)
MAIN = (  # what a change is checked against
    *(WSGI, ASGI, "zipstream-ng-wsgi", "zipstream-ng-asgi", MOD_ZIP, FLOOR),
    *(FILES_WSGI, FILES_ASGI, "aiofiles", DAV),
)
_MANY = (WSGI, ASGI, "zipstream-ng-wsgi")
_CROWDED = (WSGI, ASGI, "zipstream-ng-wsgi", "zipstream-ng-asgi", "aiohttp", MOD_ZIP)

CASES = (
    Case("local/big", "Large files of this disk", "big", local=True),
    Case("up/big", "Large files of another server", "big"),
    Case("local/mid", "1 MiB files of this disk", "mid", local=True),
    Case("up/mid", "1 MiB files of another server", "mid"),
    Case("local/small", "10 KiB files of this disk", "small", local=True),
    Case("up/small", "10 KiB files of another server", "small", share=0.25),
    Case("crc/big", "Large files of another server, checksums known", "big", crcs=True),
    Case("crc/mid", "1 MiB files of another server, checksums known", "mid", crcs=True),
    Case("text", "Log text of this disk, deflated", "text", local=True, compress="deflate"),
    Case("many", "100,000 tiny files of this disk", "many", local=True, most_rounds=1, only=_MANY),
    Case("late", "Files of 20 KiB, each 50 ms late", "late", late=0.05, most_rounds=1, only=_ASKING),
    Case("slow", "Slow clients", "slow", local=True, clients=100, most_rounds=1, only=_CROWDED),
    Case("store/in", "A file uploaded", "file", local=True, way="in"),
    Case("store/out", "A stored file downloaded", "file", local=True, way="out"),
)
_BY_KEY = {case.key: case for case in CASES}


def case_named(key: str) -> Case:
    return _BY_KEY[key]


def takes_part(case: Case, contender: Contender) -> bool:
    """Whether a contender is to be measured in a case, if it is installed."""
    if (case.way == "archive") == bool(contender.takes):
        return False
    if contender.only:
        return case.key == contender.only
    if case.only:
        return contender.key in case.only
    if case.crcs and not contender.uses_crcs:
        return False
    if case.compress != "stored" and not contender.deflate:
        return False
    return contender.local if case.local else contender.upstream


def contenders_of(case: Case) -> list[Contender]:
    return [contender for contender in CONTENDERS if takes_part(case, contender)]
