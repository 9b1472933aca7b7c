"""How much data a run was made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pixelbert_fast.data.records import BuiltSet, open_set
from pixelbert_fast.errors import UserError

# Of more images the captions are not counted: it would read gigabytes.
_MOST_COUNTED = 200_000


def set_counts(directories: Iterable[str]) -> list[tuple[str, dict[str, dict[str, int]], str]]:
    """For each set (directory, what is counted by split, what is in the way of counting, or "")."""
    found = []
    for directory in directories:
        try:
            found.append((directory, _counted(open_set(directory)), ""))
        except UserError as error:
            found.append((directory, {}, str(error)))
    return found


def _counted(built: BuiltSet) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {"images": dict(built.card["counts"])}
    for what in ("captions", "questions"):
        counts = {}
        for split, images in built.card["counts"].items():
            if 0 < images <= _MOST_COUNTED:
                records = built.split(split)
                if what in records.column_names:
                    counts[split] = _entries(records, what)
        if any(counts.values()):
            found[what] = counts
    pairs = built.card.get("pairs") or {}
    if pairs:
        found["statements about pairs"] = dict(pairs)
    if built.card.get("dropped"):
        found["dropped when it was built"] = {"all": len(built.card["dropped"])}
    return found


def _entries(records: Any, column: str) -> int:
    import pyarrow.compute

    own = records.select_columns([column]).with_format("arrow")[:][column]
    return pyarrow.compute.sum(pyarrow.compute.list_value_length(own)).as_py() or 0
