"""What a step cannot avoid: its own convolutions and matrix products, recorded as it runs, then run alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
CONVOLUTIONS = {aten.convolution.default, aten.convolution_backward.default}
PRODUCTS = {aten.mm.default, aten.addmm.default}
CONVOLUTIONS_ALONE = "the convolutions alone"
PRODUCTS_ALONE = "the matrix products alone"


@dataclass(frozen=True)
class Like:
    """A tensor's shape and layout, in place of the tensor."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> Like:
        return cls(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, tensor.device)

    def tensor(self) -> Tensor:
        made = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)
        return made.normal_() if self.dtype.is_floating_point else made.zero_()


@dataclass
class Recorder(TorchDispatchMode):
    """Notes the calls of the operators of interest, backward included."""

    calls: list[tuple] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in CONVOLUTIONS or function in PRODUCTS:
            self.calls.append((function, [Like.of(a) if isinstance(a, Tensor) else a for a in args], kwargs))
        return function(*args, **(kwargs or {}))


def recorded(step: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """Runs of the convolutions and of the matrix products of `step` alone, on tensors laid out alike."""
    with Recorder() as recorder:
        step()
    tensors: dict[Like, Tensor] = {}

    def replay(operators: set) -> Callable[[], None]:
        calls = [
            (
                function,
                [tensors.setdefault(a, a.tensor()) if isinstance(a, Like) else a for a in args],
                kwargs or {},
            )
            for function, args, kwargs in recorder.calls
            if function in operators
        ]

        @torch.no_grad()
        def run() -> None:
            for function, args, kwargs in calls:
                function(*args, **kwargs)

        return run

    return {
        CONVOLUTIONS_ALONE: replay(CONVOLUTIONS),
        PRODUCTS_ALONE: replay(PRODUCTS),
    }


def floating_point_operations(step: Callable[[], object]) -> int:
    """Of all convolutions, products and attentions in `step`, counted from their shapes.

    Attention is told to be plain products meanwhile: the counter knows none of a CPU's fused ones.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()
