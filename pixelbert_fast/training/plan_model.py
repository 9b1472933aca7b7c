"""The model that a run trains: its architecture and its parameters by part, without a number allocated."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from pixelbert_fast.model import (
    PixelBertConfig,
    PixelBertForImageTextRetrieval,
    PixelBertForNaturalLanguageVisualReasoning,
    PixelBertForPreTraining,
    PixelBertForVisualQuestionAnswering,
    answer_labels,
)
from pixelbert_fast.tasks.architecture import model_config
from pixelbert_fast.training import plan_memory
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.recipes import load_config, recipe_names

FIELDS_ANSWERS = 3129
"""Of VQA v2, as the field counts them; taken where the set is not there."""
HEADS = {"vqa": "answer_head", "nlvr2": "pair_head", "retrieval": "score_head"}
_KINDS = {
    "vqa": PixelBertForVisualQuestionAnswering,
    "nlvr2": PixelBertForNaturalLanguageVisualReasoning,
    "retrieval": PixelBertForImageTextRetrieval,
}
# The modules of a task's model, whose names begin so, by part; the first that fits.
_PARTS = {
    "backbone": "pixelbert.backbone.",
    "projection": "pixelbert.pixel_",
    "embeddings": "pixelbert.embeddings.",
    "encoder": "pixelbert.encoder.",
    "pooler": "pixelbert.pooler.",
    **{head: f"{head}." for head in ("mlm_head", "itm_head", *HEADS.values())},
}


class PlannedModel(NamedTuple):
    """An architecture.

    Attributes:
        config: it.
        known_by: what says so.
        vocabulary_by, answers_by: what says how many word pieces and answers; None: there are none.
    """

    config: PixelBertConfig
    known_by: str
    vocabulary_by: str
    answers_by: str | None


def planned_model(config: RunConfig) -> PlannedModel:
    """As `tasks.fine_tuning.prepare` would make it; where the checkpoint is not there, by its recipe.

    Raises UserError for what PixelBertConfig refuses.
    """
    start, fields, answers_by = config.start.checkpoint, {}, None
    if config.task == "vqa":
        labels, answers_by = _answers(config)
        fields = answer_labels(labels)
    if start is None or config.task not in _KINDS:
        size, by = _vocabulary(config)
        built = model_config(config, vocab_size=size, **fields)
        return PlannedModel(built, f"preset {config.model.preset}", by, answers_by)
    sides = {"short_side": config.data.short_side, "long_side": config.data.long_side}
    given = {name: side for name, side in sides.items() if side is not None}
    size, by = _vocabulary(config)
    if Path(start, "config.json").is_file():
        built = PixelBertConfig.from_pretrained(start)
        for name, value in {**given, **config.model.overrides, **fields}.items():
            setattr(built, name, value)
        return PlannedModel(built, start, by, answers_by)
    name = _recipe_of(start)
    if name is None:
        built = model_config(config, vocab_size=size, **fields)
        return PlannedModel(built, f"preset {config.model.preset}, for {start} is not there", by, answers_by)
    earlier = load_config(name)
    if not config.tokenizer.path:
        size, by = _vocabulary(earlier)
    model = earlier.model.model_copy(
        update={"overrides": {**earlier.model.overrides, **config.model.overrides}}
    )
    data = earlier.data.model_copy(update=given)
    built = model_config(earlier.model_copy(update={"model": model, "data": data}), vocab_size=size, **fields)
    return PlannedModel(built, f"recipe {name}", by, answers_by)


def _recipe_of(checkpoint: str) -> str | None:
    return next(
        (name for name in recipe_names() if Path(load_config(name).output) == Path(checkpoint).parent), None
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


def _answers(config: RunConfig) -> tuple[list[str], str]:
    """Labels, and by what it is known how many there are."""
    if not Path(config.data.directory, "card.json").is_file():
        return [str(number) for number in range(FIELDS_ANSWERS)], "the field's VQA v2"
    from pixelbert_fast.data.records import open_set
    from pixelbert_fast.tasks.vqa.questions import answer_vocabulary

    built = open_set(config.data.directory)
    return answer_vocabulary(built, built.split(config.vqa.train_splits[0])), config.data.directory


def parameters(built: PixelBertConfig, config: RunConfig) -> tuple[dict[str, int], plan_memory.Parameters]:
    """By part, and in all; a tied weight counts once, with the embeddings."""
    task = config.task
    with torch.device("meta"):
        model = _KINDS.get(task, PixelBertForPreTraining)(built, fast=False)
    still = _freeze(model, config)
    by_part = dict.fromkeys(_PARTS, 0)
    trained = matrices = convolutions = 0
    for name, parameter in model.named_parameters():
        part = next(part for part, start in _PARTS.items() if name.startswith(start))
        if task == "objects" and part != "backbone":
            continue
        by_part[part] += parameter.numel()
        trained += parameter.numel() * parameter.requires_grad
        looked_up = part == "embeddings" and "word_embeddings" not in name  # those are the head's weight too
        if part not in still:
            matrices += parameter.numel() * (parameter.dim() > 1 and not looked_up)
            convolutions += parameter.numel() * (parameter.dim() == 4)
    words = built.vocab_size * built.hidden_size if task == "pretrain" else 0
    counts = plan_memory.Parameters(sum(by_part.values()), trained, matrices, convolutions, words)
    return {part: count for part, count in by_part.items() if count or part not in HEADS.values()}, counts


def _freeze(model: nn.Module, config: RunConfig) -> tuple[str, ...]:
    """Freezes what retrieval does; the parts that compute nothing, because what they give is kept."""
    if config.task != "retrieval":
        return ()
    from pixelbert_fast.tasks.retrieval.task import freeze

    freeze(model, config.retrieval)
    kept = {"none": (), "c5": ("backbone",), "embeddings": ("backbone", "projection")}
    return kept[config.retrieval.cache]
