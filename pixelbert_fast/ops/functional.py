"""The public ops: arguments are checked here, then a backend computes.

Every op has a plain PyTorch twin in ``*_reference.py`` with the same arguments, which decides what is
right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backends, registered
from .arguments import (
    FLOATS,
    INTEGERS,
    MOST,
    as_int32,
    described,
    is_size,
    require_gather_arguments,
    require_grid,
    require_range,
    require_same_device,
    require_tensor,
    require_vector,
    shown,
)
from .pixel_embed_reference import pixel_embed_reference
from .pool_gather_reference import pool_gather_reference
from .sample_positions_reference import signed_64

ORDERS = ("project_pool", "pool_project")


def sample_positions(
    valid_grid: Tensor,
    grid: tuple[int, int],
    count: int,
    *,
    seed: int | Tensor,
    keys: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Draws places of a grid, uniformly and without replacement, the same on every device and backend.

    Args:
        valid_grid: ``[N, 2]`` integers, how many rows and columns of the grid belong to each image.
        grid: ``(h, w)`` of the padded grid that places are numbered in: place = ``row * w + column``.
        count: how many places to draw for each row.
        seed: an int, or a 0-d int64 tensor.
        keys: ``[N]`` integers that identify each draw, by default ``0 .. N - 1``. A row's places depend on
            `seed`, its key and its valid grid alone; `grid` only numbers them, other rows do not count.
        backend: the implementation by name; None chooses.

    Returns:
        ``[N, count]`` int32, ascending, -1 at the end where an image has fewer valid places than `count`.

    The `count` places with the smallest words of Philox 4x32-10 win (equal words: the lower place). Key
    words: seed low, seed high; counter: row, column, key low, key high; first output word.

    Raises:
        TypeError, ValueError, IndexError: a wrong argument, named in the message.
    """
    op = "sample_positions"
    backends.require_name(op, backend)
    require_tensor(op, "valid_grid", valid_grid, 2, INTEGERS, "[N, 2]")
    if valid_grid.shape[1] != 2:
        raise ValueError(f"{op}: valid_grid must be [N, 2] (rows, columns), got {described(valid_grid)}")
    require_grid(op, grid)
    if not is_size(count):
        raise ValueError(f"{op}: count must be an integer of 0 .. {MOST}, got {shown(count)}")
    if isinstance(seed, Tensor):
        require_tensor(op, "seed", seed, 0, (torch.int64,), "of no dimension (or an int)")
        if seed.is_meta and not valid_grid.is_meta:
            raise ValueError(f"{op}: seed must have a value, got {described(seed)}")
    elif isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"{op}: seed must be an int or a 0-d int64 tensor, got {described(seed)}")
    if keys is not None:
        require_tensor(op, "keys", keys, 1, INTEGERS, "[N]")
        if keys.shape[0] != valid_grid.shape[0]:
            raise ValueError(
                f"{op}: keys must have one entry for each of the {valid_grid.shape[0]} rows of valid_grid, "
                f"got {described(keys)}"
            )
        require_same_device(op, "valid_grid", valid_grid, keys=keys)
    require_range(op, "valid_grid rows", valid_grid[:, 0], 0, grid[0] + 1, f"grid is {grid[0]} x {grid[1]}")
    require_range(
        op, "valid_grid columns", valid_grid[:, 1], 0, grid[1] + 1, f"grid is {grid[0]} x {grid[1]}"
    )
    device = valid_grid.device
    name = backends.choose(op, backend, device.type, torch.int32)
    seed = seed.to(device) if isinstance(seed, Tensor) else torch.full((), signed_64(seed), device=device)
    if keys is None:
        keys = torch.arange(valid_grid.shape[0], device=device)
    keys = keys.to(torch.int64).contiguous()
    return registered.sample_positions(as_int32(valid_grid), *grid, count, seed, keys, name)


def pool_gather(
    features: Tensor,
    positions: Tensor,
    embedding: Tensor | None = None,
    *,
    image_index: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """2x2 maximum at each place, plus the type embedding.

    Args:
        features: ``[B, C, H, W]`` backbone map, either memory format. The pooled grid is ``H // 2`` by
            ``W // 2``; an odd last row or column is dropped.
        positions: ``[S, K]`` integers, ``row * (W // 2) + column``; -1 for none.
        embedding: ``[C]`` added to each pixel, or None.
        image_index: ``[S]`` integers, the image each row of `positions` reads; None: row s reads image s.
        backend: the implementation by name; None chooses.

    Returns:
        ``[S, K, C]`` in the dtype of `features`; zeros where the place is -1. As ``max_pool2d``, the first
        maximum of a window in row-major order takes the gradient and NaN propagates.

    Raises:
        TypeError, ValueError: a wrong argument, named in the message.
        IndexError: a place or image out of range (on a GPU only with ``PIXELBERT_FAST_CHECK=1``, in a
            compiled graph never; such a row comes out NaN there).
    """
    op = "pool_gather"
    backends.require_name(op, backend)
    require_gather_arguments(op, features, positions, image_index)
    require_vector(op, "embedding", embedding, features.shape[1], features)
    name = backends.choose(op, backend, features.device.type, features.dtype)
    if name == backends.REFERENCE:
        backends.note(op, name)
        return pool_gather_reference(features, positions, embedding, image_index=image_index)
    save_winners = torch.is_grad_enabled() and features.requires_grad
    return registered.pool_gather(
        features, as_int32(positions), embedding, as_int32(image_index), save_winners, name
    )[0]


def pixel_embed(
    features: Tensor,
    positions: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    embedding: Tensor,
    *,
    image_index: Tensor | None = None,
    order: str = "project_pool",
    backend: str | None = None,
) -> Tensor:
    """Projection, 2x2 maximum, pick and type embedding: a backbone map becomes tokens (Pixel-BERT, Fig. 2).

    Args:
        features: ``[B, C, H, W]`` backbone map, either memory format.
        positions: ``[S, K]`` integers, see :func:`pool_gather`.
        weight: ``[D, C]`` projection, in the dtype of `features` (any under autocast).
        bias: ``[D]`` or None.
        embedding: ``[D]`` type embedding shared by all pixels. Bias and it are added after the maximum.
        image_index: ``[S]`` integers or None, see :func:`pool_gather`.
        order: "project_pool" takes the maximum over the four projected pixels (the paper); "pool_project"
            projects the pooled pixel.
        backend: the implementation by name; None chooses.

    Returns:
        ``[S, K, D]`` in the dtype of `features`; zeros where the place is -1.

    Raises:
        TypeError, ValueError, IndexError: as :func:`pool_gather`.
    """
    op = "pixel_embed"
    backends.require_name(op, backend)
    require_gather_arguments(op, features, positions, image_index)
    require_tensor(op, "weight", weight, 2, FLOATS, "[D, C]")
    if weight.shape[1] != features.shape[1]:
        raise ValueError(f"{op}: weight must be [D, {features.shape[1]}], got {described(weight)}")
    # Autocast knows no meta tensors, and raises when asked.
    autocast = not features.is_meta and torch.is_autocast_enabled(features.device.type)
    if weight.dtype != features.dtype and not autocast:
        raise TypeError(
            f"{op}: weight must be of the dtype of features, {described(features)} (or under autocast), "
            f"got {described(weight)}"
        )
    require_same_device(op, "features", features, weight=weight)
    require_tensor(op, "embedding", embedding, 1, FLOATS, f"[{weight.shape[0]}]")
    require_vector(op, "bias", bias, weight.shape[0], features)
    require_vector(op, "embedding", embedding, weight.shape[0], features)
    if not isinstance(order, str) or order not in ORDERS:
        raise ValueError(f"{op}: order must be one of {', '.join(ORDERS)}, got {shown(order)}")
    device_type, dtype = features.device.type, features.dtype
    if autocast and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device_type)
    name = backends.choose(op, backend, device_type, dtype)
    if name == backends.REFERENCE:
        backends.note(op, name)
        return pixel_embed_reference(
            features, positions, weight, bias, embedding, image_index=image_index, order=order
        )
    pixels, _ = registered.pixel_embed(
        features.to(dtype),
        as_int32(positions),
        weight.to(dtype),
        embedding if bias is None else embedding + bias,
        as_int32(image_index),
        order,
        name,
    )
    # Under autocast the reference's convolution decides the dtype, and its product of pooled pixels does not.
    return pixels if order == "project_pool" else pixels.to(features.dtype)
