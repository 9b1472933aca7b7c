"""Which images show objects together that training has not shown together, by the set's own truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pixelbert_fast.data.truth import parse
from pixelbert_fast.errors import UserError


@dataclass(frozen=True)
class Compositions:
    """bool ``[M]`` each; an image of one object composes nothing and is in neither.

    Attributes:
        by: the attributes that an object is known by.
        unseen: no training scene has just these objects.
        apart: none has all of them, with others or without; some of `unseen`.
    """

    by: tuple[str, ...]
    unseen: np.ndarray
    apart: np.ndarray


def compositions(train, split, rows: Sequence[int] | np.ndarray, by: Sequence[str]) -> Compositions:
    """Of the images `rows` of a split, by the scenes of the training split.

    by: attributes of objects in the truth, such as `object`, or `shape` and `colour`.

    Raises UserError for a set without truth, or whose objects have no such attribute.
    """
    for records in (train, split):
        if "scene" not in records.column_names:
            raise UserError(
                "the option compositions is for sets that know what their images show, as tuxpaint and scenes"
            )
    seen, within = set(), set()
    for objects in _objects(train["scene"][:], by):
        seen.add(objects)
        within.update(some for size in range(2, len(objects) + 1) for some in combinations(objects, size))
    scenes = split["scene"][:]
    asked = list(_objects([scenes[int(row)] for row in rows], by))
    several = np.array([len(objects) > 1 for objects in asked])
    unseen = several & np.array([objects not in seen for objects in asked])
    return Compositions(tuple(by), unseen, several & np.array([objects not in within for objects in asked]))


def _objects(scenes: Sequence[str], by: Sequence[str]) -> Iterator[tuple]:
    """The objects of each scene in one order, one that is there twice twice."""
    for scene in scenes:
        told = [thing["attributes"] for thing in parse(scene)["objects"]]
        lacking = [name for name in by for attributes in told if name not in attributes]
        if lacking:
            raise UserError(
                f"the objects of this set have no attribute {lacking[0]!r}; they have {', '.join(told[0])}"
            )
        yield tuple(sorted(tuple(attributes[name] for name in by) for attributes in told))
