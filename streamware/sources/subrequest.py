"""Members that the wrapped app itself answers: a source of such answers, whatever way leads to the app.

The rule of this file: an answer is judged by ``streamware.inner``, like any other server's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from streamware.errors import BodyClosed, MemberError
from streamware.inner import (
    DEPTH,
    Settled,
    aim,
    cut,
    deeper,
    environ_for,
    headers_of,
    identity_of,
    range_headers,
    settle,
)
from streamware.model import Chunks, Facts
from streamware.plan import Window
from streamware.sources.proof import ProvedChunks
from streamware.sources.wsgi_answer import WsgiAnswer, WsgiApp
from streamware.target import carried

__all__ = ["Answer", "InnerSource", "SubrequestSource"]

_log = logging.getLogger("streamware")

Headers = list[tuple[str, str]]


class Answer(Protocol):
    """What an app answered. Iterating gives the body and raises MemberError; whoever asked closes it."""

    status: int
    headers: Headers

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def ready(self) -> bool: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class InnerSource:
    """A member behind ``call(method, headers) -> Answer``: probing, pinning, opening at an offset.

    The first usable answer pins size and validator; one that differs later is an error, never a second version.

    :param pinned: what has been declared of the member, None for nothing.
    :param identity: the member's name among all contents.
    """

    def __init__(self, call: Callable[[str, Headers], Answer], *, identity: str, pinned: Facts | None = None) -> None:
        self._call = call
        self._identity = identity
        self._pinned = pinned or Facts()
        self._kept: tuple[Answer, Settled] | None = None

    def probe(self, *, keep: bool = False) -> Facts:
        self.close()
        if keep and self._pinned.size != 0:
            self._kept = self._ask("GET", None)
        else:
            self._look()
        return replace(self._pinned, identity=self._identity)

    def open(self, start: int, length: int | None) -> Chunks:
        kept, self._kept = self._kept, None
        if kept is not None and start:
            kept[0].close()
            kept = None
        if kept is None:
            kept = self._ask("GET", self._part(start, length))
        answer, settled = kept
        chunks = _AnswerChunks(answer, cut(answer, skip=settled.skip, take=length, length=settled.length))
        if settled.facts.digest is not None and start == 0 and length in (None, settled.facts.size):
            return ProvedChunks(chunks, settled.facts.digest)
        return chunks

    def close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[0].close()

    def _part(self, start: int, length: int | None) -> Window | None:
        """What to ask for by Range: nothing where the whole is wanted, or may be."""
        if start == 0 and (length is None or not length or self._pinned.size in (None, length)):
            return None
        return Window(start, None if length is None else start + length)

    def _look(self) -> None:
        """Look at the head alone. Apps that do not answer HEAD well, or leave it without a length, are asked by GET."""
        before = self._pinned
        try:
            answer, settled = self._ask("HEAD", None)
            answer.close()
            if settled.facts.size:
                return
        except MemberError as error:
            _log.debug("HEAD failed, asking with GET: %s", error)
        self._pinned = before
        answer, settled = self._ask("GET", None)
        try:
            if settled.length == 0:  # it will not be opened, so here is where it must show
                any(cut(answer, length=0))
        finally:
            answer.close()

    def _ask(self, method: str, asked: Window | None) -> tuple[Answer, Settled]:
        answer = self._call(method, [] if asked is None else range_headers(asked, self._pinned))
        try:
            settled = settle(answer.status, answer.headers, asked=asked, pinned=self._pinned)
        except BaseException:
            answer.close()
            raise
        self._pinned = settled.facts
        return answer, settled


class _AnswerChunks:
    """The part of an answer that was asked for."""

    def __init__(self, answer: Answer, pieces: Iterator[bytes]) -> None:
        self._answer = answer
        self._pieces = pieces
        self._aborted = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._aborted:
            piece = next(self._pieces)
            if not self._aborted:
                return piece
        raise BodyClosed("aborted")

    def ready(self) -> bool:
        return self._answer.ready()

    def abort(self) -> None:
        self._aborted = True
        self._answer.abort()

    def close(self) -> None:
        self._answer.close()


# --- WSGI --------------------------------------------------------------------------------------------------------


class SubrequestSource(InnerSource):
    """A member that a WSGI app answers, asked in the calling thread.

    :param environ: the outer request's, as it was before the app saw it; it is copied, not changed.
    :param only: lower-case names of the outer request's headers that are passed on; None for the caller's credentials
        and what goes with them (``target.carried``).
    :param bundle_path: the path that members must not lead to; None where that has been checked.
    :param pinned: what has been declared of the member.
    :param max_depth: inside of how many bundles it may stand (``Policy.max_subrequest_depth``).
    :raises InvalidTarget: the href is no path, or leads to the bundles.
    :raises LoopDetected: it would stand inside of more bundles than that.
    """

    def __init__(
        self,
        app: WsgiApp,
        environ: Mapping[str, Any],
        href: str,
        *,
        only: frozenset[str] | None = None,
        bundle_path: str | None = None,
        pinned: Facts | None = None,
        max_depth: int = 3,
    ) -> None:
        target = aim(href, bundle_path)
        depth = deeper(environ, max_depth)
        taken = carried(headers_of(environ), only)

        def call(method: str, headers: Headers) -> Answer:
            inner = environ_for(environ, method, taken + headers, target=target)
            inner[DEPTH] = depth
            return WsgiAnswer(app, inner)

        host, root = str(environ.get("HTTP_HOST", "")), str(environ.get("SCRIPT_NAME", ""))
        super().__init__(call, identity=identity_of(host, root, target), pinned=pinned)
        self.bound = True  # frameworks keep connections and the like by thread, and let go of them in close()
        # An app that may not be entered by two threads at once is asked for one member after another.
        self.serial = not environ.get("wsgi.multithread", False)
