"""The builder `vqa2`: VQA v2 from its questions and annotations files and the COCO images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixelbert_fast.data.blocks import Dropped
from pixelbert_fast.data.build import Plan
from pixelbert_fast.data.json_stream import read_element
from pixelbert_fast.data.official import OfficialSet, clean, coco_paths, storable
from pixelbert_fast.data.records import ANSWERS, answers_file
from pixelbert_fast.data.vqa.answers import LEAST_OCCURRENCES, vocabulary
from pixelbert_fast.data.vqa.columns import Question, question_columns
from pixelbert_fast.data.vqa.vqa2_files import SUBTYPES, Source, match, read_files
from pixelbert_fast.errors import RunError, UserError

_LAYOUT = (
    "give --images the folder that holds COCO's train2014, val2014 and test2015, or train2017, val2017 and "
    "test2015"
)
# A wrong --images shows before anything is built when none of so many images is there.
_TRIED = 100

_PUBLISHED_QUESTIONS = {
    "train2014": 443_757,
    "val2014": 214_354,
    "test2015": 447_793,
    "test-dev2015": 107_394,
}
_PUBLISHED_IMAGES = {"train2014": 82_783, "val2014": 40_504, "test2015": 81_434}
_PUBLISHED_ANSWERS = 3_129


class VQA2(OfficialSet):
    """VQA v2, one record an image with all its questions.

    Args:
        images: folder that holds train2014, val2014 and test2015; in place of the first two may be train2017
            and val2017.
        annotations: the questions files of the splits wanted, and the annotations files of train and val, in
            any order; what each is, its content says.

    The answer vocabulary is taken from all annotations files given: the normalised main answers that at least
    nine questions have, most frequent first.
    """

    name = "vqa2"
    home = "https://visualqa.org"
    licence = "questions and answers CC-BY-4.0 (VQA consortium); images by COCO's terms of use"

    def __init__(self, images: Path | str, annotations: Sequence[Path | str]):
        super().__init__(images, annotations)
        self.files.sort(key=lambda file: file.name)  # in any order they are the same set
        self._files: dict[str, tuple[Path, Path | None]] = {}
        self._folders: dict[str, str] = {}
        self._labels: dict[str, int] = {}

    def plan(self) -> Plan:
        """Which questions each image has, and the vocabulary. Reads every file once and keeps places only."""
        occurrences: Counter[str] = Counter()
        sources = read_files(self.name, self.files, occurrences)
        splits, dropped, counted, published = {}, [], {}, {}
        for split, source in sources.items():
            subtype = source.questions.subtype
            self._folders[split] = SUBTYPES[subtype].images
            self._files[split] = (source.questions.path, source.annotations and source.annotations.path)
            matched = list(match(self.name, source))
            splits[split] = [(split, one.image_id, one.places.tobytes()) for one in matched]
            tried = [path for spec in splits[split][:_TRIED] for path in self._paths(split, spec[1])]
            self.check_layout(tried, _LAYOUT)
            dropped += source.dropped
            counted[f"questions in {split}"] = sum(len(one.places) for one in matched)
            published[f"questions in {split}"] = _PUBLISHED_QUESTIONS[subtype]
            if subtype in _PUBLISHED_IMAGES:
                published[f"images in {split}"] = _PUBLISHED_IMAGES[subtype]
        answers = self._vocabulary(sources, occurrences)
        if answers:
            counted["answers in the vocabulary"] = len(answers)
        if {"train", "val"} <= set(sources):
            published["answers in the vocabulary"] = _PUBLISHED_ANSWERS
        card = self.card(counted=counted, published=published, dropped=dropped)
        return Plan(splits, card, files={ANSWERS: answers_file(answers)} if answers else {})

    def _vocabulary(self, sources: dict[str, Source], occurrences: Counter[str]) -> list[str]:
        answers = vocabulary(occurrences)
        if not answers and any(source.annotations for source in sources.values()):
            raise UserError(
                f"{self.name}: no answer is the main answer of {LEAST_OCCURRENCES} questions, so there is no "
                "vocabulary: give the whole annotations files"
            )
        self._labels = {answer: label for label, answer in enumerate(answers)}
        return answers

    def _paths(self, split: str, image_id: int) -> list[str]:
        """Where the image may lie, the official place first, whose name is the record's key."""
        folder = self._folders[split]
        path = f"{folder}/COCO_{folder}_{image_id:012d}.jpg"
        return [path] if split == "test" else coco_paths(path, image_id)

    def render(self, spec: tuple[str, int, bytes]) -> dict | Dropped:
        """The record of one image, from the places of its questions in the files that `plan` has read."""
        split, image_id, places = spec
        paths = self._paths(split, image_id)
        questions, annotations = self._files[split]
        rows = np.frombuffer(places, dtype=np.int64).reshape(-1, 4 if annotations else 2).tolist()
        asked = _elements(questions, [row[:2] for row in rows])
        told = _elements(annotations, [row[2:] for row in rows]) if annotations else [{}] * len(rows)
        columns = question_columns([_question(*pair) for pair in zip(asked, told, strict=True)], self._labels)
        return self.record(Path(paths[0]).stem, self.folder.first_of(paths), captions=[], **columns)


def _elements(path: Path, places: list[list[int]]) -> list[dict]:
    try:
        with path.open("rb") as file:
            return [read_element(file, start, length) for start, length in places]
    except ValueError as error:
        raise RunError(f"{path} changed while the set was built: run the same build again") from error


def _question(asked: dict, told: dict) -> Question:
    answers = told.get("answers", [])
    return Question(
        id=asked["question_id"],
        text=clean(asked["question"]),
        answer=_text(told.get("multiple_choice_answer")),
        kind=_text(told.get("answer_type")),
        type=_text(told.get("question_type")),
        raw=[_text(one["answer"]) for one in answers],
        confidences=[_text(one.get("answer_confidence")) for one in answers],
    )


def _text(value: object) -> str | None:
    """A text as it is, except what cannot be stored (half of a surrogate pair); None for anything else."""
    return storable(value) if isinstance(value, str) else None
