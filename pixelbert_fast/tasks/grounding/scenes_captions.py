"""The captions of `scenes` and `scenes-objects` as patterns (see `mentions`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pixelbert_fast.data.scenes.lexicon import ADJECTIVES, NUMBERS, plural
from pixelbert_fast.tasks.grounding.mentions import Marked, Piece, listed, parts_of, spaced
from pixelbert_fast.tasks.grounding.referents import in_relation, matching, standing_for

_OPENINGS = ("", "a picture of ", "an image of ", "here we see ")

Objects = Sequence[Mapping]


def patterns(fact: Mapping, scene: Mapping) -> Iterator[list[Piece]]:
    """Every way in which a caption of this fact may be written; none where no caption has such a fact."""
    forms, values = parts_of(fact)
    objects = scene["objects"]
    if forms == "exist":
        yield [_OPENINGS, *_grouped(values[0], objects)]
        if all("place" in description for description in values[0]):
            yield _place_first(values[0], objects)
    elif forms == "relation":
        yield _relation(*values[0], objects)
    elif forms == "exist ground":
        yield [*_grouped(values[0], objects), *_ground(values[1])]
    elif forms == "exist count" and values[1][1] == 0:
        yield [*_grouped(values[0], objects), " but ", *_counted(*values[1], objects)]
    elif forms in ("count exist", "count exist ground"):
        (counted, number), descriptions, *ground = values
        opening = [*_counted(counted, number, objects), ": "]
        if not ground:
            yield [*opening, *_grouped(descriptions, objects)]
        if all("place" in description for description in descriptions):
            bare = [_bare(*one) for one in _named(descriptions, objects)]
            yield [
                ("", "exactly ", "only "),
                *opening,
                *listed(bare),
                *(_ground(ground[0]) if ground else ()),
            ]
    elif set(forms.split()) == {"count"}:
        yield ["exactly ", *listed([_counted(*value, objects) for value in values])]


def _named(descriptions: Sequence[Mapping], objects: Objects) -> list[tuple[Mapping, frozenset[int]]]:
    return list(zip(descriptions, standing_for(descriptions, objects), strict=True))


def _words(description: Mapping, named: frozenset[int], *, many: bool = False) -> list[Piece]:
    """The adjectives and the noun."""
    words = [Marked(description[name], name, named) for name in ADJECTIVES if name in description]
    noun = description.get("shape", "object")
    kind = "noun" if "shape" in description else "object"
    return spaced([*words, Marked(plural(noun) if many else noun, kind, named)])


def _where(description: Mapping, named: frozenset[int]) -> list[Piece]:
    return spaced(Marked(word, "place", named) for word in description["place"].split())


def _at(description: Mapping) -> str:
    return "in the " if description["place"] == "centre" else "at the "


def _phrase(description: Mapping, named: frozenset[int]) -> list[Piece]:
    """ "a large red circle", and where it is if the description says so."""
    pieces = ["a ", *_words(description, named)]
    if "place" in description:
        pieces += [" ", _at(description), *_where(description, named)]
    return pieces


def _bare(description: Mapping, named: frozenset[int]) -> list[Piece]:
    """ "red circle top left"."""
    return [*_words(description, named), " ", *_where(description, named)]


def _grouped(descriptions: Sequence[Mapping], objects: Objects) -> list[Piece]:
    """A list in which equal descriptions are counted: "two red circles and a blue star"."""
    times = Counter(frozenset(description.items()) for description in descriptions)
    first = {}
    for description, named in _named(descriptions, objects):
        first.setdefault(frozenset(description.items()), (description, named))
    return listed(
        [
            _phrase(description, named) if times[key] == 1 else _several(description, times[key], named)
            for key, (description, named) in first.items()
        ]
    )


def _several(description: Mapping, number: int, named: frozenset[int]) -> list[Piece]:
    number_word = Marked(NUMBERS[number], "number", named)
    return [number_word, " ", *_words(description, named, many=number > 1)]


def _counted(description: Mapping, number: int, objects: Objects) -> list[Piece]:
    """ "two red circles"; of "no red circles" no word names anything."""
    if number:
        return _several(description, number, matching(description, objects))
    words = _words(description, frozenset(), many=True)
    return ["no ", *(piece.word if isinstance(piece, Marked) else piece for piece in words)]


def _place_first(descriptions: Sequence[Mapping], objects: Objects) -> list[Piece]:
    phrases = []
    for description, named in _named(descriptions, objects):
        words = _words(description, named)
        phrases.append([_at(description), *_where(description, named), " a ", *words])
    return listed(phrases)


def _relation(first: Mapping, relation: str, second: Mapping, objects: Objects) -> list[Piece]:
    one, other = in_relation(first, relation, second, objects)
    side, *of = relation.split(" ", 1)
    return [
        *_phrase(first, one),
        " ",
        ("is ", ""),
        ("to the ", "") if of else "",
        Marked(side, "relation", one | other),
        *(f" {word}" for word in of),
        " ",
        *_phrase(second, other),
    ]


def _ground(properties: Mapping) -> list[Piece]:
    words = [properties["texture"], properties["colour"], "ground"]
    return [" on a ", *spaced(Marked(word, "ground") for word in words)]
