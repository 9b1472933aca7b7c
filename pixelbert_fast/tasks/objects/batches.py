"""Batches of single objects with what each is."""

import json
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pixelbert_fast.data import sampler
from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.errors import UserError

UNKNOWN = -100


class ObjectBatches:
    """Batches over one split of a set of single objects, whose scenes each hold one.

    attributes: the values of each attribute, in the order of the classes. A batch holds CPU tensors (its
    pixels are where the decoder leaves them): `pixel_values` float32 `[B, 3, H, W]`, `pixel_size` int32
    `[B, 2]`, `targets` int64 `[B, A]`, the class of each attribute in the order of `attributes`, -100 where
    the object has no such attribute or a value not listed, and `rows` int64 `[B]`, which images they are.

    Raises UserError when the split is empty, has no scenes, or an image does not show exactly one object.
    """

    def __init__(
        self,
        split,
        image_processor,
        attributes: Mapping[str, Sequence[str]],
        images_per_batch: int = 32,
        seed: int = 0,
        cache_megabytes: float = 1024,
        decoder: str | None = None,
        device: torch.device | str = "cpu",
        broken_limit: float = 0.01,
    ):
        if not len(split):
            raise UserError("the split of objects is empty; build the set with more images")
        if "scene" not in split.column_names:
            raise UserError("naming objects needs a set that says what its images show, one of -objects")
        numbers = {name: {value: i for i, value in enumerate(values)} for name, values in attributes.items()}
        targets = []
        for row, text in enumerate(split["scene"][:]):
            objects = json.loads(text)["objects"]
            if len(objects) != 1:
                raise UserError(f"image {row} shows {len(objects)} objects, not one; build a set of -objects")
            own = objects[0]["attributes"]
            targets.append([classes.get(own.get(name), UNKNOWN) for name, classes in numbers.items()])
        self._targets = torch.tensor(targets, dtype=torch.int64).reshape(len(split), len(attributes))
        self._images = DecodedImages(
            split,
            image_processor,
            cache_megabytes,
            decoder=decoder,
            device=device,
            broken_limit=broken_limit,
        )
        self._batch, self._seed = images_per_batch, seed

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def broken(self) -> int:
        """How many different images could not be decoded so far; others were shown in their place."""
        return self._images.broken

    def steps_per_epoch(self, world_size: int = 1, epoch: int = 0, start: int = 0) -> int:
        """How many batches each rank gets in an epoch; all epochs are alike."""
        return sampler.steps_per_epoch(len(self), self._batch, world_size, start)

    def epoch(
        self, epoch: int, rank: int = 0, world_size: int = 1, skip: int = 0, start: int = 0
    ) -> Iterator[dict[str, Tensor]]:
        """The batches of one rank in one epoch without the first `skip`: a function of seed and arguments.

        start: see `sampler.batches`.
        """
        mine = sampler.batches(len(self), self._batch, self._seed, epoch, rank, world_size, start)
        self._images.begin_epoch(mine.size)
        for rows in mine[skip:]:
            yield self._batch_of(*self._images.readable(rows, self._seed, epoch))

    def names(self, rows: Sequence[int]) -> list[str]:
        """The images of a batch's `rows` as messages call them."""
        return self._images.names(rows)

    def of(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The batch of exactly these rows; a broken image is one of the mean colour."""
        return self._batch_of(rows, *self._images.pixels(rows))

    def _batch_of(self, rows: Sequence[int], pixel_values: Tensor, pixel_size: Tensor) -> dict[str, Tensor]:
        numbers = torch.as_tensor(rows)
        return {
            "pixel_values": pixel_values,
            "pixel_size": pixel_size,
            "targets": self._targets[numbers],
            "rows": numbers,
        }
