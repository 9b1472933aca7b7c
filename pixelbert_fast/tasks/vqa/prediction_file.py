"""Predictions as the VQA evaluation server takes them: a JSON list of {"question_id": int, "answer": str}."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.whole_file import written_whole


def write_predictions(path: str | Path, predictions: Iterable[tuple[int, str]]) -> int:
    """Writes (question id, answer) in the order given, and returns how many.

    Raises:
        ValueError: a question that comes twice; no file is left then.
    """
    seen: set[int] = set()
    with written_whole(path) as file:
        for number, answer in predictions:
            if number in seen:
                raise ValueError(f"question {number} has two predictions")
            file.write(",\n" if seen else "[\n")
            file.write(json.dumps({"question_id": int(number), "answer": answer}, ensure_ascii=False))
            seen.add(number)
        file.write("\n]\n" if seen else "[]\n")
    return len(seen)


def read_predictions(path: str | Path) -> dict[int, str]:
    """The answers by question id. Raises UserError for a file of another form."""
    form = 'give a JSON list of {"question_id": number, "answer": text}'
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as predictions ({error}): {form}") from error
    if not isinstance(entries, list):
        raise UserError(f"{path} holds no list: {form}")
    found: dict[int, str] = {}
    for place, entry in enumerate(entries):
        match entry:
            case {"question_id": int() as number, "answer": str() as answer} if not isinstance(number, bool):
                if number in found:
                    raise UserError(f"{path} has two predictions for question {number}: keep one")
                found[number] = answer
            case _:
                raise UserError(f"entry {place} of {path} is no prediction: {form}")
    return found
