"""The heads of the downstream tasks, on the pooled ``[CLS]``."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.activations import ACT2FN

from .config import PixelBertConfig

ALL_HEADS = ("mlm_head", "itm_head", "answer_head", "pair_head", "score_head")
"""Under what name each task's model holds its head, and its checkpoint the head's weights."""


class HeadLayer(nn.Linear):
    """A linear map of a head, which knows whether anything was ever loaded into it."""

    fresh = False
    """Whether the weights are random: ``from_pretrained`` found none in the checkpoint, or never ran."""


class ClassificationHead(nn.Module):
    """``Linear(features, 2 D)``, activation, LayerNorm, ``Linear(2 D, classes)``, as LXMERT and ViLT."""

    def __init__(self, config: PixelBertConfig, features: int, classes: int):
        super().__init__()
        width = 2 * config.hidden_size
        self.dense = HeadLayer(features, width)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.classifier = HeadLayer(width, classes)

    @property
    def fresh(self) -> bool:
        """Whether any of it is random, see :class:`HeadLayer`."""
        return self.dense.fresh or self.classifier.fresh

    def forward(self, pooled: Tensor) -> Tensor:
        """``[N, features]`` to ``[N, classes]``."""
        return self.classifier(self.norm(self.activation(self.dense(pooled))))
