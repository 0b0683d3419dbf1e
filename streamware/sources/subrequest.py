"""Members that the wrapped app itself answers: a source of such answers, and the WSGI way to an answer.

The rules of this file: an answer is judged by ``streamware.inner``, like any other server's; and the iterable of a WSGI
app is always closed (PEP 3333), also when the app, the answer or the reader failed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from typing import IO, Any, Protocol

from streamware.errors import BodyClosed, MemberError, SourceError
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
from streamware.target import carried

__all__ = ["Answer", "InnerSource", "SubrequestSource", "WsgiAnswer", "WsgiApp"]

_log = logging.getLogger("streamware")

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]

_BLOCK = 256 * 1024  # one read of a file an app hands over
_MAX_WRITTEN = 16 * 1024 * 1024  # bytes; what an app may push through write() at once, for nobody can stop it meanwhile


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


class WsgiAnswer:
    """Calls a WSGI app, without a request body, and is its answer: settled once the first bytes are there.

    :param environ: for this call alone; see ``inner.environ_for``.
    :raises SourceError: the app failed, or never called ``start_response``.
    """

    def __init__(self, app: WsgiApp, environ: dict[str, Any]) -> None:
        self.status = 0
        self.headers: Headers = []
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._wrote = 0
        self._given = False
        self._closed = False
        self._result: Iterable[bytes] = ()
        environ["wsgi.input"] = BytesIO()
        environ["wsgi.file_wrapper"] = _FileBlocks
        self._path = environ.get("PATH_INFO")
        try:
            self._result = app(environ, self._start_response)
            self._items = iter(self._result)
            self._hold_first(head=environ["REQUEST_METHOD"] == "HEAD")
        except SourceError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self._failure(error) from error
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._given = True
        try:
            while not self._held:
                self._pull()
        except (StopIteration, SourceError):
            raise
        except Exception as error:
            raise self._failure(error) from error
        piece = self._held.popleft()
        self._held_bytes -= len(piece)
        return piece

    def _failure(self, error: Exception) -> SourceError:
        # Whoever waits for the member learns what failed, and no framework around the app sees it.
        _log.error("the app failed while it answered for a member: %s", self._path, exc_info=error)
        return SourceError(f"the app failed: {error!r}")

    def ready(self) -> bool:
        return bool(self._held) or isinstance(self._result, list | tuple)

    def abort(self) -> None:
        pass  # a WSGI app cannot be interrupted; the reader stops at its next piece

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        close = getattr(self._result, "close", None)
        if close is not None:
            try:
                close()
            except Exception:
                # The member has been read or given up by now; the app's failure is for the app's log.
                _log.exception("an app failed while its answer was closed")

    def _hold_first(self, *, head: bool) -> None:
        """Go on until the head is settled: an app may call ``start_response`` late, and again until bytes are there."""
        try:
            while not self.status or not (head or self._held):
                self._pull()
        except StopIteration:
            if not self.status:
                raise SourceError("the app never called start_response") from None
        framed = any(name.lower() in ("content-length", "transfer-encoding") for name, _ in self.headers)
        if self.status == 200 and not head and not framed and isinstance(self._result, list | tuple):
            self.headers.append(("Content-Length", str(self._wrote + sum(map(len, self._result)))))

    def _pull(self) -> None:
        """Hold the app's next item; what it wrote meanwhile stands before it."""
        try:
            item = next(self._items)
        except StopIteration:
            self._items = iter(())  # not every app bears to be asked once more after its end
            raise
        if not isinstance(item, bytes):
            raise SourceError(f"the app's body is made of {type(item).__name__}, not bytes")
        self._hold(item)

    def _hold(self, data: bytes) -> None:
        if data:
            self._held.append(data)
            self._held_bytes += len(data)

    def _start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        try:
            if exc_info is not None and self._given:
                raise exc_info[1].with_traceback(exc_info[2])
            if exc_info is None and self.status:
                raise SourceError("the app called start_response twice")
        finally:
            exc_info = None  # else the traceback and this frame would hold each other
        code = status[:3]
        if not (code.isascii() and code.isdigit()):
            raise SourceError(f"the app's status is {status!r}")
        self.status = int(code)
        self.headers = list(headers)
        return self._write

    def _write(self, data: bytes) -> None:
        if self._held_bytes + len(data) > _MAX_WRITTEN:
            raise SourceError(f"the app wrote more than {_MAX_WRITTEN} bytes at once; it should return an iterable")
        self._hold(bytes(data))
        self._wrote += len(data)


class _FileBlocks:
    """``wsgi.file_wrapper`` for members: blocks of a size worth a step, whatever block size the app thought of."""

    def __init__(self, file: IO[bytes], block_size: int = _BLOCK) -> None:
        self._file = file
        self._block = max(block_size, _BLOCK)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = self._file.read(self._block)
        if not block:
            raise StopIteration
        return block

    # Frameworks that cut ranges out of a file themselves look for these.

    def seekable(self) -> bool:
        return bool(getattr(self._file, "seekable", bool)())

    def seek(self, *where: int) -> int:
        return self._file.seek(*where)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        close = getattr(self._file, "close", None)
        if close is not None:
            close()
