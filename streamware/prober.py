"""What members' sources say before the head is sent: asked side by side, small ones read along with the asking.

The rules of this file: an answer that says how large a member is can as well bring it, if it is small, so that nobody
is asked twice; what is held that way, or held open, is bounded; and what a source said is noted for its opening.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing

from streamware.crew import Room
from streamware.errors import MemberError, MembersFailed, StreamwareError
from streamware.member_rows import OBJECT, PATH
from streamware.model import Facts, Members, OnError, Source
from streamware.policy import Policy
from streamware.said import Said
from streamware.sources.generated import DataSource

__all__ = ["Prober", "failure_of"]

# Nothing of the archive leaves meanwhile. After so long the others are asked for their size alone.
_READ_SECONDS = 2.0
_DOUBT = 16  # so many more members than were small turned out large: the same then
_BESIDE = 300  # bytes that content which is held takes beside its own, in the tables here and as an object


class Prober:
    """Asks once for a bundle.

    :param facts: where what each source says is noted.
    :param source_of: makes the source of a member, by its index, of which nothing is known yet; may raise
        StreamwareError.
    :param room: for content that is read along, of all bundles together; None: none is read.
    """

    def __init__(
        self,
        members: Members,
        facts: Said,
        source_of: Callable[[int], Source],
        policy: Policy,
        on_error: OnError,
        room: Room | None,
    ) -> None:
        self._facts = facts
        self._kept: dict[int, Source] = {}  # those that hold an open answer, and what holds all of a content
        self._shared = room
        self._borrowed: dict[int, int] = {}  # bytes of it, by member
        self._members = members
        self._source_of = source_of
        self._policy = policy
        self._aborts = on_error == "abort"
        self._failed: dict[int, MemberError] = {}
        self._keeps = False
        self._stop = threading.Event()
        self._lock = threading.Lock()  # guards the next four, and the telling of facts
        self._room = 0  # bytes that may still be held
        self._until = 0.0
        self._doubt = 0
        self._left: Iterator[int] = iter(())  # members that are to be asked
        self._broken: dict[int, BaseException] = {}  # what ended all asking, by member

    def ask(self, asked: Collection[int], *, keep: bool) -> dict[int, MemberError]:
        """Ask some members' sources; the errors of those that failed and may be left out.

        :param keep: their content is wanted next: few are asked by the very GETs that then deliver it, of many the
            small ones are read at once.
        :raises StreamwareError: a member fails that may not be left out.
        """
        self._keeps = keep and len(asked) <= self._policy.held_members
        self._room = self._policy.held_bytes if keep and not self._keeps and self._shared is not None else 0
        self._until = time.monotonic() + _READ_SECONDS
        serial = self._serial(asked)
        beside = array("q", (i for i in asked if i not in serial))
        if len(beside) < 2:
            for index in asked:
                self._ask(index)
        else:
            self._ask_beside(beside, (i for i in asked if i in serial))
        failed = self._failed
        if failed and self._aborts:
            raise failure_of(failed)
        return failed

    def _ask_beside(self, beside: Collection[int], serial: Iterable[int]) -> None:
        """Ask with some threads at once, and meanwhile here those that no other thread may ask.

        Each thread takes the next as it has done with one: a list of all that is to be done would weigh more than all
        that is kept of the answers.
        """
        self._left = iter(beside)
        count = min(self._policy.probe_connections, len(beside))
        threads = [threading.Thread(target=self._ask_on, name=f"streamware-probe_{n}") for n in range(count)]
        started: list[threading.Thread] = []
        try:
            for thread in threads:
                try:
                    thread.start()
                except RuntimeError:  # the system gives no more
                    break
                started.append(thread)
            for index in serial:
                self._ask(index)
            if not started:
                self._ask_on()
        except BaseException:
            self._stop.set()
            raise
        finally:
            for thread in started:
                thread.join()
        if self._broken:
            raise self._broken[min(self._broken)]

    def _ask_on(self) -> None:
        while True:
            with self._lock:
                index = next(self._left, None)
            if index is None or self._stop.is_set():
                return
            try:
                self._ask(index)
            except BaseException as error:
                self._broken[index] = error
                self._stop.set()

    def release(self) -> None:
        """Give up what is kept."""
        for index in tuple(self._kept):
            source = self.take(index)  # a thread that reads ahead may take it first
            if source is not None:
                source.close()

    def take(self, index: int) -> Source | None:
        """The source of a member, if it is kept; from then on it is the caller's."""
        source = self._kept.pop(index, None)
        self._give_back(self._borrowed.pop(index, 0))
        return source

    def holds(self, index: int) -> bool:
        """Whether all of a member's content is held."""
        return index in self._borrowed

    def __del__(self) -> None:
        self._give_back(sum(self._borrowed.values()))  # of a bundle that nobody released

    def _give_back(self, count: int) -> None:
        if self._shared is not None and count:
            self._shared.give_back(count)

    def _ask(self, index: int) -> None:
        if self._stop.is_set():
            return
        try:
            source = self._unpinned(index)
            holds = getattr(source, "holds", False)
            facts = self._read_along(index, source) if holds else source.probe(keep=self._keeps)
            with self._lock:
                self._facts.put(index, facts)
            if self._keeps:
                self._kept[index] = source
        except StreamwareError as error:
            error.member, error.index = self._members.name(index), index
            if not isinstance(error, MemberError):
                self._stop.set()
                raise
            self._failed[index] = error
            if self._aborts:
                self._stop.set()

    def _read_along(self, index: int, source: Source) -> Facts:
        most, held, shared = self._policy.inline_bytes, 0, self._shared
        with self._lock:
            wanted = self._room >= most and self._doubt <= _DOUBT and time.monotonic() < self._until
            hold = most if wanted and shared is not None and shared.lend(most) else 0
            self._room -= hold
        try:
            facts: Facts = source.probe(keep=self._keeps, hold=hold)  # type: ignore[call-arg]  # see Source
            if hold and getattr(source, "instant", False):
                size = getattr(source, "held_bytes", facts.size or 0)
                held = min(hold, size + _BESIDE)
                self._kept[index] = _content(source, size) if size == facts.size else source
                self._borrowed[index] = held
        finally:
            self._give_back(hold - held)
            with self._lock:
                self._room += hold - held
                if hold:
                    self._doubt += -1 if held else 1
        return facts

    def _unpinned(self, index: int) -> Source:
        try:
            return self._source_of(index)
        except StreamwareError as error:
            error.member, error.index = self._members.name(index), index
            raise

    def _serial(self, asked: Iterable[int]) -> set[int]:
        """Those whose source only the calling thread may use: of the paths, all or none."""
        members = self._members
        serial = {i for i in asked if members.kind(i) == OBJECT and getattr(members.content(i), "serial", False)}
        paths = array("q", (i for i in asked if members.kind(i) == PATH))
        if paths and getattr(self._unpinned(paths[0]), "serial", False):
            serial.update(paths)
        return serial


def failure_of(failed: Mapping[int, MemberError]) -> MemberError:
    """One error for those of some members, by index."""
    return failed[min(failed)] if len(failed) == 1 else MembersFailed(tuple(failed[i] for i in sorted(failed)))


def _content(source: Source, size: int) -> Source:
    """All of an instant source's content, by itself.

    PERF: a source that has asked an upstream weighs 2.4 KiB; of members of 10 bytes some thousand are held for each
    second that is spent on them.
    """
    with closing(source.open(0, size)) as chunks:
        data = b"".join(chunks)
    # Copied, for bytes that were read into a larger place may keep the memory around them from being used.
    return DataSource(bytes(memoryview(data)))
