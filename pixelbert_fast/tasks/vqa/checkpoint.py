"""A fine-tuned VQA checkpoint at work: evaluated on a split, or asked about one image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from pixelbert_fast.data.records import BuiltSet
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.vqa import PixelBertForVisualQuestionAnswering
from pixelbert_fast.tasks.fine_tuned import (
    Evaluated,
    EvaluationRequest,
    load_fine_tuned,
    only_one_process,
    warn_of_cut,
)
from pixelbert_fast.tasks.protocol import percent
from pixelbert_fast.tasks.vqa.evaluation import Accuracies, Answered, EvaluationOptions, accuracies, answers
from pixelbert_fast.tasks.vqa.official import Edition
from pixelbert_fast.tasks.vqa.prediction_file import write_predictions
from pixelbert_fast.tasks.vqa.questions import check_asks


def evaluate_checkpoint(
    checkpoint: str | Path, built: BuiltSet, split: str, request: EvaluationRequest
) -> Evaluated:
    """The accuracies of a checkpoint on a split, and its answers as `request.predictions`.

    Predictions are written as the images are read, and the file takes its name when it is complete. A split
    without public answers has no accuracy.

    Raises:
        UserError: as `load_fine_tuned` and `only_one_process`, or the split is missing or asks no questions.
    """
    records = built.split(split)
    check_asks(records, f"the split {split!r} of {built.directory}")
    only_one_process("vqa")
    edition = _edition(request.options)
    model, processor = load_fine_tuned(checkpoint, PixelBertForVisualQuestionAnswering, request.device)
    given = answers(
        model,
        records,
        processor.tokenizer,
        processor.image_processor,
        EvaluationOptions(
            max_text_length=processor.max_text_length,
            images_per_batch=request.images_per_batch,
            pixels=request.pixels,
            text_only=request.text_only,
            decoder=request.decoder,
            device=request.device,
        ),
        limit=request.images,
        progress=request.progress,
    )
    if request.predictions is None:
        found = accuracies(given, edition=edition, known=model.config.label2id)
    else:
        found = _written(given, request.predictions, Accuracies(edition, model.config.label2id))
    metrics = {"answers": model.config.num_labels, "edition": edition, **found}
    return Evaluated(metrics, rows(metrics))


def rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """The table of `evaluate_checkpoint`'s metrics."""
    found = [
        ("questions, of which with public answers", f"{metrics['asked']:,}, {metrics['questions']:,}"),
        ("  that the model's answers can meet", f"{metrics['answerable']:,}"),
        ("accuracy", percent(metrics["accuracy"])),
    ]
    if metrics["broken"]:
        found.insert(1, ("  about images that cannot be decoded", f"{metrics['broken']:,}"))
    for what, title in (("answer", "answers"), ("question", "questions")):
        for name, one in metrics[f"by_{what}_type"].items():
            found.append((f"  {title} of type {name}", f"{percent(one['accuracy'])} ({one['questions']:,})"))
    for answer, one in metrics.get("by_answer", {}).items():
        found.append((f"  where {answer} is right", f"{percent(one['accuracy'])} ({one['questions']:,})"))
    return found


def ask(
    checkpoint: str | Path, image: Any, question: str, *, top: int = 5, device: torch.device | str = "cpu"
) -> list[tuple[str, float]]:
    """The best answers to a question about an image, with the score that each is expected to get, 0..1.

    Args:
        image: as `data.images.to_rgb` takes it.

    Raises:
        UserError: as `load_fine_tuned`; an image that cannot be read; an empty question.
    """
    if not question.strip():
        raise UserError('the question is empty: ask something, as "what colour is the shape?"')
    model, processor = load_fine_tuned(checkpoint, PixelBertForVisualQuestionAnswering, device)
    inputs = processor(images=image, text=question).to(device)
    warn_of_cut(processor)
    with torch.inference_mode():
        scores = model(**inputs).logits[0].float().sigmoid()
    best = torch.topk(scores, min(top, len(scores)))
    names = model.config.id2label
    return [
        (names[label], score)
        for label, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _edition(options: Mapping[str, Any]) -> Edition:
    unknown = [name for name in options if name != "edition"]
    if unknown:
        raise UserError(f"vqa has no option {unknown[0]!r}; it has edition=current and edition=first")
    edition = options.get("edition", "current")
    if edition not in get_args(Edition):
        raise UserError(f"edition is {edition!r}; it can be {' or '.join(get_args(Edition))}")
    return edition


def _written(given: Iterator[Answered], path: Path, collected: Accuracies) -> dict[str, Any]:
    """The accuracies of answers that are collected and written to `path` on their way."""

    def passing() -> Iterator[tuple[int, str]]:
        for one in given:
            collected.add(one)
            yield one.id, one.answer

    write_predictions(path, passing())
    return collected.result()
