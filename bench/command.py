"""The command: ``python -m bench``.

The rule of this file: it puts the parts together and measures nothing itself.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import idle, ledger, resume, startup
from bench.bed import Bed
from bench.cases import CASES, MAIN, Case
from bench.contenders import CONTENDERS, by_key
from bench.machine import describe
from bench.modules import cache_folder, install
from bench.report import text, write_docs
from bench.results import CaseResult, Results, Table
from bench.rounds import measure

__all__ = ["main"]

# Those that measure in their own way.
_OTHERS = {"idle": idle.run, "resume": resume.run, "ledger": ledger.run, "startup": startup.run}
_SMOKE = ("local/big", "up/big", "up/mid", "local/small", "up/small", "text", "late", "slow", "store/in", "store/out")
_SMOKE_SCALE = 0.15
_SMOKE_CLIENTS = 20


def _parser() -> argparse.ArgumentParser:
    cases = [*(case.key for case in CASES), *_OTHERS]
    contenders = [contender.key for contender in CONTENDERS]
    parser = argparse.ArgumentParser(prog="python -m bench", description="streamware beside what else one would use.")
    add = parser.add_argument
    add("--smoke", action="store_true", help="a minute's worth: fewer and smaller sets, the main contenders")
    add("--cases", metavar="A,B", type=_words(cases), help=f"only these of: {', '.join(cases)}")
    add("--contenders", metavar="A,B", type=_words(contenders), help=f"only these of: {', '.join(contenders)}")
    add("--scale", type=float, metavar="X", help=f"of the sets' sizes (default: 1; with --smoke {_SMOKE_SCALE})")
    add("--rounds", type=int, metavar="N", help="(default: 5; with --smoke 3)")
    add("--patience", type=float, metavar="S", help="who takes longer comes in fewer rounds (default: 2)")
    add("--mod-zip", metavar="PATH.so", help="mod_zip, built as a module for the nginx that is installed here")
    add("--work", type=Path, metavar="DIR", help="where members are made, up to 12 GB (default: a temporary folder)")
    add("--results", type=Path, metavar="FILE", help="keep what was measured there, as JSON")
    add("--report", type=Path, metavar="FILE", help="measure nothing, report on such a file")
    add("--docs", type=Path, metavar="DIR", help="write the tables and the chart there")
    return parser


def _words(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Reads a list of words with commas between them, each of which must be known."""

    def read(said: str) -> list[str]:
        words = said.split(",")
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
        return words

    return read


def main(argv: Sequence[str] | None = None) -> int:
    """Run it. 0 also where goals are missed: this is never a verdict."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    if args.report is not None:
        results = Results.from_json(args.report.read_text(encoding="utf-8"))
    else:
        # Asked to end, it ends its servers as well.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        results = _run(args, given)
    if args.results is not None:
        args.results.write_text(results.to_json(), encoding="utf-8")
    print(text(results))
    if args.docs is not None:
        write_docs(results, args.docs)
    return 0


def _run(args: argparse.Namespace, given: Sequence[str]) -> Results:
    smoke = args.smoke
    keys = args.cases or (_SMOKE if smoke else [*(case.key for case in CASES), *_OTHERS])
    only = args.contenders or (MAIN if smoke else None)
    scale = args.scale or (_SMOKE_SCALE if smoke else 1.0)
    rounds = args.rounds or (3 if smoke else 5)
    patience = args.patience or (0.4 if smoke else 2.0)
    modules = install(cache_folder()) if only is None or any(by_key(key).host == "node" for key in only) else None
    began = time.monotonic()
    cases: list[CaseResult] = []
    tables: list[Table] = []
    with (
        tempfile.TemporaryDirectory(prefix="streamware-bench-", dir=args.work) as work,
        Bed(Path(work), scale=scale, modules=modules, mod_zip=args.mod_zip) as bed,
    ):
        machine = describe(bed.cores, modules, given, args.mod_zip)
        if scale != 1:
            machine["Scale"] = f"{scale} of the sets' sizes; the goals are for 1"
        for case in CASES:
            if case.key in keys:
                cases.append(measure(bed, _shrunk(case) if smoke else case, rounds, patience, _say, only))
        for key, run in _OTHERS.items():
            if key in keys and (table := run(bed, rounds, _say)) is not None:
                tables.append(table)
    machine["Took"] = f"{(time.monotonic() - began) / 60:.1f} min"
    return Results(machine, tuple(cases), tuple(tables))


def _shrunk(case: Case) -> Case:
    return replace(case, clients=min(case.clients, _SMOKE_CLIENTS))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
