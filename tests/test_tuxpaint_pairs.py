"""Statements about two scenes of `tuxpaint-pairs`: true once, false once, of images of their own split."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import pytest

from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import open_set
from pixelbert_fast.data.scenes.pairs import pair_is_true
from pixelbert_fast.data.truth import parse
from pixelbert_fast.data.tuxpaint.builder import Tuxpaint, TuxpaintPairs
from pixelbert_fast.data.tuxpaint.pairs import FORMS, STATEMENTS_PER_IMAGE, state_pairs
from tests.tuxpaint_stamps import make_stamps


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    return make_stamps(tmp_path_factory.mktemp("stamps"))


@pytest.fixture(scope="module")
def built(stamps, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "set"
    build_set(make_builder("tuxpaint-pairs", source=str(stamps), images=200, size=64), out, workers=1)
    return open_set(out)


def test_every_statement_is_what_its_label_says(built):
    forms = Counter()
    for name in built.splits:
        scenes = [parse(scene) for scene in built.split(name)["scene"][:]]
        pairs = built.pairs(name)
        assert len(pairs) == len(scenes) * STATEMENTS_PER_IMAGE
        for one in pairs:
            fact = json.loads(one["fact"])
            forms.update(list(fact))
            assert one["left"] != one["right"]
            assert pair_is_true(fact, scenes[one["left"]], scenes[one["right"]]) == one["label"]
    assert set(forms) == set(FORMS)


def test_words_alone_tell_nothing(built):
    for name in built.splits:
        said = Counter((one["statement"], one["label"]) for one in built.pairs(name))
        assert all(said[text, True] == said[text, False] for text, _ in said)


def test_the_side_matters(built):
    """Many false pairs are a true pair the other way round."""
    pairs = [one for one in built.pairs("train") if next(iter(json.loads(one["fact"]))) in ("left", "right")]
    true = {(one["statement"], one["left"], one["right"]) for one in pairs if one["label"]}
    turned = [(one["statement"], one["right"], one["left"]) in true for one in pairs if not one["label"]]
    # One in two is tried so, and few of them fail.
    assert 0.35 < sum(turned) / len(turned) < 0.65


def test_images_are_those_of_tuxpaint(stamps):
    plain, with_pairs = (kind(stamps, images=20, seed=2, size=64) for kind in (Tuxpaint, TuxpaintPairs))
    assert plain.plan().splits == with_pairs.plan().splits
    spec = plain.plan().splits["test"][0]
    assert plain.render(spec) == with_pairs.render(spec)
    assert plain.plan().pairs is None
    assert with_pairs.plan().pairs == TuxpaintPairs(stamps, images=20, seed=2, size=64).plan().pairs


def test_counts_and_absence_are_said_right():
    def scene(*categories):
        return {"objects": [{"attributes": {"category": one, "concept": one}} for one in categories]}

    scenes = [scene("animals", "animals"), scene("flowers"), scene("vehicles", "animals"), scene("food")]
    told = [
        [("a thing", {"exist": [{"concept": one["objects"][0]["attributes"]["concept"]}]})] for one in scenes
    ]
    said = {one["statement"]: one for seed in range(30) for one in state_pairs(Random(seed), scenes, told)}
    assert "the two images together show exactly one animal" in said
    assert "the two images together show exactly three animals" in said
    assert "neither image shows an animal" in said
    assert "there are more objects in the left image than in the other" in said
    assert not any("exactly no" in text for text in said)


def test_too_few_scenes_have_no_statements():
    assert state_pairs(Random(0), [{"objects": []}] * 3, [[]] * 3) == []
