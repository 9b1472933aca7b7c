"""What pre-training tells of a step: words told right, and the operations it takes."""

from __future__ import annotations

import pytest
import torch

from pixelbert_fast.model import PixelBertConfig
from pixelbert_fast.model.flops import training_flops
from pixelbert_fast.tasks.pretraining.figures import batch_flops, words_right

CONFIG = PixelBertConfig.preset("tiny")


def batch(**more):
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
    labels = torch.full((3, 7), -100)
    labels[0, 2], labels[2, 1] = 7, 9
    return {
        "pixel_values": torch.zeros(2, 3, 96, 96),
        "image_index": torch.tensor([0, 0, 1], dtype=torch.int32),
        "attention_mask": mask,
        "labels": labels,
        **more,
    }


def test_words_are_counted_right_at_their_own_places():
    labels = batch()["labels"]
    logits = torch.zeros(2, 20)
    logits[0, 7] = 1.0  # the first masked word, row by row
    logits[1, 7] = 1.0  # the second is 9
    assert float(words_right(logits, labels)) == 0.5
    logits[1, 9] = 2.0
    assert float(words_right(logits, labels)) == 1.0
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 20, (9, 11), generator=generator)
    labels[torch.rand(9, 11, generator=generator) < 0.7] = -100
    logits = torch.randn(int((labels != -100).sum()), 20, generator=generator)
    wanted = (logits.argmax(1) == labels[labels != -100]).float().mean()
    assert 0 < float(wanted) < 1
    assert float(words_right(logits, labels)) == pytest.approx(float(wanted))


def test_where_no_word_is_masked_none_is_right():
    assert float(words_right(torch.zeros(0, 20), torch.full((2, 3), -100))) == 0.0


def test_operations_are_those_of_the_texts_own_lengths_and_the_pixels_drawn():
    shapes = {"image_size": (96, 96), "images": 2, "sequences": 3}
    # A 96 px image has 12 by 12 places of stride 8, and 6 by 6 after pooling: 30 of 36 are drawn.
    assert CONFIG.sampled_pixels == 30
    wanted = training_flops(CONFIG, **shapes, text_length=[7, 5, 3], pixels=[30] * 3, masked=2, fast=True)
    assert batch_flops(CONFIG, batch(), fast=True) == sum(wanted.values())
    # The reference reads padding, and asks the word head of every word.
    wanted = training_flops(CONFIG, **shapes, text_length=7, pixels=30, masked=21)
    assert batch_flops(CONFIG, batch(), fast=False) == sum(wanted.values())


def test_without_sampling_all_pixels_are_counted():
    every = PixelBertConfig.preset("tiny", vocab_size=CONFIG.vocab_size, sampled_pixels=None)
    shapes = {"image_size": (96, 96), "images": 2, "sequences": 3}
    wanted = training_flops(every, **shapes, text_length=[7, 5, 3], pixels=[36] * 3, masked=2, fast=True)
    assert batch_flops(every, batch(), fast=True) == sum(wanted.values())


def test_a_smaller_image_in_the_batch_has_fewer_pixels():
    given = batch(pixel_size=torch.tensor([[96, 96], [64, 48]], dtype=torch.int32))
    wanted = training_flops(
        CONFIG,
        image_size=(96, 96),
        images=2,
        sequences=3,
        text_length=[7, 5, 3],
        pixels=[30, 30, 12],
        masked=2,
        fast=True,
    )
    assert batch_flops(CONFIG, given, fast=True) == sum(wanted.values())
