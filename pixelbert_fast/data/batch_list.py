"""The batches of an epoch as one list, of which each rank takes its share (`sampler.shares`).

The list is a pure function of what is given here, and the number of ranks is not among it: a run that goes on
with another number of them takes exactly the batches that have not been shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixelbert_fast.data.sampler import random_stream
from pixelbert_fast.errors import UserError


@dataclass(frozen=True)
class Batching:
    """How images become batches of one size each, and what a batch may hold; None: no bound of that kind.

    Attributes:
        buckets, aspect_change: see `sizes.plan_sizes`.
        pixels: height times width of a batch, times its images, at most.
        tokens: its sequences times the length of the longest, at most: the texts with their padding.
        alike: so many batches of like size come one after the other in the list, so that the ranks of a step
            (if their number divides this one) all get one size and none waits long for another.
    """

    buckets: int = 8
    aspect_change: float = 0.08
    pixels: int | None = None
    tokens: int | None = None
    alike: int = 8


@dataclass(frozen=True)
class BatchList:
    """The batches of one epoch: batch i holds the samples `samples[starts[i] : starts[i + 1]]`.

    Attributes:
        samples: int64 `[n]`, each sample once.
        starts: int64 `[G + 1]`.
    """

    samples: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        """The samples of batch `number`, int64."""
        return self.samples[self.starts[number] : self.starts[number + 1]]


def list_batches(
    group: np.ndarray,
    pixels: np.ndarray,
    images: int,
    batching: Batching,
    seed: int,
    epoch: int,
    longest: np.ndarray | None = None,
    sequences: int = 1,
) -> BatchList:
    """All batches of an epoch: each of one group, filled in random order until one more sample would not fit.

    Every sample is in one batch. The last batch of each group may be smaller than the others.

    Args:
        group: integers `[n]`, the group of each sample: those of one group share batches.
        pixels: integers `[number of groups]`, the pixels of an image in a batch of each group.
        images: of a batch, at most.
        longest: integers `[n]`, the tokens of each sample's longest text; needed for `batching.tokens`.
        sequences: how many texts come with a sample.

    Raises UserError when there are no samples, or a single sample is more than `batching` allows.
    """
    n = len(group)
    if not n:
        raise UserError("there are no samples to make batches of; the split is empty")
    used = np.unique(group)
    if images < 1:
        raise UserError(f"a batch must hold at least 1 sample, but its size is {images}")
    check_bounds(batching, int(pixels[used].max()), 0 if longest is None else int(longest.max()) * sequences)
    stream = random_stream(seed, epoch, _LIST)
    order = stream.permutation(n)
    # A stable sort by group keeps the random order within each; small numbers are sorted in linear time.
    order = order[np.argsort(group[order].astype(np.uint16), kind="stable")]
    sizes = np.bincount(group, minlength=len(pixels))
    ends, costs, begin = [], [], 0
    for number in used:
        own = order[begin : begin + sizes[number]]
        most = images if batching.pixels is None else min(images, batching.pixels // int(pixels[number]))
        lengths = None if batching.tokens is None else longest[own]
        cuts = _cuts(len(own), most, lengths, batching.tokens, sequences)
        ends.append(begin + cuts)
        costs.append(np.diff(cuts, prepend=0) * pixels[number])
        begin += len(own)
    every = np.concatenate(ends)
    starts = np.concatenate([[0], every[:-1]])
    listed = in_runs([len(one) for one in ends], np.concatenate(costs), batching.alike, stream)
    counts = (every - starts)[listed]
    places = np.concatenate([[0], np.cumsum(counts)])
    # Sample j of the list lies as far from its batch's start there as here.
    shift = np.repeat(starts[listed] - places[:-1], counts)
    return BatchList(order[np.arange(n) + shift], places)


def check_bounds(batching: Batching, pixels: int, tokens: int) -> None:
    """Raise UserError where one image of `pixels`, or the texts with one, `tokens`, are beyond the bounds."""
    for what, name, bound, needed in (
        ("image", "pixels", batching.pixels, pixels),
        ("image's texts", "tokens", batching.tokens, tokens),
    ):
        if bound is not None and bound < needed:
            raise UserError(
                f"a batch may hold {bound} {name} (data.batching.{name}) and one {what} can take {needed}: "
                "raise it to at least that"
            )


def _cuts(n: int, most: int, lengths: np.ndarray | None, tokens: int | None, sequences: int) -> np.ndarray:
    """Where the batches of one group end: int64, ascending, the last is `n`.

    lengths: the longest text of each sample in its order.
    """
    if lengths is None or int(lengths.max()) * sequences * most <= tokens:
        return np.minimum(np.arange(1, -(-n // most) + 1, dtype=np.int64) * most, n)
    times = np.arange(1, most + 1) * sequences
    cuts, begin = [], 0
    while begin < n:
        held = np.maximum.accumulate(lengths[begin : begin + most]) * times[: n - begin]
        begin += max(int(np.searchsorted(held, tokens, side="right")), 1)
        cuts.append(begin)
    return np.array(cuts, dtype=np.int64)


def in_runs(counts: list[int], cost: np.ndarray, alike: int, stream: np.random.Generator) -> np.ndarray:
    """The batches' numbers in the order of the list: runs of `alike`, each of one group, in random order.

    What a group has over makes runs with what the others have over, the like beside the like. The run that is
    not full comes last.

    counts: how many batches each group has, which are numbered group by group. cost: of each batch.
    """
    whole, over, begin = [], [], 0
    for count in counts:
        # Which of a group's batches are over must not always be the last ones.
        numbers = begin + stream.permutation(count)
        cut = count // alike * alike
        whole.append(numbers[:cut])
        over.append(numbers[cut:])
        begin += count
    rest = np.concatenate(over)
    rest = rest[np.argsort(-cost[rest], kind="stable")]
    cut = len(rest) // alike * alike
    runs = np.concatenate([*whole, rest[:cut]]).reshape(-1, alike)
    return np.concatenate([runs[stream.permutation(len(runs))].reshape(-1), rest[cut:]])


# The name of this file's random stream (see `sampler.random_stream`).
_LIST = 2
