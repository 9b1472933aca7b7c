"""One call of compiled inference: which prepared shape it fits, filled up to it and cut back from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .inference_shape import InferenceShape
from .outputs import PixelBertOutput


@dataclass
class Call:
    """Checked inputs as in ``PixelBERT.forward``; integers are int64.

    Attributes:
        places: ``[S, K]``, given or drawn; None: every place is read.
        grid: ``(h, w)`` that `places` count in.
        ragged: whether some image may not fill the batch.
        padded: whether some word may be padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor
    image_index: Tensor
    pixel_size: Tensor | None
    places: Tensor | None
    grid: tuple[int, int]
    ragged: bool
    padded: bool

    def __str__(self) -> str:
        images, _, height, width = self.pixel_values.shape
        sequences, words = self.input_ids.shape
        pixels = "every pixel" if self.places is None else f"{self.places.shape[1]} pixels"
        return (
            f"{images} images of {height} x {width}{' with padding' if self.ragged else ''}, "
            f"{sequences} sequences of {words} words{' with padding' if self.padded else ''} and {pixels}"
        )

    def fits(self, shape: InferenceShape) -> bool:
        images, _, height, width = self.pixel_values.shape
        sequences, words = self.input_ids.shape
        if (self.places is None) != (shape.pixels is None):
            return False
        if self.places is not None and self.places.shape[1] > shape.pixels:
            return False
        if images > shape.images or sequences > shape.sequences or words > shape.words:
            return False
        if not shape.padded_text and (self.padded or words < shape.words):
            return False
        if shape.padded_images:
            return height <= shape.height and width <= shape.width
        return not self.ragged and (height, width) == (shape.height, shape.width)

    def cheapest(self, shapes: Iterable[InferenceShape]) -> InferenceShape | None:
        return min(filter(self.fits, shapes), key=InferenceShape.cost, default=None)

    def own_shape(self) -> InferenceShape:
        """The shape that is filled by this call exactly."""
        images, _, height, width = self.pixel_values.shape
        pixels = None if self.places is None else self.places.shape[1]
        return InferenceShape(images, height, width, *self.input_ids.shape, pixels, self.ragged, self.padded)

    def filling(self, shape: InferenceShape, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Inputs of ``InferenceGraph.forward`` at `shape`, whose pooled grid is `grid`; all new tensors."""
        device = self.pixel_values.device
        images, channels, height, width = self.pixel_values.shape
        pixels = self.pixel_values.new_empty((shape.images, channels, shape.height, shape.width))
        if (images, height, width) != (shape.images, shape.height, shape.width):
            pixels.zero_()
        pixels[:images, :, :height, :width] = self.pixel_values
        inputs = {
            "input_ids": self._rows(self.input_ids, shape.sequences, shape.words, 0),
            "pixel_values": pixels,
            "image_index": self._rows(self.image_index[:, None], shape.sequences, 1, 0)[:, 0],
        }
        if shape.padded_text:
            inputs["attention_mask"] = self._rows(self.attention_mask, shape.sequences, shape.words, 0)
        if self.places is not None:
            places = renumbered(self.places, self.grid, grid)
            inputs["positions"] = self._rows(places, shape.sequences, shape.pixels, -1)
        if shape.padded_images:
            size = self.pixel_size
            if size is None:
                size = torch.tensor([[height, width]]).expand(images, 2)
            filled = torch.tensor([[shape.height, shape.width]]).repeat(shape.images, 1).to(device)
            filled[:images] = size
            inputs["pixel_size"] = filled
        return inputs

    def _rows(self, rows: Tensor, count: int, length: int, filler: int) -> Tensor:
        added = (0, length - rows.shape[1], 0, count - rows.shape[0])
        return F.pad(rows.to(self.pixel_values.device), added, value=filler).clone()

    def cut(
        self, outputs: tuple[Tensor, ...], shape: InferenceShape, grid: tuple[int, int]
    ) -> PixelBertOutput:
        """The call's own part of what ``InferenceGraph.forward`` gave at `shape`."""
        hidden, pooled, positions, mask = outputs
        sequences, words = self.input_ids.shape
        count = self.grid[0] * self.grid[1] if self.places is None else self.places.shape[1]
        if self.places is None:
            positions = renumbered(positions[:sequences, :count], grid, self.grid)
        else:
            positions = self.places.to(torch.int32)
        hidden, pooled, mask = hidden[:sequences], pooled[:sequences], mask[:sequences, :count]
        if words < shape.words or words + count < hidden.shape[1]:
            hidden = torch.cat([hidden[:, :words], hidden[:, shape.words : shape.words + count]], dim=1)
        return PixelBertOutput(
            last_hidden_state=hidden, pooler_output=pooled, positions=positions, pixel_mask=mask
        )


def renumbered(places: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Places of the grid `old` as `new` counts them; -1 stays, what is no place of `old` is none of `new`."""
    inside = (places >= 0) & (places < old[0] * old[1])
    moved = places // old[1] * new[1] + places % old[1]
    outside = torch.where(places == -1, -1, new[0] * new[1])
    return torch.where(inside, moved, outside).to(places.dtype)
