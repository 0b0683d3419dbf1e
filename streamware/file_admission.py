"""Who may do what with stored files, and how much of it: identity, places, and the rate at which uploads begin.

The rule of this file: it never waits, but for the operator's own ``authorize``; a place that was given is given back
once; and what it remembers of callers is bounded, whoever they say they are.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal
from weakref import WeakValueDictionary

from streamware.admission import Places, Ticket
from streamware.file_request import FileRequest
from streamware.policy import Policy
from streamware.upload_errors import FileForbidden, TooManyUploads, Unauthorized

__all__ = ["Action", "Caller", "FileAdmission"]

Action = Literal["upload", "download", "list", "delete"]

_MINUTE = 60.0
_MOST_REMEMBERED = 65_536  # callers with a rate; some 200 bytes each


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``name`` is what ``authorize`` calls them, None where it names nobody; ``client`` who is connected.

    ``owner`` is what an upload's row says of who began it: "" where nobody is named and nothing is counted.
    """

    name: str | None
    client: str
    owner: str

    @property
    def counted(self) -> str:
        """What limits count by; "" is nobody in particular."""
        return self.client if self.name is None else f"={self.name}"

    def owns(self, owner: str) -> bool:
        """Whether an unfinished upload of this owner is theirs to go on with.

        Somebody with a name has what they began. Those without are not told apart: an address may change between two
        requests of one upload. But they have nothing of anybody's who has a name.
        """
        if self.name is not None:
            return owner == self.owner
        return not owner or owner.startswith(_CLIENT)


_CLIENT = "@client "  # begins the owners that are no names; a name that begins with "@" gets another before it


class FileAdmission:
    """Lets requests to the file service pass, or not. From any thread."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._counts = policy.max_files_per_identity is not None or policy.max_bytes_per_identity is not None
        each, seconds = policy.max_uploads_per_identity, policy.overload_retry_seconds
        told = f"This server takes {each} uploads of yours at a time."
        self._places = Places(policy.max_uploads, each, lambda: TooManyUploads(told, retry_after=seconds), seconds)
        # By caller and upload; it is gone from here when nobody has it any more.
        self._going: WeakValueDictionary[tuple[str, str], Ticket] = WeakValueDictionary()
        self._rate = _Rate(policy.max_uploads_per_minute)

    @property
    def active(self) -> int:
        """How many uploads are being received."""
        return self._places.active

    def authorize(self, action: Action, request: FileRequest) -> Caller:
        """Ask the operator's hook.

        :raises Unauthorized: it refuses, and the request names nobody (401).
        :raises FileForbidden: it refuses whom the request names (403).
        """
        policy = self._policy
        said = True if policy.authorize is None else policy.authorize(action, request)
        client = request.conditions.client
        if isinstance(said, str) and said:
            return Caller(said, client, f"@{said}" if said.startswith("@") else said)
        if said is True:
            return Caller(None, client, f"{_CLIENT}{client}" if self._counts and client else "")
        if request.header("authorization") is None:
            raise Unauthorized(headers=(("WWW-Authenticate", "Bearer"),))
        raise FileForbidden()

    def enter(self, caller: Caller, upload: str | None = None) -> Ticket:
        """Take a place for an upload's body; whoever gets the ticket releases it.

        :param upload: the id of the upload that goes on with it; None: one begins. A request for the same upload that
            still has a place is one whose client has come back: it does not stand in the way of this one, which will
            end it.
        :raises Overloaded: as many are being received as may be (503).
        :raises TooManyUploads: or as many of this caller, or too many have begun within a minute (429).
        """
        before = None if upload is None else self._going.get((caller.counted, upload))
        ticket = self._places.enter(caller.counted, follows=before)
        if upload is None:
            try:
                self._rate.pass_one(caller.counted)
            except BaseException:
                ticket.release()
                raise
        return ticket

    def took_over(self, caller: Caller, upload: str, ticket: Ticket) -> None:
        """The request that has this place is from now on the one that goes on with the upload."""
        before = self._going.get((caller.counted, upload))
        self._going[caller.counted, upload] = ticket
        if before is not None:
            before.release()


class _Rate:
    """So many a minute for each: as many at once, or one each time a part of the minute has gone by.

    Remembers one number for each, the time at which all of theirs will have been made up for.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._even: OrderedDict[str, float] = OrderedDict()  # least lately seen first

    def pass_one(self, who: str) -> None:
        """:raises TooManyUploads: it is one too many; ``retry_after`` says when it will not be."""
        if self._most is None or not who:
            return
        step = _MINUTE / self._most
        now = time.monotonic()
        with self._lock:
            even = max(self._even.get(who, now), now) + step
            if even - now > _MINUTE + step / 2:
                wait = math.ceil(even - now - _MINUTE)
                raise TooManyUploads(f"You may begin {self._most} uploads a minute.", retry_after=max(1, wait))
            self._even[who] = even
            self._even.move_to_end(who)
            while self._even and (len(self._even) > _MOST_REMEMBERED or next(iter(self._even.values())) <= now):
                self._even.popitem(last=False)
