"""The thread that looks after what is left over, at the start and then every so often.

The rule of this file: it may fail and the next time is as good; whoever it works for goes on without it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from streamware.errors import StreamwareError
from streamware.leftovers import Swept

__all__ = ["Sweeper"]

_log = logging.getLogger("streamware")


class Sweeper:
    """Calls ``sweep`` on a thread of its own, at once and then every ``seconds``, until it is closed."""

    def __init__(self, sweep: Callable[[], Swept], seconds: float) -> None:
        self._sweep = sweep
        self._seconds = seconds
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamware-sweeper", daemon=True)
        self._thread.start()

    def close(self, seconds: float = 5.0) -> None:
        self._closed.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            try:
                swept = self._sweep()
                # An hour in which nothing was to be done is worth no line.
                level = logging.INFO if any(swept[:6]) else logging.DEBUG
                _log.log(level, "swept the file store: %s", swept)
            except StreamwareError as error:
                _log.warning("the file store was not swept: %s", error)
            except Exception:
                _log.exception("the file store was not swept")
            if self._closed.wait(self._seconds):
                return
