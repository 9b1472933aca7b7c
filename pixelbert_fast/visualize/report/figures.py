"""The metrics of a run as rows: what each is of, and what it would be by chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Metrics = Mapping[str, Any]

# The figures to know first, by task: (path in a split's metrics, name).
_MAIN = {
    "pretrain": (("itm_accuracy", "matching"), ("mlm_accuracy_content", "masked content words")),
    "vqa": (("accuracy", "accuracy"),),
    "nlvr2": (("accuracy", "accuracy"), ("consistency", "consistency")),
    "retrieval": (("ir_r1", "text to image, R@1"), ("tr_r1", "image to text, R@1")),
}
_NAMES = {
    "itm_accuracy": "matching",
    "itm_accuracy_matched": "own captions",
    "itm_accuracy_mismatched": "false captions",
    "itm_accuracy_novel": "new combinations",
    "itm_accuracy_seen": "known combinations",
    "mlm_accuracy_all": "masked word pieces",
    "mlm_accuracy_content": "masked content words",
    "accuracy": "accuracy",
    "consistency": "sentences right for all their pairs",
}
_OF = {
    "itm_accuracy": "itm_pairs",
    "mlm_accuracy_all": "mlm_tokens_all",
    "mlm_accuracy_content": "mlm_words_content",
    "consistency": "sentences",
}
_BESIDE = {"mlm_accuracy_content": "mlm_accuracy_content_wrong_image"}
_PARTS = ("itm_accuracy_matched", "itm_accuracy_mismatched", "itm_accuracy_novel", "itm_accuracy_seen")
_MOST_ANSWERS = 15


@dataclass(frozen=True)
class Row:
    """One figure of one split.

    Attributes:
        key: its place in the split's metrics.
        name: what it is; `part`: of the row above it.
        value: in 0..1, or None where nothing was asked.
        of: how many were asked, or None.
        chance: what guessing gives, or None where that is not known.
        beside: the same figure beside a wrong image, which tells what the words alone give; or None.
    """

    key: tuple[str, ...]
    name: str
    value: float | None
    of: int | None = None
    chance: float | None = None
    beside: float | None = None
    part: bool = False


def rows(task: str, figures: Metrics, guesses: Mapping[str, float] | None = None) -> list[Row]:
    """The rows of one split's metrics, of any task.

    guesses: what is known to be reached by guessing and does not follow from the task alone: for VQA the
    share of the most common answer, "all" and by type; for objects one in as many as an attribute has values.
    """
    known = guesses or {}
    found = {"vqa": _vqa, "retrieval": _retrieval, "objects": _objects}.get(task, _shares)(figures, known)
    return list(found)


def main_figures(task: str, metrics: Metrics) -> list[tuple[str, float | None]]:
    """(split: name, value) of the few figures to know first, of every split."""
    found = []
    for split, figures in metrics.items():
        if not isinstance(figures, Mapping):
            continue
        for key, name in _MAIN.get(task, (("accuracy", "accuracy"),)):
            value = figures.get(key)
            if isinstance(value, Mapping):
                found += [(f"{split}: {inner}", share) for inner, share in value.items()]
            elif key in figures:
                found.append((f"{split}: {name}", value))
    return found


def looked_up(figures: Metrics, key: tuple[str, ...]) -> float | None:
    """The figure at `key` in a split's metrics; None where it is not."""
    found: Any = figures
    for name in key:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, int | float) else None


def percent(share: float | None) -> str:
    """A share for people."""
    return "\u2013" if share is None else f"{100 * share:.1f}\u202f%"


def _shares(figures: Metrics, _: Mapping[str, float]) -> Iterator[Row]:
    """Pre-training, NLVR2 and whatever is not known here: every number that is a share."""
    taken = {*_BESIDE.values(), *_OF.values(), "statements", "broken", "dropped", "images"}
    order = sorted((name for name in figures if name not in taken), key=_rank)
    for name in order:
        value = figures[name]
        if isinstance(value, Mapping):
            yield from _nested(name, value)
        elif value is None or (isinstance(value, float) and 0 <= value <= 1):
            chance = (
                0.5
                if name in ("itm_accuracy", *_PARTS) or (name == "accuracy" and "statements" in figures)
                else None
            )
            yield Row(
                (name,),
                _NAMES.get(name, name.replace("_", " ")),
                value,
                figures.get(_OF.get(name, "statements" if name == "accuracy" else "")),
                chance,
                figures.get(_BESIDE.get(name, "")),
                name in _PARTS,
            )


def _rank(name: str) -> int:
    known = list(_NAMES)
    return known.index(name) if name in known else len(known)


def _nested(name: str, inside: Mapping[str, Any]) -> Iterator[Row]:
    for inner, value in inside.items():
        if isinstance(value, Mapping) and "right_image" in value:
            beside = value.get("wrong_image")
            yield Row(
                (name, inner, "right_image"),
                inner,
                value["right_image"],
                value.get("items"),
                None,
                beside,
                True,
            )
        elif value is None or isinstance(value, float):
            # Each form of a statement is true as often as not.
            yield Row((name, inner), inner, value, None, 0.5 if name == "forms" else None, None, True)


def _vqa(figures: Metrics, guesses: Mapping[str, float]) -> Iterator[Row]:
    yield Row(
        ("accuracy",), "accuracy", figures.get("accuracy"), figures.get("questions"), guesses.get("all")
    )
    for group, title in (
        ("by_answer_type", ""),
        ("by_question_type", "question: "),
        ("by_answer", "answer: "),
    ):
        inside = figures.get(group) or {}
        listed = (
            sorted(inside.items(), key=lambda one: -one[1]["questions"])
            if group == "by_answer"
            else inside.items()
        )
        for name, one in list(listed)[: _MOST_ANSWERS if group == "by_answer" else None]:
            chance = guesses.get(name) if group == "by_answer_type" else None
            key = (group, name, "accuracy")
            yield Row(key, f"{title}{name}", one["accuracy"], one["questions"], chance, None, True)


def _retrieval(figures: Metrics, _: Mapping[str, float]) -> Iterator[Row]:
    images, texts = figures.get("images") or 0, figures.get("texts") or 0
    for way, name in (("ir", "text to image"), ("tr", "image to text")):
        candidates, own = (images, 1) if way == "ir" else (texts, round(texts / images) if images else 0)
        for k in (1, 5, 10):
            value = figures.get(f"{way}_r{k}")
            queries = texts if way == "ir" else images
            yield Row(
                (f"{way}_r{k}",), f"{name}, R@{k}", value, queries, _hit(candidates, own, k), None, k > 1
            )


def _hit(candidates: int, own: int, k: int) -> float | None:
    """How likely one of `own` is among `k` drawn from `candidates`."""
    if not candidates:
        return None
    missed = 1.0
    for drawn in range(min(k, candidates)):
        missed *= max(candidates - own - drawn, 0) / (candidates - drawn)
    return 1 - missed


def _objects(figures: Metrics, guesses: Mapping[str, float]) -> Iterator[Row]:
    for attribute, value in (figures.get("accuracy") or {}).items():
        yield Row(("accuracy", attribute), attribute, value, figures.get("images"), guesses.get(attribute))
