"""What the Triton kernels compute, interpreted on a CPU; `test_triton_interpreter.py` runs this file."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pixelbert_fast.ops import triton_backend
from pixelbert_fast.ops.pixel_embed_reference import pixel_embed_reference
from pixelbert_fast.ops.pool_gather_reference import pool_gather_reference
from pixelbert_fast.ops.sample_positions_reference import sample_positions_reference
from tests.op_inputs import DTYPES, SMALL_SHAPES, gather_inputs

NAN = float("nan")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
EPSILON = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.bfloat16, torch.float16)}
ORDERS = ["project_pool", "pool_project"]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Memory from `torch.empty` is full of NaN, or of the largest integer: an unwritten output shows."""
    torch.use_deterministic_algorithms(True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


def inputs(shape, dtype=torch.float32, layout="contiguous", kind="halves", sequences=4, count=6):
    """A shared case as a backend gets it, integers int32; halves make ties frequent."""
    given = gather_inputs(shape, dtype, layout, kind, sequences=sequences, count=count)
    return given._replace(image_index=given.image_index.int())


def reference_gradients(op, grad, *leaves, **options):
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    op(*leaves, **options).backward(grad)
    return [leaf.grad for leaf in leaves]


def max_pool_winners(features, positions, image_index):
    """Which of its four pixels max_pool2d takes for each value that `pool_gather` selects."""
    width = features.shape[3]
    _, index = F.max_pool2d(features.float(), 2, return_indices=True)
    index = index.flatten(2).transpose(1, 2)[image_index.long()]
    index = index.gather(1, positions.clamp(min=0).long()[..., None].expand(-1, -1, features.shape[1]))
    return (index // width % 2) * 2 + index % width % 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SMALL_SHAPES)
def test_pool_gather(shape, layout, dtype):
    features, positions, embedding, image_index = inputs(shape, dtype, layout)
    for vector in (None, embedding):
        out, winners = triton_backend.pool_gather_forward(features, positions, vector, image_index)
        expected = pool_gather_reference(features, positions, vector, image_index=image_index)
        assert out.dtype == dtype and torch.equal(out, expected)
    exists = (positions >= 0)[..., None]
    assert torch.equal(winners * exists, max_pool_winners(features, positions, image_index) * exists)

    grad = torch.randn(out.shape, dtype=torch.float64).to(dtype)
    (expected,) = reference_gradients(
        lambda f: pool_gather_reference(f, positions, image_index=image_index), grad, features
    )
    last = layout == "channels_last"
    result = triton_backend.pool_gather_backward(grad, winners, positions, image_index, shape, last)
    assert result.dtype == dtype and result.is_contiguous(memory_format=LAYOUTS[layout])
    # Both sum at most 24 terms in float32 (float64) in their own order, then round once.
    epsilon = EPSILON.get(dtype, torch.finfo(torch.float64).eps)
    torch.testing.assert_close(
        result, expected, rtol=2 * epsilon, atol=24 * min(epsilon, EPSILON[torch.float32])
    )
    again = triton_backend.pool_gather_backward(grad, winners, positions, image_index, shape, last)
    assert torch.equal(result, again)


def test_one_image_a_sequence_and_an_image_nobody_reads():
    features, positions, _, _ = inputs((4, 3, 6, 6))
    out, winners = triton_backend.pool_gather_forward(features, positions, None, None)
    assert torch.equal(out, pool_gather_reference(features, positions))
    index = torch.tensor([3, 0, 3, 1], dtype=torch.int32)
    grad = triton_backend.pool_gather_backward(
        torch.ones_like(out), winners, positions, index, features.shape, False
    )
    assert not grad[2].any() and grad[3].any()


def test_every_place_and_no_place():
    features = inputs((2, 3, 7, 9))[0]
    every = torch.arange(12, dtype=torch.int32).expand(2, 12).contiguous()
    out, winners = triton_backend.pool_gather_forward(features, every, None, None)
    assert torch.equal(out, F.max_pool2d(features, 2).flatten(2).transpose(1, 2))
    grad = triton_backend.pool_gather_backward(out, winners, every, None, features.shape, True)
    assert grad.count_nonzero() == out.count_nonzero()

    for rows, count, shape in [(2, 0, (2, 3, 4, 4)), (0, 2, (0, 3, 4, 4)), (2, 4, (2, 3, 1, 8))]:
        positions = torch.full((rows, count), -1, dtype=torch.int32)
        out, winners = triton_backend.pool_gather_forward(torch.randn(shape), positions, None, None)
        assert torch.equal(out, torch.zeros(rows, count, 3))
        grad = triton_backend.pool_gather_backward(out + 1, winners, positions, None, shape, False)
        assert torch.equal(grad, torch.zeros(shape))


def test_ties_nan_and_infinities_follow_max_pool2d():
    inf = torch.inf
    rows = [[2.0, 2.0, NAN, 1.0, -inf, -inf, 1.0, inf], [2.0, 1.0, NAN, 9.0, -inf, -inf, inf, NAN]]
    features, positions = torch.tensor([[rows]]), torch.arange(4, dtype=torch.int32)[None]
    out, winners = triton_backend.pool_gather_forward(features, positions, None, None)
    expected = F.max_pool2d(features, 2).flatten()[None, :, None]
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
    assert winners.flatten().tolist() == [0, 2, 0, 3]


def test_three_hundred_readers_add_up_in_float32():
    features = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]], dtype=torch.bfloat16)
    positions = torch.zeros(3, 100, dtype=torch.int32)
    index = torch.zeros(3, dtype=torch.int32)
    out, winners = triton_backend.pool_gather_forward(features, positions, None, index)
    ones = torch.ones(1, 1, 1, dtype=torch.bfloat16).expand(out.shape)  # strides of 0, as sum() gives
    grad = triton_backend.pool_gather_backward(ones, winners, positions, index, features.shape, True)
    assert grad.flatten().tolist() == [300, 0, 0, 0]


@pytest.mark.parametrize("order", [None, *ORDERS])
def test_out_of_range_rows_are_nan_and_take_no_gradient(order):
    features, positions, embedding, _ = inputs((3, 5, 4, 6))
    positions[0], index = torch.tensor([-1, 0, 5, 6, -2, 2**31 - 1]), torch.tensor([1, 3, -1, 2]).int()
    wrong = torch.zeros(4, 6, dtype=torch.bool)
    wrong[0, 3:], wrong[1:3] = True, positions[1:3] != -1
    if order is None:
        out, winners = triton_backend.pool_gather_forward(features, positions, embedding, index)
        grad = triton_backend.pool_gather_backward(
            torch.ones_like(out), winners, positions, index, features.shape, False
        )
    else:
        weight = torch.randn(3, 5)
        out, winners = triton_backend.pixel_embed_forward(
            features, positions, weight, torch.ones(3), index, order
        )
        grad, grad_weight = triton_backend.pixel_embed_backward(
            torch.ones_like(out), winners, features, positions, weight, index, order, True, True
        )
        assert grad_weight.isfinite().all()
    assert torch.equal(out.isnan().all(-1), wrong) and torch.equal(out.isnan().any(-1), wrong)
    assert torch.equal((out == 0).all(-1), positions == -1)
    assert grad.isfinite().all() and not grad[0].any() and grad[1].any()


@pytest.mark.parametrize("order", [None, *ORDERS])
def test_slices_of_a_larger_tensor_are_read_in_place(order):
    features, positions, embedding, index = inputs((2, 5, 7, 10), layout="stepped")
    if order is None:
        out, _ = triton_backend.pool_gather_forward(features, positions, embedding, index)
        expected = pool_gather_reference(features, positions, embedding, image_index=index)
        assert torch.equal(out, expected)
    else:
        weight = torch.randn(4, 10)[:, ::2]
        out, _ = triton_backend.pixel_embed_forward(features, positions, weight, torch.zeros(4), index, order)
        expected = pixel_embed_reference(
            features, positions, weight, None, torch.zeros(4), image_index=index, order=order
        )
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)  # sums of 5 float32 products


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "dimensions", "layout"),
    [
        ((2, 5, 6, 8), 3, "contiguous"),
        ((2, 5, 6, 8), 3, "channels_last"),
        ((3, 70, 5, 9), 33, "channels_last"),
        ((1, 3, 2, 3), 65, "contiguous"),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_pixel_embed(order, shape, dimensions, layout, dtype):
    features, positions, _, index = inputs(shape, dtype, layout)
    # No ties: which of equals wins depends on rounding.
    features = features + torch.randn(shape).to(dtype) / 8
    weight, vector = torch.randn(dimensions, shape[1]).to(dtype), torch.randn(dimensions).to(dtype)
    grad = torch.randn(*positions.shape, dimensions).to(dtype)

    def chain(features, weight, vector):
        return pixel_embed_reference(
            features, positions, weight, None, vector, image_index=index, order=order
        )

    out, winners = triton_backend.pixel_embed_forward(features, positions, weight, vector, index, order)
    assert out.dtype == dtype and (winners <= 3)[positions >= 0].all()
    exact = chain(features.double(), weight.double(), vector.double())
    closer_than_reference(out, chain(features, weight, vector), exact)

    # With the kernel's own winners, so that a rounding that turns a near tie changes nothing here.
    results = triton_backend.pixel_embed_backward(
        grad, winners, features, positions, weight, index, order, True, True
    )
    doubles = (
        grad.double(),
        winners,
        features.double(),
        positions,
        weight.double(),
        index,
        order,
        True,
        True,
    )
    exact = triton_backend.pixel_embed_backward(*doubles)
    if dtype == torch.float64:
        exact = reference_gradients(chain, grad, features, weight, vector)
    expected = reference_gradients(chain, grad, features, weight, vector)
    assert results[0].is_contiguous(memory_format=LAYOUTS[layout])
    for result, reference, truth in zip(results, expected, exact, strict=False):
        assert result.dtype == dtype and result.shape == reference.shape
        closer_than_reference(result, reference, truth)


def closer_than_reference(result, reference, exact):
    """The error is at most twice PyTorch's own in that dtype, or a few roundings where PyTorch was lucky."""
    luck = 4 * torch.finfo(result.dtype).eps * exact.abs().max()
    allowed = 2 * (reference.double() - exact).abs().max() + luck
    assert (result.double() - exact).abs().max() <= allowed


@pytest.mark.parametrize("order", ORDERS)
def test_pixel_embed_propagates_nan_and_allows_nothing_to_do(order):
    features, positions, _, _ = inputs((4, 5, 4, 6))
    features[1, 2, 0, 0] = NAN
    weight, vector = torch.randn(3, 5), torch.randn(3)
    out, _ = triton_backend.pixel_embed_forward(features, positions, weight, vector, None, order)
    expected = pixel_embed_reference(features, positions, weight, None, vector, order=order)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5, equal_nan=True)

    for rows, count, shape in [(2, 0, (2, 5, 4, 4)), (0, 2, (0, 5, 4, 4)), (2, 4, (2, 5, 1, 8))]:
        nothing, features = torch.full((rows, count), -1, dtype=torch.int32), torch.randn(shape)
        out, winners = triton_backend.pixel_embed_forward(features, nothing, weight, vector, None, order)
        assert torch.equal(out, torch.zeros(rows, count, 3))
        grads = triton_backend.pixel_embed_backward(
            out + 1, winners, features, nothing, weight, None, order, True, True
        )
        assert torch.equal(grads[0], torch.zeros(shape)) and torch.equal(grads[1], torch.zeros(3, 5))


@pytest.mark.parametrize("grid", [(1, 1), (12, 17), (40, 60)])
def test_sample_positions(grid):
    sides = torch.tensor(grid)
    valid = torch.stack([sides, sides // 2, (sides + 1) // 2, sides * 0, sides.clamp(max=3)]).int()
    keys = torch.tensor([0, -5, 2**40 + 5, 7, -(2**63)])
    for count in (7, grid[0] * grid[1], grid[0] * grid[1] + 40):
        for seed in (12345678901234567, -1):
            out = triton_backend.sample_positions(valid, grid, count, torch.tensor(seed), keys)
            assert torch.equal(out, sample_positions_reference(valid, grid, count, seed=seed, keys=keys))
    out = triton_backend.sample_positions(valid, grid, 4, torch.tensor(3), None)
    assert torch.equal(out, sample_positions_reference(valid, grid, 4, seed=3))


def test_sample_positions_known_answer_and_nothing_to_draw():
    """A stored answer of test_sample_positions.py, padding added."""
    valid, seed, key = torch.tensor([[2, 3]]).int(), torch.tensor(-1), torch.tensor([1099511627779])
    assert triton_backend.sample_positions(valid, (5, 9), 4, seed, key).tolist() == [[1, 2, 10, 11]]
    assert triton_backend.sample_positions(valid, (5, 9), 0, seed, key).shape == (1, 0)
    assert triton_backend.sample_positions(valid * 0, (0, 0), 3, seed, key).tolist() == [[-1, -1, -1]]
    assert triton_backend.sample_positions(valid[:0], (5, 9), 3, seed, key[:0]).shape == (0, 3)
