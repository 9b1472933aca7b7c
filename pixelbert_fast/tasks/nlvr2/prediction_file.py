"""Predictions in NLVR2's official form: lines ``identifier,prediction``, True or False, without a header."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.whole_file import written_whole

_TRUTH = {"true": True, "false": False}
_FORM = "give lines identifier,prediction with True or False"


def write_predictions(path: str | Path, predictions: Iterable[tuple[str, bool]]) -> int:
    """Writes (identifier, prediction) in the order given, and returns how many.

    Raises:
        ValueError: an identifier that comes twice or that no line can hold; no file is left then.
    """
    seen: set[str] = set()
    with written_whole(path) as file:
        for identifier, prediction in predictions:
            if identifier in seen:
                raise ValueError(f"the statement {identifier!r} has two predictions")
            if not identifier or identifier.split() != [identifier] or "," in identifier:
                raise ValueError(f"the identifier {identifier!r} does not fit in a line of the official form")
            file.write(f"{identifier},{bool(prediction)}\n")
            seen.add(identifier)
    return len(seen)


def read_predictions(path: str | Path) -> dict[str, bool]:
    """The predictions by identifier; empty lines are passed over. Raises UserError for another form."""
    found: dict[str, bool] = {}
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                identifier, _, truth = line.strip().partition(",")
                if not identifier or truth.lower() not in _TRUTH:
                    raise UserError(f"line {number} of {path} is no prediction: {_FORM}")
                if identifier in found:
                    raise UserError(f"{path} has two predictions for {identifier}: keep one")
                found[identifier] = _TRUTH[truth.lower()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as predictions ({error}): {_FORM}") from error
    return found
