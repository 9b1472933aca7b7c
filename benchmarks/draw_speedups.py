"""How many times as fast as the reference everybody is, in every case: bars from 1 on, with quartiles."""

from __future__ import annotations

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stored
import written
from drawing import Drawing, close_axis, fitted, short
from stored import Report, Row

from pixelbert_fast.visualize.axes import Axis, number

TITLE = "Times as fast as the reference"
WIDTH, LEFT, RIGHT, TOP = 920, 290, 160, 64
CASE, PITCH, BAR = 26, 18, 9
# More would make a file too large to look at; what is left out stands in the tables.
MOST_ROWS = 120


def cases_of(report: Report) -> list[tuple[str, list[Row]]]:
    """(name, rows that have a ratio) of every case but series, in the order of the report."""
    found = []
    for stage in report["stages"]:
        if stage == "scaling":
            continue
        for case, rows in stored.cases_of(stored.rows_of(report, stage)).items():
            compared = [row for row in rows if row["role"] in ("ours", "peer") and _ratio(row) is not None]
            compared = [row for row in compared if not row.get("at")]
            if compared:
                found.append((_named(stage, case, rows), compared))
    return found


def _ratio(row: Row) -> float | None:
    value = row.get("times_faster")
    return value if value is not None and value > 0 and math.isfinite(value) else None


def _named(stage: str, case: str, rows: list[Row]) -> str:
    """The case, with its stage where it does not say so, and who is 1 where that is not plain."""
    first = next((row["contestant"] for row in rows if row["role"] == "reference"), "reference")
    name = case if stage in ("ops", "step", "latency") else f"{stage}: {case}"
    return name if first == "reference" else f"{name} (1: {first})"


def draw(report: Report) -> str | None:
    """The picture; None where nothing was compared."""
    cases = cases_of(report)
    if not cases:
        return None
    shown, left_out = _most(cases)
    axis = close_axis(
        [1.0] + [value for _, each in shown for row in each for value in (_ratio(row), *_quartiles(row))]
    )
    drawing = Drawing(WIDTH, f"{TITLE}, {report['machine']['device']}")
    bottom = TOP + sum(CASE + PITCH * len(each) for _, each in shown) + 6
    for tick in axis.ticks:
        for y in (TOP - 6, bottom + 14):
            drawing.text(_x(axis, tick), y, number(tick), "small faint middle")
    y = float(TOP)
    for name, each in shown:
        drawing.text(12, y + 17, fitted(name, WIDTH - 24, 11.5), "small head")
        y += CASE
        end = y + PITCH * len(each)
        drawing.path(
            "".join(f"M{short(_x(axis, tick))} {y - 2:.0f}V{end:.0f}" for tick in axis.ticks), "grid"
        )
        for place, row in enumerate(each):
            _row(drawing, row, axis, y + PITCH * (place + 0.5))
        drawing.line(_x(axis, 1.0), y - 2, _x(axis, 1.0), end, "thick")  # over the bars, which begin at it
        y = end
    note = (
        "Ratio of the median times: ours plain, others striped; whiskers are the quartiles of the ratio "
        "within rounds, in which all take turns. Left of 1 is slower than the reference. The scale is "
        "logarithmic."
    )
    if left_out:
        note += f" Cases that stand in the tables only: {left_out}."
    return drawing.svg(drawing.notes(bottom + 38, note) + 4)


def _most(cases: list) -> tuple[list, int]:
    shown, count = [], 0.0
    for place, one in enumerate(cases):
        count += len(one[1]) + 0.5
        if count > MOST_ROWS and shown:
            return shown, len(cases) - place
        shown.append(one)
    return shown, 0


def _quartiles(row: Row) -> list[float]:
    return [value for value in row.get("ratio_quartiles") or [] if value > 0]


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)


def _row(drawing: Drawing, row: Row, axis: Axis, y: float) -> None:
    drawing.text(LEFT - 12, y + 4, fitted(row["contestant"], LEFT - 24, 12), "end")
    one, own = _x(axis, 1.0), _x(axis, _ratio(row))
    drawing.bar(min(one, own), y - BAR / 2, abs(own - one), BAR, "p0" if row["role"] == "ours" else "p1")
    quartiles = _quartiles(row)
    if len(quartiles) == 2:
        low, high = (_x(axis, value) for value in quartiles)
        ends = "".join(f"M{short(x)} {short(y - 6)}v12" for x in (low, high))
        drawing.path(f"M{short(low)} {short(y)}H{short(high)}{ends}", "thin")
    drawing.text(WIDTH - 8, y + 4, written.ratio_with_quartiles(row), "small end")
