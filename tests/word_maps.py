"""Attention maps with known numbers, of an image that the grid does not fill."""

from __future__ import annotations

import numpy as np

from pixelbert_fast.tasks.attending import AttentionMaps, word_spans

IMAGE = np.random.default_rng(0).integers(90, 160, (100, 140, 3)).astype(np.uint8)
# Four columns of 16 pixels leave three of the 67 to no cell; the third row reaches over the edge.
READ, GRID, WINDOW = (45, 67), (3, 4), 16
LAYERS, HEADS = 2, 3


def maps_of(text: str, seed: int = 0, **changed) -> AttentionMaps:
    """Each map peaks at one cell of its own; together with the text's share they sum to 1."""
    spans = changed.get("spans", word_spans(text))
    shape = (LAYERS, HEADS, len(spans), *GRID)
    random = np.random.default_rng(seed)
    maps, rollout = random.random(shape) ** 3, random.random(shape[2:]) ** 3
    maps, rollout = (0.7 * one / one.sum((-1, -2), keepdims=True) for one in (maps, rollout))
    fields = {
        "text": text,
        "words": [text[start:end] for start, end in spans],
        "spans": spans,
        "maps": maps.astype(np.float32),
        "rollout": rollout.astype(np.float32),
        "grid": GRID,
        "image_size": READ,
        "window": WINDOW,
    }
    return AttentionMaps(**fields | changed)
