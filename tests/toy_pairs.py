"""Statements about pairs of single-coloured images, small enough for a test to learn."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from PIL import Image

from pixelbert_fast.data.records import PAIRS, features_of, write_card
from pixelbert_fast.training.config import RunConfig

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
SMALL = {"backbone_channels": 8, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
IMAGES = 12
"""Of a split, unless another number is asked for: as many of each colour, in turn."""


def colour(row: int) -> str:
    return list(COLOURS)[row % len(COLOURS)]


def png(row: int, size: tuple[int, int] = (32, 32)) -> bytes:
    stream = io.BytesIO()
    # No two alike, and each clearly of its colour.
    shade = np.clip(np.array(COLOURS[colour(row)]), 3 * row, 255 - 3 * row).astype(np.uint8)
    Image.fromarray(np.broadcast_to(shade, (*size, 3)).copy()).save(stream, "PNG")
    return stream.getvalue()


def image(row: int, size: tuple[int, int] = (32, 32)) -> dict:
    height, width = size
    return {
        "key": f"picture-{row}",
        "image": png(row, size),
        "height": height,
        "width": width,
        "captions": [],
    }


def statements(split: str, labelled: bool = True, images: int = IMAGES) -> list[dict]:
    """Each pair of different images, left before right; four pairs in turn are shown with two sentences."""
    found = []
    pairs = [(a, b) for a, b in product(range(images), repeat=2) if a < b]
    for place, (left, right) in enumerate(pairs):
        number = place // 4
        texts = {
            f"the {side} image is red": colour(row) == "red"
            for side, row in (("left", left), ("right", right))
        }
        for sentence, (text, truth) in enumerate(texts.items()):
            found.append(
                {
                    "left": left,
                    "right": right,
                    "statement": text,
                    "label": truth if labelled else None,
                    "identifier": f"{split}-{number}-{place % 4}-{sentence}",
                }
            )
    return found


def build(directory: Path, *, images: int = IMAGES, sizes=None, broken=(), identifiers: bool = True) -> Path:
    """train, val and test, of which test has no labels; `sizes`: of each image; `broken`: rows of train."""
    labelled = {"train": ("train", True), "val": ("dev", True), "test": ("test1", False)}
    columns = {split: statements(*which, images) for split, which in labelled.items()}
    splits = {}
    for split in columns:
        rows = [image(row, sizes[row % len(sizes)] if sizes else (32, 32)) for row in range(images)]
        for row in broken if split == "train" else ():
            rows[row]["image"] = rows[row]["image"][:20]
        splits[split] = Dataset.from_list(rows)
    for pair in (pair for pairs in columns.values() for pair in pairs):
        if not identifiers:
            del pair["identifier"]
    DatasetDict(splits).save_to_disk(directory)
    names = ["left", "right", "statement", "label"] + ["identifier"] * identifiers
    DatasetDict(
        {split: Dataset.from_list(pairs, features=features_of(names)) for split, pairs in columns.items()}
    ).save_to_disk(directory / PAIRS)
    counts = dict.fromkeys(columns, images)
    write_card(
        directory,
        {"name": "toy", "counts": counts, "pairs": {split: len(own) for split, own in columns.items()}},
    )
    return directory


def config(directory: Path, **sections) -> RunConfig:
    tree = {
        "task": "nlvr2",
        "data": {"directory": str(directory), "short_side": 32, "long_side": 64, "max_text_length": 16},
        "model": {"overrides": SMALL},
        "training": {"images_per_batch": 16, "epochs": 1},
        "evaluation": {"splits": ["val"], "images": None},
    }
    for name, section in sections.items():
        tree[name] = {**tree[name], **section} if isinstance(tree.get(name), dict) else section
    return RunConfig.model_validate(tree)
