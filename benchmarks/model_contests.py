"""The contests of whole models: one set of weights, one batch, the same places, and equal results first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pixelbert_fast import PixelBertConfig, PixelBertForPreTraining  # noqa: E402 - needs the path above

REFERENCE = "reference"
COMPILED = "reference, compiled"
AUTOTUNED = "reference, compiled with max-autotune"
# What torch.compile is told, what is said of whom it has compiled, and what its reference is called.
HOW = {"default": "compiled", "max-autotune": "compiled with max-autotune"}
MODES = {"default": COMPILED, "max-autotune": AUTOTUNED}
FAST = "FastPixelBERT"
PREPARED = "FastPixelBERT, compiled for the shape"
REGIONS = "FastPixelBERT, compiled regions"
CHECKPOINTED = "FastPixelBERT, activation checkpointing"

# Of float32 and not.
CHECKED_STEP = {
    True: "loss and logits within 1e-4 of the reference's, gradients within 1e-3; compiled: loss within 5 %",
    False: "as near the float32 reference as the reference, or within 2e-2; compiled: loss within 5 %",
}
CHECKED_PAIR = {
    True: "within 1e-4 of the reference",
    False: "as near the float32 reference as the reference, or within 2e-2",
}

# Another way of making a model's step: inside of what this gives.
Way = Callable[[], AbstractContextManager]

# Word pieces of a caption, [CLS] and [SEP] counted, about as MS-COCO's: 12 in the mean.
LENGTHS = (9, 10, 11, 12, 12, 13, 14, 15)
WORDS = 30  # to which captions are padded
QUESTION = range(1000, 1012)


@dataclass(frozen=True)
class Case:
    """A model, its batch and where it runs; `pixels` are drawn for each sequence in training."""

    preset: str = "r50"
    norm: str = "frozen"
    device: str = "cpu"
    dtype: str = "float32"
    images: int = 2
    height: int = 256
    width: int = 320
    captions: int = 4
    pixels: int = 20

    def __str__(self) -> str:
        images = "1 image" if self.images == 1 else f"{self.images} images"
        norm = "trained" if self.norm == "batch" else self.norm
        return f"{self.preset}, {norm} norm, {self.dtype}, {images} of {self.height} x {self.width}"

    @property
    def sequences(self) -> int:
        return self.images * self.captions


def batch(case: Case) -> dict[str, Any]:
    """What a step of pre-training reads, the same on every device: half of the pairs are mismatched."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([LENGTHS[row % len(LENGTHS)] for row in range(case.sequences)])
    mask = (torch.arange(WORDS) < lengths[:, None]).long()
    vocabulary = PixelBertConfig.preset(case.preset).vocab_size
    words = torch.randint(1000, vocabulary, (case.sequences, WORDS), generator=generator) * mask
    masked = (torch.rand(case.sequences, WORDS, generator=generator) < 0.15) & (mask > 0)
    masked[:, 0] = False
    found = {
        "input_ids": words,
        "attention_mask": mask,
        "pixel_values": torch.randn(case.images, 3, case.height, case.width, generator=generator),
        "image_index": torch.arange(case.images).repeat_interleave(case.captions),
        "labels": torch.where(masked, words, -100),
        "matched": torch.arange(case.sequences) % 2,
    }
    found["pixel_values"] = found["pixel_values"].to(getattr(torch, case.dtype))
    return {name: value.to(case.device) for name, value in found.items()} | {"seed": 0}


def pair(case: Case) -> dict[str, PixelBertForPreTraining]:
    """Both models with the same weights. Norms carry numbers as of a trained net, or a deep one overflows."""
    config = PixelBertConfig.preset(case.preset, norm=case.norm, sampled_pixels=case.pixels)
    torch.manual_seed(0)
    reference = PixelBertForPreTraining(config, fast=False)
    for name, value in reference.state_dict().items():
        if name.endswith("bn3.weight"):
            value.fill_(0.2)  # the branch's share of a residual sum
    fast = PixelBertForPreTraining(config, fast=True)
    fast.load_state_dict(reference.state_dict())
    dtype = getattr(torch, case.dtype)
    return {REFERENCE: reference.to(case.device, dtype), FAST: fast.to(case.device, dtype)}


def compiled(model: nn.Module, mode: str) -> nn.Module:
    return torch.compile(model, dynamic=False, mode=mode)


def training_step(model: nn.Module, given: dict[str, Any], mode: str = "default") -> Callable[[], None]:
    """Forward and backward of the pre-training loss; gradients are given away within the step's own time."""
    model.train()

    def step() -> None:
        if mode != "default":  # writes results, on a GPU, where the last step's were
            torch.compiler.cudagraph_mark_step_begin()
        model(**given).loss.backward()
        for parameter in model.parameters():
            parameter.grad = None

    return step


def question(case: Case) -> dict[str, Tensor]:
    """One pair, as it is met in use: a caption without padding beside the whole image."""
    given = batch(case)
    words = given["input_ids"].new_tensor(QUESTION)[None]
    return {"input_ids": words, "pixel_values": given["pixel_values"][:1]}


def inference(model: nn.Module, given: dict[str, Any], mode: str = "default") -> Callable[[], Tensor]:
    if isinstance(model, nn.Module):
        model.eval()

    @torch.no_grad()
    def run() -> Tensor:
        if mode != "default":
            torch.compiler.cudagraph_mark_step_begin()
        return model(**given).pooler_output

    return run


@contextmanager
def without_dropout(model: nn.Module):
    """Dropout of 0 inside: the two models draw theirs in other orders."""
    kept = {module: module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    for module in kept:
        module.p = 0.0
    try:
        yield
    finally:
        for module, p in kept.items():
            module.p = p


def step_results(model: PixelBertForPreTraining, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Loss, logits and gradients of one step without dropout, in float64 on the CPU."""
    model.train()
    with without_dropout(model):
        out = model(**given)
        out.loss.backward()
    found = {name: out[name] for name in ("loss", "mlm_logits", "itm_logits")}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[f"gradient of {name}"] = parameter.grad
            parameter.grad = None
    return {name: value.detach().double().cpu() for name, value in found.items()}


def verify(
    case: Case,
    models: dict[str, PixelBertForPreTraining],
    given: dict[str, Tensor],
    ways: Mapping[str, Way] = MappingProxyType({}),
) -> None:
    """Raises AssertionError where a model's step differs from the reference's by more than it may.

    float32: 1e-4 in loss and logits, and gradients whose difference is 1e-3 of their norm at most. Half
    precision: at most twice as far from the float32 reference as the reference in half precision is, or 2e-2
    where that is lucky.

    Args:
        ways: by name, what the step of a model is made within, where it is not made as it is.
    """
    expected = step_results(models[REFERENCE], given)
    if case.dtype == "float32":
        truth, own = expected, dict.fromkeys(expected, 0.0)
    else:
        reference = models[REFERENCE]
        wide = PixelBertForPreTraining(reference.config, fast=False).to(case.device)
        wide.load_state_dict(reference.state_dict())
        truth = step_results(wide, given | {"pixel_values": given["pixel_values"].float()})
        own = {name: relative(expected[name], truth[name]) for name in expected}
    for who, model in models.items():
        if who == REFERENCE:
            continue
        with ways.get(who, nullcontext)():
            found = step_results(model, given)
        assert found.keys() == expected.keys(), f"{case}: {who} has other gradients than the reference"
        for name, value in found.items():
            gradient = name.startswith("gradient")
            # A key's bias moves no softmax: its gradient is rounding alone.
            if gradient and name.endswith("key.bias"):
                continue
            floor = (1e-3 if gradient else 1e-4) if case.dtype == "float32" else 2e-2
            allowed = max(2 * own[name], floor)
            error = relative(value, truth[name])
            assert error <= allowed, f"{case}: {who} is off by {error:.3g} in {name}, allowed: {allowed:.3g}"


def relative(found: Tensor, truth: Tensor) -> float:
    """The norm of the difference by that of the truth."""
    return float((found - truth).norm() / truth.norm().clamp(min=1e-12))


def verify_loss(case: Case, rival: nn.Module, reference: nn.Module, given: dict[str, Tensor]) -> None:
    """Raises AssertionError where a compiled model's loss is not about the reference's.

    Both with their dropout, which each draws in an order of its own, as it is timed: without it another
    graph would be compiled.
    """
    losses = []
    for model in (reference, rival):
        model.train()
        torch.manual_seed(0)
        # With gradients, though none is asked for: without, another graph would be compiled.
        losses.append(float(model(**given).loss.detach()))
    error = abs(losses[1] - losses[0]) / losses[0]
    assert error <= 0.05, f"{case}: compiled, the loss is {losses[1]:.4g} and not {losses[0]:.4g}"


def verify_inference(case: Case, runs: dict[str, Callable[[], Tensor]], truth: Tensor) -> None:
    """As :func:`verify`, of the pooled output; `truth` is the float32 reference's."""
    own = relative(runs[REFERENCE]().double().cpu(), truth.double().cpu())
    for who, run in runs.items():
        error = relative(run().double().cpu(), truth.double().cpu())
        allowed = 1e-4 if case.dtype == "float32" else max(2 * own, 2e-2)
        assert error <= allowed, f"{case}: {who} is off by {error:.3g}, allowed: {allowed:.3g}"
