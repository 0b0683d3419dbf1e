"""Who may begin a download now: how many bundles are being sent, in all and to each client.

The rule of this file: it never waits. Whoever comes when all places are taken is told so at once, and a place that was
given is given back once, whatever became of the download.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from streamware.errors import Overloaded, TooManyDownloads
from streamware.policy import Policy

__all__ = ["Admission", "Ticket"]


class Admission:
    """Counts the bundles that are being sent by this process; from any thread, the event loop's included."""

    def __init__(self, policy: Policy) -> None:
        self._most = policy.max_bundles
        self._most_each = policy.max_bundles_per_client
        self._retry_seconds = policy.overload_retry_seconds
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

    def enter(self, client: str = "") -> Ticket:
        """Take a place; whoever gets the ticket releases it.

        :param client: who asks; an empty text is nobody in particular, and bounded by the sum alone.
        :raises TooManyDownloads: this client has as many as one may have.
        :raises Overloaded: all places are taken.
        """
        with self._lock:
            self._collect()
            own = self._clients.get(client, 0)
            if client and self._most_each is not None and own >= self._most_each:
                raise TooManyDownloads(
                    f"A client may have {self._most_each} downloads at a time on this server.",
                    retry_after=self._retry_seconds,
                )
            if self._taken >= self._most:
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


class Ticket:
    """One place. ``release()`` gives it back: from any thread, and as often as one likes. Forgotten, it comes back too.

    In a ``with`` it is released at the end.
    """

    __slots__ = ("_client", "_returned")

    def __init__(self, client: str, returned: deque[str]) -> None:
        self._client = [client]
        self._returned = returned

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
