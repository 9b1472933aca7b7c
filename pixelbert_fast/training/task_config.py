"""What a downstream task can be told beyond what every run can: a section of `config` for each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pixelbert_fast.training.section import Section


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


class Nlvr2Config(Section):
    """Statements about two images: a batch holds half as many as `training.images_per_batch`."""


class RetrievalConfig(Section):
    """Image-text retrieval."""
