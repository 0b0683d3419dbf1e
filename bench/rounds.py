"""Measuring: all contenders of a case side by side, in rounds that each begins.

The rule of this file: nobody is measured alone. A contender that is slow takes part in fewer rounds, never in none, and
one that fails is told as failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path

from bench.bed import Bed, Laid
from bench.cases import Case, contenders_of
from bench.clients import Broken, download, slow_crowd
from bench.contenders import Contender
from bench.results import CaseResult, Row, Sample
from bench.senders import Upload, upload
from bench.servers import Server
from bench.usage import cpu_seconds, forget_peak, peak_bytes, resident_bytes, threads

__all__ = ["RATE", "measure"]

RATE = 1 << 20  # bytes a second that a slow client takes
_SETTLE = 0.05  # seconds after a download, for what a server does behind its end
_CONNECTIONS = 16  # that the ideal of late members has, as many as streamware opens ahead

Say = Callable[[str], None]


class _Turn:
    """One contender in one case: its server, and what it has been measured at."""

    def __init__(self, contender: Contender, server: Server, laid: Laid) -> None:
        self._laid = laid
        self.contender = contender
        self.server = server
        self.samples: list[Sample] = []
        self.rounds = 0
        self.failure: str | None = None
        self.done = 0
        self.threads = 0
        # Whatever is loaded with the first request is loaded now.
        if contender.takes:
            self._stored = self._upload(laid.tiny).path
            if laid.case.way == "out":
                download(server.port, self._stored, archive=False)
                self._stored = self._upload(laid.file).path
        else:
            download(server.port, "/tiny.zip")
        time.sleep(_SETTLE)
        self._idle = resident_bytes(server.pid)
        forget_peak(server.pid)

    def take(self, case: Case, deadline: float) -> Sample:
        pid = self.server.pid
        cpu = cpu_seconds(pid)
        if case.clients:
            crowd = slow_crowd(self.server.port, "/archive.zip", case.clients, RATE, deadline)
            self.done = crowd.done
            spent = (crowd.seconds, crowd.first_byte, crowd.bytes)
        elif case.way == "in":
            sent = self._upload(self._laid.file)
            spent = (sent.seconds, sent.seconds, sent.bytes)
        elif case.way == "out":
            got = download(self.server.port, self._stored, archive=False)
            if got.bytes != self._laid.bytes:
                raise Broken(f"{got.bytes} bytes came of a file of {self._laid.bytes}")
            spent = (got.seconds, got.first_byte, got.bytes)
        else:
            got = download(self.server.port, "/archive.zip")
            spent = (got.seconds, got.first_byte, got.bytes)
        time.sleep(_SETTLE)
        self.threads = max(self.threads, threads(pid))
        sample = Sample(cpu_seconds(pid) - cpu, *spent)
        if case.way == "in":
            self._empty()
        return sample

    def _upload(self, file: Path) -> Upload:
        return upload(self.server.port, self.contender.takes, file)

    def _empty(self) -> None:
        """Remove what it has kept, for the next one to find the same memory and room."""
        for path in (self._laid.stores / self.contender.key).rglob("*"):
            if path.is_file():
                path.unlink()

    def row(self, clients: int) -> Row:
        grew = max(0, peak_bytes(self.server.pid) - self._idle) if self.samples else 0
        return Row(
            self.contender.key,
            self.contender.title,
            tuple(self.samples),
            grew,
            self.failure,
            clients,
            self.done,
            self.threads,
        )


def measure(
    bed: Bed, case: Case, rounds: int, patience: float, say: Say, only: Collection[str] | None = None
) -> CaseResult:
    """Let all contenders that are there download in turn.

    :param patience: seconds a contender's one download may take to come in every round; one that takes longer comes
        in fewer, so that a case has an end.
    :param only: contenders' keys; None lets all of them in.
    """
    rounds = min(rounds, case.most_rounds)
    skipped: dict[str, str] = {}
    failed: list[Row] = []
    with bed.lay(case) as laid, ExitStack() as stack:
        turns = []
        if case.way != "archive":
            bed.warm(20 * laid.bytes)
        for contender in contenders_of(case):
            if only is not None and contender.key not in only:
                continue
            if reason := bed.why_not(contender, case):
                skipped[contender.title] = reason
                continue
            try:
                turns.append(_Turn(contender, stack.enter_context(bed.server(contender, laid)), laid))
            except (Broken, OSError, RuntimeError) as error:
                failed.append(Row(contender.key, contender.title, failure=_short(error)))
        ideal = _ideal(case, laid)
        _take_turns(turns, case, rounds, patience, ideal, say)
        rows = (*(turn.row(case.clients) for turn in turns), *failed)
        return CaseResult(case.key, case.title, len(laid.members), laid.bytes, rows, ideal, skipped)


def _take_turns(turns: list[_Turn], case: Case, rounds: int, patience: float, ideal: float | None, say: Say) -> None:
    warms_up = rounds > 1
    deadline = 2.5 * ideal if ideal else 0.0
    for number in range(-1 if warms_up else 0, rounds):
        first = number % len(turns) if turns else 0
        for turn in turns[first:] + turns[:first]:
            if turn.failure or (number >= 0 and warms_up and number >= turn.rounds):
                continue
            try:
                sample = turn.take(case, deadline)
            except (Broken, OSError) as error:
                turn.failure = _short(error)
                continue
            if number >= 0:
                turn.samples.append(sample)
            else:
                turn.rounds = max(2, min(rounds, int(rounds * patience / max(sample.wall, 0.001))))
            say(f"{case.key:12} {number:3} {turn.contender.key:28} CPU {sample.cpu:8.3f} s  wall {sample.wall:7.2f} s")


def _ideal(case: Case, laid: Laid) -> float | None:
    """Seconds that nobody can beat: of late members with so many connections, or of clients that take no more."""
    if case.late:
        return -(-len(laid.members) // _CONNECTIONS) * case.late
    return laid.bytes / RATE if case.clients else None


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
