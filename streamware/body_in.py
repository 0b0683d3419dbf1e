"""The body of a WSGI request, in blocks, whatever the host.

The rule of this file: the count decides, never the end of the stream; for many hosts end a body that broke off as if it
were whole. A body is waited for no longer than the policy lets it come slowly, where the host lets that be said.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from errno import ECONNRESET
from socket import SHUT_RD, socket
from time import monotonic
from typing import Any

from streamware.errors import StreamwareError
from streamware.gunicorn_in import received
from streamware.policy import Policy
from streamware.reply import ReplyBody
from streamware.semantics import parse_length
from streamware.upload_errors import UploadBroken, UploadInvalid, UploadTooSlow

__all__ = ["Draining", "Patience", "blocks"]

# PERF: gunicorn copies what it has received and not yet given at each read: 1.4 s/GiB with blocks of 1 MiB, 3.4 with
# blocks of 64 KiB.
_MOST = 1024 * 1024  # bytes of one block
_QUICK_SECONDS = 0.25  # a block that came in so little makes the next twice as large, one that took four times as long
_DRAIN_BYTES = 1024 * 1024
_DRAIN_SECONDS = 2.0
_LOOK_SECONDS = 0.25  # between two looks for reads that take too long
_IDLE_LOOKS = 40  # looks without any read to watch, before the thread ends


def blocks(environ: Mapping[str, Any], *, policy: Policy) -> Iterator[bytes]:
    """The body, in blocks of up to 1 MiB, each read when it is asked for: what has not been asked for is not received.

    A body without Content-Length is read to its end, so that ``hosting.untold`` has to be asked before.

    :raises UploadBroken: it ended before it was whole, or the host could not read it.
    :raises UploadTooSlow: it came slower than ``policy.min_rate_bytes`` a second, or not at all for
        ``policy.min_rate_seconds``. Behind gunicorn both end the wait; other hosts have bounds of their own, and there
        the pace is looked at when a block has come.
    :raises UploadInvalid: Content-Length is no plain number.
    """
    left = _length(environ)
    stream = environ["wsgi.input"]
    read, wait = received(stream) or stream.read, _Wait(_socket_of(environ), policy)
    while left is None or left > 0:
        most = wait.block if left is None else min(wait.block, left)
        block = wait.through(read, most)
        if not block:
            if left is None:
                return
            raise UploadBroken(f"{left} bytes of the body did not come.")
        if left is not None:
            left -= len(block)
        yield block


def _length(environ: Mapping[str, Any]) -> int | None:
    """Bytes of the body; None: until the host says that it ends."""
    said = environ.get("CONTENT_LENGTH") or None  # wsgiref says "" where there is none
    if said is None:
        # Neither a length nor a transfer coding is no body at all (RFC 9112 section 6.3), and some hosts would wait for
        # one; in HTTP/2 only the host knows.
        ends = environ.get("wsgi.input_terminated") or environ.get("HTTP_TRANSFER_ENCODING")
        return None if ends else 0
    length = parse_length(said)
    if length is None:
        raise UploadInvalid("Content-Length must be a plain number of bytes.")
    return length


def _socket_of(environ: Mapping[str, Any]) -> socket | None:
    """The connection that the body comes by and nothing else does, where the host shows it."""
    if not str(environ.get("SERVER_PROTOCOL", "")).startswith("HTTP/1"):
        return None  # of HTTP/2 it is shared by all that the client asks at the time
    return environ.get("gunicorn.socket")


class Patience:
    """How slowly a body may come. Only the waiting counts: who is slow to take it does not hold that against a client.

    ``enough`` bytes make up for all waiting before them, which may take ``seconds``.
    """

    def __init__(self, policy: Policy) -> None:
        self.seconds = policy.min_rate_seconds
        self.enough = max(1, int(policy.min_rate_bytes * policy.min_rate_seconds))
        self._came = 0
        self._waited = 0.0

    def waited(self, seconds: float, came: int) -> None:
        """Raise UploadTooSlow if it has been waited for too long, now that so many bytes have come."""
        self._came += came
        self._waited += seconds
        if self._came >= self.enough:
            self._came, self._waited = 0, 0.0
        elif self._waited >= self.seconds:
            raise UploadTooSlow(f"{self._came} bytes came in {self._waited:.1f} s of waiting.")


class _Wait:
    """Waits for blocks, and no longer than the policy says. ``block`` is how large the next one should be."""

    def __init__(self, sock: socket | None, policy: Policy) -> None:
        self._sock = sock
        self._patience = Patience(policy)
        self._rate = policy.min_rate_bytes
        # A host that collects a block cannot be asked meanwhile how far it is: so the first ones are small.
        self._least = min(_MOST, self._patience.enough)
        self.block = self._least

    def through(self, read: Callable[[int], bytes], most: int) -> bytes:
        began = monotonic()
        late = False
        try:
            if self._sock is None:
                block = read(most)
            else:
                block, late = self._watched(self._sock, read, most)
        except TimeoutError as error:
            raise UploadTooSlow("The body did not go on in time.") from error
        except Exception as error:
            # Hosts raise errors of their own classes, and of many: the connection broke, or its chunks cannot be read.
            raise UploadBroken(f"The body broke off: {type(error).__name__}.") from error
        if late:
            raise UploadTooSlow("The body came too slowly.")
        took = monotonic() - began
        self._patience.waited(took, len(block))
        if took < _QUICK_SECONDS:
            self.block = min(_MOST, self.block * 2)
        elif took > 4 * _QUICK_SECONDS:
            self.block = max(self._least, self.block // 2)
        return block

    def _watched(self, sock: socket, read: Callable[[int], bytes], most: int) -> tuple[bytes, bool]:
        """Read with a limit for each silence, and one for the whole, which a client that drips would not reach."""
        patience = sock.gettimeout()
        sock.settimeout(self._patience.seconds)
        watched = _watch.begin(sock, max(self._patience.seconds, most / self._rate))
        try:
            block = read(most)
        except Exception:
            if watched.late:
                return b"", True
            raise
        finally:
            _watch.end(watched)
            try:
                sock.settimeout(patience)
            except OSError:
                pass  # closed meanwhile, by the host
        return block, watched.late


class _Read:
    """A read that is being waited for."""

    __slots__ = ("deadline", "late", "sock")

    def __init__(self, sock: socket, deadline: float) -> None:
        self.sock = sock
        self.deadline = deadline
        self.late = False


class _Watch:
    """Ends reads that take too long, by ending what the client may still send; it can be answered all the same.

    One thread for all of a process, there only while somebody reads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._reads: set[_Read] = set()
        self._running = False

    def begin(self, sock: socket, seconds: float) -> _Read:
        read = _Read(sock, monotonic() + seconds)
        with self._lock:
            if not self._running:
                threading.Thread(target=self._run, name="streamware-upload-watch", daemon=True).start()
                self._running = True
            self._reads.add(read)
        return read

    def end(self, read: _Read) -> None:
        with self._lock:
            self._reads.discard(read)

    def _run(self) -> None:
        pause, idle = threading.Event(), 0
        while True:
            pause.wait(_LOOK_SECONDS)
            now = monotonic()
            with self._lock:
                idle = 0 if self._reads else idle + 1
                if idle > _IDLE_LOOKS:
                    self._running = False
                    return
                for read in self._reads:
                    if read.deadline <= now and not read.late:
                        read.late = True
                        _stop_receiving(read.sock)


def _stop_receiving(sock: socket) -> None:
    try:
        # Not an SSLSocket's own method, which would have the answer go out in the clear.
        socket.shutdown(sock, SHUT_RD)
    except (OSError, TypeError):
        pass  # it is gone already, or no socket of the system's: then the silence alone is bounded


_watch = _Watch()


class Draining:
    """The body of the answer to a request that has one itself: what nobody has read of that is read and dropped.

    A connection that is closed over bytes nobody has read is reset, and then a client that was still sending may never
    see the answer. So where a wait can be bounded, up to 1 MiB is read on for up to 2 s, once the answer has gone out.

    cheroot is another matter. Before it answers it reads the rest of a body of known length into memory, so that this
    is read here instead, in blocks. And what is left of chunks it takes for the next request, so that here they are
    read on, up to 1 MiB, and the connection is ended if they do not end.

    It iterates and closes as ``body`` does.

    :param ends: no other request may come by this connection.
    """

    def __init__(self, body: ReplyBody, environ: Mapping[str, Any], *, policy: Policy, ends: bool = False) -> None:
        self.length = body.length
        self._body = body
        self._stream = environ["wsgi.input"]
        self._policy = policy
        self._ends = ends
        self._sock = _socket_of(environ)
        self._cheroot = type(self._stream).__module__.startswith("cheroot.")
        self._before = self._cheroot
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._before:
            self._before = False
            known = getattr(self._stream, "remaining", None)
            if known and not self._drop(known):
                raise _ended()
        return next(self._body)

    def ready(self) -> bool:
        return self._body.ready()

    def abort(self) -> None:
        self._body.abort()

    def close(self) -> None:
        """Close the body, and read on what is left of the request's. Idempotent.

        :raises ConnectionResetError: has cheroot close the connection, without a word in its log.
        """
        self._body.close()
        if self._closed:
            return
        self._closed = True
        if self._sock is not None:
            _drain(self._stream, self._sock)
        elif self._cheroot and (self._ends or not self._drop(_DRAIN_BYTES)):
            raise _ended()

    def _drop(self, most: int) -> bool:
        """Read up to so many bytes; whether that was all."""
        wait = _Wait(None, self._policy)
        try:
            while most > 0 and (block := wait.through(self._stream.read, min(most, 64 * 1024))):
                most -= len(block)
        except StreamwareError:
            return False
        return most > 0 or not getattr(self._stream, "remaining", 1)


def _ended() -> ConnectionResetError:
    return ConnectionResetError(ECONNRESET, "the rest of a request's body is not wanted")


def _drain(stream: Any, sock: socket) -> None:
    patience, left = sock.gettimeout(), _DRAIN_BYTES
    watched = _watch.begin(sock, _DRAIN_SECONDS)
    try:
        sock.settimeout(_DRAIN_SECONDS)
        while left > 0 and not watched.late and (block := stream.read(min(left, 64 * 1024))):
            left -= len(block)
        sock.settimeout(patience)
    except Exception:
        pass  # the answer is out, and whatever is wrong with what comes, the host closes the connection over it
    finally:
        _watch.end(watched)
