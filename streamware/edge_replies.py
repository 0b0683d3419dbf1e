"""Replies on their way out of an ASGI app, as messages.

The rule of this file: it sends and decides nothing; and a body that breaks never ends as if it were whole.
"""

from __future__ import annotations

from collections.abc import Callable

from streamware.edge import AsyncBody, Departure, Message, Receive, Send, admitted, run
from streamware.reply import Reply
from streamware.service import Archiver

__all__ = ["answer", "send_reply"]


async def send_reply(archiver: Archiver, reply: Reply, method: str, receive: Receive, send: Send) -> None:
    """Send head and body of a reply as ASGI messages, and close it. Nobody else may read ``receive`` meanwhile.

    A client that leaves is a silent end. A body that fails raises, and never ends as if it were whole.
    """
    await answer(archiver, lambda: reply, method, receive, send)


async def answer(
    archiver: Archiver,
    make: Callable[..., Reply],
    method: str,
    receive: Receive,
    send: Send,
    *,
    on_leave: Callable[[], object] | None = None,
    client: str | None = None,
) -> None:
    """As ``send_reply``, for a reply that ``make()`` makes on one of the archiver's threads.

    :param client: for whom it is a download, which needs a place: see ``admitted``. None: it is none.
    :param on_leave: called on the loop as soon as the client leaves, also while ``make`` still runs.
    """
    departure = Departure(receive)
    if on_leave is not None:
        departure.tell(on_leave)
    try:
        reply = await (run(archiver, make) if client is None else admitted(archiver, client, make))
        body = AsyncBody(archiver, reply.body, departure)
        try:
            await _send(reply, body, method, send)
        finally:
            await body.close()
    finally:
        await departure.close()


async def _send(reply: Reply, body: AsyncBody, method: str, send: Send) -> None:
    head = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in reply.headers]
    messages: list[Message] = [{"type": "http.response.start", "status": reply.status, "headers": head}]
    if body.left or not await _sent(send, messages[0]):
        return
    if method != "HEAD":
        async for piece in body:
            if not await _sent(send, {"type": "http.response.body", "body": piece, "more_body": True}):
                return
    if not body.left:
        await _sent(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _sent(send: Send, message: Message) -> bool:
    try:
        await send(message)
    except OSError:
        return False  # how ASGI 2.4 lets a server say that the client is gone
    return True
