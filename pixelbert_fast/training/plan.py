"""What a run would take: parameters, operations, memory, traffic, steps and hours, by arithmetic alone.

Nothing is built, read or allocated beyond the configuration (and the cards of data sets that are there), so a
plan for any number of GPUs takes seconds on any machine.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pixelbert_fast.data.resizing import target_size
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertConfig, PixelBertForPreTraining
from pixelbert_fast.model.downstream import PixelBertForDownstreamTask
from pixelbert_fast.model.flops import map_shape, training_flops
from pixelbert_fast.tasks.architecture import model_config
from pixelbert_fast.training import plan_memory
from pixelbert_fast.training.accumulation import pairs_per_pass, with_accumulation
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.plan_epochs import captions_of_a_showing, set_sizes, steps

# The modules of `PixelBertForPreTraining`, whose names begin so, by part; the first that fits.
_PARTS = {
    "backbone": "pixelbert.backbone.",
    "projection": "pixelbert.pixel_",
    "embeddings": "pixelbert.embeddings.",
    "encoder": "pixelbert.encoder.",
    "pooler": "pixelbert.pooler.",
    "mlm_head": "mlm_head.",
    "itm_head": "itm_head.",
}
_PHOTO = (480, 640)
"""Height and width of what is called a typical image."""


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
    vocabulary, known_by = _vocabulary(config)
    built = model_config(config, vocab_size=vocabulary)
    by_part, counts = _parameters(built, config.task)
    shape = _Shape(config, built)
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
        "vocabulary": {"size": vocabulary, "known_by": known_by},
        "parameters": {**by_part, "all": counts.all, "trained": counts.trained},
        "batch": {
            "images_per_batch": config.training.images_per_batch,
            "captions_per_image": shape.captions,
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


class _Shape:
    """The shapes of a batch: of a typical one, and of the largest."""

    def __init__(self, config: RunConfig, built: PixelBertConfig) -> None:
        self._config, self._built = config, built
        data = config.data
        sides = built.short_side, built.long_side, data.size_divisor
        self.typical = target_size(*_PHOTO, *sides)
        # A photo as long as the bound on its long side lets it be.
        self.largest = target_size(built.short_side, built.long_side, *sides)
        self.captions = sum(captions_of_a_showing(config))
        self.words = data.max_text_length if self.captions else 0
        matched = captions_of_a_showing(config)[0] if not built.mlm_on_mismatched else self.captions
        words = config.task == "pretrain" and config.objectives.mlm
        asked = config.objectives.mlm_probability if words else 0.0
        # Fine-tuning reads all pixels, and of the last layer [CLS] alone.
        self._all_pixels = config.task != "pretrain" and not built.sampled_fine_tuning
        self._every_word = config.task == "pretrain" and not config.model.fast
        # Of a sequence, on average over matched ones and others; [CLS] and [SEP] are never masked.
        self.masked = asked * max(self.words - 2, 0) * matched / max(self.captions, 1)

    def images(self, size: tuple[int, int]) -> int:
        """Images of a batch of this size."""
        images, batching = self._config.training.images_per_batch, self._config.data.batching
        if batching is not None and batching.pixels is not None:
            images = min(images, batching.pixels // (size[0] * size[1]))
        return max(images, 1)

    def pixels(self, size: tuple[int, int]) -> int:
        """Pixels that a sequence reads."""
        if not self.captions:
            return 0
        _, rows, columns = map_shape(self._built, size)
        places = (rows // 2) * (columns // 2)
        sampled = None if self._all_pixels else self._built.sampled_pixels
        return min(sampled or places, places)

    def flops(self, size: tuple[int, int]) -> dict[str, int]:
        """Of one forward and backward of one process."""
        images = self.images(size)
        sequences = images * self.captions
        found = training_flops(
            self._built,
            image_size=size,
            images=images,
            sequences=sequences,
            text_length=self.words,
            pixels=self.pixels(size),
            masked=sequences * self.words if self._every_word else round(sequences * self.masked),
            fast=self._config.model.fast,
        )
        return found if self._config.task == "pretrain" else {**found, "itm_head": 0}

    def load(self) -> plan_memory.Load:
        return plan_memory.Load(
            image_size=self.largest,
            captions=self.captions,
            text_length=self.words,
            pixels=self.pixels(self.largest),
            masked=self.masked,
            half=self._config.training.precision != "fp32",
            fast=self._config.model.fast,
            offload=getattr(self._config.training, "offload_optimizer", False),
        )


def _vocabulary(config: RunConfig) -> tuple[int, str]:
    """How many word pieces, and by what that is known."""
    saved = config.tokenizer.path or config.start.checkpoint or config.start.bert
    if saved is None:
        return config.tokenizer.size, "tokenizer.size, at most"
    if Path(saved).is_dir():
        from pixelbert_fast.tasks.pretraining.start import load_tokenizer

        return len(load_tokenizer(saved)), saved
    return PixelBertConfig().vocab_size, f"BERT's, {saved} is not asked"


def _parameters(built: PixelBertConfig, task: str) -> tuple[dict[str, int], plan_memory.Parameters]:
    """By part, and in all; a tied weight counts once, with the embeddings.

    Of fine-tuning the heads are left out: their size is the set's (VQA's 3,129 answers: 6 M).
    """
    kind = PixelBertForPreTraining if task in ("pretrain", "objects") else PixelBertForDownstreamTask
    with torch.device("meta"):
        model = kind(built, fast=False)
    by_part = dict.fromkeys(_PARTS, 0)
    trained = matrices = convolutions = 0
    for name, parameter in model.named_parameters():
        part = next(part for part, start in _PARTS.items() if name.startswith(start))
        if task == "objects" and part != "backbone":
            continue
        by_part[part] += parameter.numel()
        trained += parameter.numel() * parameter.requires_grad
        looked_up = part == "embeddings" and "word_embeddings" not in name  # those are the head's weight too
        matrices += parameter.numel() * (parameter.dim() > 1 and not looked_up)
        convolutions += parameter.numel() * (parameter.dim() == 4)
    words = built.vocab_size * built.hidden_size if task == "pretrain" else 0
    counts = plan_memory.Parameters(sum(by_part.values()), trained, matrices, convolutions, words)
    return by_part, counts


def _memory(
    config: RunConfig,
    built: PixelBertConfig,
    counts: plan_memory.Parameters,
    shape: _Shape,
    machine: Machine,
) -> dict[str, Any]:
    load, memory = shape.load(), machine.gpu_memory * plan_memory.GIB
    images = shape.images(shape.largest)
    stages = {}
    for stage in plan_memory.STAGES:
        parts = plan_memory.by_part(built, counts, load, images, stage, machine.gpus, memory)
        total = sum(parts.values())
        stages[str(stage)] = {
            "parts": parts,
            "total": total,
            "fits": total <= memory,
            "most_images": plan_memory.most_images(built, counts, load, stage, machine.gpus, memory),
            "traffic_per_step": plan_memory.traffic(
                counts, stage, machine.gpus, config.training.accumulation
            ),
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
        an_epoch = steps(showings, config.training.images_per_batch, machine.gpus, accumulation)
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
