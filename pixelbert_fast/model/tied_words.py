"""Word embeddings that are the masked-word head's weight too, with one dense gradient instead of three.

A look-up and a product with the same weight would each write a gradient of its full size, zeros for all words
that were not there included, and autograd would add the two: at BERT's vocabulary three times 94 MB a step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .hooks import hooked


class LookUp(torch.autograd.Function):
    """``(words [*, D], weight [V, D])``: a look-up, and the weight for whoever else multiplies with it.

    The backward adds the few words' rows into the gradient that the other use has made, in place: nobody else
    holds it, since the second output is used once.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, input_ids: Tensor, padding: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(input_ids)
        ctx.padding, ctx.shape = padding, weight.shape
        ctx.set_materialize_grads(False)
        return F.embedding(input_ids, weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_words: Tensor | None, grad_weight: Tensor | None):
        if grad_words is None:
            return grad_weight, None, None
        if grad_weight is None:
            grad_weight = grad_words.new_zeros(ctx.shape)
        grad_weight = grad_weight.contiguous()  # one that is expanded has no memory for each element
        (input_ids,) = ctx.saved_tensors
        counted = input_ids != ctx.padding
        rows, place = input_ids[counted].unique(return_inverse=True)
        # [CLS] and [SEP] are in every sequence: in half precision their sum is rounded once, not each time.
        wide = torch.promote_types(grad_words.dtype, torch.float32)
        sums = grad_words.new_zeros(len(rows), grad_words.shape[-1], dtype=wide)
        sums.index_add_(0, place, grad_words[counted].to(wide))
        return grad_weight.index_add_(0, rows, sums.to(grad_weight.dtype)), None, None


def shares_gradient(embedding: nn.Embedding, decoder: nn.Linear) -> bool:
    """Whether :func:`look_up` gains anything for these two, and may be used.

    On a GPU the gradients take microseconds. A weight that is no plain parameter is split over ranks and
    gathered only while its own module runs. A module that stands for one of them, such as an adapter, or a
    hook on it may do more than use the weight.
    """
    weight = embedding.weight
    return (
        type(embedding) is nn.Embedding
        and type(decoder) is nn.Linear
        and not (hooked(embedding) or hooked(decoder))
        and decoder.weight is weight
        and type(weight) is nn.Parameter
        and not hasattr(weight, "ds_id")  # DeepSpeed ZeRO-3
        and weight.device.type == "cpu"
        and weight.requires_grad
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def look_up(embedding: nn.Embedding, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """``[S, T, D]`` word embeddings of ``[S, T]`` int64, and the weight, to be used once."""
    padding = -1 if embedding.padding_idx is None else embedding.padding_idx
    return LookUp.apply(embedding.weight, input_ids, padding)
