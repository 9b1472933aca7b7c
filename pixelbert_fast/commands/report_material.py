"""What a report shows beside the run's own folder: recipe, data, what guessing gives, examples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pixelbert_fast.data.records import BuiltSet, open_set
from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.tasks import checkpoint_examples
from pixelbert_fast.tasks.examples import ExampleRequest, Group
from pixelbert_fast.training.folding import folded
from pixelbert_fast.visualize.report.page import Material
from pixelbert_fast.visualize.report.records import RunRecord, text_only_twin
from pixelbert_fast.visualize.report.set_counts import set_counts

from .showing import chosen_device


def material(run: RunRecord, *, examples: bool, device: str | None, states: bool) -> Material:
    """All of it; what cannot be had is left out, or says why.

    Args:
        examples: look for examples of what the model gets right and wrong.
        states: where a run has no checkpoint, of its newest state.
    """
    import yaml

    groups: Sequence[Group] = ()
    reason = f"None were looked for; `pixelbert report {run.path}` does."
    if examples:
        groups, reason = _examples(run, device, states)
    changed, whole = (
        yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100) for tree in recipe(run)
    )
    return Material(
        recipe=changed,
        whole=whole,
        sets=set_counts(_directories(run)),
        guesses=guesses(run),
        twin=text_only_twin(run),
        groups=groups,
        no_examples=reason,
    )


def recipe(run: RunRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration without what has its default, and with every default."""
    return folded(run.config)


def guesses(run: RunRecord) -> dict[str, dict[str, float]]:
    """What guessing gives, by split and figure, where the data says it (see `figures.rows`)."""
    figures = run.figures()
    found: dict[str, dict[str, float]] = {}
    if figures is None:
        return found
    for directory in _directories(run):
        for split in figures[1]:
            try:
                found[split] = guessed(run.task, open_set(directory), split)
            except UserError:
                continue  # the set is gone, or has no such split
    return found


def split_examples(
    task: str, checkpoint: Path, built: BuiltSet, split: str, *, text_only: bool, device: str | None
) -> tuple[Sequence[Group], str]:
    """Examples of a checkpoint on a split, or why there are none."""
    try:
        request = ExampleRequest(text_only=text_only, device=chosen_device(device))
        with _without_bars():
            return checkpoint_examples(task)(checkpoint, built, split, request), ""
    except (UserError, RunError) as error:
        return (), f"There are none: {error}"
    except Exception as error:  # a report without examples is better than none
        reason = " ".join(str(error).split()) or "no reason given"
        return (), f"There are none, as finding them failed with {type(error).__name__}: {reason}"


def _examples(run: RunRecord, device: str | None, states: bool) -> tuple[Sequence[Group], str]:
    if run.task == "objects":
        return (), "There are none: of this task the backbone alone is kept, which names nothing by itself."
    with ExitStack() as held:
        room = None
        try:
            if states:
                made = tempfile.TemporaryDirectory(prefix="pixelbert-report-")
                room = Path(held.enter_context(made)) / "state"
            checkpoint = _checkpoint(run, room)
            built, split = _shown_split(run)
        except (UserError, RunError, OSError) as error:
            return (), f"There are none: {error}"
        if checkpoint is None:
            later = f"`pixelbert report {run.path}` looks again"
            return (), f"There are none yet, as the run has written no checkpoint; {later}."
        text_only = bool((run.config.get("start") or {}).get("text_only"))
        return split_examples(run.task, checkpoint, built, split, text_only=text_only, device=device)


def _checkpoint(run: RunRecord, room: Path | None) -> Path | None:
    """The finished run's checkpoint, else its best so far, else its newest state, exported into `room`."""
    for name in ("checkpoint", "best"):
        if (run.path / name / "config.json").is_file():
            return run.path / name
    if room is None or not (run.path / "resume").is_dir():
        return None
    from pixelbert_fast.training.export import export

    export(run.path, room)
    return room


def _shown_split(run: RunRecord) -> tuple[BuiltSet, str]:
    """The first split that the run is evaluated on, of the first set that has it."""
    splits = (run.config.get("evaluation") or {}).get("splits") or ["val"]
    opened = [open_set(directory) for directory in _directories(run)]
    for split in splits:
        for built in opened:
            if built.card["counts"].get(split):
                return built, split
    raise UserError(f"no data set of the run has a split {splits[0]!r}")


def _directories(run: RunRecord) -> list[str]:
    data = run.config.get("data") or {}
    several = data.get("sets")
    return [one["directory"] for one in several] if several else [data.get("directory") or "data"]


def guessed(task: str, built: BuiltSet, split: str) -> dict[str, float]:
    """What guessing gives on a split, by figure, beyond what follows from the task alone."""
    if task == "vqa":
        from pixelbert_fast.tasks.vqa.examples import guesses as most_common

        return most_common(built, split)
    if task != "objects":
        return {}
    listed = built.card.get("attributes") or {}
    return {name: 1 / len(values) for name, values in listed.items() if values}


@contextmanager
def _without_bars() -> Iterator[None]:
    """transformers draws a bar for the weights of each model that it reads."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()
