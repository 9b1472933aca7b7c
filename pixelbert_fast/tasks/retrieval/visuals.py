"""What a batch holds of its images: their pixels, or what a frozen backbone made of them before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.data.sampler import random_stream
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.outputs import FeatureMaps, PixelEmbeddings
from pixelbert_fast.tasks.retrieval.cache import Layout, VisualCache
from pixelbert_fast.tasks.retrieval.identity import pixels_signature
from pixelbert_fast.tasks.retrieval.share import joined

Among = Callable[[], np.ndarray]
_SUBSTITUTE = 63


class Visuals(Protocol):
    """Images by row; `sized_images.SizedImages` is one."""

    broken: int

    def names(self, rows: Sequence[int]) -> list[str]: ...

    def begin_epoch(self, shown: int) -> None: ...

    def readable(
        self, rows: np.ndarray, epoch: int, among: Among | None = None
    ) -> tuple[np.ndarray, dict[str, Tensor]]: ...


class CachedVisuals:
    """The images of a split from a `VisualCache`, which is made first: see `tasks.retrieval.cache`."""

    def __init__(self, split, image_processor, config, model: nn.Module, device: torch.device | str = "cpu"):
        """config: the run's.

        Raises UserError where the disk has not room, or more images are broken than `data.broken_limit`.
        """
        images = DecodedImages(
            split, image_processor, cache_megabytes=0, decoder=config.data.decoder, device=device
        )
        self._images, self._seed = images, config.seed
        kind, blank = config.retrieval.cache, config.start.text_only
        rows = np.arange(len(split))
        prefixes = ["pixelbert.backbone."]
        if kind == "embeddings":
            prefixes += ["pixelbert.pixel_projection.", "pixelbert.pixel_type_embedding"]
        signature = pixels_signature(model, images, rows, blank=blank, prefixes=prefixes)
        name = f"{kind}-{signature[:12]}"
        folder = Path(config.retrieval.cache_directory or Path(config.output) / "cache") / name
        self._cache = VisualCache(folder, Layout.of(kind, model, images.sizes(rows)), signature)
        share, leave = joined()
        try:
            if not self._cache.complete:
                home = next(model.parameters()).device
                model.to(device)
                self._cache.fill(
                    model,
                    images.blank if blank else images.pixels,
                    images_per_pass=config.training.images_per_batch,
                    pixels=config.data.batching.pixels if config.data.batching else None,
                    rank=share.rank,
                    world=share.world,
                    broken=images.is_broken,
                )
                model.to(home)
            share.wait()
        finally:
            leave()
        self._cache.check_complete()
        self._broken = self._cache.broken
        self._own_broken = len(self._broken[share.rank :: share.world])
        limit = config.data.broken_limit
        if len(self._broken) > max(limit > 0, limit * len(split)) or len(self._broken) == len(split):
            raise UserError(
                f"{len(self._broken)} of {len(split)} images cannot be decoded, more than the share of "
                f"{limit:g} that data.broken_limit allows; the last is {self.names(self._broken[-1:])[0]}: "
                f"mend the set, or raise the limit"
            )

    @property
    def broken(self) -> int:
        """How many different images could not be decoded; each process tells its share of them."""
        return self._own_broken

    def names(self, rows: Sequence[int]) -> list[str]:
        return self._images.names(rows)

    def begin_epoch(self, shown: int) -> None:
        """Nothing is decoded here."""

    def readable(
        self, rows: np.ndarray, epoch: int, among: Among | None = None
    ) -> tuple[np.ndarray, dict[str, Tensor]]:
        """(rows, what is kept of them): another of `among()` in the place of each that is broken."""
        rows = np.array(rows, dtype=np.int64)
        for place in np.flatnonzero(np.isin(rows, self._broken)):
            every = np.arange(len(self._cache.counts)) if among is None else np.unique(among())
            whole = np.setdiff1d(every, self._broken)
            if not len(whole):
                raise UserError("none of the split's images with texts can be decoded: build it again")
            draw = random_stream(self._seed, epoch, int(rows[place]), _SUBSTITUTE)
            rows[place] = draw.choice(whole)
        if self._cache.layout.kind == "c5":
            features, grids = self._cache.features(rows)
            return rows, {"features": features, "valid_grid": grids}
        found = self._cache.embeddings(rows)
        return rows, {
            "pixel_tokens": found.values,
            "pixel_places": found.positions,
            "valid_grid": found.valid_grid,
        }


def visual_inputs(batch: Mapping[str, Tensor], draws: bool) -> dict:
    """Arguments of the model, of what a batch holds of its images.

    draws: whether the model reads a sample of the pixels only.
    """
    if "features" in batch:
        return {"pixel_embeddings": FeatureMaps(batch["features"], batch["valid_grid"])}
    if "pixel_tokens" in batch:
        tokens, places, valid_grid = batch["pixel_tokens"], batch["pixel_places"], batch["valid_grid"]
        # Only who draws a sample of the pixels asks for the grid.
        grid = tuple(valid_grid.amax(dim=0).tolist()) if draws else None
        return {"pixel_embeddings": PixelEmbeddings(tokens, places, places >= 0, valid_grid, grid)}
    return {name: batch[name] for name in ("pixel_values", "pixel_size") if name in batch}
