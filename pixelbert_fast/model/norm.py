"""Batch norm in three kinds, blind to the padding of a batch.

Each takes ``(features [B, C, H, W], mask [B, 1, H, W] bool or None)``. With a mask, statistics are
taken over the places where it is True, so that images of several sizes share a batch without the
zeros between them counting.
"""

from __future__ import annotations

from contextvars import ContextVar, Token

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)


class Recomputing:
    """Activation checkpointing runs the forward twice; inside this, running statistics stay as they are.

    Entered once for each backward through one graph, which a generator's context manager cannot be.
    """

    def __init__(self):
        self.tokens: list[Token] = []

    def __enter__(self) -> None:
        self.tokens.append(_recomputing.set(True))

    def __exit__(self, *_) -> None:
        _recomputing.reset(self.tokens.pop())


class BatchNorm2d(nn.BatchNorm2d):
    """Trained batch norm (Ioffe and Szegedy 2015), parameters and buffers as ``nn.BatchNorm2d``."""

    synchronised = False

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        if not self.training or (mask is None and not self.synchronised):
            return F.batch_norm(features, *self.arguments())
        if self.updates():
            self.num_batches_tracked.add_(1)
        return self.normalise_by_parts(features, mask, self.updates())

    def arguments(self) -> tuple:
        """What ``F.batch_norm`` takes beside the features, for a batch without padding; counts the batch."""
        mean, var = self.running_mean, self.running_var
        if self.training and self.updates():
            self.num_batches_tracked.add_(1)
        elif self.training:
            # Copies take the update: without statistics torch saves fewer tensors than the first time.
            mean, var = mean.clone(), var.clone()
        return mean, var, self.weight, self.bias, self.training, self.momentum, self.eps

    def updates(self) -> bool:
        return not _recomputing.get()

    def normalise_by_parts(self, features: Tensor, mask: Tensor | None, update: bool) -> Tensor:
        """The same from float32 sums over the places that count, over all ranks when synchronised."""
        wide = features.double() if features.dtype == torch.float64 else features.float()
        if mask is None:
            count = wide.new_tensor(features.numel() // features.shape[1])
            counted = wide
        else:
            count = mask.sum().to(wide.dtype)
            counted = wide.masked_fill(~mask, 0)
        count, total = self.over_ranks(count[None], counted.sum((0, 2, 3)))
        mean = (total / count)[:, None, None]
        centred = wide - mean
        if mask is not None:
            centred = centred.masked_fill(~mask, 0)
        _, squares = self.over_ranks(count, centred.square().sum((0, 2, 3)))
        var = squares / count
        if update:
            with torch.no_grad():
                unbiased = squares / (count - 1).clamp(min=1)
                self.running_mean.lerp_(mean[:, 0, 0].to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        normal = centred * torch.rsqrt(var + self.eps)[:, None, None]
        return (normal * self.weight[:, None, None] + self.bias[:, None, None]).to(features.dtype)

    def over_ranks(self, count: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        return count, total


class SyncBatchNorm2d(BatchNorm2d):
    """Trained batch norm with statistics over all ranks; on a GPU only, as ``nn.SyncBatchNorm``."""

    synchronised = True

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.training and features.device.type == "cpu":
            raise ValueError('norm="sync" trains on GPUs only; choose norm="batch" or "frozen" on a CPU')
        return super().forward(features, mask)

    def over_ranks(self, count: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return count, total
        from torch.distributed.nn.functional import all_reduce

        summed = all_reduce(torch.cat([count, total]))
        return summed[:1].detach(), summed[1:]


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and affine; all four are buffers, named as in ``nn.BatchNorm2d``."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        # Kept so that a checkpoint has the same keys whichever norm a model was built with.
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def affine(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``[C]`` scale and shift, which the norm amounts to, computed in `dtype`."""
        weight, bias, mean, var = (
            each.to(dtype) for each in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = weight * torch.rsqrt(var + self.eps)
        return scale, bias - mean * scale

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        scale, shift = self.affine(self.weight.dtype)
        return features * scale[:, None, None].to(features.dtype) + shift[:, None, None].to(features.dtype)


NORMS = {"batch": BatchNorm2d, "sync": SyncBatchNorm2d, "frozen": FrozenBatchNorm2d}
