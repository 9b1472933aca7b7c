"""Counted operations of the downstream tasks against those that PyTorch's counter sees their models do."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pixelbert_fast import (
    PixelBertConfig,
    PixelBertForImageTextRetrieval,
    PixelBertForNaturalLanguageVisualReasoning,
    PixelBertForVisualQuestionAnswering,
)
from pixelbert_fast.model import answer_labels
from pixelbert_fast.model.flops import training_flops
from pixelbert_fast.model.heads import ALL_HEADS
from pixelbert_fast.model.outputs import FeatureMaps
from pixelbert_fast.model.task_flops import head_flops, retrieval_flops
from tests.test_flops import BACKWARD

IMAGES, NEGATIVES, HARDEST, WORDS, SIZE = 2, 4, 2, 7, (64, 96)
SEQUENCES = IMAGES * (1 + NEGATIVES)
PIXELS = 4 * 6


def counted(model, **inputs):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=BACKWARD) as counter:
        model(**inputs).loss.backward()
    return counter.get_total_flops()


def texts(count):
    return torch.full((count, WORDS), 5)


def settings(**overrides):
    return PixelBertConfig.preset("tiny", vocab_size=64, sampled_pixels=None, **overrides)


@pytest.mark.parametrize("order", ["project_pool", "pool_project"])
@pytest.mark.parametrize("hardest", [HARDEST, None])
@pytest.mark.parametrize("kept", ["trained", "none", "c5", "embeddings"])
def test_a_step_of_retrieval_is_counted_exactly(kept, hardest, order):
    """As the task freezes it: see `tasks.retrieval.task`."""
    config = settings(projection_order=order)
    model = PixelBertForImageTextRetrieval(config, fast=False).train()
    inner, pictures = model.pixelbert, torch.randn(IMAGES, 3, *SIZE)
    if kept != "trained":
        inner.backbone.requires_grad_(False)
    if kept == "embeddings":
        inner.pixel_projection.requires_grad_(False)
        inner.pixel_type_embedding.requires_grad_(False)
    given = {"pixel_values": pictures}
    if kept in ("c5", "embeddings"):
        with torch.no_grad():
            embedded = inner.embed_pixels(pictures)
            maps = FeatureMaps(inner.run_backbone(pictures, None), embedded.valid_grid)
        given = {"pixel_embeddings": embedded if kept == "embeddings" else maps}
    found = retrieval_flops(
        config,
        image_size=SIZE,
        images=IMAGES,
        image_pixels=PIXELS,
        sequences=SEQUENCES,
        text_length=WORDS,
        pixels=PIXELS,
        learnt=IMAGES * (1 + HARDEST),
        learnt_text_length=WORDS,
        learnt_pixels=PIXELS,
        kept="none" if kept == "trained" else kept,
        frozen=kept != "trained",
        hardest=hardest is not None,
    )
    seen = counted(
        model,
        input_ids=texts(SEQUENCES),
        image_index=torch.arange(IMAGES).repeat_interleave(1 + NEGATIVES),
        groups=torch.arange(SEQUENCES).view(IMAGES, -1),
        hardest=hardest,
        **given,
    )
    assert sum(found.values()) == seen


def test_the_heads_of_questions_and_statements_are_counted_exactly():
    config = settings(**answer_labels([str(number) for number in range(11)]))
    given = {"image_size": SIZE, "text_length": WORDS, "pixels": PIXELS}

    def body(**shape):
        parts = training_flops(config, **given, **shape)
        return sum(flops for part, flops in parts.items() if part not in ALL_HEADS)

    seen = counted(
        PixelBertForVisualQuestionAnswering(config, fast=False).train(),
        input_ids=texts(3),
        pixel_values=torch.randn(2, 3, *SIZE),
        image_index=torch.tensor([0, 1, 1]),
        labels=torch.ones(3, 11),
    )
    assert seen == body(images=2, sequences=3) + 3 * head_flops("answer_head", config, 3)
    seen = counted(
        PixelBertForNaturalLanguageVisualReasoning(config, fast=False).train(),
        input_ids=texts(3),
        pixel_values=torch.randn(4, 3, *SIZE),
        image_index=torch.tensor([[0, 1], [2, 3], [0, 3]]),
        labels=torch.tensor([1, 0, 1]),
    )
    assert seen == body(images=4, sequences=6) + 3 * head_flops("pair_head", config, 3)
