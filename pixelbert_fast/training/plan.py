"""What a run would take: parameters, operations, memory, traffic, steps and hours, by arithmetic alone.

Nothing is built, read or allocated beyond the configuration (and the cards of data sets that are there), so a
plan for any number of GPUs takes seconds on any machine.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertConfig
from pixelbert_fast.training import plan_memory
from pixelbert_fast.training.accumulation import pairs_per_pass, with_accumulation
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.plan_epochs import images_of_a_batch, set_sizes, steps
from pixelbert_fast.training.plan_model import parameters, planned_model
from pixelbert_fast.training.plan_shape import Shape


class Machine(NamedTuple):
    """What the run is planned for.

    Attributes:
        gpus: processes, one a GPU.
        gpu_memory: GiB of each.
        rate: pairs a second of all together, as measured; None: not measured.
        tflops, mfu: of each GPU, its peak in TFLOP/s and the share of it that is reached, in place of `rate`.
    """

    gpus: int = 1
    gpu_memory: float = 24.0
    rate: float | None = None
    tflops: float | None = None
    mfu: float | None = None


def plan(config: RunConfig, machine: Machine) -> dict[str, Any]:
    """The plan as plain numbers, JSON-able; `plan_text.table` shows it.

    Raises:
        UserError: the global batch cannot be reached on so many GPUs, or the machine is not fully told.
    """
    _check(machine)
    pairs_wanted = config.training.pairs_per_step
    config = with_accumulation(config, machine.gpus)
    planned = planned_model(config)
    built = planned.config
    by_part, counts = parameters(built, config)
    shape = Shape(config, built)
    accumulation = config.training.accumulation
    pairs = accumulation * pairs_per_pass(config, machine.gpus)
    a_pass = shape.flops(shape.typical)
    a_step = {part: count * accumulation * machine.gpus for part, count in a_pass.items()}
    result = {
        "task": config.task,
        "preset": config.model.preset,
        "backbone": built.backbone,
        "norm": built.norm,
        "frozen_stages": built.frozen_stages,
        "precision": config.training.precision,
        "starts_from": {
            name: value for name, value in config.start.model_dump().items() if isinstance(value, str)
        },
        "machine": machine._asdict(),
        "architecture_by": planned.known_by,
        "vocabulary": {"size": built.vocab_size, "known_by": planned.vocabulary_by},
        "answers": {"size": built.num_labels, "known_by": planned.answers_by} if planned.answers_by else None,
        "parameters": {**by_part, "all": counts.all, "trained": counts.trained},
        "batch": {
            "images_per_batch": config.training.images_per_batch,
            "captions_per_image": shape.captions,
            "learnt_per_image": shape.learnt,
            "pairs_per_pass": pairs_per_pass(config, machine.gpus),
            "accumulation": accumulation,
            "pairs_per_step": pairs,
            "pairs_per_step_given": pairs_wanted is not None,
        },
        "image": {"typical": shape.typical, "largest": shape.largest},
        "sequence": {"text_length": shape.words, "pixels": shape.pixels(shape.typical)},
        "flops_per_step": a_step,
        "flops_per_pair": round(sum(a_step.values()) / pairs),
        "memory": _memory(config, built, counts, shape, machine),
        "zero_stage": config.training.zero_stage,
    }
    result.update(_length(config, machine, accumulation, pairs, result["flops_per_pair"]))
    return result


def _check(machine: Machine) -> None:
    for name, value in machine._asdict().items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name.replace('_', '-')} must be above 0, and is {value:g}")
    if machine.mfu is not None and machine.mfu > 1:
        raise UserError(f"--mfu is a share of the peak, 0 to 1, and not {machine.mfu:g}")
    if (machine.tflops is None) != (machine.mfu is None):
        raise UserError("--tflops and --mfu go together: a GPU's peak, and the share of it that is reached")
    if machine.rate is not None and machine.tflops is not None:
        raise UserError("--rate is in place of --tflops and --mfu; give the one or the others")


def _memory(
    config: RunConfig,
    built: PixelBertConfig,
    counts: plan_memory.Parameters,
    shape: Shape,
    machine: Machine,
) -> dict[str, Any]:
    load, memory = shape.load(), machine.gpu_memory * plan_memory.GIB
    images = shape.images(shape.largest)
    stages = {}
    passes = config.training.accumulation
    for stage in plan_memory.STAGES:
        parts = plan_memory.by_part(built, counts, load, images, stage, machine.gpus, memory)
        total = sum(parts.values())
        stages[str(stage)] = {
            "parts": parts,
            "total": total,
            "fits": total <= memory,
            "most_images": plan_memory.most_images(built, counts, load, stage, machine.gpus, memory),
            "traffic_per_step": plan_memory.traffic(counts, stage, machine.gpus, passes),
            "collectives_per_step": plan_memory.collectives(counts, stage, passes)._asdict(),
        }
    return stages


def _length(
    config: RunConfig, machine: Machine, accumulation: int, pairs: int, flops_per_pair: int
) -> dict[str, Any]:
    sizes = set_sizes(config)
    known = None not in (one.showings for one in sizes)
    an_epoch = None
    if known:
        showings = sum(one.showings for one in sizes)
        an_epoch = steps(showings, images_of_a_batch(config), machine.gpus, accumulation)
    total = config.training.steps
    if total is None and an_epoch is not None:
        total = max(round(an_epoch * config.training.epochs), 1)
    rate, by = machine.rate, "given"
    if machine.tflops is not None:
        rate = machine.gpus * machine.tflops * 1e12 * machine.mfu / flops_per_pair
        by = f"{machine.tflops:g} TFLOP/s a GPU, of which {machine.mfu:.0%}"
    hours = None if rate is None or total is None else total * pairs / rate / 3600
    return {
        "sets": [one._asdict() for one in sizes],
        "epochs": config.training.epochs,
        "steps_per_epoch": an_epoch,
        "steps": total,
        "pairs": None if total is None else total * pairs,
        "rate": rate,
        "rate_by": by if rate is not None else None,
        "hours": hours,
    }
