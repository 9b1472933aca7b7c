"""Images of a split as model input: by a decoder, and kept as bytes where they are few enough."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelbert_fast.data.broken import BrokenImages
from pixelbert_fast.data.decoders import plain
from pixelbert_fast.data.decoders.buffers import Buffers
from pixelbert_fast.data.decoders.choice import make_decoder
from pixelbert_fast.data.decoders.normalising import Normalisation
from pixelbert_fast.data.recorded import RecordedSizes
from pixelbert_fast.data.sampler import random_stream
from pixelbert_fast.data.sizes import SizePlan, target_sizes
from pixelbert_fast.data.stored_bytes import StoredBytes
from pixelbert_fast.errors import UserError

_SUBSTITUTE = 31


class Pictures(NamedTuple):
    """Images of `rows`, int64 `[B]`: pixel_values float32 `[B, 3, H, W]`, pixel_size int32 `[B, 2]`.

    The pixels are where the decoder leaves them, the rest is on the CPU.
    """

    rows: np.ndarray
    pixel_values: Tensor
    pixel_size: Tensor


class DecodedImages:
    """Images of a split by row number, at the size and in the normalisation of an image processor.

    split: rows with `image` (encoded bytes), `height` and `width`, the picture's own, upright; and `key`, if
    there is one. image_processor: gives short_side, long_side, size_divisor, image_mean and image_std.
    plan: the sizes, in place of the rule's. decoder: its name, and device: what it decodes for, see
    `decoders.choice`. broken_limit: see `broken.BrokenImages`.

    With the decoder `plain` the resized images are kept, uint8, until `cache_megabytes` are full; then no
    more are added: in shuffled epochs throwing one out to keep another would gain nothing. What is in the
    cache changes no value.

    Pixels are channels_last in memory. Images smaller than the largest of their batch are padded at the right
    and bottom by zeros; none has a side below the processor's `least_side`. `broken` is how many different
    images could not be decoded so far, `misrecorded` how many of those read have another size than is
    recorded (see `recorded.RecordedSizes`).
    """

    def __init__(
        self,
        split,
        image_processor,
        cache_megabytes: float = 1024,
        plan: SizePlan | None = None,
        *,
        decoder: str | None = None,
        device: torch.device | str = "cpu",
        broken_limit: float = 0.01,
    ):
        self._images = StoredBytes(split)
        self._plan = plan
        columns = split.select_columns(["height", "width"]).with_format("numpy")[:]
        recorded = np.stack([columns["height"], columns["width"]], axis=1).astype(np.int32)
        if plan is None:
            rule = image_processor
            limits = rule.short_side, rule.long_side, rule.size_divisor, rule.least_side
            self._sizes = target_sizes(recorded, *limits)
        else:
            self._sizes = plan.size
        self._normalisation = Normalisation(image_processor.image_mean, image_processor.image_std)
        self._decoder = make_decoder(self._normalisation, decoder, device)
        self._cache: dict[int, Tensor] = {}
        self._buffers = Buffers()
        # Others normalise by themselves, in other last bits: what is cached would be told from what is not.
        self._room = int(cache_megabytes * 2**20) if self._decoder.name == plain.NAME else 0
        keys = split.select_columns(["key"]) if "key" in split.column_names else None
        self._broken = BrokenImages(keys, broken_limit)
        self._recorded = RecordedSizes(recorded, keys)

    @property
    def broken(self) -> int:
        return len(self._broken)

    def known_broken(self, row: int) -> bool:
        """Whether this image was met and could not be decoded."""
        return row in self._broken

    def names(self, rows: Sequence[int]) -> list[str]:
        """The images of `rows` as messages call them."""
        return [self._broken.name(int(row)) for row in rows]

    def begin_epoch(self, shown: int) -> None:
        """Start to count what `readable` finds broken among the `shown` images of an epoch."""
        self._broken.begin_epoch(shown)

    @property
    def misrecorded(self) -> int:
        return len(self._recorded)

    def readable(
        self, rows: Sequence[int], seed: int, epoch: int, among: Callable[[], np.ndarray] | None = None
    ) -> Pictures:
        """The images of `rows`, another in the place of each that is broken.

        The other is one of `among()` (rows; None: all of the split) of the same size, or of the same group of
        the size plan, drawn by (seed, epoch, row); any other where none of those can be decoded. Raises
        UserError when more images of an epoch are broken than the limit allows, or all of them are.
        """
        rows = np.array(rows, dtype=np.int64)
        values, sizes, broken = self._read(rows.tolist())
        if not broken:
            return Pictures(rows, values, sizes)
        for place in broken:
            self._broken.met(int(rows[place]))
        for place in broken:
            rows[place] = self._substitute(int(rows[place]), seed, epoch, among)
            own, ((height, width),), _ = self._read([int(rows[place])])
            if height > values.shape[2] or width > values.shape[3]:  # of another size, for want of this one
                return self.readable(rows, seed, epoch, among)
            values[place, :, :height, :width] = own[0]
            sizes[place] = torch.tensor((height, width))
        return Pictures(rows, values, sizes)

    def pixels(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(pixel_values, pixel_size) of exactly these rows; a broken image is one of the mean colour."""
        values, sizes, _ = self._read([int(row) for row in rows])
        return values, sizes

    def is_broken(self, row: int) -> bool:
        """Whether an image that has been read could not be decoded."""
        return row in self._broken

    def digest(self, rows: Sequence[int] | np.ndarray) -> str:
        """SHA-256, in hex, of all that `pixels` of these rows depends on; reads their files."""
        norm = self._normalisation
        found = hashlib.sha256(repr((self._decoder.name, norm.mean, norm.std)).encode())
        for row in np.asarray(rows).tolist():
            encoded = self._images[row] or b""
            found.update(f"{self._size(row)} {len(encoded)};".encode())
            found.update(encoded)
        return found.hexdigest()

    def sizes(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Height and width of these images as `pixels` gives them, `[B, 2]`; no image is read."""
        return np.asarray(self._sizes)[np.asarray(rows)]

    def blank(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Zeros (the mean colour) of the sizes that `pixels` gives: for a model that sees no pixels."""
        sizes = torch.tensor([self._size(row) for row in rows], dtype=torch.int32).reshape(-1, 2)
        height, width = sizes.amax(dim=0).tolist() if len(sizes) else (0, 0)
        return torch.zeros(len(sizes), 3, height, width), sizes

    def _read(self, rows: list[int]) -> tuple[Tensor, Tensor, list[int]]:
        """(pixel_values, pixel_size, the places of broken images, whose pixels are zeros)."""
        missing = [row for row in dict.fromkeys(rows) if row not in self._cache and row not in self._broken]
        if any(row in self._cache for row in rows) or any(self._bytes(row) <= self._room for row in missing):
            self._keep_or_lend(missing, lent := {})
            return self._assembled(rows, lent)
        # What is known to be broken need not be tried again.
        encoded = [b"" if row in self._broken else one for row, one in self._encoded(rows)]
        batch = self._decoder.decode(encoded, [self._size(row) for row in rows])
        for place, reason in batch.broken:
            self._broken.add(rows[place], reason)
        return batch.pixel_values, batch.pixel_size, [place for place, _ in batch.broken]

    def _keep_or_lend(self, rows: list[int], lent: dict[int, Tensor]) -> None:
        """Decode `rows`, uint8 `[h, w, 3]` each, into the cache or, where there is no room, into `lent`."""
        if not rows:
            return
        encoded = [one for _, one in self._encoded(rows)]
        batch = self._decoder.decode(encoded, [self._size(row) for row in rows], torch.uint8)
        for place, reason in batch.broken:
            self._broken.add(rows[place], reason)
        for row, image, (height, width) in zip(
            rows, batch.pixel_values.permute(0, 2, 3, 1), batch.pixel_size.tolist(), strict=True
        ):
            if row in self._broken:
                continue
            image = image[:height, :width]
            if self._bytes(row) <= self._room:
                self._room -= self._bytes(row)
                self._cache[row] = image.clone(memory_format=torch.contiguous_format)
            else:
                lent[row] = image.contiguous()

    def _assembled(self, rows: list[int], lent: dict[int, Tensor]) -> tuple[Tensor, Tensor, list[int]]:
        sizes = torch.tensor([self._size(row) for row in rows], dtype=torch.int32)
        height, width = sizes.amax(dim=0).tolist()
        values = self._buffers.empty((len(rows), height, width, 3), torch.float32)
        broken = []
        for place, row in enumerate(rows):
            image = self._cache.get(row, lent.get(row))
            if image is None or image.shape[:2] != (height, width):
                values[place].zero_()
            if image is None:
                broken.append(place)
            else:
                self._normalisation.into(values[place, : image.shape[0], : image.shape[1]], image)
        return values.permute(0, 3, 1, 2), sizes, broken

    def _encoded(self, rows: list[int]) -> Iterator[tuple[int, bytes]]:
        for row in rows:
            encoded = self._images[row] or b""
            self._recorded.check(row, encoded)
            yield row, encoded

    def _size(self, row: int) -> tuple[int, int]:
        height, width = self._sizes[row]
        return int(height), int(width)

    def _bytes(self, row: int) -> int:
        height, width = self._size(row)
        return 3 * height * width

    def _substitute(self, row: int, seed: int, epoch: int, among: Callable[[], np.ndarray] | None) -> int:
        draw = random_stream(seed, epoch, row, _SUBSTITUTE)
        every = np.arange(len(self._sizes)) if among is None else np.unique(among())
        if self._plan is None:
            alike = every[(self._sizes[every] == self._sizes[row]).all(axis=1)]
        else:
            alike = every[self._plan.group[every] == self._plan.group[row]]
        for candidates in (alike, every):
            for other in draw.permutation(candidates).tolist():
                if other not in self._broken and not self._read([other])[2]:
                    return other
        raise UserError(f"none of the {len(self._sizes)} images of the split can be decoded: build it again")
