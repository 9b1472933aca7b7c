"""The `cpu` backend: C++ kernels for CPU tensors, in a library that an installation has built."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..environment import BUILD
from .arguments import FLOATS

AUTOMATIC = ("cpu",)
LIBRARIES = "_C.*"


def why_not(op: str, device_type: str, dtype: torch.dtype) -> str | None:
    """See `backends`."""
    if device_type != "cpu":
        return f"it takes CPU tensors, and these are on {device_type}."
    if op == "pixel_embed":
        return "it has no kernel of its own for pixel_embed."
    if op == "pool_gather" and dtype not in FLOATS:
        return f"it has no kernel for {dtype}."
    return why_not_loaded()


@cache
def why_not_loaded() -> str | None:
    """Load the library, once; None where that worked."""
    libraries = sorted(Path(__file__).resolve().parent.parent.glob(LIBRARIES))
    libraries = [path for path in libraries if path.suffix in (".so", ".dylib", ".pyd")]
    if not libraries:
        return f"the C++ library was not built; install again with {BUILD.name}=force to see why not."
    try:
        torch.ops.load_library(libraries[0])
    except OSError as error:
        return f"{libraries[0].name} does not load into torch {torch.__version__}: {error}"
    return None


def pool_gather_forward(
    features: Tensor,
    positions: Tensor,
    embedding: Tensor | None,
    image_index: Tensor | None,
    save_winners: bool = True,
) -> tuple[Tensor, Tensor]:
    """See `backends`."""
    shape = (*positions.shape, features.shape[1])
    out = features.new_empty(shape)
    winners = features.new_empty(shape if save_winners else 0, dtype=torch.uint8)
    if embedding is not None:
        wide = torch.float64 if features.dtype == torch.float64 else torch.float32
        embedding = embedding.to(wide).contiguous()
    native = torch.ops.pixelbert_fast_native
    native.pool_gather_forward(
        features, positions, embedding, image_index, out, winners if save_winners else None
    )
    return out, winners


def pool_gather_backward(
    grad: Tensor,
    winners: Tensor,
    positions: Tensor,
    image_index: Tensor | None,
    shape: list[int],
    channels_last: bool,
) -> Tensor:
    """See `backends`."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    grad_features = torch.empty(shape, dtype=grad.dtype, memory_format=layout)
    native = torch.ops.pixelbert_fast_native
    native.pool_gather_backward(grad.contiguous(), winners, positions, image_index, grad_features)
    return grad_features


def sum_rows(rows: Tensor, positions: Tensor, image_index: Tensor | None, batch: int, places: int) -> Tensor:
    """See `backends`."""
    out = torch.empty(rows.shape[2], dtype=torch.float64)
    native = torch.ops.pixelbert_fast_native
    native.sum_rows(rows.contiguous(), positions, image_index, batch, places, out)
    return out


def sample_positions(
    valid_grid: Tensor, grid: tuple[int, int], count: int, seed: Tensor, keys: Tensor
) -> Tensor:
    """See `backends`."""
    out = torch.empty(valid_grid.shape[0], count, dtype=torch.int32)
    torch.ops.pixelbert_fast_native.sample_positions(valid_grid, seed, keys, *grid, out)
    return out
