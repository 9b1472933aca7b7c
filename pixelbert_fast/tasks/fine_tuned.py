"""A fine-tuned model opened by its checkpoint, and what evaluating one gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pixelbert_fast.data.processor import PixelBertProcessor
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.downstream import PixelBertForDownstreamTask
from pixelbert_fast.model.heads import ALL_HEADS
from pixelbert_fast.tasks.pretraining.start import check_checkpoint
from pixelbert_fast.tasks.protocol import Progress


@dataclass(frozen=True)
class EvaluationRequest:
    """How a checkpoint is evaluated.

    Attributes:
        out: the file that the metrics will go to, or None; what else a task keeps belongs beside it.
        predictions: a file for the predictions in the form that the task's evaluation server takes, or None.
        images: of the split, at most: of vqa and nlvr2 spread over it, of retrieval the first ones, so that a
            smaller evaluation is a corner of a larger one's matrix; None: all.
        images_per_batch: at most.
        pixels: of a batch, height times width times images, at most; None: no bound.
        text_only: every image is blank, for the twin that was trained so.
        decoder: see `data.decoders.choice`.
        device: where the model computes.
        progress: called with (images done, images).
        options: those of the one task, by name.
    """

    out: Path | None = None
    predictions: Path | None = None
    images: int | None = None
    images_per_batch: int = 16
    pixels: int | None = None
    text_only: bool = False
    decoder: str | None = None
    device: torch.device | str = "cpu"
    progress: Progress | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """What evaluating a checkpoint gave.

    Attributes:
        metrics: JSON-able.
        rows: (what, figure), to be shown as a table.
    """

    metrics: dict[str, Any]
    rows: list[tuple[str, str]]


def checkpoint_folder(path: str | Path) -> Path:
    """The checkpoint in a finished run's folder, or the folder itself."""
    inside = Path(path) / "checkpoint"
    return inside if (inside / "config.json").is_file() else Path(path)


def load_fine_tuned(
    path: str | Path, kind: type[PixelBertForDownstreamTask], device: torch.device | str = "cpu"
) -> tuple[PixelBertForDownstreamTask, PixelBertProcessor]:
    """The model of class `kind` that a run saved in `path`, in evaluation mode, and its processor.

    Raises:
        UserError: there is no checkpoint, none of a Pixel-BERT, none with this task's head (its answers would
            be random), or one without a processor.
    """
    folder = checkpoint_folder(path)
    check_checkpoint(str(folder))
    try:
        model = kind.from_pretrained(folder)
        processor = PixelBertProcessor.from_pretrained(folder)
    except Exception as error:  # transformers and safetensors raise many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{folder} holds no checkpoint that can be used: {reason}") from error
    heads = [head for name, head in model.named_children() if name in ALL_HEADS]
    if any(head.fresh for head in heads):
        made = ", ".join(model.config.architectures or ()) or "another model"
        raise UserError(
            f"{folder} holds {made}, which has not learnt this task: its head would be random; give the "
            "checkpoint of a fine-tuning"
        )
    return model.to(device).eval(), processor
