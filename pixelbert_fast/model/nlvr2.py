"""PixelBertForNaturalLanguageVisualReasoning: whether a statement is true of a pair of images."""

from __future__ import annotations

import torch
from torch import Tensor

from .attention import AttentionRequest
from .config import PixelBertConfig
from .downstream import PixelBertForDownstreamTask
from .heads import ClassificationHead
from .inputs import integers
from .losses import statement_loss
from .outputs import PixelBertForNaturalLanguageVisualReasoningOutput, PixelEmbeddings


class PixelBertForNaturalLanguageVisualReasoning(PixelBertForDownstreamTask):
    """Reads (statement, left image) and (statement, right image); an MLP on both ``[CLS]`` decides.

    Paper, section 4.2. An image passes the backbone once, however many statements are about it.
    """

    _keys_to_ignore_on_load_missing = [r"^pair_head\."]

    def __init__(self, config: PixelBertConfig, *, fast: bool = True):
        """`fast`: as PixelBertForPreTraining."""
        super().__init__(config, fast=fast)
        self.pair_head = ClassificationHead(config, 2 * config.hidden_size, 2)
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
    ) -> PixelBertForNaturalLanguageVisualReasoningOutput:
        """Judges P statements about B images.

        Args:
            input_ids: ``[P, T]`` integers, a statement once for both of its images.
            attention_mask: ``[P, T]``, 0 on padding.
            labels: ``[P]``, 1 or True where the statement is true, -100 where that is unknown; None: no loss.
            image_index: ``[P, 2]`` integers, the left and the right image of each statement; None: they
                follow each other, B = 2 P.
            positions: ``[P, 2, K]``, of the left and of the right image.
            sample_keys: ``[P, 2]``.
            others: as :meth:`PixelBERT.forward`, which says what is raised.
        """
        input_ids = integers("input_ids", input_ids, "[P, T]", None, None)
        statements = input_ids.shape[0]
        if image_index is None:
            image_index = torch.arange(2 * statements, device=input_ids.device).view(statements, 2)
        image_index = integers("image_index", image_index, f"[{statements}, 2]", statements, 2)
        if positions is not None:
            positions = integers("positions", positions, f"[{statements}, 2, K]", statements, 2, None)
            positions = positions.flatten(0, 1)
        if sample_keys is not None:
            sample_keys = integers("sample_keys", sample_keys, f"[{statements}, 2]", statements, 2).flatten()
        if attention_mask is not None:
            attention_mask = attention_mask.repeat_interleave(2, dim=0)
        outputs = self.pixelbert.pool(
            # The looking up of words again for the right image is a thousandth of what a layer computes.
            input_ids.repeat_interleave(2, dim=0),
            attention_mask,
            pixel_values,
            image_index=image_index.flatten(),
            pixel_size=pixel_size,
            positions=positions,
            pixel_embeddings=pixel_embeddings,
            seed=seed,
            sample_keys=sample_keys,
            output_attentions=output_attentions,
        )
        logits = self.pair_head(outputs.pooler_output.reshape(statements, -1))
        loss = None
        if labels is not None:
            labels = labels.long() if labels.dtype == torch.bool else labels
            loss = statement_loss(logits, integers("labels", labels, f"[{statements}]", statements))
        return PixelBertForNaturalLanguageVisualReasoningOutput(
            loss=loss, logits=logits, attentions=outputs.attentions
        )
