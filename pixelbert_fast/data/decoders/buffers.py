"""Memory for batches that is used again: fresh pages cost more time than the values written to them."""

from __future__ import annotations

import math
import sys

import numpy as np
import torch
from torch import Tensor


class Buffers:
    """Uninitialised tensors in memory that no tensor refers to any more.

    Args:
        most: how many pieces of memory are kept, each of the size of a batch; as many as are in use at once
            (those prefetched, the one being read, the one being made).
    """

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._kept: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor; its memory is its own, and its views', until the last of them is gone."""
        size = math.prod(shape) * dtype.itemsize
        if not size:
            return torch.empty(shape, dtype=dtype)
        return torch.from_numpy(self._memory(size)[:size]).view(dtype).view(shape)

    def _memory(self, size: int) -> np.ndarray:
        free = [place for place in range(len(self._kept)) if self._is_free(place)]
        fitting = [place for place in free if self._kept[place].nbytes >= size]
        if fitting:
            return self._kept[min(fitting, key=lambda place: self._kept[place].nbytes)]
        # NumPy asks for large pages, torch does not.
        memory = np.empty(size, dtype=np.uint8)
        if len(self._kept) < self._most:
            self._kept.append(memory)
        elif free:
            self._kept[free[0]] = memory
        return memory

    def _is_free(self, place: int) -> bool:
        # The list and the argument; a tensor's storage holds a slice, which holds the array.
        return sys.getrefcount(self._kept[place]) == 2
