"""Means over words with their intervals by bootstrap over images, and the head that is best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pixelbert_fast.tasks.grounding.measuring import MEASURES, SCORES, Measured
from pixelbert_fast.tasks.grounding.mentions import KINDS

DRAWS = 1000
_LEVEL = 0.95
ORDER = ("noun", "category", "object", "attribute", *KINDS[3:])
"""Kinds as tables show them."""


def weights(images: int, seed: int = 0) -> np.ndarray:
    """float64 ``[DRAWS, I]``: how often each image is drawn in each resample of all of them."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), DRAWS).astype(float)


def figures(measured: Measured, drawn: np.ndarray) -> dict[str, dict[str, Any]]:
    """By kind: how many words of how many images, their chance, and the figures of every map.

    Each figure is [mean over the words, low, high], the 95 % interval of the mean by bootstrap over images
    (percentiles), whose words stay together. `above_permuted` is the pointing accuracy less the permuted one,
    by the same resamples.

    drawn: see `weights`.
    """
    found = {}
    for kind in sorted(measured.counts, key=ORDER.index):
        counts = measured.counts[kind]
        chance = measured.chance[kind].sum(axis=0) / counts.sum()
        found[kind] = {
            "words": int(counts.sum()),
            "images": int((counts > 0).sum()),
            "chance": dict(zip(SCORES, chance.tolist(), strict=True)),
            "maps": _by_map(measured, kind, drawn),
        }
    return found


def difference(one: Measured, other: Measured, kind: str, drawn: np.ndarray) -> list[list[float]] | None:
    """Of each map, by how much the pointing accuracy of `one` is above that of `other`, with its interval.

    Both are of the same images. None where either has no such words.
    """
    if kind not in one.counts or kind not in other.counts:
        return None
    place = MEASURES.index("pointing")
    (mean, draws), (less, draws_less) = (
        _resampled(each.sums[kind][:, place], each.counts[kind], drawn) for each in (one, other)
    )
    return _with_interval(mean - less, draws - draws_less)


def together(measured: Sequence[Measured]) -> Measured:
    """Several models' scores of the same words as one's, whose means are the means of theirs."""

    def added(name: str) -> dict[str, np.ndarray]:
        return {kind: sum(getattr(one, name)[kind] for one in measured) for kind in measured[0].counts}

    return Measured(measured[0].maps, added("counts"), added("sums"), added("chance"))


def pointing(measured: Measured, kind: str) -> list[float]:
    """The pointing accuracy of each map."""
    sums = measured.sums[kind][:, MEASURES.index("pointing")].sum(axis=0)
    return (sums / measured.counts[kind].sum()).tolist()


def best(
    maps: Sequence[dict[str, Any]], *, heads: bool, by: str = "above_permuted"
) -> tuple[int | str, int | str]:
    """(layer, head) of the map best by a figure, among the heads, or among the layers' means of heads."""
    among = [one for one in maps if one["layer"] != "rollout" and (one["head"] != "mean") == heads]
    found = max(among, key=lambda one: one[by][0])
    return found["layer"], found["head"]


def of_map(maps: Sequence[dict[str, Any]], layer: int | str, head: int | str | None) -> dict[str, Any] | None:
    """The figures of one map, None where it is not there."""
    return next((one for one in maps if (one["layer"], one["head"]) == (layer, head)), None)


def named(map_: tuple[int | str, int | None]) -> dict[str, Any]:
    """A map of `Measured.maps` as people count: layers and heads from 1, "mean" of the heads."""
    layer, head = map_
    if layer == "rollout":
        return {"layer": "rollout", "head": None}
    return {"layer": layer + 1, "head": "mean" if head is None else head + 1}


def _by_map(measured: Measured, kind: str, drawn: np.ndarray) -> list[dict[str, Any]]:
    counts, sums = measured.counts[kind], measured.sums[kind]
    mean, draws = _resampled(sums.reshape(len(counts), -1), counts, drawn)
    mean, draws = mean.reshape(sums.shape[1:]), draws.reshape(-1, *sums.shape[1:])
    told = {measure: (mean[place], draws[:, place]) for place, measure in enumerate(MEASURES)}
    (own, own_draws), (permuted, permuted_draws) = told["pointing"], told["permuted_pointing"]
    told["above_permuted"] = own - permuted, own_draws - permuted_draws
    listed = {name: _with_interval(*one) for name, one in told.items()}
    return [
        {**named(one), **{name: values[place] for name, values in listed.items()}}
        for place, one in enumerate(measured.maps)
    ]


def _resampled(sums: np.ndarray, counts: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of sums ``[I, X]`` over counts ``[I]``: means ``[X]``, and those of each resample ``[DRAWS, X]``."""
    # A resample without any word of a rare kind has no mean.
    total = drawn @ counts
    drawn, total = drawn[total > 0], total[total > 0]
    return sums.sum(axis=0) / counts.sum(), drawn @ sums / total[:, None]


def _with_interval(mean: np.ndarray, draws: np.ndarray) -> list[list[float]]:
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return np.stack([mean, low, high], axis=-1).tolist()
