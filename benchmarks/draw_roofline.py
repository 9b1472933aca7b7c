"""The ops under the machine's own roofs: what a copy moves, and what a matrix product reaches."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stored
from drawing import Drawing, close_axis, fitted, looks, width_of
from stored import Report, Row

from pixelbert_fast.visualize.axes import Axis, number

TITLE = "Roofline of the ops"
WIDTH, LEFT, RIGHT, TOP, HEIGHT, GAP = 920, 62, 16, 66, 340, 72
STRIP, COLUMN, LABELS = 240, 26, 22
# Less is over before a rate means anything.
LEAST_BYTES = 1 << 20
# Between stems, between marks of one stem (10 wide), and from a stem to its place.
LEAST_APART, NEAR, FARTHEST = 24, 8.0, 40.0
RIVALS = ("reference", "ours", "peer")


class Point(NamedTuple):
    """One contestant of a case: FLOPs a byte (0: no arithmetic), and GFLOP/s, or GB/s where there is none."""

    case: str
    row: Row
    intensity: float
    rate: float


class Plot(NamedTuple):
    """A panel with its axes; `x` and `y` are where its values lie."""

    left: float
    width: float
    across: Axis | None
    up: Axis

    def x(self, value: float) -> float:
        return self.left + self.across.place(value) * self.width

    def y(self, value: float) -> float:
        return TOP + (1 - self.up.place(value)) * HEIGHT


def points_of(report: Report) -> list[Point]:
    """Every contestant of the ops that moves enough bytes for a rate."""
    found = []
    for row in stored.rows_of(report, "ops"):
        moved, seconds = row.get("bytes") or 0, row["milliseconds"]["median"] / 1e3
        if row["role"] not in RIVALS or moved < LEAST_BYTES or seconds <= 0 or row.get("at"):
            continue
        flops = row.get("flops") or 0
        found.append(Point(row["case"], row, flops / moved, (flops or moved) / seconds / 1e9))
    return found


def draw(report: Report) -> str | None:
    """The picture; None where no op was measured."""
    points = points_of(report)
    if not points:
        return None
    ceilings = report.get("ceilings") or {}
    copy = ceilings.get("copy_gigabytes_per_second") or None
    roofs = {
        dtype: rate for dtype, rate in (ceilings.get("matrix_gigaflops_per_second") or {}).items() if rate
    }
    numbers = {case: place for place, case in enumerate(dict.fromkeys(one.case for one in points), 1)}
    shapes = looks([one.row for one in points])
    moving = [one for one in points if not one.intensity]
    computing = [one for one in points if one.intensity]
    drawing = Drawing(WIDTH, f"{TITLE}, {report['machine']['device']}")
    width = WIDTH - LEFT - RIGHT
    strip = min(width, max(STRIP, COLUMN * len({one.case for one in moving}))) if moving else 0
    if moving:
        strip = strip if computing else width
        _moving(drawing, moving, copy, strip, numbers, shapes)
    if computing:
        left = LEFT + (strip + GAP if moving else 0)
        _computing(drawing, computing, copy, roofs, (left, WIDTH - RIGHT - left), numbers, shapes)
    return drawing.svg(_legend(drawing, report, numbers, shapes))


def _moving(drawing: Drawing, points: list[Point], copy: float | None, width: float, numbers, shapes) -> None:
    """Ops that only select values: bytes a second, a column a case."""
    up = close_axis([one.rate for one in points] + ([copy] if copy else []))
    plot = Plot(LEFT, width, None, up)
    drawing.text(LEFT, TOP - 14, "no arithmetic: GB/s", "head")
    _frame(drawing, plot)
    cases = list(dict.fromkeys(one.case for one in points))
    places = {case: LEFT + width * (place + 0.5) / len(cases) for place, case in enumerate(cases)}
    if copy:
        drawing.line(LEFT, plot.y(copy), LEFT + width, plot.y(copy), "roof")
    _stacks(drawing, plot, points, places, places, numbers, shapes)
    if copy:
        drawing.text(LEFT + width - 4, plot.y(copy) - 6, f"a copy: {copy:,g} GB/s", "small over end")


def _computing(drawing: Drawing, points, copy, roofs, box: tuple[float, float], numbers, shapes) -> None:
    """Ops with products: FLOP/s over FLOPs a byte, under the roofs of those dtypes that they have."""
    used = {one.row.get("dtype") for one in points}
    roofs = {dtype: rate for dtype, rate in roofs.items() if dtype in used}
    ridges = [rate / copy for rate in roofs.values()] if copy else []
    across = close_axis(
        [one.intensity for one in points] + [ridge * part for ridge in ridges for part in (0.4, 1.5)]
    )
    plot = Plot(*box, across, close_axis([one.rate for one in points] + list(roofs.values())))
    drawing.text(plot.left, TOP - 14, "products: GFLOP/s over FLOPs a byte", "head")
    _frame(drawing, plot)
    for tick in across.ticks:
        x, bottom = plot.x(tick), TOP + HEIGHT
        drawing.line(x, bottom, x, bottom + 4, "axis")
        drawing.text(x, bottom + LABELS + 34, number(tick), "small faint middle")
    said = _roofs(drawing, plot, copy, roofs)
    places = {one.case: plot.x(one.intensity) for one in points}
    stems = spread(places, plot.left + 8, plot.left + plot.width - 8)
    _stacks(drawing, plot, points, places, stems, numbers, shapes)
    for x, y, text, kind in said:  # after the marks, which would hide it
        drawing.text(x, y, text, kind)


def _roofs(drawing: Drawing, plot: Plot, copy: float | None, roofs: dict[str, float]) -> list[tuple]:
    """The slope of a copy up to the ridges, from each on what products reach, and what to say of them."""
    said = []
    least, right = plot.across.least, plot.left + plot.width
    for (dtype, rate), dash in zip(sorted(roofs.items()), ("", " dashed", " dotted"), strict=False):
        y, start = plot.y(rate), max(rate / copy, least) if copy else least
        drawing.line(plot.x(start), y, right, y, f"roof{dash}")
        text = f"products in {dtype}: {rate:,.0f} GFLOP/s"
        # At the ridge, since most points are to the right of it.
        fits = plot.x(start) + 10 + width_of(text, 11) < right
        x, kind = (plot.x(start) + 6, "small over") if fits else (right - 4, "small over end")
        said.append((x, y - 6, text, kind))
    if copy and roofs:
        start, stop = max(least, plot.up.least / copy), max(roofs.values()) / copy
        if start < stop:
            ends = plot.x(start), plot.y(start * copy), plot.x(stop), plot.y(stop * copy)
            drawing.line(*ends, "roof")
            said.append((ends[0] + 10, ends[1] - 4, f"a copy: {copy:,g} GB/s", "small over"))
    return said


def spread(places: dict[str, float], least: float, most: float) -> dict[str, float]:
    """Places of stems in the order of `places` and within the ends, as far apart as marks need.

    They are nearer than that where some would otherwise stand farther than `FARTHEST` from their place.
    """
    for apart in (LEAST_APART, 20, 16, 13, 11, 8, 6, 4, 2, 1):
        found = _spread(places, least, most, apart)
        if max(abs(found[case] - x) for case, x in places.items()) <= FARTHEST:
            break
    return found


def _spread(places: dict[str, float], least: float, most: float, apart: float) -> dict[str, float]:
    """From the left each as near to its place as the one before allows, then half of the way back."""
    order = sorted(places, key=places.__getitem__)
    right, left = {}, {}
    last = least - apart
    for case in order:
        last = right[case] = max(places[case], last + apart)
    last = most + apart
    for case in reversed(order):
        last = left[case] = min(places[case], last - apart)
    middle = {case: (right[case] + left[case]) / 2 for case in order}
    over = max(0.0, middle[order[-1]] - most) - max(0.0, least - middle[order[0]])
    return {case: x - over for case, x in middle.items()}


def _frame(drawing: Drawing, plot: Plot) -> None:
    right = plot.left + plot.width
    for tick in plot.up.ticks:
        drawing.line(plot.left, plot.y(tick), right, plot.y(tick))
        drawing.text(plot.left - 6, plot.y(tick) + 4, number(tick), "small faint end")
    drawing.line(plot.left, TOP + HEIGHT, right, TOP + HEIGHT, "axis")


def _stacks(drawing: Drawing, plot: Plot, points, places, stems, numbers, shapes) -> None:
    """Each case as its contestants above its number, on a stem that stands where its place is, or near by."""
    foot = TOP + HEIGHT
    ordered = sorted(stems, key=stems.__getitem__)
    apart = min((stems[b] - stems[a] for a, b in pairwise(ordered)), default=LEAST_APART)
    levels = 1 if apart >= 16 else 2 if apart >= 8 else 3
    for case, x in stems.items():
        own = sorted((one for one in points if one.case == case), key=lambda one: one.rate)
        ys = [plot.y(one.rate) for one in own]
        drawing.line(x, ys[-1], x, foot - 12, "lead")
        drawing.line(x, foot - 12, places[case], foot, "lead")
        down = foot + LABELS - 6 + 11 * (ordered.index(case) % levels)
        drawing.text(x, down, str(numbers[case]), "small head over middle")
        beside: list[tuple[float, float]] = []
        for one, y in zip(own, ys, strict=True):
            near = [shift for shift, there in beside if abs(there - y) < 2 * NEAR]
            shift = next((each for each in (0.0, NEAR, -NEAR) if each not in near), 0.0)
            beside.append((shift, y))
            unit = "GFLOP/s" if one.intensity else "GB/s"
            said = f"{one.row['contestant']}: {one.rate:,.4g} {unit}"
            drawing.mark(x + shift, y, shapes[one.row["contestant"]], said)


def _legend(drawing: Drawing, report: Report, numbers: dict[str, int], shapes) -> float:
    """Who is which mark, which case is which number, and what the axes count; its lower end."""
    x, y = 18.0, float(TOP + HEIGHT + LABELS + 62)
    for who, look in shapes.items():
        needed = 40 + 7 * len(who)
        if x + needed > WIDTH:
            x, y = 18.0, y + 20
        drawing.mark(x, y - 4, look)
        drawing.text(x + 12, y, who)
        x += needed
    y += 10
    for case, place in numbers.items():
        y += 16
        drawing.text(30, y, str(place), "small head end")
        drawing.text(38, y, fitted(case, WIDTH - 50, 11), "small")
    left_out = _left_out(report, numbers)
    note = (
        "Bytes and FLOPs are the fewest that the work needs, counted from its shapes. Marks are medians; "
        "stems too near each other stand apart and lean to their place. The roofs were measured in the same "
        "run. An op that computes nothing has no place over FLOPs a byte, only bytes a second. "
        "Data that stays in a cache can be above the copy."
    )
    return drawing.notes(y + 24, note + left_out) + 4


def _left_out(report: Report, numbers: dict[str, int]) -> str:
    rows = stored.rows_of(report, "ops")
    missing = {row["case"] for row in rows if row["role"] in RIVALS and not row.get("at")} - set(numbers)
    if not missing:
        return ""
    names = sorted({case.split(" ")[0] for case in missing})
    return f" Left out, as they move less than 1 MiB or were not counted: {', '.join(names)}."
