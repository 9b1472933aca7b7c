"""Which pixels each word of a text attends to, on the grid that the model reads the image as."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelbert_fast.data.processor import PixelBertProcessor
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import AttentionRequest, FastPixelBERT, PixelBERT
from pixelbert_fast.model.outputs import PixelBertOutput
from pixelbert_fast.model.pixelbert import PixelBertPreTrainedModel
from pixelbert_fast.tasks.saved_model import checkpoint_folder, open_saved

_JOINERS = "'\u2019-\u2010\u2011"
"""Apostrophes and hyphens: part of a word where they stand between two of its characters."""


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention of the W words of a text to the pixels of an image, in L layers of H heads.

    Attributes:
        text: as it was given.
        words: its words as written, in order, without punctuation; those beyond the longest text that the
            processor lets through are left out, since the model never read them.
        spans: of each word, where it stands: ``text[start:end]``.
        maps: float32 ``[L, H, W, rows, columns]``, softmax probabilities from the word as query (mean over
            its word pieces) to each pixel as key. They sum to less than 1: the rest went to text.
        rollout: float32 ``[W, rows, columns]``, attention followed through all layers; None: not asked for.
        grid: (rows, columns), the pixels that the Transformer read.
        image_size: (height, width) of the image as the model read it, resized.
        window: side of the square of that image that a cell of the grid stands for, in pixels; cell
            ``(r, c)`` begins at ``(r * window, c * window)``. The last may reach over the image's edge, and
            some pixels behind it may belong to none.
    """

    text: str
    words: list[str]
    spans: list[tuple[int, int]]
    maps: np.ndarray
    rollout: np.ndarray | None
    grid: tuple[int, int]
    image_size: tuple[int, int]
    window: int

    def of(self, layer: int | None = 0, head: int | None = None) -> np.ndarray:
        """``[W, rows, columns]`` of one layer and head, counted from 0; None: the mean of all.

        Raises IndexError for one that is not there.
        """
        found = self.maps
        for axis, (name, number) in enumerate((("layer", layer), ("head", head))):
            count = self.maps.shape[axis]
            if number is not None and not -count <= number < count:
                raise IndexError(
                    f"{name} must lie in {-count} .. {count - 1} ({count} {name}s), got {number}"
                )
            found = found.mean(axis=0) if number is None else found[number]
        return found


def attention_maps(
    model: PixelBertPreTrainedModel,
    image: Any,
    text: str,
    *,
    processor: PixelBertProcessor,
    rollout: bool = False,
) -> AttentionMaps:
    """The attention maps of the words of `text` over `image`, which passes the model once, whole.

    Args:
        model: any Pixel-BERT, with a task's head or without, fast or not, in evaluation mode.
        image: as `data.images.to_rgb` takes it.
        processor: the model's own; its tokenizer must know where in the text each word piece came from.
        rollout: whether attention is also followed through the layers (Abnar and Zuidema 2020, section 3):
            ``A_L ... A_1`` with ``A_l = (mean over the heads of layer l + I) / 2``.

    Raises:
        UserError: an image that cannot be read or is too small, a text without a word, or a tokenizer that
            cannot tell.
        TypeError, ValueError: a model that is none of these, or in training mode.
    """
    return attention_maps_of_texts(model, image, [text], processor=processor, rollout=rollout)[0]


@torch.inference_mode()
def attention_maps_of_texts(
    model: PixelBertPreTrainedModel,
    image: Any,
    texts: Sequence[str],
    *,
    processor: PixelBertProcessor,
    rollout: bool = False,
) -> list[AttentionMaps]:
    """:func:`attention_maps` of several texts, for which the image passes the backbone once."""
    base = _base(model)
    pixels = processor.image_processor.pixels(image)
    image_size = tuple(pixels.shape[-2:])
    if min(image_size) <= base.config.output_stride:
        raise UserError(
            f"the image is {image_size[0]} x {image_size[1]} pixels as the model would read it, too small "
            f"for one cell: each side needs at least {base.config.output_stride + 1}"
        )
    texts = list(texts)
    encoded = processor.encode_texts(texts)
    found = [_words(text, processor) for text in texts]
    embeddings = base.embed_pixels(pixels[None].to(base.device, base.dtype))
    queries = torch.full(
        (len(texts), max(max(map(max, pieces)) for _, pieces in found) + 1), -1, dtype=torch.int64
    )
    for row, (_, pieces) in enumerate(found):
        asked = [piece for one in pieces for piece in one]
        queries[row, asked] = torch.tensor(asked)
    outputs = base.pool(  # of the last layer, a map needs only what it reads
        encoded.input_ids.to(base.device),
        encoded.attention_mask.to(base.device),
        pixel_embeddings=embeddings,
        image_index=torch.zeros(len(texts), dtype=torch.int64, device=base.device),
        output_attentions=AttentionRequest(queries=None if rollout else queries.to(base.device)),
    )
    grid = embeddings.grid
    results = []
    for row, (spans, pieces) in enumerate(found):
        results.append(
            AttentionMaps(
                text=texts[row],
                words=[texts[row][start:end] for start, end in spans],
                spans=spans,
                maps=_word_maps(_layers(outputs, row), pieces, grid),
                rollout=_word_maps(_rolled(outputs, row), pieces, grid) if rollout else None,
                grid=grid,
                image_size=image_size,
                window=2 * base.config.output_stride,
            )
        )
    return results


def load_any(
    checkpoint: str | Path, device: torch.device | str = "cpu"
) -> tuple[FastPixelBERT, PixelBertProcessor]:
    """The Pixel-BERT below whatever head a checkpoint was trained with, in evaluation mode, in float32.

    Args:
        checkpoint: of any task, or the folder of the run that made it.

    Raises:
        UserError: there is no checkpoint, none of a whole Pixel-BERT, or one without a processor.
    """
    model, processor, _ = open_saved(checkpoint_folder(checkpoint), FastPixelBERT)
    return model.to(device), processor


def _base(model: PixelBertPreTrainedModel) -> PixelBERT:
    base = getattr(model, "base_model", None)
    if not isinstance(base, PixelBERT):
        raise TypeError(f"model must be a Pixel-BERT of this package, got {type(model).__name__}")
    if base.training:
        raise ValueError(
            "model is in training mode, where it reads a sample of the pixels: call model.eval()"
        )
    return base


def _words(text: str, processor: PixelBertProcessor) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Where the words that the model reads stand, and the places of each one's pieces in the sequence."""
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer is a {type(tokenizer).__name__}, which does not tell where a word piece came "
            "from; save the processor with a fast one (with a tokenizer.json)"
        )
    offsets = tokenizer(
        text,
        truncation=True,
        max_length=processor.max_text_length,
        padding=False,
        return_offsets_mapping=True,
        verbose=False,
    )["offset_mapping"]
    spans, pieces = [], []
    for start, end in word_spans(text):
        # Special tokens have empty offsets, which overlap nothing.
        own = [place for place, (first, last) in enumerate(offsets) if max(first, start) < min(last, end)]
        if own:
            spans.append((start, end))
            pieces.append(own)
    if not spans:
        raise UserError(f"the text {text!r} has no word that the model reads; give one, as 'a red star'")
    return spans, pieces


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word of a text stands: runs of letters, marks, digits and pictographs, with the apostrophes
    and hyphens inside them; an ideograph is a word of its own, as in BERT's tokenizer."""
    spans: list[tuple[int, int]] = []
    start = None
    for place, character in enumerate(text):
        joins = character in _JOINERS and start is not None and _in_word(text[place + 1 : place + 2])
        alone = _is_ideograph(character)
        if start is not None and (alone or not (joins or _in_word(character))):
            spans.append((start, place))
            start = None
        if alone:
            spans.append((place, place + 1))
        elif start is None and _in_word(character):
            start = place
    if start is not None:
        spans.append((start, len(text)))
    return spans


def _in_word(character: str) -> bool:
    if not character or _is_ideograph(character):
        return False
    category = unicodedata.category(character)
    return category[0] in "LMN" or category == "So"


def _is_ideograph(character: str) -> bool:
    return unicodedata.name(character, "").startswith(("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH"))


def _layers(outputs: PixelBertOutput, row: int) -> Tensor:
    """``[L, H, Q, T + K]`` of one sequence."""
    return torch.stack([one[row] for one in outputs.attentions])


def _rolled(outputs: PixelBertOutput, row: int) -> Tensor:
    """``[T + K, T + K]`` of one sequence, from its whole maps."""
    rolled = None
    for one in outputs.attentions:
        mixed = one[row].to(torch.promote_types(one.dtype, torch.float32)).mean(dim=0)
        # What a residual connection keeps; rows of padding, which nothing reads, keep themselves.
        mixed = (mixed + torch.eye(len(mixed), dtype=mixed.dtype, device=mixed.device)) / 2
        rolled = mixed if rolled is None else mixed @ rolled
    return rolled


def _word_maps(maps: Tensor, pieces: list[list[int]], grid: tuple[int, int]) -> np.ndarray:
    """``[..., Q, T + K]`` -> ``[..., W, rows, columns]``: the mean over each word's pieces, at the pixels."""
    rows, columns = grid
    to_pixels = maps[..., maps.shape[-1] - rows * columns :]
    to_pixels = to_pixels.to(torch.promote_types(maps.dtype, torch.float32))
    words = torch.stack([to_pixels[..., own, :].mean(dim=-2) for own in pieces], dim=-2)
    return words.unflatten(-1, grid).float().cpu().numpy()
