"""The questions of a split: their texts as token ids, and the soft score of each known answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelbert_fast.data.captions import TokenisedCaptions
from pixelbert_fast.data.records import BuiltSet
from pixelbert_fast.errors import UserError


def check_asks(split, name: str) -> None:
    """Raises UserError for a split without questions; `name` is what to call it."""
    if "questions" not in split.column_names:
        raise UserError(
            f"{name} asks no questions: give a set that does, built with `pixelbert data build vqa2`, "
            "`easy-vqa` or `scenes`"
        )


def answer_vocabulary(built: BuiltSet, split) -> list[str]:
    """The answers to choose from: the set's own list, else all answers to the questions of `split`, sorted.

    Raises UserError where there are none, or no questions.
    """
    check_asks(split, f"the set in {built.directory}")
    if "answer_labels" in split.column_names:
        return built.answers()
    answers = set(_of_questions(_column(split, "questions"), "answer").to_pylist()) - {None}
    if not answers:
        raise UserError(f"no question of {built.directory} has an answer to learn from: build another set")
    return sorted(answers)


def question_texts(split) -> list[str]:
    """All questions of a split, in order."""
    return _of_questions(_column(split, "questions"), "question").to_pylist()


class Questions:
    """The questions of all images of a split, numbered through; Q in all, of N images.

    Attributes:
        counts, starts: int64 `[N]`, how many an image has, and the number of its first.
        image: int64 `[Q]`, the image that each is about.
        texts: their token ids, by image and place.
        known: bool `[Q]`, whether any answer with a score is among `answers`.
    """

    def __init__(self, split, answers: Sequence[str], tokenizer, max_length: int):
        """split: with the column `questions`. answers: the text of each label, in order."""
        import pyarrow

        column = _column(split, "questions")
        self.counts = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        self.starts = np.cumsum(self.counts) - self.counts
        self.image = np.repeat(np.arange(len(self.counts)), self.counts)
        offsets = pyarrow.array(np.append(self.starts, self.counts.sum()))
        texts = _of_questions(column, "question").cast(pyarrow.large_string())
        self.texts = TokenisedCaptions(
            pyarrow.LargeListArray.from_arrays(offsets, texts), tokenizer, max_length
        )
        self._answers = len(answers)
        if "answer_labels" in split.column_names:
            labels, scores = (_column(split, f"answer_{what}").flatten() for what in ("labels", "scores"))
            self._held = labels.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            self._labels = labels.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
            self._scores = scores.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        else:
            numbers = {answer: number for number, answer in enumerate(answers)}
            found = [numbers.get(answer, -1) for answer in _of_questions(column, "answer").to_pylist()]
            every = np.array(found, dtype=np.int64)
            self._held = (every >= 0).astype(np.int64)
            self._labels = every[every >= 0]
            self._scores = np.ones(len(self._labels), dtype=np.float32)
        self._first = np.cumsum(self._held) - self._held
        self.known = self._held > 0

    def __len__(self) -> int:
        return len(self.image)

    def ids(self, number: int) -> np.ndarray:
        """The token ids of a question, int64."""
        image = self.image[number]
        return self.texts.ids(image, number - self.starts[image])

    def lengths(self, numbers: np.ndarray) -> np.ndarray:
        """How many token ids each of these questions has, int64."""
        images = self.image[numbers]
        return self.texts.lengths(images, numbers - self.starts[images])

    def scores(self, numbers: np.ndarray) -> np.ndarray:
        """The soft score of every answer to each of these questions, float32 `[S, A]`; 0 if none is known."""
        held = self._held[numbers]
        line = np.repeat(np.arange(len(numbers)), held)
        within = np.arange(len(line)) - np.repeat(np.cumsum(held) - held, held)
        places = self._first[numbers][line] + within
        found = np.zeros((len(numbers), self._answers), dtype=np.float32)
        found[line, self._labels[places]] = self._scores[places]
        return found


def _column(split, name: str):
    """A column as one pyarrow array."""
    column = split.select_columns([name]).with_format("arrow")[:][name]
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column


def _of_questions(column, field: str):
    """One field of every question of a column of lists of them."""
    return column.flatten().field(field)
