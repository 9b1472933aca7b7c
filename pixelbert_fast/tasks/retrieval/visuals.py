"""What a batch holds of its images: their pixels, or what a frozen backbone made of them before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.outputs import FeatureMaps, PixelEmbeddings
from pixelbert_fast.tasks.retrieval.cache import Layout, VisualCache, weights_signature

Among = Callable[[], np.ndarray]


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
        self._images = images
        kind, blank = config.retrieval.cache, config.start.text_only
        layout = Layout.of(kind, model, images.sizes(np.arange(len(split))))
        parts = ["pixelbert.backbone."]
        if kind == "embeddings":
            parts += ["pixelbert.pixel_projection.", "pixelbert.pixel_type_embedding"]
        keys = "\n".join(split["key"][:]) if "key" in split.column_names else str(len(split))
        signature = f"{weights_signature(model, parts)} {image_processor.to_json_string()} {blank} {keys}"
        name = f"{kind}-{_short(signature)}"
        folder = Path(config.retrieval.cache_directory or Path(config.output) / "cache") / name
        self._cache = VisualCache(folder, layout, _short(signature, 64))
        rank, world = _share()
        if not self._cache.complete:
            home = next(model.parameters()).device
            model.to(device)
            self._cache.fill(
                model,
                images.blank if blank else images.pixels,
                images_per_pass=config.training.images_per_batch,
                pixels=config.data.batching.pixels if config.data.batching else None,
                rank=rank,
                world=world,
            )
            model.to(home)
        if world > 1:
            torch.distributed.barrier()
        if images.broken > config.data.broken_limit * len(split):
            raise UserError(
                f"{images.broken} of {len(split)} images cannot be decoded, more than data.broken_limit"
            )

    @property
    def broken(self) -> int:
        """How many different images could not be decoded; they are of the mean colour."""
        return self._images.broken

    def names(self, rows: Sequence[int]) -> list[str]:
        return self._images.names(rows)

    def begin_epoch(self, shown: int) -> None:
        """Nothing is decoded here."""

    def readable(
        self, rows: np.ndarray, epoch: int, among: Among | None = None
    ) -> tuple[np.ndarray, dict[str, Tensor]]:
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


def _short(signature: str, digits: int = 12) -> str:
    return hashlib.sha256(signature.encode()).hexdigest()[:digits]


def _share() -> tuple[int, int]:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if there else (0, 1)
