"""Attention within each sequence of a packed buffer, by whatever the device does best.

- "varlen": one Flash kernel that takes the sequences as they lie, on NVIDIA GPUs in half precision;
- "padded": rows copied into a padded buffer and back around one masked call, wherever the former cannot run;
- "each": one call a sequence, on a CPU, where a call costs little beside its work and padding would be work;
- "batched": the products, softmax and dropout of all sequences at once, on a CPU with dropout, where PyTorch
  has no fused attention and its own dropout takes as long as the rest.

All are exact; dropout draws from the device's own generator, so that a seed repeats it, as activation
checkpointing does. Which sequences there are is read once a forward (:class:`Spans`), never in a layer.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dropout import dropout as drop
from .packing import Packing, Spans

# Above it Flash refuses gradients on some devices that it serves otherwise (torch 2.13: 8.6, 8.9, 12.x).
LARGEST_HEAD = 192
# Up to so many rows torch's bfloat16 backward on a CPU takes longer than float32's and both casts: 1.7 times
# at 32, 1.2 at 160 (torch 2.13, one thread of a Xeon with AMX). The forward alone never does.
NARROW_BACKWARD = 160

_logger = logging.getLogger(__name__)


def attend(
    attention: nn.Module, query: Tensor, key: Tensor, value: Tensor, packing: Packing, wanted: Tensor | None
) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V within each sequence, for packed rows ``[N, D]`` (or ``[M, D]`` queries).

    Args:
        attention: a transformers ``BertSelfAttention``: number and size of heads, scaling, dropout.
        query: ``[N, D]``, or with `wanted` the ``[M, D]`` of those rows alone.
        key, value: ``[N, D]``.
        wanted: ``[M]`` int64, ascending, the packed rows that `query` holds; None: all.

    Returns:
        ``[N, D]`` or ``[M, D]``.
    """
    heads, size = attention.num_attention_heads, attention.attention_head_size
    query, key, value = (rows.unflatten(-1, (heads, size)) for rows in (query, key, value))
    queries = packing.spans if wanted is None else packing.spans_among(wanted)
    dropout = attention.dropout.p if attention.training else 0.0
    name = choose(query.device, query.dtype, size)
    if name == "each" and dropout and worth_padding(packing.spans.lengths):
        name = "batched"
    implementation = IMPLEMENTATIONS[name]
    out = implementation(query, key, value, queries, packing.spans, dropout, attention.scaling)
    return out.flatten(1)


def choose(device: torch.device, dtype: torch.dtype, head_size: int) -> str:
    """The implementation for packed rows there: a key of `IMPLEMENTATIONS`."""
    if device.type == "cpu":
        return "each"
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    reason = why_not_varlen(device.type, dtype, head_size, capability)
    if reason is None:
        return "varlen"
    _say_once(reason)
    return "padded"


# As in ops/backends.py: chosen in Python while a graph is traced.
choose._dynamo_marked_constant = True


def why_not_varlen(
    device_type: str, dtype: torch.dtype, head_size: int, capability: tuple[int, int] | None
) -> str | None:
    """None where the variable-length kernel can run, otherwise a sentence of why not.

    Args:
        capability: the CUDA device's compute capability.
    """
    if device_type != "cuda" or torch.version.hip is not None:
        return "variable-length attention runs on NVIDIA GPUs only."
    if dtype not in (torch.float16, torch.bfloat16):
        return f"variable-length attention takes float16 and bfloat16, not {dtype}."
    if head_size % 8 or head_size > LARGEST_HEAD:
        return f"variable-length attention takes heads of 8, 16 and so on to {LARGEST_HEAD}, not {head_size}."
    if capability is None or capability < (8, 0):
        return f"variable-length attention needs compute capability 8.0, and this GPU has {capability}."
    if not torch.backends.cuda.is_flash_attention_available():
        return "this PyTorch was built without Flash attention."
    if not torch.backends.cuda.flash_sdp_enabled():
        return "Flash attention was switched off (torch.backends.cuda.enable_flash_sdp)."
    return None


@cache
def _say_once(reason: str) -> None:
    _logger.debug("packed rows are padded for attention: %s", reason)


def each(
    query: Tensor, key: Tensor, value: Tensor, queries: Spans, keys: Spans, dropout: float, scale: float
) -> Tensor:
    """``[M, heads, d]`` of queries ``[M, heads, d]`` and keys and values ``[N, heads, d]``."""
    dtype = query.dtype
    if dtype == torch.bfloat16 and query.requires_grad and keys.longest <= NARROW_BACKWARD:
        with torch.autocast(query.device.type, enabled=False):
            wide = (rows.float() for rows in (query, key, value))
            return each(*wide, queries, keys, dropout, scale).to(dtype)
    parts = [
        F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            dropout_p=dropout,
            scale=scale,
        )[0].transpose(0, 1)
        for q, k, v in zip(
            query.split(queries.lengths),
            key.split(keys.lengths),
            value.split(keys.lengths),
            strict=True,
        )
    ]
    return torch.cat(parts) if parts else query


def varlen(
    query: Tensor, key: Tensor, value: Tensor, queries: Spans, keys: Spans, dropout: float, scale: float
) -> Tensor:
    """As :func:`each`.

    PyTorch's public function has no dropout. The op below it does, under the same arguments from 2.11 on, and
    brings its own derivative, which reads the state of the generator that the forward returned.
    """
    if not queries.longest:
        return nothing_asked(query, key, value)
    spans = (queries.starts, keys.starts, queries.longest, keys.longest)
    if dropout:
        flash = torch.ops.aten._flash_attention_forward
        return flash(query, key, value, *spans, dropout, False, False, scale=scale)[0]
    from torch.nn.attention.varlen import varlen_attn  # imports the whole compiler

    return varlen_attn(query, key, value, *spans, scale=scale)


def padded(
    query: Tensor, key: Tensor, value: Tensor, queries: Spans, keys: Spans, dropout: float, scale: float
) -> Tensor:
    """As :func:`each`."""
    if not queries.longest:
        return nothing_asked(query, key, value)
    out = F.scaled_dot_product_attention(
        queries.pad(query).transpose(1, 2),
        keys.pad(key).transpose(1, 2),
        keys.pad(value).transpose(1, 2),
        attn_mask=keys.readable[:, None, None],
        dropout_p=dropout,
        scale=scale,
    )
    return out.transpose(1, 2).flatten(0, 1).index_select(0, queries.places)


def batched(
    query: Tensor, key: Tensor, value: Tensor, queries: Spans, keys: Spans, dropout: float, scale: float
) -> Tensor:
    """As :func:`each`. In float32 at least, as PyTorch does where it takes attention apart itself."""
    if not queries.longest:
        return nothing_asked(query, key, value)
    dtype = query.dtype
    wide = torch.promote_types(dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        q, k, v = (
            spans.pad(rows).transpose(1, 2).to(wide)
            for spans, rows in ((queries, query), (keys, key), (keys, value))
        )
        scores = (q * scale) @ k.transpose(2, 3)
        # The lowest number, not -inf: nothing is divided by zero where no key is read.
        scores = scores.masked_fill(~keys.readable[:, None, None], torch.finfo(wide).min)
        out = drop(scores.softmax(-1), dropout) @ v
    return out.transpose(1, 2).flatten(0, 1).index_select(0, queries.places).to(dtype)


def worth_padding(lengths: list[int]) -> bool:
    """Whether sequences are so equally long that padding them adds less than a third to their maps."""
    return len(lengths) * max(lengths, default=0) ** 2 <= 1.33 * sum(length**2 for length in lengths)


def nothing_asked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """No row, of which keys and values still get their gradients of zero, as a step of all ranks needs."""
    return query + 0 * (key.sum() + value.sum())


IMPLEMENTATIONS = {"each": each, "varlen": varlen, "padded": padded, "batched": batched}
