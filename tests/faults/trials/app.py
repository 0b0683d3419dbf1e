"""The server under trial: nothing but a middleware, which takes manifests at /bundle.

The rule of this file: it is set up from UPSTREAMS (URL prefixes, space between) and has little patience, so that a
thousand trials do not take hours; nothing else differs from the defaults.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from streamware import Archiver, Policy
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware

__all__ = ["asgi", "policy", "wsgi"]


def policy(*allow: str) -> Policy:
    return Policy(
        allow=allow,
        read_timeout_seconds=1.0,
        min_rate_bytes=4096,
        min_rate_seconds=1.0,
        retry_pause_seconds=0.01,
        max_retry_pause_seconds=0.05,
        heal_seconds=12.0,
        member_seconds=30.0,
    )


def _nothing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


async def _nothing_either(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


def _archiver() -> Archiver:
    return Archiver(policy(*os.environ["UPSTREAMS"].split()))


def wsgi() -> BundleMiddleware:
    return BundleMiddleware(_nothing, archiver=_archiver())


def asgi() -> AsyncBundleMiddleware:
    return AsyncBundleMiddleware(_nothing_either, archiver=_archiver())
