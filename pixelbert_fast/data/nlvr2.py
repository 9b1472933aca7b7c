"""The builder `nlvr2`: NLVR2 from its JSON lines and the folder of its images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pixelbert_fast.data.blocks import Dropped
from pixelbert_fast.data.build import Plan
from pixelbert_fast.data.official import DUPLICATE, AnnotationFile, Keys, OfficialSet, clean
from pixelbert_fast.errors import UserError

_IDENTIFIER = re.compile(r"(train|dev|test1)-(\d{1,12})-(\d{1,3})-(\d{1,3})", re.ASCII)
_SPLITS = {"train": "train", "dev": "val", "test1": "test"}
_LABELS = {"True": True, "False": False, True: True, False: False}
_PUBLISHED = {"train": 86_373, "val": 6_982, "test": 6_967}
_LAYOUT = "give --images the folder that holds NLVR2's train, dev and test1"
_TRIED = 100
MOST_BYTES = 1 << 24
"""Longest line that is read; official ones have some hundred bytes."""


class _Image(NamedTuple):
    key: str
    split: str
    directory: str | None


class NLVR2(OfficialSet):
    """NLVR2: a record an image, and statements about pairs of them with their identifiers.

    train is NLVR2's train, val its dev, test its test1 (the public test set, "test-P"), of which a statement
    may come without a label.

    Args:
        images: folder that holds train (with its numbered folders), dev and test1; it may lie in `images`
            below that, and files may lie in train without folders, as the download script leaves them.
        annotations: train.json, dev.json and test1.json, or some of them.
    """

    name = "nlvr2"
    home = "https://lil.nlp.cornell.edu/nlvr/"
    licence = "statements CC-BY-4.0 (Cornell); images belong to their owners"

    def __init__(self, images: Path | str, annotations: Sequence[Path | str]):
        super().__init__(images, annotations)
        self.files.sort(key=lambda file: file.name)  # in any order they are the same set

    def plan(self) -> Plan:
        """The images in the order in which the statements first name them, and the statements."""
        pairs: dict[str, list[dict]] = {}
        images: dict[str, dict[_Image, int]] = {}
        dropped: list[Dropped] = []
        identifiers = Keys()
        for file in self.files:
            for place, statement in _lines(self.name, file):
                identifier = statement.get("identifier")
                found = _IDENTIFIER.fullmatch(identifier) if isinstance(identifier, str) else None
                why = _wrong(statement, found)
                if why is None and not identifiers.take(identifier):
                    why = DUPLICATE
                if why:
                    dropped.append(Dropped(f"{file.name} line {place} {identifier}"[:200], why))
                    continue
                split = _SPLITS[found[1]]
                own = images.setdefault(split, {})
                left, right = (own.setdefault(one, len(own)) for one in _images(found, statement))
                pairs.setdefault(split, []).append(
                    {
                        "left": left,
                        "right": right,
                        "statement": clean(statement["sentence"]),
                        "label": _LABELS.get(statement.get("label")),
                        "identifier": identifier,
                    }
                )
        if not pairs:
            raise UserError(
                f"{self.name}: {self.files[0].path} has no statements that can be used{_first(dropped)}"
            )
        splits = {
            split: [tuple(one) for one in images[split]] for split in _SPLITS.values() if split in images
        }
        for specs in splits.values():
            self.check_layout([path for spec in specs[:_TRIED] for path in _paths(_Image(*spec))], _LAYOUT)
        counted = {f"statements in {split}": len(own) for split, own in pairs.items()}
        published = {f"statements in {split}": _PUBLISHED[split] for split in splits}
        card = self.card(counted=counted, published=published, dropped=dropped)
        return Plan(splits, card, {split: pairs[split] for split in splits})

    def render(self, spec: tuple[str, str, str | None]) -> dict | Dropped:
        """The record of one image; it has no captions."""
        image = _Image(*spec)
        return self.record(image.key, self.folder.first_of(_paths(image)), captions=[])


def _first(dropped: list[Dropped]) -> str:
    return f", the first for: {dropped[0].why}" if dropped else ""


def _lines(name: str, file: AnnotationFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines with their numbers from 1; blank lines are passed over."""
    with open(file.path, "rb") as stream:
        for place in range(1, 1 << 62):
            line = stream.readline(MOST_BYTES)
            if not line:
                return
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise UserError(
                    f"{name}: line {place} of {file.path} is not a JSON object: give NLVR2's train.json, "
                    "dev.json or test1.json as they were distributed"
                )
            yield place, value


def _wrong(statement: dict, found: re.Match | None) -> str | None:
    if found is None:
        return "identifier is not SPLIT-SET-PAIR-SENTENCE of train, dev or test1"
    if not clean(statement.get("sentence")):
        return "no sentence"
    label = statement.get("label")
    if label is None and found[1] == "test1":
        return None  # predictions are still wanted
    if not isinstance(label, str | bool) or label not in _LABELS:
        return "label is neither True nor False"
    return None


def _images(found: re.Match, statement: dict) -> list[_Image]:
    """Left and right; both statements about a pair, and a pair whose images are one file, share them."""
    directory = statement.get("directory")
    below = str(directory) if isinstance(directory, int | str) and str(directory).isdecimal() else None
    pair = f"{found[1]}-{found[2]}-{found[3]}"
    return [_Image(f"{pair}-img{side}", found[1], below) for side in (0, 1)]


def _paths(image: _Image) -> list[str]:
    """Where the file may lie, the official place first."""
    flat = f"{image.split}/{image.key}.png"
    deep = [f"{image.split}/{image.directory}/{image.key}.png"] if image.directory else []
    return [path for place in (*deep, flat) for path in (place, f"images/{place}")]
