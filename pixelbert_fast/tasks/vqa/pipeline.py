"""The transformers pipeline that answers questions about images.

transformers had one called "visual-question-answering"; 5.0 still has it, in 5.23 it is gone, name and all.
This one gives the same outputs and takes the same inputs, but pairs two lists where that one asked every
question of every image. Importing this module registers it::

    from transformers import pipeline
    import pixelbert_fast.tasks.vqa.pipeline

    ask = pipeline("pixelbert-visual-question-answering", model="runs/vqa/model")
    ask(image="photo.jpg", question="What is on the table?", top_k=3)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.image_utils import load_image
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline
from transformers.utils import ModelOutput

from pixelbert_fast.data.processor import PixelBertProcessor
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertForVisualQuestionAnswering

logger = logging.getLogger(__name__)

TASK = "pixelbert-visual-question-answering"


class VisualQuestionAnsweringPipeline(Pipeline):
    """Answers with the score that each is expected to get; made by ``pipeline(TASK, model=...)``.

    Or of a model and a processor: ``VisualQuestionAnsweringPipeline(model=model, processor=processor)``.
    """

    model: PixelBertForVisualQuestionAnswering
    processor: PixelBertProcessor
    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        # Only a warning: one that was fine-tuned in memory since then knows its answers all the same.
        if self.model.name_or_path and self.model.answer_head.fresh:
            logger.warning(
                "%s has no answer head: unless the model was trained since, its answers are random",
                self.model.name_or_path,
            )

    def __call__(
        self,
        image: Any | Mapping | Sequence[Mapping],
        question: str | Sequence[str] | None = None,
        **options: Any,
    ) -> list:
        """Answers one question or many.

        Args:
            image: a path, a URL, a PIL image or an array, or a list of them; or one or more
                ``{"image": ..., "question": ...}``.
            question: one or a list. One image is asked every question, one question is asked of every image,
                and of two lists of one length each image its own.
            top_k: how many answers to give, best first (5).
            timeout: seconds to wait for a URL.

        Returns:
            ``[{"score": 0..1, "answer": ...}, ...]`` for one question about one image, else a list of such.

        Raises:
            UserError: no question, or lists of different lengths.
        """
        if question is None:
            asked = image
            told = [asked] if isinstance(asked, Mapping) else asked
            if not isinstance(told, Sequence) or not all(
                isinstance(one, Mapping) and {"image", "question"} <= one.keys() for one in told
            ):
                raise UserError("there is no question: give image=... and question=...")
            return super().__call__(asked, **options)
        one_image = not isinstance(image, list | tuple)
        one_question = isinstance(question, str)
        if one_image and one_question:
            return super().__call__({"image": image, "question": question}, **options)
        images = [image] * (1 if one_question else len(question)) if one_image else list(image)
        questions = [question] * len(images) if one_question else list(question)
        if len(images) != len(questions):
            raise UserError(f"{len(images)} images came with {len(questions)} questions: give one for each")
        pairs = [{"image": i, "question": q} for i, q in zip(images, questions, strict=True)]
        return super().__call__(pairs, **options)

    def _sanitize_parameters(
        self, top_k: int | None = None, timeout: float | None = None, **others: Any
    ) -> tuple[dict, dict, dict]:
        if others:
            raise UserError(f"{next(iter(others))} is no option of this pipeline: it has top_k and timeout")
        before = {} if timeout is None else {"timeout": timeout}
        return before, {}, {} if top_k is None else {"top_k": top_k}

    def preprocess(self, asked: Mapping, timeout: float | None = None) -> dict[str, Tensor]:
        image = asked["image"]
        if isinstance(image, str):
            image = load_image(image, timeout=timeout)
        inputs = dict(self.processor(images=image, text=asked["question"]))
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        return inputs

    def _forward(self, inputs: dict[str, Tensor]) -> ModelOutput:
        return ModelOutput(logits=self.model(**inputs).logits)

    def postprocess(self, outputs: ModelOutput, top_k: int = 5) -> list[dict]:
        scores = outputs.logits[0].float().sigmoid()
        best = torch.topk(scores, min(top_k, len(scores)))
        names = self.model.config.id2label
        return [
            {"score": score, "answer": names[label]}
            for score, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


PIPELINE_REGISTRY.register_pipeline(
    TASK,
    pipeline_class=VisualQuestionAnsweringPipeline,
    pt_model=PixelBertForVisualQuestionAnswering,
    type="multimodal",
)
