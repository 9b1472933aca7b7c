"""The size plan: few sizes, bounded changes of proportions, every image within its bucket."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_fast.data.resizing import target_size
from pixelbert_fast.data.sizes import plan_sizes, target_sizes
from pixelbert_fast.errors import UserError

SIDES = st.integers(1, 5000)
IMAGES = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=40)
RULES = st.sampled_from([(800, 1333, 1), (800, 1333, 32), (600, 1000, 64), (64, 64, 1), (100, 250, 16)])


@given(sizes=IMAGES, rule=RULES)
@settings(deadline=None, max_examples=150)
def test_many_sizes_at_once_follow_the_rule(sizes, rule):
    expected = [target_size(height, width, *rule) for height, width in sizes]
    assert target_sizes(np.array(sizes), *rule).tolist() == [list(size) for size in expected]
    thicker = [target_size(height, width, *rule, least_side=33) for height, width in sizes]
    assert target_sizes(np.array(sizes), *rule, least_side=33).tolist() == [list(size) for size in thicker]


@given(
    sizes=IMAGES,
    rule=RULES,
    buckets=st.integers(1, 9),
    change=st.sampled_from([0.0, 0.02, 0.08, 0.3]),
    fewest=st.integers(1, 12),
)
@settings(deadline=None, max_examples=250)
def test_every_image_lies_in_a_bucket_of_its_own_proportions(sizes, rule, buckets, change, fewest):
    height, width = np.array(sizes).T
    short, long, divisor = rule
    options = {"buckets": buckets, "aspect_change": change, "fewest": fewest, "least_side": 32}
    plan = plan_sizes(height, width, *rule, **options)
    assert 1 <= len(plan.buckets) <= buckets
    assert (plan.buckets % divisor == 0).all()
    assert (plan.size <= plan.buckets[plan.bucket]).all()
    # Of padded and of shrunk ones too: the model finds a place in each.
    assert (plan.size >= 32).all()
    # Rounding to the divisor may pass the rule's sides by less than one divisor.
    assert (plan.buckets.max(axis=1) < long + divisor).all()
    for row, (own, size) in enumerate(zip(sizes, plan.size.tolist(), strict=True)):
        ratio = (size[1] / size[0]) / (own[1] / own[0])
        if not plan.padded[row]:
            exact = target_sizes([own], short, long, 1, 32).tolist()[0] == size
            within = max(ratio, 1 / ratio) <= (1 + change) * (1 + 1e-6)
            assert within or exact or size == list(plan.canvas(row))
        if within_reach(own, plan.buckets, change):
            assert max(ratio, 1 / ratio) <= (1 + change) * (1 + 1e-6) or plan.padded[row]
    again = plan_sizes(height[::-1], width[::-1], *rule, **options)
    np.testing.assert_array_equal(again.size[::-1], plan.size)


def within_reach(own, buckets, change):
    ratios = (buckets[:, 1] / buckets[:, 0]) / (own[1] / own[0])
    return (np.maximum(ratios, 1 / ratios) <= 1 + change).any()


def photographs():
    """2,000 images of the commonest shapes, and 21 of rare shapes."""
    common = [(480, 640)] * 1000 + [(640, 480)] * 500 + [(427, 640)] * 400 + [(500, 500)] * 100
    odd = [(200, 1000)] * 6 + [(160, 1000)] * 5 + [(1000, 200)] * 5 + [(1200, 200)] * 4 + [(3, 3000)]
    return np.array(common + odd)


def test_common_shapes_fill_their_buckets_and_odd_ones_are_padded():
    sizes = photographs()
    plan = plan_sizes(*sizes.T, 800, 1333, 32, buckets=8, fewest=8, least_side=64)
    assert not plan.padded[:2000].any()
    assert plan.padded[2000:].all()
    # The paper's rule, to the pixel: 1333 / 5 = 266.
    assert plan.size[2000].tolist() == [266, 1333]
    assert plan.size[2011].tolist() == [1333, 266]
    # 1.3 pixels by the rule: the backbone finds no place there, so it is made thicker.
    assert plan.size[2020].tolist() == [64, 1333]
    # Sizes that hold the odd ones of either direction, though no 8 of them are alike.
    assert plan.canvas(2000) == (288, 1344)
    assert plan.canvas(2011) == (1344, 288)
    assert "padded" in plan.described()


def test_padded_images_have_batches_of_their_own_where_there_are_enough_of_them():
    odd = [(480, 800 + 9 * step) for step in range(20)]
    for fewest, apart in ((16, True), (24, False)):
        sizes = np.array([(480, 640)] * 100 + [(480, 1100)] * 100 + odd)
        plan = plan_sizes(*sizes.T, 600, 1400, 1, fewest=fewest, aspect_change=0.01)
        assert len(plan.buckets) == 2
        assert plan.padded[200:].all() and not plan.padded[:200].any()
        assert (set(plan.group[200:]) & set(plan.group[:200]) == set()) == apart


def test_images_too_few_for_a_bucket_are_made_smaller_not_given_one():
    sizes = np.array([(480, 640)] * 100 + [(900, 100)])
    alone = plan_sizes(*sizes.T, 800, 1333, 1, fewest=16)
    assert alone.buckets.tolist() == [[800, 1066]]
    assert alone.size[100].tolist() == [800, 88]
    assert (alone.group == alone.group[0]).all()
    # In proportion it would be 19 pixels wide.
    narrow = np.array([(480, 640)] * 100 + [(1000, 24)])
    thick = plan_sizes(*narrow.T, 800, 1333, 1, fewest=16, least_side=33)
    assert thick.size[100].tolist() == [800, 33]


def test_a_single_bucket_holds_everything():
    plan = plan_sizes(*photographs().T, 800, 1333, 32, buckets=1, fewest=4)
    assert plan.buckets.tolist() == [[1344, 1344]]
    np.testing.assert_array_equal(plan.size[:2], [[800, 1066], [800, 1066]])


def test_no_images_one_image_and_wrong_options():
    assert len(plan_sizes(np.zeros(0), np.zeros(0), 800, 1333).size) == 0
    assert plan_sizes(np.array([48]), np.array([64]), 600, 1000, 1, fewest=16).size.tolist() == [[600, 800]]
    with pytest.raises(UserError, match="image 1 is recorded as 0 x 7"):
        plan_sizes(np.array([5, 0]), np.array([5, 7]), 800, 1333)
    with pytest.raises(UserError, match="at least 1 bucket"):
        plan_sizes(np.array([5]), np.array([5]), 800, 1333, buckets=0)
