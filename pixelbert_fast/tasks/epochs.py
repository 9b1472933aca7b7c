"""Epochs of batches: which of what an epoch shows comes in which batch, on which rank."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from pixelbert_fast.data import sampler


class Listed(Protocol):
    """The batches of an epoch, those of all ranks: `batch_list.BatchList`, or a list of arrays."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> np.ndarray:
        """Of what the epoch shows, what is in batch `number`: int64."""
        ...


class Epochs(ABC):
    """What an epoch shows, so many at a time or in listed batches, divided among ranks.

    Args:
        images: gives `begin_epoch`, `broken` and `names`, see `SizedImages` and `DecodedImages`.
        per_batch: how many a batch shows where batches are not listed.
        seed: of the order.
    """

    def __init__(self, images: Any, per_batch: int, seed: int) -> None:
        self._images, self._per_batch, self._seed = images, per_batch, seed
        self._planned: tuple[int, Any, Listed | None] | None = None

    @abstractmethod
    def _plan_anew(self, epoch: int) -> tuple[Any, Listed | None]:
        """What the epoch shows, and its batches where they are listed; else of its `row`, int64 `[V]`."""

    @abstractmethod
    def _batch(self, members: np.ndarray, epoch: int, shown: Any) -> dict[str, Tensor]:
        """The batch of these of what the epoch shows."""

    def _images_of(self, members: np.ndarray, shown: Any) -> int:
        """How many images a batch of these reads: one each, where a task does not say otherwise."""
        return len(members)

    @property
    def broken(self) -> int:
        """How many different images could not be decoded so far."""
        return self._images.broken

    def names(self, rows: Sequence[int]) -> list[str]:
        """The images of a batch's `rows` as messages call them."""
        return self._images.names(rows)

    def steps_per_epoch(self, world_size: int = 1, epoch: int = 0, start: int = 0) -> int:
        """How many batches each rank gets in an epoch; bounds on tokens make epochs differ."""
        shown, listed = self._plan(epoch)
        if listed is None:
            return sampler.steps_per_epoch(len(shown.row), self._per_batch, world_size, start)
        return len(sampler.shares(len(listed), 0, world_size, start))

    def epoch(
        self, epoch: int, rank: int = 0, world_size: int = 1, skip: int = 0, start: int = 0
    ) -> Iterator[dict[str, Tensor]]:
        """The batches of one rank in one epoch without the first `skip`: a function of seed and arguments.

        start: see `sampler.batches`.
        """
        shown, listed = self._plan(epoch)
        if listed is None:
            count = len(shown.row)
            mine = sampler.batches(count, self._per_batch, self._seed, epoch, rank, world_size, start)
            self._images.begin_epoch(mine.size)
            for members in mine[skip:]:
                yield self._batch(members, epoch, shown)
        else:
            mine = sampler.shares(len(listed), rank, world_size, start)
            self._images.begin_epoch(sum(self._images_of(listed[number], shown) for number in mine))
            for number in mine[skip:]:
                yield self._batch(listed[number], epoch, shown)

    def _plan(self, epoch: int) -> tuple[Any, Listed | None]:
        """As `_plan_anew`; of the epoch asked for last it is kept."""
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, *self._plan_anew(epoch)
        return self._planned[1:]
