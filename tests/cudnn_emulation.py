"""cuDNN's fused convolutions on a CPU, so that the code around them runs without a GPU.

PyTorch's own schema stays; only the kernels are here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

LAST = torch.channels_last


def convolved(x, weight, bias, stride, padding, dilation, groups):
    """The map before its ReLU, in the layout that cuDNN's has, from operands that cuDNN takes."""
    assert x.dtype == weight.dtype == bias.dtype and bias.dim() == 1 and bias.is_contiguous()
    assert weight.shape[:2] == (len(bias), x.shape[1] // groups)
    out = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    last = any(t.is_contiguous(memory_format=LAST) and not t.is_contiguous() for t in (x, weight))
    return out.contiguous(memory_format=LAST if last else torch.contiguous_format)


@contextmanager
def emulated_cudnn() -> Iterator[list[str]]:
    """Inside, both operators run on CPU tensors; yields the names of those that ran."""
    ran: list[str] = []

    def relu(x, weight, bias, *geometry):
        ran.append("relu")
        return convolved(x, weight, bias, *geometry).relu()

    def add_relu(x, weight, residual, alpha, bias, *geometry):
        ran.append("add_relu")
        out = convolved(x, weight, bias, *geometry)
        assert residual.dtype == x.dtype and residual.shape == out.shape and alpha == 1
        return (out + residual).relu()

    library = torch.library.Library("aten", "IMPL")
    try:
        library.impl("cudnn_convolution_relu", relu, "CPU")
        library.impl("cudnn_convolution_add_relu", add_relu, "CPU")
        yield ran
    finally:
        library._destroy()
