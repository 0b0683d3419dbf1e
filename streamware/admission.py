"""Who may begin now: how many bundles are being sent, in all and to each client; and places to count anything by.

The rule of this file: it never waits. Whoever comes when all places are taken is told so at once, and a place that was
given is given back once, whatever became of what it was taken for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

from streamware.errors import Overloaded, RequestError, TooManyDownloads
from streamware.policy import Policy

__all__ = ["Admission", "Places", "Ticket"]


class Places:
    """Counts what goes on in this process at once, in all and for each client; from any thread, event loops included.

    :param most: at once.
    :param most_each: of one client; None: no limit but the other.
    :param too_many: makes the error for one client that has as many as one may have.
    :param retry_seconds: what the error for all says of when to come again.
    """

    def __init__(
        self, most: int, most_each: int | None, too_many: Callable[[], RequestError], retry_seconds: int
    ) -> None:
        self._most = most
        self._most_each = most_each
        self._too_many = too_many
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._clients: dict[str, int] = {}  # those that have a place, "" for nobody in particular
        self._taken = 0
        # Places given back and not yet counted. A ticket may end in the garbage collector, which can come in the middle
        # of anything, the lock held: there it must not be asked for.
        self._returned: deque[str] = deque()

    @property
    def active(self) -> int:
        """How many places are taken."""
        with self._lock:
            self._collect()
            return self._taken

    def enter(self, client: str = "", *, follows: Ticket | None = None) -> Ticket:
        """Take a place; whoever gets the ticket releases it.

        :param client: who asks; an empty text is nobody in particular, and bounded by the sum alone.
        :param follows: a place of the same client's that will be given back if this one is given; while it is taken,
            it does not stand in the way.
        :raises RequestError: this client has as many as one may have.
        :raises Overloaded: all places are taken.
        """
        with self._lock:
            self._collect()
            given = follows is not None and follows.held  # back, that is, soon
            own = self._clients.get(client, 0)
            if client and self._most_each is not None and own - given >= self._most_each:
                raise self._too_many()
            if self._taken - given >= self._most:
                raise Overloaded(retry_after=self._retry_seconds)
            ticket = Ticket(client, self._returned)
            self._clients[client] = own + 1
            self._taken += 1
            return ticket

    def _collect(self) -> None:
        while self._returned:
            client = self._returned.popleft()
            self._taken -= 1
            left = self._clients[client] - 1
            if left:
                self._clients[client] = left
            else:
                del self._clients[client]


class Admission(Places):
    """The bundles that are being sent by this process: one more of a client raises TooManyDownloads."""

    def __init__(self, policy: Policy) -> None:
        each, seconds = policy.max_bundles_per_client, policy.overload_retry_seconds
        told = f"A client may have {each} downloads at a time on this server."
        super().__init__(policy.max_bundles, each, lambda: TooManyDownloads(told, retry_after=seconds), seconds)


class Ticket:
    """One place. ``release()`` gives it back: from any thread, and as often as one likes. Forgotten, it comes back too.

    In a ``with`` it is released at the end.
    """

    __slots__ = ("__weakref__", "_client", "_returned")

    def __init__(self, client: str, returned: deque[str]) -> None:
        self._client = [client]
        self._returned = returned

    @property
    def held(self) -> bool:
        """Whether it has not been given back."""
        return bool(self._client)

    def release(self) -> None:
        try:
            client = self._client.pop()  # of two threads one has it
        except IndexError:
            return
        self._returned.append(client)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()
