"""Who gets in at all, what every answer of the server carries, and problems as pages for people.

The rule of this file: a program gets what was answered, byte for byte; only a browser, which says that it takes HTML,
sees a problem as a page. It wraps the whole app, so no request gets past it and no answer goes out without these
headers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import urlsplit

from streamware.edge import App, Message, Receive, Scope, Send
from streamware.edge_uploads import drain
from streamware.errors import StreamwareError
from streamware.problems import problem
from streamware.server.page import POLICY, base_of, problem_page
from streamware.server.tokens import CHALLENGES, Tokens
from streamware.upload_errors import FileForbidden, Unauthorized

__all__ = ["Guard"]

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # A page of another site cannot make this server's files its own scripts or images, on loopback least of all.
    (b"cross-origin-resource-policy", b"same-origin"),
)
_VARIES = (b"vary", b"Accept")
_MAX_PROBLEM = 1 << 20  # bytes of a problem that is turned into a page; the service's own are far smaller
_MAX_NAMED = 20  # members named on a page
_READS = ("GET", "HEAD", "OPTIONS")
_OPEN = ("/healthz",)  # asked by what keeps the server alive, and tells nothing


class Guard:
    """ASGI middleware around the whole server.

    :param tokens: one of which a request needs; None lets everybody in who can connect.
    """

    def __init__(self, app: App, tokens: Tokens | None = None) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _joined(scope["headers"])
        page = "text/html" in headers.get("accept", "").lower()
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._app(scope, receive, _Answer(scope, send, page=page).send)
        elif scope["method"] in _READS:
            for message in await _refused(scope, refusal, page):
                await send(message)
        else:
            start, body = await _refused(scope, refusal, page)
            # What comes of the request's body is not kept, so nothing can follow on the connection.
            await send({**start, "headers": [*start["headers"], (b"connection", b"close")]})
            await send({**body, "more_body": True})
            if "expect" not in headers:  # one that has asked first does not send now
                await drain(receive)  # closed over it, the connection may lose the answer
            await send({"type": "http.response.body", "body": b""})

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> StreamwareError | None:
        if (scope["method"] not in _READS or "x-http-method-override" in headers) and _is_foreign(headers):
            return FileForbidden("A page of another site may not change anything here.")
        if self._tokens is None or scope["path"] in _OPEN:
            return None
        authorization = headers.get("authorization")
        if self._tokens.identity(authorization) is not None:
            return None
        return Unauthorized(
            "" if authorization is None else "The token that came is none of this server's.",
            headers=tuple(("WWW-Authenticate", challenge) for challenge in CHALLENGES),
        )


def _is_foreign(headers: dict[str, str]) -> bool:
    """Whether a browser sends this at the wish of a page of another site.

    Such a page could reach a server on loopback, or one whose credentials the browser keeps, though its user means
    neither. Browsers say so themselves (W3C Fetch Metadata section 2.3), but over plain HTTP only on loopback; there
    the Origin (RFC 6454 section 7) is held against the name that the server was asked by. A proxy may have changed
    that name and told the old one; no page can set such headers without being allowed to. Programs say neither.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        asked = urlsplit(origin).netloc
    except ValueError:
        return True
    names = (headers.get("host", ""), *headers.get("x-forwarded-host", "").split(","))
    return not asked or asked.lower() not in (name.strip().lower() for name in names)


def _joined(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw, value in fields:
        name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


async def _refused(scope: Scope, error: StreamwareError, page: bool) -> list[Message]:
    """The two messages of an answer that refuses."""
    said: list[Message] = []

    async def keep(message: Message) -> None:
        said.append(message)

    reply = problem(error)
    fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in reply.headers]
    body = b"" if scope["method"] == "HEAD" else b"".join(reply.body)
    answer = _Answer(scope, keep, page=page)
    await answer.send({"type": "http.response.start", "status": reply.status, "headers": fields})
    await answer.send({"type": "http.response.body", "body": body})
    return said


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
                if _VARIES not in headers:
                    headers.append(_VARIES)
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
