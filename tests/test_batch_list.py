"""An epoch's list of batches: everything once, one group a batch, within the bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_fast.data.batch_list import Batching, list_batches
from pixelbert_fast.errors import UserError

AREAS = np.array([100, 160, 70, 100])


@given(
    n=st.integers(1, 200),
    images=st.integers(1, 20),
    pixels=st.none() | st.integers(160, 2000),
    tokens=st.none() | st.integers(60, 400),
    alike=st.integers(1, 9),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 9),
)
@settings(deadline=None, max_examples=200)
def test_every_sample_once_in_a_batch_of_its_group_within_the_bounds(
    n, images, pixels, tokens, alike, seed, epoch
):
    random = np.random.default_rng(seed + n)
    group, longest = random.integers(0, 4, n), random.integers(1, 16, n)
    batching = Batching(pixels=pixels, tokens=tokens, alike=alike)
    listed = list_batches(group, AREAS, images, batching, seed, epoch, longest, sequences=4)
    assert sorted(listed.samples) == list(range(n))
    assert listed.starts[0] == 0 and listed.starts[-1] == n
    unfinished = {}
    for number in range(len(listed)):
        own = listed[number]
        assert 1 <= len(own) <= images
        kind = group[own[0]]
        assert (group[own] == kind).all()
        assert pixels is None or len(own) * AREAS[kind] <= pixels
        assert tokens is None or len(own) * 4 * longest[own].max() <= tokens
        most = images if pixels is None else min(images, pixels // AREAS[kind])
        unfinished[kind] = unfinished.get(kind, 0) + (len(own) < most)
    # Without a bound on tokens, only a group's last batch is not full.
    assert tokens is not None or max(unfinished.values()) <= 1
    again = list_batches(group, AREAS, images, batching, seed, epoch, longest, sequences=4)
    np.testing.assert_array_equal(again.samples, listed.samples)


def test_batches_of_one_group_come_in_runs():
    group = np.repeat(np.arange(4), [1000, 500, 300, 203])
    listed = list_batches(group, AREAS, 10, Batching(alike=8), 0, 0)
    kinds = np.array([group[listed[number][0]] for number in range(len(listed))])
    runs = kinds[: len(kinds) // 8 * 8].reshape(-1, 8)
    # 12, 6, 3 and 2 runs of one group each; what is over makes runs of its own.
    assert sum(len(set(run)) == 1 for run in runs.tolist()) >= 23
    first = [run[0] for run in runs.tolist() if len(set(run)) == 1]
    assert first != sorted(first)


def test_epochs_and_seeds_differ():
    group = np.zeros(500, dtype=np.int64)
    first = list_batches(group, AREAS, 10, Batching(), 3, 7).samples
    for seed, epoch in ((3, 8), (7, 3), (4, 7)):
        # Two random orders of 500 agree in one place on average, in 12 hardly ever.
        assert (list_batches(group, AREAS, 10, Batching(), seed, epoch).samples == first).sum() < 12


def test_what_cannot_fit_is_told_before_training():
    group, longest = np.array([0, 1]), np.array([3, 30])
    with pytest.raises(UserError, match=r"159 pixels .data.batching.pixels. and one image can take 160"):
        list_batches(group, AREAS, 4, Batching(pixels=159), 0, 0)
    with pytest.raises(
        UserError, match=r"119 tokens .data.batching.tokens. and one image's texts can take 120"
    ):
        list_batches(group, AREAS, 4, Batching(tokens=119), 0, 0, longest, 4)
    with pytest.raises(UserError, match="empty"):
        list_batches(group[:0], AREAS, 4, Batching(), 0, 0)
    with pytest.raises(UserError, match="at least 1 sample"):
        list_batches(group, AREAS, 0, Batching(), 0, 0)
