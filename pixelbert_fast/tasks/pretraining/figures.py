"""Figures of one training batch for the log: what was right, and what it costs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pixelbert_fast.model import PixelBertConfig
from pixelbert_fast.model.flops import training_flops
from pixelbert_fast.tasks.pretraining.masking import IGNORED


@torch.no_grad()
def words_right(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of masked word pieces told right, 0-d float32; 0 where none was masked.

    logits: ``[M, vocab_size]``, of the M places where labels, ``[S, T]``, are not -100, row by row.
    """
    count = len(logits)
    if not count:
        return logits.new_zeros((), dtype=torch.float32)
    labels = labels.reshape(-1)
    # Picking them by a mask would make the host wait for a GPU to say how many there are.
    places = torch.argsort((labels == IGNORED).to(torch.uint8), stable=True)[:count]
    return (logits.argmax(dim=-1) == labels[places]).float().mean()


def batch_flops(config: PixelBertConfig, batch: Mapping[str, Tensor], *, fast: bool) -> int:
    """Operations of a forward and backward of a `PretrainingBatch` on the CPU.

    fast: FastPixelBERT's, which reads no padding and no more of the last layer than is asked for.
    """
    mask, size = batch["attention_mask"], batch["pixel_values"].shape[2:]
    own = batch.get("pixel_size")
    sizes = torch.tensor([tuple(size)]) if own is None or not fast else own
    # The map is reduced by the output stride, and then pooled in windows of two by two.
    places = (-(-sizes // config.output_stride) // 2).prod(dim=1).expand(len(batch["pixel_values"]))
    pixels = places[batch["image_index"].long()]
    if config.sampled_pixels is not None:
        pixels = pixels.clamp(max=config.sampled_pixels)
    masked = int((batch["labels"] != IGNORED).sum()) if fast else mask.numel()
    found = training_flops(
        config,
        image_size=tuple(size),
        images=len(batch["pixel_values"]),
        sequences=len(mask),
        text_length=mask.sum(dim=1).tolist() if fast else mask.shape[1],
        pixels=pixels.tolist(),
        masked=masked,
        fast=fast,
    )
    return sum(found.values())
