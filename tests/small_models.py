"""A PixelBERT small enough for a test, and word pieces for it."""

import torch

from pixelbert_fast import PixelBertConfig


def config(**overrides):
    small = {
        "backbone_channels": 8,
        "hidden_size": 32,
        "intermediate_size": 64,
        "vocab_size": 50,
        "sampled_pixels": 5,
    }
    return PixelBertConfig.preset("tiny", **(small | overrides))


def text(rows, words=7):
    return torch.randint(5, 50, (rows, words), generator=torch.Generator().manual_seed(rows))
