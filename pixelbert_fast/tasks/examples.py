"""What a trained model gets right and wrong, a few of each, with where it looked: material for reports."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelbert_fast.data.processor import PixelBertProcessor
from pixelbert_fast.data.records import BuiltSet, spread
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.pixelbert import PixelBertPreTrainedModel
from pixelbert_fast.tasks.attending import attention_maps

BLANK = "____"
"""What stands for a masked word."""

# Words that stand for nothing one could point at; of a set without word categories the others are shown.
_PLAIN = frozenset(
    word
    for line in (
        "the and are has have had was were been being this that these those there then than with without",
        "from into onto over under out off for not but both each either neither which what who whom whose",
        "where when why how does did can could will would shall should may might must its his her their our",
        "your you they she him them some any all many much more most other another one only very just also",
        "about image images picture photo left right top bottom above below between behind front near next",
    )
    for word in line.split()
)
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, eq=False)
class WordMap:
    """Where a word of a text looked.

    Attributes:
        word: as written.
        map: float32 ``[rows, columns]``, attention of the first layer, the mean over its heads.
        covers: (height, width) of the grid in heights and widths of the image: near 1, as windows may reach
            over the image's edge or leave a margin.
    """

    word: str
    map: np.ndarray
    covers: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of an example, encoded as it is stored: what it is, and whether it is the one meant."""

    image: bytes
    name: str
    note: str = ""
    right: bool | None = None
    maps: tuple[WordMap, ...] = ()


@dataclass(frozen=True, eq=False)
class Example:
    """One thing asked of the model.

    Attributes:
        text: the caption, question, statement or query.
        right: whether the model was.
        said: (answer, probability or None) as the model gave them, best first.
        truth: what is right, in words.
        sure: how sure the model was; of what it got wrong, the surest are shown.
        masked: the text as the model read it, with its mask token where `text` has `BLANK`: what is looked up
            in the image is that place, and not words.
    """

    text: str
    right: bool
    pictures: tuple[Picture, ...]
    said: tuple[tuple[str, float | None], ...]
    truth: str
    sure: float
    masked: str | None = None


@dataclass(frozen=True)
class Group:
    """Examples of one kind: `tried` were asked, of which `wrong` went wrong; a few of both are kept."""

    title: str
    about: str
    tried: int
    wrong: int
    examples: list[Example]


@dataclass(frozen=True)
class ExampleRequest:
    """How examples are sought.

    Attributes:
        images: of the split that are looked at, at most, spread over it.
        kept: right ones of each kind that are kept, and as many wrong ones.
        seconds: after which no more are asked; those asked by then count.
        text_only: the model is shown blank images.
        maps: whether the kept ones get their attention maps.
        device: where the model computes.
    """

    images: int = 48
    kept: int = 3
    seconds: float = 60.0
    text_only: bool = False
    maps: bool = True
    device: torch.device | str = "cpu"
    _began: float = field(default_factory=time.monotonic)

    @property
    def late(self) -> bool:
        """Whether `seconds` have passed since this was made."""
        return time.monotonic() - self._began > self.seconds


def read_image(image: bytes, processor: PixelBertProcessor, request: ExampleRequest) -> tuple[Tensor, Tensor]:
    """``pixel_values [1, 3, H, W]``, ``pixel_size [1, 2]`` of one image; zeros where the model sees none.

    Raises UserError for an image that cannot be decoded.
    """
    pixels = processor.image_processor.pixels(image)
    values = torch.zeros_like(pixels) if request.text_only else pixels
    size = torch.tensor([pixels.shape[-2:]], dtype=torch.int32)
    return values[None].to(request.device), size.to(request.device)


def gathered(
    title: str,
    about: str,
    found: Iterable[Example],
    model: PixelBertPreTrainedModel,
    processor: PixelBertProcessor,
    categories: Collection[str],
    request: ExampleRequest,
) -> Group:
    """A group of `found`: the surest of the wrong ones, and right ones evenly spread, with their maps.

    categories: the set's content words, lower case; empty where it names none.
    """
    every = list(found)
    right = [one for one in every if one.right]
    wrong = sorted((one for one in every if not one.right), key=lambda one: -one.sure)
    kept = [right[place] for place in spread(len(right), request.kept)] if right else []
    kept = wrong[: request.kept] + kept
    if request.maps and not request.text_only:
        kept = [_looked_up(one, model, processor, categories) for one in kept]
    return Group(title, about, len(every), len(wrong), kept)


def known_words(built: BuiltSet, texts: Iterable[str]) -> set[str]:
    """The words that stand for something seen, lower case: the set's list, else the texts' content words."""
    listed: Mapping[str, Sequence[str]] = built.card.get("word_categories") or {}
    return {word.lower() for words in listed.values() for word in words} or content_words(texts)


def content_words(texts: Iterable[str]) -> set[str]:
    """The words of texts but those that name nothing, lower case."""
    return {word for text in texts for word in _WORD.findall(text.lower())} - _PLAIN


def _looked_up(
    example: Example, model: Any, processor: PixelBertProcessor, categories: Collection[str]
) -> Example:
    text = example.text if example.masked is None else example.masked
    pictures = []
    for place, picture in enumerate(example.pictures):
        if picture.right is False and place:
            pictures.append(picture)  # of a ranking, only the first and the one that is meant
            continue
        try:
            maps = attention_maps(model, picture.image, text, processor=processor)
        except UserError:
            pictures.append(picture)  # too small, or no word in the text: shown without
            continue
        (height, width), (rows, columns) = maps.image_size, maps.grid
        covers = rows * maps.window / height, columns * maps.window / width
        first = maps.of(layer=0)
        if example.masked is None:
            places = _telling(maps.words, categories)
        else:
            mask = processor.tokenizer.mask_token.strip("[]<>")
            places = [place for place, word in enumerate(maps.words) if word == mask][:1]
        names = [BLANK if example.masked else maps.words[place] for place in places]
        own = tuple(WordMap(name, first[place], covers) for name, place in zip(names, places, strict=True))
        pictures.append(replace(picture, maps=own))
    return replace(example, pictures=tuple(pictures))


def _telling(words: Sequence[str], categories: Collection[str], most: int = 2) -> list[int]:
    """The last content words of a text, in its order: what its head nouns mostly are."""
    lower = [word.lower() for word in words]
    content = [place for place, word in enumerate(lower) if word in categories]
    content = [place for place in content if lower[place] not in _PLAIN] or content
    if not content:
        content = [place for place, word in enumerate(lower) if len(word) > 2 and word not in _PLAIN]
    chosen: list[int] = []
    for place in reversed(content):
        if lower[place] not in {lower[other] for other in chosen}:
            chosen.append(place)
    return sorted(chosen[:most])
