"""The batches of NLVR2: statements about pairs of images, each image once however many statements read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelbert_fast.data import sampler
from pixelbert_fast.data.captions import TokenisedCaptions, lengths_mask
from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.tasks.nlvr2.sharing import SharedPairs

UNKNOWN = -100
"""The label of a statement whose truth is unknown, or one of whose images cannot be decoded."""


@dataclass(frozen=True)
class PairOptions:
    """How batches of statements are made; names and meanings as in the configuration.

    images_per_batch: at most; half as many statements are in a batch, fewer only in the last of an epoch's
    list. text_only replaces every image by zeros. decoder, device, broken_limit: see `DecodedImages`.
    """

    images_per_batch: int = 32
    max_text_length: int = 40
    text_only: bool = False
    seed: int = 0
    cache_megabytes: float = 1024
    decoder: str | None = None
    device: torch.device | str = "cpu"
    broken_limit: float = 0.01

    @property
    def statements(self) -> int:
        """Of a batch."""
        return max(self.images_per_batch // 2, 1)


class PairBatches:
    """Batches of the `PairBatch` contract over the statements of one split of a built set.

    CPU tensors, but `pixel_values` are where the decoder leaves them.

    A batch depends on the split, the tokenizer, the options, and (epoch, rank, world size, step) alone.
    `truncated` counts the statements that exceed `max_text_length`, `broken` the undecodable images met so
    far: another image stands in the place of one, and the statements that read it have no label.
    """

    def __init__(self, split, pairs, tokenizer, image_processor, options: PairOptions):
        """split: the images. pairs: the statements about them (`BuiltSet.pairs`), of which `label` may be
        null."""
        columns = pairs.select_columns(["left", "right"]).with_format("numpy")[:]
        self.options = options
        self.sides = np.stack([columns["left"], columns["right"]], axis=1).astype(np.int64)
        self.labels = np.array(
            [UNKNOWN if label is None else int(label) for label in pairs["label"][:]], dtype=np.int64
        )
        self._shared = SharedPairs(self.sides[:, 0], self.sides[:, 1])
        texts = [[text] for text in pairs["statement"][:]]
        self._texts = TokenisedCaptions(texts, tokenizer, options.max_text_length)
        self._images = DecodedImages(
            split,
            image_processor,
            options.cache_megabytes,
            decoder=options.decoder,
            device=options.device,
            broken_limit=options.broken_limit,
        )
        self._ordered: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """How many statements there are."""
        return len(self.labels)

    @property
    def truncated(self) -> int:
        return self._texts.truncated

    @property
    def broken(self) -> int:
        return self._images.broken

    def names(self, rows: Sequence[int]) -> list[str]:
        """The images of a batch's `rows` as messages call them."""
        return self._images.names(rows)

    def steps_per_epoch(self, world_size: int = 1, start: int = 0) -> int:
        """How many batches each rank gets in an epoch, see `sampler.batches`."""
        return sampler.steps_per_epoch(len(self), self.options.statements, world_size, start)

    def epoch(
        self, epoch: int, rank: int = 0, world_size: int = 1, skip: int = 0, start: int = 0
    ) -> Iterator[dict]:
        """The batches of one rank in one epoch, without the first `skip`, which cost nothing.

        start: how many batches of all ranks together had been shown, of this epoch, when the run went on with
        `world_size` ranks; the steps are counted from there.
        """
        order, size = self._order(epoch), self.options.statements
        steps = self.steps_per_epoch(world_size, start)
        first = start * size
        listed = np.resize(order, first + steps * world_size * size)[first:]
        mine = listed.reshape(steps, world_size, size)[:, rank]
        self._images.begin_epoch(sum(len(np.unique(self.sides[members])) for members in mine))
        for members in mine[skip:]:
            yield self.of(members, epoch)

    def of(self, members: np.ndarray, epoch: int = 0) -> dict:
        """The batch of these statements by number."""
        rows, places = np.unique(self.sides[members], return_inverse=True)
        places = places.reshape(-1, 2)
        labels = self.labels[members]
        if self.options.text_only:
            pixel_values, pixel_size = self._images.blank(rows)
        else:
            found, pixel_values, pixel_size = self._images.readable(rows, self.options.seed, epoch)
            # Nothing is known of a statement about an image that is not the one it was made for.
            labels = np.where((found != rows)[places].any(axis=1), UNKNOWN, labels)
            rows = found
        return {
            "pixel_values": pixel_values,
            "pixel_size": pixel_size,
            "image_index": torch.from_numpy(places.astype(np.int32)),
            **self._words(members),
            "labels": torch.from_numpy(labels),
            # Epoch, statement and side, so that what the model draws depends on neither batch nor rank.
            "sample_keys": torch.from_numpy(epoch * 2**32 + 2 * members[:, None] + np.arange(2)),
            "rows": torch.from_numpy(rows),
        }

    def _words(self, members: np.ndarray) -> dict[str, Tensor]:
        texts = [self._texts.ids(int(member), 0) for member in members]
        ids = self._texts.pad(texts)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(lengths_mask(texts, ids.shape[1])),
        }

    def _order(self, epoch: int) -> np.ndarray:
        """The epoch's list of statements; that of the epoch asked for last is kept."""
        if self._ordered is None or self._ordered[0] != epoch:
            stream = sampler.random_stream(self.options.seed, epoch, _ORDER)
            self._ordered = epoch, self._shared.order(self.options.statements, stream)
        return self._ordered[1]


# The name of this file's random stream (see `sampler.random_stream`).
_ORDER = 51
