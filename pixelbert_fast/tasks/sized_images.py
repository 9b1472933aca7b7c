"""The images of a split in batches: sizes by a plan where batches are of one size each, pixels or blanks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pixelbert_fast.data.batch_list import Batching, BatchList, check_bounds, list_batches
from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.data.sizes import SizePlan, plan_sizes


class SizedImages:
    """Images of a split by row, as batches of a task hold them.

    split: rows with `image`, `height`, `width` and maybe `key`. config: the run's, whose `data`,
    `training.images_per_batch` and `start.text_only` count: with `data.batching` images have the sizes of a
    plan, without it each its own. device: what images are decoded for.

    Attributes:
        plan: the size plan, None without `data.batching`.
        broken: how many different images could not be decoded so far.
    """

    def __init__(self, split, image_processor, config, device: torch.device | str = "cpu"):
        data = config.data
        self._blank, self._seed = config.start.text_only, config.seed
        self._images_per_batch = config.training.images_per_batch
        self.batching = Batching(**data.batching.model_dump()) if data.batching else None
        self.plan: SizePlan | None = None
        if self.batching:
            recorded = split.select_columns(["height", "width"]).with_format("numpy")[:]
            self.plan = plan_sizes(
                recorded["height"].astype(np.int32),
                recorded["width"].astype(np.int32),
                image_processor.short_side,
                image_processor.long_side,
                image_processor.size_divisor,
                buckets=self.batching.buckets,
                aspect_change=self.batching.aspect_change,
                fewest=self._images_per_batch,
                least_side=image_processor.least_side,
            )
        columns = [name for name in ("image", "height", "width", "key") if name in split.column_names]
        self._images = DecodedImages(
            split.select_columns(columns),
            image_processor,
            plan=self.plan,
            decoder=data.decoder,
            device=device,
            broken_limit=data.broken_limit,
        )

    @property
    def broken(self) -> int:
        return self._images.broken

    def names(self, rows: Sequence[int]) -> list[str]:
        """The images of `rows` as messages call them."""
        return self._images.names(rows)

    def begin_epoch(self, shown: int) -> None:
        """Start to count what is broken among the `shown` images of an epoch."""
        self._images.begin_epoch(shown)

    def check_bounds(self, tokens: int) -> None:
        """Raises UserError where the largest image, or `tokens`, are beyond what `data.batching` allows."""
        if self.batching:
            largest = int(self.plan.buckets.astype(np.int64).prod(axis=1).max())
            check_bounds(self.batching, largest, tokens)

    def listed(
        self, row: np.ndarray, epoch: int, longest: np.ndarray | None, sequences: int
    ) -> BatchList | None:
        """The batches of an epoch that shows the images `row`; None without a size plan.

        longest, sequences: the tokens of the longest text beside each, and how many texts come with one.
        """
        if self.plan is None:
            return None
        return list_batches(
            self.plan.group[row],
            np.repeat(self.plan.buckets.astype(np.int64).prod(axis=1), 2),
            self._images_per_batch,
            self.batching,
            self._seed,
            epoch,
            longest,
            sequences,
        )

    def readable(
        self, rows: np.ndarray, epoch: int, among: Callable[[], np.ndarray] | None = None
    ) -> tuple[np.ndarray, dict[str, Tensor]]:
        """(rows, what a batch holds of their images): another in the place of each that is broken.

        among: as `DecodedImages.readable`.
        """
        if self._blank:
            return rows, self._padded(int(rows[0]), *self._images.blank(rows))
        found, pixel_values, pixel_size = self._images.readable(rows, self._seed, epoch, among)
        return found, self._padded(int(rows[0]), pixel_values, pixel_size)

    def _padded(self, row: int, pixel_values: Tensor, pixel_size: Tensor) -> dict[str, Tensor]:
        """Padded to the size of the batches that image `row` comes in."""
        if self.plan is None:
            return {"pixel_values": pixel_values, "pixel_size": pixel_size}
        # Only where no image of the group can be decoded, one of another may be larger.
        height, width = map(max, self.plan.canvas(row), pixel_values.shape[2:])
        missing = (0, width - pixel_values.shape[3], 0, height - pixel_values.shape[2])
        pixel_values = torch.nn.functional.pad(pixel_values, missing) if any(missing) else pixel_values
        if (pixel_size == torch.tensor([height, width])).all():
            return {"pixel_values": pixel_values}
        return {"pixel_values": pixel_values, "pixel_size": pixel_size}
