"""A linear map of float32 numbers by bfloat16 products, for processors whose matrix unit knows no float32.

Each number is the sum of two bfloat16s, which hold 16 of its 24 bits of precision, and of the four products
of two such sums the three that count are added up in float32. Not among the public ops: for evaluation only,
on a CPU with AMX.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import cpu_backend

MULTIPLE = 32
"""What both sizes of a weight must be a multiple of."""
# A first half is off by 2^-9 of its number at most, a second one by 2^-9 of that; three terms are so large:
# what is lost of either factor, and the product of both second halves.
ERROR = 3 * 2.0**-18
"""What a product may be off by, as a share of it; sums of them are rounded as float32's are."""


def why_not() -> str | None:
    """None where it can run, otherwise a sentence of why not."""
    reason = cpu_backend.why_not_loaded()
    if reason is not None:
        return reason
    if not torch.ops.pixelbert_fast_native.split_linear_usable():
        return "this processor has no AMX with bfloat16, or the system does not let it be used."
    return None


class SplitLinear(nn.Module):
    """What an ``nn.Linear`` does, without gradients, within :data:`ERROR`; NaN of what is not finite."""

    def __init__(self, linear: nn.Linear):
        """Takes a copy of its weights.

        Raises:
            ValueError: it has no bias, is not float32 on the CPU, or a size is no multiple of 32.
        """
        super().__init__()
        weight, bias = linear.weight.detach(), linear.bias
        if bias is None or not can_split(linear):
            raise ValueError(
                f"SplitLinear: the weight must be float32 on the CPU, of sizes {MULTIPLE}, 64 ..., with "
                f"a bias, got {weight.dtype} {list(weight.shape)} on {weight.device}"
            )
        self.columns, self.inner = weight.shape
        packed = torch.empty(weight.numel() * 2, dtype=torch.bfloat16)
        torch.ops.pixelbert_fast_native.pack_split_linear(weight.contiguous(), packed)
        self.register_buffer("packed", packed)
        self.register_buffer("bias", bias.detach().clone())

    def forward(self, rows: Tensor) -> Tensor:
        """``[..., columns]`` of ``[..., inner]`` float32."""
        if rows.shape[-1] != self.inner or rows.dtype != torch.float32 or not rows.is_cpu:
            raise ValueError(
                f"SplitLinear: rows must be [..., {self.inner}] float32 on the CPU, got {rows.dtype} "
                f"{list(rows.shape)} on {rows.device}"
            )
        flat = rows.detach().reshape(-1, self.inner).contiguous()
        out = flat.new_empty(flat.shape[0], self.columns)
        torch.ops.pixelbert_fast_native.split_linear(flat, self.packed, self.bias, out)
        return out.view(*rows.shape[:-1], self.columns)


def can_split(linear: nn.Linear) -> bool:
    """Whether its weight has the dtype, place and sizes for :class:`SplitLinear`."""
    weight = linear.weight
    return weight.dtype == torch.float32 and weight.is_cpu and not any(n % MULTIPLE for n in weight.shape)
