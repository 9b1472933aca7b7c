"""Plain PyTorch in one process: the engine the other is measured against."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_fast.training.canonical_state import load_whole, trained, whole_state
from pixelbert_fast.training.deepspeed_config import Precision
from pixelbert_fast.training.engine import autocast
from pixelbert_fast.training.loss_scale import LossScale, unscaled_norm
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer


class PlainEngine:
    """See `engine.Engine`.

    Args:
        model: moved to `device`.
        accumulation: backward passes an update.
        clip_norm: bound on the global gradient norm; None: none.
        precision: what losses are computed in, under autocast; fp16 with dynamic loss scaling.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: TwoAlgorithmOptimizer,
        *,
        device: torch.device,
        accumulation: int = 1,
        clip_norm: float | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.model = self.module = model.to(device)
        self.optimizer = optimizer
        self.device = device
        self._weights = [weight for _, weight in trained(model)]
        self._accumulation = accumulation
        self._clip_norm = clip_norm
        self._precision = precision
        self._scale = LossScale() if precision == "fp16" else None
        self._pending = 0
        self._norm: Tensor | None = None

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.device, self._precision)

    def backward(self, loss: Tensor) -> None:
        if self._scale is not None:
            loss = self._scale.scale_loss(loss)
        (loss / self._accumulation).backward()

    def step(self) -> bool:
        self._pending += 1
        if self._pending < self._accumulation:
            return False
        self._pending = 0
        # As under DeepSpeed: momentum and weight decay go on where a step left a parameter unused.
        for weight in self._weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        if self._clipped():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return True

    def _clipped(self) -> bool:
        """Bound the gradients; False: fp16 has overflowed and there is no update."""
        if self._scale is not None:
            self._norm, finite = unscaled_norm(self._weights, self._scale.cur_scale)
            self._scale.update_scale(not finite)
            self._scale.settle()
            if not finite:
                return False
        if self._clip_norm is not None:
            self._norm = nn.utils.clip_grad_norm_(self._weights, self._clip_norm)
        return True

    def gradient_norm(self) -> float:
        return float("nan") if self._norm is None else float(self._norm)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[nn.Module]:
        yield self.module

    def shared_state(self) -> dict[str, Any]:
        state = {"model": self.module.state_dict(), "optimizer": whole_state(self.module, self.optimizer)}
        return state if self._scale is None else {**state, "scaler": self._scale.state_dict()}

    def own_state(self) -> dict[str, Any]:
        return {}

    def load_state(self, shared: dict[str, Any], own: dict[str, Any]) -> None:
        self.module.load_state_dict(shared["model"])
        load_whole(self.module, self.optimizer, shared["optimizer"])
        if self._scale is not None and "scaler" in shared:
            self._scale.load_state_dict(shared["scaler"])

    def close(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
