"""What captions claim: each form of fact on scenes small enough to judge by eye."""

import json

import pytest

from pixelbert_fast.data.truth import RELATION_MARGIN, is_true, matches, offset, parse


def thing(x, y, half=10, **attributes):
    return {"attributes": attributes, "box": [x - half, y - half, x + half, y + half]}


SCENE = {
    "objects": [
        thing(20, 20, shape="circle", colour="red"),
        thing(60, 22, shape="star", colour="red"),
        thing(60, 70, shape="circle", colour="blue"),
    ],
    "ground": {"colour": "grey", "texture": "plain"},
}
RED, CIRCLE, STAR = {"colour": "red"}, {"shape": "circle"}, {"shape": "star"}
RED_CIRCLE, BLUE_CIRCLE = {**RED, **CIRCLE}, {"colour": "blue", **CIRCLE}


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        ({"exist": [RED_CIRCLE]}, True),
        ({"exist": [{"colour": "blue", "shape": "star"}]}, False),
        ({"exist": [{}, {}, {}]}, True),
        ({"exist": [{}, {}, {}, {}]}, False),
        ({"exist": [RED, RED]}, True),
        # One object cannot stand for two descriptions ...
        ({"exist": [STAR, {"shape": "star", "colour": "red"}]}, False),
        # ... and the general description must leave the only red circle to the particular one.
        ({"exist": [CIRCLE, RED_CIRCLE]}, True),
        ({"exist": [RED, RED_CIRCLE, BLUE_CIRCLE]}, True),
        ({"exist": [RED, RED, RED_CIRCLE]}, False),
        ({"count": [RED, 2]}, True),
        ({"count": [RED, 1]}, False),
        ({"count": [{"shape": "heart"}, 0]}, True),
        ({"count": [{}, 3]}, True),
        ({"relation": [RED_CIRCLE, "left of", STAR]}, True),
        ({"relation": [RED_CIRCLE, "right of", STAR]}, False),
        ({"relation": [STAR, "right of", RED_CIRCLE]}, True),
        ({"relation": [RED_CIRCLE, "above", BLUE_CIRCLE]}, True),
        ({"relation": [BLUE_CIRCLE, "below", RED_CIRCLE]}, True),
        # Two pixels of 20 apart: neither above nor below.
        ({"relation": [RED_CIRCLE, "above", STAR]}, False),
        ({"relation": [STAR, "below", RED_CIRCLE]}, False),
        # Nothing stands beside itself, but some circle stands beside another.
        ({"relation": [STAR, "above", STAR]}, False),
        ({"relation": [CIRCLE, "above", CIRCLE]}, True),
        ({"ground": {"colour": "grey"}}, True),
        ({"ground": {"colour": "grey", "texture": "noisy"}}, False),
        ({"all": [{"exist": [RED_CIRCLE]}, {"ground": {"texture": "plain"}}]}, True),
        ({"all": [{"exist": [RED_CIRCLE]}, {"count": [{}, 2]}]}, False),
        ({"all": []}, True),
    ],
)
def test_facts(fact, expected):
    assert is_true(fact, SCENE) is expected
    assert is_true(parse(json.dumps(fact)), parse(json.dumps(SCENE))) is expected


def test_margin_of_a_relation_is_a_share_of_the_mean_extent():
    first = thing(0, 0, half=10, shape="circle")
    for half, sign in ((10, 1), (30, 1), (10, -1)):
        extent = 10 + half
        for share, expected in ((RELATION_MARGIN + 0.01, True), (RELATION_MARGIN - 0.01, False)):
            second = thing(sign * share * extent, 0, half=half, shape="star")
            name = "left of" if sign > 0 else "right of"
            assert is_true({"relation": [CIRCLE, name, STAR]}, {"objects": [first, second]}) is expected
            assert offset(first, second, name) == pytest.approx(share)


def test_attributes_may_be_of_any_name():
    stamp = thing(5, 5, object="soccer ball", category="sports")
    assert matches({"object": "soccer ball"}, stamp)
    assert not matches({"shape": "circle"}, stamp)
    assert is_true({"exist": [{"category": "sports"}]}, {"objects": [stamp]})
    assert not is_true({"ground": {"colour": "grey"}}, {"objects": [stamp]})


@pytest.mark.parametrize(
    "fact", [{}, {"exist": [], "count": [{}, 0]}, {"exists": [{}]}, {"relation": [STAR, "near", STAR]}]
)
def test_malformed_facts_are_errors_and_not_false(fact):
    with pytest.raises(ValueError, match=r"fact|relation"):
        is_true(fact, SCENE)
