"""Images of a split as model input: decoded once, kept as bytes, normalised a whole batch at a time."""

import logging
from collections.abc import Sequence

import numpy as np
import torch

from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.data.resizing import resize, target_size
from pixelbert_fast.data.sizes import SizePlan, target_sizes
from pixelbert_fast.data.stored_bytes import StoredBytes
from pixelbert_fast.errors import UserError

logger = logging.getLogger(__name__)


class DecodedImages:
    """Images of a split by row number, at the size and in the normalisation of an image processor.

    split: rows with `image` (encoded bytes), `height` and `width`. image_processor: gives short_side,
    long_side, size_divisor, image_mean and image_std. Decoded images are kept, uint8 `[h, w, 3]`, until
    `cache_megabytes` are full; then no more are added: in shuffled epochs throwing one out to keep another
    would gain nothing. plan: the sizes, in place of the rule's.

    An image that cannot be decoded is replaced by one of the mean colour and its recorded size, and counted
    in `broken`.
    """

    def __init__(self, split, image_processor, cache_megabytes: float = 1024, plan: SizePlan | None = None):
        self._images = StoredBytes(split)
        self._limits = (image_processor.short_side, image_processor.long_side, image_processor.size_divisor)
        self._plan = plan
        if plan is None:
            recorded = split.select_columns(["height", "width"]).with_format("numpy")[:]
            recorded = np.stack([recorded["height"], recorded["width"]], axis=1)
            self._sizes = target_sizes(recorded, *self._limits)
        else:
            self._sizes = plan.size.copy()
        mean = torch.tensor(image_processor.image_mean, dtype=torch.float32)
        deviation = torch.tensor(image_processor.image_std, dtype=torch.float32)
        # (x / 255 - mean) / std in one multiplication and one addition a pixel.
        self._scale = (1 / (255 * deviation)).view(1, 3, 1, 1)
        self._shift = (-mean / deviation).view(1, 3, 1, 1)
        self._cache: dict[int, np.ndarray | None] = {}
        self._room = int(cache_megabytes * 2**20)
        self.broken = 0

    def pixels(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """(pixel_values float32 `[B, 3, H, W]`, pixel_size int32 `[B, 2]`) of the images of `rows`.

        Images smaller than the largest are padded at the right and bottom by zeros.
        """
        images = [self._decoded(int(row)) for row in rows]
        sizes = self._sizes[rows].tolist() if len(rows) else []
        if sizes and sizes.count(sizes[0]) == len(sizes) and all(image is not None for image in images):
            stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
            return self._normalised(stacked), torch.tensor(sizes, dtype=torch.int32)
        pixel_values, pixel_size = self.blank(rows)
        for place, (image, (height, width)) in enumerate(zip(images, sizes, strict=True)):
            if image is not None:
                one = torch.from_numpy(image).permute(2, 0, 1)[None]
                pixel_values[place, :, :height, :width] = self._normalised(one)[0]
        return pixel_values, pixel_size

    def blank(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Zeros (the mean colour) of the sizes that `pixels` gives: for a model that sees no pixels."""
        sizes = torch.tensor([self._sizes[row].tolist() for row in rows], dtype=torch.int32).reshape(-1, 2)
        height, width = sizes.amax(dim=0).tolist() if len(sizes) else (0, 0)
        return torch.zeros(len(sizes), 3, height, width), sizes

    def _normalised(self, image: torch.Tensor) -> torch.Tensor:
        # `contiguous` first: it moves bytes, a quarter of what it would move after the conversion.
        return image.contiguous().to(torch.float32).mul_(self._scale).add_(self._shift)

    def _decoded(self, row: int) -> np.ndarray | None:
        if row in self._cache:
            return self._cache[row]
        try:
            image = to_rgb(self._images[row])
        except UserError as error:
            self.broken += 1
            logger.warning("image %d cannot be decoded and is replaced by a plain one: %s", row, error)
            image = None
        else:
            # The image's own size, not the recorded one: a wrong record must not squeeze it.
            size = image.shape[:2]
            size = self._plan.size_of(row, *size) if self._plan else target_size(*size, *self._limits)
            self._sizes[row] = size
            image = resize(image, size)
        cost = 0 if image is None else image.nbytes
        if cost <= self._room:
            self._room -= cost
            self._cache[row] = image
        return image
