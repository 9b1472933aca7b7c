"""The public ops under random arguments; `make fuzz-ops` does the same 100,000 times."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelbert_fast import ops
from pixelbert_fast.environment import CHECK
from pixelbert_fast.ops import backends
from tests import fuzz_ops
from tests.fuzzed_calls import LONG


def test_every_outcome_is_a_right_result_or_an_error_of_the_ops_own() -> None:
    """And both are met by every op: the calls are neither all wrong nor all right."""
    counted = fuzz_ops.run_batch(seed=0, examples=300)
    for op in backends.OPS:
        assert counted[f"{op} result"] >= 10 and counted[f"{op} ValueError"] >= 5, counted


def gather(**changes: object) -> torch.Tensor:
    arguments = {"features": torch.randn(2, 3, 4, 4), "positions": torch.zeros(2, 1, dtype=torch.int64)}
    return ops.pool_gather(**arguments | changes)


def embed(**changes: object) -> torch.Tensor:
    arguments = {
        "features": torch.randn(2, 3, 4, 4),
        "positions": torch.zeros(2, 1, dtype=torch.int64),
        "weight": torch.randn(5, 3),
        "bias": None,
        "embedding": torch.randn(5),
    }
    return ops.pixel_embed(**arguments | changes)


def test_what_is_no_name_of_a_backend_or_an_order() -> None:
    """An array compared with a text is an array, and a long number has no text at all."""
    for name in (np.arange(2), torch.arange(2), ["cpu"], 3, LONG, "x" * 10_000):
        with pytest.raises(ValueError, match=r"^pool_gather: backend must be one of .{1,160}$"):
            gather(backend=name)
        with pytest.raises(ValueError, match=r"^pixel_embed: order must be one of .{1,160}$"):
            embed(order=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 2**31}, "count must be an integer of 0 .. 2147483647, got 2147483648"),
        ({"count": LONG}, "count must be .*, got a number too long to show"),
        ({"grid": (2**16, 2**16)}, "grid must have at most 2147483647 places"),
        ({"grid": (0, 2**31)}, "grid must be two integers"),
        ({"seed": torch.tensor(0, device="meta")}, "seed must have a value, got int64 .. on meta"),
    ],
)
def test_sizes_that_int32_cannot_number(changes: dict, message: str) -> None:
    arguments = {"valid_grid": torch.zeros(1, 2, dtype=torch.int32), "grid": (3, 3), "count": 2, "seed": 0}
    with pytest.raises(ValueError, match=f"sample_positions: {message}"):
        ops.sample_positions(**arguments | changes)


def test_meta_tensors_give_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of them is read, even where checks of values are asked for."""
    monkeypatch.setenv(CHECK.name, "1")
    with torch.device("meta"):
        valid = torch.zeros(2, 2, dtype=torch.int32)
        drawn = ops.sample_positions(valid, (2, 2), 3, seed=0)
        found = [drawn, gather(positions=drawn), embed(positions=drawn)]
    assert [(tuple(one.shape), one.device.type) for one in found] == [
        ((2, 3), "meta"),
        ((2, 3, 3), "meta"),
        ((2, 3, 5), "meta"),
    ]


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 1, 4), (2, 3, 4, 4)])
@pytest.mark.parametrize("dimensions", [0, 5])
@pytest.mark.parametrize("order", ["project_pool", "pool_project"])
def test_empty_maps_and_projections_have_gradients(shape: tuple, dimensions: int, order: str) -> None:
    features = torch.randn(shape, requires_grad=True)
    positions = torch.full((shape[0], 2), -1)
    weight = torch.randn(dimensions, shape[1], requires_grad=True)
    for backend in ("reference", None):
        out = ops.pixel_embed(
            features, positions, weight, None, torch.ones(dimensions), order=order, backend=backend
        )
        assert out.shape == (shape[0], 2, dimensions) and not out.any()
        picked = ops.pool_gather(features, positions, backend=backend)
        grads = torch.autograd.grad(out.sum() + picked.sum(), (features, weight))
        assert [grad.shape for grad in grads] == [features.shape, weight.shape]
        assert not grads[0].any() and not grads[1].any()


def test_a_channelless_map_projects_to_the_vector() -> None:
    out = embed(features=torch.randn(2, 0, 4, 4), weight=torch.randn(5, 0), embedding=torch.ones(5))
    assert torch.equal(out, torch.ones(2, 1, 5))
