"""One run from its configuration to its metrics: data, backbone, training, evaluation, checkpoint."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.training import engine as engines
from pixelbert_fast.training.accumulation import with_accumulation
from pixelbert_fast.training.best import BestCheckpoint
from pixelbert_fast.training.checkpoint import (
    StateFolder,
    StateRead,
    first_misfit,
    seed_all,
    set_random_state,
    undisturbed_random,
)
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.durable import replace_folder, write_json
from pixelbert_fast.training.folder import RunFolder
from pixelbert_fast.training.logs import RunLog, bar, check_wandb
from pixelbert_fast.training.loop import Position, TrainingLoop
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer, parameter_groups
from pixelbert_fast.training.provenance import differences, made_by, versions
from pixelbert_fast.training.ranks import Ranks, threads_per_process
from pixelbert_fast.training.recipes import load_config
from pixelbert_fast.training.samples import SampleLog
from pixelbert_fast.training.schedule import Schedule, make_factor

Resume = Literal["auto", "never"]


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Attributes:
        metrics: what `metrics.json` holds.
        folder: where it is.
        before: whether it had been finished before, and nothing was done now.
    """

    metrics: dict[str, Any]
    folder: RunFolder
    before: bool


def run(config: RunConfig, ranks: Ranks, engine_name: str, *, resume: Resume = "auto") -> Result:
    """Do what `config` says; called by every process of the run.

    Raises:
        UserError, RunError: one sentence saying what is wrong.
        loop.Stopped: a signal asked for it; the same call goes on from there.
    """
    began = time.perf_counter()
    folder = RunFolder(config.output)
    described = config.model_dump(mode="json")
    config = with_accumulation(config, ranks.world)
    found = ranks.first_does(lambda: folder.claim(described, resume))
    if found == "finished":
        return Result(ranks.first_does(folder.metrics), folder, before=True)
    check_wandb(config.logging.wandb)
    _set_threads(config, ranks)
    prepare_data(config, ranks)
    start_seconds = 0.0
    for part in ("backbone", "checkpoint"):
        name = getattr(config.start, f"{part}_recipe")
        if name:
            again = resume if found == "new" else "auto"
            earlier = _train_earlier(part, name, config, folder, ranks, engine_name, again)
            start_seconds += earlier["total_seconds"]
    prepared = folder.started_from(config)

    seed_all(config.seed)
    task = _make_task(prepared, engines.device_of(ranks))
    engine, position = _trained(task, prepared, described, folder, ranks, engine_name)
    try:
        metrics = _concluded(task, engine, position, config, folder, ranks, began, start_seconds)
    finally:
        engine.close()
    return Result(metrics, folder, before=False)


def prepare_data(config: RunConfig, ranks: Ranks) -> None:
    """Build the data set if the configuration says how and it is not there; the other processes wait."""
    build = config.data.build
    if build is None:
        return

    def work() -> None:
        from pixelbert_fast.data.build import build_set, make_builder

        builder, directory = make_builder(build.name, **build.options()), Path(config.data.directory)
        with contextlib.ExitStack() as shown:
            progress = None

            def advanced(more: int, total: int) -> None:
                nonlocal progress
                if progress is None:  # a set that is there already shows no bar
                    progress = shown.enter_context(bar(f"building {directory}", total, unit="image"))
                progress.update(more)

            build_set(builder, directory, progress=advanced)

    ranks.first_does(work)


def _make_task(config: RunConfig, device: torch.device) -> Any:
    from pixelbert_fast.tasks import make_task

    return make_task(config, device)


def _train_earlier(
    part: str,
    name: str,
    config: RunConfig,
    folder: RunFolder,
    ranks: Ranks,
    engine_name: str,
    resume: Resume,
) -> dict[str, Any]:
    """The metrics of the run, by the recipe `name`, whose result this one starts from."""
    into = folder.earlier[part]
    overrides = [f"output={into}"]
    if config.training.threads:
        overrides.append(f"training.threads={config.training.threads}")
    if part == "checkpoint" and config.task == "pretrain":
        # It must know this run's words, and have learnt from nothing that this run leaves out.
        overrides += [
            f"tokenizer.texts={json.dumps(config.data.directories)}",
            f"objectives.mlm={config.objectives.mlm}",
            f"objectives.itm={config.objectives.itm}",
            f"start.text_only={config.start.text_only}",
        ]
    recipe = load_config(name, overrides)
    task = "objects" if part == "backbone" else "pretrain"
    if recipe.task != task:
        raise UserError(
            f"start.{part}_recipe = {name!r} is a recipe of the task {recipe.task!r}; it must be one of the"
            f" task {task!r}"
        )
    if ranks.first:
        there = RunFolder(into).metrics_file.is_file() and resume == "auto"
        done = "is trained already" if there else "comes first"
        print(f"the {part} to start from, by the recipe {name!r}, {done}", flush=True)
    return run(recipe, ranks, engine_name, resume=resume).metrics


def _trained(
    task: Any, config: RunConfig, described: dict[str, Any], folder: RunFolder, ranks: Ranks, engine_name: str
) -> tuple[engines.Engine, Position]:
    model = task.model
    options = {part: getattr(config.optimizer, part).model_dump() for part in ("backbone", "transformer")}
    optimizer = TwoAlgorithmOptimizer(parameter_groups(model, task.parameter_groups(model), options))
    made = ranks.first_does(made_by)
    states = StateFolder(folder.resume, ranks, keep=config.training.keep_states, made_by=made)
    engine = engines.make_engine(engine_name, model, optimizer, config, ranks)
    # Only now do the processes draw differently: the model was built alike in all of them.
    seed_all(config.seed + 1 + ranks.rank)

    state = states.read()
    position = Position() if state is None else _position(state[0], ranks)
    per_epoch = task.steps_per_epoch(ranks.world)
    total = _total_steps(config, position, per_epoch, ranks.world)
    if state is not None and state[0]["world"] == ranks.world:
        # The same schedule as before, also where epochs differ in length.
        total = state[0].get("total_steps", total)
    updates_per_epoch = per_epoch / config.training.accumulation
    schedule = Schedule(optimizer, make_factor(config.schedule, total, updates_per_epoch))
    if state is not None:
        _take_over(state, engine, schedule, config, ranks)
        if ranks.first:
            print(f"going on after step {position.step} of {total}", flush=True)
            for change in differences(state.record["made_by"], made):
                print(f"  the state was written with {change}", flush=True)
    if config.training.log_samples:
        accumulation = config.training.accumulation
        task = SampleLog(task, folder.samples, ranks, step=position.step, accumulation=accumulation)
    log = RunLog(
        folder.path,
        writes=ranks.first,
        resumed_step=position.step,
        wandb=config.logging.wandb,
        described=described,
    )

    def evaluate(at: Position) -> None:
        measured = evaluated(task, engine, config, ranks)
        log.write("evaluation", at.step, {"metrics": measured})
        _keep_best(task, engine, at, measured, config, ranks)

    loop = TrainingLoop(
        task,
        engine,
        schedule,
        ranks=ranks,
        states=states,
        log=log,
        options=config.training,
        record=described,
        evaluate=evaluate,
        evaluate_every=config.evaluation.every_epochs,
    )
    try:
        loop.run(position, total, title=task.name)
    finally:
        log.close()
        if isinstance(task, SampleLog):
            task.close()
    return engine, position


def _position(record: dict[str, Any], ranks: Ranks) -> Position:
    position = Position(**record["position"])
    if record["world"] != ranks.world:
        # Steps read the epoch's list of batches from left to right over all ranks: the same rest is to see.
        position.start, position.batch = position.shown(record["world"]), 0
    return position


def _take_over(
    state: StateRead, engine: engines.Engine, schedule: Schedule, config: RunConfig, ranks: Ranks
) -> None:
    record, shared, mine = state
    misfit = first_misfit(shared["model"], engine.module)
    if misfit is not None:
        raise RunError(
            f"the state under {config.output}/resume does not fit this model: {misfit}; go on with what that"
            " run was made of, or --resume never to replace it"
        )
    try:
        engine.load_state(shared, {} if mine is None else mine["own"])
        schedule.load_state_dict(shared["schedule"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"the state under {config.output}/resume does not fit this model: {reason}") from None
    if mine is not None:
        set_random_state(mine["random"])
    else:
        seed_all(config.seed + 1 + ranks.rank + 1000 * record["step"])


def _total_steps(config: RunConfig, position: Position, batches_per_epoch: int, world: int) -> int:
    options = config.training
    if options.steps is not None:
        return options.steps
    left = options.epochs * batches_per_epoch - position.epoch * batches_per_epoch
    left -= position.shown(world) / world
    return max(position.step + round(left / options.accumulation), 1)


def evaluated(task: Any, engine: engines.Engine, config: RunConfig, ranks: Ranks) -> dict[str, Any]:
    """The task's metrics, measured by the first process while the others wait; no generator is disturbed."""

    def work(model: torch.nn.Module) -> dict[str, Any]:
        with undisturbed_random(), bar("evaluation", None, unit="image") as progress:

            def reached(done: int, total: int) -> None:
                if done < progress.n:
                    progress.reset(total)  # the next split
                progress.total = total
                progress.update(done - progress.n)

            return task.evaluate(model, progress=reached, limit=config.evaluation.images)

    with engine.gathered() as model:
        return ranks.first_does(lambda: work(model))


def _keep_best(
    task: Any, engine: engines.Engine, at: Position, measured: dict[str, Any], config: RunConfig, ranks: Ranks
) -> None:
    if config.evaluation.best is not None:
        best = BestCheckpoint(RunFolder(config.output).best, config.evaluation.best)
        with engine.gathered() as model:
            save = functools.partial(task.save, model)
            ranks.first_does(lambda: best.consider(at.step, task.headline(measured), save))


def _concluded(
    task: Any,
    engine: engines.Engine,
    position: Position,
    config: RunConfig,
    folder: RunFolder,
    ranks: Ranks,
    began: float,
    start_seconds: float,
) -> dict[str, Any]:
    measured = evaluated(task, engine, config, ranks)
    broken = sum(ranks.gather(task.broken))
    _keep_best(task, engine, position, measured, config, ranks)

    def work(model: torch.nn.Module) -> dict[str, Any]:
        replace_folder(folder.checkpoint, lambda into: task.save(model, into))
        now = time.perf_counter()
        metrics = {
            "task": task.name,
            **task.headline(measured),
            "metrics": measured,
            "summary": [list(row) for row in task.summary(measured)],
            "steps": position.step,
            "pairs": position.pairs,
            "broken_images": broken,  # met in this sitting
            "skipped_updates": position.skipped,
            "training_seconds": round(position.seconds, 3),
            "start_seconds": round(start_seconds, 3),
            # The training of earlier sittings is in it, their preparations are not.
            "total_seconds": round(max(now - began, position.seconds + start_seconds), 3),
            "checkpoint": str(folder.checkpoint),
            "processes": ranks.world,
            "versions": versions(),
            "config": config.model_dump(mode="json"),
        }
        write_json(folder.metrics_file, metrics)
        StateFolder(folder.resume, ranks).remove()
        return metrics

    with engine.gathered() as model:
        return ranks.first_does(lambda: work(model))


def _set_threads(config: RunConfig, ranks: Ranks) -> None:
    if config.training.threads or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(config.training.threads or threads_per_process(ranks))
