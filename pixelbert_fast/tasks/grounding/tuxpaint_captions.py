"""The captions of `tuxpaint`, `tuxpaint-pairs` and `tuxpaint-objects` as patterns (see `mentions`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, product

from pixelbert_fast.data.tuxpaint.collection import CATEGORY_WORDS
from pixelbert_fast.data.tuxpaint.sentences import word_categories
from pixelbert_fast.tasks.grounding.mentions import Marked, Piece, listed, parts_of, spaced
from pixelbert_fast.tasks.grounding.referents import in_relation, standing_for

_NUMBERS = ("no", "one", "two", "three")
_ARTICLES = ("a ", "an ")

Objects = Sequence[Mapping]


def patterns(fact: Mapping, scene: Mapping) -> Iterator[list[Piece]]:
    """Every way in which a caption of this fact may be written; none where no caption has such a fact."""
    forms, values = parts_of(fact)
    objects = scene["objects"]
    endings: list[list[Piece]] = [[]]
    if forms.endswith(" ground"):
        forms = forms.removesuffix(" ground")
        words = spaced(Marked(word, "ground") for word in (values[-1]["colour"], "ground"))
        endings = [[(" on a ", " of a "), *words]]
    elif forms == "exist count" and values[1] == [{}, 1]:
        forms, endings = "exist", [[" and nothing else"]]
    if forms == "exist":
        said = map(listed, product(*_phrases(values[0], objects)))
    elif forms == "relation":
        said = _relation(*values[0], objects)
    else:
        return
    for pieces, ending in product(said, endings):
        yield [*pieces, *ending]


def _phrases(descriptions: Sequence[Mapping], objects: Objects) -> Iterator[list[list[Piece]]]:
    """Of each description, or of each run of equal ones that are counted, the ways to say it."""
    named = zip(descriptions, standing_for(descriptions, objects), strict=True)
    for description, run in groupby(named, key=lambda one: one[0]):
        candidates = [found for _, found in run]
        if "category" in description:
            yield [_category(description["category"], len(candidates), candidates[0])]
        else:
            for found in candidates:
                yield _names(description, found, objects)


def _names(description: Mapping, named: frozenset[int], objects: Objects) -> list[list[Piece]]:
    """The name of each object that may be meant: the description gives no more than its concept."""
    ways: dict[str, set[int]] = {}
    for number in sorted(named):
        ways.setdefault(objects[number]["attributes"]["object"], set()).add(number)
    found = []
    for name, numbers in ways.items():
        meant = frozenset(numbers)
        concept = objects[min(numbers)]["attributes"]["concept"]
        found.append([_ARTICLES, *_name(name, concept, meant), *_where(description, meant)])
    return found


def _name(name: str, concept: str, named: frozenset[int]) -> list[Piece]:
    """The words of a name. Nouns are its last one, that of the concept, and what something is "of"."""
    words = name.split()
    colours = word_categories([name])["colour"]
    pieces: list[Piece] = []
    for place, word in enumerate(words):
        blank = [" "] if pieces else []
        if word == "of":
            pieces += [*blank, word]
            continue
        of = words[place + 1 : place + 2] == ["of"]
        if of or word == concept or place == len(words) - 1:
            kind = "noun"
        else:
            kind = "colour" if word in colours else "modifier"
        pieces += [*blank, Marked(word, kind, named)]
    return pieces


def _category(category: str, number: int, named: frozenset[int]) -> list[Piece]:
    """ "an animal", "two musical instruments"."""
    one, many = CATEGORY_WORDS[category]
    words = spaced(Marked(word, "category", named) for word in (one if number == 1 else many).split())
    return [
        _ARTICLES if number == 1 else Marked(_NUMBERS[number], "number", named),
        *([] if number == 1 else [" "]),
        *words,
    ]


def _where(description: Mapping, named: frozenset[int]) -> list[Piece]:
    if "row" in description:
        return [" at the ", Marked(description["row"], "place", named)]
    if "column" in description:
        return [" on the ", Marked(description["column"], "place", named)]
    if description.get("place") == "middle":
        return [" in the ", Marked("middle", "place", named)]
    if "place" in description:
        words = [*description["place"].split(), "corner"]
        return [" in the ", *spaced(Marked(word, "place", named) for word in words)]
    return []


def _relation(first: Mapping, relation: str, second: Mapping, objects: Objects) -> Iterator[list[Piece]]:
    one, other = in_relation(first, relation, second, objects)
    side, *of = relation.split(" ", 1)
    word = Marked(side, "relation", one | other)
    between = [" to the ", word, " of "] if of else [" ", word, " "]
    for a, b in product(_names(first, one, objects), _names(second, other, objects)):
        yield [*a, *between, *b]
