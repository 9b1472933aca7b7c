"""BERT's layers over packed rows: the modules and weights of transformers' `BertEncoder`, without padding.

A layer's linear maps see each row once and never a padded one. `packed_attention` keeps its sequences apart.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .packed_attention import attend
from .packing import Packing
from .regions import EAGER, Regions


def encode_packed(
    layers: nn.ModuleList,
    hidden: Tensor,
    packing: Packing,
    wanted: Tensor | None = None,
    regions: Regions = EAGER,
) -> Tensor:
    """The encoder over packed rows ``[N, D]``.

    Args:
        wanted: ``[M]`` int64, the packed rows whose outputs are needed; None: all. What the last layer would
            compute for the others is left out.

    Returns:
        ``[N, D]``, or ``[M, D]``.
    """
    for number, layer in enumerate(layers, start=1):
        hidden = packed_layer(layer, hidden, packing, wanted if number == len(layers) else None, regions)
    return hidden


def packed_layer(
    layer: nn.Module, hidden: Tensor, packing: Packing, wanted: Tensor | None, regions: Regions = EAGER
) -> Tensor:
    """One transformers ``BertLayer`` over packed rows; with `wanted`, for those rows alone.

    With gradient checkpointing its activations are computed again in the backward, as the module's own are.
    """
    if layer.gradient_checkpointing and layer.training and torch.is_grad_enabled():
        compute = partial(compute_layer, layer, regions)
        return layer._gradient_checkpointing_func(compute, hidden, packing, wanted)
    return compute_layer(layer, regions, hidden, packing, wanted)


def compute_layer(
    layer: nn.Module, regions: Regions, hidden: Tensor, packing: Packing, wanted: Tensor | None
) -> Tensor:
    attention = layer.attention.self
    residual = hidden if wanted is None else hidden.index_select(0, wanted)
    if wanted is None:
        query, key, value = projections(hidden, attention.query, attention.key, attention.value)
    else:
        key, value = projections(hidden, attention.key, attention.value)
        query = attention.query(residual)
    context = attend(attention, query, key, value, packing, wanted)
    return regions.finish_layer(layer, context, residual)


def projections(hidden: Tensor, *linears: nn.Linear) -> tuple[Tensor, ...]:
    """What each of `linears` gives of `hidden`.

    In one product where starting one is what costs. On a CPU it is copying the weights together: three took
    10 ms, one 14 (forward and backward, 256 rows of 768, float32, two threads of a Xeon with AVX-512).
    """
    if hidden.device.type == "cpu":
        return tuple(linear(hidden) for linear in linears)
    weight = torch.cat([linear.weight for linear in linears])
    bias = torch.cat([linear.bias for linear in linears])
    return F.linear(hidden, weight, bias).split([linear.out_features for linear in linears], dim=-1)
