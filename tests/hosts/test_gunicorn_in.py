"""A body behind gunicorn as it is received: with gunicorn's own readers, over a real pair of sockets."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import SocketUnreader

from streamware.gunicorn_in import received

NEXT = b"GET /next HTTP/1.1\r\n\r\n"


class Request(NamedTuple):
    client: socket.socket
    server: socket.socket
    unreader: SocketUnreader
    body: Body


def request(length: int) -> Request:
    client, server = socket.socketpair()
    server.settimeout(5)
    unreader = SocketUnreader(server)
    return Request(client, server, unreader, Body(LengthReader(unreader, length)))


@pytest.fixture
def ten() -> Iterator[Request]:
    """A request with a body of ten bytes."""
    found = request(10)
    yield found
    found.client.close()
    found.server.close()


def test_each_receiving_is_given_at_once_and_no_byte_of_the_next_request(ten: Request) -> None:
    read = received(ten.body)
    assert read is not None
    ten.client.sendall(b"0123")
    assert read(1 << 20) == b"0123", "there is no waiting for more"
    ten.client.sendall(b"456789" + NEXT)
    assert read(4) == b"4567"
    assert read(1 << 20) == b"89"
    assert read(1 << 20) == b""
    assert ten.body.read() == b"", "gunicorn knows that nothing is left of it"
    assert ten.unreader.read() == NEXT


def test_what_came_along_with_the_head_is_given_first(ten: Request) -> None:
    ten.unreader.unread(b"0123456789" + NEXT)
    read = received(ten.body)
    assert read is not None
    assert read(3) == b"012"
    assert read(1 << 20) == b"3456789"
    assert ten.unreader.read() == NEXT


def test_what_is_left_unread_is_gunicorns_to_pass_over(ten: Request) -> None:
    ten.client.sendall(b"0123456789" + NEXT)
    read = received(ten.body)
    assert read is not None
    assert read(4) == b"0123"
    assert ten.body.read() == b"456789"
    assert ten.unreader.read() == NEXT


def test_a_client_that_left_and_one_that_is_silent(ten: Request) -> None:
    read = received(ten.body)
    assert read is not None
    ten.server.settimeout(0.05)
    with pytest.raises(TimeoutError):
        read(1 << 20)
    assert ten.body.failed, "the connection must not be used again"
    ten.client.sendall(b"0123")
    ten.client.close()
    assert read(1 << 20) == b"0123", "every byte that came is given"
    assert read(1 << 20) == b""


def test_other_bodies_are_read_as_their_hosts_say() -> None:
    assert received(io.BytesIO(b"x")) is None
    one = request(10)
    with one.client, one.server:
        one.client.sendall(b"01234\n6789")
        assert one.body.readline() == b"01234\n"
        assert one.body.buf.tell(), "there is something that only it knows of"
        assert received(one.body) is None
        assert received(Body(ChunkedReader(None, one.unreader))) is None
