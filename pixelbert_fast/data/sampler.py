"""Which samples an epoch shows, in which order, on which rank: pure functions of their arguments.

Nothing here keeps state, so a resumed run recomputes exactly what an uninterrupted one would have seen.
"""

import numpy as np

from pixelbert_fast.errors import UserError


def random_stream(seed: int, *names: int) -> np.random.Generator:
    """A generator that depends on `seed` and the numbers that name its use, and on nothing else.

    All numbers are non-negative integers of any size; streams of different names are independent.
    """
    if seed < 0:
        raise UserError(f"seed must not be negative, but is {seed}; choose 0 or more")
    # Each number goes in as two 32-bit words, and their count before them: numpy would else take (2**32,) for
    # (0, 1), and (1,) for (1, 0).
    numbers = (seed, *names)
    words = [len(numbers), *(word for number in numbers for word in (number & 0xFFFFFFFF, number >> 32))]
    return np.random.default_rng(words)


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of `0 .. n-1`, int64 `[n]`, different in every epoch."""
    return random_stream(seed, epoch, _ORDER).permutation(n)


def steps_per_epoch(n: int, batch: int, world_size: int = 1, start: int = 0) -> int:
    """How many batches of `batch` samples each rank gets from `n` samples; the last may be wrapped.

    start: how many batches of the epoch, those of all ranks together, have been shown already.
    """
    return max(-(-(-(-n // batch) - start) // world_size), 0)


def batches(
    n: int, batch: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1, start: int = 0
) -> np.ndarray:
    """The batches of one rank in one epoch: sample numbers, int64 `[steps, batch]`, see `steps_per_epoch`.

    Step by step the ranks' batches side by side read the epoch's order from left to right, so every sample
    is shown once; only where `batch * world_size` does not divide `n` the last step takes again from the
    order's beginning, so that every rank makes the same number of equally large steps.

    start: batches of the order, those of all ranks together, that are left out because they have been shown.
    What comes after them does not depend on how many ranks have shown them.

    Raises UserError when there is nothing to show or a size is not positive, ValueError for an unknown rank.
    """
    if n < 1:
        raise UserError("there are no samples to make batches of; the split is empty")
    if batch < 1:
        raise UserError(f"a batch must hold at least 1 sample, but its size is {batch}")
    _check_share(rank, world_size, start)
    steps = steps_per_epoch(n, batch, world_size, start)
    first = start * batch
    order = np.resize(epoch_order(n, seed, epoch), first + steps * world_size * batch)[first:]
    return order.reshape(steps, world_size, batch)[:, rank]


def shares(listed: int, rank: int = 0, world_size: int = 1, start: int = 0) -> np.ndarray:
    """Which batches of an epoch's list of `listed` one rank takes, step by step: int64 `[steps]`.

    The ranks of a step take neighbours in the list, from number `start` on, so that another number of ranks
    sees exactly the rest. Where they do not come out even, the last step takes some of its own batches again.
    """
    _check_share(rank, world_size, start)
    steps = max(-(-(listed - start) // world_size), 0)
    mine = start + np.arange(steps, dtype=np.int64) * world_size + rank
    if steps and mine[-1] >= listed:
        last = start + (steps - 1) * world_size
        mine[-1] = last + (mine[-1] - last) % (listed - last)
    return mine


def _check_share(rank: int, world_size: int, start: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in 0 .. {world_size - 1}, got {rank}")
    if start < 0:
        raise ValueError(f"start must not be negative, got {start}")


# Names of the random streams of this file (see `random_stream`); part of what a resumed run relies on.
_ORDER = 1
