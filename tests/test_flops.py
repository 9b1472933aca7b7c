"""Counted operations against those that PyTorch's counter sees the reference model do."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pixelbert_fast import PixelBertConfig
from pixelbert_fast.model.flops import PARTS, forward_flops, training_flops
from pixelbert_fast.model.pretraining import PixelBertForPreTraining
from pixelbert_fast.ops import backend

IMAGES, SEQUENCES, WORDS = 2, 3, 7
SHALLOW = {"backbone_depths": [1, 2, 1, 1], "num_hidden_layers": 2}
CASES = {
    "tiny": ("tiny", {}, (67, 90)),
    "r50": ("r50", SHALLOW, (96, 131)),
    "x152": ("x152", SHALLOW, (64, 97)),
    "dilated": ("r50", {**SHALLOW, "output_stride": 16}, (65, 64)),
    "pool first": ("tiny", {"projection_order": "pool_project"}, (96, 96)),
    "one frozen": ("r50", {**SHALLOW, "frozen_stages": 1}, (64, 96)),
    "three frozen": ("r50", {**SHALLOW, "frozen_stages": 3, "norm": "frozen"}, (64, 64)),
    "all frozen": ("tiny", {"frozen_stages": 4}, (48, 64)),
}


def convolution_backward(
    grad, x, weight, _bias, _stride, _padding, _dilation, _transposed, _out, _groups, wanted, **_
):
    """Torch's own count multiplies the weight gradient of a grouped convolution by its groups (2.13)."""
    rows = grad[0] * grad[2] * grad[3]
    forward = 2 * rows * weight[0] * weight[1] * weight[2] * weight[3]
    return forward * (wanted[0] + wanted[1])


BACKWARD = {torch.ops.aten.convolution_backward: convolution_backward}


def counted(config, size, *, train):
    """What the counter sees of one forward, or of forward and backward."""
    model = PixelBertForPreTraining(config, fast=False).train()
    arguments = {
        "input_ids": torch.full((SEQUENCES, WORDS), 5),
        "pixel_values": torch.randn(IMAGES, 3, *size),
        "image_index": torch.tensor([0, 1, 1]),
        "positions": torch.tensor([[0, -1], [0, -1], [0, -1]]),
    }
    # Attention as two products: the fused kernels' backward computes one of them again.
    with (
        sdpa_kernel(SDPBackend.MATH),
        torch.set_grad_enabled(train),
        FlopCounterMode(display=False, depth=3, custom_mapping=BACKWARD) as counter,
    ):
        out = model(**arguments)
        if train:
            (out.mlm_logits.sum() + out.itm_logits.sum()).backward()
    return counter


def shapes(size, **others):
    given = {"image_size": size, "images": IMAGES, "sequences": SEQUENCES, "text_length": WORDS, "pixels": 2}
    return {**given, "masked": SEQUENCES * WORDS, **others}


def modules(counter):
    """The counter's figures by part; what it counts outside of modules is the projection."""
    seen = {
        name.removeprefix("PixelBertForPreTraining."): sum(ops.values())
        for name, ops in counter.get_flop_counts().items()
    }
    named = {
        "backbone": "pixelbert.backbone",
        "pooler": "pixelbert.pooler",
        "mlm_head": "mlm_head",
        "itm_head": "itm_head",
    }
    found = {part: seen.get(module, 0) for part, module in named.items()}
    # Its layers are called one by one, and itself never.
    found["encoder"] = sum(
        count for name, count in seen.items() if re.fullmatch(r"pixelbert\.encoder\.layer\.\d+", name)
    )
    found["projection"] = counter.get_total_flops() - sum(found.values())
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_part_of_a_forward_is_counted_exactly(name):
    preset, overrides, size = CASES[name]
    config = PixelBertConfig.preset(preset, vocab_size=64, **overrides)
    found = forward_flops(config, **shapes(size))
    assert tuple(found) == PARTS
    counter = counted(config, size, train=False)
    assert found == {**modules(counter), "embeddings": 0}


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_counted_exactly_with_frozen_stages_too(name):
    preset, overrides, size = CASES[name]
    config = PixelBertConfig.preset(preset, vocab_size=64, **overrides)
    found = training_flops(config, **shapes(size))
    assert sum(found.values()) == counted(config, size, train=True).get_total_flops()


def test_what_the_fast_model_leaves_out_is_left_out():
    config = PixelBertConfig.preset("tiny")
    model = PixelBertForPreTraining(config, fast=True).train()
    words, pixels = [7, 4, 2], [3, 3, 1]
    mask = torch.tensor([[1] * count + [0] * (7 - count) for count in words])
    labels = torch.full((SEQUENCES, WORDS), -100)
    labels[:, 1] = 5  # one a sequence: then the count from their mean is exact
    with (
        backend("reference"),  # the kernels' products are seen by no counter
        sdpa_kernel(SDPBackend.MATH),
        torch.no_grad(),
        FlopCounterMode(display=False) as counter,
    ):
        model(
            torch.full((SEQUENCES, WORDS), 5),
            mask,
            torch.randn(IMAGES, 3, 64, 96),
            labels=labels,
            image_index=torch.tensor([0, 1, 1]),
            positions=torch.tensor([[0, 1, 2], [0, 1, 2], [0, -1, -1]]),
        )
    given = shapes((64, 96), masked=SEQUENCES, text_length=words, pixels=pixels)
    fast = forward_flops(config, **given, fast=True)
    reference = forward_flops(config, **given)
    by_reference = {**fast, "projection": reference["projection"]}
    assert sum(by_reference.values()) == counter.get_total_flops()
    assert fast["encoder"] < reference["encoder"]
    # Seven windows of four pixels are read, of two maps of 8 x 12.
    assert fast["projection"] * (2 * 8 * 12) == reference["projection"] * 7 * 4


def test_no_window_is_projected_more_often_than_the_map_has_it():
    config = PixelBertConfig.preset("tiny")
    given = shapes((64, 96), pixels=24, sequences=40)
    assert (
        forward_flops(config, **given, fast=True)["projection"]
        == (forward_flops(config, **given)["projection"])
    )


def test_as_many_lengths_as_sequences_are_wanted():
    with pytest.raises(ValueError, match="each of 3 sequences"):
        forward_flops(PixelBertConfig.preset("tiny"), **shapes((64, 64), text_length=[1, 2]))
