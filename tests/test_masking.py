"""The statistics of masking, within what the binomial distribution allows."""

import numpy as np
import pytest

from pixelbert_fast.tasks.pretraining.masking import IGNORED, mask_tokens

VOCABULARY, MASK = 1000, 4
SHAPE = (500, 40)


def tokens(seed=0):
    ids = np.random.default_rng(seed).integers(5, VOCABULARY, SHAPE)
    special = np.zeros(SHAPE, dtype=bool)
    special[:, 0] = special[:, 30:] = True
    return ids, special


def assert_share(hits, trials, probability):
    """Six standard deviations: a right implementation fails once in 5e8 draws of the seed."""
    deviation = (probability * (1 - probability) / trials) ** 0.5
    assert abs(hits / trials - probability) < 6 * deviation, (hits / trials, probability)


def masked(probability=0.15, seed=1):
    ids, special = tokens()
    return (
        ids,
        special,
        *mask_tokens(ids, special, VOCABULARY, MASK, probability, np.random.default_rng(seed)),
    )


@pytest.mark.parametrize("probability", [0.15, 0.5])
def test_tokens_are_chosen_and_replaced_in_berts_shares(probability):
    ids, special, inputs, labels = masked(probability)
    chosen = labels != IGNORED
    assert_share(chosen.sum(), (~special).sum(), probability)
    assert_share((inputs[chosen] == MASK).sum(), chosen.sum(), 0.8)
    # A random token is the original one once in a vocabulary.
    assert_share((inputs[chosen] == ids[chosen]).sum(), chosen.sum(), 0.1 + 0.1 / VOCABULARY)
    other = chosen & (inputs != MASK) & (inputs != ids)
    assert_share((inputs[other] >= VOCABULARY // 2).sum(), other.sum(), 0.5)


def test_labels_are_the_originals_and_the_rest_is_untouched():
    ids, special, inputs, labels = masked()
    chosen = labels != IGNORED
    np.testing.assert_array_equal(labels[chosen], ids[chosen])
    np.testing.assert_array_equal(inputs[~chosen], ids[~chosen])
    assert not (chosen & special).any()


def test_every_place_is_chosen_alike():
    _, _, _, labels = masked(0.5)
    for column in range(1, 30):
        assert_share((labels[:, column] != IGNORED).sum(), SHAPE[0], 0.5)


def test_probability_0_and_1():
    ids, special, inputs, labels = masked(0.0)
    assert (labels == IGNORED).all()
    np.testing.assert_array_equal(inputs, ids)
    _, _, _, labels = masked(1.0)
    np.testing.assert_array_equal(labels != IGNORED, ~special)


def test_draws_depend_on_the_generator_and_not_on_the_tokens():
    _, special, _, labels = masked(seed=1)
    other, _ = tokens(seed=5)
    same = mask_tokens(other, special, VOCABULARY, MASK, 0.15, np.random.default_rng(1))[1]
    np.testing.assert_array_equal(labels == IGNORED, same == IGNORED)
    assert ((masked(seed=2)[3] == IGNORED) != (labels == IGNORED)).any()
