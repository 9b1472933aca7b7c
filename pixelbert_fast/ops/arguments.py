"""Checks of the ops' arguments: one sentence with the argument, what was expected and what came.

Ranks, shapes, dtypes and devices are checked everywhere. Values are read only on a CPU, where that
costs no synchronisation, or on any device when ``PIXELBERT_FAST_CHECK=1``; in a compiled graph never.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..environment import CHECK

INTEGERS = (torch.int32, torch.int64, torch.int16, torch.int8, torch.uint8)
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MOST = 2**31 - 1
"""The most places of a grid and the largest count: kernels number both in int32."""


def shown(value: object) -> str:
    """`value` in one line of at most 80 characters, whatever it is."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python refuses to write out an integer of thousands of digits
        return "a number too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."


def described(value: object) -> str:
    """A tensor as ``float32 [2, 3] on cpu``; anything else by its type."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} on {value.device}"
    return f"{type(value).__name__} {shown(value)}"


def require_tensor(op: str, name: str, value: object, rank: int, dtypes: tuple, expected: str) -> Tensor:
    """`value` when it is a strided tensor of that rank and one of those dtypes.

    Raises:
        TypeError: it is no tensor, or its dtype is not among `dtypes`.
        ValueError: its rank differs, or its layout is not strided.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor {expected}, got {described(value)}")
    if value.layout is not torch.strided:
        raise ValueError(f"{op}: {name} must be a strided tensor {expected}, got layout {value.layout}")
    if value.dim() != rank:
        raise ValueError(f"{op}: {name} must be {expected}, got {described(value)}")
    if value.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{op}: {name} must be one of {names}, got {described(value)}")
    return value


def require_same_device(op: str, first_name: str, first: Tensor, **others: Tensor | None) -> None:
    """Raises ValueError when a tensor lies on another device than `first`."""
    for name, other in others.items():
        if other is not None and other.device != first.device:
            raise ValueError(
                f"{op}: {name} must be on {first.device} like {first_name}, got {described(other)}"
            )


def reads_values(tensor: Tensor) -> bool:
    """Whether values of `tensor` may be looked at: always on a CPU, on request elsewhere.

    Never while a graph is compiled: looking would break it. A meta tensor has none.
    """
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    return tensor.device.type == "cpu" or CHECK.read() == "1"


def is_size(value: object) -> bool:
    """Whether `value` is an integer of ``0 .. MOST``."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def require_grid(op: str, grid: object) -> None:
    """Raises ValueError when `grid` is not two sizes, or numbers more places than int32 holds."""
    sides = grid if isinstance(grid, (tuple, list)) else ()
    if len(sides) != 2 or not all(map(is_size, sides)):
        raise ValueError(f"{op}: grid must be two integers (h, w) of 0 .. {MOST}, got {shown(grid)}")
    if sides[0] * sides[1] > MOST:
        raise ValueError(f"{op}: grid must have at most {MOST} places, got {shown(grid)}")


def as_int32(value: Tensor | None) -> Tensor | None:
    """`value` as contiguous int32, what the kernels take; a number beyond int32 stays out of every range."""
    if value is None:
        return None
    if value.dtype == torch.int64:
        value = value.clamp(-2, 2**31 - 1)
    return value.to(torch.int32).contiguous()


def require_range(op: str, name: str, value: Tensor, low: int, high: int, meaning: str) -> None:
    """Raises IndexError when an element of `value` lies outside ``low .. high - 1``."""
    if value.numel() == 0 or not reads_values(value):
        return
    smallest, largest = (int(bound) for bound in torch.aminmax(value))
    if smallest < low or largest >= high:
        wrong = smallest if smallest < low else largest
        raise IndexError(f"{op}: {name} must lie in {low} .. {high - 1} ({meaning}), got {wrong}")


def require_gather_arguments(
    op: str, features: Tensor, positions: Tensor, image_index: Tensor | None
) -> tuple[int, int]:
    """Checks what `pool_gather` and `pixel_embed` share and returns the pooled grid ``(h, w)``."""
    require_tensor(op, "features", features, 4, FLOATS, "[B, C, H, W]")
    require_tensor(op, "positions", positions, 2, INTEGERS, "[S, K]")
    if image_index is not None:
        require_tensor(op, "image_index", image_index, 1, INTEGERS, "[S]")
    require_same_device(op, "features", features, positions=positions, image_index=image_index)
    batch, _, height, width = features.shape
    if image_index is None:
        if positions.shape[0] != batch:
            raise ValueError(
                f"{op}: positions must have a row for each of the {batch} images when image_index is None, "
                f"got {described(positions)}"
            )
    else:
        if image_index.shape[0] != positions.shape[0]:
            raise ValueError(
                f"{op}: image_index must have one entry for each of {positions.shape[0]} rows of positions, "
                f"got {described(image_index)}"
            )
        require_range(op, "image_index", image_index, 0, batch, f"features holds {batch} images")
    grid = (height // 2, width // 2)
    require_range(
        op,
        "positions",
        positions,
        -1,
        grid[0] * grid[1],
        f"a pooled grid of {grid[0]} x {grid[1]}, -1 for none",
    )
    return grid


def require_vector(op: str, name: str, value: Tensor | None, length: int, features: Tensor) -> None:
    """Checks an optional vector such as the type embedding or the bias."""
    if value is None:
        return
    require_tensor(op, name, value, 1, FLOATS, f"[{length}]")
    if value.shape[0] != length:
        raise ValueError(f"{op}: {name} must be [{length}], got {described(value)}")
    require_same_device(op, "features", features, **{name: value})
