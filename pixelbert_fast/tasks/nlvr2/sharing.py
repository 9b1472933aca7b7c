"""Which statements come in a batch together: those that read the same images."""

from __future__ import annotations

from itertools import islice

import numpy as np

from pixelbert_fast.errors import UserError


class SharedPairs:
    """Statements about pairs of images, to be listed so that a batch reads few images.

    left, right: int64 `[P]`, the images of each statement by row.
    """

    def __init__(self, left: np.ndarray, right: np.ndarray):
        if not len(left):
            raise UserError("there are no statements about pairs of images; the split has none")
        rows = np.stack([left, right], axis=1).astype(np.int64)
        self.statements = len(rows)
        # A unit is one pair of images, either way round, with all that is said of it.
        pairs, unit = np.unique(np.sort(rows, axis=1), axis=0, return_inverse=True)
        self._members = _lists(np.arange(len(rows)), unit.reshape(-1), len(pairs))
        self._images = pairs
        images = int(pairs.max()) + 1
        # Each unit twice, once below either image.
        self._units = _lists(np.tile(np.arange(len(pairs)), 2), pairs.T.reshape(-1), images)

    def order(self, batch: int, stream: np.random.Generator) -> np.ndarray:
        """All statements, int64 `[P]`, to be cut into batches of `batch`, the last of them smaller.

        Each batch grows from a random pair of images to pairs that share an image with one it has, then from
        another random one, until it is full. What is said of one pair stays in one batch: where it does not
        fit any more, pairs about which less is said come first. Only a pair about which more is said than a
        batch holds is divided, and the last batches, which take what is left.
        """
        if batch < 1:
            raise UserError(f"a batch must hold at least 1 statement, but its size is {batch}")
        waiting = dict.fromkeys(stream.permutation(len(self._members)).tolist())
        order: list[int] = []
        while waiting:
            room = batch - len(order) % batch
            taken = self._grow(waiting, room)
            if not taken:
                # Nothing is small enough: what comes next is divided.
                taken = [next(iter(waiting))]
                del waiting[taken[0]]
            for unit in taken:
                order.extend(self._members[unit])
        listed = np.array(order, dtype=np.int64)
        # Those made first found the most to share; the model must not meet them first in every epoch.
        full = len(listed) // batch
        batches = listed[: full * batch].reshape(full, batch)[stream.permutation(full)]
        return np.concatenate([batches.reshape(-1), listed[full * batch :]])

    def _grow(self, waiting: dict[int, None], room: int) -> list[int]:
        """The units of the rest of a batch, taken out of `waiting`: at most `room` statements."""
        taken: list[int] = []
        frontier: list[int] = []
        seeds = iter(list(islice(waiting, _SEEDS * room)))
        while room:
            unit = frontier.pop() if frontier else next(seeds, None)
            if unit is None:
                break
            if unit not in waiting or len(self._members[unit]) > room:
                continue
            del waiting[unit]
            taken.append(unit)
            room -= len(self._members[unit])
            near = [other for image in self._images[unit].tolist() for other in self._units[image]]
            frontier = [other for other in near if other in waiting] + frontier
        return taken


def _lists(values: np.ndarray, group: np.ndarray, groups: int) -> list[list[int]]:
    """The values of each group, in their order."""
    order = np.argsort(group, kind="stable")
    cuts = np.searchsorted(group[order], np.arange(1, groups))
    return [one.tolist() for one in np.split(values[order], cuts)]


# Pairs looked at to fill one statement's room: in the official set four pairs in five have one or two.
_SEEDS = 4
