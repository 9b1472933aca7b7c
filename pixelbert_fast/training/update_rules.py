"""SGD and AdamW for a list of tensors: torch's fused kernels where it has them, else step by step.

All take `bad`, a 0-d float32 on the tensors' device: where it is 1, parameters and state stay as they are.
Nothing here reads a value from a device other than the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FUSED_DEVICES = ("cpu", "cuda")


@dataclass
class Pieces:
    """Tensors of one group, device and dtype, each in the memory order of its parameter.

    Attributes:
        params, grads, first, second: alike in shape, one for one.
        steps: 0-d float32, updates that each has had, this one included.
    """

    params: list[Tensor]
    grads: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    steps: list[Tensor]


def fusable(tensor: Tensor) -> bool:
    """Whether the fused kernels can update it; they take its memory as one row of numbers."""
    return (
        tensor.dtype == torch.float32
        and tensor.device.type in FUSED_DEVICES
        and hasattr(torch, "_fused_adamw_")
        and hasattr(torch, "_fused_sgd_")
        and _order(tensor) is not None
    )


def ordered_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """`tensor` with the strides of `parameter`; a copy only where the memory order is another."""
    if tensor.stride() == parameter.stride():
        return tensor
    order = _order(parameter)
    # Strides along sides of length 1 differ without meaning anything.
    if order is not None and tensor.is_contiguous(memory_format=order):
        return tensor.as_strided(parameter.shape, parameter.stride())
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def _order(tensor: Tensor) -> torch.memory_format | None:
    if tensor.is_contiguous():
        return torch.contiguous_format
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return None


def fused(group: Mapping[str, Any], pieces: Pieces, bad: Tensor, scale: Tensor | None) -> None:
    """One pass over memory. scale: gradients are divided by it (and written back), 0-d; None: as they are."""
    if group["algorithm"] == "sgd":
        torch._fused_sgd_(
            pieces.params,
            pieces.grads,
            pieces.first if group["momentum"] else [],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,  # the momentum starts as zeros
            grad_scale=scale,
            found_inf=bad,
        )
        return
    beta1, beta2 = group["betas"]
    torch._fused_adamw_(
        pieces.params,
        pieces.grads,
        pieces.first,
        pieces.second,
        [],
        pieces.steps,
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
        grad_scale=scale,
        found_inf=bad,
    )


def foreach(group: Mapping[str, Any], pieces: Pieces, bad: Tensor, scale: Tensor | None) -> None:
    """As `fused`, a pass over memory for each operation, for any dtype, layout and device."""
    rule = _sgd if group["algorithm"] == "sgd" else _adamw
    if scale is not None:
        torch._foreach_div_(pieces.grads, scale)
    if bad.device.type == "cpu":
        if not bad:
            rule(group, pieces)
        return
    # Elsewhere reading `bad` would make the host wait: compute, and keep the old values where it is 1.
    for one in zip(pieces.params, pieces.grads, pieces.first, pieces.second, pieces.steps, strict=True):
        kept = [one[place].clone() for place in (0, 2, 3)]
        rule(group, Pieces(*([tensor] for tensor in one)))
        for place, old in zip((0, 2, 3), kept, strict=True):
            torch.where(bad > 0, old, one[place], out=one[place])


def _sgd(group: Mapping[str, Any], pieces: Pieces) -> None:
    grads = pieces.grads
    if group["weight_decay"]:
        grads = torch._foreach_add(grads, pieces.params, alpha=group["weight_decay"])
    if group["momentum"]:
        torch._foreach_mul_(pieces.first, group["momentum"])
        torch._foreach_add_(pieces.first, grads)
        grads = pieces.first
    torch._foreach_add_(pieces.params, grads, alpha=-group["lr"])


def _adamw(group: Mapping[str, Any], pieces: Pieces) -> None:
    beta1, beta2 = group["betas"]
    if group["weight_decay"]:
        torch._foreach_mul_(pieces.params, 1.0 - group["lr"] * group["weight_decay"])
    torch._foreach_lerp_(pieces.first, pieces.grads, 1.0 - beta1)
    torch._foreach_mul_(pieces.second, beta2)
    torch._foreach_addcmul_(pieces.second, pieces.grads, pieces.grads, 1.0 - beta2)
    roots = torch._foreach_sqrt(pieces.second)
    if pieces.steps[0].device.type == "cpu":
        steps = [float(step) for step in pieces.steps]
        torch._foreach_div_(roots, [(1.0 - beta2**step) ** 0.5 for step in steps])
        torch._foreach_add_(roots, group["eps"])
        rates = [-group["lr"] / (1.0 - beta1**step) for step in steps]
        torch._foreach_addcdiv_(pieces.params, pieces.first, roots, rates)
        return
    # In float64, where 1 - 0.999 keeps its digits, and on the device, which is not waited for.
    steps = [step.double() for step in pieces.steps]
    dtype = roots[0].dtype
    torch._foreach_div_(roots, [(1.0 - beta2**step).sqrt().to(dtype) for step in steps])
    torch._foreach_add_(roots, group["eps"])
    torch._foreach_mul_(roots, [((beta1**step - 1.0) / group["lr"]).to(dtype) for step in steps])
    torch._foreach_addcdiv_(pieces.params, pieces.first, roots)
