"""Figures of the runs, their mean and spread over seeds, and differences between rows, seed by seed.

The rule. Two rows are compared by their differences at the seeds that both have: their mean, and its 95 %
interval by Student's t (mean ± t(0.975, n - 1) s / sqrt(n), s their standard deviation). A difference counts
where the interval leaves out zero; one seed gives no interval, which knows how much seeds differ, and not
how much another test set would.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.ablation.plan import Plan, Run
from pixelbert_fast.training.ablation.recipe import FigureConfig

Values = Mapping[str, Mapping[str, Mapping[int, float]]]
"""By row, figure and seed."""

# Student's t at 0.975 for 1 to 30 degrees of freedom; 1.96 is its limit.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """Some values.

    Attributes:
        count: how many.
        mean: None of none.
        deviation: their standard deviation (n - 1 below), None of fewer than two.
        low, high: the 95 % interval of the mean; None of fewer than two.
    """

    count: int
    mean: float | None
    deviation: float | None
    low: float | None
    high: float | None

    @property
    def sign(self) -> int | None:
        """1 or -1: the interval lies above or below zero; 0: zero is in it; None: there is none."""
        if self.low is None:
            return None
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def spread(values: Iterable[float]) -> Spread:
    """Mean, deviation and interval of `values`."""
    given = list(values)
    if len(given) < 2:
        return Spread(len(given), given[0] if given else None, None, None, None)
    mean, deviation = fmean(given), stdev(given)
    half = student(len(given) - 1) * deviation / math.sqrt(len(given))
    return Spread(len(given), mean, deviation, mean - half, mean + half)


def student(freedom: int) -> float:
    """Student's t at 0.975; above 30 degrees of freedom the value for 30, which is a little too wide."""
    return _T[min(freedom, len(_T)) - 1]


def difference(values: Values, better: str, than: str, figure: str) -> Spread:
    """Of one row's figure less another's, over the seeds that both have."""
    one, other = values[better][figure], values[than][figure]
    return spread(one[seed] - other[seed] for seed in sorted(one.keys() & other.keys()))


def measured(plan: Plan) -> dict[str, dict[str, dict[int, float]]]:
    """The figures of all runs that are finished, scaled.

    Raises UserError where the metrics of a run do not have the figure.
    """
    config = plan.config
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in config.rows:
        found[row.name] = {name: {} for name in config.figures}
        for name, figure in config.figures.items():
            for seed in config.seeds:
                run = plan.at(row.name, seed, figure.stage)
                if run is not None and run.finished:
                    found[row.name][name][seed] = figure.scale * _number(run, name, figure)
    return found


def _number(run: Run, name: str, figure: FigureConfig) -> float:
    place: Any = run.folder.metrics()
    parts: Sequence[str] = figure.path.split(".")
    for number, part in enumerate(parts):
        if not isinstance(place, dict) or part not in place:
            there = ", ".join(place) if isinstance(place, dict) else "a number"
            what = f"{run.folder.metrics_file} has no {'.'.join(parts[: number + 1])}"
            raise UserError(f"the figure {name!r} is {figure.path}, and {what} (there is {there})")
        place = place[part]
    if not isinstance(place, int | float) or isinstance(place, bool) or not math.isfinite(place):
        raise UserError(
            f"the figure {name!r} is {figure.path}, which in {run.folder.metrics_file} is no number"
        )
    return float(place)
