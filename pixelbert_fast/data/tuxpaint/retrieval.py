"""Keeping the scenes of a split apart: each one's fullest caption must be true of it alone."""

from collections import defaultdict
from itertools import combinations

from pixelbert_fast.data.truth import is_true


class SingledOut:
    """Scenes with their facts, of which none is true of another's scene.

    A fact here names every object of its scene by its concept, so it can be true only of scenes that have all
    these concepts; scenes are found by the sets of concepts they have, and only those are checked.
    """

    def __init__(self) -> None:
        self._having: dict[frozenset, list[dict]] = defaultdict(list)
        self._naming: dict[frozenset, list[dict]] = defaultdict(list)

    def add(self, scene: dict, fact: dict) -> bool:
        """Take the scene in unless its fact is true of an earlier scene, or an earlier one's fact of it."""
        concepts = frozenset(thing["attributes"]["concept"] for thing in scene["objects"])
        subsets = [
            frozenset(some) for size in range(1, len(concepts) + 1) for some in combinations(concepts, size)
        ]
        if any(is_true(fact, other) for other in self._having[concepts]):
            return False
        if any(is_true(other, scene) for subset in subsets for other in self._naming[subset]):
            return False
        for subset in subsets:
            self._having[subset].append(scene)
        self._naming[concepts].append(fact)
        return True
