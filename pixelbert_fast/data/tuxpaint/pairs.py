"""Statements about two composed scenes, each in the set once true and once false.

The facts have the forms of `data.scenes.pairs`. What is said of one image is one of its captions, of which
a false fact means that the words are false beyond dispute (see `sentences`). What is counted or denied over
both images is said of categories and of objects in general, whose names are never in doubt.
"""

import json
from collections.abc import Mapping, Sequence
from random import Random

from pixelbert_fast.data.scenes.pairs import pair_is_true
from pixelbert_fast.data.tuxpaint.collection import CATEGORY_WORDS

STATEMENTS_PER_IMAGE = 4
FORMS = ("left", "right", "both", "one", "neither", "more", "together")
_WEIGHTS = (3, 3, 1, 1, 1, 1, 2)
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
_TRIES = 100

Told = tuple[str, Mapping]
"""A caption and its fact."""


def state_pairs(rng: Random, scenes: Sequence[Mapping], told: Sequence[Sequence[Told]]) -> list[dict]:
    """`STATEMENTS_PER_IMAGE` statements for each of these scenes, shuffled.

    Every text comes once with a pair of which it is true and once with a pair of which it is false: half of
    the false pairs of a statement about one side are the true pair the other way round, where that makes it
    false, so that the side matters.

    told: the captions of each scene with their facts.
    """
    wanted = len(scenes) * STATEMENTS_PER_IMAGE // 2 * 2 if len(scenes) >= 4 else 0
    found: list[dict] = []
    while len(found) < wanted:
        left, right = rng.sample(range(len(scenes)), 2)
        text, fact = _state(rng, (scenes[left], scenes[right]), (told[left], told[right]))
        if not pair_is_true(fact, scenes[left], scenes[right]):
            continue
        other = _false_pair(rng, fact, scenes, (left, right))
        if other is not None:
            words = json.dumps(fact, separators=(",", ":"))
            for (a, b), label in (((left, right), True), (other, False)):
                found.append({"left": a, "right": b, "statement": text, "label": label, "fact": words})
    rng.shuffle(found)
    return found


def _false_pair(
    rng: Random, fact: Mapping, scenes: Sequence[Mapping], pair: tuple[int, int]
) -> tuple[int, int] | None:
    left, right = pair
    if rng.random() < 0.5 and not pair_is_true(fact, scenes[right], scenes[left]):
        return right, left
    for _ in range(_TRIES):
        left, right = rng.sample(range(len(scenes)), 2)
        if not pair_is_true(fact, scenes[left], scenes[right]):
            return left, right
    return None


def _state(
    rng: Random, scenes: tuple[Mapping, Mapping], told: tuple[Sequence[Told], ...]
) -> tuple[str, dict]:
    """A statement in words and as a fact, true of the pair more often than not."""
    form = rng.choices(FORMS, _WEIGHTS)[0]
    if form in ("left", "right"):
        caption, fact = rng.choice(told[form == "right"])
        return f"the {form} image shows {caption}", {form: fact}
    if form in ("more", "together"):
        description, (one, many) = _countable(rng, rng.choice(scenes), anything=True)
        if form == "more":
            side = rng.choice(("left", "right"))
            return f"there are more {many} in the {side} image than in the other", {form: [description, side]}
        number = sum(_number(description, scene) for scene in scenes)
        exactly = "exactly " if number else ""
        counted = f"{exactly}{_NUMBERS[number]} {one if number == 1 else many}"
        return f"the two images together show {counted}", {form: [description, number]}
    description, (one, _) = _countable(rng, rng.choice(scenes), anything=False, absent=form == "neither")
    phrase = f"{'an' if one[0] in 'aeiou' else 'a'} {one}"
    words = {"both": "both images show", "one": "exactly one of the images shows"}
    return f"{words.get(form, 'neither image shows')} {phrase}", {form: {"exist": [description]}}


def _countable(
    rng: Random, scene: Mapping, *, anything: bool, absent: bool = False
) -> tuple[dict, tuple[str, str]]:
    """A description of what one may count, with its words in the singular and in the plural.

    anything: whether it may be objects of any kind. absent: of a category that is not in the scene.
    """
    there = {thing["attributes"]["category"] for thing in scene["objects"]}
    categories = [name for name in CATEGORY_WORDS if (name in there) != absent] or list(CATEGORY_WORDS)
    if anything and rng.random() < 0.4:
        return {}, ("object", "objects")
    category = rng.choice(categories)
    return {"category": category}, CATEGORY_WORDS[category]


def _number(description: Mapping, scene: Mapping) -> int:
    wanted = description.items()
    return sum(
        all(thing["attributes"][name] == value for name, value in wanted) for thing in scene["objects"]
    )
