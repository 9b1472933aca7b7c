"""A fine-tuned model opened by its checkpoint, and what evaluating one gives."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pixelbert_fast.data.processor import PixelBertProcessor
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.downstream import PixelBertForDownstreamTask
from pixelbert_fast.tasks.protocol import Progress
from pixelbert_fast.tasks.saved_model import checkpoint_folder, open_saved

logger = logging.getLogger(__name__)


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


def only_one_process(task: str) -> None:
    """Raises UserError under torchrun with several processes, each of which would do and write the same."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"{task} is evaluated by one process: run the same command without torchrun")


def warn_of_cut(processor: PixelBertProcessor) -> None:
    """Says that the model has not read the whole of what it is asked."""
    if processor.truncated_texts:
        logger.warning(
            "%d of the texts %s longer than the %d word pieces that the model was trained with, and lost the "
            "rest",
            processor.truncated_texts,
            "is" if processor.truncated_texts == 1 else "are",
            processor.max_text_length,
        )


def load_fine_tuned(
    path: str | Path, kind: type[PixelBertForDownstreamTask], device: torch.device | str = "cpu"
) -> tuple[PixelBertForDownstreamTask, PixelBertProcessor]:
    """The model of class `kind` that a run saved in `path`, in evaluation mode, and its processor.

    Raises:
        UserError: as `open_saved`, or the checkpoint has no head of this task (its answers would be random).
    """
    folder = checkpoint_folder(path)
    model, processor, fresh = open_saved(folder, kind)
    if fresh:
        made = ", ".join(model.config.architectures or ()) or "another model"
        raise UserError(
            f"{folder} holds {made}, which has not learnt this task: its head would be random; give the "
            "checkpoint of a fine-tuning"
        )
    return model.to(device), processor
