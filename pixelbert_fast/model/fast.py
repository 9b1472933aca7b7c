"""FastPixelBERT: what PixelBERT computes, without the work that changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import AttentionRequest, PackedAttentionMaps, maps_asked
from .compilation import compiles_or_warns
from .config import PixelBertConfig
from .fast_backbone import run_fast
from .fast_encoder import encode_packed, packed_layer
from .outputs import PixelBertOutput, Tokens
from .packing import Packing
from .pixelbert import PixelBERT, fills
from .regions import EAGER, compiled

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
    regions = EAGER

    def __init__(self, config: PixelBertConfig):
        super().__init__(config)
        self.lay_out()

    def lay_out(self) -> None:
        self.backbone.to(memory_format=torch.channels_last)

    def compile_regions(self) -> bool:
        """From now on fuse what stands between convolutions, and after attention, with ``torch.compile``.

        The pieces that repeat are compiled, once for all layers and batch sizes: some ten seconds in all, at
        the first step. On a CPU this gains nothing (docs/results/model-speed.md).

        Returns:
            whether they are compiled. Where ``torch.compile`` cannot run it is False, a warning says so once,
            and the model goes on as before.
        """
        possible = compiles_or_warns(self.device, "FastPixelBERT.compile_regions")
        self.regions = compiled() if possible else EAGER
        return possible

    def run_backbone(self, pixel_values: Tensor, pixel_size: Tensor | None) -> Tensor:
        return run_fast(
            self.backbone, pixel_values, None if fills(pixel_size, pixel_values) else pixel_size, self.regions
        )

    def pool(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        *,
        output_attentions: AttentionRequest | bool | None = None,
        **inputs,
    ) -> PixelBertOutput:
        """As the reference's; the last layer computes ``[CLS]`` only."""
        asked = maps_asked(output_attentions, self.config)
        tokens = self.embed(input_ids, attention_mask, pixel_values, **inputs)
        first = first_pieces(tokens)
        rows, attentions = self.run_layers(tokens, Packing(tokens.mask), first, asked)
        return PixelBertOutput(
            pooler_output=self.pool_first(rows, first[:, 0]),
            positions=tokens.positions,
            pixel_mask=(tokens.positions >= 0).long(),
            attentions=attentions,
        )

    def encode(
        self, tokens: Tokens, asked: AttentionRequest | bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """As the reference's, over packed rows."""
        packing = Packing(tokens.mask)
        hidden, attentions = self.run_layers(tokens, packing, None, asked)
        return packing.unpack(hidden), attentions

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
        return self.run_layers(tokens, Packing(tokens.mask), wanted, False)[0]

    def run_layers(
        self, tokens: Tokens, packing: Packing, wanted: Tensor | None, asked: AttentionRequest | bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """The last hidden state, packed, of all or of the `wanted` word pieces, and the maps `asked` for."""
        layers, rows = self.encoder.layer, None
        hidden = packing.pack(torch.cat([tokens.words, tokens.pixels], dim=1))
        if wanted is not None:
            rows = packing.among_rows(F.pad(wanted, (0, tokens.pixels.shape[1])))
        if not asked:
            return encode_packed(layers, hidden, packing, rows, self.regions), None
        maps = PackedAttentionMaps(asked, self.encoder, tokens.mask, packing)
        for number, layer in enumerate(layers):
            maps.read(number, hidden)
            hidden = packed_layer(
                layer, hidden, packing, rows if number == len(layers) - 1 else None, self.regions
            )
        return hidden, maps.result()

    def pool_first(self, first: Tensor, read: Tensor) -> Tensor:
        """``pooler_output`` ``[S, D]`` from the last hidden state at ``[CLS]``.

        Args:
            first: ``[F, D]``, a row for each sequence whose ``[CLS]`` is read, in order.
            read: ``[S]`` bool, F of them True; zeros stand for the others, as in the reference.
        """
        states = first.new_zeros(read.shape[0], first.shape[1]).masked_scatter(read[:, None], first)
        return self.pooler(states[:, None])


def first_pieces(tokens: Tokens) -> Tensor:
    """``[S, T]`` bool, True at each ``[CLS]`` that is no padding."""
    first = torch.zeros(tokens.words.shape[:2], dtype=torch.bool, device=tokens.mask.device)
    first[:, 0] = tokens.mask[:, 0]
    return first
