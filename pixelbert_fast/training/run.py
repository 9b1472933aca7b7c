"""One run from its configuration to its metrics: data, backbone, training, evaluation, checkpoint."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pixelbert_fast.errors import UserError
from pixelbert_fast.training import engine as engines
from pixelbert_fast.training.accumulation import with_accumulation
from pixelbert_fast.training.agreement import same_configuration, same_folder
from pixelbert_fast.training.checkpoint import StateFolder, seed_all
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.durable import replace_folder, write_json
from pixelbert_fast.training.evaluation import check_best, evaluated, keep_best
from pixelbert_fast.training.folder import RunFolder
from pixelbert_fast.training.logs import RunLog, check_wandb
from pixelbert_fast.training.loop import Position, TrainingLoop
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer, parameter_groups
from pixelbert_fast.training.preparing import prepare_data
from pixelbert_fast.training.provenance import differences, machine, made_by, versions
from pixelbert_fast.training.ranks import Ranks, threads_per_process
from pixelbert_fast.training.recipes import load_config
from pixelbert_fast.training.reporting import Reporter, report
from pixelbert_fast.training.resuming import position_of, take_over, total_steps
from pixelbert_fast.training.samples import SampleLog
from pixelbert_fast.training.schedule import Pace, Schedule

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


def run(
    config: RunConfig,
    ranks: Ranks,
    engine_name: str,
    *,
    resume: Resume = "auto",
    reporter: Reporter | None = None,
) -> Result:
    """Do what `config` says; called by every process of the run.

    Args:
        reporter: what writes the page about the run, where `training.report` asks for one.

    Raises:
        UserError, RunError: one sentence saying what is wrong.
        loop.Stopped: a signal asked for it; the same call goes on from there.
    """
    folder = RunFolder(config.output)
    try:
        return _run(config, folder, ranks, engine_name, resume, reporter)
    finally:
        folder.release()


def _run(
    config: RunConfig,
    folder: RunFolder,
    ranks: Ranks,
    engine_name: str,
    resume: Resume,
    reporter: Reporter | None,
) -> Result:
    began = time.perf_counter()
    described = config.model_dump(mode="json")
    config = with_accumulation(config, ranks.world)
    same_configuration(described, ranks)
    about = {**made_by(), "machine": machine()} if ranks.first else None
    ranks.first_does(folder.hold)
    found = ranks.first_does(lambda: folder.claim(described, resume, about))
    asked = reporter if config.training.report else None
    if found == "finished":
        metrics = ranks.first_does(folder.metrics)
        if not (folder.path / "report.html").is_file():
            report(asked, folder.path, ranks, examples=True)
        return Result(metrics, folder, before=True)
    same_folder(folder.path, ranks)
    check_wandb(config.logging.wandb)
    _set_threads(config, ranks)
    prepare_data(config, ranks)
    start_seconds = 0.0
    for part in ("backbone", "checkpoint"):
        name = getattr(config.start, f"{part}_recipe")
        if name:
            again = resume if found == "new" else "auto"
            earlier = _train_earlier(part, name, config, folder, ranks, engine_name, again, reporter)
            start_seconds += earlier["total_seconds"]
    prepared = folder.started_from(config)
    seed_all(config.seed)
    with _said_once(ranks):
        task = _make_task(prepared, engines.device_of(ranks))
        check_best(task, config)
    try:
        engine, position = _trained(task, prepared, described, folder, ranks, engine_name, asked)
        try:
            metrics = _concluded(task, engine, position, config, folder, ranks, began, start_seconds)
        finally:
            engine.close()
    except KeyboardInterrupt:
        raise  # a second Ctrl-C quits at once
    except BaseException:
        if (folder.path / "log.jsonl").is_file():
            report(asked, folder.path, ranks, examples=False)
        raise
    del task, engine  # the report reads the checkpoint, and may need the room
    report(asked, folder.path, ranks, examples=True)
    return Result(metrics, folder, before=False)


@contextlib.contextmanager
def _said_once(ranks: Ranks) -> Iterator[None]:
    """What all processes would warn of alike inside, the first one does."""
    if not ranks.first:
        logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


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
    reporter: Reporter | None,
) -> dict[str, Any]:
    """The metrics of the run, by the recipe `name`, whose result this one starts from."""
    into = folder.earlier[part]
    overrides = [f"output={into}"]
    if config.training.threads:
        overrides.append(f"training.threads={config.training.threads}")
    if not config.training.report:
        overrides.append("training.report=false")
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
    return run(recipe, ranks, engine_name, resume=resume, reporter=reporter).metrics


def _trained(
    task: Any,
    config: RunConfig,
    described: dict[str, Any],
    folder: RunFolder,
    ranks: Ranks,
    engine_name: str,
    reporter: Reporter | None,
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
    position = Position() if state is None else position_of(state[0], ranks)
    per_epoch = task.steps_per_epoch(ranks.world)
    total = total_steps(config, position, per_epoch, ranks.world)
    if state is not None and state[0]["world"] == ranks.world:
        # The same schedule as before, also where epochs differ in length.
        total = state[0].get("total_steps", total)
    pace = Pace(total, per_epoch / config.training.accumulation)
    schedule = Schedule(optimizer, config.schedule, pace)
    if state is not None:
        take_over(state, engine, schedule, config, ranks)
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
        keep_best(task, engine, at, measured, config, ranks)
        report(reporter, folder.path, ranks, examples=False)

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
    keep_best(task, engine, position, measured, config, ranks)

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
