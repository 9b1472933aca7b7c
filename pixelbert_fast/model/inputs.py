"""Checks of what a model's forward is given: one sentence with the input, what was expected and what came."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..ops.arguments import described, reads_values, require_range
from .config import PixelBertConfig
from .outputs import PixelEmbeddings


def integers(name: str, value: object, expected: str, *shape: int | None) -> Tensor:
    """`value` as int64, so that no arithmetic on it overflows a narrow dtype.

    Args:
        expected: the shape in words, such as ``[S, K]``.
        shape: the sizes it must have; None where any will do.

    Raises:
        TypeError: it is no tensor, or not of an integer dtype.
        ValueError: it has another shape.
    """
    is_integer = isinstance(value, Tensor) and not (
        value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
    )
    if not is_integer:
        raise TypeError(f"{name} must be an integer tensor {expected}, got {described(value)}")
    sizes_fit = all(size is None or size == got for size, got in zip(shape, value.shape, strict=False))
    if value.dim() != len(shape) or not sizes_fit:
        raise ValueError(f"{name} must be {expected}, got {described(value)}")
    return value.long()


def refuse(pixels: Tensor, wrong: Tensor, message: str) -> Tensor:
    """`pixels` ``[S, K, D]`` where no place is `wrong` (``[S, K]`` bool); NaN where that may not be read.

    Raises:
        ValueError: with `message`, on a CPU or with ``PIXELBERT_FAST_CHECK=1``.
    """
    if reads_values(wrong) and bool(wrong.any()):
        raise ValueError(message)
    return pixels.masked_fill(wrong[..., None], torch.nan)


class Request(NamedTuple):
    """The checked inputs of a model's forward; integers are int64."""

    input_ids: Tensor
    attention_mask: Tensor
    image_index: Tensor
    positions: Tensor | None
    sample_keys: Tensor | None
    pixel_embeddings: PixelEmbeddings | None


def request(
    config: PixelBertConfig,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    pixel_values: Tensor | None,
    *,
    image_index: Tensor | None = None,
    positions: Tensor | None = None,
    pixel_embeddings: PixelEmbeddings | None = None,
    sample_keys: Tensor | None = None,
) -> Request:
    """Checks what `PixelBERT.forward` is given; what it raises is listed there."""
    input_ids = integers("input_ids", input_ids, "[S, T]", None, None)
    sequences = input_ids.shape[0]
    if input_ids.shape[1] == 0:
        raise ValueError("input_ids must hold [CLS] at least, got sequences of no word piece")
    if input_ids.shape[1] > config.max_position_embeddings:
        raise ValueError(
            f"input_ids has {input_ids.shape[1]} word pieces a sequence, the model reads at most "
            f"{config.max_position_embeddings}: truncate the text"
        )
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    elif attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask must be {list(input_ids.shape)} like input_ids, got {list(attention_mask.shape)}"
        )
    if (pixel_values is None) == (pixel_embeddings is None):
        raise ValueError("forward needs either pixel_values or pixel_embeddings")
    if pixel_values is not None and (pixel_values.dim() != 4 or pixel_values.shape[1] != 3):
        raise ValueError(f"pixel_values must be [B, 3, H, W], got {list(pixel_values.shape)}")
    images = (pixel_values if pixel_values is not None else pixel_embeddings.values).shape[0]
    if image_index is None:
        if images != sequences:
            raise ValueError(
                f"image_index is needed when {sequences} sequences read {images} images: say which reads "
                "which"
            )
        image_index = torch.arange(sequences, device=input_ids.device)
    else:
        image_index = integers("image_index", image_index, f"[{sequences}]", sequences)
        require_range("forward", "image_index", image_index, 0, images, f"{images} images were given")
    if positions is not None:
        positions = integers("positions", positions, f"[{sequences}, K]", sequences, None)
    if sample_keys is not None:
        sample_keys = integers("sample_keys", sample_keys, f"[{sequences}]", sequences)
    return Request(input_ids, attention_mask, image_index, positions, sample_keys, pixel_embeddings)
