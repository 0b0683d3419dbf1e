"""An answer as it comes out of a socket: its head, what came along with that, its body decoded and counted.

The rules of this file: nothing here waits but ``begin`` and ``read``, and both only for so long and at no less than a
pace; a body ends where its framing says, or in an error; and a connection on which anything is left that belongs to no
answer is not used again. It knows sockets, and nothing of pools.
"""

from __future__ import annotations

import ssl
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from socket import MSG_DONTWAIT, MSG_PEEK, SHUT_RD, socket

from streamware.arrival import Pace, at_once, has_some
from streamware.heads import Head
from streamware.semantics import parse_length
from streamware.wire import HEAD_BYTES, Malformed, chunk_size, head_end, joined, read_head

__all__ = ["Answer"]

_FIRST_BYTES = 64 * 1024  # of one read where nothing is known of what comes
_SIZE_LINE = 16 * 1024
_NO_BODY = (204, 304)


class Answer:
    """One answer to a request that was sent. It is read by one thread; ``shut_down`` may come from any.

    :param pace: the fewest bytes a second, and over how many seconds of waiting.
    :param url: what the log may show of the URL.
    """

    __slots__ = (
        *("_ahead", "_at", "_bodiless", "_chunks", "_error", "_left", "_pace", "_sock", "_to_end", "_url"),
        *("begun", "chunked", "head", "keeps", "lines", "whole"),
    )

    head: Head

    def __init__(self, sock: socket, method: str, url: str, pace: tuple[float, float]) -> None:
        self._sock = sock
        self._url = url
        self._bodiless = method == "HEAD"
        self._pace = Pace(pace[0] * pace[1], pace[1])
        self._ahead = b""  # what was read and not given
        self._at = 0  # of it
        self._left: int | None = None  # bytes until the body ends, or the chunk; None: that is not known
        self._chunks = False  # chunked, and a chunk has come
        self._to_end = False  # and the last chunk
        self._error: Exception | None = None
        self.begun = False  # its head has come
        self.chunked = False
        self.keeps = False  # the connection may be used again behind this answer
        self.lines: list[tuple[str, str]] = []
        self.whole = False  # all of the body is here, so that reading it waits for nobody

    # --- the head ---

    def begin(self) -> Head:
        """Wait for the head; interim answers (100) are passed over.

        :raises HTTPException: it cannot be read; RemoteDisconnected, a ConnectionError too: nothing came at all.
        """
        while not self._read_head():
            more = self._pace.receive(self._sock, _FIRST_BYTES)
            if not more:
                if self._ahead:
                    raise HTTPException("the connection ended inside a head")
                raise RemoteDisconnected("the connection ended without an answer")
            self._ahead += more
        self._pace.restart()  # a server may think for long before it answers
        return self.head

    def come(self, most: int, *, all_of_it: bool) -> bool:
        """Take at most so many bytes of what is there, without waiting: whether there is nothing more to be taken so,
        because the head has come or, where ``all_of_it`` is wanted, the body, or because of an error, to be met again.
        """
        try:
            more = at_once(self._sock, most)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        if not more:  # which is met again
            return True
        self._ahead += more
        if self.begun:
            self._look()
        else:
            try:
                if not self._read_head():
                    return False
            except HTTPException:
                return True
        return not all_of_it or self.whole or self._left is None or self.chunked or self.head.status != 200

    def _read_head(self) -> bool:
        """Whether the head has come."""
        while not self.begun:
            try:
                found = read_head(self._ahead)
            except Malformed as error:
                raise HTTPException(str(error)) from error
            if found is None:
                return False
            status, minor, lines, end = found
            self._ahead = self._ahead[end:]
            if status != 100:
                self.lines = lines
                self._settle(status, minor)
                self.begun = True
        return True

    def _settle(self, status: int, minor: int) -> None:
        """How the body is framed (RFC 9112 section 6.3), and whether anything may follow it (section 9.3)."""
        fields = joined(self.lines)
        coding, length = fields.get("transfer-encoding"), fields.get("content-length")
        self.chunked = coding is not None and coding.strip().lower() == "chunked"
        self.head = Head(self._url, status, 11 if minor else 10, self.chunked, fields)
        options = fields.get("connection", "").lower()
        if minor:
            self.keeps = "close" not in options
        else:
            self.keeps = "keep-alive" in options or "keep-alive" in fields
        if self._bodiless or status in _NO_BODY or status < 200:
            self.chunked, self._left = False, 0
            self.keeps = self.keeps and status >= 200
        elif self.chunked:
            self.keeps = self.keeps and length is None
            self._left = 0
            return
        else:
            self._left = parse_length(length) if coding is None else None
            self.keeps = self.keeps and self._left is not None
        self._look()

    def _look(self) -> None:
        """What came along with the head, of a body that is not chunked."""
        left, have = self._left, len(self._ahead)
        if left is None:
            return
        self.whole = have >= left
        if have > left:
            # Bytes that belong to no answer would be taken for the next one.
            self.keeps = False
            self._ahead = self._ahead[:left]

    # --- the body ---

    def read(self, most: int) -> bytes:
        """At most ``most`` bytes as soon as there are any; b"" at the body's end.

        :raises HTTPException: the connection ended before the body did, or its framing cannot be read.
        """
        if self._error is not None:
            raise type(self._error)(*self._error.args)  # the same once more; what is raised holds all its callers
        if self.chunked and not self._chunk():
            return b""
        if self._left == 0:
            return b""
        if self._left is not None:
            most = min(most, self._left)
        data = self._taken(most) if self._at < len(self._ahead) else self._received(most)
        if self._left is not None:
            self._left -= len(data)
        return data

    def rest(self) -> bytes:
        """All of a body that is whole, at once."""
        data, self._ahead, self._left = self._ahead, b"", 0
        return data

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def url(self) -> str:
        return self._url

    def at_leisure(self) -> None:
        """Whatever the pace of the body, from here on it is fast enough."""
        self._pace.lift()

    def at_hand(self) -> bool:
        """Whether ``read`` will return without waiting: bytes are here or in the kernel, or all is over."""
        if self._error is not None or self.ended():
            return True
        if not self.chunked:
            return self._at < len(self._ahead) or has_some(self._sock)
        while not self._chunk_here():
            if self._error is not None or self._to_end:
                return True
            if not self._fill():
                return False
        return self._error is not None or self._to_end or self._at < len(self._ahead) or has_some(self._sock)

    def cut_off(self) -> bool:
        """Whether nothing is here, and what the connection gives next is its end or an error."""
        if self.ended():
            return False
        if self._error is not None:
            return True
        if self._at < len(self._ahead):
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

    def ended(self) -> bool:
        """Whether all of the body has been given, as is known by its framing."""
        return self._to_end if self.chunked else self._left == 0

    def at_end(self) -> bool | None:
        """Whether the body ends here; None: that cannot be told without waiting."""
        if self.ended():
            return True
        if not self.chunked:
            return None if self._left is None else False
        while self._error is None and not self._chunk_here():
            if self._to_end:
                return True
            if not self._fill():
                return None
        return None if self._error is not None else self._to_end

    def clean(self) -> bool:
        """Whether the connection may be used again: the body has ended, and nothing follows it."""
        return self.keeps and self._error is None and self.ended() and self._at == len(self._ahead)

    def shut_down(self) -> None:
        """From any thread: a blocked read ends at once."""
        try:
            # The plain socket's method, for TLS too: SSLSocket's would let a reader go on in the clear.
            socket.shutdown(self._sock, SHUT_RD)
        except OSError:
            pass  # closed already

    def _taken(self, most: int) -> bytes:
        at = self._at
        if at == 0 and most >= len(self._ahead):
            data, self._ahead = self._ahead, b""
            return data
        data = self._ahead[at : at + most]
        self._at = at + len(data)
        if self._at == len(self._ahead):
            self._ahead, self._at = b"", 0
        return data

    def _received(self, most: int) -> bytes:
        # PERF: straight into the bytes that are given; a buffer in between is one more copy, 0.1 s/GiB.
        data = self._pace.receive(self._sock, most)
        if not data and self._left is not None:
            raise IncompleteRead(b"", self._left)
        return data

    # --- chunks (RFC 9112 section 7.1) ---

    def _chunk(self) -> bool:
        """See that bytes of a chunk come next, and wait for its size if need be; False: the last has come."""
        while not self._chunk_here():
            if self._error is not None:
                raise type(self._error)(*self._error.args)
            if self._to_end:
                return False
            more = self._pace.receive(self._sock, _FIRST_BYTES)
            if not more:
                raise IncompleteRead(b"")
            self._ahead = self._ahead[self._at :] + more
            self._at = 0
        return True

    def _chunk_here(self) -> bool:
        """Whether the size of the chunk whose bytes come next is known, going by what is here; errors are kept."""
        try:
            return self._next_chunk()
        except Malformed as error:
            self._error = HTTPException(str(error))
            return False

    def _next_chunk(self) -> bool:
        if self._to_end:
            return False
        if self._left:
            return True
        data, at = self._ahead, self._at
        if self._left == 0 and self._chunks:
            # The end of the chunk before.
            if data.startswith(b"\r\n", at):
                at += 2
            elif data.startswith(b"\n", at):
                at += 1
            elif b"\r\n".startswith(data[at : at + 2]):
                return False
            else:
                raise Malformed("a chunk that does not end where it says")
        end = data.find(b"\n", at) + 1
        if not end:
            if len(data) - at > _SIZE_LINE:
                raise Malformed("a chunk's size without an end")
            return False
        size = chunk_size(data[at:end])
        if size:
            self._at, self._left, self._chunks = end, size, True
            return True
        stop = head_end(data, end)  # of the trailers, which are not looked at
        if stop < 0:
            if len(data) - end > HEAD_BYTES:
                raise Malformed("trailers without an end")
            return False
        self._at, self._to_end = stop, True
        return False

    # --- without waiting ---

    def _fill(self) -> bool:
        """Whether there was more, or an error, which is kept for the next read; without waiting."""
        try:
            more = at_once(self._sock, _FIRST_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError as error:
            self._error = type(error)(*error.args)
            return True
        if more:
            self._ahead = self._ahead[self._at :] + more
            self._at = 0
        else:
            self._error = IncompleteRead(b"")
        return True
