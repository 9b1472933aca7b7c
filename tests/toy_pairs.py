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
"""Of a split: four of each colour, in turn."""


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


def statements(split: str, labelled: bool = True) -> list[dict]:
    """Each pair of different images, left before right, with two statements about it."""
    found = []
    pairs = [(a, b) for a, b in product(range(IMAGES), repeat=2) if a < b]
    for place, (left, right) in enumerate(pairs):
        one, other = list(COLOURS)[place % 3], list(COLOURS)[place // 3 % 3]
        texts = {
            f"the left image is {one}": colour(left) == one,
            f"one of the images is {other}": other in (colour(left), colour(right)),
        }
        for sentence, (text, truth) in enumerate(texts.items()):
            found.append(
                {
                    "left": left,
                    "right": right,
                    "statement": text,
                    "label": truth if labelled else None,
                    "identifier": f"{split}-{(one, other)[sentence]}-{place}-{sentence}",
                }
            )
    return found


def build(directory: Path, *, sizes=None, broken=(), identifiers: bool = True) -> Path:
    """train, val and test, of which test has no labels; `sizes`: of each image; `broken`: rows of train."""
    columns = {"train": statements("train"), "val": statements("dev"), "test": statements("test1", False)}
    splits = {}
    for split in columns:
        rows = [image(row, sizes[row % len(sizes)] if sizes else (32, 32)) for row in range(IMAGES)]
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
    counts = dict.fromkeys(columns, IMAGES)
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
