"""The words of a split with what they name on the grid, and what words of the same slot name elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pixelbert_fast.tasks.grounding.cells import Box, Grid, target_of, without
from pixelbert_fast.tasks.grounding.mentions import Mention

PARTS = ("cells", "touched", "share", "other")
"""What a word's target holds, in order: see `cells.Target`; and the cells of the image's other objects."""


@dataclass(frozen=True, eq=False)
class Word:
    """A word of a caption of image `image`, and what it names.

    target: float64 ``[len(PARTS), N]`` of the N cells of the grid.
    """

    image: int
    caption: str
    mention: Mention
    grid: Grid
    target: np.ndarray


@dataclass(eq=False)
class _Sums:
    """Of the words of a slot: how many, and the sums of their targets, in all and by image."""

    count: int = 0
    total: np.ndarray | int = 0
    own: dict[int, tuple[int, np.ndarray | int]] = field(default_factory=dict)


class OtherTargets:
    """What words of the same slot name in other images: the permutation baseline, over all permutations.

    A map that only knows where things usually lie hits these as often as its own target.
    """

    def __init__(self, words: Iterable[Word]):
        self._slots: dict[tuple, _Sums] = {}
        for word in words:
            for slot in _slots(word):
                sums = self._slots.setdefault(slot, _Sums())
                sums.count += 1
                sums.total = sums.total + word.target
                count, total = sums.own.get(word.image, (0, 0))
                sums.own[word.image] = count + 1, total + word.target

    def of(self, word: Word) -> np.ndarray | None:
        """The mean target, as `Word.target`, over the words of its slot in other images.

        Where no other image has the slot, over its kind's; None where none has that on the same grid.
        """
        for slot in _slots(word):
            sums = self._slots[slot]
            count, total = sums.own[word.image]
            if sums.count > count:
                # Counts of cells come out whole; of sums of shares rounding may leave less than nothing.
                return np.maximum(sums.total - total, 0) / (sums.count - count)
        return None


class Targets:
    """The targets of an image's words on its grid, each computed once.

    boxes: of all the objects of the image, in pixels of the image as the model reads it.
    """

    def __init__(self, boxes: Sequence[Box], grid: Grid):
        self._boxes, self._grid = boxes, grid
        self._found: dict[frozenset[int], np.ndarray] = {}

    def of(self, objects: frozenset[int]) -> np.ndarray:
        """As `Word.target`, of the objects of these numbers, or of the ground (see `Mention.objects`)."""
        if objects not in self._found:
            every = target_of(self._boxes, self._grid)
            if objects:
                target = target_of([self._boxes[number] for number in sorted(objects)], self._grid)
                other = every.cells & ~target.cells
            else:
                target, other = without(every), np.zeros_like(every.cells)
            parts = (target.cells, target.touched, target.share, other)
            self._found[objects] = np.stack([part.ravel().astype(np.float64) for part in parts])
        return self._found[objects]


def _slots(word: Word) -> tuple[tuple, tuple]:
    return (word.grid, word.mention.slot), (word.grid, word.mention.kind)
