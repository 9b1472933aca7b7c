"""Built data sets on disk: the columns of a record, the card beside them, and opening one.

A built set is a directory that ``datasets.load_from_disk`` opens as a DatasetDict of memory-mapped Arrow
files, with ``card.json`` beside the splits; a set with statements about pairs of images holds a second
DatasetDict in ``pairs``.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pixelbert_fast.data.declared_files import check_saved, is_plain
from pixelbert_fast.errors import UserError

FORMAT = "pixelbert_fast set"
VERSION = 1
CARD = "card.json"
PAIRS = "pairs"
SPLITS = ("train", "val", "test")

# Every set has these ...
BASE_COLUMNS = ("key", "image", "height", "width", "captions")
# ... sets whose truth is known add these ...
TRUTH_COLUMNS = ("facts", "scene", "retrieval_caption")
# ... and some ask questions. In a test split without answers, `answer` and `kind` of a question are null.
QUESTION_COLUMNS = ("questions",)
# Of each question, in the same order: its id and type in the published files, what each annotator answered
# and how surely, and the labels (lines of ANSWERS, from 0) of the normalised answers, best first, each with
# its score; answers that are no line there are left out. Without answers types are null and lists empty.
ANSWER_COLUMNS = (
    "question_ids",
    "question_types",
    "raw_answers",
    "answer_confidences",
    "answer_labels",
    "answer_scores",
)
PAIR_COLUMNS = ("left", "right", "statement", "label")
# A pair may have the logical form of its statement, or the name it goes by in the published files.
OPTIONAL_PAIR_COLUMNS = ("fact", "identifier")

ANSWERS = "answers.txt"
"""The answer vocabulary of a set with ANSWER_COLUMNS, beside the card: see `answers_file`."""

# Written in retrieval_caption where no caption singles out the image.
NO_RETRIEVAL_CAPTION = -1


def _column_types() -> dict:
    from datasets import List, Value

    text = Value("string")
    return {
        "key": text,
        "image": Value("binary"),
        "height": Value("int32"),
        "width": Value("int32"),
        "captions": List(text),
        "facts": List(text),
        "scene": text,
        "retrieval_caption": Value("int32"),
        "questions": List({"question": text, "answer": text, "kind": text}),
        "question_ids": List(Value("int64")),
        "question_types": List(text),
        "raw_answers": List(List(text)),
        "answer_confidences": List(List(text)),
        "answer_labels": List(List(Value("int32"))),
        "answer_scores": List(List(Value("float32"))),
        "left": Value("int32"),
        "right": Value("int32"),
        "statement": text,
        "label": Value("bool"),
        "fact": text,
        "identifier": text,
    }


def features_of(columns: Iterable[str]):
    """The `datasets.Features` of these columns, in the order of the schema whatever order they come in.

    Raises ValueError naming a column the schema does not have.
    """
    from datasets import Features

    types, columns = _column_types(), set(columns)
    unknown = sorted(columns - set(types))
    if unknown:
        raise ValueError(f"a record has a column {unknown[0]!r} that the schema does not know")
    return Features({name: kind for name, kind in types.items() if name in columns})


def answers_file(answers: Iterable[str]) -> bytes:
    """The content of ANSWERS: one answer a line, in UTF-8; the line's number, from 0, is its label.

    Answers hold no line ends; one of them may be empty.
    """
    return "".join(answer + "\n" for answer in answers).encode()


def write_card(directory: Path | str, card: dict) -> None:
    """Write card.json, with the format's name and version first."""
    card = {"format": FORMAT, "version": VERSION, **card}
    text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
    try:
        content = text.encode()
    except UnicodeEncodeError:  # the name of a folder that is not in UTF-8
        content = (json.dumps(card, indent=1) + "\n").encode()
    Path(directory, CARD).write_bytes(content)


def read_card(directory: Path | str) -> dict | None:
    """The card of a built set, or None where the directory holds none of ours.

    Raises UserError for a card of a later version, or a damaged one.
    """
    try:
        card = json.loads(Path(directory, CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        return None
    if card.get("version") == VERSION:
        _check_counts(card.get("counts"), f"{directory}/{CARD} is damaged, it has no counts")
        if card.get("pairs") is not None:
            _check_counts(card["pairs"], f"{directory}/{CARD} is damaged, it does not count its pairs")
        if not isinstance(card.get("files", {}), dict):
            raise UserError(f"{directory}/{CARD} is damaged, it lists no files: build the set again")
        if not all(map(is_plain, [*card["counts"], *(card.get("pairs") or {})])):
            raise UserError(f"{directory}/{CARD} names a split outside its folder: build the set again")
    if card.get("version") != VERSION:
        raise UserError(
            f"{directory} is a data set of format version {card.get('version')}, this program reads version "
            f"{VERSION}: build it again with this program"
        )
    return card


def _check_counts(told: object, problem: str) -> None:
    """Raises UserError unless it is how many there are of each split."""
    if not isinstance(told, dict) or not all(
        isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in told.values()
    ):
        raise UserError(f"{problem}: build the set again")


class BuiltSet:
    """A built data set, opened: `directory` (Path), `card` (dict), `splits` (names, train first)."""

    def __init__(self, directory: Path, card: dict):
        self.directory = directory
        self.card = card
        self.splits: list[str] = list(card["counts"])

    def split(self, name: str):
        """The split as a memory-mapped `datasets.Dataset`. Raises UserError when missing or empty."""
        self._check(name, self.card["counts"], "split")
        return _load(self.directory / name)

    def pairs(self, name: str):
        """Statements about pairs of images, likewise; `left` and `right` are rows of `split(name)`."""
        self._check(name, self.card.get("pairs") or {}, "split with statements about pairs")
        return _load(self.directory / PAIRS / name)

    def answers(self) -> list[str]:
        """The answer vocabulary: the answer of each label. Raises UserError where the set has none."""
        try:
            content = (self.directory / ANSWERS).read_bytes()
        except OSError as error:
            raise UserError(
                f"{self.directory} has no answer vocabulary ({ANSWERS}: {error.strerror}): build it again"
            ) from error
        if hashlib.sha256(content).hexdigest() != self.card.get("files", {}).get(ANSWERS):
            raise UserError(
                f"{self.directory / ANSWERS} is not the file that the set was built with, so labels "
                "would be wrong: build the set again"
            )
        try:
            return content.decode().split("\n")[:-1]
        except UnicodeDecodeError as error:
            raise UserError(f"{self.directory / ANSWERS} is not UTF-8: build the set again") from error

    def _check(self, name: str, counts: dict, what: str) -> None:
        if name not in counts:
            known = ", ".join(counts) or "none"
            raise UserError(f"{self.directory} has no {what} {name!r}, it has: {known}")
        if not counts[name]:
            raise UserError(
                f"the {what} {name!r} of {self.directory} is empty: build the set with more images"
            )

    def __repr__(self) -> str:
        return f"BuiltSet({str(self.directory)!r}, {self.card['counts']})"


def _load(directory: Path):
    from datasets import load_from_disk

    check_saved(directory)
    try:
        found = load_from_disk(os.fspath(directory), keep_in_memory=False)
        # A place outside the file would end the process when it is read. Images themselves are not read.
        found.data.table.validate(full=True)
    except Exception as error:  # datasets and pyarrow raise many kinds for a damaged directory
        raise UserError(f"{directory} cannot be read ({error}): build the set again") from error
    _check_types(directory, found.features)
    return found


def _check_types(directory: Path, features) -> None:
    """UserError for what `datasets` would decode by itself, and for images that are not bytes but paths."""
    from datasets import Value

    for name, kind in features.items():
        image = name == "image"
        if not _is_plain_type(kind) or (image and kind not in (Value("binary"), Value("large_binary"))):
            raise UserError(
                f"{directory} holds a column {name!r} of {type(kind).__name__} ({str(kind)[:60]}), which no "
                "set of ours has: build the set again"
            )


def _is_plain_type(kind) -> bool:
    from datasets import LargeList, List, Value

    if isinstance(kind, dict):
        return all(map(_is_plain_type, kind.values()))
    if isinstance(kind, (List, LargeList)):
        return _is_plain_type(kind.feature)
    return isinstance(kind, Value)


def open_set(directory: Path | str, built_by: str | None = None) -> BuiltSet:
    """Open a built data set. Raises UserError when the directory is missing or holds none of ours.

    built_by: the words after `pixelbert data build` that make this one, to be said where it is missing.
    """
    directory = Path(directory)
    if not directory.exists():
        words = f"{built_by} --out {directory}" if built_by else "NAME --out DIR"
        one = "it" if built_by else "one"
        raise UserError(
            f"there is no data set at {directory}: build {one} with `pixelbert data build {words}`"
        )
    if not directory.is_dir():
        raise UserError(f"{directory} is a file, not the directory of a built data set")
    card = read_card(directory)
    if card is None:
        raise UserError(f"{directory} is not a data set of pixelbert_fast: it has no {CARD} of ours")
    return BuiltSet(directory, card)


def spread(total: int, number: int) -> list[int]:
    """At most `number` of `total` rows, ascending and evenly spread, the first and the last among them."""
    return np.linspace(0, total - 1, min(number, total)).round().astype(int).tolist()
