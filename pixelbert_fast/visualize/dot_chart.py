"""A dot chart as one SVG file: rows of a table on the left, a panel with its own scale for each column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pixelbert_fast.visualize.markup import escaped

_LABELS, _PANEL, _GAP = 210, 190, 26
_ROW, _HEAD, _FOOT = 30, 62, 58

# Told apart by shape, not by colour: dots, ticks, diamonds, dashes.
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1d20; --faint: #61666d; --line: #dcdcd6;
  --mark: #0b63c5; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #131518; --ink: #e7e8ea; --faint: #9aa1a9; --line: #32373d; --mark: #7db4f5; }
}
text { fill: var(--ink); font: 12.5px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.title { font-size: 15px; font-weight: 600; }
.head { font-weight: 600; text-anchor: middle; }
.scale { fill: var(--faint); font-size: 11px; text-anchor: middle; }
.note { fill: var(--faint); font-size: 11.5px; }
.ground { fill: var(--ground); }
.line { stroke: var(--line); stroke-width: 1; }
.chance { stroke: var(--faint); stroke-width: 1.5; stroke-dasharray: 4 4; }
.around { stroke: var(--mark); stroke-width: 2; }
.mean { fill: var(--mark); }
.one { stroke: var(--mark); stroke-width: 1.5; stroke-opacity: .75; }
.other { fill: none; stroke: var(--ink); stroke-width: 1.4; }
"""


class Mark(NamedTuple):
    """A row of a panel.

    Attributes:
        label: the row's.
        values: as measured, any number of them.
        reference: somebody else's value; None: none.
    """

    label: str
    values: Sequence[float]
    reference: float | None = None


class Panel(NamedTuple):
    """A column.

    Attributes:
        label: its heading.
        marks: one for each row, the same rows in every panel.
        chance: shown as a dashed line; None: unknown.
    """

    label: str
    marks: Sequence[Mark]
    chance: float | None = None


def dot_chart(panels: Sequence[Panel], *, title: str, reference: str = "") -> str:
    """The SVG: of each row the mean as a dot, each value as a tick, the reference as a diamond.

    Args:
        reference: what the diamonds are; empty: said nowhere.

    Raises:
        ValueError: no panels, or panels of different rows.
    """
    rows = [mark.label for mark in panels[0].marks] if panels else []
    if not rows or any([mark.label for mark in panel.marks] != rows for panel in panels):
        raise ValueError("panels must be one at least, and all of the same rows")
    width = _LABELS + len(panels) * (_PANEL + _GAP)
    bottom = _HEAD + len(rows) * _ROW
    height = bottom + _FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" aria-label="{escaped(title)}">',
        f"<title>{escaped(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}"/>',
        f'<text class="title" x="12" y="24">{escaped(title)}</text>',
    ]
    for number, label in enumerate(rows):
        middle = _HEAD + (number + 0.5) * _ROW
        shown = label if len(label) <= 32 else f"{label[:31]}…"
        parts.append(f'<text x="12" y="{middle + 4:.1f}">{escaped(shown)}</text>')
    for number, panel in enumerate(panels):
        parts += _panel(panel, _LABELS + number * (_PANEL + _GAP), bottom)
    notes = ["dot: mean", "ticks: single runs"]
    if any(mark.reference is not None for panel in panels for mark in panel.marks) and reference:
        notes.append(f"diamond: {reference}")
    if any(panel.chance is not None for panel in panels):
        notes.append("dashes: chance")
    parts.append(f'<text class="note" x="12" y="{height - 12}">{escaped("; ".join(notes))}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: float, bottom: float) -> list[str]:
    given = [value for mark in panel.marks for value in mark.values]
    given += [mark.reference for mark in panel.marks if mark.reference is not None]
    if panel.chance is not None:
        given.append(panel.chance)
    ticks = _ticks(min(given, default=0.0), max(given, default=1.0))
    low, high = ticks[0], ticks[-1]

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * _PANEL

    parts = [f'<text class="head" x="{left + _PANEL / 2:.1f}" y="{_HEAD - 12}">{escaped(panel.label)}</text>']
    for tick in ticks:
        x = place(tick)
        parts.append(_line("line", (x, x), (_HEAD, bottom)))
        parts.append(f'<text class="scale" x="{x:.1f}" y="{bottom + 16}">{tick:g}</text>')
    if panel.chance is not None:
        x = place(panel.chance)
        parts.append(_line("chance", (x, x), (_HEAD, bottom)))
    for number, mark in enumerate(panel.marks):
        parts += _mark(mark, place, _HEAD + (number + 0.5) * _ROW)
    return parts


def _mark(mark: Mark, place, middle: float) -> list[str]:
    parts = []
    if mark.reference is not None:
        x = place(mark.reference)
        corners = [(x, middle - 6), (x + 6, middle), (x, middle + 6), (x - 6, middle)]
        points = " ".join(f"{across:.1f},{down:.1f}" for across, down in corners)
        parts.append(f'<polygon class="other" points="{points}"/>')
    if not mark.values:
        return parts
    mean = sum(mark.values) / len(mark.values)
    first, last = place(min(mark.values)), place(max(mark.values))
    parts.append(_line("around", (first, last), (middle, middle)))
    for value in mark.values:
        x = place(value)
        parts.append(_line("one", (x, x), (middle - 6, middle + 6)))
    said = f"{mark.label}: {mean:.1f} ({', '.join(f'{value:.1f}' for value in mark.values)})"
    dot = f'<circle class="mean" cx="{place(mean):.1f}" cy="{middle:.1f}" r="4.5">'
    parts.append(f"{dot}<title>{escaped(said)}</title></circle>")
    return parts


def _line(kind: str, across: tuple[float, float], down: tuple[float, float]) -> str:
    (x1, x2), (y1, y2) = across, down
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values around `low` and `high`."""
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
