"""What every answer of the server carries, and problems as pages for people.

The rule of this file: a program gets what was answered, byte for byte; only a browser, which says that it takes HTML,
sees a problem as a page. It wraps the whole app, so no answer goes out without these headers.
"""

from __future__ import annotations

import json

from streamware.edge import App, Message, Receive, Scope, Send
from streamware.server.page import POLICY, base_of, problem_page

__all__ = ["Guard"]

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # A page of another site cannot make this server's files its own scripts or images, on loopback least of all.
    (b"cross-origin-resource-policy", b"same-origin"),
)
_MAX_PROBLEM = 1 << 20  # bytes of a problem that is turned into a page; the service's own are far smaller
_MAX_NAMED = 20  # members named on a page


class Guard:
    """ASGI middleware around the whole server."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept").lower()
        answer = _Answer(scope, send, page=b"text/html" in accept)
        await self._app(scope, receive, answer.send)


class _Answer:
    def __init__(self, scope: Scope, send: Send, *, page: bool) -> None:
        self._scope = scope
        self._send = send
        self._page = page
        self._start: Message | None = None
        self._held = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            there = {name.lower() for name, _ in headers}
            headers += [header for header in _HEADERS if header[0] not in there]
            message = {**message, "headers": headers}
            if _is_problem(headers):
                headers.append((b"vary", b"Accept"))
                if self._page:
                    self._start = message
                    return
        elif self._start is not None:
            self._held += message.get("body", b"")
            if message.get("more_body", False) and len(self._held) <= _MAX_PROBLEM:
                return
            start, self._start = self._start, None
            body = self._render(start)
            if body is None or message.get("more_body", False):
                await self._send(start)
                message = {**message, "body": bytes(self._held)}
            else:
                await self._send({**start, "headers": _as_page(start["headers"], len(body))})
                message = {"type": "http.response.body", "body": b"" if self._scope["method"] == "HEAD" else body}
            self._held.clear()
        await self._send(message)

    def _render(self, start: Message) -> bytes | None:
        try:
            problem = json.loads(self._held)
        except ValueError:
            return None  # the body of a HEAD, or more than is turned into a page
        members = [str(m.get("name", "")) for m in problem.get("members", ())]
        if not members and problem.get("name"):
            members = [str(problem["name"])]
        if len(members) > _MAX_NAMED:
            members = [*members[:_MAX_NAMED], f"and {len(members) - _MAX_NAMED} more"]
        base = base_of(self._scope.get("raw_path") or self._scope["path"].encode())
        heading, detail = str(problem.get("title", "")), str(problem.get("detail", ""))
        return problem_page(base, start["status"], heading, detail, members).encode("utf-8", "replace")


def _is_problem(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(n.lower() == b"content-type" and v.startswith(b"application/problem+json") for n, v in headers)


def _as_page(headers: list[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    replaced = (b"content-type", b"content-length", b"content-security-policy")
    return [
        *(header for header in headers if header[0].lower() not in replaced),
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(length).encode()),
        (b"content-security-policy", POLICY.encode()),
    ]
