"""Crash points: a serving process that dies with SIGKILL before, in the middle of or after any one step of its writing.

The rule of this file: the steps themselves are the product's own, called with what they were called with; around each
stands a count, kept in a folder that outlives the process. ``Steps`` is the test's side of that folder.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamware import file_rows, objects

__all__ = ["Steps", "watch"]

# All that changes what outlives a process: rows, objects, and what makes objects durable.
_WATCHED: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (
        file_rows.FileRows,
        ("create", "append", "touch", "set_length", "finish", "join", "set_sha256", "doom", "doomed", "forget"),
    ),
    (objects.ObjectWriter, ("write", "close", "discard")),
    (objects.Objects, ("delete", "clean")),
    (os, ("fsync", "rename", "replace", "link", "unlink", "rmdir")),
)


class Steps:
    """The folder, as a test sees it.

    ``record()`` forgets what was counted and lets everything pass; ``die`` makes the process that takes the step of
    that number die ``when``: "before" it, "within" it (a write gets half of its bytes; others count as before) or
    "after" it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.record()

    def record(self) -> None:
        self._order({})

    def die(self, number: int, when: str) -> None:
        self._order({"number": number, "when": when})

    def _order(self, order: dict[str, Any]) -> None:
        (self.folder / "steps").write_text("")
        draft = self.folder / "draft"
        draft.write_text(json.dumps(order))
        draft.replace(self.folder / "order")

    def taken(self) -> list[str]:
        """The names of the steps since the last order."""
        return (self.folder / "steps").read_text().split()

    @property
    def died(self) -> bool:
        return (self.folder / "died").exists()

    def bury(self) -> None:
        (self.folder / "died").unlink(missing_ok=True)


_lock = threading.Lock()


def watch(folder: str) -> None:
    """Put the count around every step of this process."""
    for owner, names in _WATCHED:
        for name in names:
            setattr(owner, name, _watched(Path(folder), getattr(owner, "__name__", "os"), name, getattr(owner, name)))


def _watched(folder: Path, owner: str, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def step(*args: Any, **kwargs: Any) -> Any:
        with _lock:
            with (folder / "steps").open("a") as file:
                file.write(f"{owner}.{name}\n")
            number = len((folder / "steps").read_text().split())
            order = json.loads((folder / "order").read_text())
        when = order.get("when") if order.get("number") == number else None
        if when == "within" and name == "write":
            real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:], **kwargs)
        if when in ("before", "within"):
            _die(folder)
        result = real(*args, **kwargs)
        if when == "after":
            _die(folder)
        return result

    return step


def _die(folder: Path) -> None:
    (folder / "died").touch()
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # the kernel takes a moment, in which nothing more may happen here
