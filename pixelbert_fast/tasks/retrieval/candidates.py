"""The images and texts that are ranked for each other: those of a split, or some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pixelbert_fast.data.captions import CaptionTexts, TokenisedCaptions, caption_column
from pixelbert_fast.data.records import NO_RETRIEVAL_CAPTION
from pixelbert_fast.errors import UserError

Captions = Literal["distinct", "all"]
"""Which captions are meant: of a set that marks one of each image's as true of no other image of its split,
"distinct" are these alone; of another set, and with "all", they are all."""


@dataclass(frozen=True)
class Candidates:
    """Texts and images by number.

    Attributes:
        rows: int64 ``[M]``, the row of the split of each image.
        texts: the word pieces of each text, ``[CLS]`` and ``[SEP]`` included; N arrays of int64.
        image_of_text: int64 ``[N]``, the image, from 0, that each text belongs to.
        captions: the text of each.
        truncated: how many of them were cut.
        there: how many images of the split have captions of the kind meant; M is less where a limit is set.
    """

    rows: np.ndarray
    texts: list[np.ndarray]
    image_of_text: np.ndarray
    captions: list[str]
    truncated: int
    there: int


def caption_numbers(split, captions: Captions, counts: np.ndarray) -> list[np.ndarray]:
    """Which of each image's captions are meant, `counts` ``[N]`` being how many it has."""
    if captions == "distinct" and "retrieval_caption" in split.column_names:
        marked = np.asarray(split["retrieval_caption"][:], dtype=np.int64)
        if (marked != NO_RETRIEVAL_CAPTION).any():
            return [np.array([one]) if one != NO_RETRIEVAL_CAPTION else np.arange(0) for one in marked]
    return [np.arange(count) for count in counts]


def images_asked(split, captions: Captions = "distinct") -> np.ndarray:
    """int64, ascending: the rows of the images that have captions of the kind meant."""
    numbers = caption_numbers(split, captions, CaptionTexts(caption_column(split)).counts)
    return np.array([row for row, own in enumerate(numbers) if len(own)], dtype=np.int64)


def candidates(
    split, tokenizer, max_text_length: int, *, captions: Captions = "distinct", limit: int | None = None
) -> Candidates:
    """The images of a split that have captions of the kind meant, with these.

    limit: at most so many images, the first ones: slices of the field's 5K are made so.

    Raises UserError where no image has any.
    """
    texts = CaptionTexts(caption_column(split))
    numbers = caption_numbers(split, captions, texts.counts)
    every = np.array([row for row, own in enumerate(numbers) if len(own)], dtype=np.int64)
    rows = every[:limit]
    if not len(rows):
        raise UserError("the split has no image with a caption to be found by; build the set again")
    tokenised = TokenisedCaptions(texts, tokenizer, max_text_length)
    pairs = [(image, int(row), int(number)) for image, row in enumerate(rows) for number in numbers[row]]
    distinct = texts.distinct
    cut = tokenised.cut(*(np.array(column) for column in list(zip(*pairs, strict=True))[1:]))
    return Candidates(
        rows,
        [tokenised.ids(row, number) for _, row, number in pairs],
        np.array([image for image, _, _ in pairs], dtype=np.int64),
        [distinct[int(texts.text[texts.starts[row] + number])].as_py() for _, row, number in pairs],
        int(cut.sum()),
        len(every),
    )
