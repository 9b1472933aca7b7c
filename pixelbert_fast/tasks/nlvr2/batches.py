"""The batches of NLVR2: statements about pairs of images, each image once however many statements read it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from pixelbert_fast.data import sampler
from pixelbert_fast.data.batch_list import in_runs
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.epochs import Epochs
from pixelbert_fast.tasks.nlvr2.sharing import SharedPairs
from pixelbert_fast.tasks.nlvr2.statements import UNKNOWN, Statements
from pixelbert_fast.tasks.sized_images import SizedImages


class PairBatches(Epochs):
    """Batches of the `PairBatch` contract over the statements of one split of a built set.

    CPU tensors, but `pixel_values` are where the decoder leaves them. A batch holds half as many statements
    as `training.images_per_batch`, so that its images are never more, and fewer only where none are left that
    may share it. With `data.batching` those share a batch of whose two images the larger height and the
    larger width are the same.

    A batch depends on the split, the tokenizer, the configuration, and (epoch, rank, world size, step) alone.
    `broken` counts the undecodable images met so far: another image stands in the place of one, and the
    statements that read it have no label.
    """

    def __init__(self, split, pairs, tokenizer, image_processor, config, device: torch.device | str = "cpu"):
        """split: the images. pairs: the statements about them (`BuiltSet.pairs`). config: the run's."""
        images = SizedImages(split, image_processor, config, device)
        super().__init__(images, config.training.images_per_batch, config.seed)
        self.statements = Statements(pairs, tokenizer, config.data.max_text_length)
        self._images.check_bounds(2 * self.statements.longest)
        self._shared = [
            (numbers, SharedPairs(self.statements.sides[numbers]), pixels, self._room(config, pixels))
            for numbers, pixels in self._classes()
        ]

    def _images_of(self, members: np.ndarray, shown: None) -> int:
        return len(np.unique(self.statements.sides[members]))

    def _batch(self, members: np.ndarray, epoch: int, shown: None = None) -> dict:
        """The batch of these statements by number."""
        rows, places = np.unique(self.statements.sides[members], return_inverse=True)
        places = places.reshape(-1, 2)
        found, pixels = self._images.readable(rows, epoch)
        # Nothing is known of a statement about an image that is not the one it was made for.
        labels = np.where((found != rows)[places].any(axis=1), UNKNOWN, self.statements.labels[members])
        return {
            **pixels,
            "image_index": torch.from_numpy(places.astype(np.int32)),
            **self.statements.words(members),
            "labels": torch.from_numpy(labels),
            # Epoch, statement and side, so that what the model draws depends on neither batch nor rank.
            "sample_keys": torch.from_numpy(epoch * 2**32 + 2 * members[:, None] + np.arange(2)),
            "rows": torch.from_numpy(found),
        }

    def _classes(self) -> Iterator[tuple[np.ndarray, int]]:
        """(statements that may share a batch, the pixels of an image in it), of all statements."""
        plan = self._images.plan
        if plan is None:
            yield np.arange(len(self.statements)), 0
            return
        canvas = plan.buckets[plan.bucket][self.statements.sides].max(axis=1)
        sizes, own = np.unique(canvas, axis=0, return_inverse=True)
        for number, size in enumerate(sizes):
            yield np.flatnonzero(own.reshape(-1) == number), int(size.prod())

    def _room(self, config, pixels: int) -> int:
        """Statements that a batch holds at most. Raises UserError where that is none."""
        most, batching = config.training.images_per_batch, self._images.batching
        if batching and batching.pixels:
            most = min(most, batching.pixels // pixels)
        if batching and batching.tokens:
            most = min(most, batching.tokens // self.statements.longest)
        if most < 2:
            raise UserError(
                "a statement is about two images, and a batch may hold one (training.images_per_batch, "
                "data.batching.pixels): raise what bounds it to at least two"
            )
        return most // 2

    def _plan_anew(self, epoch: int) -> tuple[None, list[np.ndarray]]:
        """An epoch shows every statement: its batches say all."""
        stream = sampler.random_stream(self._seed, epoch, _ORDER)
        lists, cost = [], []
        for numbers, shared, pixels, room in self._shared:
            lists.append([numbers[one] for one in shared.batches(room, stream)])
            cost += [len(one) * pixels for one in lists[-1]]
        alike = self._images.batching.alike if self._images.batching else 1
        order = in_runs([len(one) for one in lists], np.array(cost), alike, stream)
        every = [one for own in lists for one in own]
        return None, [every[number] for number in order]


# The name of this file's random stream (see `sampler.random_stream`).
_ORDER = 51
