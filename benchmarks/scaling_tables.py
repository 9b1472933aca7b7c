"""How cost grows: a table for each series, and the log-log slopes of time and of work."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import written
from stored import Row

# A slope that much above the work's is named: over a range of 8 it is a time 1.4 times as long.
SPARE = 0.15
# From the folder of a report.
WHY = "../../docs/results/scaling.md"


class Growth(NamedTuple):
    """Of one contestant over a series.

    Attributes:
        time: the log-log slope of its time over the size.
        work: the steepest of the slopes of what the work takes; None where that was not counted.
        of: what `work` is the slope of, "flops" or "bytes".
        most: what the size was multiplied by from the first to the last.
    """

    contestant: str
    time: float
    work: float | None
    of: str
    most: float

    @property
    def remark(self) -> str:
        """A sentence where cost grows faster than work."""
        if self.work is None:
            return "the work was not counted"
        if self.time - self.work <= SPARE:
            return ""
        times = self.most ** (self.time - self.work)
        return (
            f"**grows faster than its {self.of}** by {self.time - self.work:.2f}: "
            f"{written.ratio(times)} times over this range ([why]({WHY}))"
        )


def slope(sizes: Sequence[float], values: Sequence[float | None]) -> float | None:
    """The least-squares slope of log value over log size; None for one size, or a value not above 0."""
    if any(value is None or value <= 0 for value in [*sizes, *values]) or len(set(sizes)) < 2:
        return None
    across, up = ([math.log(value) for value in each] for each in (sizes, values))
    middle, height = sum(across) / len(across), sum(up) / len(up)
    spread = sum((x - middle) ** 2 for x in across)
    return sum((x - middle) * (y - height) for x, y in zip(across, up, strict=True)) / spread


def series_of(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by series: its case and the name of the size that varies."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.get("at"):
            found.setdefault((row["case"], ", ".join(row["at"])), []).append(row)
    return found


def size_of(row: Row) -> float:
    """Where in its series a row stands."""
    return float(next(iter(row["at"].values())))


def growths(rows: list[Row]) -> list[Growth]:
    """Of each contestant of one series that was measured at two sizes or more."""
    found = []
    for who in dict.fromkeys(row["contestant"] for row in rows):
        own = sorted((row for row in rows if row["contestant"] == who), key=size_of)
        sizes = [size_of(row) for row in own]
        time = slope(sizes, [row["milliseconds"]["median"] for row in own])
        if time is None:
            continue
        counted = {name: slope(sizes, [row.get(name) for row in own]) for name in ("flops", "bytes")}
        known = {name: value for name, value in counted.items() if value is not None}
        steepest = max(known, key=known.__getitem__, default="")
        found.append(Growth(who, time, known.get(steepest), steepest, sizes[-1] / sizes[0]))
    return found


def of_stage(rows: list[Row]) -> list[str]:
    """Each series: its sizes down and contestants across, then the slopes."""
    lines: list[str] = []
    for (case, name), each in series_of(rows).items():
        lines += ["", f"**{case}**", "", *_sizes(name, each)]
        slopes = growths(each)
        if slopes:
            heads = ["log-log slope", "of time", "of work", ""]
            told = [[one.contestant, f"{one.time:.2f}", _work(one), one.remark] for one in slopes]
            lines += ["", *written.table(heads, told)]
        else:
            lines += ["", "One size alone has no slope."]
    return lines[1:]


def _work(one: Growth) -> str:
    return "" if one.work is None else f"{one.work:.2f} ({one.of})"


def _sizes(name: str, rows: list[Row]) -> list[str]:
    contestants = list(dict.fromkeys(row["contestant"] for row in rows))
    by_size: dict[float, dict[str, Row]] = {}
    for row in rows:
        by_size.setdefault(size_of(row), {})[row["contestant"]] = row
    heads = [name]
    for who in contestants:
        heads += [f"{who}, ms", f"{who}: times as fast"]
    lines = []
    for size, each in sorted(by_size.items()):
        line = [f"{size:g}"]
        for who in contestants:
            row = each.get(who)
            line.append("" if row is None else written.milliseconds(row["milliseconds"]["median"]))
            line.append(
                "" if row is None or row["role"] == "reference" else written.ratio_with_quartiles(row)
            )
        lines.append(line)
    return written.table(heads, lines)
