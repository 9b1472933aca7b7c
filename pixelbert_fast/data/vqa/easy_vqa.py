"""The builder `easy-vqa`: the questions about single shapes of the Python package easy-vqa."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from pathlib import Path

from pixelbert_fast.data.blocks import Dropped
from pixelbert_fast.data.build import Plan
from pixelbert_fast.data.json_stream import JsonArray
from pixelbert_fast.data.official import OfficialSet, clean, split_of
from pixelbert_fast.data.records import ANSWERS, answers_file
from pixelbert_fast.data.vqa.columns import Question, question_columns
from pixelbert_fast.errors import UserError

HOW_TO_GET_IT = (
    "get the package with `pip download --no-deps easy-vqa==1.0`, unpack the wheel (a zip) and give --source "
    "the folder"
)
VAL_SHARE = 0.1
"""Share of the training images that become the val split; the package has none."""

_PUBLISHED = {
    "images in train and val": 4_000,
    "questions in train and val": 38_575,
    "images in test": 1_000,
    "questions in test": 9_673,
    "answers in the vocabulary": 13,
}
_SHAPES = ("circle", "rectangle", "triangle")


class EasyVQA(OfficialSet):
    """easy-VQA, one record an image with all its questions, each with one answer.

    `kind` of a question is "yes/no", "shape" or "colour"; its id is its place in questions.json.

    Args:
        source: folder of the package, or one it lies below; by default the installed package.
    """

    name = "easy-vqa"
    home = "https://github.com/vzhou842/easy-VQA"
    licence = "MIT (Victor Zhou)"

    def __init__(self, source: str | None = None):
        data = _find(source)
        files = [data / "train" / "questions.json", data / "test" / "questions.json", data / "answers.txt"]
        super().__init__(data, files)
        lines = files[2].read_text(encoding="utf-8", errors="replace").splitlines()
        self._answers = [line.strip() for line in lines if line.strip()]
        self._labels = {answer: label for label, answer in enumerate(self._answers)}
        if not self._labels or len(self._labels) != len(self._answers):
            raise UserError(f"{self.name}: {files[2]} is not a list of different answers: {HOW_TO_GET_IT}")

    def plan(self) -> Plan:
        """Which questions each image has; a hash of its number says which training image is for val."""
        splits: dict[str, list] = {"train": [], "val": [], "test": []}
        counted, dropped = {}, []
        for folder, told in (("train", "train and val"), ("test", "test")):
            images = self._read(folder, dropped)
            counted[f"images in {told}"] = len(images)
            counted[f"questions in {told}"] = sum(map(len, images.values()))
            for number, questions in images.items():
                key = f"{folder}-{number:06d}"
                split = split_of(key, {"val": VAL_SHARE}) if folder == "train" else folder
                splits[split].append((key, f"{folder}/images/{number}.png", questions))
        counted["answers in the vocabulary"] = len(self._answers)
        card = self.card(counted=counted, published=_PUBLISHED, dropped=dropped)
        return Plan(splits, card, files={ANSWERS: answers_file(self._answers)})

    def _read(self, folder: str, dropped: list[Dropped]) -> dict[int, list[tuple[int, str, str]]]:
        images = defaultdict(list)
        path = self.folder.root / folder / "questions.json"
        for place, (value, *_) in enumerate(JsonArray(path)):
            why = self._wrong(value)
            if why:
                dropped.append(Dropped(f"{folder} question {place}", why))
            else:
                images[value[2]].append((place, clean(value[0]), value[1]))
        if not images:
            raise UserError(f"{self.name}: {path} has no questions that can be used: {HOW_TO_GET_IT}")
        return images

    def _wrong(self, value: object) -> str | None:
        match value:
            case [str() as text, str() as answer, int() as number] if clean(text) and _is_number(number):
                return None if answer in self._labels else "answer is not in answers.txt"
        return "not [question, answer, image]"

    def render(self, spec: tuple[str, str, list[tuple[int, str, str]]]) -> dict | Dropped:
        """The record of one image."""
        key, path, questions = spec
        asked = [
            Question(
                place, text, answer, _kind(answer), raw=[answer], confidences=[None], scores={answer: 1.0}
            )
            for place, text, answer in questions
        ]
        return self.record(key, path, captions=[], **question_columns(asked, self._labels))


def _is_number(number: int) -> bool:
    return not isinstance(number, bool) and 0 <= number < 2**31


def _kind(answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in _SHAPES else "colour"


def _find(source: str | None) -> Path:
    """The folder `data` of the package: in the folder given, in one below it, or where it is installed."""
    if source is None:
        found = importlib.util.find_spec("easy_vqa")
        if found is None or found.origin is None:
            raise UserError(f"easy-vqa: the package easy_vqa is not installed here: {HOW_TO_GET_IT}")
        source = str(Path(found.origin).parent)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise UserError(f"easy-vqa: there is no folder {source}: {HOW_TO_GET_IT}")
    for data in (folder, folder / "data", folder / "easy_vqa" / "data"):
        if (data / "answers.txt").is_file() and (data / "train" / "questions.json").is_file():
            return data
    raise UserError(f"easy-vqa: {source} does not hold the package's data: {HOW_TO_GET_IT}")
