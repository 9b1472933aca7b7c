"""Which statements come in a batch together: those that read the same images."""

from __future__ import annotations

from collections import deque
from itertools import islice

import numpy as np

from pixelbert_fast.errors import UserError


class SharedPairs:
    """Statements about pairs of images, to be listed so that a batch reads few images.

    sides: int64 `[P, 2]`, the images of each statement by row.
    """

    def __init__(self, sides: np.ndarray):
        if not len(sides):
            raise UserError("there are no statements about pairs of images; the split has none")
        # A unit is one pair of images, either way round, with all that is said of it.
        pairs, unit = np.unique(np.sort(sides, axis=1), axis=0, return_inverse=True)
        self._members = _lists(np.arange(len(sides)), unit.reshape(-1), len(pairs))
        self._images = pairs
        images = int(pairs.max()) + 1
        # Each unit twice: once below its one image, once below the other.
        self._units = _lists(np.tile(np.arange(len(pairs)), 2), pairs.T.reshape(-1), images)

    def batches(self, most: int, stream: np.random.Generator) -> list[np.ndarray]:
        """All statements by number, int64, in batches of `most`, only the last of them smaller.

        Each batch grows from a random pair of images to pairs that share an image with one it has, then from
        another random one, until it is full. What is said of one pair stays in one batch: where it does not
        fit any more, pairs about which less is said come first. Only a pair about which more is said than a
        batch holds is divided, and pairs of the last batches, which take what is left.
        """
        if most < 1:
            raise UserError(f"a batch must hold at least 1 statement, but its size is {most}")
        waiting = dict.fromkeys(stream.permutation(len(self._members)).tolist())
        order: list[int] = []
        while waiting:
            taken = self._grow(waiting, most - len(order) % most)
            if not taken:
                # Nothing is small enough: what comes next is divided.
                taken = [next(iter(waiting))]
                del waiting[taken[0]]
            for unit in taken:
                order.extend(self._members[unit])
        listed = np.array(order, dtype=np.int64)
        return [listed[start : start + most] for start in range(0, len(listed), most)]

    def _grow(self, waiting: dict[int, None], room: int) -> list[int]:
        """The units of the rest of a batch, taken out of `waiting`: at most `room` statements."""
        taken: list[int] = []
        frontier: deque[int] = deque()
        seeds = iter(list(islice(waiting, _SEEDS * room)))
        while room:
            unit = frontier.popleft() if frontier else next(seeds, None)
            if unit is None:
                break
            if unit not in waiting or len(self._members[unit]) > room:
                continue
            del waiting[unit]
            taken.append(unit)
            room -= len(self._members[unit])
            for image in self._images[unit].tolist():
                frontier.extend(other for other in self._units[image] if other in waiting)
        return taken


def _lists(values: np.ndarray, group: np.ndarray, groups: int) -> list[list[int]]:
    """The values of each group, in their order."""
    order = np.argsort(group, kind="stable")
    cuts = np.searchsorted(group[order], np.arange(1, groups))
    return [one.tolist() for one in np.split(values[order], cuts)]


# Pairs looked at for each statement that a batch has room for: where its last places are few, some have more
# statements than that.
_SEEDS = 4
