"""What a downstream task can be told beyond what every run can: a section of `config` for each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pixelbert_fast.training.section import Count, Section


class VqaConfig(Section):
    """Visual question answering; `data.captions_per_image` bounds the questions read with one image's pass.

    Attributes:
        train_splits: the splits of the set to train on; the field trains on train and val together for what
            it sends to the evaluation server.
        without_answer: whether questions are trained on of which no answer is in the vocabulary, with every
            score 0.
        edition: of the official accuracy, see `tasks.vqa.official`.
    """

    train_splits: Annotated[tuple[str, ...], Field(min_length=1)] = ("train",)
    without_answer: bool = False
    edition: Literal["current", "first"] = "current"

    @field_validator("train_splits")
    @classmethod
    def _each_once(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for number, name in enumerate(given) if name in given[:number]]
        if twice:
            raise ValueError(f"vqa.train_splits names {twice[0]!r} twice; name each split once")
        return given


class Nlvr2Config(Section):
    """Statements about two images: a batch holds half as many as `training.images_per_batch`."""


class RetrievalConfig(Section):
    """Image-text retrieval: each image with one text of its own and others that are not true of it.

    Attributes:
        negatives: texts of other images beside each image, at least 1.
        hardest: how many of them are learnt from: those with the highest scores in a pass without gradients;
            None: all, without that pass.
        freeze_backbone: keep the backbone as it is (the paper does).
        cache: what of the frozen backbone is computed once and read from disk in every epoch. embeddings: the
            pixels' tokens, so that projection and type vector are frozen too; c5: the backbone's map, larger,
            from which both are trained; none: nothing.
        cache_directory: where; None: `cache` in the run's folder. Caches of other weights lie beside it.
        epoch: what an epoch shows. images: each image once, its texts in turn over the epochs; captions: each
            text once.
        train_captions: all; or distinct: where the set marks one caption of each image as true of no other,
            that one only (the others' marked ones are then the wrong texts).
        captions: the same, of what is ranked in an evaluation.
        scoring_precision: of the Transformer in an evaluation. bf16x2: float32 by bfloat16
            products, faster on a CPU with AMX.
        scoring_megabytes: what an evaluation's blocks and activations may take together.
    """

    negatives: Count = 20
    hardest: Count | None = 5
    freeze_backbone: bool = True
    cache: Literal["embeddings", "c5", "none"] = "embeddings"
    cache_directory: str | None = None
    epoch: Literal["images", "captions"] = "images"
    train_captions: Literal["all", "distinct"] = "all"
    captions: Literal["distinct", "all"] = "distinct"
    scoring_precision: Literal["fp32", "bf16x2", "bf16"] = "fp32"
    scoring_megabytes: Annotated[float, Field(gt=0.0)] = 1024.0

    @model_validator(mode="after")
    def _frozen_where_cached(self) -> RetrievalConfig:
        if self.cache != "none" and not self.freeze_backbone:
            raise ValueError(
                f"retrieval.cache={self.cache} keeps what the backbone gives, which training would change; "
                "make it none, or retrieval.freeze_backbone true"
            )
        return self
