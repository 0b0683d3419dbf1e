"""Bundles for any WSGI or ASGI app: its own paths as members, and file lists it answers with made into archives.

The rule of this file: it carries requests in and replies out, and what it need not touch it does not touch: an ordinary
answer reaches the server as the very object the app gave. What is decided is decided in ``streamware.intercept``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from streamware.edge import App, Message, Receive, Scope, Send
from streamware.edge_replies import answer
from streamware.edge_subrequests import AsgiSubrequests
from streamware.edge_uploads import ExpectContinue
from streamware.errors import InvalidManifest, LimitExceeded, RequestError, StreamwareError
from streamware.held import HeldSend, HeldStart, LateAnswer
from streamware.inner import DEPTH, environ_for, headers_in, headers_of, path_in, scope_for
from streamware.intercept import Asked, Interception, Local
from streamware.list_head import ListHead
from streamware.model import Facts, Source
from streamware.reply import Conditions, Reply
from streamware.semantics import parse_length
from streamware.service import Archiver
from streamware.sources.subrequest import SubrequestSource
from streamware.sources.wsgi_answer import WsgiAnswer, WsgiApp
from streamware.target import without_conditions

__all__ = ["AsyncBundleMiddleware", "BundleMiddleware", "ExpectContinue"]

_READ_BYTES = 64 * 1024


class BundleMiddleware:
    """Bundles in front of a WSGI app.

    :param path: where bundles are asked for, below where the app is mounted, and links to them just below that.
        Everything else reaches the app.
    :param archiver: shared with whatever else makes archives, closed by whoever made it; None: one of its own.
    :param local: ``local(href)`` gives the members that stand for a path without asking the app - a file this server
        holds, all files of a folder - or None to ask the app. It may be called from any thread, may wait, and may raise
        StreamwareError. Where a manifest names the member, a single file goes by that name and a folder's files stand
        under it; where the name comes from the path, they keep the names they were given.
    :raises ValueError: ``path`` is no path below ``/``.
    """

    def __init__(
        self, app: WsgiApp, path: str = "/bundle", archiver: Archiver | None = None, *, local: Local | None = None
    ) -> None:
        self.app = app
        self.archiver = Archiver() if archiver is None else archiver
        self._bundles = Interception(path, self.archiver, local)
        self._met = False  # the host, by a first request

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get(DEPTH):
            return self.app(environ, start_response)
        if not self._met:
            self._met = True
            self.archiver.meet(environ, start_response)
        path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")
        if self._bundles.stands_at(path):
            return self._bundle(environ, path, start_response)
        before = dict(environ)  # the app may change its own
        watch = HeldStart(start_response, before, self._bundles.limit(None))
        result = self.app(environ, watch)
        if watch.passed:
            return result
        late = LateAnswer(result, watch, partial(self._replace, before, path))
        return late if watch.head is None else late.replaced(())

    def _bundle(self, environ: dict[str, Any], path: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        headers = headers_of(environ)
        if environ.get("CONTENT_TYPE"):
            headers.append(("content-type", environ["CONTENT_TYPE"]))
        query = environ.get("QUERY_STRING", "").encode("latin-1", "replace")
        mount = quote(environ.get("SCRIPT_NAME", "").rstrip("/").encode("latin-1", "replace"))
        conditions = self._conditions(environ)
        asked = Asked(method, mount, path, query, headers, partial(self._read, environ), conditions)
        reply = self._bundles.asked(asked, partial(self._open, environ, None))
        return _begin(reply, method, start_response)

    def _conditions(self, environ: dict[str, Any]) -> Conditions:
        return Conditions.from_environ(environ, client_header=self.archiver.policy.client_header)

    def _open(self, environ: dict[str, Any], only: frozenset[str] | None, href: str, pinned: Facts | None) -> Source:
        deepest = self.archiver.policy.max_subrequest_depth
        return SubrequestSource(self.app, environ, href, only=only, pinned=pinned, max_depth=deepest)

    def _read(self, environ: dict[str, Any]) -> bytes:
        """The body of a POST. Without a length, its end must be told from a connection that broke off."""
        announced = parse_length(environ.get("CONTENT_LENGTH") or None)
        limit = self._bundles.limit(announced)
        if announced is None and not environ.get("wsgi.input_terminated"):
            if environ.get("HTTP_TRANSFER_ENCODING"):
                error = RequestError("This server needs the Content-Length of a manifest.")
                error.status = 411
                raise error
            announced = 0
        most = limit + 1 if announced is None else announced
        try:
            body = b"".join(_blocks(environ["wsgi.input"], most))
        except (OSError, ValueError) as error:  # so servers say that the connection broke, or its chunks are wrong
            raise InvalidManifest("The request's body broke off.") from error
        if announced is None and len(body) > limit:
            raise LimitExceeded(f"A manifest may have {limit} bytes, and this one has more.")
        if announced is not None and len(body) < announced:
            raise InvalidManifest("The request's body is shorter than its Content-Length.")
        return body

    def _replace(
        self,
        before: dict[str, Any],
        path: str,
        watch: HeldStart,
        pieces: Iterator[bytes],
        close: Callable[[], None],
    ) -> Iterable[bytes]:
        """Answer with the archive in place of the list in ``pieces``; the app's answer is closed first."""
        head, method = watch.head, before["REQUEST_METHOD"]
        assert head is not None
        try:
            try:
                listed = self._bundles.gather(pieces) if head.readable(method) else None
            finally:
                close()
            if listed is None:
                head, listed = self._ask_again(before)
        except StreamwareError as error:
            reply = self._bundles.unusable(error)
        else:
            open_path = partial(self._open, before, self._bundles.passed(head))
            reply = self._bundles.listed(head, listed, path, self._conditions(before), open_path)
        return _begin(reply, method, watch.start_response)

    def _ask_again(self, before: dict[str, Any]) -> tuple[ListHead, bytes]:
        again = WsgiAnswer(self.app, environ_for(before, "GET", without_conditions(headers_of(before))))
        try:
            return ListHead.of_second(again.status, again.headers), self._bundles.gather(again)
        finally:
            again.close()


def _begin(reply: Reply, method: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Give a reply to a WSGI server, which closes what is returned."""
    try:
        start_response(f"{reply.status} {HTTPStatus(reply.status).phrase}", list(reply.headers))
    except BaseException:
        reply.body.close()
        raise
    if method == "HEAD" or reply.body.length == 0:
        reply.body.close()
        return [b""]  # not nothing: some servers send no head before the first piece, be it empty
    return reply.body


def _blocks(stream: Any, size: int) -> Iterator[bytes]:
    while size and (block := stream.read(min(size, _READ_BYTES))):
        size -= len(block)
        yield block


# --- ASGI --------------------------------------------------------------------------------------------------------


class AsyncBundleMiddleware:
    """Bundles in front of an ASGI app; see BundleMiddleware. WebSockets, lifespan and the like pass untouched."""

    def __init__(
        self, app: App, path: str = "/bundle", archiver: Archiver | None = None, *, local: Local | None = None
    ) -> None:
        self.app = app
        self.archiver = Archiver() if archiver is None else archiver
        self._bundles = Interception(path, self.archiver, local)
        self._met = False  # the host, by a first request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get(DEPTH):
            await self.app(scope, receive, send)
            return
        if not self._met:
            self._met = True
            self.archiver.meet(scope)
        if self._bundles.stands_at(path_in(scope)):
            await self._bundle(scope, receive, send)
        else:
            await self._watch(scope, receive, send)

    async def _bundle(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, headers = scope["method"], headers_in(scope)
        body: Callable[[], bytes] = bytes
        if method == "POST":
            try:
                received = await self._read(headers, receive)
            except StreamwareError as error:
                body = partial(_raise, error)
            else:
                if received is None:
                    return
                body = partial(bytes, received)
        subrequests = AsgiSubrequests(self.app, scope, self.archiver)
        mount = quote(scope.get("root_path", "").rstrip("/"))
        conditions = self._conditions(scope)
        asked = Asked(method, mount, path_in(scope), scope.get("query_string", b""), headers, body, conditions)
        make = partial(self._bundles.asked, asked, subrequests)
        await answer(
            self.archiver, make, method, receive, send, on_leave=subrequests.abort, client=asked.conditions.client
        )

    def _conditions(self, scope: Scope) -> Conditions:
        return Conditions.from_scope(scope, client_header=self.archiver.policy.client_header)

    async def _read(self, headers: list[tuple[str, str]], receive: Receive) -> bytes | None:
        """The body of a POST; None where the client has left."""
        limit = self._bundles.limit(
            parse_length(next((value for name, value in headers if name == "content-length"), None))
        )
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise LimitExceeded(f"A manifest may have {limit} bytes, and this one has more.")
        return bytes(body)

    async def _watch(self, scope: Scope, receive: Receive, send: Send) -> None:
        before = dict(scope)  # the app may change its own
        watch = HeldSend(send, before, self._bundles.limit(None))
        await watch.run(self.app, scope, receive)
        head, method = watch.head, before["method"]
        if head is None:
            return
        try:
            if not head.readable(method):
                watch = await self._ask_again(before, receive)
                head = watch.second_head()
            listed = watch.listed()
        except StreamwareError as error:
            await answer(self.archiver, partial(self._bundles.unusable, error), method, receive, send)
            return
        conditions = self._conditions(before)
        subrequests = AsgiSubrequests(self.app, before, self.archiver, only=self._bundles.passed(head))
        make = partial(self._bundles.listed, head, listed, path_in(before), conditions, subrequests)
        await answer(self.archiver, make, method, receive, send, on_leave=subrequests.abort, client=conditions.client)

    async def _ask_again(self, before: Scope, receive: Receive) -> HeldSend:
        scope = scope_for(before, "GET", without_conditions(headers_in(before)))
        asked = False

        async def nothing_then_leaving() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            while (message := await receive())["type"] != "http.disconnect":
                pass
            return message

        watch = HeldSend(_to_nobody, scope, self._bundles.limit(None))
        await watch.run(self.app, scope, nothing_then_leaving)
        return watch


async def _to_nobody(message: Message) -> None:
    """A send that drops everything."""


def _raise(error: StreamwareError) -> bytes:
    raise error
