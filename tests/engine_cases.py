"""A small real pre-training model, its batches and engines: what tests and tables of the engines compare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_fast import PixelBertConfig, PixelBertForPreTraining
from pixelbert_fast.training.deepspeed_config import DeepSpeedOptions
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer, parameter_groups
from pixelbert_fast.training.plain_engine import PlainEngine

CLIP = 1.0
OPTIONS = {
    "backbone": {"algorithm": "sgd", "lr": 1e-2, "weight_decay": 5e-4, "momentum": 0.9},
    "transformer": {"algorithm": "adamw", "lr": 1e-3, "weight_decay": 1e-2},
}
CPU = torch.device("cpu")
# One update in five meets no masked word: the word head is used and moves by momentum and decay alone.
WITHOUT_WORDS = 5


def build(norm: str = "frozen", fast: bool = True) -> PixelBertForPreTraining:
    """A model in training mode, with the same weights at each call."""
    torch.manual_seed(3)
    config = PixelBertConfig.preset(
        "tiny",
        norm=norm,
        backbone_channels=8,
        hidden_size=32,
        intermediate_size=64,
        vocab_size=50,
        sampled_pixels=5,
    )
    return PixelBertForPreTraining(config, fast=fast).train()


def optimizer_of(model: nn.Module) -> TwoAlgorithmOptimizer:
    named = list(model.named_parameters())
    parts = {
        "backbone": [pair for pair in named if pair[0].startswith("pixelbert.backbone.")],
        "transformer": [pair for pair in named if not pair[0].startswith("pixelbert.backbone.")],
    }
    return TwoAlgorithmOptimizer(parameter_groups(model, parts, OPTIONS))


def batch(step: int, rank: int) -> dict[str, Any]:
    """What process number `rank` reads in an update: a pure function of both."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    ids = torch.randint(5, 50, (4, 7), generator=generator)
    labels = torch.full_like(ids, -100)
    if step % WITHOUT_WORDS != WITHOUT_WORDS - 1:
        labels[0, 2], labels[1, 3], labels[3, 1] = 7, 8, 9
    return {
        "input_ids": ids,
        "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 7, [1] * 3 + [0] * 4]),
        "pixel_values": torch.randn(2, 3, 64, 64, generator=generator),
        "pixel_size": torch.tensor([[64, 64], [48, 40]]),
        "image_index": torch.tensor([0, 0, 1, 1]),
        "labels": labels,
        "matched": torch.tensor([1, 0, 1, 1]),
        "sample_keys": torch.arange(4) + 4 * (2 * step + rank),
        "seed": 5,
    }


def plain_engine(model: nn.Module, accumulation: int, **options) -> PlainEngine:
    return PlainEngine(
        model, optimizer_of(model), device=CPU, accumulation=accumulation, clip_norm=CLIP, **options
    )


def deepspeed_engine(model: nn.Module, ranks, **options):
    from pixelbert_fast.training.deepspeed_engine import DeepSpeedEngine

    given = DeepSpeedOptions(images_per_batch=2, clip_norm=CLIP, **options)
    return DeepSpeedEngine(model, optimizer_of(model), ranks=ranks, options=given)


def train(engine, steps: Iterable[int], ranks: Iterable[int]) -> list[float]:
    """Updates; each adds up the batches of `ranks`, as many as the engine accumulates.

    Returns:
        each update's mean loss.
    """
    losses = []
    for step in steps:
        found = []
        for rank in ranks:
            with engine.autocast():
                loss = engine.model(**batch(step, rank)).loss
            engine.backward(loss)
            done = engine.step()
            found.append(float(loss.detach()))
        assert done
        losses.append(sum(found) / len(found))
    return losses


def whole(engine) -> dict[str, Tensor]:
    """The weights and buffers, whole in the first process; called by all."""
    with engine.gathered() as module:
        return {name: value.detach().clone() for name, value in module.state_dict().items()}


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of any weight relative to the largest number in its tensor, or to 1e-2.

    Weights that began at zero (biases) are as small as the rounding of the others' differences. A key's bias
    moves no softmax: its gradient is rounding alone, which Adam makes a whole step of, in any direction.
    """
    worst = 0.0
    for name, value in expected.items():
        value = value.detach()
        if value.is_floating_point() and not name.endswith("attention.self.key.bias"):
            scale = max(float(value.abs().max()), 1e-2)
            worst = max(worst, float((found[name].detach() - value).abs().max()) / scale)
    return worst
