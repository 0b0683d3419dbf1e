"""Request bodies of WSGI hosts: what is counted, what ends a wait, and what becomes of the rest."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from streamware.body_in import Draining, blocks
from streamware.policy import Policy
from streamware.reply import BytesBody
from streamware.upload_errors import UploadBroken, UploadInvalid, UploadTooSlow

QUICK = Policy(min_rate_bytes=1000, min_rate_seconds=0.3)
MIB = 1024 * 1024


class Sock:
    """A WSGI host's side of a connection, with a body that is read as gunicorn reads one: until it is complete."""

    def __init__(self) -> None:
        self.client, self.server = socket.socketpair()
        self.file = self.server.makefile("rb")

    def environ(self, **more: str) -> dict[str, Any]:
        base = {"SERVER_PROTOCOL": "HTTP/1.1", "wsgi.input": self.file, "gunicorn.socket": self.server}
        return {**base, "wsgi.input_terminated": True, **more}

    def drip(self, piece: bytes, pause: float, seconds: float) -> None:
        def run() -> None:
            end = time.monotonic() + seconds
            try:
                while time.monotonic() < end:
                    self.client.send(piece)
                    time.sleep(pause)
            except OSError:
                pass

        threading.Thread(target=run, daemon=True).start()


@pytest.fixture
def sock() -> Iterator[Sock]:
    made = Sock()
    yield made
    made.file.close()
    made.server.close()
    made.client.close()


def environ(data: bytes, **more: Any) -> dict[str, Any]:
    return {"SERVER_PROTOCOL": "HTTP/1.1", "wsgi.input": io.BytesIO(data), **more}


def test_a_body_is_read_as_far_as_its_length_says() -> None:
    data = bytes(3 * MIB)
    pieces = list(blocks(environ(data + b"the next request", CONTENT_LENGTH=str(len(data))), policy=Policy()))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) == MIB
    assert len(pieces) < 12  # they grow for who is quick


@pytest.mark.parametrize("length", ["4", "5000000", str((1 << 63) - 1)])
def test_the_count_decides_and_not_the_end(length: str) -> None:
    pieces = blocks(environ(b"abc", CONTENT_LENGTH=length), policy=Policy())
    assert next(pieces) == b"abc"
    with pytest.raises(UploadBroken):
        next(pieces)


def test_a_body_without_length_is_read_to_the_end_only_where_the_host_tells_it() -> None:
    assert list(blocks(environ(b"abc"), policy=Policy())) == []
    assert list(blocks(environ(b"abc", CONTENT_LENGTH=""), policy=Policy())) == []  # as wsgiref has it
    assert list(blocks(environ(b"abc", **{"wsgi.input_terminated": True}), policy=Policy())) == [b"abc"]


@pytest.mark.parametrize("length", ["+3", "-3", "3, 3", "0x3", " 3", "³", str(1 << 63)])
def test_a_length_is_a_plain_number(length: str) -> None:
    with pytest.raises(UploadInvalid):
        list(blocks(environ(b"abc", CONTENT_LENGTH=length), policy=Policy()))


class Failing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def read(self, most: int) -> bytes:
        raise self._error


@pytest.mark.parametrize(
    "error", [ConnectionResetError("reset"), ValueError("Bad chunk"), OSError("error during read"), RuntimeError("?")]
)
def test_whatever_a_host_raises_says_that_the_body_broke_off(error: Exception) -> None:
    broken = {"wsgi.input": Failing(error), "CONTENT_LENGTH": "3"}
    with pytest.raises(UploadBroken) as caught:
        list(blocks(broken, policy=Policy()))
    assert caught.value.__cause__ is error


def test_a_host_that_waited_too_long_says_so() -> None:
    with pytest.raises(UploadTooSlow):
        list(blocks({"wsgi.input": Failing(TimeoutError("timed out")), "CONTENT_LENGTH": "3"}, policy=Policy()))


def test_a_silent_client_is_waited_for_no_longer_than_the_policy_says(sock: Sock) -> None:
    sock.client.send(b"x" * 1000)
    pieces = blocks(sock.environ(CONTENT_LENGTH="5000"), policy=QUICK)
    began = time.monotonic()
    with pytest.raises(UploadTooSlow):
        list(pieces)
    assert 0.25 < time.monotonic() - began < 3
    assert sock.server.gettimeout() is None  # the host's own again


def test_a_client_that_drips_is_ended_and_still_answered(sock: Sock) -> None:
    """Each byte comes in time for a limit on silence; all of them together do not."""
    sock.drip(b"x", 0.05, 5)
    began = time.monotonic()
    with pytest.raises(UploadTooSlow):
        list(blocks(sock.environ(CONTENT_LENGTH="5000"), policy=QUICK))
    assert time.monotonic() - began < 3
    sock.server.sendall(b"HTTP/1.1 408 ")
    sock.client.settimeout(3)
    assert sock.client.recv(100) == b"HTTP/1.1 408 "


def test_a_slow_client_above_the_least_rate_is_waited_for(sock: Sock) -> None:
    sock.drip(b"x" * 200, 0.05, 5)
    got = b"".join(blocks(sock.environ(CONTENT_LENGTH="4000"), policy=QUICK))
    assert got == b"x" * 4000


def test_who_takes_his_time_does_not_hold_that_against_the_client(sock: Sock) -> None:
    sock.client.send(b"x" * 900)
    pieces = blocks(sock.environ(CONTENT_LENGTH="900"), policy=QUICK)
    assert len(next(pieces)) == 300
    time.sleep(0.4)
    assert len(b"".join(pieces)) == 600


def test_in_http_2_the_connection_is_not_the_body_s_alone(sock: Sock) -> None:
    sock.client.send(b"abc")
    asked = sock.environ(CONTENT_LENGTH="3", SERVER_PROTOCOL="HTTP/2.0")
    del asked["gunicorn.socket"]  # nothing could have been set on it
    asked["gunicorn.socket"] = object()
    assert list(blocks(asked, policy=QUICK)) == [b"abc"]


# --- what nobody has read ----------------------------------------------------------------------------------------


def test_what_is_left_is_read_once_the_answer_is_out(sock: Sock) -> None:
    sock.client.send(b"x" * 50_000)
    sock.client.shutdown(socket.SHUT_WR)
    body = Draining(BytesBody(b"no"), sock.environ(CONTENT_LENGTH="90000"), policy=QUICK)
    assert body.length == 2
    assert list(body) == [b"no"]
    body.close()
    body.close()
    assert sock.file.read(1) == b""
    assert sock.server.gettimeout() is None


def test_no_more_than_1_mib_is_read_on(sock: Sock) -> None:
    sent = 0

    def send() -> None:
        nonlocal sent
        try:
            while True:
                sent += sock.client.send(bytes(65536))
        except OSError:
            pass

    threading.Thread(target=send, daemon=True).start()
    body = Draining(BytesBody(b"no"), sock.environ(), policy=QUICK)
    began = time.monotonic()
    body.close()
    assert time.monotonic() - began < 3
    sock.server.close()
    sock.file.close()
    assert sent < 2.5 * MIB


def test_a_client_that_sends_nothing_more_is_waited_for_two_seconds_at_most(sock: Sock) -> None:
    body = Draining(BytesBody(b"no"), sock.environ(CONTENT_LENGTH="90000"), policy=QUICK)
    sock.drip(b"x", 0.1, 6)
    began = time.monotonic()
    body.close()
    assert time.monotonic() - began < 4


def test_other_hosts_are_left_alone() -> None:
    stream = io.BytesIO(b"abc")
    Draining(BytesBody(b"no"), {"wsgi.input": stream, "CONTENT_LENGTH": "3"}, policy=QUICK).close()
    assert stream.read() == b"abc"
