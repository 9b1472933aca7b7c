"""What `selftest` calls each op with: inputs whose right answer leaves no room for doubt.

Values are drawn on the CPU from the case alone, so every device gets the same ones. Of each kind:

- "ties": small integers, many of them equal. Every sum is an integer that each dtype holds, so that any
  backend has to give the right answer exactly, the first of equal maxima included.
- "special" (`pool_gather` only): NaN, infinities and zeros of both signs among ordinary numbers; an op that
  selects gives these exactly as well.
- "crowded" (`pool_gather` only): as "ties", but 300 rows read one window; a sum of 16 bits stops at 256.
- "separated": positive numbers, the pixels of a window far apart, so that rounding cannot make another pixel
  win; here backends may differ by roundings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from . import backends
from .arguments import FLOATS
from .functional import ORDERS, pixel_embed, pool_gather, sample_positions
from .known_places import KNOWN_PLACES

LAYOUTS = ("contiguous", "channels_last", "sliced")
SPECIALS = (math.nan, -math.nan, math.inf, -math.inf, -0.0, 0.0)


@dataclass(frozen=True)
class MapCase:
    """A call of `pool_gather`, or with `dimensions` and `order` of `pixel_embed`, and its gradients."""

    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    layout: str
    kind: str
    indexed: bool = True
    """Five sequences read the images in no order, else each image is read by one."""
    dimensions: int | None = None
    order: str | None = None

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        order = f", {self.order} to {self.dimensions}" if self.order else ""
        return f"features {list(self.shape)} {dtype} {self.layout}{order}, {self.kind}"

    @property
    def op(self) -> str:
        return "pool_gather" if self.order is None else "pixel_embed"

    @property
    def exact(self) -> bool:
        """Whether every backend has to give the same bits."""
        return self.kind != "separated"

    @property
    def terms(self) -> int:
        """The most numbers that any value of output or gradients is a sum of."""
        return max(self.shape[1], self.dimensions or 0, 45)  # 45 rows at most share a place

    def inputs(
        self, device: torch.device | str, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor | None]:
        """The op's tensors and the gradient of its output, rounded to the case's dtype, given as `dtype`."""
        batch, channels, height, width = self.shape
        source = torch.Generator().manual_seed(sum(self.shape) + 7 * (self.dimensions or 0))
        places = (height // 2) * (width // 2)
        crowded = self.kind == "crowded"
        sequences, count = (3, 100) if crowded else (5 if self.indexed else batch, 9)
        out_channels = self.dimensions or channels
        drawn = {
            "features": self._map_values(source),
            "grad": self._values((sequences, count, out_channels), source),
        }
        if self.order is not None:
            drawn["weight"] = self._values((out_channels, channels), source)
            drawn["bias"] = self._values((out_channels,), source)
        if self.order is not None or self.kind != "special":
            drawn["embedding"] = self._values((out_channels,), source)
        tensors: dict[str, Tensor | None] = {
            name: values.to(self.dtype).to(device, dtype or self.dtype) for name, values in drawn.items()
        }
        tensors["features"] = in_layout(tensors["features"], self.layout)
        positions = torch.randint(-1, places, (sequences, count), generator=source, dtype=torch.int32)
        if crowded:
            tensors["grad"].fill_(1)
            positions.zero_()
        tensors["positions"] = positions.to(device)
        # Of three images or more nobody reads the last.
        order = (batch - 1 - (batch > 2) - torch.arange(sequences)) % max(batch - (batch > 2), 1)
        tensors["image_index"] = order.to(device) if self.indexed else None
        return tensors

    def run(
        self, backend: str, device: torch.device | str, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Output with and without gradients, and the gradients, by name, on the CPU."""
        given = self.inputs(device, dtype)
        grad = given.pop("grad")
        leaves = [name for name, value in given.items() if value is not None and value.is_floating_point()]
        for name in leaves:
            given[name] = given[name].requires_grad_()
        # Where no gradient is wanted a backend may go another way.
        with torch.no_grad():
            plain = self._call(given, backend)
        out = self._call(given, backend)
        out.backward(grad)
        found = {"output": out.detach(), "output without gradients": plain} | {
            f"gradient of {name}": given[name].grad for name in leaves
        }
        return {name: value.cpu() for name, value in found.items()}

    def _call(self, given: dict[str, Tensor | None], backend: str) -> Tensor:
        if self.order is None:
            return pool_gather(**given, backend=backend)
        return pixel_embed(**given, order=self.order, backend=backend)

    def truth(self) -> dict[str, Tensor]:
        """What is right: the reference in float64, on the CPU."""
        return self.run(backends.REFERENCE, "cpu", torch.float64)

    def rounded(self) -> dict[str, Tensor]:
        """What PyTorch makes of it in the case's own dtype, on the CPU."""
        return self.run(backends.REFERENCE, "cpu")

    def _values(self, shape: tuple[int, ...], source: torch.Generator) -> Tensor:
        if self.kind == "separated":
            return torch.rand(shape, generator=source, dtype=torch.float64) + 0.5
        return torch.randint(-1, 2, shape, generator=source).to(torch.float64)

    def _map_values(self, source: torch.Generator) -> Tensor:
        values = self._values(self.shape, source)
        if self.kind == "special":
            values = torch.randn(self.shape, generator=source, dtype=torch.float64)
            choice = torch.randint(0, 2 * len(SPECIALS), self.shape, generator=source)
            for number, special in enumerate(SPECIALS):
                values = torch.where(choice == number, special, values)
        if self.kind != "separated":
            return values
        # Factors of 4 between the pixels of a window outweigh the factor of 3 between 0.5 and 1.5.
        _, _, height, width = self.shape
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
        rank = (rows % 2 * 2 + columns % 2 + rows // 2 + columns // 2) % 4
        return values * 4.0 ** (rank - 2)


@dataclass(frozen=True)
class DrawCase:
    """A call of `sample_positions`: a stored answer, or images of every size against the reference."""

    grid: tuple[int, int]
    count: int
    seed: int
    valid: tuple[tuple[int, int], ...]
    keys: tuple[int, ...]
    places: tuple[int, ...] | None = None

    op = "sample_positions"
    dtype = torch.int32
    exact = True
    terms = 1

    def __str__(self) -> str:
        stored = "a stored answer" if self.places is not None else f"{len(self.valid)} images"
        return f"{self.count} of a grid of {self.grid[0]} x {self.grid[1]}, seed {self.seed}, {stored}"

    def run(self, backend: str, device: torch.device | str) -> dict[str, Tensor]:
        """The places drawn, on the CPU."""
        valid = torch.tensor(self.valid, dtype=torch.int32, device=device).view(-1, 2)
        keys = torch.tensor(self.keys, dtype=torch.int64, device=device)
        drawn = sample_positions(valid, self.grid, self.count, seed=self.seed, keys=keys, backend=backend)
        return {"output": drawn.cpu()}

    def truth(self) -> dict[str, Tensor]:
        """The stored answer where there is one, else what the reference draws on the CPU."""
        if self.places is not None:
            return {"output": torch.tensor([self.places], dtype=torch.int32)}
        return self.run(backends.REFERENCE, "cpu")

    def rounded(self) -> dict[str, Tensor]:
        return self.truth()


Case = MapCase | DrawCase


def in_layout(values: Tensor, layout: str) -> Tensor:
    """`values` ``[B, C, H, W]`` in a memory layout; "sliced" is a part of a larger map filled with NaN."""
    if layout == "contiguous":
        return values.contiguous()
    if layout == "channels_last":
        return values.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = values.shape
    larger = values.new_full((batch, channels + 3, height + 2, width + 1), math.nan)
    return larger[:, 2:-1, 1:-1, :-1].copy_(values)


def cases(op: str, *, small: bool = False) -> list[Case]:
    """The cases of `op`, the plainest of each dtype first; `small` ones where a backend is interpreted."""
    if op == "sample_positions":
        return list(_draws(4 if small else 40))
    return list(_pool_gather_cases(small) if op == "pool_gather" else _pixel_embed_cases(small))


def _draws(rows: int) -> Iterator[DrawCase]:
    for (valid, grid, count, seed, key), places in KNOWN_PLACES:
        yield DrawCase(grid, count, seed, (valid,), (key,), tuple(places))
    for h, w, count in [(12, 16, 100), (1, 1, 1), (7, 30, 0), (25, 33, 825), (3, 3, 20), (0, 4, 2)]:
        source = torch.Generator().manual_seed(h)
        sides = [torch.randint(0, side + 1, (rows,), generator=source).tolist() for side in (h, w)]
        keys = torch.randint(-(2**62), 2**62, (rows,), generator=source).tolist()
        for seed in (2**63 + 9, -1):
            yield DrawCase((h, w), count, seed, tuple(zip(*sides, strict=True)), tuple(keys))


def _pool_gather_cases(small: bool) -> Iterator[MapCase]:
    # A vector and a tail, odd sides and an image that nobody reads, one window, one channel.
    shapes = [(2, 129, 6, 8), (3, 64, 7, 5), (1, 37, 2, 3), (2, 1, 4, 4)]
    if small:
        shapes = [(2, 5, 6, 8), (3, 7, 5, 9), (1, 3, 2, 3)]
    crowded = [MapCase((1, 20, 2, 2), dtype, form, "crowded") for form in LAYOUTS[:2] for dtype in FLOATS]
    if not small:
        yield from crowded
    for number, layout, kind in _diagonally(range(len(shapes)), LAYOUTS, ("ties", "separated", "special")):
        for dtype in FLOATS:
            # As many sequences as images in the last two: none of them needs an index.
            yield MapCase(shapes[number], dtype, layout, kind, indexed=number < 2)
    if small:  # 300 rows take an interpreter seconds
        yield from crowded


def _pixel_embed_cases(small: bool) -> Iterator[MapCase]:
    shapes = [((2, 70, 6, 8), 33), ((3, 37, 5, 3), 16), ((1, 16, 3, 4), 65)]
    if small:
        shapes = [((2, 5, 6, 8), 3), ((3, 20, 5, 3), 17)]
    for number, layout, kind in _diagonally(range(len(shapes)), LAYOUTS, ("ties", "separated")):
        for dtype, order in product(FLOATS, ORDERS):
            shape, dimensions = shapes[number]
            yield MapCase(shape, dtype, layout, kind, number < 2, dimensions, order)


def _diagonally(*choices) -> list[tuple]:
    """All combinations, those that take early members of every list first."""
    numbered = product(*(enumerate(members) for members in choices))
    ordered = sorted(numbered, key=lambda combination: sum(number for number, _ in combination))
    return [tuple(member for _, member in combination) for combination in ordered]
