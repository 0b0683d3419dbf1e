"""Who asks upstreams for a source, and what was sent before it was waited for.

The rule of this file: protocols only, of what ``upstreams`` gives and sources take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from streamware.exchange import Exchange, Stop
from streamware.heads import Head
from streamware.model import Url

__all__ = ["Client", "Flight"]


class Client(Protocol):
    """Who asks upstreams. Redirects are followed and every hop checked; ``opened``, ``retried``, ``failed`` count."""

    def ask(
        self,
        method: str,
        url: str,
        content: Url,
        own: Mapping[str, str],
        extra: Mapping[str, str],
        stop: Stop | None = None,
        flight: Any = None,
    ) -> Exchange:
        """``own`` headers stay with the origin they were given for; ``flight``: what ``launch`` gave of the same.

        Raises UpstreamError, NotAllowed, InvalidTarget.
        """

    def launch(
        self, url: str, content: Url, own: Mapping[str, str], extra: Mapping[str, str], *, large: bool
    ) -> Flight | None:
        """Send a GET if that takes no waiting; ``large``: its body is not read at once."""

    def spare(self, content: Url) -> bool:
        """Whether an answer may be opened now whose turn comes later."""

    def opened(self) -> None: ...

    def retried(self) -> None: ...

    def failed(self) -> None: ...


class Flight(Protocol):
    """A request that was sent, and what has come of its answer without waiting.

    Whoever has it ends it, with ``landed`` or ``close``, or has the client go on with it.
    """

    fd: int

    def come(self, most: int, *, all_of_it: bool) -> bool: ...

    @property
    def head(self) -> Head | None:
        """The head, if that has come."""

    @property
    def whole(self) -> bool:
        """Whether the whole body has come."""

    def landed(self) -> bytes: ...

    def shut_down(self) -> None: ...

    def close(self) -> None: ...
