"""Line charts as inline SVG: told apart by dashes and marks as well as colours, in light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pixelbert_fast.visualize.axes import Axis, linear_axis, log_axis, number, span_axis
from pixelbert_fast.visualize.markup import escaped

# Scaled to a phone's width the letters are still some 10 pixels high.
_WIDTH, _HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 38
# Two points a bin, a bin a pixel and a half of the plot.
_BINS = 240
_MARKS_A_LINE = 6
STYLES = 6
"""How many looks there are; further series begin again."""

STYLE = """
.chart { margin: 0; min-width: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .6rem .7rem .4rem; }
.chart figcaption { font-weight: 600; font-size: .85rem; }
.chart ul { list-style: none; margin: .2rem 0 .1rem; padding: 0; display: flex; flex-wrap: wrap;
  gap: .1rem .8rem; font-size: .75rem; color: var(--faint); }
.chart li { margin: 0; display: flex; align-items: center; gap: .3rem; min-width: 0; }
.chart li svg { width: 30px; height: 12px; flex: none; }
.chart svg.plot { display: block; width: 100%; height: auto; }
.chart output { display: block; min-height: 1.2em; font-size: .75rem; color: var(--faint);
  font-variant-numeric: tabular-nums; }
.chart text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--faint); }
.grid { stroke: var(--line); stroke-width: 1; }
.cursor { stroke: var(--ink); stroke-width: 1; visibility: hidden; }
.l { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: butt; }
.m { stroke-width: 1.2; stroke: var(--card); }
.s0 .l { stroke: var(--s0); } .s0 .m { fill: var(--s0); }
.s1 .l { stroke: var(--s1); stroke-dasharray: 7 3; } .s1 .m { fill: var(--s1); }
.s2 .l { stroke: var(--s2); stroke-dasharray: 2 2.5; } .s2 .m { fill: var(--s2); }
.s3 .l { stroke: var(--s3); stroke-dasharray: 9 3 2 3; } .s3 .m { fill: var(--s3); }
.s4 .l { stroke: var(--s4); stroke-dasharray: 14 4; } .s4 .m { fill: var(--s4); }
.s5 .l { stroke: var(--s5); stroke-dasharray: 5 2 1.5 2 1.5 2; } .s5 .m { fill: var(--s5); }
:root { --s0: #0b63c5; --s1: #b3480a; --s2: #0f7a5c; --s3: #9a2a76; --s4: #4d4f55; --s5: #8a6a00; }
@media (prefers-color-scheme: dark) {
  :root { --s0: #7db4f5; --s1: #ffab70; --s2: #6fd6b0; --s3: #f29ad0; --s4: #c3c7cd; --s5: #e6c54a; }
}
"""

# What a mark looks like at (0, 0): circle, square, triangle, diamond, cross, down-pointing triangle.
_MARKS = (
    "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0z",
    "M-3.3 -3.3h6.6v6.6h-6.6z",
    "M0 -4.4L4.2 3.3H-4.2z",
    "M0 -4.8L4.8 0L0 4.8L-4.8 0z",
    "M-4.2 -1.4h2.8v-2.8h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8z",
    "M0 4.4L4.2 -3.3H-4.2z",
)


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: for the legend; any text.
        xs, ys: of equal length, xs ascending. A y that is no finite number is a gap.
        points: mark every point and leave none out; for figures that are few and far between.
        look: which dashes, mark and colour; None: its place among the series.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    points: bool = False
    look: int | None = None


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: str = "step",
    y: str = "",
    log: bool = False,
    zero: bool = False,
) -> str:
    """A chart as an HTML `figure`, which takes `STYLE` and the page's --card, --ink, --faint and --line.

    Args:
        x, y: what the axes measure.
        log: a logarithmic y axis; values not above 0 are gaps. Where none is above 0 the axis is linear.
        zero: a linear y axis starts at 0.

    Long series are drawn by the least and the greatest of each bin, so that a spike of one step stays.
    """
    log = log and any(y is not None and 0 < y < math.inf for one in series for y in one.ys)
    drawn = [_cleaned(one, log) for one in series]
    looks = [place if one.look is None else one.look for place, one in enumerate(series)]
    points = [(a, b) for one in drawn for a, b in zip(one.xs, one.ys, strict=True) if math.isfinite(b)]
    caption = f"<figcaption>{escaped(title)}</figcaption>"
    if not points:
        return f'<figure class="chart">{caption}<p>No finite value was recorded.</p></figure>'
    across = span_axis([a for a, _ in points])
    values = [b for _, b in points]
    up = log_axis(values) if log else linear_axis(values, zero=zero)
    frame = _Frame(across, up)
    body = "".join(frame.line(one, look) for one, look in zip(drawn, looks, strict=True))
    legend = "".join(_key(one.name, look) for one, look in zip(series, looks, strict=True))
    said = "; ".join(filter(None, map(_said, drawn)))
    return (
        f'<figure class="chart">{caption}<ul>{legend}</ul>'
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" {frame.scales()} '
        f'aria-label="{escaped(f"{title}, by {x}: {said}")}">{frame.grid()}{frame.labels(x, y)}{body}'
        f'<path class="cursor" d="M0 {_TOP}V{_HEIGHT - _BOTTOM}"/></svg><output></output></figure>'
    )


def thinned(xs: Sequence[float], ys: Sequence[float], bins: int = _BINS) -> tuple[list[float], list[float]]:
    """A long series by the least and the greatest y of each of `bins` equal parts of its x range.

    The first and the last point stay. A part with a gap in it ends in one. A series of no more than twice as
    many points stays as it is.
    """
    if len(xs) <= 2 * bins:
        return list(xs), list(ys)
    width = (xs[-1] - xs[0]) / bins or 1.0
    parts: dict[int, list[int]] = {}
    for place, x in enumerate(xs):
        parts.setdefault(min(int((x - xs[0]) / width), bins - 1), []).append(place)
    kept: list[int | None] = []
    for part in parts.values():
        finite = [place for place in part if math.isfinite(ys[place])]
        ends = [place for place in (0, len(xs) - 1) if place in part and place in finite]
        if finite:
            extremes = {min(finite, key=ys.__getitem__), max(finite, key=ys.__getitem__), *ends}
            kept += sorted(extremes)
        if len(finite) < len(part):
            kept.append(None)
    out: tuple[list[float], list[float]] = ([], [])
    for place in kept:
        out[0].append(xs[place] if place is not None else (out[0][-1] if out[0] else xs[0]))
        out[1].append(ys[place] if place is not None else math.nan)
    return out


@dataclass(frozen=True)
class _Frame:
    """Where values lie in the picture."""

    across: Axis
    up: Axis

    def point(self, x: float, y: float) -> tuple[float, float]:
        right = _LEFT + self.across.place(x) * (_WIDTH - _LEFT - _RIGHT)
        down = _TOP + (1 - self.up.place(y)) * (_HEIGHT - _TOP - _BOTTOM)
        return right, down

    def line(self, one: Series, look: int) -> str:
        xs, ys = (one.xs, one.ys) if one.points else thinned(one.xs, one.ys)
        pieces: list[list[tuple[float, float]]] = [[]]
        for x, y in zip(xs, ys, strict=True):
            if math.isfinite(y):
                pieces[-1].append(self.point(x, y))
            elif pieces[-1]:
                pieces.append([])
        pieces = [piece for piece in pieces if piece]
        path = "".join("M" + "L".join(f"{_short(a)} {_short(b)}" for a, b in piece) for piece in pieces)
        marked = [point for piece in pieces for point in piece]
        if not one.points:
            alone = [piece[0] for piece in pieces if len(piece) == 1]
            marked = _spread(marked, look) + alone
        marks = "".join(_mark(look, *point) for point in dict.fromkeys(marked))
        name = escaped(one.name)
        return f'<g class="s{look % STYLES}" data-name="{name}"><path class="l" d="{path}"/>{marks}</g>'

    def grid(self) -> str:
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        lines = [
            f"M{_LEFT} {_short(self.point(self.across.least, tick)[1])}H{right}" for tick in self.up.ticks
        ]
        lines += [f"M{_short(self.point(tick, self.up.least)[0])} {bottom}v4" for tick in self.across.ticks]
        return f'<path class="grid" d="{"".join(lines)}"/>'

    def labels(self, x: str, y: str) -> str:
        found = []
        for tick in self.up.ticks:
            down = self.point(self.across.least, tick)[1] + 4.5
            found.append(f'<text x="{_LEFT - 6}" y="{_short(down)}" text-anchor="end">{number(tick)}</text>')
        for tick in self.across.ticks:
            place = self.point(tick, self.up.least)[0]
            anchor = "end" if place > _WIDTH - 24 else "middle"
            at = f'x="{_short(min(place, _WIDTH - 1))}" y="{_HEIGHT - _BOTTOM + 17}"'
            found.append(f'<text {at} text-anchor="{anchor}">{number(tick)}</text>')
        found.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 5}" text-anchor="end">{escaped(x)}</text>')
        if y:
            found.append(f'<text x="4" y="{_HEIGHT - 5}">{escaped(y)}</text>')
        return "".join(found)

    def scales(self) -> str:
        """What a read-out turns places back into values by."""
        scale = "log" if self.up.log else "linear"
        return (
            f'data-x="{_LEFT} {_WIDTH - _RIGHT} {self.across.least!r} {self.across.most!r}" '
            f'data-y="{_HEIGHT - _BOTTOM} {_TOP} {self.up.least!r} {self.up.most!r}" data-scale="{scale}"'
        )


def _cleaned(one: Series, log: bool) -> Series:
    if len(one.xs) != len(one.ys):
        raise ValueError(f"the series {one.name!r} has {len(one.xs)} xs and {len(one.ys)} ys")
    ys = [float(y) if y is not None and math.isfinite(y) and (y > 0 or not log) else math.nan for y in one.ys]
    return Series(one.name, [float(x) for x in one.xs], ys, one.points, one.look)


def _spread(points: list[tuple[float, float]], look: int) -> list[tuple[float, float]]:
    """A few of the points, evenly, each series' beginning elsewhere so that marks do not hide each other."""
    if len(points) <= 2:
        return points
    shift = (look % STYLES) / STYLES
    places = [(number + shift) / _MARKS_A_LINE * (len(points) - 1) for number in range(_MARKS_A_LINE)]
    return [points[round(place)] for place in places]


def _mark(look: int, x: float, y: float) -> str:
    shape = _MARKS[look % STYLES]
    return f'<path class="m" transform="translate({_short(x)} {_short(y)})" d="{shape}"/>'


def _key(name: str, look: int) -> str:
    return (
        f'<li><svg viewBox="0 0 30 12" aria-hidden="true"><g class="s{look % STYLES}">'
        f'<path class="l" d="M0 6H30"/>{_mark(look, 15, 6)}</g></svg>'
        f'<span dir="auto">{escaped(name)}</span></li>'
    )


def _said(one: Series) -> str:
    finite = [(x, y) for x, y in zip(one.xs, one.ys, strict=True) if math.isfinite(y)]
    if not finite:
        return f"{one.name} has no finite value"
    (_, first), (_, last) = finite[0], finite[-1]
    if len(finite) == 1:
        return f"{one.name} {number(first)}"
    return f"{one.name} from {number(first)} to {number(last)}"


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
