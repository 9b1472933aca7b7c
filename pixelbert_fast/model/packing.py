"""Rows of many sequences one behind another, without the padding between them."""

from __future__ import annotations

import torch
from torch import Tensor


class Packing:
    """Where the rows of S sequences lie in a packed buffer ``[N, ...]``: sequence after sequence, in order.

    Attributes:
        rows: ``[N]`` int64, the packed rows' places among the ``S * L`` padded ones.
        lengths: how many rows each sequence has, as Python integers.
        starts: ``[S + 1]`` int32 on the device, where each sequence begins ("cumulative lengths").

    Reading the lengths waits for the device, once a forward, before its long work is queued.
    """

    def __init__(self, mask: Tensor):
        """`mask`: ``[S, L]`` bool, True where there is a row."""
        self.shape = mask.shape
        lengths = mask.sum(1)
        self.rows = mask.flatten().nonzero()[:, 0]
        self.starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        self.lengths = lengths.tolist()

    def pack(self, padded: Tensor) -> Tensor:
        """``[S, L, ...]`` -> ``[N, ...]``."""
        return padded.flatten(0, 1).index_select(0, self.rows)

    def unpack(self, packed: Tensor) -> Tensor:
        """``[N, ...]`` -> ``[S, L, ...]``, zeros in the padding."""
        padded = packed.new_zeros(self.shape.numel(), *packed.shape[1:])
        return padded.index_copy(0, self.rows, packed).unflatten(0, self.shape)

    def among_rows(self, wanted: Tensor) -> Tensor:
        """Numbers of the packed rows at the True places of `wanted` ``[S, L]``; none may be padding."""
        return wanted.flatten().index_select(0, self.rows).nonzero()[:, 0]
