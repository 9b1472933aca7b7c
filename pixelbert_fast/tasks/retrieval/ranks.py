"""Recall at k from the full matrix of scores, both ways, by ranks that give a tie no benefit.

A rank is the number of wrong candidates that score at least as much as the right one, so 0 is the best. Where
one scores exactly as much the rank is the worst of those it could be, and the query is counted: a model that
gives every pair the same score has recall 0, and figures that lose anything to ties show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

AT = (1, 5, 10)
_BLOCK = 1 << 24
"""Scores looked at together: 64 MB in float32."""


@dataclass(frozen=True)
class Ranks:
    """Ranks from 0, and which queries had a wrong candidate tied with the right one.

    Attributes:
        of_images: ``[texts]`` int64, where each text finds its image.
        of_texts: ``[images]`` int64, where each image finds the best of its texts.
        texts_tied, images_tied: bool, likewise.
    """

    of_images: np.ndarray
    of_texts: np.ndarray
    texts_tied: np.ndarray
    images_tied: np.ndarray

    @property
    def tied_texts(self) -> int:
        return int(self.texts_tied.sum())

    @property
    def tied_images(self) -> int:
        return int(self.images_tied.sum())

    def among(self, images: np.ndarray, image_of_text: np.ndarray) -> Ranks:
        """Of some queries: the images that are True in bool ``[images]``, and their texts.

        What they were ranked among stays all.
        """
        texts = images[image_of_text]
        return Ranks(
            self.of_images[texts], self.of_texts[images], self.texts_tied[texts], self.images_tied[images]
        )

    def recalls(self) -> dict[str, float]:
        """``tr_r1 .. tr_r10`` (image to text), ``ir_r1 .. ir_r10`` (text to image), in 0..1."""
        ways = {"tr": self.of_texts, "ir": self.of_images}
        return {f"{way}_r{k}": float((ranks < k).mean()) for way, ranks in ways.items() for k in AT}

    def figures(self) -> dict[str, float]:
        """`recalls`, and the share of queries that were ranked behind a tie: ``tr_ties``, ``ir_ties``."""
        return {
            **self.recalls(),
            "tr_ties": self.tied_images / len(self.of_texts),
            "ir_ties": self.tied_texts / len(self.of_images),
        }


def ranks(
    scores: np.ndarray, image_of_text: np.ndarray, *, images: range | None = None, block: int = _BLOCK
) -> Ranks:
    """Ranks every text for each image and every image for each text.

    Args:
        scores: ``[N, M]`` floating-point, of N texts and M images; a memory-mapped array is read by blocks.
        image_of_text: ``[N]`` integers, the image that each text belongs to. Every image needs a text.
        images: rank within these images and their texts alone.
        block: how many scores are held at once.

    Raises:
        ValueError: sizes that do not fit together, an image without a text, a score that is NaN.
    """
    rows, columns, owner = _chosen(scores, image_of_text, images)
    count = len(columns)
    best = np.full(count, -np.inf, dtype=scores.dtype)
    own = np.empty(len(rows), dtype=scores.dtype)
    of_images = np.empty(len(rows), dtype=np.int64)
    texts_tied = np.zeros(len(rows), dtype=bool)
    for place, part in _blocks(scores, rows, columns, block):
        if np.isnan(part).any():
            text, image = (int(index[0]) for index in np.isnan(part).nonzero())
            raise ValueError(
                f"the score of text {rows[place.start + text]} and image {columns[image]} is NaN: "
                "the matrix is not finished, or the model has diverged"
            )
        right = part[np.arange(len(part)), owner[place]]
        own[place] = right
        np.maximum.at(best, owner[place], right)
        of_images[place] = (part >= right[:, None]).sum(axis=1) - 1
        texts_tied[place] = (part == right[:, None]).sum(axis=1) > 1
    above = np.zeros(count, dtype=np.int64)
    level = np.zeros(count, dtype=np.int64)
    for _, part in _blocks(scores, rows, columns, block):
        above += (part >= best).sum(axis=0)
        level += (part == best).sum(axis=0)
    # An image's own texts are no wrong candidates; only those level with the best of them were counted.
    own_level = np.bincount(owner[own == best[owner]], minlength=count)
    return Ranks(of_images, above - own_level, texts_tied, level > own_level)


def fold_figures(scores: np.ndarray, image_of_text: np.ndarray, *, folds: int = 5) -> dict[str, float]:
    """The mean of `Ranks.figures` over equal slices of the images with their texts: COCO's 1K of its 5K.

    Raises:
        ValueError: as `ranks`, or the images do not divide into so many folds.
    """
    total = scores.shape[1]
    if folds < 1 or total % folds or not total:
        raise ValueError(f"{total} images do not divide into {folds} equal folds")
    size = total // folds
    each = [
        ranks(scores, image_of_text, images=range(start, start + size)).figures()
        for start in range(0, total, size)
    ]
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def _chosen(
    scores: np.ndarray, image_of_text: Sequence[int] | np.ndarray, images: range | None
) -> tuple[np.ndarray, range, np.ndarray]:
    """The rows and columns to look at, and the column (from 0) that each row belongs to."""
    image_of_text = np.asarray(image_of_text)
    if scores.ndim != 2 or not np.issubdtype(scores.dtype, np.floating):
        raise ValueError(f"scores must be floating-point [texts, images], got {scores.dtype} {scores.shape}")
    if image_of_text.shape != scores.shape[:1] or not np.issubdtype(image_of_text.dtype, np.integer):
        raise ValueError(
            f"image_of_text must be {scores.shape[0]} integers, one for each text, got {image_of_text.dtype} "
            f"{image_of_text.shape}"
        )
    total = scores.shape[1]
    columns = range(total) if images is None else images
    if not len(columns) or columns.step != 1 or columns[0] < 0 or columns[-1] >= total:
        raise ValueError(f"images must be a range within the {total} there are, got {columns}")
    if len(image_of_text) and (image_of_text.min() < 0 or image_of_text.max() >= total):
        raise ValueError(f"image_of_text must name images 0 .. {total - 1}")
    rows = np.flatnonzero((image_of_text >= columns[0]) & (image_of_text <= columns[-1]))
    owner = image_of_text[rows] - columns[0]
    lacking = np.flatnonzero(np.bincount(owner, minlength=len(columns)) == 0)
    if len(lacking):
        raise ValueError(f"image {columns[int(lacking[0])]} has no text, so it has no rank: leave it out")
    return rows, columns, owner


def _blocks(scores: np.ndarray, rows: np.ndarray, columns: range, block: int):
    """Slices of `rows` with their part of the matrix."""
    step = max(block // len(columns), 1)
    for start in range(0, len(rows), step):
        place = slice(start, min(start + step, len(rows)))
        chosen = rows[place]
        # Neighbouring rows are a slice, which copies nothing.
        apart = chosen[-1] - chosen[0] + 1 != len(chosen)
        taken = chosen if apart else slice(int(chosen[0]), int(chosen[-1]) + 1)
        yield place, np.asarray(scores[taken, columns.start : columns.stop])
