"""Statements in batches by the images they share."""

from __future__ import annotations

import numpy as np
import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.nlvr2.sharing import SharedPairs


def stream(seed=0):
    return np.random.default_rng(seed)


def images_read(sides, batches):
    return sum(len(np.unique(sides[one])) for one in batches)


@pytest.mark.parametrize("most", [1, 4, 7, 64, 1000])
@pytest.mark.parametrize("images", [3, 40, 5000])
def test_every_statement_is_in_one_batch_and_all_are_full_but_the_last(most, images):
    sides = stream(1).integers(0, images, (500, 2))
    batches = SharedPairs(sides).batches(most, stream())
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert [len(one) for one in batches[:-1]] == [most] * (-(-500 // most) - 1)


def test_what_is_said_of_one_pair_of_images_stays_together():
    # As the official set is made: two statements each about pairs that share no image.
    pairs = np.arange(400).reshape(200, 2)
    sides = stream(2).permutation(np.repeat(pairs, 2, axis=0))
    sides[::3] = sides[::3, ::-1]  # the other way round it is the same pair
    batches = SharedPairs(sides).batches(10, stream())
    assert images_read(sides, batches) == 400
    # An odd number of places leaves room for half a pair of statements in each batch.
    odd = SharedPairs(sides).batches(9, stream())
    divided = images_read(sides, odd) - 400
    assert divided <= 2 * len(odd)


def test_pairs_with_fewer_statements_fill_the_last_places():
    pairs = np.arange(400).reshape(200, 2)
    sides = np.concatenate([np.repeat(pairs[:20], 3, axis=0), pairs[20:]])
    for seed in range(5):
        batches = SharedPairs(sides).batches(4, stream(seed))
        assert images_read(sides, batches) == 400


def test_a_pair_with_more_statements_than_a_batch_is_divided():
    sides = np.tile([[0, 1]], (10, 1))
    assert [len(one) for one in SharedPairs(sides).batches(4, stream())] == [4, 4, 2]


def test_pairs_that_share_an_image_come_together():
    # Each image is in about two statements: read one by one, a batch has nearly two images a statement.
    sides = np.stack([np.arange(1000), stream(3).permutation(1000)], axis=1)
    together = images_read(sides, SharedPairs(sides).batches(50, stream()))
    apart = images_read(sides, np.split(stream().permutation(1000), 20))
    assert apart > 1900
    assert together < 1300


def test_the_stream_alone_decides():
    sides = stream(4).integers(0, 90, (200, 2))
    first, again = (SharedPairs(sides).batches(16, stream(5)) for _ in range(2))
    other = SharedPairs(sides).batches(16, stream(6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(np.concatenate(first), np.concatenate(other))


def test_nothing_to_batch_is_said():
    with pytest.raises(UserError, match="no statements"):
        SharedPairs(np.zeros((0, 2), dtype=np.int64))
