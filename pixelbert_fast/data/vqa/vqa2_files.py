"""The files of VQA v2: which is which, and where in them each image's questions and their answers are."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelbert_fast.data.blocks import Dropped
from pixelbert_fast.data.json_stream import JsonArray
from pixelbert_fast.data.official import DUPLICATE, AnnotationFile, clean, storable
from pixelbert_fast.data.vqa.answers import normalise
from pixelbert_fast.errors import UserError


class Subtype(NamedTuple):
    """What a file's ``data_subtype`` says: our split, the folder of its images, are answers public."""

    split: str
    images: str
    answered: bool


SUBTYPES = {
    "train2014": Subtype("train", "train2014", True),
    "val2014": Subtype("val", "val2014", True),
    "test2015": Subtype("test", "test2015", False),
    "test-dev2015": Subtype("test", "test2015", False),
}
_WHOLE = "give the files as they were distributed"

# Both lists follow within the first kilobytes; a quote inside a text has a backslash before it.
_LIST = re.compile(rb'"(questions|annotations)"\s*:\s*\[')
_HEAD = 1 << 20


@dataclass(slots=True)
class Listing:
    """The entries of one file, column by column: question and image ids, and the bytes of each."""

    path: Path
    subtype: str
    question_ids: np.ndarray
    image_ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def places(self) -> np.ndarray:
        """int64 ``[entries, 2]``: first byte and length of each entry."""
        return np.stack([self.starts, self.lengths], axis=1)


@dataclass(slots=True)
class Source:
    """The files of one split; `annotations` is None where the answers are not public."""

    questions: Listing
    annotations: Listing | None = None
    dropped: list[Dropped] = field(default_factory=list)


class Matched(NamedTuple):
    """One image: its id, and int64 ``[questions, 2 or 4]``, the places of its questions and annotations."""

    image_id: int
    places: np.ndarray


def read_files(name: str, files: Sequence[AnnotationFile], occurrences: Counter[str]) -> dict[str, Source]:
    """Read every file and put those of a split together; train first.

    `occurrences` counts the normalised main answers. Raises UserError for a file that is neither, is broken
    or empty, is there twice, or lacks the other one.
    """
    listed: dict[tuple[str, str], Listing] = {}
    dropped: dict[str, list[Dropped]] = {}
    for file in files:
        kind = _kind(name, file.path)
        reasons: list[Dropped] = []
        one = _read(name, file.path, kind, occurrences, reasons)
        split = SUBTYPES[one.subtype].split
        other = listed.setdefault((split, kind), one)
        if other is not one:
            raise UserError(
                f"{name}: {other.path} ({other.subtype}) and {one.path} ({one.subtype}) are both {kind} of "
                f"the split {split!r}: give one of them"
            )
        dropped.setdefault(split, []).extend(reasons)
    return {
        split: _paired(name, split, listed, dropped[split])
        for split in dict.fromkeys(subtype.split for subtype in SUBTYPES.values())
        if split in dropped
    }


def _paired(name: str, split: str, listed: dict[tuple[str, str], Listing], dropped: list[Dropped]) -> Source:
    questions, annotations = listed.get((split, "questions")), listed.get((split, "annotations"))
    if questions is None:
        raise UserError(
            f"{name}: {annotations.path} has the answers of {split!r} only; give its questions too"
        )
    if annotations is None and SUBTYPES[questions.subtype].answered:
        raise UserError(
            f"{name}: {questions.path} has the questions of {split!r} only; give its annotations file too"
        )
    return Source(questions, annotations, dropped)


def _kind(name: str, path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head.strip():
        raise UserError(f"{name}: {path} is empty: {_WHOLE}")
    found = _LIST.search(head)
    if found is None:
        raise UserError(f"{name}: {path} has neither a list of questions nor one of annotations: {_WHOLE}")
    return found.group(1).decode()


def _read(name: str, path: Path, kind: str, occurrences: Counter[str], dropped: list[Dropped]) -> Listing:
    columns = [array("q") for _ in range(4)]
    taken: set[int] = set()
    elements = JsonArray(path, kind)
    wrong = _wrong_annotation if kind == "annotations" else _wrong_question
    for place, element in enumerate(elements):
        entry = element.value
        why = _wrong_entry(entry) or wrong(entry)
        if why is None and entry["question_id"] in taken:
            why = DUPLICATE
        if why:
            number = entry.get("question_id") if isinstance(entry, dict) else None
            dropped.append(
                Dropped(f"{path.name} {kind[:-1]} {place if number is None else number}"[:200], why)
            )
            continue
        taken.add(entry["question_id"])
        row = (entry["question_id"], entry["image_id"], element.start, element.length)
        for column, value in zip(columns, row, strict=True):
            column.append(value)
        if kind == "annotations":
            occurrences[normalise(storable(entry["multiple_choice_answer"]))] += 1
    if not columns[0]:
        raise UserError(f"{name}: {path} has no {kind} that can be used: {_WHOLE}")
    subtype = elements.beside.get("data_subtype")
    if subtype not in SUBTYPES:
        raise UserError(
            f"{name}: {path} says data_subtype {subtype!r}, expected one of {', '.join(SUBTYPES)}: {_WHOLE}"
        )
    if kind == "annotations" and not SUBTYPES[subtype].answered:
        raise UserError(
            f"{name}: {path} says it has the answers of {subtype}, which are not public: {_WHOLE}"
        )
    return Listing(path, subtype, *(np.frombuffer(column, dtype=np.int64) for column in columns))


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _wrong_entry(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "not an object"
    if not _is_id(entry.get("question_id")) or not _is_id(entry.get("image_id")):
        return "question_id or image_id is no whole number"
    return None


def _wrong_question(entry: dict) -> str | None:
    return None if clean(entry.get("question")) else "no question"


def _wrong_annotation(entry: dict) -> str | None:
    answers = entry.get("answers")
    if not isinstance(entry.get("multiple_choice_answer"), str):
        return "no main answer (multiple_choice_answer)"
    if not isinstance(answers, list) or not answers:
        return "no answers of annotators"
    if not all(isinstance(one, dict) and isinstance(one.get("answer"), str) for one in answers):
        return "an annotator's answer is no text"
    return None


def match(name: str, source: Source) -> Iterator[Matched]:
    """The images of a split in the order in which the questions first name them, with the places of theirs.

    What has no counterpart is added to `source.dropped`. Raises UserError where nothing matches.
    """
    questions, annotations = source.questions, source.annotations
    places = questions.places()
    kept = np.ones(len(places), dtype=bool)
    if annotations is not None:
        order = np.argsort(annotations.question_ids, kind="stable")
        known = annotations.question_ids[order]
        nearest = np.searchsorted(known, questions.question_ids).clip(max=len(known) - 1)
        found = known[nearest] == questions.question_ids
        rows = order[nearest]
        same_image = annotations.image_ids[rows] == questions.image_ids
        kept = found & same_image
        if not kept.any():
            raise UserError(
                f"{name}: no question of {questions.path} has its annotation in {annotations.path}: {_WHOLE}"
            )
        _drop(source, questions, ~found, "question without annotation")
        _drop(source, questions, found & ~same_image, "question and annotation name different images")
        asked = np.isin(annotations.question_ids, questions.question_ids)
        _drop(source, annotations, ~asked, "annotation without question", "annotation")
        places = np.concatenate([places, annotations.places()[rows]], axis=1)
    places, image_ids = places[kept], questions.image_ids[kept]
    order = np.argsort(image_ids, kind="stable")
    ids, begins = np.unique(image_ids[order], return_index=True)
    groups = np.split(order, begins[1:])
    for which in np.argsort([group[0] for group in groups], kind="stable"):
        yield Matched(int(ids[which]), places[groups[which]])


def _drop(source: Source, listing: Listing, which: np.ndarray, why: str, kind: str = "question") -> None:
    for number in listing.question_ids[which]:
        source.dropped.append(Dropped(f"{listing.path.name} {kind} {number}", why))
