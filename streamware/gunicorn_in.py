"""The body of a request behind gunicorn, as it is received.

The rule of this file: it is about how gunicorn is made inside, so it first looks whether that is so. Where it is not,
the body is read as from every other host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["received"]


def received(stream: Any) -> Callable[[int], bytes] | None:
    """A function like ``wsgi.input.read`` that gives what one receiving brings, up to so many bytes and at least one;
    b"" where the client has left. None where this is not gunicorn's, or not as it is known here.

    PERF: gunicorn's own ``read`` collects as much as it is asked for, and copies that several times: 0.7 s/GiB more.
    And of what it has collected nothing is to be had if the connection then breaks.

    :param stream: ``wsgi.input``, of a body with a length.
    """
    reader: Any = getattr(stream, "reader", None)
    unreader: Any = getattr(reader, "unreader", None)
    if (
        type(stream).__module__ != "gunicorn.http.body"
        or type(reader).__name__ != "LengthReader"
        or not hasattr(unreader, "max_body_chunk")  # since 27.0: what is to be received at once can be said
        or stream.buf.tell()  # somebody has begun to read
    ):
        return None

    def read(most: int) -> bytes:
        most = min(most, reader.length)
        if not most:
            return b""
        try:
            piece: bytes = unreader.read(None, most)
        except BaseException:
            stream.failed = True  # where the next request would begin is not known any more
            raise
        if len(piece) > most:  # it came along with the head, and the next request may have, too
            unreader.unread(piece[most:])
            piece = piece[:most]
        reader.length -= len(piece)  # what is left of it is for gunicorn to pass over
        return piece

    return read
