"""Statements about two images, each in the set once true and once false.

The facts extend those of `truth` to a pair of scenes: ``{"left": fact}``, ``{"right": fact}``,
``{"both": fact}``, ``{"one": fact}`` (of exactly one of the two), ``{"neither": fact}``,
``{"more": [desc, "left" | "right"]}`` (more matching objects there than in the other),
``{"together": [desc, n]}`` (exactly n in the two).
"""

import json
from collections.abc import Mapping, Sequence
from random import Random

from pixelbert_fast.data.scenes.captions import grouped, pick
from pixelbert_fast.data.scenes.lexicon import NUMBERS, counted_phrase, noun_phrase, plural
from pixelbert_fast.data.truth import is_true, matches

FORMS = ("left", "right", "both", "one", "neither", "more", "together")


def _number(description: Mapping, scene: Mapping) -> int:
    return sum(matches(description, thing) for thing in scene["objects"])


def pair_is_true(fact: Mapping, left: Mapping, right: Mapping) -> bool:
    """Whether a fact of the forms above holds of two parsed scenes. Raises ValueError for another form."""
    ((form, value),) = fact.items()
    if form in ("left", "right"):
        return is_true(value, left if form == "left" else right)
    if form in ("both", "one", "neither"):
        return is_true(value, left) + is_true(value, right) == {"both": 2, "one": 1, "neither": 0}[form]
    if form == "more":
        description, side = value
        difference = _number(description, left) - _number(description, right)
        return difference > 0 if side == "left" else difference < 0
    if form == "together":
        description, number = value
        return _number(description, left) + _number(description, right) == number
    raise ValueError(f"unknown form of fact {form!r} about a pair, expected one of {', '.join(FORMS)}")


def _some(rng: Random, scene: Mapping, *names: str) -> dict[str, str]:
    return pick(rng.choice(scene["objects"])["attributes"], *names)


def _state(rng: Random, left: Mapping, right: Mapping) -> tuple[str, dict]:
    """A statement in words and as a fact, true of the pair more often than not."""
    form = rng.choice(FORMS)
    one = rng.choice((left, right))
    few = rng.choice((("shape",), ("colour",)))
    if form in ("left", "right"):
        scene = left if form == "left" else right
        found = rng.sample(scene["objects"], min(len(scene["objects"]), rng.choice((1, 2))))
        descriptions = [pick(thing["attributes"], "shape", "colour") for thing in found]
        text = f"the {form} image has {grouped(descriptions)}"
        return text, {form: {"exist": descriptions}}
    if form == "both":
        description = _some(rng, one, *few)
        return f"both images have {noun_phrase(description)}", {form: {"exist": [description]}}
    if form == "one":
        description = _some(rng, one, "shape", "colour")
        return f"exactly one of the images has {noun_phrase(description)}", {form: {"exist": [description]}}
    if form == "neither":
        # One object's shape or colour with another's size or texture: words that may well fit neither.
        description = {**_some(rng, left, *few), **_some(rng, right, rng.choice(("size", "texture")))}
        return f"neither image has {noun_phrase(description)}", {form: {"exist": [description]}}
    description = _some(rng, one, *few)
    if form == "more":
        side = rng.choice(("left", "right"))
        phrase = noun_phrase(description, "")
        noun = description.get("shape", "object")
        text = f"there are more {phrase.replace(noun, plural(noun))} in the {side} image than in the other"
        return text, {form: [description, side]}
    number = min(_number(description, left) + _number(description, right), len(NUMBERS) - 1)
    return f"the two images together have exactly {counted_phrase(description, number)}", {
        form: [description, number]
    }


def state_pairs(rng: Random, scenes: Sequence[Mapping]) -> list[dict]:
    """As many statements about pairs of these scenes as there are scenes (one fewer when odd), shuffled.

    Every text comes once with a pair of which it is true and once with a pair of which it is false.
    """
    rows = range(len(scenes))
    found = []

    def record(left: int, right: int, text: str, fact: dict, label: bool) -> dict:
        words = json.dumps(fact, separators=(",", ":"))
        return {"left": left, "right": right, "statement": text, "label": label, "fact": words}

    while len(scenes) >= 4 and len(found) < len(scenes) - 1:
        left, right = rng.sample(rows, 2)
        text, fact = _state(rng, scenes[left], scenes[right])
        if not pair_is_true(fact, scenes[left], scenes[right]):
            continue
        for _ in range(100):
            other_left, other_right = rng.sample(rows, 2)
            if not pair_is_true(fact, scenes[other_left], scenes[other_right]):
                found.append(record(left, right, text, fact, True))
                found.append(record(other_left, other_right, text, fact, False))
                break
    rng.shuffle(found)
    return found
