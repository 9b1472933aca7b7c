"""The backbone with its norms folded away: the modules and weights of `ResNet`, fewer passes over its maps.

A frozen norm is an affine map with fixed numbers, so it becomes part of the convolution: its scale multiplies
the weight, once a step and on 25 million numbers instead of on every map, and its shift becomes the bias.
Gradients are exact, since the product is an ordinary operation. ReLU and the residual sum belong to the
convolution where `fused_convolution` can, else they work in place on its output, which no backward needs; so
only maps that the backward reads stay in memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Block, Extent, ResNet, checkpointed
from .fused_convolution import convolution_relu
from .norm import FrozenBatchNorm2d


def run_fast(backbone: ResNet, pixel_values: Tensor, pixel_size: Tensor | None) -> Tensor:
    """What ``backbone(pixel_values, pixel_size)`` gives, channels_last."""
    extent = Extent(None if pixel_size is None else pixel_size.long())
    x = extent.clear(pixel_values.contiguous(memory_format=torch.channels_last))
    x, extent = convolve_relu(backbone.conv1, backbone.bn1, x, extent)
    extent = extent.after(backbone.maxpool)
    x = extent.clear(backbone.maxpool(x))
    for stage in backbone.stages():
        x, extent = run_stage(backbone, stage, x, extent)
    return x


def run_stage(backbone: ResNet, stage: nn.ModuleList, x: Tensor, extent: Extent) -> tuple[Tensor, Extent]:
    after = extent

    def run(x: Tensor) -> Tensor:
        nonlocal after
        after = extent
        for block in stage:
            x, after = run_block(block, x, after)
        return x

    if backbone.gradient_checkpointing and backbone.training and torch.is_grad_enabled():
        return checkpointed(run, x), after
    return run(x), after


def run_block(block: Block, x: Tensor, extent: Extent) -> tuple[Tensor, Extent]:
    *first, last = block.convolutions()
    shortcut, inner = x, extent
    for conv, norm in first:
        x, inner = convolve_relu(conv, norm, x, inner)
    if block.downsample is not None:
        shortcut, _ = convolve(block.downsample[0], block.downsample[1], shortcut, extent)
    return convolve_relu(*last, x, inner, shortcut)


def convolve_relu(
    conv: nn.Conv2d, norm: nn.Module, x: Tensor, extent: Extent, residual: Tensor | None = None
) -> tuple[Tensor, Extent]:
    """Convolution, norm, sum with `residual` and ReLU; zeros in the padding."""
    if isinstance(norm, FrozenBatchNorm2d):
        extent = extent.after(conv)
        geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
        x = convolution_relu(x, *folded(conv, norm), residual, *geometry)
    else:
        x, extent = convolve(conv, norm, x, extent)
        if residual is not None:
            x = x.add_(residual)
        x = x.relu_()
    return extent.clear(x), extent


def convolve(conv: nn.Conv2d, norm: nn.Module, x: Tensor, extent: Extent) -> tuple[Tensor, Extent]:
    """Convolution and norm, as one convolution where the norm is frozen."""
    extent = extent.after(conv)
    if not isinstance(norm, FrozenBatchNorm2d):
        x = conv(x)
        return norm(x, extent.mask(x)), extent
    weight, bias = folded(conv, norm)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups), extent


def folded(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what both do."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    weight = conv.weight * scale.to(conv.weight.dtype)[:, None, None, None]
    return weight, shift.to(conv.weight.dtype)
