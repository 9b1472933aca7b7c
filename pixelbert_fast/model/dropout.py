"""Dropout whose random numbers cost less on a CPU: 16 bits of them an element, drawn four elements at a time.

PyTorch draws more for each element, one after another, which for small rows takes longer than all else that
is done with them. Both draw from torch's generator: a seed repeats the draw, and activation checkpointing
restores it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LEVELS = 1 << 16


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Zeros with probability `p`, the others divided by what is kept on average (Srivastava et al. 2014).

    On a CPU `p` is rounded to a multiple of 1 / 65536, by which the others are divided too: so the expected
    value stays `x`.
    """
    threshold = round(p * LEVELS)
    if not training or x.device.type != "cpu" or torch.compiler.is_compiling() or threshold >= LEVELS:
        return F.dropout(x, p, training)
    if threshold == 0:
        return x
    return Dropped.apply(x, threshold)


class Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, threshold: int) -> Tensor:
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
        words.random_(torch.iinfo(torch.int64).min, None)  # without bounds its first bit is always 0
        shorts = words.view(torch.int16)[: x.numel()].view(x.shape)
        kept = shorts >= threshold - LEVELS // 2
        ctx.factor = LEVELS / (LEVELS - threshold)
        ctx.save_for_backward(kept)
        return (x * kept).mul_(ctx.factor)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (kept,) = ctx.saved_tensors
        return (grad * kept).mul_(ctx.factor), None
