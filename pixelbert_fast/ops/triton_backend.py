"""The Triton kernels as a backend: tensors in, launches, tensors out. What it defines: :mod:`.backends`.

Triton is imported by the first op that runs. Nothing here waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

AUTOMATIC = ("cuda",)
MOST_PLACES = 1 << 20
"""Places of a grid that one program of `sample_positions` can hold: the most elements of a Triton block."""


def why_not(op: str, device_type: str, dtype: torch.dtype) -> str | None:
    """None where `op` can run on that device type and dtype, otherwise a sentence that says why not."""
    from ..kernels import support

    reason = support.why_not(device_type)
    if reason is None and op == "pixel_embed" and dtype == torch.float64 and device_type == "cuda":
        return "its matrix product is not made for float64 on a GPU; use the reference."
    return reason


def sample_positions(
    valid_grid: Tensor, grid: tuple[int, int], count: int, seed: Tensor, keys: Tensor | None
) -> Tensor:
    from ..kernels.configurations import sampling_configuration
    from ..kernels.sample_positions import sample_positions_kernel

    places = grid[0] * grid[1]
    if places > MOST_PLACES:
        raise ValueError(f"sample_positions: triton holds at most {MOST_PLACES} places, got the grid {grid}")
    rows = valid_grid.shape[0]
    out = torch.empty(rows, count, dtype=torch.int32, device=valid_grid.device)
    if out.numel():
        configuration = sampling_configuration(places)
        with on_device(valid_grid):
            sample_positions_kernel[(rows,)](
                valid_grid,
                keys if keys is not None else valid_grid,
                seed,
                out,
                grid[0],
                max(grid[1], 1),
                count,
                KEYED=keys is not None,
                BLOCK=configuration.blocks[0],
                num_warps=configuration.num_warps,
            )
    return out


def pool_gather_forward(
    features: Tensor,
    positions: Tensor,
    embedding: Tensor | None,
    image_index: Tensor | None,
    save_winners: bool = True,
) -> tuple[Tensor, Tensor]:
    from ..kernels.configurations import run_best
    from ..kernels.pool_gather import pool_gather_forward_kernel

    batch, channels, height, width = features.shape
    rows, count = positions.numel(), positions.shape[1]
    out = features.new_empty(*positions.shape, channels, dtype=stored_type(features))
    shape = out.shape if save_winners else 0
    winners = torch.empty(shape, dtype=torch.uint8, device=features.device)
    if not out.numel():
        return out.to(features.dtype), winners

    def run(configuration) -> None:
        block_rows, block_channels = configuration.blocks
        pool_gather_forward_kernel[(divided(rows, block_rows), divided(channels, block_channels))](
            features,
            positions,
            image_index if image_index is not None else positions,
            embedding.contiguous() if embedding is not None else features,
            out,
            winners,
            rows,
            count,
            channels,
            (height // 2) * (width // 2),
            max(width // 2, 1),
            batch,
            *features.stride(),
            INDEXED=image_index is not None,
            EMBEDDED=embedding is not None,
            SAVE_WINNERS=save_winners,
            WIDE=language_type(wide_type(features.dtype)),
            BLOCK_ROWS=block_rows,
            BLOCK_CHANNELS=block_channels,
            num_warps=configuration.num_warps,
            num_stages=configuration.num_stages,
        )

    variant = "channels_last" if features.stride(1) == 1 else "contiguous"
    with on_device(features):
        run_best("pool_gather_forward", variant, (rows, channels), features.dtype, run)
    return out.to(features.dtype), winners


def pool_gather_backward(
    grad: Tensor,
    winners: Tensor,
    positions: Tensor,
    image_index: Tensor | None,
    shape: tuple[int, int, int, int],
    channels_last: bool,
) -> Tensor:
    from ..kernels.configurations import run_best
    from ..kernels.pool_gather import pool_gather_backward_kernel

    batch, channels, height, width = shape
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty(shape, dtype=stored_type(grad), device=grad.device, memory_format=layout)
    if not out.numel():
        return out.to(grad.dtype)
    readers, starts = readers_by_place(positions, image_index, batch, (height // 2) * (width // 2))
    windows = divided(height, 2) * divided(width, 2)

    def run(configuration) -> None:
        block_windows, block_channels = configuration.blocks
        tiles = divided(windows, block_windows)
        pool_gather_backward_kernel[(batch * tiles, divided(channels, block_channels))](
            grad,
            winners,
            readers,
            starts,
            out,
            channels,
            height,
            width,
            tiles,
            *grad.stride(),
            max(positions.shape[1], 1),
            *out.stride(),
            WIDE=language_type(wide_type(grad.dtype)),
            BLOCK_WINDOWS=block_windows,
            BLOCK_CHANNELS=block_channels,
            num_warps=configuration.num_warps,
            num_stages=configuration.num_stages,
        )

    variant = "channels_last" if channels_last else "contiguous"
    with on_device(grad):
        run_best("pool_gather_backward", variant, (windows, channels), grad.dtype, run)
    return out.to(grad.dtype)


def pixel_embed_forward(
    features: Tensor,
    positions: Tensor,
    weight: Tensor,
    vector: Tensor,
    image_index: Tensor | None,
    order: str,
) -> tuple[Tensor, Tensor]:
    from ..kernels.configurations import run_best
    from ..kernels.pixel_embed import pixel_embed_forward_kernel

    batch, channels, height, width = features.shape
    rows, count, dimensions = positions.numel(), positions.shape[1], weight.shape[0]
    project_first = order == "project_pool"
    out = features.new_empty(*positions.shape, dimensions, dtype=stored_type(features))
    winners = torch.empty(
        *positions.shape, dimensions if project_first else channels, dtype=torch.uint8, device=features.device
    )
    if not out.numel():
        return out.to(features.dtype), winners.zero_()

    def run(configuration) -> None:
        block_rows, block_dimensions, block_channels = configuration.blocks
        pixel_embed_forward_kernel[(divided(rows, block_rows) * divided(dimensions, block_dimensions),)](
            features,
            positions,
            weight,
            vector.contiguous(),
            image_index if image_index is not None else positions,
            out,
            winners,
            rows,
            count,
            channels,
            dimensions,
            (height // 2) * (width // 2),
            max(width // 2, 1),
            batch,
            *features.stride(),
            *weight.stride(),
            INDEXED=image_index is not None,
            PROJECT_FIRST=project_first,
            PRECISION="tf32" if variant == "tf32" else "ieee",
            FACTOR=language_type(stored_type(features)),
            WIDE=language_type(wide_type(features.dtype)),
            BLOCK_ROWS=block_rows,
            BLOCK_DIMENSIONS=block_dimensions,
            BLOCK_CHANNELS=block_channels,
            num_warps=configuration.num_warps,
            num_stages=configuration.num_stages,
        )

    variant = "16-bit" if features.element_size() == 2 else "tf32" if allows_tf32(features) else "32-bit"
    with on_device(features):
        run_best(order, variant, (rows, dimensions, channels), features.dtype, run)
    return out.to(features.dtype), winners


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
    """The saved winners route the gradient; the products are torch's.

    "project_pool": saving a winner costs one byte an output element, written and read once; recomputing it
    another four products, and reading the windows again. The gradient of the projected map is made dense
    first: at [64, 2048, 25, 33] -> 768, K = 100, bfloat16, that moves 675 MB with the two products, where
    gathering the sampled pixels, multiplying and scattering moves 860 MB. It multiplies twice as much with
    one sequence an image, half as much with four. "pool_project": saved winners likewise; the pooled pixels
    are gathered again, because keeping them would hold memory from the forward to the backward.
    """
    batch, channels, height, width = features.shape
    channels_last = features.stride(1) == 1
    nothing = features.new_empty(0)
    if order == "project_pool":
        shape = (batch, weight.shape[0], height, width)
        projected = pool_gather_backward(grad, winners, positions, image_index, shape, channels_last)
        grad_features = grad_weight = nothing
        if wants_features and channels_last:
            grad_features = torch.matmul(projected.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)
        elif wants_features:
            transposed = weight.t().expand(batch, -1, -1)
            grad_features = torch.bmm(transposed, projected.flatten(2)).view(features.shape)
        if wants_weight:
            by_pixel = projected.permute(0, 2, 3, 1).reshape(-1, weight.shape[0])
            grad_weight = by_pixel.t() @ features.permute(0, 2, 3, 1).reshape(-1, channels)
        return grad_features, grad_weight

    exists = has_window(positions, image_index, features)[..., None]
    grad = torch.where(exists, grad, 0)
    grad_features = grad_weight = nothing
    if wants_features:
        pooled_grad = torch.matmul(grad, weight)
        grad_features = pool_gather_backward(
            pooled_grad, winners, positions, image_index, features.shape, channels_last
        )
    if wants_weight:
        pooled, _ = pool_gather_forward(features, positions, None, image_index)
        pooled = torch.where(exists, pooled, 0)
        grad_weight = grad.flatten(0, 1).t() @ pooled.flatten(0, 1)
    return grad_features, grad_weight


def images_of(positions: Tensor, image_index: Tensor | None) -> Tensor:
    """The image each row of `positions` reads, ``[S, 1]`` int64."""
    if image_index is None:
        return torch.arange(positions.shape[0], device=positions.device)[:, None]
    return image_index.long()[:, None]


def has_window(positions: Tensor, image_index: Tensor | None, features: Tensor) -> Tensor:
    """Whether each place exists: neither -1 nor out of range. ``[S, K]`` bool."""
    batch, _, height, width = features.shape
    image = images_of(positions, image_index)
    places = (height // 2) * (width // 2)
    return (positions >= 0) & (positions < places) & (image >= 0) & (image < batch)


def readers_by_place(
    positions: Tensor, image_index: Tensor | None, batch: int, places: int
) -> tuple[Tensor, Tensor]:
    """Rows of the flattened ``[S, K]`` by the place they read, and where the list of each place begins.

    A stable sort, so that a list is in the order of the rows and its sum always the same. Rows without a
    place come last, in no list.
    """
    image = images_of(positions, image_index)
    exists = (positions >= 0) & (positions < places) & (image >= 0) & (image < batch)
    key = torch.where(exists, image * places + positions, batch * places).flatten()
    key, readers = key.sort(stable=True)
    slots = torch.arange(batch * places + 1, device=positions.device)
    return readers, torch.searchsorted(key, slots)


def allows_tf32(features: Tensor) -> bool:
    """Whether torch's own setting lets float32 products on this device round their factors to tf32."""
    # Not `allow_tf32`, which raises once this newer name of the setting has been used.
    allowed = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return features.dtype == torch.float32 and features.is_cuda and allowed


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """The type sums are taken in: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def stored_type(tensor: Tensor) -> torch.dtype:
    """The type in which a kernel multiplies and stores: the tensor's own, but float32 for bfloat16 on a CPU.

    Triton's interpreter cuts float32 to bfloat16 without rounding and multiplies its bits as integers.
    """
    interpreted = tensor.device.type == "cpu"
    return torch.float32 if interpreted and tensor.dtype == torch.bfloat16 else tensor.dtype


def language_type(dtype: torch.dtype):
    """Triton's name for a floating type."""
    import triton.language as tl

    return getattr(tl, str(dtype).removeprefix("torch."))


def divided(size: int, block: int) -> int:
    """`size` over `block`, rounded up."""
    return -(-size // block)


def on_device(tensor: Tensor):
    """Makes the tensor's GPU the current one, which Triton launches on; does nothing for a CPU."""
    return torch.cuda.device_of(tensor)
