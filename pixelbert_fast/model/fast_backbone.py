"""The backbone with its norms folded away: the modules and weights of `ResNet`, fewer passes over its maps.

A frozen norm is an affine map with fixed numbers. On a CPU a C++ kernel applies it together with the residual
sum and ReLU, in one pass over the convolution's output and in its memory. Elsewhere it becomes part of the
convolution: its scale multiplies the weight, once a step and on 25 million numbers instead of on every map;
its shift becomes the bias, and residual sum and ReLU follow as `fused_convolution` can. Gradients are exact
either way, and only maps that the backward reads stay in memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.affine_relu import affine_relu_, runs_natively, wide
from .backbone import Block, Extent, ResNet, checkpointed
from .fused_convolution import convolution_relu
from .hooks import overwritable
from .norm import FrozenBatchNorm2d
from .regions import EAGER, Regions


def run_fast(
    backbone: ResNet, pixel_values: Tensor, pixel_size: Tensor | None, regions: Regions = EAGER
) -> Tensor:
    """What ``backbone(pixel_values, pixel_size)`` gives, channels_last."""
    extent = Extent(None if pixel_size is None else pixel_size.long())
    x = extent.clear(channels_last(pixel_values))
    extent = extent.after(backbone.conv1)
    x = extent.clear(convolve_relu(backbone.conv1, backbone.bn1, x, extent, regions))
    extent = extent.after(backbone.maxpool)
    x = extent.clear(backbone.maxpool(x))
    for stage in backbone.stages():
        x, extent = run_stage(backbone, stage, x, extent, regions)
    return x


def run_stage(
    backbone: ResNet, stage: nn.ModuleList, x: Tensor, extent: Extent, regions: Regions
) -> tuple[Tensor, Extent]:
    after = extent

    def run(x: Tensor) -> Tensor:
        nonlocal after
        after = extent
        for block in stage:
            x, after = run_block(block, x, after, regions)
        return x

    if backbone.gradient_checkpointing and backbone.training and torch.is_grad_enabled():
        return checkpointed(run, x), after
    return run(x), after


def run_block(block: Block, x: Tensor, extent: Extent, regions: Regions) -> tuple[Tensor, Extent]:
    start, inner = x, extent
    for number, (conv, norm) in enumerate(block.convolutions(), start=1):
        inner = inner.after(conv)
        shortcut = (start, block.downsample) if number == block.depth else (None, None)
        x = inner.clear(convolve_relu(conv, norm, x, inner, regions, *shortcut))
    return x, inner


def convolve_relu(
    conv: nn.Conv2d,
    norm: nn.Module,
    x: Tensor,
    after: Extent,
    regions: Regions,
    start: Tensor | None = None,
    downsample: nn.Sequential | None = None,
) -> Tensor:
    """``relu(norm(conv(x)) + shortcut)``; the shortcut is `start`, or `downsample` of it, or none."""
    if not isinstance(norm, FrozenBatchNorm2d):
        if downsample is not None:
            start = normed(*downsample, start, after)
        x = conv(x)
        mask = after.mask(x)
        if mask is None and not norm.synchronised:
            return regions.norm_relu(x, start, *norm.arguments())
        x = overwritable(norm, norm(x, mask))
        return (x if start is None else x.add_(start)).relu_()
    if in_one_pass(x):
        values = channels_last(overwritable(conv, conv(x)))
        scale, shift = norm.affine(wide(values.dtype))
        residual, residual_scale = start, None
        if downsample is not None:
            residual = downsample[0](start)
            residual_scale, residual_shift = downsample[1].affine(wide(values.dtype))
            shift = shift + residual_shift
        if residual is not None:
            residual = channels_last(residual)
        return affine_relu_(values, scale, shift, residual, residual_scale)
    if downsample is not None:
        start = F.conv2d(start, *folded(*downsample), *geometry(downsample[0]))
    return convolution_relu(x, *folded(conv, norm), start, *geometry(conv))


def in_one_pass(x: Tensor) -> bool:
    """Whether the C++ kernel does what follows a convolution, whose weight then stays as it is."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return runs_natively(x.device.type, dtype)


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def normed(conv: nn.Conv2d, norm: nn.Module, x: Tensor, after: Extent) -> Tensor:
    x = conv(x)
    return norm(x, after.mask(x))


def folded(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what both do."""
    scale, shift = norm.affine(norm.weight.dtype)
    return conv.weight * scale.to(conv.weight.dtype)[:, None, None, None], shift.to(conv.weight.dtype)


def geometry(conv: nn.Conv2d) -> tuple:
    return conv.stride, conv.padding, conv.dilation, conv.groups
