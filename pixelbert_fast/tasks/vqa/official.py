"""The official VQA accuracy (Antol et al. 2015): overall, by type of answer and by type of question.

The evaluation exists in two editions. In the current one the annotators' answers and the prediction are
normalised alike, and only where the annotators disagree; where they agree, answers are compared as written.
The first edition, of which most copies in circulation are, always normalises the prediction, and of the
annotators' answers the punctuation alone, where they disagree: an annotator's "two" or "a dog" can then be
met by no prediction. `data.vqa.answers` has the normal form, docs/vqa-accuracy.md the special cases of both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from pixelbert_fast.data.vqa.answers import normalise, one_line, without_punctuation
from pixelbert_fast.errors import UserError

Edition = Literal["current", "first"]


class Asked(NamedTuple):
    """A question of which the answers are known."""

    id: int
    answers: Sequence[str]
    """What each annotator answered, as written."""
    answer_type: str | None = None
    question_type: str | None = None


def question_accuracy(answers: Sequence[str], prediction: str, *, edition: Edition = "current") -> float:
    """The accuracy in 0..1 of one prediction.

    min(1, others that gave it / 3), averaged over leaving out each annotator in turn. A single annotator, as
    generated sets have, leaves no others: then 1 for the same normal form, else 0.

    Raises:
        ValueError: no answers, or an unknown edition.
    """
    if not answers:
        raise ValueError("a question without answers has no accuracy")
    if edition not in ("current", "first"):
        raise ValueError(f"edition must be 'current' or 'first', got {edition!r}")
    if len(answers) == 1:
        return float(normalise(answers[0]) == normalise(prediction))
    if edition == "first":
        prediction = normalise(prediction)
        if len(set(answers)) > 1:
            answers = [without_punctuation(answer) for answer in answers]
    else:
        answers, prediction = [one_line(answer) for answer in answers], one_line(prediction)
        if len(set(answers)) > 1:
            answers, prediction = [normalise(answer) for answer in answers], normalise(prediction)
    total, alike = len(answers), sum(answer == prediction for answer in answers)
    # Whoever gave the prediction has one fellow less; whoever did not meets all of them.
    return (alike * min(3, alike - 1) + (total - alike) * min(3, alike)) / (3 * total)


class VqaAccuracy:
    """Collects `question_accuracy` question by question, and gives the means that the evaluation reports."""

    def __init__(self, *, edition: Edition = "current"):
        self.edition = edition
        self._sums = {"all": defaultdict(float), "answer": defaultdict(float), "question": defaultdict(float)}
        self._counts = {kind: defaultdict(int) for kind in self._sums}

    def add(self, asked: Asked, prediction: str) -> float:
        """Counts a question in, and returns its accuracy."""
        accuracy = question_accuracy(asked.answers, prediction, edition=self.edition)
        for kind, name in (("all", ""), ("answer", asked.answer_type), ("question", asked.question_type)):
            if name is not None:
                self._sums[kind][name] += accuracy
                self._counts[kind][name] += 1
        return accuracy

    def result(self) -> dict:
        """Accuracies in 0..1 and the numbers of questions behind them.

        ``{"questions", "accuracy", "by_answer_type": {type: {"questions", "accuracy"}}, "by_question_type":
        the same}``; the accuracy of no question is None.
        """
        every = self._means("all").get("", {"questions": 0, "accuracy": None})
        return {
            **every,
            "by_answer_type": self._means("answer"),
            "by_question_type": self._means("question"),
        }

    def _means(self, kind: str) -> dict[str, dict]:
        return {
            name: {"questions": count, "accuracy": self._sums[kind][name] / count}
            for name, count in sorted(self._counts[kind].items())
        }


def official_accuracy(
    questions: Iterable[Asked], predictions: Mapping[int, str], *, edition: Edition = "current"
) -> dict:
    """`VqaAccuracy.result` of predictions by question id.

    Raises:
        UserError: a question without a prediction, or a prediction for no question: the evaluation server
            takes neither.
    """
    accuracy = VqaAccuracy(edition=edition)
    met = 0
    for asked in questions:
        if asked.id not in predictions:
            raise UserError(f"the predictions lack question {asked.id}: all of a split are needed")
        accuracy.add(asked, predictions[asked.id])
        met += 1
    if met != len(predictions):
        raise UserError(
            f"there are {len(predictions)} predictions for {met} questions: they must be of the same split"
        )
    return accuracy.result()


def asked_of(record: Mapping, first: int = 0) -> list[Asked]:
    """The questions of one record of a built set, in order; those without public answers are left out.

    A set with the column ``questions`` alone has one answer a question and no ids: there questions are
    numbered from `first`.
    """
    questions = record["questions"]
    ids = record.get("question_ids") or range(first, first + len(questions))
    types = record.get("question_types") or [None] * len(questions)
    raw = record.get("raw_answers") or [[]] * len(questions)
    found = []
    for number, question, kind, answers in zip(ids, questions, types, raw, strict=True):
        answers = answers or ([] if question["answer"] is None else [question["answer"]])
        if answers:
            found.append(Asked(number, answers, question["kind"], kind))
    return found
