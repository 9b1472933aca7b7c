"""What the models return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from transformers.utils import ModelOutput


class PixelEmbeddings(NamedTuple):
    """Every valid pixel of B images as a token, computed once and read by any number of sequences."""

    values: Tensor
    """``[B, N, D]``; zeros behind an image's last pixel."""
    positions: Tensor
    """``[B, N]`` int32, ascending places on the pooled grid; -1 behind an image's last pixel."""
    mask: Tensor
    """``[B, N]`` bool, True on pixels."""
    valid_grid: Tensor | None = None
    """``[B, 2]`` int32 rows and columns of each image's own grid; needed only to draw a sample from these."""
    grid: tuple[int, int] | None = None
    """``(h, w)`` of the padded grid that `positions` count in."""


class FeatureMaps(NamedTuple):
    """What the backbone gave of B images, in place of them: for `PixelBERT.embed_features`."""

    features: Tensor
    """``[B, C, H, W]``, zeros in the padding."""
    valid_grid: Tensor
    """``[B, 2]`` int32 rows and columns of each image's own pooled grid."""


class Tokens(NamedTuple):
    """What the Transformer reads: S sequences of T word pieces and K pixels."""

    words: Tensor
    """``[S, T, D]``."""
    pixels: Tensor
    """``[S, K, D]``, zeros where there is none."""
    mask: Tensor
    """``[S, T + K]`` bool, True where there is a word piece or a pixel."""
    positions: Tensor
    """``[S, K]`` int32, -1 where there is no pixel."""


@dataclass
class PixelBertOutput(ModelOutput):
    """Output of PixelBERT for S sequences of T word pieces and K pixels.

    last_hidden_state: ``[S, T + K, D]``, zeros where the mask is 0; None from ``pool``.
    pooler_output: ``[S, D]``, from ``[CLS]``.
    positions: ``[S, K]`` int32, the pixels that were read, -1 for none.
    pixel_mask: ``[S, K]`` int64, 1 on a pixel.
    attentions: one ``[S, heads, T + K, T + K]`` a layer when asked for, before dropout; the rows
        of padding, as queries, mean nothing. Of an :class:`AttentionRequest` what is said there.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    positions: Tensor | None = None
    pixel_mask: Tensor | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class PixelBertForPreTrainingOutput(ModelOutput):
    """Output of PixelBertForPreTraining.

    loss: MLM loss + ITM loss, each counted when its switch in the configuration is on.
    mlm_loss: mean cross-entropy over the M words to predict; 0 when there are none.
    itm_loss: mean cross-entropy over the S sequences.
    mlm_logits: ``[M, vocab_size]`` at the M words to predict, row by row; ``[S, T, vocab_size]``
        without labels.
    itm_logits: ``[S, 2]``; column 1 says that caption and image match.
    attentions: as in :class:`PixelBertOutput`.
    """

    loss: Tensor | None = None
    mlm_loss: Tensor | None = None
    itm_loss: Tensor | None = None
    mlm_logits: Tensor | None = None
    itm_logits: Tensor | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class PixelBertForVisualQuestionAnsweringOutput(ModelOutput):
    """Output of PixelBertForVisualQuestionAnswering for S questions and A answers.

    loss: binary cross-entropy summed over the answers, its mean over the questions; None without labels.
    logits: ``[S, A]``; their sigmoid is the score that each answer is expected to get.
    attentions: as in :class:`PixelBertOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class PixelBertForNaturalLanguageVisualReasoningOutput(ModelOutput):
    """Output of PixelBertForNaturalLanguageVisualReasoning for P statements.

    loss: mean cross-entropy; None without labels.
    logits: ``[P, 2]``; column 1 says that the statement is true.
    attentions: as in :class:`PixelBertOutput`, of 2 P sequences: left and right of each statement in turn.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class PixelBertForImageTextRetrievalOutput(ModelOutput):
    """Output of PixelBertForImageTextRetrieval for S sequences.

    loss: mean over the groups of the softmax cross-entropy of their scores; None without groups.
    scores: ``[S]``, higher where text and image match.
    attentions: as in :class:`PixelBertOutput`.
    """

    loss: Tensor | None = None
    scores: Tensor | None = None
    attentions: tuple[Tensor, ...] | None = None
