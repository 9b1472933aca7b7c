"""Questions that a fine-tuned model answers right and wrong, and what guessing by the question would give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pixelbert_fast.data.records import BuiltSet, spread
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.vqa import PixelBertForVisualQuestionAnswering
from pixelbert_fast.tasks.examples import (
    Example,
    ExampleRequest,
    Group,
    Picture,
    content_words,
    gathered,
    read_image,
)
from pixelbert_fast.tasks.fine_tuned import load_fine_tuned
from pixelbert_fast.tasks.vqa.official import question_accuracy
from pixelbert_fast.tasks.vqa.questions import check_asks, question_texts

_TOP = 3
_QUESTIONS_AN_IMAGE = 8


def examples(checkpoint: str | Path, built: BuiltSet, split: str, request: ExampleRequest) -> list[Group]:
    """Questions with the best answers and the score each is expected to get; right: a score above 0.

    Raises:
        UserError: as `load_fine_tuned`; the split is missing, or asks no questions whose answer is known.
    """
    records = built.split(split)
    check_asks(records, f"the split {split!r} of {built.directory}")
    model, processor = load_fine_tuned(checkpoint, PixelBertForVisualQuestionAnswering, request.device)
    records = records.select(spread(len(records), request.images))
    known = content_words(question_texts(records))

    def found() -> Iterator[Example]:
        for record in records:
            asked = [one for one in _asked(record) if one[1]][:_QUESTIONS_AN_IMAGE]
            if not asked:
                continue
            try:
                pixels, size = read_image(record["image"], processor, request)
            except UserError:
                continue
            encoded = processor(text=[text for text, _ in asked]).to(request.device)
            index = torch.zeros(len(asked), dtype=torch.int64, device=request.device)
            with torch.inference_mode():
                logits = model(**encoded, pixel_values=pixels, pixel_size=size, image_index=index).logits
            for (text, answers), scores in zip(asked, logits.float().sigmoid().cpu(), strict=True):
                yield _example(Picture(record["image"], record["key"]), text, answers, scores, model)
            if request.late:
                return

    about = "The best answers, each with the score that the model expects it to get."
    group = gathered("What is the answer?", about, found(), model, processor, known, request)
    if not group.tried:
        raise UserError(f"the split {split!r} has no questions with public answers to show")
    return [group]


def guesses(built: BuiltSet, split: str) -> dict[str, float]:
    """What always giving the most common answer scores on a split: "all", and by the type of answer.

    Of a set that has one answer a question; empty for others, and for a split without answers.
    """
    records = built.split(split)
    if "questions" not in records.column_names:
        return {}
    if "raw_answers" in records.column_names:
        # Row by row: of VQA 2.0 the first tells, and all of them are two million texts.
        rows = records.select_columns(["raw_answers"])
        if any(len(given) > 1 for row in rows for given in row["raw_answers"]):
            return {}
    answers = Counter(
        (one.get("kind"), one["answer"])
        for own in records.select_columns(["questions"])["questions"][:]
        for one in own
        if one["answer"] is not None
    )
    found: dict[str, Counter] = {}
    for (kind, answer), count in answers.items():
        for name in {"all", kind or "all"}:
            found.setdefault(name, Counter())[answer] += count
    return {name: max(own.values()) / own.total() for name, own in found.items()}


def _asked(record: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each question of an image with its answers: those of all annotators, or the one."""
    every = record.get("raw_answers")
    for place, one in enumerate(record["questions"]):
        answers = list(every[place]) if every else []
        yield one["question"], answers or ([one["answer"]] if one["answer"] is not None else [])


def _example(picture: Picture, text: str, answers: list[str], scores: torch.Tensor, model: Any) -> Example:
    best = torch.topk(scores, min(_TOP, len(scores)))
    names = model.config.id2label
    said = [
        (names[label], score)
        for label, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    told = Counter(answers).most_common(3)
    return Example(
        text=text,
        right=question_accuracy(answers, said[0][0]) > 0,
        pictures=(picture,),
        said=tuple(said),
        truth=", ".join(answer if len(answers) == 1 else f"{answer} ({count})" for answer, count in told),
        sure=float(said[0][1]),
    )
