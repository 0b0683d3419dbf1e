"""What was measured, as Markdown: in docs/performance.md between two marks, and on the terminal.

The rule of this file: every figure comes from the results; what is said in prose stands in the document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.chart import draw
from bench.contenders import ASGI, CONTENDERS, FILES_ASGI, FILES_WSGI, WSGI
from bench.goals import outcomes
from bench.results import CaseResult, Results, Row

__all__ = ["BEGIN", "END", "markdown", "text", "write_docs"]

BEGIN = "<!-- measured: begin; written by `tox -e bench` -->"
END = "<!-- measured: end -->"
_MIB = 1 << 20
_APART = ("many",)  # of next to no bytes, so that a GiB of them says nothing
_UNITS = {"many": "CPU us a member"}
_OURS = ((WSGI, ASGI), (FILES_WSGI, FILES_ASGI))  # on gunicorn and on uvicorn

Cells = list[str]


def markdown(results: Results) -> str:
    """The part between the marks, without them."""
    return "\n\n".join(_parts(results, title="### ", fold=True)) + "\n"


def text(results: Results) -> str:
    """The same for a terminal, where tables need no folding."""
    return "\n\n".join(_parts(results, title="# ", fold=False)) + "\n"


def write_docs(results: Results, docs: Path) -> None:
    """Put the tables into ``performance.md``, between its marks, and the chart beside it.

    :raises ValueError: the marks are not there, each once.
    """
    page = docs / "performance.md"
    old = page.read_text(encoding="utf-8")
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        raise ValueError(f"{page} needs the lines {BEGIN!r} and {END!r}, each once")
    before, _, rest = old.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{markdown(results)}\n{END}{after}", encoding="utf-8")
    (docs / "performance.svg").write_text(draw(results), encoding="utf-8")


def _parts(results: Results, title: str, fold: bool) -> Iterator[str]:
    yield _table(["", ""], [[f"**{label}**" if fold else label, said] for label, said in results.machine.items()])
    if compared := [case for case in results.cases if case.ideal is None and case.key not in _APART]:
        yield f"{title}CPU seconds for each GiB"
        yield _overview(compared)
    goals = [[o.case, o.ours, o.what, o.limit, o.reached, "yes" if o.met else "no"] for o in outcomes(results)]
    if goals:
        yield f"{title}Goals"
        yield _table(["", "streamware", "", "at most", "reached", "met"], goals)
    for case in results.cases:
        yield f"{title}{case.title}"
        yield from _case(case, fold)
    for table in results.tables:
        yield f"{title}{table.title}"
        yield table.note
        yield _table(table.columns, table.rows)


def _overview(cases: Sequence[CaseResult]) -> str:
    """One line a contender, one column a case."""
    lines = []
    for contender in CONTENDERS:
        found = [(case, case.row(contender.key)) for case in cases]
        if any(row for _, row in found):
            lines.append([contender.title, *(_number(case.cpu_per_gib(row)) if row else "" for case, row in found)])
    return _table(["", *(case.key for case in cases)], lines)


def _case(case: CaseResult, fold: bool) -> Iterator[str]:
    size = _size(case.bytes / max(1, case.count))
    note = f"`{case.key}`: " + (f"{size}." if case.count == 1 else f"{case.count:,} members of {size}.")
    if case.ideal is not None:
        note += f" Nobody can be done before {case.ideal:.2f} s."
    if case.skipped:
        note += " Not measured here: " + "; ".join(f"{who} ({why})" for who, why in case.skipped.items()) + "."
    yield note
    crowd = any(row.clients for row in case.rows)
    compressed = any(row.samples and row.middle("bytes") < 0.9 * case.bytes for row in case.rows) and not crowd
    columns = [
        "",
        _UNITS.get(case.key, "CPU s/GiB"),
        "gunicorn : it",
        "uvicorn : it",
        "wall s",
        "first byte ms",
        "memory MiB",
    ]
    columns += ["whole", "KiB a client"] if crowd else ["output %"] if compressed else []
    columns.append("rounds")
    table = _table(columns, [_line(case, row, crowd, compressed) for row in case.rows])
    yield f"<details><summary>Table</summary>\n\n{table}\n\n</details>" if fold else table


def _line(case: CaseResult, row: Row, crowd: bool, compressed: bool) -> Cells:
    if not row.samples:
        return [row.title, f"failed: {row.failure}"]
    ours = next((pair for pair in _OURS if any(map(case.row, pair))), _OURS[0])
    ratios = (case.ratio(each, row.contender) for each in ours)
    cost = row.middle("cpu") * 1e6 / case.count if case.key in _APART else case.cpu_per_gib(row)
    cells = [row.title, _number(cost), *("" if r is None else f"{r:.2f}" for r in ratios)]
    cells += [f"{row.middle('wall'):.2f}", f"{row.middle('first_byte') * 1000:.0f}", f"{row.grew / _MIB:.1f}"]
    if crowd:
        cells += [f"{row.done} of {row.clients}", f"{row.grew / 1024 / row.clients:.0f}"]
    elif compressed:
        cells.append(f"{100 * row.middle('bytes') / case.bytes:.1f}")
    cells.append(f"{len(row.samples)}" + (f", then failed: {row.failure}" if row.failure else ""))
    return cells


def _size(count: float) -> str:
    if count < 1024:
        return f"{count:.0f} bytes"
    return f"{count / 1024:.0f} KiB" if count < _MIB else f"{count / _MIB:.0f} MiB"


def _number(value: float) -> str:
    """With three digits that count."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Padded, so that it is read as easily where nothing renders it. Short lines are filled up."""
    rows = [list(columns), *([*line, *[""] * (len(columns) - len(line))] for line in lines)]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    # A line whose second cell tells of a failure does not make that column as wide.
    widths = [max((len(row[i]) for row in rows if len(row[i]) < 60 or i == 0), default=3) for i in range(len(columns))]
    widths = [max(3, width) for width in widths]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    ruler = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(rows[0]), ruler, *(line(row) for row in rows[1:])])
