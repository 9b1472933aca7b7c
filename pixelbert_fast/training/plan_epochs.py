"""How much an epoch shows: of the built sets where they are there, else of the published ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from pixelbert_fast.training.config import RunConfig

# Images and texts of the training split as published; Visual Genome's by ViLT (arXiv 2102.03334), table 1.
PUBLISHED = {
    "coco": (113_287, 567_000),
    "flickr30k": (29_000, 145_000),
    "visual-genome": (108_077, 5_410_000),
    "vqa2": (82_783, 443_757),
}


class SetSize(NamedTuple):
    """A set of the run.

    Attributes:
        directory, weight: the configuration's.
        source: "built", "published" or "unknown".
        images, texts: of its training split; None: unknown. Of nlvr2 the texts are its statements.
        showings: images that an epoch shows, an image several times if so; of nlvr2 two for each statement,
            though those that share an image read it once; None: unknown.
    """

    directory: str
    weight: float
    source: str
    images: int | None
    texts: int | None
    showings: float | None


def set_sizes(config: RunConfig) -> list[SetSize]:
    """Every set that is trained on. Reads the cards, and the lengths of the lists of captions, no more."""
    data = config.data
    if data.sets:
        named = [(one.directory, one.weight, one.built_by) for one in data.sets if one.weight]
    else:
        named = [(data.directory, 1.0, data.build.name if data.build else None)]
    return [_size(config, *one) for one in named]


def _size(config: RunConfig, directory: str, weight: float, built_by: str | None) -> SetSize:
    """built_by: words that begin with the builder's name."""
    epoch = config.retrieval.epoch if config.task == "retrieval" else config.data.epoch
    by_captions = config.task == "vqa" or (epoch == "captions" and config.task in ("pretrain", "retrieval"))
    matched = captions_of_a_showing(config)[0]
    if config.task == "nlvr2":
        return _of_pairs(directory, weight)
    if Path(directory, "card.json").is_file():
        counts = _texts(directory, config)
        images, texts = len(counts), int(sum(counts))
        shown = sum(-(-count // matched) for count in counts) if by_captions else images
        return SetSize(directory, weight, "built", images, texts, weight * shown)
    name = (built_by or "").partition(" ")[0]
    if name not in PUBLISHED:
        return SetSize(directory, weight, "unknown", None, None, None)
    images, texts = PUBLISHED[name]
    # An image with so many texts on average leaves (matched - 1) / 2 places of its last showing free.
    shown = texts / matched + images * (matched - 1) / (2 * matched) if by_captions else images
    return SetSize(directory, weight, "published", images, texts, weight * shown)


def _of_pairs(directory: str, weight: float) -> SetSize:
    from pixelbert_fast.data.records import open_set

    if not Path(directory, "card.json").is_file():
        return SetSize(directory, weight, "unknown", None, None, None)
    built = open_set(directory)
    images, statements = len(built.split("train")), len(built.pairs("train"))
    return SetSize(directory, weight, "built", images, statements, 2 * statements)


def _texts(directory: str, config: RunConfig) -> list[int]:
    """How many captions or questions each training image has that are trained on."""
    import numpy as np
    import pyarrow.compute as pc

    from pixelbert_fast.data.records import open_set

    split = open_set(directory).split("train")
    column = split.data.column("questions" if config.task == "vqa" else "captions")
    counts = [int(count or 0) for count in pc.list_value_length(column).to_pylist()]
    if config.task != "retrieval":
        return counts
    from pixelbert_fast.tasks.retrieval.candidates import caption_numbers

    meant = caption_numbers(split, config.retrieval.train_captions, np.array(counts))
    return [len(own) for own in meant if len(own)]


def captions_of_a_showing(config: RunConfig) -> tuple[int, int]:
    """How many matched and mismatched texts an image is shown with, at most."""
    from pixelbert_fast.tasks.pretraining.matching import share_out

    if config.task == "objects":
        return 0, 0
    if config.task == "nlvr2":
        return 1, 0  # a statement with either of its images
    if config.task == "retrieval":
        return 1, 0  # the wrong ones are no showings
    if config.task != "pretrain":
        return config.data.captions_per_image, 0
    return share_out(
        config.data.captions_per_image, config.data.mismatched_share if config.objectives.itm else 0.0
    )


def images_of_a_batch(config: RunConfig) -> int:
    """At most; of statements about two images, those of whole pairs."""
    images = config.training.images_per_batch
    return max(images // 2, 1) * 2 if config.task == "nlvr2" else images


def steps(showings: float, images_per_batch: int, world: int, accumulation: int) -> float:
    """Updates an epoch."""
    return math.ceil(math.ceil(showings / images_per_batch) / world) / accumulation
