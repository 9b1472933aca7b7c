"""ResNet and ResNeXt (He et al. 2016; Xie et al. 2017) with torchvision's parameter names.

The backbone knows each image's own size inside a padded batch. A convolution smears valid pixels into
the padding, and the next one would smear them back, so the padding is set to zero again after every
layer: then each image sees the zeros that it would see alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .config import BACKBONES, PixelBertConfig
from .norm import NORMS, Recomputing


def size_after(layer: nn.Conv2d | nn.MaxPool2d, size):
    """Rows or columns that `layer` leaves of `size` (ints or integer tensors), by its own arithmetic."""
    kernel, stride, padding, dilation = (
        value[0] if isinstance(value, tuple) else value
        for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


class Extent:
    """Where the images of a padded batch lie at one point of the backbone; ``size`` is ``[B, 2]`` or None."""

    def __init__(self, size: Tensor | None):
        self.size = size
        self._mask: Tensor | None = None

    def after(self, layer: nn.Conv2d | nn.MaxPool2d) -> Extent:
        if self.size is None or layer.stride in (1, (1, 1)):
            return self  # stride 1 keeps the size: every layer here is padded to "same"
        return Extent(size_after(layer, self.size))

    def mask(self, features: Tensor) -> Tensor | None:
        """``[B, 1, H, W]`` bool, True on the image's own pixels; None when there is no padding at all."""
        if self.size is None:
            return None
        if self._mask is None:
            height, width = features.shape[2:]
            size = self.size.to(features.device)
            rows = torch.arange(height, device=features.device) < size[:, :1]
            columns = torch.arange(width, device=features.device) < size[:, 1:]
            self._mask = (rows[:, :, None] & columns[:, None, :])[:, None]
        return self._mask

    def clear(self, features: Tensor) -> Tensor:
        """`features` with zeros in the padding."""
        mask = self.mask(features)
        if mask is None:
            return features
        return torch.where(mask, features, 0)  # unlike masked_fill it keeps the layout


class Block(nn.Module):
    """A residual block; subclasses build `convolutions`' layers under torchvision's names."""

    expansion = 1
    depth = 2

    def convolutions(self) -> list[tuple[nn.Conv2d, nn.Module]]:
        return [(getattr(self, f"conv{i}"), getattr(self, f"bn{i}")) for i in range(1, self.depth + 1)]

    def forward(self, x: Tensor, extent: Extent) -> tuple[Tensor, Extent]:
        shortcut, inner = x, extent
        for i, (conv, norm) in enumerate(self.convolutions(), start=1):
            inner = inner.after(conv)
            x = conv(x)
            x = norm(x, inner.mask(x))
            if i < self.depth:
                x = inner.clear(torch.relu(x))
        if self.downsample is not None:
            shortcut = self.downsample[0](shortcut)
            shortcut = self.downsample[1](shortcut, inner.mask(shortcut))
        return inner.clear(torch.relu(x + shortcut)), inner


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1):
    return nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
    )


class BasicBlock(Block):
    """Two 3x3 convolutions (ResNet-18 and -34)."""

    def __init__(self, inputs, planes, stride, dilation, groups, width_per_group, norm, downsample):
        super().__init__()
        self.conv1 = convolution(inputs, planes, 3, stride, dilation)
        self.bn1 = norm(planes)
        self.conv2 = convolution(planes, planes, 3, 1, dilation)
        self.bn2 = norm(planes)
        self.downsample = downsample


class Bottleneck(Block):
    """1x1, 3x3 (which carries stride and groups), 1x1 convolutions (ResNet-50 and deeper, ResNeXt)."""

    expansion = 4
    depth = 3

    def __init__(self, inputs, planes, stride, dilation, groups, width_per_group, norm, downsample):
        super().__init__()
        width = int(planes * (width_per_group / 64)) * groups
        self.conv1 = convolution(inputs, width, 1)
        self.bn1 = norm(width)
        self.conv2 = convolution(width, width, 3, stride, dilation, groups)
        self.bn2 = norm(width)
        self.conv3 = convolution(width, planes * self.expansion, 1)
        self.bn3 = norm(planes * self.expansion)
        self.downsample = downsample


class Downsample(nn.Sequential):
    """The 1x1 convolution and norm on a shortcut whose shape changes."""


class ResNet(nn.Module):
    """Stem and four stages; ``forward`` gives the last stage's map ``[B, out_channels, h, w]``."""

    def __init__(self, config: PixelBertConfig):
        super().__init__()
        kind, depths, groups, width_per_group = BACKBONES[config.backbone]
        depths = config.backbone_depths or depths
        block = {"basic": BasicBlock, "bottleneck": Bottleneck}[kind]
        norm, unit = NORMS[config.norm], config.backbone_channels
        self.frozen_stages = config.frozen_stages
        self.gradient_checkpointing = False
        self.conv1 = nn.Conv2d(3, unit, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(unit)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs, dilation, reached = unit, 1, 4
        for stage, depth in enumerate(depths):
            planes = unit * 2**stage
            stride = 1 if stage == 0 else 2
            first_dilation = dilation
            if reached * stride > config.output_stride:
                # As torchvision: the stride becomes dilation, from the second block of the stage on.
                dilation, stride = dilation * stride, 1
            reached *= stride
            blocks = []
            for index in range(depth):
                at = (inputs, planes, stride if index == 0 else 1, first_dilation if index == 0 else dilation)
                downsample = None
                if index == 0 and (stride != 1 or inputs != planes * block.expansion):
                    downsample = Downsample(
                        convolution(inputs, planes * block.expansion, 1, stride),
                        norm(planes * block.expansion),
                    )
                blocks.append(block(*at, groups, width_per_group, norm, downsample))
                inputs = planes * block.expansion
            setattr(self, f"layer{stage + 1}", nn.ModuleList(blocks))
        self.out_channels = inputs
        self.freeze()

    def stages(self) -> list[nn.ModuleList]:
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages == 0:
            return []
        return [self.conv1, self.bn1, *self.stages()[: self.frozen_stages]]

    def freeze(self) -> None:
        for module in self.frozen_modules():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> ResNet:
        super().train(mode)
        self.freeze()  # once more: from_pretrained replaces the parameters and ends in eval()
        for module in self.frozen_modules():
            module.eval()
        return self

    def forward(self, pixel_values: Tensor, pixel_size: Tensor | None = None) -> Tensor:
        """Runs the backbone.

        Args:
            pixel_values: ``[B, 3, H, W]`` floats.
            pixel_size: ``[B, 2]`` integers, each image's own height and width; None: all fill the batch.
        """
        # As int64: the arithmetic of `size_after` would overflow a narrow dtype.
        extent = Extent(None if pixel_size is None else pixel_size.long())
        x = extent.clear(pixel_values)
        extent = extent.after(self.conv1)
        x = self.conv1(x)
        x = extent.clear(torch.relu(self.bn1(x, extent.mask(x))))
        # After a ReLU nothing is below zero, so zeros in the padding never win the maximum.
        extent = extent.after(self.maxpool)
        x = extent.clear(self.maxpool(x))
        for stage in self.stages():
            x, extent = self.run_stage(stage, x, extent)
        return x

    def run_stage(self, stage: nn.ModuleList, x: Tensor, extent: Extent) -> tuple[Tensor, Extent]:
        after = extent

        def run(x: Tensor) -> Tensor:
            nonlocal after
            after = extent
            for block in stage:
                x, after = block(x, after)
            return x

        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpointed(run, x), after
        return run(x), after

    def map_size(self, size):
        """Rows or columns of the map for `size` rows or columns of pixels (ints or tensors)."""
        size = size_after(self.maxpool, size_after(self.conv1, size))
        for stage in self.stages():
            for block in stage:
                for conv, _ in block.convolutions():
                    size = size_after(conv, size)
        return size


@torch.compiler.disable  # the compiler knows no checkpoint with contexts
def checkpointed(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`run(x)`, its activations computed again in the backward without touching running statistics."""
    return checkpoint(run, x, use_reentrant=False, context_fn=lambda: (nullcontext(), Recomputing()))
