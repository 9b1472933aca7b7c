"""What follows a convolution whose norm is frozen: ``relu(values * scale + shift + residual)``, in one pass.

Not among the public ops: it overwrites its argument, and its one kernel is for channels_last maps on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import backends


def affine_relu_(
    values: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None = None,
    residual_scale: Tensor | None = None,
) -> Tensor:
    """``relu(values * scale + shift + residual * residual_scale)`` in the memory of `values`.

    Where :func:`runs_natively` says so.

    Args:
        values: ``[B, C, H, W]``, channels_last, which must not be read afterwards.
        scale, shift, residual_scale: ``[C]``, of :func:`wide` dtype; they get no gradient.
        residual: ``[B, C, H, W]``, channels_last, in the dtype of `values`, or None.

    Raises:
        ValueError: a map that is not channels_last or not like `values`, or a vector of another length or
            dtype: the kernel would read beyond them.
    """
    for each in (values, residual):
        if each is not None and not (
            each.shape == values.shape
            and each.dtype == values.dtype
            and each.is_contiguous(memory_format=torch.channels_last)
        ):
            raise ValueError(
                f"affine_relu_: a map must be channels_last, {values.dtype}, {list(values.shape)}"
            )
    for each in (scale, shift, residual_scale):
        if each is not None and not (
            each.shape == values.shape[1:2] and each.dtype == wide(values.dtype) and each.is_contiguous()
        ):
            raise ValueError(f"affine_relu_: a vector must be {wide(values.dtype)}, [{values.shape[1]}]")
    if torch.is_grad_enabled() and (
        values.requires_grad or (residual is not None and residual.requires_grad)
    ):
        return AffineRelu.apply(values, residual, scale, shift, residual_scale)
    return forward_(values, residual, scale, shift, residual_scale)


def affine_relu_reference(
    values: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None = None,
    residual_scale: Tensor | None = None,
) -> Tensor:
    """The same in plain PyTorch, summed in the wide dtype and rounded once."""
    total = values * scale[:, None, None] + shift[:, None, None]
    if residual is not None:
        total = total + (residual if residual_scale is None else residual * residual_scale[:, None, None])
    return total.relu().to(values.dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """What sums are taken in: float64 for float64, else float32."""
    return torch.promote_types(dtype, torch.float32)


def runs_natively(device_type: str, dtype: torch.dtype) -> bool:
    """Whether the kernel can run there; compiled code fuses the operations by itself."""
    if device_type != "cpu" or torch.compiler.is_compiling():
        return False
    return backends.choose("affine_relu", None, device_type, dtype) == "cpu"


def forward_(values, residual, scale, shift, residual_scale) -> Tensor:
    backends.note("affine_relu", "cpu")
    torch.ops.pixelbert_fast_native.affine_relu(values, scale, shift, residual, residual_scale)
    return values


class AffineRelu(torch.autograd.Function):
    """The kernel with its gradient, which needs the output alone: no mask, no copy of the sum is kept."""

    @staticmethod
    def forward(ctx, values, residual, scale, shift, residual_scale):
        out = forward_(values, residual, scale, shift, residual_scale)
        ctx.mark_dirty(values)
        ctx.save_for_backward(out, scale, residual_scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        out, scale, residual_scale = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_values, grad_residual = (
            torch.empty_like(out) if wanted else None for wanted in ctx.needs_input_grad[:2]
        )
        backends.note("affine_relu_backward", "cpu")
        torch.ops.pixelbert_fast_native.affine_relu_backward(
            grad, out, scale, residual_scale, grad_values, grad_residual
        )
        return grad_values, grad_residual, None, None, None
