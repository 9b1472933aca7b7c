"""A model's attention maps of the words of a split, scored against what the words name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from pixelbert_fast.data.processor import PixelBertProcessor
from pixelbert_fast.data.records import spread
from pixelbert_fast.data.resizing import target_size
from pixelbert_fast.data.truth import parse
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.pixelbert import PixelBertPreTrainedModel
from pixelbert_fast.tasks.attending import AttentionMaps, attention_maps_of_texts
from pixelbert_fast.tasks.grounding.captions import CaptionReader
from pixelbert_fast.tasks.grounding.cells import Grid, scaled
from pixelbert_fast.tasks.grounding.mentions import ATTRIBUTES
from pixelbert_fast.tasks.grounding.scores import hits, shares
from pixelbert_fast.tasks.grounding.targets import OtherTargets, Targets, Word

SCORES = ("pointing", "near", "mass", "other")
"""Of each map of each word: whether its maximum falls on the word's target; whether on a cell that the target
touches; the share of its attention to pixels that lies on the target; and whether its maximum falls on
another object of the image instead."""

MEASURES = (*SCORES, *(f"permuted_{score}" for score in SCORES[:3]), "to_pixels")
"""The same with the targets of other images; and the attention to pixels in all."""

ATTRIBUTE = "attribute"
"""The kind that the words of `mentions.ATTRIBUTES` are counted to as well."""


@dataclass(eq=False)
class Asked:
    """The words of so many images of a split, by image, and what could not be asked.

    Attributes:
        words: in order of their images, those of a caption together.
        images: how many, also those without words.
        captions: that were read.
        untrue, unread: captions that were not, see `captions.ReadCaptions`.
    """

    words: list[Word] = field(default_factory=list)
    images: int = 0
    captions: int = 0
    untrue: int = 0
    unread: int = 0

    @property
    def images_with_words(self) -> int:
        return len({word.image for word in self.words})


@dataclass(eq=False)
class Measured:
    """Sums over the words of each kind and image, for I images and C maps a word.

    Attributes:
        maps: (layer, head) of each map, from 0; head None: the mean of the heads; ("rollout", None).
        counts: int64 ``[I]`` by kind: words.
        sums: float64 ``[I, len(MEASURES), C]`` by kind.
        chance: float64 ``[I, len(SCORES)]`` by kind, sums too: the share of the cells that are the target's,
            that it touches, of the grid's area, and of the cells that are other objects'.
        cut: words that the model did not read, since the text was too long.
        alone: words without a permutation baseline: no other image has one of the kind. They are not counted.
        broken: images that could not be read.
    """

    maps: list[tuple[int | str, int | None]]
    counts: dict[str, np.ndarray]
    sums: dict[str, np.ndarray]
    chance: dict[str, np.ndarray]
    cut: int = 0
    alone: int = 0
    broken: int = 0


def ask(split, reader: CaptionReader, processor: PixelBertProcessor, model) -> Asked:
    """The words of every caption of the split's images with what they name on the model's grid."""
    asked, images = Asked(images=len(split)), processor.image_processor
    rule = images.short_side, images.long_side, images.size_divisor, images.least_side
    base = model.base_model
    for number, record in enumerate(split.remove_columns("image")):
        stored = record["height"], record["width"]
        read = target_size(*stored, *rule)
        rows, columns = (int(base.backbone.map_size(side)) // 2 for side in read)
        grid = Grid(rows, columns, 2 * base.config.output_stride, *read)
        found = reader(record)
        asked.captions += len(found.read)
        asked.untrue += found.untrue
        asked.unread += found.unread
        boxes = [scaled(thing["box"], stored, read) for thing in parse(record["scene"])["objects"]]
        targets = Targets(boxes, grid)
        asked.words += [
            Word(number, caption, mention, grid, targets.of(mention.objects))
            for caption, mentions in found.read
            for mention in mentions
        ]
    return asked


def measure(
    model: PixelBertPreTrainedModel,
    split,
    asked: Asked,
    processor: PixelBertProcessor,
    *,
    rollout: bool = True,
    blank: bool = False,
    done: Callable[[], None] = lambda: None,
) -> Measured:
    """Scores of every word's maps.

    Args:
        model: in evaluation mode.
        split, asked: see `ask`.
        rollout: whether attention rollout is scored beside layers and heads.
        blank: the model is shown images of the mean colour.
        done: called after each image that has words.

    Raises:
        UserError: no image can be read, with what is wrong with one; a model whose attention is not finite.
    """
    config = model.base_model.config
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    maps = [(layer, head) for layer in range(layers) for head in (*range(heads), None)]
    maps += [("rollout", None)] if rollout else []
    measured, others = Measured(maps, {}, {}, {}), OtherTargets(asked.words)
    reason = "they name nothing that words of other images name"
    for number, words in groupby(asked.words, key=lambda word: word.image):
        words = list(words)
        texts = list(dict.fromkeys(word.caption for word in words))
        image = _blank(split[number], processor) if blank else split[number]["image"]
        try:
            found = attention_maps_of_texts(model, image, texts, processor=processor, rollout=rollout)
        except UserError as error:
            measured.broken += 1
            reason = str(error)
            done()
            continue
        by_text = dict(zip(texts, found, strict=True))
        for word in words:
            own, beside = _maps_of(by_text[word.caption], word), others.of(word)
            measured.cut += own is None
            measured.alone += own is not None and beside is None
            if own is not None and beside is not None:
                _add(measured, asked.images, word, own, beside)
        done()
    if not measured.counts:
        raise UserError(f"no word of these images could be scored: {reason}")
    return measured


def _blank(record: dict[str, Any], processor: PixelBertProcessor) -> np.ndarray:
    mean = np.array(processor.image_processor.image_mean) * 255
    return np.full((record["height"], record["width"], 3), mean.round(), dtype=np.uint8)


def _maps_of(found: AttentionMaps, word: Word) -> np.ndarray | None:
    """float ``[C, N]``: the word's maps in the order of `Measured.maps`; None: the model did not read it."""
    start, end = word.mention.start, word.mention.end
    own = [place for place, (a, b) in enumerate(found.spans) if max(a, start) < min(b, end)]
    if not own:
        return None
    if found.grid != (word.grid.rows, word.grid.columns) or found.image_size != (
        word.grid.height,
        word.grid.width,
    ):
        raise ValueError(f"the grid is {found.grid} of {found.image_size}, expected {word.grid}")
    if not np.isfinite(found.maps).all():
        raise UserError(
            f"the model's attention is not finite on an image with the caption {found.text!r}: its weights"
            " are not, or are too large; evaluate another checkpoint"
        )
    heads = found.maps[:, :, own].mean(axis=2)
    every = np.concatenate([heads, heads.mean(axis=1, keepdims=True)], axis=1)
    every = every.reshape(-1, found.grid[0] * found.grid[1])
    if found.rollout is None:
        return every
    return np.concatenate([every, found.rollout[own].mean(axis=0).reshape(1, -1)])


def _add(measured: Measured, images: int, word: Word, maps: np.ndarray, beside: np.ndarray) -> None:
    permuted = _scores(maps, beside)[:3]
    found = np.stack([*_scores(maps, word.target), *permuted, maps.sum(-1, dtype=np.float64)])
    for kind in _kinds(word.mention.kind):
        if kind not in measured.counts:
            measured.counts[kind] = np.zeros(images, dtype=np.int64)
            measured.sums[kind] = np.zeros((images, *found.shape))
            measured.chance[kind] = np.zeros((images, len(SCORES)))
        measured.counts[kind][word.image] += 1
        measured.sums[kind][word.image] += found
        measured.chance[kind][word.image] += word.target.mean(axis=-1)


def _scores(maps: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """``[C]`` of each of SCORES, of maps ``[C, N]``; `target` as `Word.target`."""
    cells, touched, share, other = target
    return [hits(maps, cells), hits(maps, touched), shares(maps, share), hits(maps, other)]


def _kinds(kind: str) -> Iterator[str]:
    yield kind
    if kind in ATTRIBUTES:
        yield ATTRIBUTE


def chosen_rows(count: int, limit: int | None) -> Sequence[int]:
    """At most `limit` of `count` rows, spread evenly; None: all."""
    return range(count) if limit is None else spread(count, limit)
