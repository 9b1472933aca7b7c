"""PixelBertForVisualQuestionAnswering: which of many answers fit a question about an image (section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..ops.arguments import described
from .attention import AttentionRequest
from .config import PixelBertConfig
from .downstream import PixelBertForDownstreamTask
from .heads import ClassificationHead
from .losses import answer_loss
from .outputs import PixelBertForVisualQuestionAnsweringOutput, PixelEmbeddings


def answer_labels(answers: Sequence[str]) -> dict[str, dict]:
    """The configuration's ``id2label`` and ``label2id`` for these answers, numbered in order.

    ``PixelBertForVisualQuestionAnswering.from_pretrained(checkpoint, **answer_labels(answers))``.

    Raises:
        ValueError: no answer, or one that is there twice.
    """
    label2id = {answer: number for number, answer in enumerate(answers)}
    if not label2id or len(label2id) != len(answers):
        raise ValueError(
            f"answers must be at least one, all different, got {len(answers)} of which {len(label2id)} differ"
        )
    return {"id2label": dict(enumerate(answers)), "label2id": label2id}


class PixelBertForVisualQuestionAnswering(PixelBertForDownstreamTask):
    """PixelBERT with an MLP over the answers on ``[CLS]``: ``config.id2label`` names all ``num_labels``."""

    _keys_to_ignore_on_load_missing = [r"^answer_head\."]

    def __init__(self, config: PixelBertConfig, *, fast: bool = True):
        """`fast`: as PixelBertForPreTraining."""
        super().__init__(config, fast=fast)
        self.answer_head = ClassificationHead(config, config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        image_index: Tensor | None = None,
        pixel_size: Tensor | None = None,
        positions: Tensor | None = None,
        pixel_embeddings: PixelEmbeddings | None = None,
        seed: int | Tensor | None = None,
        sample_keys: Tensor | None = None,
        output_attentions: AttentionRequest | bool | None = None,
    ) -> PixelBertForVisualQuestionAnsweringOutput:
        """Scores every answer to each question.

        Args:
            labels: ``[S, A]`` floating-point soft scores in 0..1; a row with NaN has no answers and does not
                count. None: no loss.
            others: as :meth:`PixelBERT.forward`, which says what is raised; ``transformers.Trainer`` reads
                their names here.

        Raises:
            ValueError: `labels` of another shape or of integers.
        """
        outputs = self.pixelbert.pool(
            input_ids,
            attention_mask,
            pixel_values,
            image_index=image_index,
            pixel_size=pixel_size,
            positions=positions,
            pixel_embeddings=pixel_embeddings,
            seed=seed,
            sample_keys=sample_keys,
            output_attentions=output_attentions,
        )
        logits = self.answer_head(outputs.pooler_output)
        loss = None
        if labels is not None:
            if not labels.is_floating_point() or labels.shape != logits.shape:
                raise ValueError(
                    f"labels must be floating-point {list(logits.shape)}, the soft score of each answer to "
                    f"each question, got {described(labels)}"
                )
            loss = answer_loss(logits, labels)
        return PixelBertForVisualQuestionAnsweringOutput(
            loss=loss, logits=logits, attentions=outputs.attentions
        )
