"""Attention maps, computed beside a layer whatever attention implementation the layer itself uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def attention_probabilities(attention: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) of a transformers ``BertSelfAttention``, before dropout.

    Args:
        attention: the layer's ``attention.self``.
        hidden: ``[S, L, D]``, what the layer reads.
        mask: ``[S, L]`` bool, True where a key may be read.

    Returns:
        ``[S, heads, L, L]``: row = query, column = key.
    """
    shape = (*hidden.shape[:2], attention.num_attention_heads, attention.attention_head_size)
    query = attention.query(hidden).view(shape).transpose(1, 2)
    key = attention.key(hidden).view(shape).transpose(1, 2)
    scores = query @ key.transpose(2, 3) * attention.scaling
    scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1)
