"""The command: ``python -m bench``.

The rule of this file: it puts the parts together and measures nothing itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.bed import Bed, shrunk
from bench.cases import CASES, MAIN, case_named
from bench.contenders import CONTENDERS, by_key
from bench.machine import describe
from bench.modules import cache_folder, install
from bench.report import text_tables, write_docs
from bench.results import CaseResult, Results
from bench.rounds import measure

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="streamware beside what one would use instead."
    )
    parser.add_argument("--smoke", action="store_true", help="a minute's worth: small sets, one round and a warm-up")
    parser.add_argument("--cases", metavar="A,B", help=f"only these of: {', '.join(case.key for case in CASES)}")
    parser.add_argument(
        "--contenders", metavar="A,B", help=f"only these of: {', '.join(each.key for each in CONTENDERS)}"
    )
    parser.add_argument("--scale", type=float, default=None, metavar="X", help="of the sets' sizes (default: 1)")
    parser.add_argument("--rounds", type=int, default=None, metavar="N", help="(default: 5)")
    parser.add_argument("--patience", type=float, default=3.0, metavar="S", help="for a download in every round")
    parser.add_argument("--mod-zip", metavar="PATH.so", help="mod_zip, built as a module for the nginx installed here")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where members are made, some GB (default: temporary)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep what was measured, as JSON")
    parser.add_argument("--report", type=Path, metavar="FILE", help="measure nothing, report on such a file")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="write the table and the chart there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run it. 0 also where goals are missed: this is never a verdict."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    if args.report is not None:
        results = Results.from_json(args.report.read_text(encoding="utf-8"))
    else:
        results = _run(args, given)
    if args.results is not None:
        args.results.write_text(results.to_json(), encoding="utf-8")
    print(text_tables(results))
    if args.docs is not None:
        write_docs(results, args.docs)
    return 0


def _run(args: argparse.Namespace, given: Sequence[str]) -> Results:
    cases = [case_named(key) for key in args.cases.split(",")] if args.cases else list(CASES)
    only = [by_key(key).key for key in args.contenders.split(",")] if args.contenders else MAIN if args.smoke else None
    scale = args.scale if args.scale is not None else (0.2 if args.smoke else 1.0)
    rounds = args.rounds if args.rounds is not None else (3 if args.smoke else 5)
    patience = 0.4 if args.smoke else args.patience
    modules = install(cache_folder())
    began = time.monotonic()
    found: list[CaseResult] = []
    with (
        tempfile.TemporaryDirectory(prefix="streamware-bench-", dir=args.work) as work,
        Bed(Path(work), scale=scale, modules=modules, mod_zip=args.mod_zip) as bed,
    ):
        for case in cases:
            case = shrunk(case, 20) if args.smoke else case
            found.append(measure(bed, case, rounds, patience, _say, only))
        machine = describe(bed.cores, modules, given, args.mod_zip, time.monotonic() - began)
    return Results(machine, tuple(found))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
