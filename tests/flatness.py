"""Are the series of a long run flat? Slopes that a sawtooth or one jump does not bend, and their bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

MIB = 2.0**20
WARM_UP = 0.15
# Of the asked time, what must lie after the warm-ups of the sittings for a verdict.
LEAST_SEEN = 0.5
_MOST_POINTS = 1500

_A_STEP = "a step that kept one image, or one batch's texts, would pass it many times over"
_AN_EVENT = "evaluations and states come by tens an hour, and one kept by each would pass it many times over"


@dataclass(frozen=True)
class Series:
    """One thing that is watched.

    Attributes:
        unit: bytes or a count are divided by it to be shown.
        bound: what it may grow in an hour, in units; None: shown, not judged.
        why: the bound's reason, or why there is none.
    """

    name: str
    title: str
    unit: float
    unit_name: str
    bound: float | None
    why: str


SERIES = (
    Series("anonymous", "anonymous memory", MIB, "MiB", 20, _A_STEP),
    Series("rss", "RSS", MIB, "MiB", 20, f"with anonymous memory, {_A_STEP}"),
    Series("pss", "PSS", MIB, "MiB", None, "it moves when other programs with the same libraries come and go;"
           " what is in it is in RSS"),
    Series("handles", "open file handles", 1, "", 2, _AN_EVENT),
    Series("threads", "threads", 1, "", 2, _AN_EVENT),
    Series("processes", "processes", 1, "", 1, _AN_EVENT),
    Series("shm_files", "shared memory, files", 1, "", 1, _AN_EVENT),
    Series("shm_bytes", "shared memory", MIB, "MiB", 1, "less than one batch of images"),
    Series("states", "run folder without records", MIB, "MiB", 1, "the number of states is limited, and one"
           " is larger"),
    Series("records", "log and tensorboard", MIB, "MiB", None, "a record every few steps, by design"),
    Series("device", "device memory, peak", MIB, "MiB", 20, _A_STEP),
)  # fmt: skip


@dataclass
class Line:
    """One series judged: `slope` an hour, its median and range after warm-up, all in units."""

    series: Series
    slope: float
    median: float
    least: float
    most: float

    @property
    def flat(self) -> bool:
        return self.series.bound is None or self.slope < self.series.bound


@dataclass
class Verdict:
    """The lines, the hours they are from, and every reason to say no, in words."""

    lines: list[Line]
    hours: float
    reasons: list[str]

    @property
    def flat(self) -> bool:
        return not self.reasons


def after_warm_up(samples: Sequence[dict[str, Any]], asked: float) -> list[list[dict[str, Any]]]:
    """The samples that count, by sitting, without what came in the first 15 % of `asked` seconds of each."""
    found = []
    for _, group in groupby(samples, key=lambda one: one["sitting"]):
        of_sitting = list(group)
        counted = [one for one in of_sitting if one["counted"]]
        start = of_sitting[0]["seconds"]
        kept = [one for one in counted if one["seconds"] - start >= WARM_UP * asked]
        if len(kept) > 1:
            found.append(kept)
    return found


def slope(sittings: Sequence[Sequence[tuple[float, float]]]) -> float:
    """Theil and Sen's: the median of the slopes of all pairs of (time, value) within a sitting."""
    found = []
    for points in sittings:
        every = -(-len(points) // _MOST_POINTS)
        times, values = np.array(points[::every], dtype=float).T
        first, second = np.triu_indices(len(times), 1)
        apart = times[second] - times[first]
        kept = apart > 0
        found.append((values[second] - values[first])[kept] / apart[kept])
    together = np.concatenate(found) if found else np.zeros(0)
    return float(np.median(together)) if together.size else float("nan")


def judge(samples: Sequence[dict[str, Any]], asked: float, end: dict[str, Any]) -> Verdict:
    """Judge the samples of a run of `asked` seconds.

    end: `status` of the training, `processes` of it that still run, `shm`: bytes by name left in /dev/shm.
    """
    sittings = after_warm_up(samples, asked)
    seen = sum(one[-1]["seconds"] - one[0]["seconds"] for one in sittings)
    total = max((one["seconds"] for one in samples), default=0.0)
    reasons, lines = [], []
    if total < asked:
        reasons.append(f"{total / 60:.1f} of {asked / 60:g} minutes were trained")
    if seen < LEAST_SEEN * asked:
        reasons.append(f"only {seen / 60:.1f} minutes lie after the warm-up of a sitting")
    for series in SERIES:
        points = [[(one["seconds"] / 3600, one[series.name] / series.unit) for one in each
                   if one.get(series.name) is not None] for each in sittings]  # fmt: skip
        points = [each for each in points if len(each) > 1]
        if not points:
            continue
        values = [value for each in points for _, value in each]
        line = Line(series, slope(points), float(np.median(values)), min(values), max(values))
        lines.append(line)
        if not line.flat:
            reasons.append(
                f"{series.title} grows by {line.slope:.3g} {series.unit_name} an hour; the bound is"
                f" {series.bound:g}".replace("  ", " ")
            )
    if end["shm"]:
        names = ", ".join(sorted(end["shm"])[:5])
        reasons.append(f"{sum(end['shm'].values())} bytes are left in /dev/shm ({names})")
    if end["processes"]:
        reasons.append(f"{end['processes']} processes still run")
    if end["status"]:
        reasons.append(f"the training ended with {end['status']}")
    return Verdict(lines, seen / 3600, reasons)
