"""What epochs show: sets by weight, and captions without repetition until all have come."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_fast.data.mixing import captions_by_part, captions_by_turn, showings

WEIGHTS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, 1.7, 2.0, 3.25])


@given(parts=st.lists(st.integers(1, 5), max_size=30), weight=WEIGHTS, epochs=st.integers(1, 8))
@settings(deadline=None, max_examples=150)
def test_epochs_one_after_the_other_are_whole_passes(parts, weight, epochs):
    parts = np.array(parts, dtype=np.int64)
    seen = Counter()
    for epoch in range(epochs):
        shown = showings(parts, weight, 5, epoch)
        assert len(shown.row) in (int(weight * parts.sum()), int(weight * parts.sum()) + 1)
        seen.update(zip(shown.turn.tolist(), shown.row.tolist(), shown.part.tolist(), strict=True))
    assert not seen or max(seen.values()) == 1
    whole, over = divmod(epochs * round(100 * weight) * int(parts.sum()) // 100, max(int(parts.sum()), 1))
    turns = Counter(turn for turn, _, _ in seen)
    assert all(turns[turn] == parts.sum() for turn in range(whole))
    assert turns[whole] == over
    for _, row, part in seen:
        assert part < parts[row]


def test_halves_are_random_and_sets_differ():
    first, second = (showings(np.ones(400, dtype=np.int64), 0.5, 0, epoch).row for epoch in (0, 1))
    assert not set(first) & set(second)
    assert set(first) | set(second) == set(range(400))
    other = showings(np.ones(400, dtype=np.int64), 0.5, 0, 0, number=1).row
    # 100 of 200 are expected in both halves, with a deviation of 5.
    assert 60 < len(set(first) & set(other)) < 140


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    each=st.integers(1, 5),
    weight=st.sampled_from([0.5, 1.0, 2.0]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=150)
def test_captions_come_again_when_all_have_come(counts, each, weight, seed):
    counts = np.array(counts)
    streams = {row: [] for row in range(len(counts))}
    for epoch in range(12):
        shown = showings(np.ones_like(counts), weight, seed, epoch)
        drawn = captions_by_turn(counts, shown, each, seed)
        assert drawn.shape == (len(shown.row), each)
        for row, turn, own in zip(shown.row.tolist(), shown.turn.tolist(), drawn.tolist(), strict=True):
            real = [number for number in own if number >= 0]
            assert len(real) == len(set(real)) == min(each, counts[row])
            assert own[len(real) :] == [-1] * (each - len(real))
            streams[row].append((turn, real))
    for row, found in streams.items():
        stream = [number for _, real in sorted(found) for number in real]
        whole = len(stream) // counts[row] * counts[row]
        for shuffle in np.array(stream[:whole]).reshape(-1, counts[row]).tolist():
            assert sorted(shuffle) == list(range(counts[row]))
        assert len(set(stream[whole:])) == len(stream) - whole


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    each=st.integers(1, 5),
    weight=st.sampled_from([1.0, 2.0]),
    epoch=st.integers(0, 5),
)
@settings(deadline=None, max_examples=100)
def test_a_pass_over_captions_shows_each_once(counts, each, weight, epoch):
    counts = np.array(counts)
    parts = -(-counts // each)
    shown = showings(parts, weight, 3, epoch)
    drawn = captions_by_part(counts, shown, each, 3)
    assert (drawn >= 0).any(axis=1).all()
    for turn in np.unique(shown.turn):
        for row in range(len(counts)):
            own = drawn[(shown.turn == turn) & (shown.row == row)]
            assert sorted(own[own >= 0]) == list(range(counts[row]))


def test_orders_are_random():
    counts = np.full(300, 5)
    orders = [captions_by_turn(counts, showings(np.ones(300, int), 1, 0, epoch), 2, 0) for epoch in range(15)]
    for epoch in range(15):
        # Each of 5 captions first for a fifth of 300 images, within 6 deviations of 7.
        assert np.abs(np.bincount(orders[epoch][:, 0], minlength=5) - 60).max() < 42
    assert not np.array_equal(orders[0], orders[5])
