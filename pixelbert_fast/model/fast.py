"""FastPixelBERT: what PixelBERT computes, without the work that changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import attention_probabilities
from .config import PixelBertConfig
from .fast_backbone import run_fast
from .fast_encoder import encode_packed, packed_layer
from .outputs import Tokens
from .packing import Packing
from .pixelbert import PixelBERT, fills

if TYPE_CHECKING:
    from .inference import CompiledInference
    from .inference_shape import InferenceShape


class FastPixelBERT(PixelBERT):
    """Drop-in for :class:`PixelBERT`: same constructor, ``forward``, outputs and ``state_dict`` keys.

    Equivalent to ``PixelBERT`` with the same weights, places and dropout of 0, within rounding. What differs
    is how: norms folded into channels_last convolutions, the ops' fastest backend, and a Transformer over
    packed rows that never sees padding.
    """

    backend = None  # the fastest that can run

    def __init__(self, config: PixelBertConfig):
        super().__init__(config)
        self.backbone.to(memory_format=torch.channels_last)

    def run_backbone(self, pixel_values: Tensor, pixel_size: Tensor | None) -> Tensor:
        return run_fast(self.backbone, pixel_values, None if fills(pixel_size, pixel_values) else pixel_size)

    def encode(self, tokens: Tokens, output_attentions: bool) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """As the reference's, over packed rows."""
        packing = Packing(tokens.mask)
        hidden = packing.pack(torch.cat([tokens.words, tokens.pixels], dim=1))
        if not output_attentions:
            return packing.unpack(encode_packed(self.encoder.layer, hidden, packing)), None
        attentions = []
        for layer in self.encoder.layer:
            unpacked = packing.unpack(hidden)
            attentions.append(attention_probabilities(layer.attention.self, unpacked, tokens.mask))
            hidden = packed_layer(layer, hidden, packing, None)
        return packing.unpack(hidden), tuple(attentions)

    def compile_for_inference(
        self, shapes: Iterable[InferenceShape], *, sample: bool = False, fallback: bool = False
    ) -> CompiledInference:
        """This model as it is now, in evaluation mode, compiled ahead of time for `shapes`.

        Args:
            shapes: what to prepare; a call runs the cheapest that it fits. Each takes about half a minute to
                compile at the size of "r50".
            sample: whether a call without `positions` reads ``config.sampled_pixels`` drawn places, as in
                training mode, rather than all; then shapes need ``pixels``.
            fallback: whether a call that fits no shape runs eagerly, on the same copy of the weights, rather
                than raise ValueError.

        Returns:
            What is called like this model, see :class:`CompiledInference`. Its weights are a copy: compile
            again after training.

        Raises:
            ValueError: no shape, or one that this model does not read.
        """
        from .inference import CompiledInference  # the compiler's machinery, only for who asks

        return CompiledInference(self, shapes, sample=sample, fallback=fallback)

    def encode_rows(self, tokens: Tokens, wanted: Tensor) -> Tensor:
        """The last hidden state at some word pieces only; the last layer computes no other.

        Args:
            wanted: ``[S, T]`` bool, True at word pieces (never at padding).

        Returns:
            ``[M, D]``, row-major.
        """
        packing = Packing(tokens.mask)
        hidden = packing.pack(torch.cat([tokens.words, tokens.pixels], dim=1))
        rows = packing.among_rows(F.pad(wanted, (0, tokens.pixels.shape[1])))
        return encode_packed(self.encoder.layer, hidden, packing, rows)
