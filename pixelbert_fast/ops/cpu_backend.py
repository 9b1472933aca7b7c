"""The `cpu` backend: C++ kernels for CPU tensors, in a library that an installation has built."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .. import _build
from ..environment import BUILD
from .arguments import FLOATS
from .native_calls import pool_gather_backward, pool_gather_forward, sample_positions

__all__ = [
    "pixel_embed_backward",
    "pixel_embed_forward",
    "pool_gather_backward",
    "pool_gather_forward",
    "sample_positions",
]

AUTOMATIC = ("cpu",)
LIBRARIES = "_C.*"
PACKAGE = Path(__file__).resolve().parent.parent
NEWEST = "resize_picture"
"""The operator that was added last: a library without it was built before."""


def why_not(op: str, device_type: str, dtype: torch.dtype) -> str | None:
    """See `backends`."""
    if device_type != "cpu":
        return f"it takes CPU tensors, and these are on {device_type}."
    if op != "sample_positions" and dtype not in FLOATS:
        return f"it has no kernel for {dtype}."
    return why_not_loaded()


@cache
def why_not_loaded() -> str | None:
    """Load the library, once; None where that worked."""
    path = library()
    if path is None:
        reason = _build.why_not_built(PACKAGE, "cpu")
        return f"the C++ library was not built ({reason}); install again with {BUILD.name}=force."
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f"{path.name} does not load into torch {torch.__version__}: {error}"
    if not hasattr(torch.ops.pixelbert_fast_native, NEWEST):
        return f"{path.name} was built from older sources; build it again, with `make setup` in a checkout."
    return None


def library() -> Path | None:
    """The library that an installation has built; None where it has built none."""
    found = sorted(PACKAGE.glob(LIBRARIES))
    return next((path for path in found if path.suffix in (".so", ".dylib", ".pyd")), None)


def pixel_embed_forward(
    features: Tensor,
    positions: Tensor,
    weight: Tensor,
    vector: Tensor,
    image_index: Tensor | None,
    order: str,
) -> tuple[Tensor, Tensor]:
    """See `backends`. The products are PyTorch's, over the windows that are read, each window once."""
    dimensions, channels = weight.shape
    project_first = order == "project_pool"
    out = features.new_empty(*positions.shape, dimensions)
    winners = out.new_empty(*positions.shape, dimensions if project_first else channels, dtype=torch.uint8)
    vector = vector.to(torch.promote_types(features.dtype, torch.float32)).contiguous()
    native = torch.ops.pixelbert_fast_native
    native.pixel_embed_forward(
        features, positions, as_factor(weight), vector, image_index, project_first, out, winners
    )
    return out, winners


def pixel_embed_backward(
    grad: Tensor,
    winners: Tensor,
    features: Tensor,
    positions: Tensor,
    weight: Tensor,
    image_index: Tensor | None,
    order: str,
    wants_features: bool,
    wants_weight: bool,
) -> tuple[Tensor, Tensor]:
    """See `backends`."""
    layout = torch.channels_last if features.stride(1) == 1 else torch.contiguous_format
    grad_features = grad_weight = None
    if wants_features:
        grad_features = torch.empty(features.shape, dtype=features.dtype, memory_format=layout)
    if wants_weight:
        grad_weight = torch.empty(weight.shape, dtype=weight.dtype)
    torch.ops.pixelbert_fast_native.pixel_embed_backward(
        grad.contiguous(),
        winners,
        features,
        positions,
        as_factor(weight),
        image_index,
        order == "project_pool",
        grad_features,
        grad_weight,
    )
    nothing = features.new_empty(0)
    return grad_features if wants_features else nothing, grad_weight if wants_weight else nothing


def as_factor(weight: Tensor) -> Tensor:
    """`weight` for many products: detached, and copied here where each of them would copy it."""
    return weight.detach() if 1 in weight.stride() else weight.detach().contiguous()


def sum_rows(rows: Tensor, positions: Tensor, image_index: Tensor | None, batch: int, places: int) -> Tensor:
    """See `backends`."""
    out = torch.empty(rows.shape[2], dtype=torch.float64)
    native = torch.ops.pixelbert_fast_native
    native.sum_rows(rows.contiguous(), positions, image_index, batch, places, out)
    return out
