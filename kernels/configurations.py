"""Block sizes of every kernel: stored defaults, and the candidates of a search that runs only when asked for.

A variant is what changes how a kernel reads memory: the memory format for the kernels that gather; for
the ones that multiply, their factors: of 16 bits, of 32 in full ("32-bit"), or rounded to tf32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

SMALLEST_DOT = 16
"""No side of a block of `tl.dot` may be shorter."""


@dataclass(frozen=True)
class Configuration:
    """Block sizes in the order (rows or windows, dimensions if any, channels), and how a program is run."""

    blocks: tuple[int, ...]
    num_warps: int = 4
    num_stages: int = 2

    def fitted(self, sizes: tuple[int, ...], smallest: int) -> Configuration:
        """Blocks no longer than the power of two that covers each of `sizes`."""
        return replace(
            self,
            blocks=tuple(
                min(block, max(smallest, power_of_two(size)))
                for block, size in zip(self.blocks, sizes, strict=True)
            ),
        )


# Keyed by kernel and variant; the first of each is the default. They were chosen by registers, shared memory
# and bytes in flight (docs/results/kernels-static.md), not by time on a device. channels_last: few rows with
# long runs of channels. contiguous: neighbouring windows share cache lines, channels do not.
CONFIGURATIONS: dict[tuple[str, str], tuple[Configuration, ...]] = {
    ("pool_gather_forward", "channels_last"): (
        Configuration((2, 512)),
        Configuration((1, 1024)),
        Configuration((4, 256)),
        Configuration((4, 512)),
        Configuration((1, 2048), num_warps=8),
    ),
    ("pool_gather_forward", "contiguous"): (
        Configuration((64, 16)),
        Configuration((32, 16)),
        Configuration((128, 8)),
        Configuration((32, 32)),
    ),
    ("pool_gather_backward", "channels_last"): (
        Configuration((2, 512)),
        Configuration((1, 512)),
        Configuration((1, 1024)),
        Configuration((4, 256)),
        Configuration((1, 2048), num_warps=8),
    ),
    ("pool_gather_backward", "contiguous"): (
        Configuration((64, 16)),
        Configuration((32, 16)),
        Configuration((128, 8)),
        Configuration((32, 32)),
    ),
    # Four accumulators of rows x dimensions float32: 64 x 128 is 128 registers a thread at 8 warps.
    ("project_pool", "16-bit"): (
        Configuration((64, 128, 32), num_warps=8, num_stages=3),
        Configuration((64, 64, 32), num_warps=4, num_stages=3),
        Configuration((64, 128, 64), num_warps=8, num_stages=3),
        Configuration((64, 64, 32), num_warps=4, num_stages=4),
    ),
    ("project_pool", "32-bit"): (
        Configuration((32, 32, 32), num_warps=4, num_stages=2),
        Configuration((64, 32, 32), num_warps=4, num_stages=2),
        Configuration((64, 64, 32), num_warps=8, num_stages=2),
    ),
    ("project_pool", "tf32"): (
        Configuration((64, 64, 32), num_warps=8, num_stages=2),
        Configuration((64, 32, 32), num_warps=4, num_stages=2),
        Configuration((32, 32, 32), num_warps=4, num_stages=2),
    ),
    ("pool_project", "16-bit"): (
        Configuration((64, 128, 32), num_warps=8, num_stages=3),
        Configuration((64, 256, 32), num_warps=8, num_stages=3),
        Configuration((32, 128, 64), num_warps=8, num_stages=3),
    ),
    ("pool_project", "32-bit"): (
        Configuration((32, 32, 32), num_warps=4, num_stages=2),
        Configuration((32, 64, 32), num_warps=8, num_stages=2),
        Configuration((16, 64, 32), num_warps=4, num_stages=2),
    ),
    ("pool_project", "tf32"): (
        Configuration((64, 64, 32), num_warps=8, num_stages=2),
        Configuration((32, 64, 32), num_warps=4, num_stages=2),
        Configuration((32, 32, 32), num_warps=4, num_stages=2),
    ),
}

_searching: ContextVar[bool] = ContextVar("pixelbert_fast_kernel_search", default=False)
_found: dict[tuple, Configuration] = {}


@contextmanager
def searching() -> Iterator[None]:
    """Kernels launched inside time every candidate at the first call of a shape and keep the fastest."""
    token = _searching.set(True)
    try:
        yield
    finally:
        _searching.reset(token)


def candidates(kernel: str, variant: str, sizes: tuple[int, ...]) -> list[Configuration]:
    """The distinct configurations for those sizes, the default first."""
    smallest = SMALLEST_DOT if kernel in ("project_pool", "pool_project") else 1
    fitted = (one.fitted(sizes, smallest) for one in CONFIGURATIONS[kernel, variant])
    return list(dict.fromkeys(fitted))


def run_best(
    kernel: str, variant: str, sizes: tuple[int, ...], dtype: object, run: Callable[[Configuration], None]
) -> None:
    """Launch by `run` with the default, or with the fastest candidate where a search was asked for.

    `run` must write the same whatever the configuration: a search launches it many times.
    """
    options = candidates(kernel, variant, sizes)
    key = (kernel, variant, sizes, dtype)
    if _searching.get() and key not in _found:
        _found[key] = fastest(options, run)
    run(_found.get(key, options[0]))


def fastest(options: list[Configuration], run: Callable[[Configuration], None]) -> Configuration:
    """The configuration of the lowest median time; one that the device has no room for is passed over."""
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    times = {}
    for option in options:
        try:
            times[option] = do_bench(lambda option=option: run(option), return_mode="median")
        except OutOfResources:
            continue
    return min(times, key=times.__getitem__) if times else options[0]


def sampling_configuration(places: int) -> Configuration:
    """`sample_positions`: one block that covers the grid, 16 of its places a thread while there are warps."""
    block = max(power_of_two(places), 16)
    return Configuration((block,), num_warps=min(max(block // 512, 1), 16))


def power_of_two(size: int) -> int:
    """The smallest power of two of at least `size`, and at least 1."""
    return 1 << max(size - 1, 0).bit_length()
