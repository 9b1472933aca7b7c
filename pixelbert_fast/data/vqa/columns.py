"""The columns of a record that ask questions (`records.QUESTION_COLUMNS` and `ANSWER_COLUMNS`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pixelbert_fast.data.vqa.answers import normalise, soft_scores


@dataclass(slots=True)
class Question:
    """A question as published; without answers where those are not public.

    `scores` are of normalised answers; where None, `raw` decides by the official accuracy.
    """

    id: int
    text: str
    answer: str | None = None
    kind: str | None = None
    type: str | None = None
    raw: list[str] = field(default_factory=list)
    confidences: list[str | None] = field(default_factory=list)
    scores: Mapping[str, float] | None = None


def question_columns(questions: Sequence[Question], labels: Mapping[str, int]) -> dict[str, list[Any]]:
    """The columns of one image's questions. `labels`: the number of each answer of the vocabulary.

    Scores are of normalised answers, as the evaluation compares them; the field's target files mostly count
    them as they are written, which `raw_answers` allows too.
    """
    known = [_known(question, labels) for question in questions]
    return {
        "questions": [
            {
                "question": one.text,
                "answer": None if one.answer is None else normalise(one.answer),
                "kind": one.kind,
            }
            for one in questions
        ],
        "question_ids": [one.id for one in questions],
        "question_types": [one.type for one in questions],
        "raw_answers": [one.raw for one in questions],
        "answer_confidences": [one.confidences for one in questions],
        "answer_labels": [list(scores) for scores in known],
        "answer_scores": [list(scores.values()) for scores in known],
    }


def _known(question: Question, labels: Mapping[str, int]) -> dict[int, float]:
    """The score of each label, best first."""
    scores = question.scores
    if scores is None:
        scores = soft_scores([normalise(answer) for answer in question.raw])
    known = {labels[answer]: score for answer, score in scores.items() if answer in labels}
    return dict(sorted(known.items(), key=lambda one: (-one[1], one[0])))
