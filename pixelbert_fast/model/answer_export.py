"""The VQA model without this package: see :mod:`.export`, whose programs give no logits."""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor
from torch.export import ExportedProgram

from .export import trace
from .inference_graph import InferenceGraph
from .inference_shape import InferenceShape
from .vqa import PixelBertForVisualQuestionAnswering


class AnswerGraph(InferenceGraph):
    """The model in evaluation mode, on a copy of its weights as they are now."""

    def __init__(self, model: PixelBertForVisualQuestionAnswering):
        super().__init__(model.pixelbert)
        self.answer_head = copy.deepcopy(model.answer_head).requires_grad_(False)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        image_index: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        pixel_size: Tensor | None = None,
    ) -> Tensor:
        """Inputs as :meth:`InferenceGraph.forward`; returns the logits ``[S, A]``."""
        _, pooled, _, _ = super().forward(
            input_ids, pixel_values, image_index, attention_mask, positions, pixel_size
        )
        return self.answer_head(pooled)


def export_answers(
    model: PixelBertForVisualQuestionAnswering, shape: InferenceShape, *, dynamic: Collection[str] = ()
) -> ExportedProgram:
    """`model` in evaluation mode as a ``torch.export`` program that gives the logits ``[S, A]``.

    ``torch.onnx.export(program, dynamo=True)`` makes ONNX of it, where the packages onnx and onnxscript are
    installed; their sigmoid is the score of an answer, ``model.config.id2label`` its text.

    Args:
        shape, dynamic: as :func:`export_for_inference`, which says what is raised.
    """
    shape.check(model.config)
    weight = model.pixelbert.pixel_projection.weight
    with torch.no_grad():
        return trace(AnswerGraph(model), shape, weight.dtype, weight.device, dynamic)
