"""PixelBertForPreTraining: masked language modelling and image-text matching (paper, section 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertLMPredictionHead

from .attention import maps_asked
from .config import PixelBertConfig
from .fast import FastPixelBERT, first_pieces
from .hooks import hooked
from .inputs import integers
from .losses import wide
from .outputs import PixelBertForPreTrainingOutput
from .pixelbert import PixelBERT, PixelBertPreTrainedModel
from .tied_words import look_up, shares_gradient

IGNORED = -100


class PixelBertForPreTraining(PixelBertPreTrainedModel):
    """PixelBERT with BERT's masked-word head (tied to the word embeddings) and a match head on ``[CLS]``."""

    _tied_weights_keys = {
        "mlm_head.decoder.weight": "pixelbert.embeddings.word_embeddings.weight",
        "mlm_head.decoder.bias": "mlm_head.bias",
    }

    def __init__(self, config: PixelBertConfig, *, fast: bool = True):
        """`fast`: FastPixelBERT, and no more of the heads than is asked for; False: the reference."""
        super().__init__(config)
        self.pixelbert = FastPixelBERT(config) if fast else PixelBERT(config)
        self.mlm_head = BertLMPredictionHead(config)
        self.itm_head = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.mlm_head.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.mlm_head.decoder = value
        self.mlm_head.bias = value.bias

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        matched: Tensor | None = None,
        **inputs,
    ) -> PixelBertForPreTrainingOutput:
        """Computes both losses.

        Args:
            input_ids, attention_mask, pixel_values, **inputs: as :meth:`PixelBERT.forward`.
            labels: ``[S, T]``, the original word piece where one is to be predicted, else -100; at padding
                they do not count. Rows of mismatched sequences count only when ``config.mlm_on_mismatched``:
                their text says nothing of the image.
            matched: ``[S]``, 1 when caption and image belong together, else 0; None: no match loss, and every
                row's words count.

        Returns:
            losses are None for the targets that were not given.
        """
        if labels is not None:
            if attention_mask is not None:
                labels = labels.masked_fill(attention_mask == 0, IGNORED)
            if matched is not None and not self.config.mlm_on_mismatched:
                labels = labels.masked_fill((matched == 0)[:, None], IGNORED)
        arguments = (input_ids, attention_mask, pixel_values)
        if isinstance(self.pixelbert, FastPixelBERT) and self.needs_few_rows(labels, **inputs):
            mlm_logits, itm_logits = self.logits_of_few_rows(labels, *arguments, **inputs)
            attentions = None
        else:
            outputs = self.pixelbert(*arguments, **inputs)
            mlm_logits = self.mlm_head(outputs.last_hidden_state[:, : input_ids.shape[1]])
            if labels is not None:
                mlm_logits = mlm_logits[labels != IGNORED]
            itm_logits = self.itm_head(outputs.pooler_output)
            attentions = outputs.attentions

        loss = mlm_loss = itm_loss = None
        if labels is not None:
            targets = labels[labels != IGNORED].long()
            total = F.cross_entropy(wide(mlm_logits), targets, reduction="sum")
            mlm_loss = total / max(targets.numel(), 1)
            loss = mlm_loss * float(self.config.mlm)
        if matched is not None:
            itm_loss = F.cross_entropy(wide(itm_logits), matched.long())
            counted = itm_loss * float(self.config.itm)
            loss = counted if loss is None else loss + counted
        return PixelBertForPreTrainingOutput(
            loss=loss,
            mlm_loss=mlm_loss,
            itm_loss=itm_loss,
            mlm_logits=mlm_logits,
            itm_logits=itm_logits,
            attentions=attentions,
        )

    def needs_few_rows(self, labels: Tensor | None, *, output_attentions=None, **_) -> bool:
        """Whether only ``[CLS]`` and the labelled words are read: what a step of training asks for."""
        return labels is not None and maps_asked(output_attentions, self.config) is False

    def logits_of_few_rows(self, labels: Tensor, *arguments, **inputs) -> tuple[Tensor, Tensor]:
        """``[M, vocab_size]`` and ``[S, 2]`` from the last hidden state at those rows alone."""
        inputs.pop("output_attentions", None)
        embedding, decoder = self.get_input_embeddings(), self.mlm_head.decoder
        input_ids = integers("input_ids", arguments[0], "[S, T]", None, None)
        words = weight = None
        if shares_gradient(embedding, decoder) and not hooked(self.mlm_head):
            words, weight = look_up(embedding, input_ids)
        tokens = self.pixelbert.embed(*arguments, words=words, **inputs)
        labelled, first = labels != IGNORED, first_pieces(tokens)
        wanted = labelled | first
        rows = self.pixelbert.encode_rows(tokens, wanted)
        pooled = self.pixelbert.pool_first(rows[first[wanted]], first[:, 0])
        predicting = rows[labelled[wanted]]
        if weight is None:
            mlm_logits = self.mlm_head(predicting)
        else:
            mlm_logits = F.linear(self.mlm_head.transform(predicting), weight, decoder.bias)
        return mlm_logits, self.itm_head(pooled)
