"""Figures of a built split: sizes of its images and lengths of its texts, as quartiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pixelbert_fast.data.records import spread
from pixelbert_fast.data.resizing import target_size
from pixelbert_fast.errors import UserError

_BATCH = 1000
MOST_TOKENISED = 20_000
"""Images whose texts are cut into word pieces, spread over a larger split: that takes long."""


class Row(NamedTuple):
    """The spread of one quantity: least, quartiles, greatest, and over how many it was taken."""

    name: str
    least: float
    quarter: float
    median: float
    three_quarters: float
    greatest: float
    number: int


class SizeRule(NamedTuple):
    """How images are resized; see `resizing.target_size`."""

    short_side: int
    long_side: int
    divisor: int = 1
    least_side: int = 1

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of this size is resized to: its bucket."""
        return target_size(height, width, *self)


class Summary(NamedTuple):
    """Rows of figures, and how many images each bucket (height, width) has, most first."""

    rows: list[Row]
    buckets: list[tuple[tuple[int, int], int]]


def summarise(
    split: Any, rule: SizeRule, tokenizer: Any = None, statements: Sequence[str] | None = None
) -> Summary:
    """The figures of a `datasets.Dataset` with our columns.

    Lengths are in words, or in word pieces with [CLS] and [SEP] by `tokenizer`. `statements` are texts about
    pairs of images. Images are not decoded.
    """
    heights, widths = (np.array(split.with_format("numpy")[side][:]) for side in ("height", "width"))
    sizes = Counter(zip(heights.tolist(), widths.tolist(), strict=True))
    buckets: Counter[tuple[int, int]] = Counter()
    for size, times in sizes.items():
        buckets[rule.of(*size)] += times
    rows = [_row("height", heights), _row("width", widths)]
    named = [(name, _texts_of(name)) for name in ("captions", "questions") if name in split.column_names]
    unit, count = _counter(tokenizer)
    for name, texts in named:
        numbers, lengths = _lengths(_thinned(split, tokenizer), name, texts, count)
        rows.append(_row(f"{name} an image", numbers))
        rows.append(_row(f"{unit} a {name[:-1]}", lengths))
    if statements is not None:
        rows.append(_row(f"{unit} a statement", np.array(count(statements), dtype=np.int64)))
    return Summary([row for row in rows if row.number and row.greatest], buckets.most_common())


def table(summary: Summary, shown_buckets: int = 8) -> list[str]:
    """The figures as lines of text."""
    head = ("", "min", "25 %", "median", "75 %", "max", "of")
    lines = [head, *((row.name, *map(_figure, row[1:6]), f"{row.number:,}") for row in summary.rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    told = [
        "  ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    total = sum(times for _, times in summary.buckets)
    told.append("")
    told.append(f"images by size after resizing, height x width ({len(summary.buckets):,} in all)")
    for (height, width), times in summary.buckets[:shown_buckets]:
        told.append(f"  {height} x {width}: {times:,}, {100 * times / total:.1f} %")
    rest = summary.buckets[shown_buckets:]
    if rest:
        told.append(f"  others: {sum(times for _, times in rest):,}")
    return told


def load_tokenizer(name: str) -> Any:
    """The transformers tokenizer of a directory or a name. Raises UserError where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--tokenizer {name} cannot be loaded ({reason}): give a tokenizer's folder"
        ) from error


def _texts_of(name: str) -> Callable[[Any], list[str]]:
    if name == "captions":
        return list
    return lambda questions: [question["question"] for question in questions]


def _counter(tokenizer: Any) -> tuple[str, Callable[[Sequence[str]], list[int]]]:
    if tokenizer is None:
        return "words", lambda texts: [len(text.split()) for text in texts]
    plain = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}

    def pieces(texts: Sequence[str]) -> list[int]:
        ids = tokenizer(list(texts), padding=False, truncation=False, **plain)["input_ids"] if texts else []
        return [len(one) for one in ids]

    return "word pieces", pieces


def _thinned(split: Any, tokenizer: Any) -> Any:
    if tokenizer is None or len(split) <= MOST_TOKENISED:
        return split
    return split.select(spread(len(split), MOST_TOKENISED))


def _lengths(
    split: Any, name: str, texts_of: Callable[[Any], list[str]], count: Callable[[Sequence[str]], list[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """How many texts each image has, and how long each text is."""
    numbers, lengths = [], []
    for batch in _batches(split.select_columns([name]), name):
        texts = [texts_of(own) for own in batch]
        numbers.append(np.array([len(own) for own in texts], dtype=np.int64))
        lengths.append(np.array(count([text for own in texts for text in own]), dtype=np.int64))
    return np.concatenate(numbers), np.concatenate(lengths)


def _batches(split: Any, name: str) -> Iterator[list]:
    for start in range(0, len(split), _BATCH):
        yield split[start : start + _BATCH][name]


def _row(name: str, values: np.ndarray) -> Row:
    if not len(values):
        return Row(name, 0, 0, 0, 0, 0, 0)
    return Row(name, *np.percentile(values, (0, 25, 50, 75, 100)).tolist(), len(values))


def _figure(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")
