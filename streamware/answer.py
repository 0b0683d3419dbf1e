"""An answer as http.client reads it: what it read too much of, what can be had at once, whether it comes fast enough.

The rule of this file: nothing here waits but ``read1`` and the head, and both only for so long. It knows http.client's
side of an answer and nothing of pools.
"""

from __future__ import annotations

import select
import ssl
from http.client import HTTPException, HTTPResponse
from io import BufferedReader, RawIOBase
from math import inf
from socket import MSG_DONTWAIT, MSG_PEEK, SHUT_RD, socket
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Answer"]


class _Paced(RawIOBase):
    """What comes over a socket, while it comes fast enough.

    A time limit for each read alone never ends an answer that comes byte by byte. Only the waiting counts, so that a
    reader who takes his time is not held against the sender.

    :param raw: the file that http.client reads the socket by; it is closed with this one.
    :param enough: bytes that make up for all waiting before them; :param seconds: how long they may be waited for.
    """

    def __init__(self, raw: RawIOBase, sock: socket, enough: float, seconds: float) -> None:
        self._raw = raw
        self._receive = sock.recv_into
        self._enough = enough
        self.seconds = seconds
        self._came = 0
        self._waited = 0.0

    def restart(self) -> None:
        """From here on count anew."""
        self._came, self._waited = 0, 0.0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if self._waited >= self.seconds:
            raise TimeoutError(f"{self._came} bytes came in {self._waited:.1f} s of waiting")
        began = monotonic()
        try:
            count = self._receive(buffer)
        except BlockingIOError:
            return None
        self._came += count
        if self._came >= self._enough:
            self._came, self._waited = 0, 0.0
        else:
            self._waited += monotonic() - began
        return count

    def close(self) -> None:
        super().close()
        self._raw.close()


class Answer(HTTPResponse):
    """http.client's answer, which keeps its socket and takes a look at what came along with the head.

    :param pace: the fewest bytes a second, and over how many seconds of waiting; None: any.
    """

    def __init__(
        self, sock: socket, debuglevel: int = 0, method: str | None = None, *, pace: tuple[float, float] | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method)
        self._paced: _Paced | None = None
        if pace is not None:
            file: Any = self.fp
            self._paced = _Paced(file.detach(), sock, pace[0] * pace[1], pace[1])
            self.fp = BufferedReader(self._paced)
        self.in_hand = False  # the whole body is in the buffer, so that reading it waits for nobody
        self._sock = sock
        self._poll: select.poll | None = None
        self._ahead = 0  # bytes in the buffer; later reads go past it, unless the body is chunked
        self._error: OSError | None = None

    def begin(self) -> None:
        super().begin()
        if self._paced is not None:
            self._paced.restart()  # a server may think for long before it answers
        if self.headers.defects:  # what follows such a line was not read as headers, a Content-Length perhaps
            raise HTTPException("a header line that is none")
        # Bytes that belong to no answer would be taken for the next one: such a connection is not used again.
        if self.status < 200 or (self.chunked and "content-length" in self.headers):
            self.will_close = True
        if not self.chunked:
            self._ahead = len(self._buffered())
            if self.length is not None:
                self.in_hand = self._ahead >= self.length
                self.will_close = self.will_close or self._ahead > self.length

    def at_leisure(self) -> None:
        """Whatever the pace of the body, from here on it is fast enough."""
        if self._paced is not None:
            self._paced.seconds = inf

    def read1(self, n: int = -1) -> bytes:
        if self._error is not None:
            raise type(self._error)(*self._error.args)  # the same once more; what is raised holds all its callers
        piece = super().read1(n)
        self._ahead -= min(self._ahead, len(piece))
        return piece

    def at_hand(self) -> bool:
        """Whether ``read1`` will return without waiting: bytes are buffered, here or in the kernel, or all is over."""
        if self.isclosed() or self._error is not None:
            return True
        if self.chunked and not self.chunk_left:
            ahead = self._next_chunk()
            size_line = ahead.find(b"\r\n") + 2
            return 2 <= size_line < len(ahead) or self._kernel_has_some()
        if self._ahead or self._kernel_has_some():
            return True
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        return self.chunked and bool(self._buffered())

    def cut_off(self) -> bool:
        """Whether nothing is buffered, and what the connection gives next is its end or an error."""
        if self.isclosed():
            return False
        if self._error is not None:
            return True
        if self._ahead or (self.chunked and self._buffered()):
            return False
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return False
        try:
            # The plain socket's method, for TLS too: it is only asked for the end of it all.
            return not socket.recv(self._sock, 1, MSG_PEEK | MSG_DONTWAIT)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:
            return True

    def at_end(self) -> bool | None:
        """Whether the body ends here; None: that cannot be told without waiting."""
        if self.isclosed():
            return True
        if not self.chunked:
            return None if self.length is None else self.length == 0
        if self.chunk_left:
            return False
        return True if self._next_chunk().startswith(b"0\r\n\r\n") else None

    def shut_down(self) -> None:
        """From any thread: a blocked read ends at once."""
        try:
            # The plain socket's method, for TLS too: SSLSocket's would let a reader go on in the clear.
            socket.shutdown(self._sock, SHUT_RD)
        except OSError:
            pass  # closed already

    def _next_chunk(self) -> bytes:
        """What is buffered of the next chunk, its size line first; b"" where the one before has not ended yet."""
        if self.chunk_left == 0:
            if not self._buffered().startswith(b"\r\n"):
                return b""
            self.fp.read(2)
            self.chunk_left = None  # for http.client: a size line comes next
        return self._buffered()

    def _kernel_has_some(self) -> bool:
        if self._poll is None:
            self._poll = select.poll()  # not select(), which knows no descriptor above 1023
            self._poll.register(self._sock.fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def _buffered(self) -> bytes:
        """What the buffer holds, filled first if it is empty, without waiting. An error is kept for the next read."""
        patience = self._sock.gettimeout()
        self._sock.settimeout(0)
        try:
            return self.fp.peek(1)
        except ssl.SSLWantReadError:
            return b""
        except OSError as error:
            self._error = type(error)(*error.args)
            return b""
        finally:
            self._sock.settimeout(patience)
