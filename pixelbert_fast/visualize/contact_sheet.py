"""A contact sheet of a built split: its images, what is said of them, and the places a model would read."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from pixelbert_fast import ops
from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.data.records import BuiltSet, spread
from pixelbert_fast.data.resizing import resize
from pixelbert_fast.data.summary import SizeRule
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.config import PixelBertConfig

# A sheet of two dozen then stays near a megabyte.
THUMBNAIL = 480
"""Longest side of the images on the sheet, in pixels."""
MOST_TEXTS = 12
MOST_CHARACTERS = 600
_QUALITY = 85


@dataclass(slots=True)
class Grid:
    """Which windows of a resized image are read: `side` pixels square, `rows` x `columns` of them."""

    side: int
    rows: int
    columns: int
    places: list[int]
    """Of the windows read, ``row * columns + column``, ascending."""


@dataclass(slots=True)
class Text:
    """One thing said of an image: the text itself, and what is known of it (an answer, a verdict)."""

    text: str
    note: str = ""


@dataclass(slots=True)
class Sheet:
    """One image of the sheet; without a `uri` it could not be decoded, and `problem` says why."""

    key: str
    size: tuple[int, int]
    bucket: tuple[int, int]
    grid: Grid | None
    uri: str = ""
    problem: str = ""
    texts: list[Text] = field(default_factory=list)
    more: int = 0
    """Texts beyond those shown."""


def take_images(
    built: BuiltSet, split: str, number: int, rule: SizeRule, config: PixelBertConfig
) -> list[Sheet]:
    """The images for the sheet, spread over the split.

    Raises UserError for an unknown split, or fewer than one image.
    """
    if number < 1:
        raise UserError(f"--images must be at least 1, not {number}")
    data = built.split(split)
    rows = spread(len(data), number)
    answers = built.answers() if "answer_labels" in data.column_names and built.card.get("files") else []
    statements = _statements(built, split, set(rows))
    sheets = []
    for row in rows:
        record = data[row]
        texts = [*_captions(record), *_questions(record, answers), *statements.get(row, [])]
        size = (record["height"], record["width"])
        bucket = rule.of(*size)
        sheet = Sheet(record["key"], size, bucket, grid_of(bucket, config, row))
        sheet.texts, sheet.more = texts[:MOST_TEXTS], max(0, len(texts) - MOST_TEXTS)
        try:
            sheet.uri = thumbnail(record["image"])
        except UserError as error:
            sheet.problem = str(error)
        sheets.append(sheet)
    return sheets


def grid_of(bucket: tuple[int, int], config: PixelBertConfig, key: int) -> Grid | None:
    """The windows that one sequence reads in training of an image resized to `bucket`; None: too small."""
    # Every layer of the backbone rounds up, and pooling drops an odd last row or column.
    rows, columns = (-(-side // config.output_stride) // 2 for side in bucket)
    if not rows or not columns:
        return None
    everything = list(range(rows * columns))
    places = everything
    if config.sampled_pixels is not None:
        drawn = ops.sample_positions(
            torch.tensor([[rows, columns]]),
            (rows, columns),
            config.sampled_pixels,
            seed=0,
            keys=torch.tensor([key]),
        )
        places = [place for place in drawn[0].tolist() if place >= 0]
    return Grid(2 * config.output_stride, rows, columns, places)


def thumbnail(content: bytes) -> str:
    """A data URI of an encoded image. Raises UserError where it cannot be decoded."""
    rgb = to_rgb(content)
    height, width = rgb.shape[:2]
    if max(height, width) > THUMBNAIL:
        scale = THUMBNAIL / max(height, width)
        rgb = resize(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _cut(text: str) -> str:
    rest = len(text) - MOST_CHARACTERS
    return text if rest <= 0 else f"{text[:MOST_CHARACTERS].rstrip()} … and {rest:,} more characters"


def _captions(record: dict) -> list[Text]:
    return [Text(_cut(caption)) for caption in record["captions"]]


def _questions(record: dict, answers: Sequence[str]) -> list[Text]:
    texts = []
    for place, question in enumerate(record.get("questions") or ()):
        note = "" if question["answer"] is None else question["answer"]
        if answers:
            labels, scores = record["answer_labels"][place], record["answer_scores"][place]
            scored = zip(labels, scores, strict=True)
            note = ", ".join(f"{answers[label]} {score:.2g}" for label, score in scored) or note
        texts.append(Text(_cut(question["question"]), _cut(note)))
    return texts


def _statements(built: BuiltSet, split: str, rows: set[int]) -> dict[int, list[Text]]:
    """What is stated about pairs that one of these images is in."""
    if not (built.card.get("pairs") or {}).get(split):
        return {}
    pairs, keys = built.pairs(split), built.split(split).select_columns(["key"])
    sides = [np.array(pairs.with_format("numpy")[side][:]) for side in ("left", "right")]
    found: dict[int, list[Text]] = {}
    for place in np.flatnonzero(np.isin(sides[0], list(rows)) | np.isin(sides[1], list(rows))).tolist():
        pair = pairs[place]
        verdict = "true" if pair["label"] else "false"
        for own, other, side in (("left", "right", "right"), ("right", "left", "left")):
            if pair[own] in rows:
                note = f"{verdict} with {keys[pair[other]]['key']} on the {side}"
                found.setdefault(pair[own], []).append(Text(_cut(pair["statement"]), note))
    return found
