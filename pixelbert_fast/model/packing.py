"""Rows of many sequences one behind another, without the padding between them."""

from __future__ import annotations

import torch
from torch import Tensor


class Spans:
    """How the rows of a packed buffer ``[N, ...]`` divide among S sequences.

    Attributes:
        starts: ``[S + 1]`` int32 on the device, where each sequence begins ("cumulative lengths").
        lengths: how many rows each sequence has, as Python integers.
        longest: the most rows of one sequence.
    """

    def __init__(self, starts: Tensor, lengths: list[int]):
        self.starts = starts
        self.lengths = lengths
        self.longest = max(lengths, default=0)
        # Not `functools.cached_property`: in Python 3.11 it takes a lock, which torch.compile cannot.
        self._places: Tensor | None = None
        self._readable: Tensor | None = None

    @property
    def places(self) -> Tensor:
        """``[N]`` int64: where each row lies among ``S * longest`` padded ones."""
        if self._places is None:
            rows, device = sum(self.lengths), self.starts.device
            first = torch.arange(len(self.lengths), device=device) * self.longest - self.starts[:-1]
            moved = first.repeat_interleave(self.starts.diff(), output_size=rows)
            self._places = torch.arange(rows, device=device) + moved
        return self._places

    @property
    def readable(self) -> Tensor:
        """``[S, longest]`` bool, True on rows, and all over a sequence of none: no softmax over nothing."""
        if self._readable is None:
            lengths = self.starts.diff()[:, None]
            column = torch.arange(self.longest, device=self.starts.device)
            self._readable = (column < lengths) | (lengths == 0)
        return self._readable

    def pad(self, packed: Tensor) -> Tensor:
        """``[N, ...]`` -> ``[S, longest, ...]``, zeros in the padding."""
        shape = (len(self.lengths), self.longest)
        padded = packed.new_zeros(shape[0] * shape[1], *packed.shape[1:])
        return padded.index_copy(0, self.places, packed).unflatten(0, shape)


class Packing:
    """Where the rows of S sequences lie in a packed buffer ``[N, ...]``: sequence after sequence, in order.

    Attributes:
        rows: ``[N]`` int64, the packed rows' places among the ``S * L`` padded ones.
        spans: which of the packed rows are whose.

    Reading the lengths waits for the device, once a forward, before its long work is queued.
    """

    def __init__(self, mask: Tensor):
        """`mask`: ``[S, L]`` bool, True where there is a row."""
        self.shape = mask.shape
        lengths = mask.sum(1)
        self.rows = mask.flatten().nonzero()[:, 0]
        starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        self.spans = Spans(starts, lengths.tolist())
        self._among: tuple[Tensor, Spans] | None = None

    def pack(self, padded: Tensor) -> Tensor:
        """``[S, L, ...]`` -> ``[N, ...]``."""
        return padded.flatten(0, 1).index_select(0, self.rows)

    def unpack(self, packed: Tensor) -> Tensor:
        """``[N, ...]`` -> ``[S, L, ...]``, zeros in the padding."""
        padded = packed.new_zeros(self.shape.numel(), *packed.shape[1:])
        return padded.index_copy(0, self.rows, packed).unflatten(0, self.shape)

    def among_rows(self, wanted: Tensor) -> Tensor:
        """Numbers of the packed rows at the True places of `wanted` ``[S, L]``; none may be padding."""
        rows = wanted.flatten().index_select(0, self.rows).nonzero()[:, 0]
        self.spans_among(rows)  # now, and not in a layer, which may be compiled
        return rows

    def spans_among(self, rows: Tensor) -> Spans:
        """How some packed rows, ``[M]`` int64 and ascending, divide; counted once for one tensor of them."""
        if self._among is None or self._among[0] is not rows:
            starts = torch.searchsorted(rows, self.spans.starts.long(), out_int32=True)
            self._among = rows, Spans(starts, starts.diff().tolist())
        return self._among[1]
