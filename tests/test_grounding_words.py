"""Which objects the words of a caption name: every form of caption, judged by eye."""

import json
from pathlib import Path

import pytest

from pixelbert_fast.data.records import BuiltSet
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.grounding.captions import CaptionReader


def thing(x, y, **attributes):
    return {"attributes": attributes, "box": [x - 10, y - 10, x + 10, y + 10]}


def shape(shape, colour, size, texture, place, x, y):
    return thing(x, y, shape=shape, colour=colour, size=size, texture=texture, place=place)


# Two red circles, one of them small; a red star level with the first; a blue circle at the bottom.
SCENE = {
    "objects": [
        shape("circle", "red", "large", "plain", "top left", 15, 15),
        shape("star", "red", "small", "dotted", "top right", 80, 16),
        shape("circle", "red", "small", "plain", "centre", 48, 50),
        shape("circle", "blue", "large", "striped", "bottom right", 79, 80),
    ],
    "ground": {"colour": "grey", "texture": "plain"},
}
RED, STAR, BLUE = {"colour": "red"}, {"shape": "star"}, {"colour": "blue"}
RED_CIRCLE, BLUE_CIRCLE, RED_STAR = (
    {"shape": "circle", "colour": "red"},
    {"shape": "circle", "colour": "blue"},
    {"shape": "star", "colour": "red"},
)


def photograph(name, concept, category, column, row, x, y):
    place = "middle" if column == row else f"{row} {column}"
    known = {"object": name, "concept": concept, "category": category}
    return thing(x, y, **known, column=column, row=row, place=place)


PHOTOGRAPHS = {
    "objects": [
        photograph("brown bear", "bear", "animals", "left", "top", 20, 20),
        photograph("bunch of grapes", "grapes", "food", "middle", "middle", 64, 64),
        photograph("owl", "owl", "animals", "right", "middle", 110, 62),
    ],
    "ground": {"colour": "brown", "texture": "plain"},
}
BEAR, GRAPES, OWL, ANIMAL = (
    {"concept": "bear"},
    {"concept": "grapes"},
    {"concept": "owl"},
    {"category": "animals"},
)


def reader(name):
    return CaptionReader(BuiltSet(Path("nowhere"), {"name": name, "counts": {}}))


def named(name, scene, caption, fact):
    """ "KIND WORD OBJECTS, ..." of a caption, OBJECTS as "02", the ground's as "-"; None: it was not read."""
    record = {"captions": [caption], "facts": [json.dumps(fact)], "scene": json.dumps(scene)}
    found = reader(name)(record)
    assert found.untrue == 0
    if found.unread:
        return None
    ((text, mentions),) = found.read
    return ", ".join(
        f"{one.kind} {text[one.start : one.end]} {''.join(map(str, sorted(one.objects))) or '-'}"
        for one in mentions
    )


SCENES_FORMS = [
    # A list, with each of its openings; any of the two red circles may be meant.
    (
        "a red circle and a red star",
        {"exist": [RED_CIRCLE, RED_STAR]},
        "colour red 02, noun circle 02, colour red 1, noun star 1",
    ),
    (
        "here we see two red circles and a blue circle",
        {"exist": [RED_CIRCLE, BLUE_CIRCLE, RED_CIRCLE]},
        "number two 02, colour red 02, noun circles 02, colour blue 3, noun circle 3",
    ),
    # A relation: of the red circles only the one of which it is true, though both are red circles ...
    (
        "a red circle is above a blue circle",
        {"relation": [RED_CIRCLE, "above", BLUE_CIRCLE]},
        "colour red 02, noun circle 02, relation above 023, colour blue 3, noun circle 3",
    ),
    (
        "a red circle below a red star",
        {"relation": [RED_CIRCLE, "below", RED_STAR]},
        "colour red 2, noun circle 2, relation below 12, colour red 1, noun star 1",
    ),
    (
        "a red star is to the right of a red circle",
        {"relation": [RED_STAR, "right of", RED_CIRCLE]},
        "colour red 1, noun star 1, relation right 012, colour red 02, noun circle 02",
    ),
    (
        "a red circle left of a red circle",
        {"relation": [RED_CIRCLE, "left of", RED_CIRCLE]},
        "colour red 0, noun circle 0, relation left 02, colour red 2, noun circle 2",
    ),
    # Counts: of what is denied no word names anything.
    (
        "four objects: two red circles, a red star and a blue circle",
        {"all": [{"count": [{}, 4]}, {"exist": [RED_CIRCLE, RED_STAR, BLUE_CIRCLE, RED_CIRCLE]}]},
        "number four 0123, object objects 0123, number two 02, colour red 02, noun circles 02, colour "
        "red 1, noun star 1, colour blue 3, noun circle 3",
    ),
    (
        "exactly three red objects and one blue object",
        {"all": [{"count": [RED, 3]}, {"count": [BLUE, 1]}]},
        "number three 012, colour red 012, object objects 012, number one 3, colour blue 3, object object 3",
    ),
    (
        "exactly one star",
        {"count": [STAR, 1]},
        "number one 1, noun star 1",
    ),
    (
        "a blue circle but no crosses",
        {"all": [{"exist": [BLUE_CIRCLE]}, {"count": [{"shape": "cross"}, 0]}]},
        "colour blue 3, noun circle 3",
    ),
    (
        "a red star but no green objects",
        {"all": [{"exist": [RED_STAR]}, {"count": [{"colour": "green"}, 0]}]},
        "colour red 1, noun star 1",
    ),
    # Places single one out; "in the centre" is one word, the others two.
    (
        "a red circle in the centre and a red circle at the top left",
        {"exist": [{**RED_CIRCLE, "place": "centre"}, {**RED_CIRCLE, "place": "top left"}]},
        "colour red 2, noun circle 2, place centre 2, colour red 0, noun circle 0, place top 0, place left 0",
    ),
    (
        "at the bottom right a blue circle and in the centre a red circle",
        {"exist": [{**BLUE_CIRCLE, "place": "bottom right"}, {**RED_CIRCLE, "place": "centre"}]},
        "place bottom 3, place right 3, colour blue 3, noun circle 3, place centre 2, colour red 2, "
        "noun circle 2",
    ),
    # Details; "plain" is said of a thing and of the ground, and names what it is said of.
    (
        "a small plain red circle on a plain grey ground",
        {
            "all": [
                {"exist": [{**RED_CIRCLE, "size": "small", "texture": "plain"}]},
                {"ground": {"colour": "grey", "texture": "plain"}},
            ]
        },
        "size small 2, texture plain 2, colour red 2, noun circle 2, ground plain -, ground grey -, "
        "ground ground -",
    ),
    # The caption that singles out its image.
    (
        "only four objects: red circle top left, red star top right, red circle centre and blue circle "
        "bottom right on a plain grey ground",
        {
            "all": [
                {"count": [{}, 4]},
                {
                    "exist": [
                        {**RED_CIRCLE, "place": "top left"},
                        {**RED_STAR, "place": "top right"},
                        {**RED_CIRCLE, "place": "centre"},
                        {**BLUE_CIRCLE, "place": "bottom right"},
                    ]
                },
                {"ground": {"colour": "grey", "texture": "plain"}},
            ]
        },
        "number four 0123, object objects 0123, colour red 0, noun circle 0, place top 0, place left "
        "0, colour red 1, noun star 1, place top 1, place right 1, colour red 2, noun circle 2, place "
        "centre 2, colour blue 3, noun circle 3, place bottom 3, place right 3, ground plain -, "
        "ground grey -, ground ground -",
    ),
    # A general description leaves the particular one its object.
    (
        "a small red circle and a large red circle",
        {"exist": [{**RED_CIRCLE, "size": "small"}, {**RED_CIRCLE, "size": "large"}]},
        "size small 2, colour red 2, noun circle 2, size large 0, colour red 0, noun circle 0",
    ),
    (
        "a small red circle and a red circle",
        {"exist": [{**RED_CIRCLE, "size": "small"}, RED_CIRCLE]},
        "size small 2, colour red 2, noun circle 2, colour red 0, noun circle 0",
    ),
]


@pytest.mark.parametrize(("caption", "fact", "expected"), SCENES_FORMS)
def test_every_form_of_scenes(caption, fact, expected):
    assert named("scenes", SCENE, caption, fact) == expected


TUXPAINT_FORMS = [
    (
        "a brown bear, an owl and a bunch of grapes",
        {"exist": [BEAR, OWL, GRAPES]},
        "colour brown 0, noun bear 0, noun owl 2, noun bunch 1, noun grapes 1",
    ),
    (
        "an owl to the right of a bunch of grapes",
        {"relation": [OWL, "right of", GRAPES]},
        "noun owl 2, relation right 12, noun bunch 1, noun grapes 1",
    ),
    # The colour of the name is the bear's, that of the ground the ground's.
    (
        "a brown bear above an owl on a brown ground",
        {"all": [{"relation": [BEAR, "above", OWL]}, {"ground": {"colour": "brown"}}]},
        "colour brown 0, noun bear 0, relation above 02, noun owl 2, ground brown -, ground ground -",
    ),
    (
        "a brown bear in the top left corner",
        {"exist": [{**BEAR, "place": "top left"}]},
        "colour brown 0, noun bear 0, place top 0, place left 0, place corner 0",
    ),
    (
        "an owl on the right of a brown ground",
        {"all": [{"exist": [{**OWL, "column": "right"}]}, {"ground": {"colour": "brown"}}]},
        "noun owl 2, place right 2, ground brown -, ground ground -",
    ),
    (
        "a bunch of grapes in the middle",
        {"exist": [{**GRAPES, "place": "middle"}]},
        "noun bunch 1, noun grapes 1, place middle 1",
    ),
    (
        "a brown bear at the top",
        {"exist": [{**BEAR, "row": "top"}]},
        "colour brown 0, noun bear 0, place top 0",
    ),
    (
        "two animals and a bunch of grapes",
        {"exist": [ANIMAL, ANIMAL, GRAPES]},
        "number two 02, category animals 02, noun bunch 1, noun grapes 1",
    ),
    # Where the owl is named, the other animal is the bear.
    (
        "an animal and an owl",
        {"exist": [ANIMAL, OWL]},
        "category animal 0, noun owl 2",
    ),
]


@pytest.mark.parametrize(("caption", "fact", "expected"), TUXPAINT_FORMS)
def test_every_form_of_tuxpaint(caption, fact, expected):
    assert named("tuxpaint", PHOTOGRAPHS, caption, fact) == expected


def test_parts_of_a_name():
    """An avocado fruit is an avocado; "and nothing else" names nothing."""
    scene = {
        "objects": [photograph("green avocado fruit", "avocado", "food", "left", "top", 20, 20)],
        "ground": {"colour": "pink", "texture": "plain"},
    }
    fact = {"all": [{"exist": [{"concept": "avocado"}]}, {"count": [{}, 1]}]}
    assert (
        named("tuxpaint", scene, "a green avocado fruit and nothing else", fact)
        == "colour green 0, noun avocado 0, noun fruit 0"
    )
    scene["objects"].append(photograph("race car", "car", "vehicles", "right", "top", 90, 20))
    assert (
        named("tuxpaint", scene, "a race car", {"exist": [{"concept": "car"}]})
        == "modifier race 1, noun car 1"
    )


def test_of_two_things_of_one_concept_the_name_tells():
    """No built scene has two; read where one had."""
    scene = {
        "objects": [
            photograph("brown bear", "bear", "animals", "left", "top", 20, 20),
            photograph("bear", "bear", "animals", "right", "top", 90, 20),
        ],
        "ground": {"colour": "pink", "texture": "plain"},
    }
    assert named("tuxpaint", scene, "a bear", {"exist": [BEAR]}) == "noun bear 1"
    assert named("tuxpaint", scene, "a brown bear", {"exist": [BEAR]}) == "colour brown 0, noun bear 0"


@pytest.mark.parametrize(
    ("caption", "fact"),
    [
        # Words that the fact does not bear out, or too few of them: no word is guessed.
        ("a red star and a red circle", {"exist": [RED_CIRCLE, RED_STAR]}),
        ("a red circle", {"exist": [RED_CIRCLE, RED_STAR]}),
        ("a red circle and a red star, perhaps", {"exist": [RED_CIRCLE, RED_STAR]}),
        ("a red star left of a red circle", {"relation": [RED_STAR, "right of", RED_CIRCLE]}),
        ("a plain grey ground", {"ground": {"colour": "grey", "texture": "plain"}}),
    ],
)
def test_what_is_not_written_as_its_fact_is_not_read(caption, fact):
    assert named("scenes", SCENE, caption, fact) is None


def test_untrue_captions_are_left_out():
    record = {
        "captions": ["a red star", "a blue star"],
        "facts": [json.dumps({"exist": [RED_STAR]}), json.dumps({"exist": [{**STAR, **BLUE}]})],
        "scene": json.dumps(SCENE),
    }
    found = reader("scenes")(record)
    assert [caption for caption, _ in found.read] == ["a red star"]
    assert (found.untrue, found.unread) == (1, 0)


def test_slots_are_equal_for_captions_built_alike():
    def slots(caption, fact):
        record = {"captions": [caption], "facts": [json.dumps(fact)], "scene": json.dumps(SCENE)}
        return [one.slot for one in reader("scenes")(record).read[0][1]]

    one = slots("a red circle above a blue circle", {"relation": [RED_CIRCLE, "above", BLUE_CIRCLE]})
    other = slots(
        "a red star is to the right of a red circle", {"relation": [RED_STAR, "right of", RED_CIRCLE]}
    )
    assert one == other
    assert len(set(one)) == len(one)
    listed = slots("a red circle and a blue circle", {"exist": [RED_CIRCLE, BLUE_CIRCLE]})
    assert not set(listed) & set(one)
    assert not set(slots("a red circle", {"exist": [RED_CIRCLE]})) & set(listed)


def test_a_set_without_known_places_is_refused():
    with pytest.raises(UserError, match="nobody knows where the named things are: grounding can be"):
        reader("vqa2")
