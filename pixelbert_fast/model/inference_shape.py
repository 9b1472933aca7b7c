"""The shapes that inference is prepared for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import PixelBertConfig, is_count


@dataclass(frozen=True)
class InferenceShape:
    """One shape to prepare; smaller calls fit it too, filled up with what does not count.

    Attributes:
        images: B, how many images.
        height, width: of their pixels.
        sequences: S, how many sequences read them.
        words: T, how many word pieces each has.
        pixels: K, how many places each reads, given or drawn; None: every place of its image.
        padded_images: whether images may be smaller than ``height x width``, all of them or (told by
            `pixel_size`) some. Costs a pass over every map of the backbone.
        padded_text: whether text may be shorter than `words`. Costs a mask in attention.
    """

    images: int
    height: int
    width: int
    sequences: int
    words: int
    pixels: int | None = None
    padded_images: bool = False
    padded_text: bool = True

    def check(self, config: PixelBertConfig) -> None:
        """Raises ValueError where this is no shape that a model of `config` reads."""
        for name in ("images", "height", "width", "sequences", "words", "pixels"):
            value = getattr(self, name)
            if not is_count(value) and not (name == "pixels" and value is None):
                raise ValueError(f"InferenceShape: {name} must be an integer of at least 1, got {value!r}")
        least = config.output_stride + 1
        if min(self.height, self.width) < least:
            raise ValueError(
                f"InferenceShape: {self.height} x {self.width} is too small for one pixel: each side needs "
                f"at least {least} px at output stride {config.output_stride}"
            )
        if self.words > config.max_position_embeddings:
            raise ValueError(
                f"InferenceShape: words must be at most {config.max_position_embeddings}, "
                f"max_position_embeddings of the model, got {self.words}"
            )

    def cost(self) -> tuple[int, int]:
        """For comparison: the backbone's work, then the Transformer's."""
        return self.images * self.height * self.width, self.sequences * (self.words + (self.pixels or 0))

    def __str__(self) -> str:
        upto = "up to " if self.padded_images else ""
        words = f"{'up to ' if self.padded_text else ''}{self.words} words"
        pixels = "every pixel" if self.pixels is None else f"up to {self.pixels} pixels"
        return (
            f"{self.images} images of {upto}{self.height} x {self.width}, "
            f"{self.sequences} sequences of {words} and {pixels}"
        )


def example_inputs(shape: InferenceShape, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """What :class:`InferenceGraph` reads of this shape, contiguous; without the inputs it has no need of."""

    def zeros(*size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.int64, device=device)

    inputs = {
        "input_ids": zeros(shape.sequences, shape.words),
        "pixel_values": torch.zeros(shape.images, 3, shape.height, shape.width, dtype=dtype, device=device),
        "image_index": zeros(shape.sequences),
    }
    if shape.padded_text:
        inputs["attention_mask"] = zeros(shape.sequences, shape.words)
    if shape.pixels is not None:
        inputs["positions"] = zeros(shape.sequences, shape.pixels) - 1
    if shape.padded_images:
        size = torch.tensor([shape.height, shape.width], device=device)
        inputs["pixel_size"] = size.expand(shape.images, 2).contiguous()
    return inputs
