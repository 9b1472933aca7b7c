"""What the models of the downstream tasks share."""

from __future__ import annotations

from .config import PixelBertConfig
from .fast import FastPixelBERT
from .pixelbert import PixelBERT, PixelBertPreTrainedModel


class PixelBertForDownstreamTask(PixelBertPreTrainedModel):
    """Pixel-BERT that reads every pixel, of which a task needs the pooled ``[CLS]`` only.

    ``from_pretrained`` takes a pre-training checkpoint too: what it shares is loaded, and the task's head
    starts at random, which its ``fresh`` then says.
    """

    _keys_to_ignore_on_load_unexpected = PixelBERT._keys_to_ignore_on_load_unexpected

    def __init__(self, config: PixelBertConfig, *, fast: bool = True):
        """`fast`: FastPixelBERT, whose last layer computes ``[CLS]`` only; False: the reference."""
        super().__init__(config)
        self.pixelbert = FastPixelBERT(config) if fast else PixelBERT(config)
        self.pixelbert.samples = config.sampled_fine_tuning
