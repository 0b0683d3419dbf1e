"""The chart: one panel for each case, one bar for each contender, as SVG written by hand.

The rule of this file: bars begin at zero and are to scale within their panel, the figure stands beside each, and the
picture needs neither scripts nor fonts of its own and reads on light and dark pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from bench.cases import case_named
from bench.contenders import ASGI, BARE, DAV, FILES_ASGI, FILES_WSGI, FLOOR, MOD_ZIP, SINK, WIDE, WSGI
from bench.results import CaseResult, Results, Row

__all__ = ["draw"]

_WIDTH = 1000
_MARGIN = 24
_GUTTER = 32
_PANEL = (_WIDTH - 2 * _MARGIN - _GUTTER) // 2
_LABELS = 210  # left of the bars
_FIGURES = 56  # right of the longest bar
_BAR = 13
_PITCH = 18
_HEAD = 40  # a panel's title
_TOP = 92

_OURS = (WSGI, ASGI, WIDE, FILES_WSGI, FILES_ASGI, "files-tus")
_COLOURS = {
    **dict.fromkeys(_OURS, "#1a6fd4"),
    **dict.fromkeys((MOD_ZIP, DAV), "#c0691c"),
    **dict.fromkeys((FLOOR, BARE, SINK), "#b9c0c8"),
}
_PEER = "#7d8793"
_NOT_DRAWN = (case_named("many").title,)  # of next to no bytes: a GiB of them says nothing
_LEFT_OUT = "-requests"  # in the tables only: they differ little from their likes


class _Bar(NamedTuple):
    label: str
    value: float
    colour: str


class _Panel(NamedTuple):
    title: str
    unit: str
    bars: Sequence[_Bar]

    @property
    def height(self) -> int:
        return _HEAD + _PITCH * len(self.bars)


def draw(results: Results) -> str:
    """The whole picture: by wall time what waits, by memory what many clients share, by CPU all the rest."""
    panels = [panel for panel in map(_panel, results.cases) if panel.bars and panel.title not in _NOT_DRAWN]
    pairs = [panels[i : i + 2] for i in range(0, len(panels), 2)]
    height = _TOP + sum(max(panel.height for panel in pair) + _GUTTER for pair in pairs) + _MARGIN
    machine = results.machine
    about = " · ".join(machine[label] for label in ("Date", "Machine", "System") if label in machine)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"',
        '  role="img" font-family="system-ui, sans-serif" font-size="12" fill="#24292f">',
        "<title>streamware beside other ways to send many files as one archive, and to take files in</title>",
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        _text(_MARGIN, 36, "Many files as one archive, and files taken in: what they cost", size=20, weight="600"),
        _text(_MARGIN, 58, "Shorter is better. Servers run one process on one core; every panel has its own scale."),
        _text(_MARGIN, 76, about, colour="#6a737d"),
    ]
    top = _TOP
    for pair in pairs:
        for number, panel in enumerate(pair):
            lines += _drawn(panel, _MARGIN + number * (_PANEL + _GUTTER), top)
        top += max(panel.height for panel in pair) + _GUTTER
    return "\n".join([*lines, "</svg>"]) + "\n"


def _panel(case: CaseResult) -> _Panel:
    rows = [row for row in case.rows if row.samples and not row.contender.endswith(_LEFT_OUT)]
    if any(row.clients for row in rows):
        bars = [_Bar(row.title, row.grew / 1024 / row.clients, _colour(row)) for row in rows if row.done >= row.clients]
        unit = "KiB of memory a client"
    elif case.ideal is not None:
        bars = [_Bar(row.title, row.middle("wall"), _colour(row)) for row in rows]
        bars.append(_Bar("the ideal", case.ideal, _COLOURS[FLOOR]))
        unit = "seconds"
    else:
        bars = [_Bar(row.title, case.cpu_per_gib(row), _colour(row)) for row in rows if row.contender != WIDE]
        unit = "CPU seconds per GiB"
    return _Panel(case.title, unit, sorted(bars, key=lambda bar: bar.value))


def _colour(row: Row) -> str:
    return _COLOURS.get(row.contender, _PEER)


def _drawn(panel: _Panel, left: int, top: int) -> Iterator[str]:
    yield _text(left, top + 12, panel.title, size=14, weight="600")
    yield _text(left, top + 28, panel.unit, colour="#6a737d", size=11)
    start = left + _LABELS
    scale = (_PANEL - _LABELS - _FIGURES) / max(bar.value for bar in panel.bars)
    for number, bar in enumerate(panel.bars):
        y = top + _HEAD + number * _PITCH
        ours = bar.colour == _COLOURS[WSGI]
        width = max(1.0, bar.value * scale)
        yield _text(start - 6, y + 10, bar.label, anchor="end", weight="600" if ours else "400", size=11)
        yield f'<rect x="{start}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{bar.colour}"/>'
        yield _text(start + width + 5, y + 10, _figure(bar.value), weight="600" if ours else "400", size=11)


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _text(
    x: float,
    y: float,
    said: str,
    *,
    size: int = 12,
    weight: str = "400",
    colour: str = "#24292f",
    anchor: str = "start",
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(said)}</text>'
