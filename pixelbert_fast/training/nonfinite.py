"""Updates whose loss or gradient is not finite: left out, told with their images, and too many end the run.

The optimiser leaves them out, on the device, at once; here they are found when the losses are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pixelbert_fast.errors import RunError

_TOLD = 8


class LeftOut(NamedTuple):
    """An update that was left out.

    step: its number, from 1. what: "loss" or "gradient". images: their keys; of the batches whose loss it
    was, of all processes, else of every batch of the step.
    """

    step: int
    what: str
    images: list[str]

    def told(self) -> str:
        """What was not finite, and where."""
        few = ", ".join(self.images[:_TOLD]) or "not known"
        more = len(self.images) - _TOLD
        return (
            f"the {self.what} is not finite at step {self.step};"
            f" images: {few}{f' and {more} more' if more > 0 else ''}"
        )


@dataclass
class _Read:
    """A batch: the update it was for, its values on the device (the loss first), and its images' rows."""

    step: int
    values: Tensor
    rows: Any


class NonFinite:
    """Watches one run's updates; `guard`, `batch` and `updated` never wait for a device.

    Args:
        task, engine, ranks: the run's.
        allowed: updates that may be left out before the run ends.
    """

    def __init__(self, task: Any, engine: Any, ranks: Any, allowed: int) -> None:
        self._task, self._optimizer, self._ranks = task, engine.optimizer, ranks
        self._allowed = allowed
        self._batches: list[_Read] = []
        self._marks: list[Tensor] = []
        self._before = engine.optimizer.skipped.clone()
        self._statistics = _RunningStatistics(engine.module)
        self._losses: list[Tensor] = []

    @staticmethod
    def guard(loss: Tensor) -> Tensor:
        """`loss`, with gradients that are NaN if it is not finite, so that one test finds both."""
        value = loss.detach()
        return loss * (1.0 + (value - value))

    def batch(self, step: int, values: Tensor, rows: Any) -> None:
        """A batch went into update number `step`. values: float32, the loss first, on the device."""
        self._batches.append(_Read(step, values, rows))
        self._losses.append(values[0])

    def updated(self) -> None:
        """The update is made or left out."""
        skipped = self._optimizer.skipped.clone()
        last = self._marks[-1] if self._marks else self._before
        # Under fp16 a loss scale may have taken it for its own, and have said nothing.
        bad = ~torch.isfinite(torch.stack(self._losses).sum())
        self._statistics.settle(bad | (skipped > last.to(skipped.device)).to(bad.device))
        self._marks.append(skipped)
        self._losses.clear()

    def read(self) -> tuple[Tensor, list[LeftOut]]:
        """(the values of all batches since the last call that went into the weights, those left out).

        float64 `[batches, values]` on the CPU; may be empty. Waits for the device, and for all processes.
        """
        values = torch.stack([one.values for one in self._batches])
        marks = torch.stack([self._before.to(self._marks[0].device), *self._marks]).to(values.device)
        both = torch.cat([values.reshape(-1), marks.float()]).double().cpu()
        values, marks = both[: values.numel()].reshape(values.shape), both[values.numel() :]
        steps = list(dict.fromkeys(one.step for one in self._batches))
        skipped = {step for step, more in zip(steps, marks.diff().tolist(), strict=True) if more > 0}
        bad = ~torch.isfinite(values[:, 0])
        found = self._exchanged(skipped, bad.tolist())
        gone = {one.step for one in found}
        kept = torch.tensor([one.step not in gone for one in self._batches])
        self._before = self._marks[-1]
        self._batches, self._marks = [], []
        return values[kept], found

    def ended(self, found: Iterable[LeftOut], before: int) -> None:
        """Raises RunError at the first of `found` that is one too many; `before` were left out already."""
        for number, one in enumerate(found, start=before + 1):
            if number > self._allowed:
                raise RunError(
                    f"{one.told()}; it is update {number} to be left out and training.skip_nonfinite is"
                    f" {self._allowed}: lower the learning rates, lengthen the warm-up or tighten"
                    " optimizer.clip_norm"
                )

    def _exchanged(self, skipped: set[int], bad: Sequence[bool]) -> list[LeftOut]:
        """What any process found, by step; the same in all."""
        mine = []
        for one, loss in zip(self._batches, bad, strict=True):
            if loss or one.step in skipped:
                mine.append((one.step, bool(loss), self._keys(one.rows)))
        if not any(self._ranks.gather(len(mine))):
            return []
        every = [entry for entries in self._ranks.collect(mine) for entry in entries]
        found = []
        for step in sorted({step for step, *_ in every}):
            of_loss = any(loss for at, loss, _ in every if at == step)
            keys = [keys for at, loss, keys in every if at == step and loss == of_loss]
            images = list(dict.fromkeys(key for own in keys for key in own))
            found.append(LeftOut(step, "loss" if of_loss else "gradient", images))
        return found

    def _keys(self, rows: Any) -> list[str]:
        if rows is None or not hasattr(self._task, "keys"):
            return []
        return list(self._task.keys([int(row) for row in rows]))


class _RunningStatistics:
    """Batch norm's, which a forward has moved before anyone knows what becomes of its update."""

    def __init__(self, module: nn.Module) -> None:
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for part in module.modules():
            if part.training and getattr(part, "running_mean", None) is not None:
                for buffer in part.buffers(recurse=False):
                    kinds.setdefault((buffer.dtype, buffer.device), []).append(buffer.view(-1))
        self._kinds = [(views, torch.cat(views)) for views in kinds.values()]

    def settle(self, left_out: Tensor) -> None:
        """Back to what they were at the last call where `left_out`, 0-d, is true."""
        for number, (views, before) in enumerate(self._kinds):
            kept = torch.where(left_out.to(before.device), before, torch.cat(views))
            torch._foreach_copy_(views, list(kept.split([len(view) for view in views])))
            self._kinds[number] = views, kept
