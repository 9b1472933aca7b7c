"""The three models of downstream tasks: one batch for each, and reference and fast with the same weights."""

from __future__ import annotations

import torch

from pixelbert_fast import (
    PixelBertForImageTextRetrieval,
    PixelBertForNaturalLanguageVisualReasoning,
    PixelBertForVisualQuestionAnswering,
)
from pixelbert_fast.model import answer_labels
from tests.small_models import INDEX, MASK, PLACES, SIZES, config, images, stir, text

ANSWERS = ["yes", "no", "2", "red", ""]
SCORES = torch.tensor([[1, 0, 0, 0.3, 0], [0, 0.9, 0, 0, 0], [0, 0, 0, 0, 0]])
PAIRS = torch.tensor([[0, 1], [1, 0], [1, 1]])
TRUTH = torch.tensor([1, 0, 1])
GROUPS = torch.tensor([[0, 2, 1], [1, 0, -1]])

VQA = PixelBertForVisualQuestionAnswering
NLVR2 = PixelBertForNaturalLanguageVisualReasoning
RETRIEVAL = PixelBertForImageTextRetrieval
OUTPUT = {VQA: "logits", NLVR2: "logits", RETRIEVAL: "scores"}
TARGET = {VQA: {"labels": SCORES}, NLVR2: {"labels": TRUTH}, RETRIEVAL: {"groups": GROUPS}}


def settings(**overrides):
    return config(**answer_labels(ANSWERS), **overrides)


def pair_of(kind, **overrides):
    """(reference, fast)."""
    torch.manual_seed(0)
    reference = stir(kind(settings(**overrides), fast=False))
    fast = kind(settings(**overrides))
    fast.load_state_dict(reference.state_dict())
    return reference, fast


def inputs_of(kind, *, places=False, target=True):
    """Three padded texts and two images of different sizes."""
    given = {"input_ids": text(3), "attention_mask": MASK, "pixel_values": images(), "pixel_size": SIZES}
    given["image_index"] = PAIRS if kind is NLVR2 else INDEX
    if places:
        given["positions"] = torch.stack([PLACES, PLACES.flip(0)], dim=1) if kind is NLVR2 else PLACES
    return given | (TARGET[kind] if target else {})
