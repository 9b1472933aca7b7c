"""Checks of what a model's forward is given: one sentence with the input, what was expected and what came."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.arguments import described, reads_values


def integers(name: str, value: object, expected: str, *shape: int | None) -> Tensor:
    """`value` as int64, so that no arithmetic on it overflows a narrow dtype.

    Args:
        expected: the shape in words, such as ``[S, K]``.
        shape: the sizes it must have; None where any will do.

    Raises:
        TypeError: it is no tensor, or not of an integer dtype.
        ValueError: it has another shape.
    """
    is_integer = isinstance(value, Tensor) and not (
        value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
    )
    if not is_integer:
        raise TypeError(f"{name} must be an integer tensor {expected}, got {described(value)}")
    sizes_fit = all(size is None or size == got for size, got in zip(shape, value.shape, strict=False))
    if value.dim() != len(shape) or not sizes_fit:
        raise ValueError(f"{name} must be {expected}, got {described(value)}")
    return value.long()


def refuse(pixels: Tensor, wrong: Tensor, message: str) -> Tensor:
    """`pixels` ``[S, K, D]`` where no place is `wrong` (``[S, K]`` bool); NaN where that may not be read.

    Raises:
        ValueError: with `message`, on a CPU or with ``PIXELBERT_FAST_CHECK=1``.
    """
    if reads_values(wrong) and bool(wrong.any()):
        raise ValueError(message)
    return pixels.masked_fill(wrong[..., None], torch.nan)
