"""The builder of `captions`: a folder of images, and a file that says what they show.

The file is ``.csv`` or ``.tsv`` with a line of column names, or ``.jsonl`` with an object a line. Its columns
are image (a path below the folder), caption, and perhaps split; --column names others. A caption of JSONL may
be a list of them. Several rows with one image become one record, wherever they stand.
"""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pixelbert_fast.data.blocks import Dropped
from pixelbert_fast.data.build import Plan
from pixelbert_fast.data.caption_table import CaptionTable
from pixelbert_fast.data.json_stream import bytes_at
from pixelbert_fast.data.official import (
    CHANGED,
    NO_CAPTION,
    OfficialSet,
    clean_captions,
    columns_named,
    named_values,
    split_named,
    split_of,
    split_shares,
)
from pixelbert_fast.data.records import SPLITS
from pixelbert_fast.errors import UserError

_OURS = ("image", "caption", "split")
_FIRST = 50


class CaptionFile(OfficialSet):
    """Images of the user's own with captions.

    Args:
        images: the folder that the paths of the file are relative to.
        annotations: the .csv, .tsv or .jsonl file.
        column: its names of the columns, {"image": "file_name"}; "caption" may name several, by commas.
        share: of val and test, by a hash of the path, as {"val": 0.05}, where the file has no split
            column; by default all images are for training.

    Raises UserError for a missing folder or file, an unknown kind of file, and for wrong columns or shares;
    `plan` does for a file that cannot be understood.
    """

    name = "captions"
    home = ""
    licence = "of whoever made the images and captions"

    def __init__(
        self,
        images: Path,
        annotations: Sequence[Path],
        column: Sequence[str] | Mapping[str, str] = (),
        share: Sequence[str] | Mapping[str, float] = (),
    ):
        super().__init__(images, annotations)
        if len(self.files) > 1:
            raise UserError(f"{self.name} has one annotation file, put the captions into one")
        self.column = named_values("column", column, _OURS)
        self.shares = split_shares(share)
        self.table = CaptionTable(self.files[0].path)

    def settings(self) -> dict:
        """Names of columns, and shares."""
        return {"column": self.column, "share": self.shares}

    def plan(self) -> Plan:
        """The rows of each image by their places; of the images only the paths are kept."""
        columns = self._columns
        if "split" in columns and self.shares:
            raise UserError(f"{self.files[0].path} has a split column: leave out --share")
        images, counted, dropped = _Images(), Counter(), []
        for number, place, row in self.table.rows():
            path = row.get(columns["image"])
            if None in row:
                dropped.append(Dropped(f"row {number:,}", "more fields than columns, a quote is missing"))
                continue
            if not isinstance(path, str) or not path.strip("\0 \t\r\n"):
                dropped.append(Dropped(f"row {number:,}", "no image is named"))
                continue
            key = _key(path)
            split = split_named(row.get(columns["split"])) if "split" in columns else None
            if "split" not in columns and "split" in row:
                raise UserError(
                    f"{self.files[0].path}: row {number:,} has a split and the first row has none"
                )
            captions = clean_captions(_texts(row, columns["caption"]), counted)
            images.add(key, place if captions else None, split)
        splits, refused = images.planned("split" in columns, self.shares)
        dropped += refused
        self.check_some(splits, dropped)
        self.check_layout(images.first(_FIRST), "give the folder that the paths are relative to")
        return Plan(splits, self.card(counted=counted, dropped=dropped))

    def render(self, spec: Sequence[int]) -> dict | Dropped:
        """The record of one image, from the places of its rows."""
        columns, captions, path = self._columns, [], "row"
        for place in spec:
            try:
                row = self.table.row(bytes_at(self.files[0].path, place))
            except ValueError:
                return Dropped(path, CHANGED)
            path = _key(str(row.get(columns["image"])))
            captions += clean_captions(_texts(row, columns["caption"]))
        return self.record(path, path, captions=captions) if captions else Dropped(path, CHANGED)

    @cached_property
    def _columns(self) -> dict[str, Any]:
        return columns_named(self.files[0].path, self.column, self.table.names, optional=("split",))


def _key(path: str) -> str:
    return PurePosixPath(path.strip()).as_posix()


def _texts(row: dict, names: list[str]) -> list:
    texts = []
    for name in names:
        value = row.get(name)
        texts += value if isinstance(value, list) else [value]
    return texts


class _Images:
    """The rows of each image in the order of the file, in arrays: rows may be many millions."""

    _UNKNOWN, _SEVERAL = len(SPLITS), len(SPLITS) + 1

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._splits = array("b")
        self._owners, self._places = array("Q"), array("Q")

    def add(self, key: str, place: int | None, split: str | None) -> None:
        """A row of an image; no place: a row without caption."""
        code = self._UNKNOWN if split is None else SPLITS.index(split)
        number = self._numbers.setdefault(key, len(self._numbers))
        if number == len(self._splits):
            self._splits.append(code)
        elif self._splits[number] != code:
            self._splits[number] = self._SEVERAL
        if place is not None:
            self._owners.append(number)
            self._places.append(place)

    def first(self, number: int) -> list[str]:
        return [key for key, _ in zip(self._numbers, range(number), strict=False)]

    def planned(
        self, named: bool, shares: Mapping[str, float]
    ) -> tuple[dict[str, "RowGroups"], list[Dropped]]:
        """The specs of each split, and the images that are left out; `named`: the file names the splits."""
        import numpy as np

        owners = np.frombuffer(self._owners, np.uint64) if self._owners else np.zeros(0, np.uint64)
        places = np.frombuffer(self._places, np.uint64) if self._places else np.zeros(0, np.uint64)
        places = places[np.argsort(owners, kind="stable")]
        starts = np.concatenate(
            [[0], np.cumsum(np.bincount(owners.astype(np.int64), minlength=len(self._splits)))]
        )
        chosen, dropped = {split: array("Q") for split in SPLITS}, []
        for key, number in self._numbers.items():
            code = self._splits[number]
            if starts[number] == starts[number + 1]:
                dropped.append(Dropped(key, NO_CAPTION))
            elif named and code == self._UNKNOWN:
                dropped.append(Dropped(key, "split is none of train, val, test"))
            elif named and code == self._SEVERAL:
                dropped.append(Dropped(key, "listed in several splits"))
            else:
                chosen[SPLITS[code] if named else split_of(key, shares)].append(number)
        return {split: RowGroups.of(numbers, starts, places) for split, numbers in chosen.items()}, dropped


class RowGroups(Sequence):
    """For each image the places of its rows, a tuple; two flat arrays hold them all, and those of a slice."""

    def __init__(self, bounds: Any, places: Any):
        self._bounds, self._places = bounds, places

    @classmethod
    def of(cls, numbers: Any, starts: Any, places: Any) -> "RowGroups":
        """The groups of these numbers, where group i is `places[starts[i] : starts[i + 1]]`."""
        import numpy as np

        numbers = np.array(numbers, np.int64)
        lengths = starts[numbers + 1] - starts[numbers]
        bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        within = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
        return cls(bounds, places[np.repeat(starts[numbers], lengths) + within])

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            first, last, _ = index.indices(len(self))
            bounds = self._bounds[first : last + 1]
            return RowGroups(bounds - bounds[0], self._places[bounds[0] : bounds[-1]].copy())
        if not 0 <= index < len(self):
            raise IndexError(index)
        return tuple(int(place) for place in self._places[self._bounds[index] : self._bounds[index + 1]])
