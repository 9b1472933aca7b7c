"""A step as stacked bars of its parts, and below them what no implementation can do without."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import case_tables
import stored
import written
from drawing import SIZE, Drawing, fitted, width_of
from stored import Report, Row

from pixelbert_fast.visualize.axes import Axis, linear_axis, number

TITLE = "A step by its parts"
WIDTH, LEFT, RIGHT, TOP = 920, 190, 96, 40
BAR, PITCH, FLOOR_BAR = 26, 38, 14
# The patterns of parts and those of floors.
OF_PARTS, OF_FLOORS = ("p0", "p1", "p2", "p3"), ("p4", "p5")


def draw(report: Report) -> str | None:
    """The picture; None where no step was measured with its parts."""
    cases = {
        case: rows
        for case, rows in stored.cases_of(stored.rows_of(report, "step")).items()
        if any(row["role"] == "part" for row in rows)
    }
    if not cases:
        return None
    names = list(
        dict.fromkeys(r["contestant"] for rows in cases.values() for r in rows if r["role"] == "part")
    )
    fills = {name: OF_PARTS[place % len(OF_PARTS)] for place, name in enumerate(names)}
    axis = linear_axis([0.0, *(length for rows in cases.values() for length in _lengths(rows))])
    drawing = Drawing(WIDTH, f"{TITLE}, {report['machine']['device']}")
    y = float(TOP)
    for case, rows in cases.items():
        y = _case(drawing, case, rows, fills, axis, y)
    for tick in axis.ticks:
        drawing.text(_x(axis, tick), y + 14, number(tick), "small faint middle")
    drawing.text(WIDTH - 12, y + 14, "ms", "small faint end")
    y = _legend(drawing, fills, y + 42)
    note = (
        "Medians of the parts run by themselves, forward and backward; the upright line is the whole step "
        "measured as one. Floors: the step's own convolutions and matrix products, run alone. Dashed: "
        "measured as a whole only."
    )
    return drawing.svg(drawing.notes(y, note) + 4)


def _lengths(rows: list[Row]) -> list[float]:
    owners = case_tables.by_whole([row for row in rows if row["role"] == "part"])
    whole = [row["milliseconds"]["median"] for row in rows if row["role"] not in ("part", "floor")]
    floors = [row["milliseconds"]["median"] for row in rows if row["role"] == "floor"]
    return [sum(each.values()) for each in owners.values()] + whole + [sum(floors)]


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)


def _case(drawing: Drawing, case: str, rows: list[Row], fills, axis: Axis, y: float) -> float:
    """One case from `y` on; where it ends."""
    pieces = [row for row in rows if row["role"] == "part"]
    owners = case_tables.by_whole(pieces)
    whole = {r["contestant"]: r["milliseconds"]["median"] for r in rows if r["role"] not in ("part", "floor")}
    floors = {row["contestant"]: row["milliseconds"]["median"] for row in rows if row["role"] == "floor"}
    bars = list(dict.fromkeys([*owners, *whole]))
    top = y + 30
    bottom = top + len(bars) * PITCH + (FLOOR_BAR + 12 if floors else 0)
    drawing.text(12, y + 18, fitted(case, WIDTH - 24), "head")
    for tick in axis.ticks:
        drawing.line(_x(axis, tick), top - 4, _x(axis, tick), bottom)
    for place, who in enumerate(bars):
        _bar(drawing, who, owners.get(who), whole.get(who), fills, axis, top + place * PITCH)
    if floors:
        _floors(drawing, floors, axis, top + len(bars) * PITCH)
    return bottom + 4


def _bar(drawing: Drawing, who: str, parts, whole: float | None, fills, axis: Axis, y: float) -> None:
    middle = y + BAR / 2 + 4
    drawing.text(LEFT - 10, middle, fitted(who, LEFT - 20), "end")
    start = 0.0
    for name, length in (parts or {}).items():
        left, right = _x(axis, start), _x(axis, start + length)
        drawing.bar(left, y, right - left, BAR, fills[name], f"{name}: {written.milliseconds(length)} ms")
        shown = _fitting(name, length, right - left)
        if shown:
            drawing.text((left + right) / 2, middle, shown, "small over middle")
        start += length
    if parts is None and whole is not None:
        right = _x(axis, whole)
        drawing.line(LEFT, y + BAR / 2, right, y + BAR / 2, "axis dashed")
    if whole is not None:
        drawing.line(_x(axis, whole), y - 4, _x(axis, whole), y + BAR + 4, "thick")
    end = max(start, whole or 0.0)
    told = written.milliseconds(whole if whole is not None else start)
    drawing.text(_x(axis, end) + 8, middle, f"{told} ms", "small over")


def _fitting(name: str, length: float, width: float) -> str:
    """What of a part's name and time there is room for."""
    time = written.milliseconds(length)
    for shown in (f"{name} {time}", time):
        if width_of(shown, 11) + 8 <= width:
            return shown
    return ""


def _floors(drawing: Drawing, floors: dict[str, float], axis: Axis, y: float) -> None:
    drawing.text(LEFT - 10, y + FLOOR_BAR / 2 + 4, "floors", "small faint end")
    start = 0.0
    for place, (name, length) in enumerate(floors.items()):
        left, right = _x(axis, start), _x(axis, start + length)
        said = f"{name}: {written.milliseconds(length)} ms"
        drawing.bar(left, y, right - left, FLOOR_BAR, OF_FLOORS[place % len(OF_FLOORS)], said)
        start += length
    told = ", ".join(f"{name} {written.milliseconds(length)}" for name, length in floors.items())
    room = WIDTH - 8 - _x(axis, start) - 8
    drawing.text(_x(axis, start) + 8, y + FLOOR_BAR / 2 + 4, fitted(told, room, 11), "small over")


def _legend(drawing: Drawing, fills: dict[str, str], y: float) -> float:
    x = 18.0
    for name, fill in fills.items():
        drawing.bar(x, y - 11, 22, 14, fill)
        drawing.text(x + 28, y, name)
        x += 28 + width_of(name, SIZE) + 24
    return y + 24
