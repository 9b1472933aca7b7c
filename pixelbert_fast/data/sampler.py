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


def steps_per_epoch(n: int, batch: int, world_size: int = 1) -> int:
    """How many batches of `batch` samples each rank gets from `n` samples; the last may be wrapped."""
    return -(-n // (batch * world_size))


def batches(
    n: int, batch: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1
) -> list[np.ndarray]:
    """The batches of one rank in one epoch: `steps_per_epoch` int64 arrays of `batch` sample numbers each.

    Step by step the ranks' batches side by side read the epoch's order from left to right, so every sample
    is shown once; only where `batch * world_size` does not divide `n` the last step takes again from the
    order's beginning, so that every rank makes the same number of equally large steps.

    Raises UserError when there is nothing to show or a size is not positive, ValueError for an unknown rank.
    """
    if n < 1:
        raise UserError("there are no samples to make batches of; the split is empty")
    if batch < 1:
        raise UserError(f"a batch must hold at least 1 sample, but its size is {batch}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in 0 .. {world_size - 1}, got {rank}")
    steps = steps_per_epoch(n, batch, world_size)
    order = np.resize(epoch_order(n, seed, epoch), steps * world_size * batch)
    return list(order.reshape(steps, world_size, batch)[:, rank])


# Names of the random streams of this file (see `random_stream`); part of what a resumed run relies on.
_ORDER = 1
