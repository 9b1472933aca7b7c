"""The contests of the ops: what is computed, by whom, above which floor, and the check before any timing."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from rows import Work
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pixelbert_fast import ops  # noqa: E402 - needs the path above
from pixelbert_fast.ops import backends  # noqa: E402
from tests.op_inputs import grouped_images, map_values, normal, projection  # noqa: E402

REFERENCE = "reference"
COMPILED = "reference, compiled"
AUTOTUNED = "reference, compiled with max-autotune"
# What torch.compile is told, and what its reference is then called.
MODES = {"default": COMPILED, "max-autotune": AUTOTUNED}
COPY = "copy of as many bytes"
ALLOCATION = "zeros like the features"
PRODUCT = "the matrix products alone"


@dataclass(frozen=True)
class Case:
    """One contest: an op, its shapes and where it runs. `per_image` sequences read each image."""

    op: str
    device: str = "cpu"
    dtype: str = "float32"
    layout: str = "channels_last"
    batch: int = 8
    channels: int = 2048
    height: int = 24
    width: int = 32
    count: int = 100
    per_image: int = 1
    dimensions: int = 768
    order: str = "project_pool"

    def __str__(self) -> str:
        shape = f"[{self.batch}, {self.channels}, {self.height}, {self.width}]"
        if self.op == "sample_positions":
            return f"sample_positions {self.batch * self.per_image} x {self.count} of {self.grid}"
        to = f" -> {self.dimensions}, {self.order}" if self.op == "pixel_embed" else ""
        each = f", {self.per_image} sequences an image" if self.per_image > 1 else ""
        return f"{self.op} {shape}{to}, K = {self.count}{each}, {self.dtype}, {self.layout}"

    @property
    def grid(self) -> tuple[int, int]:
        return self.height // 2, self.width // 2


@dataclass(frozen=True)
class Given:
    """Tensors of a case; `leaves` are those that take gradients, `grad` is the output's."""

    leaves: dict[str, Tensor]
    valid_grid: Tensor
    positions: Tensor
    image_index: Tensor | None
    grad: Tensor


def given(case: Case) -> Given:
    """The inputs of `case`, the same on every device."""
    dtype = getattr(torch, case.dtype)
    sequences = case.batch * case.per_image
    valid = torch.tensor([case.grid] * sequences, dtype=torch.int32)
    positions = ops.sample_positions(valid, case.grid, case.count, seed=0)
    image_index = grouped_images(case.batch, case.per_image, torch.int32) if case.per_image > 1 else None
    leaves = {}
    if case.op != "sample_positions":
        layout = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
        shape = (case.batch, case.channels, case.height, case.width)
        leaves["features"] = map_values(shape, dtype).contiguous(memory_format=layout)
    size = case.channels
    if case.op == "pool_gather":
        leaves["embedding"] = normal((case.channels,), dtype, seed=1)
    if case.op == "pixel_embed":
        size = case.dimensions
        leaves |= projection(case.channels, size, dtype)._asdict()
    grad = normal((sequences, case.count, size), dtype, seed=2) if leaves else torch.empty(0)
    return Given(
        {name: leaf.to(case.device).requires_grad_() for name, leaf in leaves.items()},
        valid.to(case.device),
        positions.to(case.device),
        None if image_index is None else image_index.to(case.device),
        grad.to(case.device),
    )


def forward(case: Case, values: Given, backend: str) -> Callable[[], Tensor]:
    """The op of `case` on `backend`, as a function without arguments."""
    leaves = values.leaves
    if case.op == "sample_positions":
        return lambda: ops.sample_positions(values.valid_grid, case.grid, case.count, seed=1, backend=backend)
    if case.op == "pool_gather":
        return lambda: ops.pool_gather(
            leaves["features"],
            values.positions,
            leaves["embedding"],
            image_index=values.image_index,
            backend=backend,
        )
    return lambda: ops.pixel_embed(
        leaves["features"],
        values.positions,
        leaves["weight"],
        leaves["bias"],
        leaves["embedding"],
        image_index=values.image_index,
        order=case.order,
        backend=backend,
    )


def contestants(case: Case, values: Given, *, compiled: tuple[str, ...]) -> dict[str, Callable[[], Tensor]]:
    """The forward of the reference, of it compiled in these modes, and of each backend that can run here."""
    dtype = torch.int32 if case.op == "sample_positions" else getattr(torch, case.dtype)
    kind = torch.device(case.device).type
    found = {REFERENCE: forward(case, values, REFERENCE)}
    if compiled and case.op != "sample_positions":  # which is never traced
        torch.compiler.reset()
        for mode in compiled:
            made = torch.compile(forward(case, values, REFERENCE), dynamic=False, mode=mode)
            found[MODES[mode]] = own_step(made, mode)
    for name in backends.MODULES:
        interpreted = name == "triton" and kind == "cpu"
        if not interpreted and backends.why_not(name, case.op, kind, dtype) is None:
            found[name] = forward(case, values, name)
    return found


def own_step(made: Callable[[], Tensor], mode: str) -> Callable[[], Tensor]:
    """Tells where a step begins: on a GPU max-autotune writes results where the last step's were."""
    if mode == "default":
        return made

    def run() -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return made()

    return run


def training(run: Callable[[], Tensor], values: Given) -> Callable[[], list[Tensor]]:
    """Forward and backward: the output and the gradients of the leaves.

    The leaves give their gradients away, so that each contestant frees its own memory within its own time:
    tens of megabytes in small pages take milliseconds, which the next one would otherwise pay for.
    """

    def step() -> list[Tensor]:
        out = run()
        out.backward(values.grad)
        found = [out.detach(), *(leaf.grad for leaf in values.leaves.values())]
        for leaf in values.leaves.values():
            leaf.grad = None
        return found

    return step


def verify(case: Case, values: Given, runs: dict[str, Callable[[], Tensor]]) -> None:
    """Raises AssertionError where a backend did not run, or differs from the reference by more than it may.

    Values that are only selected agree to the bit. A sum's error against the same in float64 is at most twice
    the reference's own, plus a few roundings of the largest value where the reference was lucky. No gradient
    is sent to where rounding decides which pixel of a window wins.
    """
    values = _without_near_ties(case, values)
    trained = case.op != "sample_positions"
    step = (lambda run: training(run, values)()) if trained else (lambda run: [run()])
    plain = step(runs[REFERENCE])
    exact = plain if not trained or case.dtype == "float64" else _in_float64(case, values)
    for name, run in runs.items():
        if name == REFERENCE:
            continue
        with backends.watch() as ran:
            found = step(run)
        expected = {case.op, f"{case.op}_backward"} if trained else {case.op}
        assert name in MODES.values() or {op for op, by in ran if by == name} == expected, (name, ran)
        for number, each in enumerate(zip(found, plain, exact, strict=True)):
            _agrees(f"{case}: {name}", each, selected=number == 0 and case.op != "pixel_embed")
        # Without gradients other code may run, and is timed too; it may write where `found` was.
        with torch.no_grad(), backends.watch() as ran:
            alone = run()
        assert name in MODES.values() or {op for op, by in ran if by == name} == {case.op}, (name, ran)
        _agrees(
            f"{case}: {name} without gradients",
            (alone, plain[0], exact[0]),
            selected=case.op != "pixel_embed",
        )


def _agrees(what: str, results: tuple[Tensor, Tensor, Tensor], *, selected: bool) -> None:
    """`results`: one contestant's, the reference's, and the same in float64."""
    own, theirs, truth = results
    if selected:
        assert torch.equal(own, theirs), f"{what} differs from the reference"
        return
    limit = truth.abs().max().item()
    lucky = 8 * torch.finfo(own.dtype).eps * limit
    allowed = 2 * (theirs.double() - truth).abs().max().item() + lucky
    error = (own.double() - truth).abs().max().item()
    assert error <= allowed, f"{what} is off by {error:.3g}, allowed are {allowed:.3g}"


def _without_near_ties(case: Case, values: Given) -> Given:
    """`values` with a gradient of zero where two projected pixels of a window are equal but for rounding."""
    if case.op != "pixel_embed" or case.order != "project_pool":
        return values
    features, weight = (values.leaves[name].detach().double() for name in ("features", "weight"))
    (h, w), dtype = case.grid, getattr(torch, case.dtype)
    projected = F.conv2d(features, weight[:, :, None, None])[:, :, : 2 * h, : 2 * w]
    windows = projected.unflatten(3, (w, 2)).unflatten(2, (h, 2)).permute(0, 2, 4, 1, 3, 5).flatten(4)
    first, second = windows.topk(2).values.flatten(0, 2).unbind(2)
    # Both pixels are sums of C products in the wide type, rounded once to their own.
    wide = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    roundings = 2 * torch.finfo(dtype).eps + math.sqrt(case.channels) * wide
    clear = first - second > roundings * projected.abs().max()
    image = values.image_index
    image = torch.arange(case.batch, device=features.device) if image is None else image.long()
    return replace(values, grad=values.grad * clear[image[:, None] * (h * w) + values.positions])


def _in_float64(case: Case, values: Given) -> list[Tensor]:
    wide = replace(case, dtype="float64")
    doubles = Given(
        {name: leaf.detach().double().requires_grad_() for name, leaf in values.leaves.items()},
        values.valid_grid,
        values.positions,
        values.image_index,
        values.grad.double(),
    )
    return training(forward(wide, doubles, REFERENCE), doubles)()


def least_work(case: Case, values: Given, *, backward: bool) -> Work:
    """What a pass cannot avoid: each distinct window is read once, each result written once."""
    if case.op == "sample_positions":
        return Work(values.positions.numel() * 4, 0)
    size = torch.finfo(getattr(torch, case.dtype)).bits // 8
    rows, places = values.positions.numel(), math.prod(case.grid)
    image = torch.arange(case.batch, device=case.device).repeat_interleave(case.per_image)
    windows = (image[:, None] * places + values.positions).unique().numel()
    width = case.channels if case.op == "pool_gather" else case.dimensions
    pixels = windows * 4 * case.channels * size
    dense = case.batch * case.channels * case.height * case.width * size
    weight = 0 if case.op == "pool_gather" else case.channels * case.dimensions * size
    moved = pixels + weight + rows * width * size
    if backward:
        winners = rows * (case.channels if case.order == "pool_project" else width)
        again = 0 if case.op == "pool_gather" else pixels + 2 * weight  # read for the weight's gradient
        moved += winners + (rows * width * size + winners) + again + dense
    multiplied = windows * (4 if case.order == "project_pool" else 1)
    flops = 0 if case.op == "pool_gather" else 2 * multiplied * case.channels * case.dimensions
    return Work(moved, flops * (3 if backward else 1))


def floors(case: Case, values: Given, work: Work, *, backward: bool) -> dict[str, Callable[[], object]]:
    """What the machine itself takes for the least work, measured in the same turns."""
    from contest import copy_bandwidth

    found = {COPY: copy_bandwidth(case.device, work.bytes // 2)}
    if case.op == "sample_positions":
        return {}
    if backward:
        found[ALLOCATION] = lambda: torch.zeros_like(values.leaves["features"])
    if work.flops:
        rows = work.flops // (2 * case.channels * case.dimensions)
        left = torch.randn(rows, case.channels, device=case.device).to(getattr(torch, case.dtype))
        right = values.leaves["weight"].detach().t()
        found[PRODUCT] = lambda: left @ right
    return found
