"""The learning rate over time: one factor on every group's rate, a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

Factor = Callable[[int], float]


def warmed(after: Factor, warmup_steps: int, start: float) -> Factor:
    """Rise linearly from `start` at step 0 to 1 at `warmup_steps`, times what comes `after`."""

    def factor(step: int) -> float:
        rise = 1.0 if step >= warmup_steps else start + (1.0 - start) * step / warmup_steps
        return rise * after(step)

    return factor


def stepwise(milestones: Sequence[int], gamma: float) -> Factor:
    """Times `gamma` from each milestone (a step) on."""
    return lambda step: gamma ** sum(step >= milestone for milestone in milestones)


def cosine(first: int, last: int, floor: float) -> Factor:
    """1 until step `first`, then half a cosine down to `floor` at step `last`."""

    def factor(step: int) -> float:
        share = min(max((step - first) / max(last - first, 1), 0.0), 1.0)
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * share))

    return factor


def make_factor(options: Any, total_steps: int, steps_per_epoch: float) -> Factor:
    """The factor a `ScheduleConfig` describes; steps count updates from 0."""
    if options.kind == "step":
        after = stepwise([round(epoch * steps_per_epoch) for epoch in options.milestones], options.gamma)
    elif options.kind == "cosine":
        after = cosine(options.warmup_steps, total_steps, options.floor)
    else:
        after = lambda step: 1.0  # noqa: E731 - one of three functions of a step
    return warmed(after, options.warmup_steps, options.warmup_start) if options.warmup_steps else after


class Schedule:
    """Sets each group's rate to its first value times the factor of the step about to be made."""

    def __init__(self, optimizer: torch.optim.Optimizer, factor: Factor) -> None:
        # The optimiser and not its groups: loading its state puts other dictionaries there.
        self._optimizer = optimizer
        self._base = [group["lr"] for group in optimizer.param_groups]
        self._factor = factor

    def set(self, step: int) -> None:
        """Prepare the optimiser for update number `step` (from 0)."""
        factor = self._factor(step)
        for group, base in zip(self._optimizer.param_groups, self._base, strict=True):
            group["lr"] = base * factor

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run starts from: the rates before any factor."""
        return {"base": list(self._base)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over `state_dict()`'s value; ValueError when the groups are others."""
        if len(state["base"]) != len(self._base):
            raise ValueError(f"the state has {len(state['base'])} groups, the optimiser {len(self._base)}")
        self._base = [float(rate) for rate in state["base"]]
