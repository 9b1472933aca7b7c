"""The pieces of the fast model that ``torch.compile`` can fuse, each compiled once for all layers and sizes.

What stands between two convolutions, or after a layer's attention, is read and written several times by eager
operators. Compiled piece by piece rather than whole, a model of 12 equal layers starts in seconds, and other
batch sizes need no other code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dropout import dropout


def finish_layer(layer: nn.Module, context: Tensor, residual: Tensor) -> Tensor:
    """What a ``BertLayer`` does after its attention, row by row: ``[N, D]`` of ``[N, D]`` each."""
    hidden = add_and_norm(layer.attention.output, context, residual)
    return add_and_norm(layer.output, layer.intermediate(hidden), hidden)


def add_and_norm(output: nn.Module, rows: Tensor, residual: Tensor) -> Tensor:
    """LayerNorm(dropout(W rows + b) + residual) by the modules of a ``BertSelfOutput`` or ``BertOutput``."""
    dropped = dropout(output.dense(rows), output.dropout.p, output.dropout.training)
    return output.LayerNorm(dropped + residual)


def norm_relu(
    features: Tensor,
    residual: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """``relu(batch_norm(features) + residual)``, ``[B, C, H, W]``; training moves the running statistics."""
    x = F.batch_norm(features, running_mean, running_var, weight, bias, training, momentum, eps)
    if residual is not None:
        x = x.add_(residual)
    return x.relu_()


class Regions(NamedTuple):
    """The functions above, or what stands for them.

    A pickle holds the functions above in any case: where it is read, compiled code may not run.
    """

    finish_layer: Callable[..., Tensor] = finish_layer
    norm_relu: Callable[..., Tensor] = norm_relu

    def __reduce__(self):
        return Regions, ()

    def __deepcopy__(self, memo) -> Regions:
        return self


EAGER = Regions()


@cache
def compiled() -> Regions:
    """One compiled function each for the whole process; code is made when one is first called."""
    return Regions(*(torch.compile(each, dynamic=True, fullgraph=True) for each in EAGER))
