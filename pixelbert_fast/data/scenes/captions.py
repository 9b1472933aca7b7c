"""Captions of a scene in words and in logical form; each kind names what the others leave out."""

from collections import Counter
from random import Random

from pixelbert_fast.data.scenes.layout import Picture
from pixelbert_fast.data.scenes.lexicon import (
    ATTRIBUTES,
    COLOURS,
    GROUND_COLOURS,
    GROUND_TEXTURES,
    PLACES,
    SHAPES,
    counted_phrase,
    ground_phrase,
    listed,
    noun_phrase,
    place_phrase,
)
from pixelbert_fast.data.truth import RELATION_MARGIN, RELATIONS, is_true, offset

CAPTIONS_PER_IMAGE = 5
KINDS = ("list", "relation", "count", "place", "detail")

# What a retrieval caption may name of every object (and whether of the ground), shortest first. It also says
# how many objects there are, so it is true of another scene only if that one has the same descriptions.
LEVELS = (
    (("shape", "colour", "place"), False),
    (("shape", "colour", "place"), True),
    (("shape", "colour", "size", "texture", "place"), False),
    (("shape", "colour", "size", "texture", "place"), True),
)

# Four bits an attribute: a scene's key is one exact integer, small where a tuple of words would fill the
# memory.
_CODES = {
    name: {value: code for code, value in enumerate(values)}
    for name, values in {**ATTRIBUTES, "place": PLACES, "ground": GROUND_COLOURS}.items()
}

Caption = tuple[str, dict]


def pick(attributes: dict[str, str], *names: str) -> dict[str, str]:
    """The description by these attributes alone."""
    return {name: attributes[name] for name in names}


def fullest_level(number: int) -> int:
    """The last of LEVELS whose caption of `number` objects stays at 27 words or fewer."""
    return 1 if number == 4 else len(LEVELS) - 1


def retrieval_key(picture: Picture, level: int) -> int:
    """Equal for two scenes exactly when one's retrieval caption of this level is true of the other."""
    names, with_ground = LEVELS[level]
    key = level + 1
    if with_ground:
        key = (key << 4) | (_CODES["ground"][picture.ground["colour"]] << 1)
        key |= GROUND_TEXTURES.index(picture.ground["texture"])
    described = []
    for thing in picture.things:
        code = 1
        for name in names:
            code = (code << 4) | _CODES[name][thing.attributes[name]]
        described.append(code)
    for code in sorted(described):
        key = (key << (4 * len(names) + 1)) | code
    return key


def retrieval_caption(rng: Random, picture: Picture, level: int) -> Caption:
    """The caption that names every object by the attributes of this level."""
    names, with_ground = LEVELS[level]
    descriptions = [pick(thing.attributes, *names) for thing in picture.things]
    number = len(descriptions)
    phrases = []
    for description in descriptions:
        bare = {name: value for name, value in description.items() if name != "place"}
        phrases.append(f"{noun_phrase(bare, '')} {description['place']}")
    parts = [{"count": [{}, number]}, {"exist": descriptions}]
    text = f"{rng.choice(('', 'exactly ', 'only '))}{counted_phrase({}, number)}: {listed(phrases)}"
    if with_ground:
        parts.append({"ground": dict(picture.ground)})
        text = f"{text} {ground_phrase(picture.ground)}"
    return text, {"all": parts}


def grouped(descriptions: list[dict]) -> str:
    """A list in words where equal descriptions are counted: "two red circles and a blue star"."""
    phrases = Counter(noun_phrase(description) for description in descriptions)
    first = {noun_phrase(description): description for description in descriptions}
    return listed([p if n == 1 else counted_phrase(first[p], n) for p, n in phrases.items()])


def _shuffled(rng: Random, picture: Picture, most: int) -> list[dict[str, str]]:
    return [thing.attributes for thing in rng.sample(picture.things, min(most, len(picture.things)))]


def _list(rng: Random, picture: Picture) -> Caption:
    descriptions = [pick(a, "shape", "colour") for a in _shuffled(rng, picture, rng.choice((2, 3, 3)))]
    opening = rng.choice(("", "", "a picture of ", "an image of ", "here we see "))
    return opening + grouped(descriptions), {"exist": descriptions}


def relation_of(rng: Random, first: dict, second: dict) -> str:
    """One of the relations in which `first` stands to `second` (objects of a scene)."""
    return rng.choice([name for name in RELATIONS if offset(first, second, name) >= RELATION_MARGIN])


def _relation(rng: Random, picture: Picture) -> Caption:
    a = b = None
    while a == b:
        first, second = rng.sample(picture.scene()["objects"], 2)
        a, b = pick(first["attributes"], "shape", "colour"), pick(second["attributes"], "shape", "colour")
    relation = relation_of(rng, first, second)
    words = relation if relation in ("above", "below") else rng.choice(("to the ", "")) + relation
    text = f"{noun_phrase(a)} {rng.choice(('is ', ''))}{words} {noun_phrase(b)}"
    return text, {"relation": [a, relation, b]}


def _all_counted(rng: Random, picture: Picture) -> Caption:
    descriptions = [pick(a, "shape", "colour") for a in _shuffled(rng, picture, len(picture.things))]
    number = len(descriptions)
    text = f"{counted_phrase({}, number)}: {grouped(descriptions)}"
    return text, {"all": [{"count": [{}, number]}, {"exist": descriptions}]}


def _kinds_counted(rng: Random, picture: Picture) -> Caption:
    name = rng.choice(("shape", "colour"))
    counts = Counter(thing.attributes[name] for thing in picture.things)
    chosen = rng.sample(sorted(counts), min(len(counts), 2))
    phrases = [counted_phrase({name: value}, counts[value]) for value in chosen]
    facts = [{"count": [{name: value}, counts[value]]} for value in chosen]
    return f"exactly {listed(phrases)}", facts[0] if len(facts) == 1 else {"all": facts}


def _none_but(rng: Random, picture: Picture) -> Caption:
    name, values = rng.choice((("shape", SHAPES), ("colour", tuple(COLOURS))))
    present = {thing.attributes[name] for thing in picture.things}
    absent = {name: rng.choice([value for value in values if value not in present])}
    there = pick(rng.choice(picture.things).attributes, "shape", "colour")
    text = f"{noun_phrase(there)} but {counted_phrase(absent, 0)}"
    return text, {"all": [{"exist": [there]}, {"count": [absent, 0]}]}


def _count(rng: Random, picture: Picture) -> Caption:
    return rng.choices((_all_counted, _kinds_counted, _none_but), (0.5, 0.35, 0.15))[0](rng, picture)


def _place(rng: Random, picture: Picture) -> Caption:
    descriptions = [pick(a, "shape", "colour", "place") for a in _shuffled(rng, picture, rng.choice((1, 2)))]
    if rng.random() < 0.5:
        text = listed([noun_phrase(description) for description in descriptions])
    else:
        text = listed(
            [f"{place_phrase(d['place'])} {noun_phrase(pick(d, 'shape', 'colour'))}" for d in descriptions]
        )
    return text, {"exist": descriptions}


def _detail(rng: Random, picture: Picture) -> Caption:
    most = rng.choice((1, 1, 2))
    names = (
        ("shape", "colour", "size", "texture")
        if most == 1
        else ("shape", "colour", rng.choice(("size", "texture")))
    )
    descriptions = [pick(a, *names) for a in _shuffled(rng, picture, most)]
    text = f"{grouped(descriptions)} {ground_phrase(picture.ground)}"
    return text, {"all": [{"exist": descriptions}, {"ground": dict(picture.ground)}]}


MAKERS = {"list": _list, "relation": _relation, "count": _count, "place": _place, "detail": _detail}


def describe(rng: Random, picture: Picture, level: int) -> tuple[list[str], list[dict], int]:
    """Five different true captions of a scene: texts, facts, and which is the retrieval caption of `level`.

    Raises AssertionError when a caption is not true of its scene, which would be an error in this module.
    """
    alike = len({(thing.attributes["shape"], thing.attributes["colour"]) for thing in picture.things}) == 1
    kinds = [kind for kind in KINDS if kind != "relation" or not alike]
    chosen = rng.sample(kinds, CAPTIONS_PER_IMAGE - 1)
    captions = [retrieval_caption(rng, picture, level)]
    for kind in chosen:
        caption = MAKERS[kind](rng, picture)
        while caption[0] in (text for text, _ in captions):
            caption = MAKERS[kind](rng, picture)
        captions.append(caption)
    scene = picture.scene()
    for text, fact in captions:
        if not is_true(fact, scene):
            raise AssertionError(f"the caption {text!r} is not true of its scene {scene}")
    order = rng.sample(range(CAPTIONS_PER_IMAGE), CAPTIONS_PER_IMAGE)
    texts, facts = zip(*(captions[i] for i in order), strict=True)
    return list(texts), list(facts), order.index(0)
