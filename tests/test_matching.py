"""Matched and mismatched captions: balanced texts, and never a mismatched one that is right."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_fast.data.truth import is_true
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.pretraining.matching import Matcher, plan_epoch, share_out

COLOURS = ("red", "blue", "green", "grey", "black")
SHAPES = ("circle", "square", "star", "cross")


def made_up(images, seed=0):
    """Captions, facts and scenes of images that show 1 to 3 objects; many captions fit many of them."""
    stream = np.random.default_rng(seed)
    captions, facts, scenes = [], [], []
    for _ in range(images):
        looks = [
            {"colour": COLOURS[stream.integers(5)], "shape": SHAPES[stream.integers(4)]}
            for _ in range(stream.integers(1, 4))
        ]
        objects = [{"attributes": look, "box": [0, 0, 9, 9]} for look in looks]
        look = looks[0]
        own = [
            (f"a {look['colour']} {look['shape']}", {"exist": [look]}),
            (f"something {look['colour']}", {"exist": [{"colour": look["colour"]}]}),
            (f"there is a {look['shape']}", {"exist": [{"shape": look["shape"]}]}),
            (f"{len(looks)} things", {"count": [{}, len(looks)]}),
            (
                f"{len(looks)} things, one {look['colour']}",
                {"all": [{"count": [{}, len(looks)]}, {"exist": [look]}]},
            ),
        ]
        captions.append([text for text, _ in own])
        facts.append([json.dumps(fact) for _, fact in own])
        scenes.append(json.dumps({"objects": objects, "ground": {}}))
    return captions, facts, scenes


def pairs_of(plan):
    """(row, owner of the caption, number of the caption) of every mismatched pair."""
    return [(row, *pair) for row, own in enumerate(plan.mismatched.tolist()) for pair in own if pair[1] >= 0]


def texts_of(plan, captions):
    true = Counter(captions[row][n] for row, own in enumerate(plan.matched) for n in own if n >= 0)
    return true, Counter(captions[owner][number] for _, owner, number in pairs_of(plan))


@given(images=st.integers(2, 60), seed=st.integers(0, 99), epoch=st.integers(0, 20), half=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_every_text_is_as_often_true_as_false(images, seed, epoch, half):
    captions, facts, scenes = made_up(images, seed)
    plan = plan_epoch(captions, seed, epoch, 2 * half, 0.5, facts, scenes)
    true, false = texts_of(plan, captions)
    assert true == false
    assert sum(false.values()) == images * half - plan.dropped


@given(images=st.integers(2, 60), seed=st.integers(0, 99), epoch=st.integers(0, 20))
@settings(deadline=None, max_examples=60)
def test_a_mismatched_caption_is_false_of_its_image(images, seed, epoch):
    captions, facts, scenes = made_up(images, seed)
    for row, owner, number in pairs_of(plan_epoch(captions, seed, epoch, 4, 0.5, facts, scenes)):
        assert not is_true(json.loads(facts[owner][number]), json.loads(scenes[row]))
        assert captions[owner][number] not in captions[row]


def test_without_facts_it_is_foreign_and_no_text_of_the_images_own():
    # Half of all captions are one of two texts: chance alone would give many of them to their own images.
    captions = [["a photo" if row % 2 else "a picture", f"number {row}"] for row in range(40)]
    for epoch in range(5):
        plan = plan_epoch(captions, 0, epoch, 2, 0.5)
        assert plan.dropped == 0
        for row, owner, number in pairs_of(plan):
            assert owner != row
            assert captions[owner][number] not in captions[row]


def test_large_sets_of_facts_are_all_placed():
    captions, facts, scenes = made_up(12_500)
    plan = Matcher(captions, facts, scenes).plan(1, 0, 8, 0.5)
    assert len(pairs_of(plan)) == 50_000
    assert plan.dropped == 0
    worlds = [json.loads(scene) for scene in scenes]
    for row, owner, number in pairs_of(plan)[::50]:
        assert not is_true(json.loads(facts[owner][number]), worlds[row])


def test_a_caption_false_of_nothing_leaves_both_sides():
    captions, facts, scenes = made_up(30)
    for own, known in zip(captions, facts, strict=True):
        own[:] = ["there is a thing", own[0]]
        known[:] = [json.dumps({"exist": [{}]}), known[0]]
    plan = plan_epoch(captions, 0, 0, 4, 0.5, facts, scenes)
    true, false = texts_of(plan, captions)
    assert "there is a thing" not in true + false
    assert plan.dropped == 30
    assert sum(true.values()) == sum(false.values()) == 30


@pytest.mark.parametrize(
    ("per_image", "share", "split"), [(4, 0.25, (3, 1)), (4, 0.75, (1, 3)), (5, 0.5, (3, 2))]
)
def test_other_shares_use_texts_as_evenly_as_can_be(per_image, share, split):
    captions = [[f"caption {row} {number}" for number in range(5)] for row in range(50)]
    plan = plan_epoch(captions, 0, 0, per_image, share)
    assert (plan.matched.shape[1], plan.mismatched.shape[1]) == split
    true, false = texts_of(plan, captions)
    assert set(true.values()) == {1}
    assert set(false) <= set(true)
    quotient = sum(false.values()) / sum(true.values())
    assert set(false.values()) <= {int(quotient), int(np.ceil(quotient))}


def test_an_image_shows_new_captions_until_they_are_used_up():
    captions = [[f"caption {row} {number}" for number in range(4)] for row in range(30)]
    matcher = Matcher(captions)
    for cycle in range(3):
        shown = np.concatenate(
            [matcher.plan(0, 2 * cycle + part, 4, 0.5).matched for part in range(2)], axis=1
        )
        assert (np.sort(shown, axis=1) == np.arange(4)).all()
    # Another shuffle in another cycle: all 30 images alike would be one chance in 24**30.
    assert (matcher.plan(0, 0, 4, 0.5).matched != matcher.plan(0, 2, 4, 0.5).matched).any()


def test_more_captions_than_there_are_come_again_in_turn():
    plan = plan_epoch([["a", "b", "c"], ["d"]], 0, 0, 5, 0.0)
    assert sorted(Counter(plan.matched[0].tolist()).values()) == [1, 2, 2]
    assert plan.matched[1].tolist() == [0] * 5
    assert plan.mismatched.shape == (2, 0, 2)


def test_a_plan_is_a_function_of_seed_and_epoch():
    captions, facts, scenes = made_up(50)
    matcher = Matcher(captions, facts, scenes)
    first = matcher.plan(3, 4, 4, 0.5)
    matcher.plan(9, 9, 4, 0.5)
    again, later = plan_epoch(captions, 3, 4, 4, 0.5, facts, scenes), matcher.plan(3, 5, 4, 0.5)
    np.testing.assert_array_equal(first.matched, again.matched)
    np.testing.assert_array_equal(first.mismatched, again.mismatched)
    assert (first.mismatched != later.mismatched).any()


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="cannot be made of 1 captions"):
        share_out(1, 0.5)
    with pytest.raises(UserError, match="below 1"):
        share_out(4, 1.0)
    with pytest.raises(UserError, match="at least 2 images"):
        plan_epoch([["a", "b"]], 0, 0, 2, 0.5)
    with pytest.raises(UserError, match="image 1 of the split has no caption"):
        Matcher([["a"], []])
    with pytest.raises(UserError, match="one to one"):
        Matcher([["a", "b"]], [["{}"]], ["{}"])
