"""What a frozen backbone gives of each image, in one file that is mapped into memory.

``embeddings``: the pixels' tokens, after projection, pooling and the type vector. ``c5``: the backbone's last
map, so that projection and type vector can be trained. The file's size is known, told and reserved before the
first image is read, and a build that was stopped goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pixelbert_fast.errors import UserError
from pixelbert_fast.model.outputs import PixelEmbeddings
from pixelbert_fast.tasks.protocol import Progress
from pixelbert_fast.tasks.retrieval import room
from pixelbert_fast.tasks.whole_file import written_whole

logger = logging.getLogger(__name__)

Kind = Literal["embeddings", "c5"]
Read = Callable[[Sequence[int]], tuple[Tensor, Tensor]]
"""Rows of images -> (pixel_values ``[B, 3, H, W]``, pixel_size ``[B, 2]``)."""

ELSEWHERE = "name another folder (retrieval.cache_directory), or do without (retrieval.cache=none)"
_VALUES, _DONE, _CARD = "values.bin", "done.bin", "card.json"
_THERE, _BROKEN = 1, 2
"""What is marked of an image in the file of marks: 0 is missing."""


@dataclass(frozen=True)
class Layout:
    """Where each image lies in the file, by its size alone.

    Attributes:
        kind: what is kept.
        sizes: int64 ``[M, 2]``, height and width of each image as the backbone reads it.
        maps: int64 ``[M, 2]``, rows and columns of the backbone's map.
        width: numbers a row.
    """

    kind: Kind
    sizes: np.ndarray
    maps: np.ndarray
    width: int

    @classmethod
    def of(cls, kind: Kind, model: nn.Module, sizes: np.ndarray) -> Layout:
        """`sizes`: ``[M, 2]`` height and width of each image; model: with `pixelbert`."""
        sizes = np.asarray(sizes, dtype=np.int64).reshape(-1, 2)
        maps = model.pixelbert.backbone.map_size(torch.from_numpy(sizes)).numpy()
        width = model.config.hidden_size if kind == "embeddings" else model.pixelbert.backbone.out_channels
        return cls(kind, sizes, maps, int(width))

    @property
    def grids(self) -> np.ndarray:
        """int64 ``[M, 2]``, rows and columns of the pooled grid."""
        return self.maps // 2

    @property
    def counts(self) -> np.ndarray:
        """int64 ``[M]``, rows of the file that each image has."""
        return (self.grids if self.kind == "embeddings" else self.maps).prod(axis=1)

    @property
    def starts(self) -> np.ndarray:
        """int64 ``[M + 1]``."""
        return np.concatenate([[0], self.counts.cumsum()])

    @property
    def bytes(self) -> int:
        return int(self.counts.sum()) * self.width * 4


class VisualCache:
    """The file, opened; `complete` is False until every image is in it."""

    def __init__(self, directory: str | Path, layout: Layout, signature: str, *, or_else: str = ELSEWHERE):
        """Opens the cache, or makes an empty one; several processes may do so at once.

        Args:
            signature: of the weights and images that it is made of.
            or_else: what can be done where the disk has not room for it.

        Raises:
            UserError: the disk has not room for it, or the folder holds a cache of something else.
        """
        self.directory, self.layout, self._or_else = Path(directory), layout, or_else
        self.counts, self._starts = layout.counts, layout.starts
        self._make(signature)
        shape = (int(self._starts[-1]), layout.width)
        self._values = np.memmap(self.directory / _VALUES, dtype=np.float32, mode="r", shape=shape)

    @property
    def complete(self) -> bool:
        return bool(self._marks().all())

    @property
    def broken(self) -> np.ndarray:
        """int64, ascending: the images that could not be decoded; kept is what the mean colour gives."""
        return np.flatnonzero(self._marks() == _BROKEN)

    def check_complete(self) -> None:
        """Raises UserError where an image is missing: what is read of it would be zeros."""
        missing = int((self._marks() == 0).sum())
        if missing:
            raise UserError(
                f"{missing} of {len(self.counts)} images are missing in {self.directory}, because a process "
                "that computes them has ended or writes to another disk: run it again, to go on"
            )

    @torch.no_grad()
    def fill(
        self,
        model: nn.Module,
        read: Read,
        *,
        images_per_pass: int = 16,
        pixels: int | None = None,
        rank: int = 0,
        world: int = 1,
        broken: Callable[[int], bool] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Computes what is missing of this rank's share of the images, in evaluation mode.

        Images of one size go together, so that none is padded: `images_per_pass` of them at most, and so few
        that height times width times images is no more than `pixels`, though never less than one.

        broken: whether an image that was read could not be decoded.
        """
        # Of all images and not of the missing ones: which are missing changes while other processes work.
        mine = self._passes(images_per_pass, pixels)[rank::world]
        marks = self._marks()
        passes = [rows for rows in (rows[marks[rows] == 0] for rows in mine) if len(rows)]
        device, training, done = next(model.parameters()).device, model.training, 0
        total = sum(map(len, passes))
        model.eval()
        try:
            for rows in passes:
                values, size = (one.to(device) for one in read(rows.tolist()))
                computed = self._computed(model, values, size)
                self._keep(rows, computed, [broken is not None and broken(row) for row in rows.tolist()])
                done += len(rows)
                if progress is not None:
                    progress(done, total)
        finally:
            model.train(training)

    def _passes(self, images_per_pass: int, pixels: int | None) -> list[np.ndarray]:
        sizes = self.layout.sizes
        order = np.lexsort((np.arange(len(sizes)), sizes[:, 1], sizes[:, 0]))
        differs = (np.diff(sizes[order], axis=0) != 0).any(axis=1)
        passes = []
        for group in np.split(order, np.flatnonzero(differs) + 1) if len(order) else []:
            fits = images_per_pass if pixels is None else pixels // int(sizes[group[0]].prod())
            most = max(min(images_per_pass, fits), 1)
            passes += [group[start : start + most] for start in range(0, len(group), most)]
        return passes

    def values(self, images: Sequence[int] | np.ndarray) -> Tensor:
        """``[B, R, width]`` float32 of images that have equally many rows."""
        return torch.from_numpy(np.stack([self._of(int(image)) for image in images]))

    def embeddings(self, images: Sequence[int] | np.ndarray) -> PixelEmbeddings:
        """The tokens of any images, padded, as ``embed_pixels`` gives them; of a cache of `embeddings`."""
        grids = torch.from_numpy(self.layout.grids[np.asarray(images)]).to(torch.int32)
        grid = tuple(int(side) for side in grids.amax(dim=0))
        counts = self.counts[np.asarray(images)]
        longest = int(counts.max())
        values = torch.zeros(len(counts), longest, self.layout.width)
        positions = torch.full((len(counts), longest), -1, dtype=torch.int32)
        for place, (image, count) in enumerate(zip(images, counts.tolist(), strict=True)):
            values[place, :count] = torch.from_numpy(self._of(int(image)))
            own = torch.arange(count, dtype=torch.int32)
            columns = int(grids[place, 1])
            positions[place, :count] = own // columns * grid[1] + own % columns
        return PixelEmbeddings(values, positions, positions >= 0, grids, grid)

    def features(self, images: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """(maps ``[B, C, H, W]`` padded by zeros, channels_last; pooled grids ``[B, 2]`` int32); of `c5`."""
        maps = self.layout.maps[np.asarray(images)]
        height, width = maps.max(axis=0).tolist()
        values = torch.zeros(len(maps), height, width, self.layout.width)
        for place, (image, (h, w)) in enumerate(zip(images, maps.tolist(), strict=True)):
            values[place, :h, :w] = torch.from_numpy(self._of(int(image))).view(h, w, -1)
        return values.permute(0, 3, 1, 2), torch.from_numpy(maps // 2).to(torch.int32)

    def _of(self, image: int) -> np.ndarray:
        return np.array(self._values[self._starts[image] : self._starts[image + 1]])

    def _computed(self, model: nn.Module, values: Tensor, size: Tensor) -> Tensor:
        """``[B, R, width]`` of images of one size."""
        if self.layout.kind == "embeddings":
            return model.pixelbert.embed_pixels(values, size).values
        return model.pixelbert.run_backbone(values, size).permute(0, 2, 3, 1).flatten(1, 2)

    def _marks(self) -> np.ndarray:
        """uint8 ``[M]`` as they are on the disk now: other processes write them too."""
        return np.fromfile(self.directory / _DONE, dtype=np.uint8, count=len(self.counts))

    def _keep(self, rows: np.ndarray, computed: Tensor, broken: Sequence[bool]) -> None:
        """On the disk before it is marked as there.

        By `pwrite`, not through the map: a map's pages hold parts of images that other hosts write, and a
        full disk ends a process that writes to one by a signal.
        """
        row_bytes = 4 * self.layout.width
        with self._told_when_full(), _written(self.directory / _VALUES) as values:
            for row, one in zip(rows.tolist(), computed.float().cpu().numpy(), strict=True):
                _put(values, np.ascontiguousarray(one).tobytes(), int(self._starts[row]) * row_bytes)
        with self._told_when_full(), _written(self.directory / _DONE) as marks:
            for row, lost in zip(rows.tolist(), broken, strict=True):
                _put(marks, bytes([_BROKEN if lost else _THERE]), row)

    def _make(self, signature: str) -> None:
        layout, folder = self.layout, self.directory
        card = {"kind": layout.kind, "images": len(layout.sizes), "width": layout.width}
        card |= {"bytes": layout.bytes, "signature": signature}
        found = self._card()
        if found is None and (folder / _DONE).exists() and self._marks().any():
            # Another process may have made it meanwhile, who writes the card before the first mark.
            found = self._card() or {}
        if found is not None and found != card:
            raise UserError(
                f"{folder} is a cache of other weights or images; remove it, or name another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        values = folder / _VALUES
        there = values.stat().st_blocks * 512 if values.exists() else 0
        needed, left = layout.bytes - there, room.free(folder)
        if needed > 0:
            logger.info(
                "the cache of %d images in %s takes %s, of which %s is free there",
                len(layout.sizes),
                folder,
                room.gigabytes(layout.bytes),
                room.gigabytes(left),
            )
        if needed > left:
            raise UserError(
                f"the cache of {len(layout.sizes)} images would take {room.gigabytes(layout.bytes)} in "
                f"{folder}, where {room.gigabytes(left)} is free: {self._or_else}"
            )
        with self._told_when_full():
            room.reserve(values, layout.bytes)
            room.reserve(folder / _DONE, len(layout.sizes))
            with written_whole(folder / _CARD, unique=True) as file:
                file.write(json.dumps(card) + "\n")

    def _card(self) -> dict | None:
        try:
            return json.loads((self.directory / _CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None

    def _told_when_full(self) -> contextlib.AbstractContextManager[None]:
        takes = f"the cache of {len(self.counts)} images takes {room.gigabytes(self.layout.bytes)} there"
        return room.told_when_full(self.directory, f"{takes}: {self._or_else}")


@contextlib.contextmanager
def _written(path: Path) -> Iterator[int]:
    """A file to write to, which is on the disk in the end."""
    handle = os.open(path, os.O_WRONLY)
    try:
        yield handle
        os.fsync(handle)
    finally:
        os.close(handle)


def _put(handle: int, content: bytes, position: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(handle, view, position)
        view, position = view[written:], position + written
