"""A fine-tuned NLVR2 checkpoint at work: evaluated on a split, or asked about two images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pixelbert_fast.data.records import BuiltSet
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertForNaturalLanguageVisualReasoning
from pixelbert_fast.tasks.fine_tuned import (
    Evaluated,
    EvaluationRequest,
    load_fine_tuned,
    only_one_process,
    warn_of_cut,
)
from pixelbert_fast.tasks.nlvr2.evaluation import judge, table
from pixelbert_fast.tasks.nlvr2.prediction_file import write_predictions
from pixelbert_fast.tasks.nlvr2.statements import Statements


def evaluate_checkpoint(
    checkpoint: str | Path, built: BuiltSet, split: str, request: EvaluationRequest
) -> Evaluated:
    """Accuracy and consistency of a checkpoint on a split, and its predictions as `request.predictions`.

    A split without labels has neither. `request.images`: see `evaluation.judge`.

    Raises:
        UserError: as `load_fine_tuned` and `only_one_process`, or the split is missing or has no
            statements about pairs.
    """
    if request.options:
        raise UserError(f"nlvr2 has no option {next(iter(request.options))!r}; it has none")
    only_one_process("nlvr2")
    records, pairs = built.split(split), built.pairs(split)
    model, processor = load_fine_tuned(checkpoint, PixelBertForNaturalLanguageVisualReasoning, request.device)
    judged = judge(
        model,
        records,
        Statements(pairs, processor.tokenizer, processor.max_text_length),
        processor.image_processor,
        images_per_pass=request.images_per_batch,
        pixels=request.pixels,
        limit=request.images,
        text_only=request.text_only,
        decoder=request.decoder,
        device=request.device,
        progress=request.progress,
    )
    if request.predictions is not None:
        write_predictions(request.predictions, judged.predictions())
    metrics = judged.metrics()
    return Evaluated(metrics, table(split, metrics))


def judge_pair(
    checkpoint: str | Path,
    left: Any,
    right: Any,
    statements: Sequence[str],
    *,
    device: torch.device | str = "cpu",
) -> list[float]:
    """How probable it is that each statement is true of a pair of images.

    Args:
        left, right: as `data.images.to_rgb` takes them.

    Raises:
        UserError: as `load_fine_tuned`; an image that cannot be read; an empty statement.
    """
    if not statements or not all(one.strip() for one in statements):
        raise UserError('a statement is empty: say something, as "both images have a red star"')
    model, processor = load_fine_tuned(checkpoint, PixelBertForNaturalLanguageVisualReasoning, device)
    inputs = processor(images=[left, right], text=list(statements)).to(device)
    warn_of_cut(processor)
    sides = torch.tensor([[0, 1]] * len(statements), device=device)
    with torch.inference_mode():
        logits = model(**inputs, image_index=sides).logits
    return logits.float().softmax(dim=-1)[:, 1].tolist()
