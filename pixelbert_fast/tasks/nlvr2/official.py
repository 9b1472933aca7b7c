"""The official figures of NLVR2 (Suhr et al. 2019): accuracy, and consistency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pixelbert_fast.errors import UserError


class Statement(NamedTuple):
    """A statement about one pair of images, of which the truth is known."""

    identifier: str
    """``SPLIT-SET-PAIR-SENTENCE``: all pairs of a set are shown with its sentences."""
    label: bool


def sentence_of(identifier: str) -> str:
    """What is the same for all pairs that a sentence was shown with: the identifier without its third part.

    Raises:
        UserError: an identifier of fewer than three parts.
    """
    parts = identifier.split("-")
    if len(parts) < 3:
        raise UserError(f"the identifier {identifier!r} is not SPLIT-SET-PAIR-SENTENCE as NLVR2's are")
    parts[2] = ""
    return "-".join(parts)


def official_accuracy(statements: Iterable[Statement], predictions: Mapping[str, bool]) -> dict:
    """``{"statements", "accuracy", "sentences", "consistency"}``, the figures in 0..1 or None of nothing.

    Consistency is the share of sentences judged right for all their pairs. Predictions of other statements do
    not count, as in the official script.

    Raises:
        UserError: a statement without a prediction.
    """
    total = right = 0
    consistent: dict[str, bool] = {}
    for identifier, label in statements:
        if identifier not in predictions:
            raise UserError(f"the predictions lack {identifier}: every statement of a split needs one")
        is_right = bool(predictions[identifier]) == bool(label)
        sentence = sentence_of(identifier)
        consistent[sentence] = consistent.get(sentence, True) and is_right
        total, right = total + 1, right + is_right
    return {
        "statements": total,
        "accuracy": right / total if total else None,
        "sentences": len(consistent),
        "consistency": sum(consistent.values()) / len(consistent) if consistent else None,
    }
