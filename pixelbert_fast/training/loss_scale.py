"""Dynamic loss scaling for fp16: lifts gradients too small for it, and gives way where they are too large."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixelbert_fast.errors import RunError

# As torch.amp.GradScaler begins, grows and falls.
_FIRST = 2.0**16
_GROWTH, _BACKOFF = 2.0, 0.5
_LEAST = 2.0**-14  # a loss so small gives zeros in fp16; what is not finite then is not so by its scale


class LossScale:
    """The factor on a loss, by the rule of `torch.amp.GradScaler`; has what DeepSpeed asks of one.

    Args:
        interval: updates in a row without overflow after which the scale is doubled.
    """

    dynamic = True

    def __init__(self, interval: int = 2000) -> None:
        self.cur_scale = _FIRST
        self._good = 0
        self._interval = interval
        self._overflow = False

    @property
    def loss_scale(self) -> float:
        """The factor now."""
        return self.cur_scale

    def scale_loss(self, loss: Tensor) -> Tensor:
        """`loss` times the factor, in float32 (65536 is infinite in fp16)."""
        return loss.float() * self.cur_scale

    def update_scale(self, overflow: bool) -> None:
        """Say whether the update was skipped because a gradient was not finite.

        DeepSpeed says so before it divides the gradients by the factor, which therefore stays until `settle`.
        """
        self._overflow = bool(overflow)

    def settle(self) -> None:
        """After an update: the factor of the next one.

        Raises:
            RunError: it has fallen so low that it cannot be the reason for what is not finite.
        """
        if self._overflow:
            self._good = 0
            self.cur_scale *= _BACKOFF
            if self.cur_scale < _LEAST:
                raise RunError(
                    f"fp16 gradients are not finite at a loss scale of {_LEAST:g} either; lower the learning"
                    " rates or use training.precision=bf16"
                )
            return
        self._good += 1
        if self._good == self._interval:
            self._good = 0
            self.cur_scale *= _GROWTH

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"scale": self.cur_scale, "good": self._good}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over `state_dict()`'s value."""
        self.cur_scale, self._good = float(state["scale"]), int(state["good"])


def unscaled_norm(parameters: list[Tensor], scale: float) -> tuple[Tensor, bool]:
    """Divide the gradients by `scale` in place; returns their global norm, and whether it is finite."""
    grads = [weight.grad for weight in parameters if weight.grad is not None]
    if not grads:
        return torch.zeros(()), True
    torch._foreach_mul_(grads, 1.0 / scale)
    norm = torch.nn.utils.get_total_norm(grads)
    return norm, bool(torch.isfinite(norm))
