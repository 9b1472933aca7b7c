"""A soak's verdict in words, as docs/results/soak.md, and its series as one small picture."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from drawing import Drawing, short  # noqa: E402

from pixelbert_fast.visualize.axes import Axis, linear_axis, number, span_axis  # noqa: E402
from tests.flatness import SERIES, WARM_UP, Line, Series, Verdict  # noqa: E402

PAGE = ROOT / "docs" / "results" / "soak.md"
PICTURE = ROOT / "docs" / "images" / "soak.svg"
# Points of a series in the picture: the least and the most of so many stretches of time.
STRETCHES = 110
WIDTH, PANEL, HEIGHT, LEFT, TOP = 920, 450, 120, 62, 44


def said(verdict: Verdict) -> list[str]:
    """The verdict as a Markdown table and a sentence."""
    rows = [
        "| series | slope an hour | bound | median | least | most | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for line in verdict.lines:
        series = line.series
        bound = "none" if series.bound is None else f"< {series.bound:g}"
        result = "not judged" if series.bound is None else "flat" if line.flat else "**grows**"
        figures = [f"{value:.6g}" for value in (line.median, line.least, line.most)]
        unit = f", {series.unit_name}" if series.unit_name else ""
        rows.append(
            f"| {series.title}{unit} | {line.slope:+.2g} | {bound} | {' | '.join(figures)} | {result} |"
        )
    word = "flat" if verdict.flat else f"NOT flat: {'; '.join(verdict.reasons)}"
    return [*rows, "", f"Verdict after {verdict.hours * 60:.0f} minutes beyond warm-up: {word}."]


def write_page(
    samples: Sequence[dict[str, Any]], asked: float, verdict: Verdict, state: dict[str, Any], command: str
) -> None:
    """Write docs/results/soak.md and docs/images/soak.svg."""
    PAGE.write_text("\n".join(page(samples, asked, verdict, state, command)), encoding="utf-8")
    PICTURE.write_text(picture(samples, asked, verdict), encoding="utf-8")


def page(
    samples: Sequence[dict[str, Any]], asked: float, verdict: Verdict, state: dict[str, Any], command: str
) -> list[str]:
    """The page's lines."""
    from pixelbert_fast.training.provenance import machine, versions

    made, here = versions(), machine()
    device = ", ".join(here["gpus"]) or f"{here['cores']} cores of {here['processor']}"
    steps = max(one["step"] for one in samples)
    hours = max(one["seconds"] for one in samples) / 3600
    wall = sum(_wall(each) for each in _sittings(samples).values()) / 3600
    an_hour = steps / hours
    anonymous = next(series for series in SERIES if series.name == "anonymous")
    sittings, end = _sittings(samples), state["end"]
    a_step = (anonymous.bound or 0) * anonymous.unit / an_hour
    return [
        f"# {asked / 60:g} minutes of training, watched",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {device}; Python {made['python']}, torch {made['torch']},"
        f" DeepSpeed {made['deepspeed']}.",
        "`tests/soak.py` says what is trained: the tiny model on rendered scenes, by the command of"
        " `make demo`, with an",
        "evaluation every second epoch and a state every half minute.",
        "",
        f"{steps:,} steps in {hours:.2f} hours, in {len(sittings)} sitting(s); {len(samples):,} looks;"
        f" {max(wall - hours, 0):.2f} hours more without",
        "steps (starts, and pauses for the machine's other work) do not count.",
        "",
        f"![What the training held over time](../images/{PICTURE.name})",
        "",
        *said(verdict),
        "",
        f"Left at the end: {len(end['shm'])} files in /dev/shm, {end['processes']} processes; exit status"
        f" {end['status']}.",
        "",
        "Memory, handles and threads are of all processes together, the launcher's and the training's. Slopes"
        " are Theil and Sen's:",
        f"the median over all pairs of looks of one sitting after its first {WARM_UP:.0%} of the time. The"
        " bounds, and why:",
        "",
        *(f"- {one.series.title}: {_why(one.series)}." for one in verdict.lines),
        "",
        f"At {an_hour:,.0f} steps an hour the bound of anonymous memory is {a_step:,.0f} bytes a step;"
        " an image of 48 x 48 has 6,912.",
        "",
    ]


def _why(series: Series) -> str:
    if series.bound is None:
        return f"not judged, {series.why}"
    return f"{series.bound:g} {series.unit_name} an hour, as {series.why}".replace("  ", " ")


def _sittings(samples: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for one in samples:
        found.setdefault(one["sitting"], []).append(one)
    return found


def _wall(samples: Sequence[dict[str, Any]]) -> float:
    return samples[-1]["time"] - samples[0]["time"]


def picture(samples: Sequence[dict[str, Any]], asked: float, verdict: Verdict) -> str:
    """One panel a series over the counted minutes; dashed: the slope; dotted: where warm-up ends."""
    counted = [one for one in samples if one["counted"]]
    minutes = span_axis([0.0, *(one["seconds"] / 60 for one in counted)])
    drawing = Drawing(WIDTH, "What a training of the tiny model holds")
    for place, line in enumerate(verdict.lines):
        x, y = (place % 2) * PANEL + LEFT, TOP + place // 2 * (HEIGHT + 56) + 18
        _panel(drawing, x, y, line, counted, minutes, WARM_UP * asked / 60)
    below = TOP + -(-len(verdict.lines) // 2) * (HEIGHT + 56)
    note = (
        "Over minutes in which steps were made. Dotted: where the warm-up of the first sitting ends. Dashed:"
        " the slope that is judged, through the median. A line goes through the least and the most of each"
        " stretch."
    )
    return drawing.svg(drawing.notes(below + 12, note) + 4)


def _panel(
    drawing: Drawing,
    x: float,
    y: float,
    line: Line,
    counted: Sequence[dict[str, Any]],
    minutes: Axis,
    warm: float,
) -> None:
    series, wide = line.series, PANEL - LEFT - 24
    points = [(one["seconds"] / 60, one[series.name] / series.unit) for one in counted
              if one.get(series.name) is not None]  # fmt: skip
    axis = linear_axis([value for _, value in points], ticks=3, zero=True)

    def across(minute: float) -> float:
        return x + minutes.place(minute) * wide

    def up(value: float) -> float:
        return y + HEIGHT * (1 - min(max(axis.place(value), 0.0), 1.0))

    named = f"{series.title}, {series.unit_name}" if series.unit_name else series.title
    drawing.text(x, y - 6, named, "head")
    bound = "" if series.bound is None else f"  (bound {series.bound:g})"
    drawing.text(x + wide, y - 6, f"{line.slope:+.2g} an hour{bound}", "small faint end")
    for tick in axis.ticks:
        drawing.line(x, up(tick), x + wide, up(tick))
        drawing.text(x - 6, up(tick) + 4, number(tick), "small faint end")
    for tick in minutes.ticks:
        drawing.text(across(tick), y + HEIGHT + 14, number(tick), "small faint middle")
    drawing.line(across(warm), y, across(warm), y + HEIGHT, "axis dotted")
    steps = " ".join(f"{short(across(minute))} {short(up(value))}" for minute, value in thinned(points))
    drawing.path(f"M{steps}", "thin")
    last = points[-1][0]
    middle = (warm + last) / 2
    ends = [up(line.median + line.slope * (minute - middle) / 60) for minute in (warm, last)]
    if warm < last:
        drawing.line(across(warm), ends[0], across(last), ends[1], "axis dashed")


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The least and the most of each of STRETCHES runs of points, in the order in which they came."""
    every = -(-len(points) // STRETCHES)
    if every <= 2:
        return list(points)
    found = []
    for first in range(0, len(points), every):
        of_stretch = points[first : first + every]
        ends = {min(of_stretch, key=lambda one: one[1]), max(of_stretch, key=lambda one: one[1])}
        found += sorted(ends)
    return found
