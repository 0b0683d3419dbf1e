"""A connection to where a name leads, if it may lead there.

The rule of this file: a name is resolved once; every address it has is judged before any is dialled, and one bad answer
refuses all; what is dialled is an address that was judged, never the name again, which may lead elsewhere by then.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable

__all__ = ["dial"]


def dial(
    host: str,
    port: int,
    judge: Callable[[str], None],
    *,
    family: int,
    options: Iterable[tuple[int, int, int | bytes]],
    seconds: float,
) -> socket.socket:
    """A connected TCP socket with ``seconds`` as its timeout; the caller closes it.

    The addresses are tried in the resolver's order, all of them together within ``seconds``, each within its share of
    what is left, so that a dead one does not spend the time of the next. How long a name takes to resolve is up to the
    system's resolver.

    :param judge: raises if an address may not be dialled; what it raises is passed on, and nobody was contacted.
    :raises socket.gaierror: the name has no address.
    :raises OSError: no address could be connected to; TimeoutError if the last one tried did not answer.
    """
    try:
        answers = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
    for answer in answers:
        judge(str(answer[4][0]))
    failure = OSError("the name has no addresses")
    deadline = time.monotonic() + seconds
    for left, (kind, sort, protocol, _, place) in zip(range(len(answers), 0, -1), answers, strict=True):
        sock = None
        try:
            sock = socket.socket(kind, sort, protocol)
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(max(0.001, (deadline - time.monotonic()) / left))
            sock.connect(place)
            judge(str(sock.getpeername()[0]))
            sock.settimeout(seconds)
            return sock
        except BaseException as error:
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                raise
            failure = error
    try:
        raise failure
    finally:
        del failure  # it refers to this frame, and the frame to it
