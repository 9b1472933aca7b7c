"""A run as its folder tells it, whatever state it is in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelbert_fast.errors import UserError

Record = dict[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """What `run.json`, `log.jsonl` and `metrics.json` say of one run.

    Attributes:
        path: its folder.
        name: what to call it.
        about: `run.json`: `config`, and of newer runs `versions`, `revision` and `machine`.
        train: records of training, by step, each step once.
        evaluations: those of evaluations on the way, likewise.
        events: all others, in order: what was left out, warnings.
        metrics: `metrics.json` of a finished run, else None.
        unread: lines of the log that are no whole records.
    """

    path: Path
    name: str
    about: Record
    train: list[Record] = field(default_factory=list)
    evaluations: list[Record] = field(default_factory=list)
    events: list[Record] = field(default_factory=list)
    metrics: Record | None = None
    unread: int = 0

    @property
    def config(self) -> Record:
        """The run's configuration."""
        return self.about.get("config") or {}

    @property
    def task(self) -> str:
        """The task's name."""
        return str((self.metrics or {}).get("task") or self.config.get("task") or "?")

    @property
    def step(self) -> int:
        """The last step that anything is known of."""
        last = [records[-1]["step"] for records in (self.train, self.evaluations) if records]
        steps = (self.metrics or {}).get("steps")
        return max([*last, steps if isinstance(steps, int) else 0])

    @property
    def versions(self) -> Record:
        """Of the packages that the run was started with, or, of an older run, finished with."""
        return self.about.get("versions") or (self.metrics or {}).get("versions") or {}

    def figures(self) -> tuple[int, Record] | None:
        """(step, metrics by split) of the end, or of the last evaluation on the way."""
        if self.metrics is not None and isinstance(self.metrics.get("metrics"), dict):
            return self.step, self.metrics["metrics"]
        if self.evaluations:
            return self.evaluations[-1]["step"], self.evaluations[-1]["metrics"]
        return None


def read_run(folder: str | Path, name: str | None = None) -> RunRecord:
    """Reads a run's folder; what is damaged or missing in it is left out, but for `run.json`.

    Raises:
        UserError: there is no run in the folder.
    """
    folder = Path(folder)
    about = _json(folder / "run.json")
    if about is None or not _is_ours(about):
        raise UserError(f"there is no run in {folder}: it has no run.json that can be read")
    train: dict[int, Record] = {}
    evaluations: dict[int, Record] = {}
    events: list[Record] = []
    unread = 0
    for record in _lines(folder / "log.jsonl"):
        kind, step = (record or {}).get("kind"), (record or {}).get("step")
        if record is None or not isinstance(step, int):
            unread += 1
        elif kind == "train":
            train[step] = record
        elif kind == "evaluation" and isinstance(record.get("metrics"), dict):
            evaluations[step] = record
        else:
            events.append(record)
    return RunRecord(
        path=folder,
        name=name or folder.resolve().name,
        about=about,
        train=[train[step] for step in sorted(train)],
        evaluations=[evaluations[step] for step in sorted(evaluations)],
        events=events,
        metrics=_json(folder / "metrics.json"),
        unread=unread,
    )


def read_runs(folders: list[Path]) -> list[RunRecord]:
    """Several runs, each by its folder's name, or by its whole path where two have the same.

    Raises UserError as `read_run`, and for a folder that is given twice.
    """
    resolved = [folder.resolve() for folder in folders]
    for place, one in enumerate(resolved):
        if one in resolved[:place]:
            raise UserError(f"{folders[place]} is given twice")
    last = [one.name for one in resolved]
    names = [
        one.name if last.count(one.name) == 1 else str(given)
        for one, given in zip(resolved, folders, strict=True)
    ]
    return [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]


def text_only_twin(run: RunRecord) -> RunRecord | None:
    """The finished run beside this one that differs in nothing but that it was shown no pixels, if any."""
    if (run.config.get("start") or {}).get("text_only"):
        return None
    try:
        beside = sorted(path.parent for path in run.path.resolve().parent.glob("*/metrics.json"))
    except OSError:
        return None
    for folder in beside:
        about = _json(folder / "run.json")
        if about is None or not _is_ours(about):
            continue
        config = about.get("config") or {}
        if (config.get("start") or {}).get("text_only") and _alike(
            _comparable(config), _comparable(run.config)
        ):
            return read_run(folder)
    return None


def _is_ours(about: Record) -> bool:
    """Whether a run.json has the parts that this module asks for; other programs write files of that name."""
    config = about.get("config") or {}
    sections = ("start", "data", "training", "evaluation")
    return isinstance(config, dict) and all(isinstance(config.get(name) or {}, dict) for name in sections)


def _comparable(config: Record) -> Record:
    start = {**(config.get("start") or {}), "text_only": None}
    # How it was computed and what was kept of it change no figure beyond rounding.
    kept = ("task", "seed", "data", "tokenizer", "model", "objectives", "optimizer", "schedule")
    length = {
        name: (config.get("training") or {}).get(name) for name in ("epochs", "steps", "images_per_batch")
    }
    return {**{name: config.get(name) for name in kept}, "start": start, "training": length}


def _alike(one: Any, other: Any, *, free: bool = True) -> bool:
    """Whether two configurations agree; where `free`, in the options that both have: newer ones have more."""
    if not (free and isinstance(one, dict) and isinstance(other, dict)):
        return one == other
    # What one names in these and the other does not is a difference.
    whole = ("overrides", "build")
    return all(_alike(one[key], other[key], free=key not in whole) for key in one.keys() & other.keys())


def _json(file: Path) -> Record | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _lines(file: Path) -> Iterator[Record | None]:
    try:
        content = file.read_bytes()
    except OSError:
        return
    for line in content.splitlines():
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None  # a process that is killed leaves a part
        yield found if isinstance(found, dict) else None
