"""What the servers that compare ledgers run: every file below FILES, with the ledger that LEDGER names.

The rule of this file: all but the ledger is the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from streamware import Archiver, Policy
from streamware.ledger import BLOCK_BYTES, Ledger
from streamware.middleware import AsyncBundleMiddleware
from streamware.model import Member, Tree

__all__ = ["app"]


class Nothing(Ledger):
    """Learns nothing and knows nothing."""

    def sums(self, versions: Sequence[bytes]) -> dict[bytes, dict[int, int]]:
        return {}

    def learn(self, version: bytes, block: int, crc32: int, length: int = BLOCK_BYTES) -> None:
        pass

    def forget(self, version: bytes) -> None:
        pass

    def coded(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        return {}

    def learn_coded(self, key: bytes, length: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def save(self, token: str, body: bytes, expires: int) -> None:
        """Nobody makes links here."""

    def load(self, token: str) -> tuple[bytes, int] | None:
        return None

    def close(self) -> None:
        pass


def app() -> AsyncBundleMiddleware:
    """What ``uvicorn --factory`` calls."""
    ledger = os.environ["LEDGER"]
    archiver = Archiver(Policy(), ledger if ledger.startswith("sqlite:") else None)
    if ledger.startswith("none"):
        archiver.ledger = Nothing()

    async def no_page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return AsyncBundleMiddleware(no_page, archiver=archiver, local=lambda href: [Member("", Tree(os.environ["FILES"]))])
