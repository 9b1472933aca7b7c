"""Measuring a run's model on the way and at the end, and keeping the best."""

from __future__ import annotations

import functools
from typing import Any

import torch

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.best import BestCheckpoint
from pixelbert_fast.training.checkpoint import undisturbed_random
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.engine import Engine
from pixelbert_fast.training.folder import RunFolder
from pixelbert_fast.training.logs import bar
from pixelbert_fast.training.loop import Position
from pixelbert_fast.training.ranks import Ranks


def evaluated(task: Any, engine: Engine, config: RunConfig, ranks: Ranks) -> dict[str, Any]:
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


def check_best(task: Any, config: RunConfig) -> None:
    """Raises UserError where `evaluation.best` is none of the task's figures."""
    best = config.evaluation.best
    if best is not None and best not in task.headlines:
        raise UserError(
            f"evaluation.best is {best!r}; of the task {config.task} it can be {' or '.join(task.headlines)}"
        )


def keep_best(
    task: Any, engine: Engine, at: Position, measured: dict[str, Any], config: RunConfig, ranks: Ranks
) -> None:
    """Keep the weights as OUTPUT/best/ if `measured` is better than all before; called by all processes."""
    if config.evaluation.best is not None:
        best = BestCheckpoint(RunFolder(config.output).best, config.evaluation.best)
        with engine.gathered() as model:
            save = functools.partial(task.save, model)
            ranks.first_does(lambda: best.consider(at.step, task.headline(measured), save))
