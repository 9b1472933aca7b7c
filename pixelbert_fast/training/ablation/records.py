"""What an ablation keeps beside each of its runs: which run it is, and of which data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.ablation.plan import Run
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.durable import write_bytes, write_json
from pixelbert_fast.training.folder import first_difference, lasting
from pixelbert_fast.training.recipes import as_yaml

_RECORD = "ablation-run.json"


def write_record(run: Run) -> None:
    """Before it trains; OSError where it cannot be written."""
    folder = run.folder.path
    folder.mkdir(parents=True, exist_ok=True)
    record = {"users": run.users, "stage": run.stage, "described": run.described, "data": _cards(run)}
    write_json(folder / _RECORD, record)
    write_bytes(folder / "recipe.yaml", as_yaml(run.config).encode())


def check_record(run: Run) -> None:
    """Raises UserError where its folder holds another run that has trained, or one of other data."""
    record = _read(run)
    if not run.folder.has_trained():
        return
    path = run.folder.path
    if record is None:
        raise UserError(f"{path} holds a run that no ablation made; choose another output=FOLDER")
    remedy = "choose another output=FOLDER, or remove that folder and those of the runs that start from it"
    difference = first_difference(_with_defaults(record["described"]), run.described)
    if difference is not None:
        key, there, here = difference
        raise UserError(f"{path} holds a run with {key} = {there!r}, and now it is {here!r}; {remedy}")
    now = _cards(run)
    for directory, card in record.get("data", {}).items():
        if now.get(directory, card) != card:
            raise UserError(
                f"{path} holds a run of another data set than {directory} is now; put that one back, {remedy}"
            )


def runs_made_by(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """The versions and revisions that made the finished ones of `runs`: each once, with how many `runs`."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        file = run.folder.path / "run.json"
        if not run.finished or not file.is_file():
            continue
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue  # its metrics are whole, and its versions unknown
        made = {name: record.get(name) for name in ("versions", "revision")}
        key = json.dumps(made, sort_keys=True)
        found.setdefault(key, {**made, "runs": 0})["runs"] += 1
    return sorted(found.values(), key=lambda made: -made["runs"])


def spent(runs: Iterable[Run]) -> dict[str, Any]:
    """What the finished ones of `runs` took: how many they are, their steps, and their training in seconds.

    The seconds are a clock's, evaluations on the way among them, of as many processes as each run had.
    """
    found = [run.folder.metrics() for run in runs if run.finished]
    return {
        "runs": len(found),
        "steps": sum(metrics["steps"] for metrics in found),
        "training_seconds": round(sum(metrics["training_seconds"] for metrics in found), 3),
    }


def _read(run: Run) -> dict[str, Any] | None:
    file = run.folder.path / _RECORD
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        found["described"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file} is damaged; remove the folder {run.folder.path}") from None
    return found


def _with_defaults(described: dict[str, Any]) -> dict[str, Any]:
    try:
        # Options that came after that run was made have the values it was made with: their defaults.
        return lasting(RunConfig.model_validate(described).model_dump(mode="json"))
    except ValueError:
        return described


def _cards(run: Run) -> dict[str, str]:
    """By directory, what tells one built set from another: the hash of its card, of those that are there."""
    data = run.config.data
    directories = [data.directories] if isinstance(data.directories, str) else data.directories
    cards = {directory: Path(directory, "card.json") for directory in directories}
    return {
        directory: hashlib.sha256(card.read_bytes()).hexdigest()
        for directory, card in cards.items()
        if card.is_file()
    }
