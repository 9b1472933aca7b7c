"""Which objects of a scene the descriptions of a fact may stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pixelbert_fast.data.truth import RELATION_MARGIN, is_true, matches, offset


def standing_for(descriptions: Sequence[Mapping], objects: Sequence[Mapping]) -> list[frozenset[int]]:
    """Of each description of an "exist", the numbers of the objects it may be of.

    Those that match it and leave objects of their own to the other descriptions: beside "a red circle", "a
    circle" is not the only red one.
    """
    found = []
    for place, description in enumerate(descriptions):
        others = [*descriptions[:place], *descriptions[place + 1 :]]
        found.append(
            frozenset(
                number
                for number, thing in enumerate(objects)
                if matches(description, thing)
                and is_true({"exist": others}, {"objects": [*objects[:number], *objects[number + 1 :]]})
            )
        )
    return found


def matching(description: Mapping, objects: Sequence[Mapping]) -> frozenset[int]:
    """The numbers of the objects that a "count" counts."""
    return frozenset(number for number, thing in enumerate(objects) if matches(description, thing))


def in_relation(
    first: Mapping, relation: str, second: Mapping, objects: Sequence[Mapping]
) -> tuple[frozenset[int], frozenset[int]]:
    """The numbers of the objects that stand first, and of those second, in a pair of which it is true."""
    pairs = [
        (a, b)
        for a in matching(first, objects)
        for b in matching(second, objects)
        if a != b and offset(objects[a], objects[b], relation) >= RELATION_MARGIN
    ]
    return frozenset(a for a, _ in pairs), frozenset(b for _, b in pairs)
