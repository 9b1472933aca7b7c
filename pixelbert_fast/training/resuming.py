"""Going on from a saved state: where the run was, what it was, and how far it is to go."""

from __future__ import annotations

from typing import Any

from pixelbert_fast.errors import RunError
from pixelbert_fast.training import engine as engines
from pixelbert_fast.training.checkpoint import (
    StateRead,
    first_changed,
    first_misfit,
    seed_all,
    set_random_state,
)
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.loop import Position
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.schedule import Schedule


def position_of(record: dict[str, Any], ranks: Ranks) -> Position:
    """Where a run with the state `record` goes on, by maybe another number of processes."""
    position = Position(**record["position"])
    if record["world"] != ranks.world:
        # Steps read the epoch's list of batches from left to right over all ranks: the same rest is to see.
        position.start, position.batch = position.shown(record["world"]), 0
    return position


def take_over(
    state: StateRead, engine: engines.Engine, schedule: Schedule, config: RunConfig, ranks: Ranks
) -> None:
    """Give the engine, the schedule and the generators what `state` holds.

    Raises RunError where the state is of another model, or of another start.
    """
    record, shared, mine = state
    misfit = first_misfit(shared["model"], engine.module)
    if misfit is not None:
        raise RunError(
            f"the state under {config.output}/resume does not fit this model: {misfit}; go on with what that"
            " run was made of, or --resume never to replace it"
        )
    changed = first_changed(shared["model"], engine.module)
    if changed is not None:
        raise RunError(
            f"the state under {config.output}/resume was trained from other weights than those that it would"
            f" start from now ({changed} is not trained, and differs); put the start.checkpoint,"
            " start.backbone or start.bert of that time back, or --resume never to begin again"
        )
    try:
        engine.load_state(shared, {} if mine is None else mine["own"])
        elsewhere = record["world"] != ranks.world
        schedule.load_state_dict(shared["schedule"], record["step"] if elsewhere else None)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"the state under {config.output}/resume does not fit this model: {reason}") from None
    if mine is not None:
        set_random_state(mine["random"])
    else:
        seed_all(config.seed + 1 + ranks.rank + 1000 * record["step"])


def total_steps(config: RunConfig, position: Position, batches_per_epoch: int, world: int) -> int:
    """How many steps the run has in all, when `position` is the first step of this sitting."""
    options = config.training
    if options.steps is not None:
        return options.steps
    left = options.epochs * batches_per_epoch - position.epoch * batches_per_epoch
    left -= position.shown(world) / world
    return max(position.step + round(left / options.accumulation), 1)
