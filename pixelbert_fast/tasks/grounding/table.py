"""The figures as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pixelbert_fast.tasks.grounding.figures import of_map

_MOST_MAPS = 160
"""Layers times heads, up to which the nouns' figures are shown for each."""
_TITLES = {
    "pointing": "maximum on it, %",
    "near": "on or beside it, %",
    "mass": "attention on it, %",
}


def rows(split: str, metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, figures) of `checkpoint.evaluate_checkpoint`'s metrics; in brackets: 95 % intervals."""
    chosen_on = metrics["chosen_on"]
    chosen = "these very images, so too good" if chosen_on == split else f"the images of {chosen_on}"
    found = [
        (split, f"{metrics['images']:,} images, {metrics['captions']:,} captions"),
        ("best layer, best head", f"furthest above permuted on {chosen}"),
        ("there", "of the best head: the same on the images that chose it"),
        ("other", "of the best head: its maximum is on another object of the image"),
        ("permuted", "of the best head: its maps against what captions of other images name"),
        ("untrained", "the best of all maps of an untrained model, chosen on these very images"),
    ]
    left_out = {name.replace("_", " "): count for name, count in metrics["left_out"].items() if count}
    if left_out:
        found.append(("left out", ", ".join(f"{count:,} {name}" for name, count in left_out.items())))
    for measure, title in _TITLES.items():
        found += [("", ""), (title, _header(measure))]
        found += [(f"  {kind}", _line(metrics, kind, measure)) for kind in metrics["kinds"]]
    return found + _by_head(metrics)


_OTHER = "other"
"""The column that maxima alone have."""

_COLUMNS = (
    ("words", 7),
    ("chance", 8),
    ("untrained", 11),
    ("layer 1", 20),
    ("best layer", 23),
    ("best head", 26),
    ("there", 8),
    (_OTHER, 8),
    ("permuted", 10),
    ("rollout", 9),
)


def _header(measure: str) -> str:
    shown = ((name if name != _OTHER or measure == "pointing" else "", width) for name, width in _COLUMNS)
    return "".join(f"{name:>{width}}" for name, width in shown)


def _line(metrics: Mapping[str, Any], kind: str, measure: str) -> str:
    own, chosen = metrics["kinds"][kind], metrics["chosen"][kind]
    first, rollout = of_map(own["maps"], 1, "mean"), of_map(own["maps"], "rollout", None)
    cells = [
        f"{own['words']:,}",
        _percent(own["chance"][measure]),
        # The best of its maps on these very images: in its favour.
        _percent(max(one[measure][0] for one in own["untrained"])),
        _interval(first[measure]),
    ]
    if chosen is None:
        cells += ["-"] * 5
    else:
        layer, head = chosen["layer"]["here"], chosen["head"]["here"]
        cells += [
            f"L{layer['layer']} {_interval(layer[measure])}",
            f"L{head['layer']} H{head['head']} {_interval(head[measure])}",
            _percent(chosen["head"]["where_chosen"][measure][0]),
            _percent(head["other"][0]) if measure == "pointing" else "",
            _percent(head[f"permuted_{measure}"][0]),
        ]
    cells.append("-" if rollout is None else _percent(rollout[measure][0]))
    return "".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))


def _by_head(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The pointing accuracy of nouns by layer and head."""
    layers, heads = metrics["layers"], metrics["heads"]
    if "noun" not in metrics["kinds"] or layers * heads > _MOST_MAPS:
        return []
    maps = metrics["kinds"]["noun"]["maps"]
    names = [*range(1, heads + 1), "mean"]
    header = "".join(f"{name if name == 'mean' else f'head {name}':>9}" for name in names)
    found = [("", ""), ("nouns, pointing", header)]
    for layer in range(1, layers + 1):
        values = (of_map(maps, layer, name)["pointing"][0] for name in names)
        found.append((f"  layer {layer}", "".join(f"{_percent(value):>9}" for value in values)))
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(figure: list[float]) -> str:
    mean, low, high = (100 * value for value in figure)
    return f"{mean:.1f} ({low:.0f} .. {high:.0f})"
