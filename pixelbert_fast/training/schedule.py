"""The learning rate over time: one factor on every group's rate, a pure function of the step.

A run that goes on in another number of processes makes its epochs in another number of steps. What is planned
by epochs or for the whole run then keeps its place in the epochs, and no rate jumps: see `Pace`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

Factor = Callable[[int], float]
# The same of a step of the plan.
Planned = Callable[[float], float]


@dataclass(frozen=True)
class Pace:
    """Where a step lies in the plan, which counts in the steps of the run's first sitting.

    Attributes:
        total, updates_per_epoch: the plan's.
        step, planned: a step, and where in the plan it lies; those before it are not asked for any more.
        slope: how far in the plan a step goes from there on.
    """

    total: int
    updates_per_epoch: float
    step: int = 0
    planned: float = 0.0
    slope: float = 1.0

    def at(self, step: int) -> float:
        """The plan's step in the place of `step`."""
        return self.planned + (step - self.step) * self.slope

    def changed(self, kind: str, step: int, total: int, updates_per_epoch: float) -> Pace:
        """From `step` on, with the run's steps and the updates of an epoch as they are now.

        kind: of the schedule. Milestones are of epochs, a cosine is of the whole run.
        """
        planned = self.at(step)
        if kind == "cosine":
            slope = (self.total - planned) / max(total - step, 1)
        else:
            slope = self.updates_per_epoch / updates_per_epoch
        return Pace(self.total, self.updates_per_epoch, step, planned, slope)


def warmed(after: Factor, warmup_steps: int, start: float) -> Factor:
    """Rise linearly from `start` at step 0 to 1 at `warmup_steps`, times what comes `after`."""

    def factor(step: int) -> float:
        rise = 1.0 if step >= warmup_steps else start + (1.0 - start) * step / warmup_steps
        return rise * after(step)

    return factor


def stepwise(milestones: Sequence[int], gamma: float) -> Planned:
    """Times `gamma` from each milestone (a step) on."""
    return lambda step: gamma ** sum(step >= milestone for milestone in milestones)


def cosine(first: int, last: int, floor: float) -> Planned:
    """1 until step `first`, then half a cosine down to `floor` at step `last`."""

    def factor(step: float) -> float:
        share = min(max((step - first) / max(last - first, 1), 0.0), 1.0)
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * share))

    return factor


def make_factor(options: Any, pace: Pace) -> Factor:
    """The factor a `ScheduleConfig` describes; steps count updates from 0, and the warm-up is in them."""
    if options.kind == "step":
        milestones = [round(epoch * pace.updates_per_epoch) for epoch in options.milestones]
        planned = stepwise(milestones, options.gamma)
    elif options.kind == "cosine":
        planned = cosine(options.warmup_steps, pace.total, options.floor)
    else:
        planned = lambda step: 1.0  # noqa: E731 - one of three functions of a step
    after = lambda step: planned(pace.at(step))  # noqa: E731 - as above
    return warmed(after, options.warmup_steps, options.warmup_start) if options.warmup_steps else after


class Schedule:
    """Sets each group's rate to its first value times the factor of the step about to be made.

    Args:
        options: a `ScheduleConfig`.
        pace: of a run that begins.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, options: Any, pace: Pace) -> None:
        # The optimiser and not its groups: loading its state puts other dictionaries there.
        self._optimizer = optimizer
        self._base = [group["lr"] for group in optimizer.param_groups]
        self._options = options
        self._go_by(pace)

    def _go_by(self, pace: Pace) -> None:
        self._pace, self._factor = pace, make_factor(self._options, pace)

    def set(self, step: int) -> None:
        """Prepare the optimiser for update number `step` (from 0)."""
        factor = self._factor(step)
        for group, base in zip(self._optimizer.param_groups, self._base, strict=True):
            group["lr"] = base * factor

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run starts from: the rates before any factor, and the plan."""
        return {"base": list(self._base), "pace": asdict(self._pace)}

    def load_state_dict(self, state: Mapping[str, Any], changed_at: int | None = None) -> None:
        """Take over `state_dict()`'s value.

        changed_at: the step from which on epochs have another number of steps, those of the pace this was
            made with; None: they have not.

        Raises:
            ValueError: the groups are others.
        """
        if len(state["base"]) != len(self._base):
            raise ValueError(f"the state has {len(state['base'])} groups, the optimiser {len(self._base)}")
        self._base = [float(rate) for rate in state["base"]]
        now, pace = self._pace, Pace(**state["pace"])
        if changed_at is not None:
            pace = pace.changed(self._options.kind, changed_at, now.total, now.updates_per_epoch)
        self._go_by(pace)
