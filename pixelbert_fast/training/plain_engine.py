"""Plain PyTorch in one process: the engine the other is measured against."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer


class PlainEngine:
    """See `engine.Engine`.

    Args:
        model: moved to `device`.
        accumulation: backward passes an update.
        clip_norm: bound on the global gradient norm; None: none.
        bf16: compute losses under bf16 autocast.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: TwoAlgorithmOptimizer,
        *,
        device: torch.device,
        accumulation: int = 1,
        clip_norm: float | None = None,
        bf16: bool = False,
    ) -> None:
        self.model = self.module = model.to(device)
        self.optimizer = optimizer
        self.device = device
        self._accumulation = accumulation
        self._clip_norm = clip_norm
        self._bf16 = bf16
        self._pending = 0
        self._norm: Tensor | None = None

    def autocast(self) -> AbstractContextManager[Any]:
        if not self._bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def backward(self, loss: Tensor) -> None:
        (loss / self._accumulation).backward()

    def step(self) -> bool:
        self._pending += 1
        if self._pending < self._accumulation:
            return False
        self._pending = 0
        if self._clip_norm is not None:
            self._norm = nn.utils.clip_grad_norm_(self.module.parameters(), self._clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return True

    def gradient_norm(self) -> float:
        return float("nan") if self._norm is None else float(self._norm)

    def shared_state(self) -> dict[str, Any]:
        return {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def own_state(self) -> dict[str, Any]:
        return {}

    def load_state(self, shared: dict[str, Any], own: dict[str, Any]) -> None:
        self.module.load_state_dict(shared["model"])
        self.optimizer.load_state_dict(shared["optimizer"])

    def close(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
