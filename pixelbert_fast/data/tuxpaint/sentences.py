"""Five captions of a composed scene, each with the fact that `truth` checks.

A fact claims no more than its caption, and less where names are doubtful: objects are named by their
*concept* (any deer for "a doe"), "two animals" is at least two, and "on the left" is the whole left column.
So where a fact is false, its caption is false beyond dispute, which is what a mismatched caption needs; of
its own scene every caption is true in its full sense.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import permutations
from random import Random

from pixelbert_fast.data.truth import RELATIONS, is_true
from pixelbert_fast.data.tuxpaint.collection import CATEGORY_WORDS, Stamp
from pixelbert_fast.data.tuxpaint.compose import Picture, Placed
from pixelbert_fast.data.tuxpaint.ground import COLOURS

CAPTIONS_PER_IMAGE = 5

_RELATION_WORDS = {
    "left of": "to the left of",
    "right of": "to the right of",
    "above": "above",
    "below": "below",
}
_NUMBERS = ("no", "one", "two", "three")

# Words of object names that are no content words.
_FUNCTION_WORDS = frozenset(("of",))
# Colours that object names use beside those of the grounds; "orange" is a fruit in all of them.
_OTHER_COLOURS = ("black", "red", "silver", "white")

Caption = tuple[str, dict]


def describe(rng: Random, picture: Picture) -> tuple[list[str], list[dict], int]:
    """Captions, their facts, and the number of the fullest caption, in random order.

    One caption lists the objects, one tells a relation (of a single object: its ground), one a place, one
    counts by category where there is a word for it, and the fullest names every object and the ground.
    """
    things = list(picture.things)
    rng.shuffle(things)
    told = [_list(things), _place(rng.choice(things), picture.size), _fullest(rng, things, picture)]
    if len(things) == 1:
        told += [_on_ground(_list(things), picture), _counted(rng, things, picture) or _alone(things[0])]
    else:
        # Two objects apart always have a relation and its converse.
        relation, other = rng.sample(_relations(things, picture), 2)
        told += [relation, _counted(rng, things, picture) or other]
    fullest = told[2]
    rng.shuffle(told)
    return [text for text, _ in told], [fact for _, fact in told], told.index(fullest)


def name_of(stamp: Stamp) -> dict:
    """The description of an object that a caption names by its phrase."""
    return {"concept": stamp.concept}


def word_categories(names: Iterable[str]) -> dict[str, list[str]]:
    """The words that say something of an image, by category, as the card lists them for content-word metrics.

    "noun" has all content words of object names but colours; the words of places and relations overlap.
    """
    words = {word for name in names for word in name.split()} - _FUNCTION_WORDS
    words |= {word for forms in CATEGORY_WORDS.values() for form in forms for word in form.split()}
    colours = {*COLOURS, *_OTHER_COLOURS}
    return {
        "noun": sorted(words - colours),
        "colour": sorted((words & colours) | set(COLOURS)),
        "number": list(_NUMBERS[2:]),
        "place": ["top", "bottom", "middle", "corner"],
        "relation": ["left", "right", "above", "below"],
    }


def _list(things: list[Placed]) -> Caption:
    return _listed([t.stamp.phrase for t in things]), {"exist": [name_of(t.stamp) for t in things]}


def _listed(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]


def _relations(things: list[Placed], picture: Picture) -> list[Caption]:
    """Every relation of two of the objects that holds."""
    scene = picture.scene()
    found = []
    for first, second in permutations(things, 2):
        for relation in RELATIONS:
            fact = {"relation": [name_of(first.stamp), relation, name_of(second.stamp)]}
            if is_true(fact, scene):
                text = f"{first.stamp.phrase} {_RELATION_WORDS[relation]} {second.stamp.phrase}"
                found.append((text, fact))
    return found


def _place(thing: Placed, size: int) -> Caption:
    text, where = _where(thing, size)
    return f"{thing.stamp.phrase} {text}", {"exist": [name_of(thing.stamp) | where]}


def _where(thing: Placed, size: int) -> tuple[str, dict]:
    """Where it is, in words and as attributes; "at the top" is true of anything in the top row."""
    attributes = thing.attributes(size)
    row, column = attributes["row"], attributes["column"]
    if row == column:
        return "in the middle", {"place": "middle"}
    if column == "middle":
        return f"at the {row}", {"row": row}
    if row == "middle":
        return f"on the {column}", {"column": column}
    return f"in the {row} {column} corner", {"place": attributes["place"]}


def _on_ground(caption: Caption, picture: Picture) -> Caption:
    text, fact = caption
    colour = picture.ground.colour
    return f"{text} on a {colour} ground", {"all": [fact, {"ground": {"colour": colour}}]}


def _fullest(rng: Random, things: list[Placed], picture: Picture) -> Caption:
    if len(things) == 1:
        text, fact = _place(things[0], picture.size)
        colour = picture.ground.colour
        return f"{text} of a {colour} ground", {"all": [fact, {"ground": {"colour": colour}}]}
    if len(things) == 2:
        return _on_ground(rng.choice(_relations(things, picture)), picture)
    return _on_ground(_list(things), picture)


def _counted(rng: Random, things: list[Placed], picture: Picture) -> Caption | None:
    """The objects counted by category, those without a word for it named; None when none can be counted."""
    counts: Counter[str] = Counter()
    named = []
    for thing in things:
        # "a flower" says the same as a name and as a category: then it is a name.
        if thing.stamp.category in CATEGORY_WORDS and thing.stamp.phrase != _number_of(
            thing.stamp.category, 1
        ):
            counts[thing.stamp.category] += 1
        else:
            named.append(thing.stamp)
    if not counts:
        return None
    phrases = [_number_of(category, number) for category, number in counts.items()]
    descriptions = [{"category": category} for category in counts.elements()]
    caption = (
        _listed(phrases + [stamp.phrase for stamp in named]),
        {"exist": descriptions + [name_of(stamp) for stamp in named]},
    )
    return _on_ground(caption, picture) if rng.random() < 0.5 else caption


def _number_of(category: str, number: int) -> str:
    one, many = CATEGORY_WORDS[category]
    if number > 1:
        return f"{_NUMBERS[number]} {many}"
    return f"{'an' if one[0] in 'aeiou' else 'a'} {one}"


def _alone(thing: Placed) -> Caption:
    return f"{thing.stamp.phrase} and nothing else", {
        "all": [{"exist": [name_of(thing.stamp)]}, {"count": [{}, 1]}]
    }
