"""relu(convolution + bias [+ residual]) in one pass over the map where cuDNN has it, with its derivative.

PyTorch has cuDNN's fused convolution, but without a derivative. The one here keeps for the backward what it
reads and nothing more: the input, the weight, and the output, whose zeros are where ReLU let nothing through.
Elsewhere sum and ReLU work in place on the convolution's output, which keeps the same three. On a CPU
oneDNN's fused convolution was measured and left out: with it a training step of the r50 backbone took 6 %
longer in float32 and 2 % less in bfloat16 (torch 2.13, one thread).

`nvidia-cudnn-frontend` would fuse the mask into the backward convolution as well. It is no dependency: what
PyTorch ships needs nothing installed, and the mask is one pass of a dozen.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LARGEST_KERNEL = 3

_logger = logging.getLogger(__name__)
_refused: set[tuple] = set()  # kinds of convolution for which cuDNN found no fused engine


def convolution_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """``relu(conv2d(x, weight, bias, ...) + residual)``.

    Args:
        x: ``[B, C, H, W]``.
        weight: ``[D, C / groups, kernel, kernel]``, of the same dtype, as is `bias` ``[D]``.
        residual: ``[B, D, h, w]`` or None for 0.

    Returns:
        ``[B, D, h, w]``; channels_last where cuDNN ran.
    """
    dtype = autocast_dtype(x)
    if not fuses(x.device.type, dtype, tuple(weight.shape[2:]), groups):
        return unfused(x, weight, bias, residual, stride, padding, dilation, groups)
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    residual = None if residual is None else residual.to(dtype)
    return fused(x, weight, bias, residual, stride, padding, dilation, groups)


def unfused(x, weight, bias, residual, stride, padding, dilation, groups) -> Tensor:
    out = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if residual is not None:
        out = out.add_(residual)
    return out.relu_()


def autocast_dtype(x: Tensor) -> torch.dtype:
    """What autocast would convert a convolution's `x` to: no operator of ours is on its lists."""
    kind = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return x.dtype
    return torch.get_autocast_dtype(kind)


def why_not_fused(device_type: str, dtype: torch.dtype, kernel: tuple[int, int], groups: int) -> str | None:
    """None where cuDNN's fused convolution is used, otherwise a sentence of why not."""
    if device_type != "cuda" or torch.version.hip is not None:
        return "cuDNN runs on NVIDIA GPUs only."
    if not (torch.backends.cudnn.is_available() and torch.backends.cudnn.enabled):
        return "cuDNN is missing or switched off (torch.backends.cudnn.enabled)."
    if torch.backends.cudnn.deterministic:
        return "the fused convolution takes no account of torch.backends.cudnn.deterministic."
    if dtype not in DTYPES:
        return f"the fused convolution takes float32, float16 and bfloat16, not {dtype}."
    if max(kernel) > LARGEST_KERNEL:
        # pytorch issue 68506: 17 times slower than unfused at 7x7 in channels_last.
        return f"the fused convolution is slow for kernels beyond 3x3, and this one is {kernel}."
    if groups != 1:
        return "no fused convolution of several groups has been measured."
    return None


def fuses(device_type: str, dtype: torch.dtype, kernel: tuple[int, int], groups: int) -> bool:
    """Whether cuDNN's fused convolution is used."""
    # An exported program runs where this package, whose operator that is, may be absent. Asked here, in plain
    # Python: while torch 2.11 traces for `torch.compile`, it answers that it exports.
    if torch.compiler.is_exporting():
        return False
    reason = why_not_fused(device_type, dtype, kernel, groups)
    if reason is not None:
        _say_once(reason)
    return reason is None


# As in ops/backends.py: decided in Python while a graph is traced.
fuses._dynamo_marked_constant = True


@cache
def _say_once(reason: str) -> None:
    _logger.debug("a convolution runs unfused: %s", reason)


@torch.library.custom_op(
    "pixelbert_fast::convolution_relu",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor bias, Tensor? residual, SymInt[] stride, SymInt[] padding,"
    " SymInt[] dilation, SymInt groups) -> Tensor",
)
def fused(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    arguments = (x, weight, bias, residual, stride, padding, dilation, groups)
    kind = (x.dtype, weight.shape, *map(tuple, (stride, padding, dilation)), groups, residual is None)
    out = None
    if kind not in _refused:
        try:
            out = run_cudnn(*arguments)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # no engine: which there are depends on the GPU and cuDNN's version
            _refused.add(kind)
            _logger.warning("convolutions like %s run unfused from now on: %s", kind, error)
    if out is None:
        out = unfused(*arguments)
    return out.contiguous(memory_format=torch.channels_last)


def run_cudnn(x, weight, bias, residual, stride, padding, dilation, groups) -> Tensor:
    if residual is None:
        return torch.cudnn_convolution_relu(x, weight, bias, stride, padding, dilation, groups)
    return torch.cudnn_convolution_add_relu(x, weight, residual, 1.0, bias, stride, padding, dilation, groups)


@fused.register_fake
def _(x, weight, bias, residual, stride, padding, dilation, groups):
    shape = F.conv2d(x, weight, bias, stride, padding, dilation, groups).shape
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _save(ctx, inputs, output) -> None:
    x, weight, *_ = inputs
    wants_x, wants_weight, *_ = ctx.needs_input_grad
    ctx.geometry = inputs[4:]
    ctx.shapes = x.shape, weight.shape
    ctx.save_for_backward(x if wants_weight else None, weight if wants_x else None, output)


def _backward(ctx, grad: Tensor):
    x, weight, out = ctx.saved_tensors
    stride, padding, dilation, groups = ctx.geometry
    wants = list(ctx.needs_input_grad[:3])
    grad = torch.ops.aten.threshold_backward(grad, out, 0)
    grads: tuple[Tensor | None, ...] = (None, None, None)
    if any(wants):
        # Of an operand that was not kept only shape and layout are read.
        x, weight = (
            torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)
            if operand is None
            else operand
            for operand, shape in zip((x, weight), ctx.shapes, strict=True)
        )
        grads = torch.ops.aten.convolution_backward(
            grad, x, weight, [weight.shape[0]], stride, padding, dilation, False, [0, 0], groups, wants
        )
    return *grads, grad if ctx.needs_input_grad[3] else None, None, None, None, None


fused.register_autograd(_backward, setup_context=_save)
