"""A built set of coloured halves with questions about them, for tests of the VQA task."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from PIL import Image

from pixelbert_fast.data.records import ANSWERS, answers_file, features_of, write_card
from pixelbert_fast.data.vqa.columns import Question, question_columns
from pixelbert_fast.training.config import RunConfig

ANSWERS_TOLD = ["red", "green", "blue", "left", "right", "yes", "no"]
LABELS = {answer: number for number, answer in enumerate(ANSWERS_TOLD)}
COLOURS = ANSWERS_TOLD[:3]
IMAGES = 24


def picture(row: int, size: tuple[int, int]) -> bytes:
    """A black image of (height, width) of which one half has a colour, both by `row`."""
    height, width = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    side = row // 3 % 2
    pixels[:, side * width // 2 : (side + 1) * width // 2, row % 3] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def questions(row: int, annotators: int = 1, public: bool = True) -> list[Question]:
    """What is asked about image `row`: two questions, every third image four more, of which one is open.

    The answer to the open one is in no vocabulary. annotators: how many answered; of ten, three disagree.
    """
    colour, side = COLOURS[row % 3], ("left", "right")[row // 3 % 2]
    asked = [("what colour is it?", colour, "colour"), ("where is it?", side, "where")]
    if row % 3 == 0:
        asked += [(f"is it {one}?", "yes" if one == colour else "no", "yes/no") for one in COLOURS]
        asked.append(("what is the artist called?", "somebody", "other"))
    made = []
    for number, (text, answer, kind) in enumerate(asked):
        raw = [answer] * annotators if annotators == 1 else [answer] * (annotators - 3) + ["a fog"] * 3
        if not public:
            made.append(Question(1000 * row + number, text))
        else:
            scores = {answer: 1.0} if annotators == 1 else None
            told = Question(
                1000 * row + number, text, answer, kind, "what is", raw, [None] * len(raw), scores
            )
            made.append(told)
    return made


def record(row: int, annotators: int = 1, public: bool = True, size: tuple[int, int] = (32, 48)) -> dict:
    return {
        "key": str(row),
        "image": picture(row, size),
        "height": size[0],
        "width": size[1],
        "captions": [],
        **question_columns(questions(row, annotators, public), LABELS),
    }


def build(directory: Path, *, annotators: int = 1, sizes=((32, 48),), broken: tuple[int, ...] = ()) -> Path:
    """A set with train and val, and test without answers. sizes: of the images in turn."""
    made = [record(row, annotators, size=sizes[row % len(sizes)]) for row in range(IMAGES)]
    for row in broken:
        made[row]["image"] = b"no image"
    features = features_of(made[0])
    splits = {
        "train": Dataset.from_list(made, features),
        "val": Dataset.from_list([record(row, annotators) for row in range(12)], features),
        "test": Dataset.from_list([record(row, public=False) for row in range(6)], features),
    }
    DatasetDict(splits).save_to_disk(directory)
    content = answers_file(ANSWERS_TOLD)
    (directory / ANSWERS).write_bytes(content)
    write_card(
        directory,
        {
            "name": "halves",
            "counts": {name: len(split) for name, split in splits.items()},
            "files": {ANSWERS: hashlib.sha256(content).hexdigest()},
        },
    )
    return directory


def config(directory: Path, **sections) -> RunConfig:
    """A run on the set. sections: laid over the defaults, a section at a time."""
    told = {
        "task": "vqa",
        "data": {"directory": str(directory), "short_side": 32, "long_side": 64, "max_text_length": 12},
        "tokenizer": {"size": 100},
        "model": {"overrides": {"backbone_channels": 8, "hidden_size": 32, "intermediate_size": 64}},
        "training": {"images_per_batch": 5, "epochs": 1},
        "evaluation": {"splits": ["val"]},
    }
    for name, section in sections.items():
        told[name] = {**told[name], **section} if isinstance(told.get(name), dict) else section
    return RunConfig.model_validate(told)
