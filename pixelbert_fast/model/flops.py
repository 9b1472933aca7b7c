"""How many floating point operations the model needs, from its configuration and the shapes alone.

A multiply-add counts as two. Counted are convolutions, matrix products and attention's two products; norms,
activations, softmax, pooling, look-ups and losses are not: together they are a percent or so of the presets'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from .backbone import ResNet, size_after
from .config import PixelBertConfig

PARTS = ("backbone", "projection", "embeddings", "encoder", "pooler", "mlm_head", "itm_head")

Lengths = int | Sequence[int]
"""One number for all sequences (they are padded to it), or each sequence's own (nothing is padded)."""


class Convolution(NamedTuple):
    """A convolution's operations for one image, and which of its two gradients a step of training takes."""

    flops: int
    weight_gradient: bool
    input_gradient: bool


def forward_flops(
    config: PixelBertConfig,
    *,
    image_size: tuple[int, int],
    images: int,
    sequences: int,
    text_length: Lengths,
    pixels: Lengths,
    masked: int = 0,
    fast: bool = False,
) -> dict[str, int]:
    """What one forward of `PixelBertForPreTraining` takes, by part.

    Args:
        config: the model's.
        image_size: height and width of the batch, padding included.
        images: how many run through the backbone.
        sequences: how many texts read them.
        text_length: word pieces a text.
        pixels: pixels a sequence reads.
        masked: word pieces that the masked-word head reads, of all sequences together. The reference's reads
            every one, `sequences * text_length`.
        fast: what FastPixelBERT leaves out for certain in a step of pre-training is not counted: of the
            projection all but the windows read (each as often as it is read, all of them at most), of the
            last layer all but ``[CLS]`` and the masked words. False: PixelBERT, which leaves nothing out.

    Returns:
        operations by :data:`PARTS`; `embeddings` is 0, since a look-up multiplies nothing.
    """
    hidden, height, width = config.hidden_size, *image_size
    channels, rows, columns = _map(_key(config), height, width)
    texts, read = _each(text_length, sequences), _each(pixels, sequences)
    windows = images * (rows // 2) * (columns // 2)
    if fast:
        windows = min(windows, sum(read))
    project_first = config.projection_order == "project_pool"
    places = 4 * windows if project_first else windows
    if project_first and not fast:
        places = images * rows * columns
    elif not fast:
        places = sum(read)
    return {
        "backbone": images * sum(one.flops for one in _convolutions(_key(config), height, width)),
        "projection": 2 * places * channels * hidden,
        "embeddings": 0,
        "encoder": _encoder(
            config, [t + p for t, p in zip(texts, read, strict=True)], sequences + masked if fast else None
        ),
        "pooler": 2 * sequences * hidden * hidden,
        "mlm_head": 2 * masked * hidden * (hidden + config.vocab_size),
        "itm_head": 2 * sequences * hidden * 2,
    }


def training_flops(
    config: PixelBertConfig,
    *,
    image_size: tuple[int, int],
    images: int,
    sequences: int,
    text_length: Lengths,
    pixels: Lengths,
    masked: int = 0,
    fast: bool = False,
) -> dict[str, int]:
    """What one forward and backward of `PixelBertForPreTraining` takes, by part.

    A gradient costs what the forward costs: of the weights where they are trained, of the input where
    anything before it is. So trained parts count three times, frozen stages once, and the first trained layer
    has no gradient of its input. What activation checkpointing computes again is not counted.

    Args:
        config, image_size, images, sequences, text_length, pixels, masked, fast: as :func:`forward_flops`.
    """
    found = forward_flops(
        config,
        image_size=image_size,
        images=images,
        sequences=sequences,
        text_length=text_length,
        pixels=pixels,
        masked=masked,
        fast=fast,
    )
    trained = {part: 3 * count for part, count in found.items()}
    trained["backbone"] = images * sum(
        one.flops * (1 + one.weight_gradient + one.input_gradient)
        for one in _convolutions(_key(config), *image_size)
    )
    if config.frozen_stages == 4:
        trained["projection"] = 2 * found["projection"]
    return trained


def _each(lengths: Lengths, sequences: int) -> list[int]:
    if isinstance(lengths, int):
        return [lengths] * sequences
    if len(lengths) != sequences:
        raise ValueError(f"text_length and pixels must have one length for each of {sequences} sequences")
    return list(lengths)


def _encoder(config: PixelBertConfig, lengths: list[int], last_rows: int | None) -> int:
    """BERT's layers over sequences of `lengths`, the last one for `last_rows` rows only (None: all)."""
    hidden, tokens = config.hidden_size, sum(lengths)
    pairs = sum(length * length for length in lengths)
    query_side = 2 * hidden * (2 * hidden + 2 * config.intermediate_size)  # a row's query, output and MLP
    key_side = 2 * hidden * 2 * hidden
    layer = tokens * (query_side + key_side) + 2 * 2 * pairs * hidden
    if last_rows is None:
        return config.num_hidden_layers * layer
    read = last_rows * tokens // max(len(lengths), 1)  # keys of a row: a sequence's mean length
    last = last_rows * query_side + tokens * key_side + 2 * 2 * read * hidden
    return (config.num_hidden_layers - 1) * layer + min(last, layer)


def _key(config: PixelBertConfig) -> tuple:
    depths = None if config.backbone_depths is None else tuple(config.backbone_depths)
    return config.backbone, config.backbone_channels, depths, config.output_stride, config.frozen_stages


@lru_cache(maxsize=8)
def _backbone(key: tuple) -> ResNet:
    """The layers without any memory for their weights."""
    backbone, channels, depths, stride, frozen = key
    with torch.device("meta"):
        return ResNet(
            PixelBertConfig(
                backbone=backbone,
                backbone_channels=channels,
                backbone_depths=depths,
                output_stride=stride,
                frozen_stages=frozen,
            )
        )


def _map(key: tuple, height: int, width: int) -> tuple[int, int, int]:
    """Channels, rows and columns of the backbone's map."""
    backbone = _backbone(key)
    return backbone.out_channels, backbone.map_size(height), backbone.map_size(width)


@lru_cache(maxsize=1024)  # batches come in many sizes, and in the same ones again
def _convolutions(key: tuple, height: int, width: int) -> tuple[Convolution, ...]:
    return tuple(_walk(_backbone(key), (height, width)))


def _walk(backbone: ResNet, size: tuple[int, int]) -> Iterator[Convolution]:
    """Every convolution in the order of the forward."""

    def after(layer: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
        return tuple(size_after(layer, side) for side in size)

    trained = backbone.frozen_stages == 0
    size = after(backbone.conv1, size)
    yield Convolution(_flops(backbone.conv1, size), trained, False)
    size = after(backbone.maxpool, size)
    below = trained  # whether something before the next convolution wants a gradient
    for number, stage in enumerate(backbone.stages(), start=1):
        trained = number > backbone.frozen_stages
        for block in stage:
            inner, within = size, below
            for conv, _ in block.convolutions():
                inner = after(conv, inner)
                yield Convolution(_flops(conv, inner), trained, within)
                within = trained
            if block.downsample is not None:
                yield Convolution(_flops(block.downsample[0], inner), trained, below)
            size, below = inner, trained


def _flops(conv: nn.Conv2d, size: tuple[int, int]) -> int:
    kernel = conv.kernel_size[0] * conv.kernel_size[1]
    return 2 * size[0] * size[1] * conv.out_channels * (conv.in_channels // conv.groups) * kernel
