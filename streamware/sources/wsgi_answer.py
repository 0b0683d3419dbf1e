"""The answer of a WSGI app that is called from inside, for one member.

The rule of this file: the iterable of an app is always closed (PEP 3333), also when the app, the answer or the reader
failed; and what it pushes through write() is bounded.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import IO, Any

from streamware.errors import SourceError

__all__ = ["WsgiAnswer", "WsgiApp"]

_log = logging.getLogger("streamware")

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]

_BLOCK = 256 * 1024  # one read of a file an app hands over
_MAX_WRITTEN = 16 * 1024 * 1024  # bytes; what an app may push through write() at once, for nobody can stop it meanwhile


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
