"""The parts of a pre-training step as runs of their own, forward and backward, on what they get in it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelbert_fast.model.outputs import Tokens
from pixelbert_fast.model.pretraining import IGNORED, PixelBertForPreTraining

PARTS = ("backbone", "pixel embedding", "Transformer", "heads and losses")


def parts(model: PixelBertForPreTraining, given: dict[str, Tensor]) -> dict[str, Callable[[], None]]:
    """A run for each of `PARTS`; gradients are given away within each one's own time."""
    inner = model.pixelbert
    fast = hasattr(inner, "encode_rows")
    model.train()
    with torch.no_grad():
        features = inner.run_backbone(given["pixel_values"], None)
        tokens = inner.embed(
            given["input_ids"],
            given["attention_mask"],
            given["pixel_values"],
            image_index=given["image_index"],
            seed=0,
        )
    labels = given["labels"].masked_fill((given["matched"] == 0)[:, None], IGNORED)
    wanted = labels != IGNORED
    wanted[:, 0] = True
    with torch.no_grad():
        hidden = inner.encode_rows(tokens, wanted) if fast else inner.encode(tokens, False)[0]

    def back(*outputs: Tensor) -> None:
        torch.autograd.backward(outputs, [torch.ones_like(each) for each in outputs])
        for parameter in model.parameters():
            parameter.grad = None

    def leaf(value: Tensor) -> Tensor:
        return value.detach().requires_grad_()

    def heads(read: Tensor) -> Tensor:
        if fast:
            first = torch.zeros_like(wanted)
            first[:, 0] = True
            cls, masked = read[first[wanted]], read[(labels != IGNORED)[wanted]]
            words = model.mlm_head(masked)
        else:
            cls = read[:, 0]
            words = model.mlm_head(read[:, : labels.shape[1]])[labels != IGNORED]
        mlm = F.cross_entropy(words.float(), labels[labels != IGNORED])
        matched = model.itm_head(inner.pooler(cls[:, None]))
        return mlm + F.cross_entropy(matched.float(), given["matched"])

    def transformer() -> None:
        words = inner.embeddings(input_ids=given["input_ids"])
        read = Tokens(words, leaf(tokens.pixels), tokens.mask, tokens.positions)
        back(inner.encode_rows(read, wanted) if fast else inner.encode(read, False)[0])

    runs = (
        lambda: back(inner.run_backbone(given["pixel_values"], None)),
        lambda: back(inner.project(leaf(features), tokens.positions, given["image_index"])),
        transformer,
        lambda: back(heads(leaf(hidden))),
    )
    return dict(zip(PARTS, runs, strict=True))
