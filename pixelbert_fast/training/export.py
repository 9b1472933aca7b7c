"""A run's weights as a folder to use: what `save_pretrained` writes, finished or not."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.training.checkpoint import DamagedError, StateFolder, StateRead, first_misfit, read_state
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.durable import replace_folder
from pixelbert_fast.training.folder import RunFolder
from pixelbert_fast.training.provenance import made_by
from pixelbert_fast.training.ranks import Ranks, name_accelerator

_RECORD = "export.json"
_FORMAT = "pixelbert_fast export"


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        source: the folder it came from: a state, or a checkpoint.
        step: updates made when a state was written; None for a checkpoint.
    """

    source: Path
    step: int | None


def export(given: Path, out: Path) -> Exported:
    """Write the weights of `given` to `out`, with all that `from_pretrained` needs.

    Args:
        given: a run's folder (the result of a finished run, the newest state of another), a state
            `resume/step-N`, or a checkpoint that a run has made (`checkpoint/`, `best/`).
        out: is made; an earlier export is replaced when the new one is whole.

    A state is exported through its run's task, so that the run's data set and start must be where they were.

    Raises:
        UserError: `given` is none of these, `out` holds something that is no export, or the task cannot be
            built here.
        RunError: the state is damaged or of another model, or `out` cannot be written.
    """
    _refuse_others(out)
    name_accelerator()
    if _is_checkpoint(given):
        source: Path | StateRead = given
    elif (given / "run.json").is_file():
        run = RunFolder(given)
        source = run.checkpoint if run.metrics_file.is_file() else _newest(run)
    elif (given / "state.json").is_file():
        try:
            source = read_state(given, Ranks())
        except DamagedError as error:
            raise RunError(f"the state {given} is damaged: {error}; another beside it may not be") from None
    else:
        raise UserError(
            f"{given} is no run's folder, no state in one (resume/step-N) and no checkpoint; give one of them"
        )
    if isinstance(source, Path):
        return _written(out, Exported(source, None), lambda into: _copy(source, into))
    return _from_state(source, given, out)


def _from_state(state: StateRead, given: Path, out: Path) -> Exported:
    from pixelbert_fast.tasks import make_task

    run = RunFolder(given if (given / "run.json").is_file() else given.resolve().parents[1])
    step = state.record["step"]
    source = run.resume / f"step-{step:08d}"
    try:
        config = RunConfig.model_validate(state.record["config"])
    except ValueError:
        raise RunError(
            f"the configuration in {source} has options that this version of pixelbert_fast has not; export"
            f" with the version that wrote it, {state.record['made_by']['versions']['pixelbert_fast']}"
        ) from None
    task = make_task(run.started_from(config))
    misfit = first_misfit(state.shared["model"], task.model)
    if misfit is not None:
        raise RunError(f"the state {source} does not fit the model its configuration gives here: {misfit}")
    task.model.load_state_dict(state.shared["model"])
    return _written(out, Exported(source, step), lambda into: task.save(task.model, into))


def _newest(run: RunFolder) -> StateRead:
    state = StateFolder(run.resume, Ranks()).read()
    if state is None:
        raise UserError(f"the run in {run.path} has saved no state yet; export it when it has")
    return state


def _refuse_others(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        try:
            if json.loads((out / _RECORD).read_text(encoding="utf-8"))["format"] == _FORMAT:
                return
        except (OSError, ValueError, KeyError, TypeError):
            pass
        raise UserError(f"{out} holds something that is no export; give another --out")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give another --out")


def _is_checkpoint(folder: Path) -> bool:
    named = (folder / "config.json").is_file() or (folder / "attributes.json").is_file()
    return named and any(folder.glob("*.safetensors"))


def _copy(source: Path, into: Path) -> None:
    try:
        shutil.copytree(source, into, dirs_exist_ok=True)
    except shutil.Error as error:
        raise OSError(str(error)) from None


def _written(out: Path, exported: Exported, save: Any) -> Exported:
    def write(into: Path) -> None:
        save(into)
        record = {"format": _FORMAT, "version": 1, "source": str(exported.source), "step": exported.step}
        text = json.dumps({**record, "made_by": made_by()}, indent=1)
        (into / _RECORD).write_text(text + "\n", encoding="utf-8")

    try:
        replace_folder(out, write)
    except Exception as error:  # safetensors and transformers have their own for what cannot be written
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"the export {out} cannot be written: {reason}") from None
    return exported
