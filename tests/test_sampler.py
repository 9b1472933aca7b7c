"""The order of samples: nothing lost, nothing repeated, a function of its arguments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_fast.data import sampler
from pixelbert_fast.errors import UserError

SIZES = {"n": st.integers(1, 300), "batch": st.integers(1, 17), "world": st.integers(1, 5)}


def side_by_side(n, batch, seed, epoch, world):
    """All ranks' batches in the order in which the steps show them."""
    ranks = [sampler.batches(n, batch, seed, epoch, rank, world) for rank in range(world)]
    return np.concatenate([np.concatenate(step) for step in zip(*ranks, strict=True)])


@given(**SIZES, seed=st.integers(0, 2**40), epoch=st.integers(0, 100))
@settings(deadline=None, max_examples=150)
def test_an_epoch_shows_every_sample_once_and_fills_up_from_its_beginning(n, batch, world, seed, epoch):
    shown = side_by_side(n, batch, seed, epoch, world)
    assert sorted(shown[:n]) == list(range(n))
    assert len(shown) - n < batch * world
    np.testing.assert_array_equal(shown, np.resize(shown[:n], len(shown)))


@given(**SIZES)
@settings(deadline=None, max_examples=50)
def test_every_rank_makes_the_same_number_of_equal_steps(n, batch, world):
    for rank in range(world):
        steps = sampler.batches(n, batch, 3, 1, rank, world)
        assert len(steps) == sampler.steps_per_epoch(n, batch, world)
        assert {len(rows) for rows in steps} == {batch}


def test_the_global_batch_does_not_depend_on_how_many_ranks_share_it():
    together = side_by_side(100, 8, 5, 2, 1)
    np.testing.assert_array_equal(together, side_by_side(100, 2, 5, 2, 4))


def test_order_is_a_function_of_seed_and_epoch():
    first = sampler.epoch_order(200, 7, 3)
    np.random.default_rng(0).random(5)
    np.testing.assert_array_equal(first, sampler.epoch_order(200, 7, 3))
    for other in (
        sampler.epoch_order(200, 7, 4),
        sampler.epoch_order(200, 8, 3),
        sampler.epoch_order(200, 3, 7),
    ):
        # 200 samples in two independent orders agree in 1 place on average, in 10 almost never.
        assert (first == other).sum() < 10


def test_streams_of_different_names_differ():
    names = [(0,), (1,), (0, 0), (0, 1), (1, 0), (2**32,), (2**32, 1), (2**33 + 1,)]
    draws = {sampler.random_stream(*name).integers(2**63) for name in names}
    assert len(draws) == len(names)


@given(**SIZES, cut=st.lists(st.tuples(st.integers(1, 7), st.integers(0, 9)), max_size=3))
@settings(deadline=None, max_examples=100)
def test_other_numbers_of_ranks_see_exactly_the_rest(n, batch, world, cut):
    """A run of any number of sittings, each (ranks, steps), and at last one to the epoch's end."""
    whole = np.concatenate(sampler.batches(n, batch, 3, 1))
    listed, start, seen = len(whole) // batch, 0, []
    for ranks, wanted in [*cut, (world, None)]:
        steps = sampler.steps_per_epoch(n, batch, ranks, start)
        rows = [sampler.batches(n, batch, 3, 1, rank, ranks, start) for rank in range(ranks)]
        numbers = [sampler.shares(listed, rank, ranks, start) for rank in range(ranks)]
        assert {len(one) for one in rows} == {len(one) for one in numbers} == {steps}
        # The last step ends the epoch: a run is never stopped within it.
        done = steps if wanted is None else min(wanted, steps - 1)
        for step in range(done):
            seen += [(int(numbers[rank][step]), rows[rank][step]) for rank in range(ranks)]
        start += done * ranks
    assert [number for number, _ in seen[:listed]] == list(range(listed))
    np.testing.assert_array_equal(np.concatenate([row for _, row in seen[:listed]]), whole)
    # What is shown again is of the last step alone.
    assert len(seen) - listed < world
    assert {number for number, _ in seen[listed:]} <= {number for number, _ in seen[-world:listed]}


def test_a_list_of_batches_shorter_than_the_ranks_are_many():
    assert [sampler.shares(3, rank, 7).tolist() for rank in range(7)] == [[0], [1], [2], [0], [1], [2], [0]]
    assert sampler.shares(0, 0, 1).tolist() == []
    assert sampler.shares(5, 0, 2, start=5).tolist() == []
    with pytest.raises(ValueError, match="start must not be negative"):
        sampler.shares(5, 0, 1, start=-1)


def test_wrong_arguments_are_refused():
    with pytest.raises(UserError, match="empty"):
        sampler.batches(0, 4, 0, 0)
    with pytest.raises(UserError, match="at least 1 sample"):
        sampler.batches(10, 0, 0, 0)
    with pytest.raises(UserError, match="seed must not be negative"):
        sampler.batches(10, 2, -1, 0)
    with pytest.raises(ValueError, match=r"rank must be in 0 \.\. 1, got 2"):
        sampler.batches(10, 2, 0, 0, rank=2, world_size=2)
