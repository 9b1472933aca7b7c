"""Questions about a scene, each with its one answer."""

from random import Random

from pixelbert_fast.data.scenes.captions import pick, relation_of
from pixelbert_fast.data.scenes.layout import KNOWN, NOVEL, Picture
from pixelbert_fast.data.scenes.lexicon import COLOURS, SHAPES, noun_phrase, plural
from pixelbert_fast.data.truth import matches

KINDS = ("what", "which colour", "how many", "where", "yes/no")
ANSWER_NUMBERS = ("zero", "one", "two", "three", "four")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

Question = dict[str, str]


def _asked(kind: str, question: str, answer: str) -> Question:
    return {"question": question, "answer": answer, "kind": kind}


def _unique(rng: Random, picture: Picture, ways: tuple[tuple[str, ...], ...]) -> tuple[dict, dict] | None:
    """An object and a description of it, by one of the `ways`, that no other object matches."""
    things = [{"attributes": thing.attributes} for thing in picture.things]
    found = []
    for way in ways:
        for thing in things:
            description = pick(thing["attributes"], *way)
            if sum(matches(description, other) for other in things) == 1:
                found.append((thing["attributes"], description))
    return rng.choice(found) if found else None


def _what(rng: Random, picture: Picture) -> Question:
    # A place is one object's own, so the last way never fails.
    found, description = _unique(
        rng, picture, (("colour",), ("size", "colour"), ("texture", "colour"), ("place",))
    )
    return _asked("what", f"what shape is {noun_phrase(description, 'the')}?", found["shape"])


def _which_colour(rng: Random, picture: Picture) -> Question:
    found, description = _unique(
        rng, picture, (("shape",), ("size", "shape"), ("texture", "shape"), ("place",))
    )
    return _asked("which colour", f"which colour is {noun_phrase(description, 'the')}?", found["colour"])


def _how_many(rng: Random, picture: Picture) -> Question:
    draw = rng.random()
    if draw < 0.2:
        description = {}
    elif draw < 0.5:
        name, values = rng.choice((("shape", SHAPES), ("colour", tuple(COLOURS))))
        description = {name: rng.choice(values)}
    else:
        description = pick(
            rng.choice(picture.things).attributes, rng.choice(("shape", "colour", "size", "texture"))
        )
    number = sum(matches(description, {"attributes": thing.attributes}) for thing in picture.things)
    noun = description.get("shape", "object")
    phrase = noun_phrase(description, "").replace(noun, plural(noun))
    return _asked("how many", f"how many {phrase} are there?", ANSWER_NUMBERS[number])


def _where(rng: Random, picture: Picture) -> Question:
    ways = (("colour", "shape"), ("size", "colour", "shape"), ("texture", "colour", "shape"))
    unique = _unique(rng, picture, ways)
    if unique is None:
        return _what(rng, picture)
    found, description = unique
    return _asked("where", f"where is {noun_phrase(description, 'the')}?", found["place"])


def _is_there(rng: Random, picture: Picture, answer: bool) -> Question:
    present = [(thing.attributes["shape"], thing.attributes["colour"]) for thing in picture.things]
    # Held-out combinations are denied only where they also occur, or "no" could be read off the words.
    known = KNOWN + NOVEL if picture.novel else KNOWN
    shape, colour = rng.choice(present if answer else [pair for pair in known if pair not in present])
    return _asked("yes/no", f"is there a {colour} {shape}?", "yes" if answer else "no")


def _does_it_stand(rng: Random, picture: Picture, answer: bool) -> Question | None:
    objects = picture.scene()["objects"]
    named = [pick(thing["attributes"], "colour", "shape") for thing in objects]
    single = [i for i, description in enumerate(named) if named.count(description) == 1]
    if len(single) < 2:
        return None
    first, second = rng.sample(single, 2)
    relation = relation_of(rng, objects[first], objects[second])
    if not answer:
        relation = OPPOSITE[relation]
    text = f"is {noun_phrase(named[first], 'the')} {relation} {noun_phrase(named[second], 'the')}?"
    return _asked("yes/no", text, "yes" if answer else "no")


def ask(rng: Random, picture: Picture, answer: bool) -> list[Question]:
    """Five questions, one of each kind; `answer` is what the yes/no question is to be answered with.

    A scene where no object can be told apart but by its place is asked for a shape instead of a place.
    """
    closed = _does_it_stand(rng, picture, answer) if rng.random() < 0.5 else None
    return [
        _what(rng, picture),
        _which_colour(rng, picture),
        _how_many(rng, picture),
        _where(rng, picture),
        closed or _is_there(rng, picture, answer),
    ]
