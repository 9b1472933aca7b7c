"""Whether a figure of one report is worse than the same figure of another by more than noise.

Ratios are compared by their logarithms, in which 2 and 1/2 are equally far from 1. How much a figure wavers
is estimated twice, and the larger estimate counts:

- Within a run: each report has the ratio of four consecutive parts of a run. The ratio of the whole is as
  uncertain as their mean, so the difference of two runs has the standard error sqrt(vA / nA + vB / nB).
- Between runs: of n runs of one state the difference of a further run from their mean has the standard
  deviation s * sqrt(1 + 1 / n). It holds what no single run can know of, such as where its memory lies.

Few numbers may agree by luck: a row's variance is taken as no less than the median of its stage.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from stored import Report, Row

# Standard errors that a difference has to exceed.
TIMES = 3.0
LEAST = 0.05
OURS = "ours"
# Half the distance of the quartiles in standard deviations, where values are spread normally.
QUARTILE = 0.6745

Key = tuple


class Verdict(NamedTuple):
    """Of one row: `change` and `noise` are logarithms, and a change below 0 is for the worse.

    Attributes:
        key: stage, case, contestant, and where in a series.
        before, after: the ratio, or the milliseconds.
        change: of the speed.
        noise: the least change that counts.
    """

    key: Key
    before: float
    after: float
    change: float
    noise: float

    @property
    def word(self) -> str:
        if abs(self.change) <= self.noise:
            return "unchanged"
        return "improved" if self.change > 0 else "regressed"


class Measure(NamedTuple):
    """How a row is judged.

    Attributes:
        value: its figure; None or not above 0: it has none.
        variance: of the logarithm of that figure from this run alone; None: cannot be told.
        sign: 1 where more is better, -1 where less is.
    """

    value: Callable[[Row], float | None]
    variance: Callable[[Row], float | None]
    sign: int


def key_of(row: Row) -> Key:
    """What a row is known by."""
    at = tuple(sorted((row.get("at") or {}).items()))
    return (row.get("stage", ""), row["case"], row["contestant"], at)


def ours(report: Report) -> dict[Key, Row]:
    """The rows that are judged."""
    return {
        key_of({"stage": stage, **row}): row
        for stage, each in report["stages"].items()
        for row in each.get("rows") or []
        if row["role"] == OURS
    }


def figure(value: float | None) -> float | None:
    """A figure that has a logarithm, or None."""
    return value if value is not None and math.isfinite(value) and value > 0 else None


def ratio_variance(row: Row) -> float | None:
    """Of the mean of the blocks' log ratios."""
    blocks = [figure(value) for value in row.get("block_ratios") or []]
    if len(blocks) < 2 or None in blocks:
        return None
    return statistics.variance([math.log(value) for value in blocks]) / len(blocks)


def time_variance(row: Row) -> float | None:
    """Of the log median, by the quartiles of the rounds.

    It is not divided by the number of rounds: a machine that is slower for a minute is so in all of them.
    """
    time = row["milliseconds"]
    low, high = figure(time.get("low")), figure(time.get("high"))
    if low is None or high is None:
        return None
    return (math.log(high / low) / 2 / QUARTILE) ** 2


RATIO = Measure(lambda row: figure(row.get("times_faster")), ratio_variance, 1)
TIME = Measure(lambda row: figure(row["milliseconds"]["median"]), time_variance, -1)


def judge(
    before: Report, after: Report, more: Sequence[Report], measure: Measure, least: float = LEAST
) -> list[Verdict]:
    """A verdict for each row of ours that both reports have a figure of, in the order of `before`.

    Args:
        more: further runs of the state of `before`.
        least: a change of less than that part of the figure never counts.
    """
    first, second = ours(before), ours(after)
    others = [ours(report) for report in more]
    shared = [key for key in first if key in second and _both(measure, first[key], second[key])]
    runs = {key: [first[key], *(other[key] for other in others if key in other)] for key in shared}
    within = {key: _sum(measure.variance(first[key]), measure.variance(second[key])) for key in shared}
    between = {key: _between(measure, runs[key]) for key in shared}
    within, between = _no_less_than_usual(within), _no_less_than_usual(between)
    found = []
    for key in shared:
        logs = _logs(measure, runs[key])
        old, new = math.fsum(logs) / len(logs), math.log(measure.value(second[key]))
        variance = max(within[key] or 0.0, between[key] or 0.0)
        noise = max(TIMES * math.sqrt(variance), math.log1p(least))
        found.append(Verdict(key, math.exp(old), math.exp(new), measure.sign * (new - old), noise))
    return found


def _both(measure: Measure, *rows: Row) -> bool:
    return all(measure.value(row) is not None for row in rows)


def _logs(measure: Measure, rows: Sequence[Row]) -> list[float]:
    return [math.log(value) for value in map(measure.value, rows) if value is not None]


def _sum(*variances: float | None) -> float | None:
    """What is known of them; where one cannot be told it is taken to be like the other."""
    known = [each for each in variances if each is not None]
    return sum(known) / len(known) * len(variances) if known else None


def _between(measure: Measure, rows: Sequence[Row]) -> float | None:
    logs = _logs(measure, rows)
    return statistics.variance(logs) * (1 + 1 / len(logs)) if len(logs) > 1 else None


def _no_less_than_usual(variances: dict[Key, float | None]) -> dict[Key, float | None]:
    """Each at least the median of its stage; one that cannot be told is that, or the median of all."""
    known = {key: value for key, value in variances.items() if value is not None}
    if not known:
        return variances
    stages: dict[str, list[float]] = {}
    for key, value in known.items():
        stages.setdefault(key[0], []).append(value)
    usual = {stage: statistics.median(values) for stage, values in stages.items()}
    everywhere = statistics.median(known.values())
    return {key: max(variances[key] or 0.0, usual.get(key[0], everywhere)) for key in variances}
