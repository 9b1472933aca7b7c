"""Attention maps, computed beside a layer whatever attention implementation the layer itself uses."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.arguments import described, require_range
from .config import PixelBertConfig
from .inputs import integers
from .packing import Packing


class AttentionRequest(NamedTuple):
    """Which attention maps ``output_attentions`` asks for; nothing is computed for the others.

    ``attentions`` then holds one ``[S, heads asked, Q, T + K]`` a layer asked, in the order asked: softmax
    over the keys, before dropout, 0 at keys that are padding. A query that is padding gives zeros.
    """

    layers: Sequence[int] | None = None
    """Indices among the layers, negative ones from the end; None: all."""
    heads: Sequence[int] | None = None
    """Indices among the heads, negative ones from the end; None: all."""
    queries: Tensor | None = None
    """``[S, Q]`` integers, places in each joint sequence: word piece t is t, pixel k is ``T + k`` (the one at
    ``positions[:, k]``), -1 is none and gives zeros. None: all ``T + K``."""


def maps_asked(
    output_attentions: AttentionRequest | bool | None, config: PixelBertConfig
) -> AttentionRequest | bool:
    """`output_attentions`, or what the configuration says where it is None.

    Raises:
        TypeError: it is something else.
    """
    if output_attentions is None:
        return bool(config.output_attentions)
    if not isinstance(output_attentions, bool | AttentionRequest):
        came = described(output_attentions)
        raise TypeError(f"output_attentions must be True, False or an AttentionRequest, got {came}")
    return output_attentions


class AttentionMaps:
    """The maps that a run of the encoder is asked for, each taken from what its layer reads."""

    def __init__(self, asked: AttentionRequest | bool, encoder: nn.Module, mask: Tensor):
        """Checks what is asked.

        Args:
            asked: True: the whole maps of all layers, rows of padding as they come; False: none.
            encoder: a transformers ``BertEncoder``.
            mask: ``[S, L]`` bool, True where a key may be read.

        Raises:
            TypeError: layers or heads are no integers, or queries no integer tensor.
            ValueError: queries of the wrong shape.
            IndexError: a layer, head or place that is not there (on a GPU the place's row is NaN).
        """
        self.asked, self.encoder, self.mask = asked, encoder, mask
        request = asked if isinstance(asked, AttentionRequest) else AttentionRequest()
        self.order = indices("layers", request.layers, len(encoder.layer))
        self.heads = self.places = self.outside = None
        if request.heads is not None:
            heads = indices("heads", request.heads, encoder.config.num_attention_heads)
            self.heads = torch.tensor(heads, dtype=torch.int64, device=mask.device)
        if request.queries is not None:
            sequences, length = mask.shape
            places = integers(
                "AttentionRequest.queries", request.queries, f"[{sequences}, Q]", sequences, None
            )
            meaning = f"a joint sequence of {length} places, -1 for none"
            require_range("forward", "AttentionRequest.queries", places, -1, length, meaning)
            places = places.to(mask.device)
            self.outside = (places < -1) | (places >= length)
            self.places = places.clamp(0, length - 1)
            self.real = (places == self.places) & mask.gather(1, self.places)
        else:
            self.real = mask
        self.found: dict[int, Tensor] = {}

    def read(self, number: int, hidden: Tensor) -> None:
        """Takes the map of layer `number`, if it is asked for, from the ``[S, L, D]`` that it reads."""
        if self.asked and number in self.order:
            self.found[number] = self.compute(self.encoder.layer[number].attention.self, hidden)

    def result(self) -> tuple[Tensor, ...] | None:
        return tuple(self.found[number] for number in self.order) if self.asked else None

    def compute(self, attention: nn.Module, hidden: Tensor) -> Tensor:
        query = hidden
        if self.places is not None:
            query = hidden.gather(1, self.places[..., None].expand(-1, -1, hidden.shape[-1]))
        query = self.project(attention, attention.query, query)
        key = self.project(attention, attention.key, hidden)
        return self.probabilities(attention, query, key)

    def project(self, attention: nn.Module, linear: nn.Linear, rows: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., heads asked, head size]``."""
        size = attention.attention_head_size
        if self.heads is None:
            return linear(rows).unflatten(-1, (attention.num_attention_heads, size))
        by_head = (attention.num_attention_heads, size)
        weight, bias = (
            value.unflatten(0, by_head).index_select(0, self.heads).flatten(0, 1)
            for value in (linear.weight, linear.bias)
        )
        return F.linear(rows, weight, bias).unflatten(-1, (len(self.heads), size))

    def probabilities(self, attention: nn.Module, query: Tensor, key: Tensor) -> Tensor:
        """softmax(Q K^T / sqrt(d)) of ``[S, Q, heads, d]`` and ``[S, L, heads, d]``: ``[S, heads, Q, L]``."""
        scores = query.transpose(1, 2) @ key.permute(0, 2, 3, 1) * attention.scaling
        scores = scores.masked_fill(~self.mask[:, None, None], torch.finfo(scores.dtype).min)
        found = scores.softmax(dim=-1)
        if self.asked is True:
            return found
        found = found.masked_fill(~self.real[:, None, :, None], 0)
        return found if self.outside is None else found.masked_fill(self.outside[:, None, :, None], torch.nan)


class PackedAttentionMaps(AttentionMaps):
    """The same from packed rows: only those that a map needs are projected and padded."""

    def __init__(self, asked: AttentionRequest | bool, encoder: nn.Module, mask: Tensor, packing: Packing):
        super().__init__(asked, encoder, mask)
        self.packing = self.asking = packing
        if self.places is not None:
            length = mask.shape[1]
            self.asking = Packing(self.real)
            first = torch.arange(len(mask), device=mask.device)[:, None] * length
            self.rows = torch.searchsorted(packing.rows, self.asking.pack(first + self.places))

    def compute(self, attention: nn.Module, hidden: Tensor) -> Tensor:
        """As the parent's, from packed rows ``[N, D]``."""
        if self.asked is True:
            return super().compute(attention, self.packing.unpack(hidden))
        query = hidden if self.places is None else hidden.index_select(0, self.rows)
        query = self.asking.unpack(self.project(attention, attention.query, query))
        key = self.packing.unpack(self.project(attention, attention.key, hidden))
        return self.probabilities(attention, query, key)


def indices(name: str, asked: Sequence[int] | None, count: int) -> list[int]:
    """What `asked` names among `count` things, as indices of 0 and more.

    Raises:
        TypeError: it is no sequence of integers.
        IndexError: one is not there.
    """
    if asked is None:
        return list(range(count))
    given = asked.tolist() if hasattr(asked, "tolist") else asked
    if not isinstance(given, Sequence) or not all(
        isinstance(one, Integral) and not isinstance(one, bool) for one in given
    ):
        raise TypeError(
            f"AttentionRequest.{name} must be a sequence of integers or None, got {described(asked)}"
        )
    for one in given:
        if not -count <= one < count:
            raise IndexError(
                f"AttentionRequest.{name} must lie in {-count} .. {count - 1} ({count} {name}), got {one}"
            )
    return [int(one) % count for one in given]
