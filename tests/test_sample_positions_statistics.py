"""`sample_positions` draws uniformly and without replacement: chi-square tests at 100,000 draws.

Seeds are fixed, so each test passes for ever or fails for ever. `SIGNIFICANCE` says how seldom a right
sampler would fail with seeds of chance, on either side: counts that are too even are as wrong as counts
too uneven.
"""

from __future__ import annotations

from math import comb

import pytest
import torch
from torch import Tensor

from pixelbert_fast.ops import cpu_backend, sample_positions

DRAWS = 100_000
SIGNIFICANCE = 1e-6
BACKEND = "cpu" if cpu_backend.why_not_loaded() is None else "reference"


def draws(
    keys: Tensor, grid: tuple[int, int], count: int, *, seed: int = 1, valid: Tensor | None = None
) -> Tensor:
    """``[N, count]`` places."""
    valid = torch.tensor([grid]).expand(len(keys), 2) if valid is None else valid
    return sample_positions(valid, grid, count, seed=seed, keys=keys, backend=BACKEND).long()


def drawn_or_not(drawn: Tensor, places: int) -> Tensor:
    """``[N, places]``, 1 where a place was drawn."""
    chosen = torch.zeros(len(drawn), places).scatter_(1, drawn, 1.0)
    assert (chosen.sum(1) == drawn.shape[1]).all(), "a place was drawn twice"
    return chosen


def p_value(statistic: float, freedom: int) -> float:
    """The chance that chi-square with `freedom` degrees of freedom exceeds `statistic`."""
    return float(
        torch.special.gammaincc(torch.tensor(freedom / 2).double(), torch.tensor(statistic / 2).double())
    )


def p_of_places(chosen: Tensor) -> float:
    """Each place is drawn with probability p = k / n.

    Without replacement the counts of two places have the covariance -p (1 - p) / (n - 1) a draw, because
    all add up to k. So their covariance matrix is p (1 - p) n / (n - 1) times the projection that removes
    the mean, and the sum of squared deviations over that factor is chi-square with n - 1 degrees of
    freedom.
    """
    (number, n), k = chosen.shape, float(chosen[0].sum())
    p = k / n
    deviation = chosen.double().sum(0) - number * p
    return p_value(float(deviation.square().sum() / (number * p * (1 - p) * n / (n - 1))), n - 1)


def p_of_pairs(chosen: Tensor) -> float:
    """Each pair of places is drawn with probability q = k (k - 1) / (n (n - 1)).

    The counts of two pairs are correlated: by p3 - q^2 a draw where they share a place, by p4 - q^2 where
    they do not, p3 and p4 being the chances that three and four given places are all drawn. That matrix
    treats places alike, and so has three eigenspaces (the Johnson scheme): constants, which cannot vary,
    as every draw has k (k - 1) / 2 pairs; sums of one number for each place, of dimension n - 1, which
    only repeat how often places were drawn; and the rest, of dimension n (n - 3) / 2, where its eigenvalue
    is (q - q^2) - 2 (p3 - q^2) + (p4 - q^2) = q - 2 p3 + p4. What is left of the deviations after fitting
    one number to each place, squared and over that eigenvalue, is chi-square with n (n - 3) / 2 degrees of
    freedom, independent of the test of places.
    """
    (number, n), k = chosen.shape, int(chosen[0].sum())
    q, p3, p4 = (comb(n - size, k - size) / comb(n, k) for size in (2, 3, 4))
    pairs = (chosen.T @ chosen).double() - number * q  # float32 counts exactly to 2^24
    pairs.fill_diagonal_(0)
    of_place = pairs.sum(1) / (n - 2)
    left = torch.triu(pairs - of_place[:, None] - of_place, diagonal=1)
    return p_value(float(left.square().sum() / (number * (q - 2 * p3 + p4))), n * (n - 3) // 2)


def p_of_overlap(first: Tensor, second: Tensor) -> float:
    """Two independent draws of k of n places share a hypergeometric number of them."""
    (number, n), k = first.shape, int(first[0].sum())
    shared = (first * second).sum(1).long()
    chances = torch.tensor([comb(k, s) * comb(n - k, k - s) / comb(n, k) for s in range(k + 1)]).double()
    counts = torch.bincount(shared, minlength=k + 1).double()
    # A class needs some draws for its count to be nearly normal; the rare ones are one class together.
    rare = chances * number < 20
    expected = torch.cat([chances[~rare], chances[rare].sum()[None]]) * number
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    return p_value(float(((counts - expected) ** 2 / expected).sum()), len(expected) - 1)


def assert_uniform(chosen: Tensor) -> None:
    for p in (p_of_places(chosen), p_of_pairs(chosen)):
        assert SIGNIFICANCE < p < 1 - SIGNIFICANCE, p


KEYS = {
    "consecutive": torch.arange(DRAWS),
    "consecutive in the high word": torch.arange(DRAWS) << 32,
    "consecutive below zero": -torch.arange(1, DRAWS + 1),
    "far apart": torch.arange(DRAWS) * 0x9E3779B97F4A7C15 % 2**63,
}


@pytest.mark.parametrize("keys", KEYS)
def test_every_place_and_pair_is_as_likely(keys: str) -> None:
    assert_uniform(drawn_or_not(draws(KEYS[keys], (6, 10), 13), 60))


def test_every_place_and_pair_is_as_likely_over_consecutive_seeds() -> None:
    """A fifth of the draws: each seed is a call of its own."""
    drawn = torch.cat([draws(torch.tensor([7]), (6, 10), 13, seed=seed) for seed in range(DRAWS // 5)])
    assert_uniform(drawn_or_not(drawn, 60))


def test_every_place_and_pair_is_as_likely_in_ragged_grids() -> None:
    """Images of several sizes in one batch, turn and turn about; each size is judged by itself."""
    sizes, grid = torch.tensor([[6, 10], [3, 7], [6, 4], [1, 9], [5, 5]]), (6, 10)
    drawn = draws(torch.arange(DRAWS), grid, 5, valid=sizes[torch.arange(DRAWS) % 5])
    for number, (rows, columns) in enumerate(sizes.tolist()):
        mine = drawn[number::5]
        row, column = mine // grid[1], mine % grid[1]
        assert (row < rows).all() and (column < columns).all()
        assert_uniform(drawn_or_not(row * columns + column, rows * columns))


def test_neighbouring_keys_and_seeds_draw_independently() -> None:
    keys = torch.arange(DRAWS)
    chosen = [drawn_or_not(draws(keys, (6, 10), 13, seed=seed), 60) for seed in (4, 5)]
    for first, second in [(chosen[0][::2], chosen[0][1::2]), chosen]:
        assert SIGNIFICANCE < p_of_overlap(first, second) < 1 - SIGNIFICANCE


def test_wrong_samplers_are_seen() -> None:
    """Unequal places; equal places of which neighbours come together; and draws that repeat each other."""
    source = torch.Generator().manual_seed(0)
    words = torch.rand(DRAWS // 5, 20, generator=source)
    right = drawn_or_not(words.argsort(1)[:, :5], 20)
    assert_uniform(right)
    words[:, 0] *= 0.9
    assert p_of_places(drawn_or_not(words.argsort(1)[:, :5], 20)) < SIGNIFICANCE
    start = torch.randint(0, 20, (DRAWS // 5, 1), generator=source)
    together = drawn_or_not((start + 4 * torch.arange(5)) % 20, 20)
    assert p_of_places(together) > SIGNIFICANCE > p_of_pairs(together)
    often = torch.where(torch.rand(DRAWS // 5, 1, generator=source) < 0.05, right, right.roll(1, 0))
    assert p_of_overlap(right, often) < SIGNIFICANCE < p_of_overlap(right[::2], right[1::2])
