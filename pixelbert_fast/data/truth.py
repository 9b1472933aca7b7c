"""What a caption claims, and whether a scene bears it out.

A *scene* is what a generator knows of an image::

    {"objects": [{"attributes": {"shape": "circle", "colour": "red"}, "box": [x0, y0, x1, y1]}, ...],
     "ground": {"colour": "grey", "texture": "plain"}}

with boxes in pixels, y downwards. A *fact* is the logical form of a caption:

- ``{"exist": [desc, ...]}``: each description is matched by an object of its own;
- ``{"count": [desc, n]}``: exactly ``n`` objects match;
- ``{"relation": [desc, REL, desc]}``: some object of the first kind stands ``REL`` some other one of the
  second, by the centres of their boxes;
- ``{"ground": {name: value, ...}}``: the ground has these properties;
- ``{"all": [fact, ...]}``: every one of these holds.

A *description* maps attribute names to values and matches an object that has them all; ``{}`` matches any.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

RELATIONS = ("left of", "right of", "above", "below")

# One object stands beside another when their centres are this share of their mean extent apart: nearer than
# that a person would not say so.
RELATION_MARGIN = 0.3


@lru_cache(maxsize=1 << 18)
def parse(text: str) -> dict:
    """Parse the JSON of a fact or a scene. Cached, so the result is shared: do not change it."""
    return json.loads(text)


def matches(description: Mapping, thing: Mapping) -> bool:
    """Whether an object (with its "attributes") has every attribute of the description."""
    attributes = thing["attributes"]
    return all(attributes.get(name) == value for name, value in description.items())


def offset(first: Mapping, second: Mapping, relation: str) -> float:
    """How far `first` stands `relation` `second`: centre distance along the relation's axis in mean extents.

    Positive when it is on the named side. Raises ValueError for an unknown relation.
    """
    if relation not in RELATIONS:
        raise ValueError(f"unknown relation {relation!r}, expected one of {', '.join(RELATIONS)}")
    low, high = (0, 2) if relation in ("left of", "right of") else (1, 3)
    a, b = first["box"], second["box"]
    gap = (b[low] + b[high] - a[low] - a[high]) / 2
    extent = (a[high] - a[low] + b[high] - b[low]) / 2
    if relation in ("right of", "below"):
        gap = -gap
    return gap / extent if extent > 0 else 0.0


def _matching(candidates: Sequence[Sequence[int]]) -> bool:
    """Whether every row can take a column of its own (augmenting paths; rows are few)."""
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column in candidates[row]:
            if column in seen:
                continue
            seen.add(column)
            if column not in owner or place(owner[column], seen):
                owner[column] = row
                return True
        return False

    return all(place(row, set()) for row in range(len(candidates)))


def _exist(descriptions: Sequence[Mapping], objects: Sequence[Mapping]) -> bool:
    if len(descriptions) > len(objects):
        return False
    candidates = []
    for description in descriptions:
        found = [i for i, thing in enumerate(objects) if matches(description, thing)]
        if not found:
            return False
        candidates.append(found)
    return len(candidates) == 1 or _matching(candidates)


def _relation(first: Mapping, relation: str, second: Mapping, objects: Sequence[Mapping]) -> bool:
    if relation not in RELATIONS:  # also where no object matches and no offset is asked for
        raise ValueError(f"unknown relation {relation!r}, expected one of {', '.join(RELATIONS)}")
    left = [thing for thing in objects if matches(first, thing)]
    right = [thing for thing in objects if matches(second, thing)]
    return any(a is not b and offset(a, b, relation) >= RELATION_MARGIN for a in left for b in right)


def is_true(fact: Mapping, scene: Mapping) -> bool:
    """Whether the fact holds of the scene. Both are parsed dicts; neither is changed.

    Raises ValueError for a fact that is not exactly one of the forms above.
    """
    if len(fact) != 1:
        raise ValueError(f"a fact has one form, not {sorted(fact)}")
    ((form, value),) = fact.items()
    if form == "exist":
        return _exist(value, scene["objects"])
    if form == "count":
        description, number = value
        return sum(matches(description, thing) for thing in scene["objects"]) == number
    if form == "relation":
        first, relation, second = value
        return _relation(first, relation, second, scene["objects"])
    if form == "ground":
        ground = scene.get("ground") or {}
        return all(ground.get(name) == wanted for name, wanted in value.items())
    if form == "all":
        return all(is_true(part, scene) for part in value)
    raise ValueError(f"unknown form of fact {form!r}, expected exist, count, relation, ground or all")
