"""Axes of a chart: round ticks, linear and logarithmic, and short words for numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Below it logarithms of neighbours are told apart badly by float arithmetic.
_LEAST_RANGE = 1e-9
# Steps of a smaller range would be no normal floats any more.
_TINY = 1e-290
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        least, most: its ends, in values; least < most, and above 0 where `log`.
        ticks: round values within the ends, ascending.
        log: whether equal ratios, and not equal differences, are equally far apart.
    """

    least: float
    most: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, 0 at `least` and 1 at `most`."""
        low, value, high = (math.log10(v) if self.log else v for v in (self.least, value, self.most))
        return (value - low) / (high - low)


def linear_axis(values: Sequence[float], *, ticks: int = 5, zero: bool = False) -> Axis:
    """An axis that ends on round numbers around finite `values`; `zero`: it starts at 0 where none is below.

    Raises ValueError for no values.
    """
    least, most = _ends(values)
    if zero and least > 0:
        least = 0.0
    if most - least <= max(_LEAST_RANGE * max(abs(least), abs(most)), _TINY):
        spare = abs(most) / 2 if abs(most) > _TINY else 0.5
        least, most = least - spare, most + spare
    step = _round_step((most - least) / ticks)
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    found = tuple(_tidy(number * step, step) for number in range(first, last + 1))
    return Axis(found[0], found[-1], found)


def span_axis(values: Sequence[float], *, ticks: int = 5) -> Axis:
    """An axis that ends where finite `values` do, with round ticks between; for the steps of a run."""
    round_axis = linear_axis(values, ticks=ticks)
    least, most = _ends(values)
    if least == most:
        return round_axis
    within = tuple(tick for tick in round_axis.ticks if least <= tick <= most)
    return Axis(least, most, within)


def log_axis(values: Sequence[float]) -> Axis:
    """A logarithmic axis around finite `values`, all above 0.

    Ticks are powers of ten; where these would be fewer than three, 2 and 5 times them too.

    Raises ValueError for no values, or one that is not above 0.
    """
    least, most = _ends(values)
    if least <= 0:
        raise ValueError(f"a logarithmic axis has no place for {least}")
    low, high = math.floor(math.log10(least) + 1e-9), math.ceil(math.log10(most) - 1e-9)
    if high - low >= 3:
        every = -(-(high - low) // 6)
        ticks = tuple(10.0**power for power in range(low, high + 1, every))
        return Axis(10.0**low, max(10.0**high, ticks[-1]), ticks, log=True)
    grid = [digit * 10.0**power for power in range(low - 1, high + 2) for digit in (1, 2, 5)]
    first = max((tick for tick in grid if tick <= least * (1 + 1e-9)), default=grid[0])
    last = min((tick for tick in grid if tick >= most * (1 - 1e-9) and tick > first), default=grid[-1])
    ticks = tuple(tick for tick in grid if first <= tick <= last)
    return Axis(first, last, ticks, log=True)


def number(value: float) -> str:
    """A number in few characters: 0.25, 12k, 3M, 1e-5."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e9 or size < 1e-3:
        digits, _, power = f"{value:.3g}".partition("e")
        if not power:
            digits, _, power = f"{value:.2e}".partition("e")
            digits = digits.rstrip("0").rstrip(".")
        return f"{digits}e{int(power)}"
    for unit, name in ((1e6, "M"), (1e4, "k")):
        if size >= unit:
            return f"{value / (1e3 if name == 'k' else unit):.4g}{name}"
    return f"{value:.4g}"


def _ends(values: Sequence[float]) -> tuple[float, float]:
    least, most = float(min(values)), float(max(values))
    if not (math.isfinite(least) and math.isfinite(most)):
        raise ValueError(f"an axis has no place for {least} to {most}")
    return least, most


def _round_step(size: float) -> float:
    power = 10.0 ** math.floor(math.log10(size))
    return next(digit * power for digit in _ROUND if digit * power >= size * (1 - 1e-9))


def _tidy(value: float, step: float) -> float:
    """Without the dust of the multiplication: 0.30000000000000004 is 0.3."""
    return round(value, max(0, 2 - math.floor(math.log10(step))))
