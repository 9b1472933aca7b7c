"""`pixel_embed` in C++ for CPUs against plain PyTorch: values, winners and gradients, in both orders."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pixelbert_fast import ops
from pixelbert_fast.ops import cpu_backend, registered
from pixelbert_fast.ops.pixel_embed_reference import pixel_embed_reference
from tests.op_inputs import (
    DTYPES,
    LAYOUTS,
    gather_inputs,
    in_layout,
    map_values,
    normal,
    projection,
    random_places,
    unordered_images,
)
from tests.pixel_embed_checks import ORDERS, assert_right, max_pool_winners, run, whole_numbers

REASON = cpu_backend.why_not_loaded()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

# (B, C, H, W) and D: tails after vectors and cache lines, odd sides, one pooled row, one window, one number.
CASES = [((2, 37, 6, 8), 129), ((2, 151, 3, 9), 70), ((1, 64, 2, 3), 3), ((3, 1, 7, 4), 1)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_is_as_near_to_float64_as_the_reference(dtype: torch.dtype, layout: str, order: str) -> None:
    for shape, dimensions in CASES:
        features, positions, _, image_index = gather_inputs(shape, dtype, layout)
        weight, _, embedding = projection(shape[1], dimensions, dtype)
        assert_right(features, positions, weight, embedding, image_index, order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "stepped"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ties_are_the_references_where_arithmetic_is_exact(dtype, layout, order) -> None:
    features = whole_numbers((3, 35, 7, 6), dtype, layout)
    weight, embedding = whole_numbers((83, 35), dtype, seed=1), whole_numbers((83,), dtype, seed=2)
    positions, image_index = random_places(5, 11, 9), unordered_images(5, 3)
    grad = whole_numbers((5, 11, 83), dtype, seed=3)
    arguments = (features, positions, weight, embedding, image_index, order, grad)
    for found, plain in zip(run("cpu", *arguments)[:4], run("reference", *arguments)[:4], strict=True):
        assert torch.equal(found, plain)
    _, winners = cpu_backend.pixel_embed_forward(
        features, positions, weight, embedding, image_index.int(), order
    )
    maximum_of = F.conv2d(features, weight[:, :, None, None]) if order == ORDERS[0] else features
    exists = (positions >= 0)[..., None]
    expected = max_pool_winners(maximum_of, positions, image_index)
    assert winners.dtype == torch.uint8 and torch.equal(winners * exists, expected * exists)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_and_infinities_are_the_references(dtype, layout, order) -> None:
    features = whole_numbers((2, 5, 4, 8), dtype, layout)
    for row, column, special in [(0, 0, "nan"), (1, 1, "nan"), (2, 3, "inf"), (3, 2, "-inf"), (1, 5, "inf")]:
        features[1, :, row, column] = float(special)
    weight, embedding = whole_numbers((70, 5), dtype, seed=1), whole_numbers((70,), dtype, seed=2)
    positions = torch.arange(8, dtype=torch.int32).expand(2, 8).contiguous()
    image_index = torch.tensor([1, 0])
    out, winners = cpu_backend.pixel_embed_forward(
        features, positions, weight, embedding, image_index.int(), order
    )
    expected = pixel_embed_reference(
        features, positions, weight, None, embedding, image_index=image_index, order=order
    )
    assert out[0].isnan().any() and out[0].isfinite().any()
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
    maximum_of = F.conv2d(features, weight[:, :, None, None]) if order == ORDERS[0] else features
    assert torch.equal(winners, max_pool_winners(maximum_of, positions, image_index).to(torch.uint8))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_more_windows_than_a_tile_holds(layout: str, order: str) -> None:
    """Some 600 windows, most read several times; products of tiles add up in the weight's gradient."""
    features = map_values((4, 9, 26, 27), torch.float32)
    positions, image_index = random_places(9, 160, 169), unordered_images(9, 4)
    image_index[8] = 3
    weight, bias, embedding = projection(9, 21)
    assert_right(in_layout(features, layout), positions, weight, embedding, image_index, order)
    every = torch.arange(169).expand(4, 169)
    assert_right(in_layout(features, layout), every, weight, embedding, None, order, bias)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_short_types_add_up_in_float32(dtype: torch.dtype, order: str) -> None:
    """300 readers of one window, and 3,000 windows: a bfloat16 sum would stop growing at 256."""
    features = torch.ones(1, 20, 2, 2, dtype=dtype)
    weight, embedding = torch.zeros(7, 20, dtype=dtype), torch.zeros(7, dtype=dtype)
    weight[3] = 1
    positions, image_index = torch.zeros(3, 100, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    grad = torch.ones(3, 100, 7, dtype=dtype)
    _, grad_features, grad_weight, grad_embedding = run(
        "cpu", features, positions, weight, embedding, image_index, order, grad
    )
    assert (grad_features[0, :, 0, 0] == 300).all() and grad_features.sum() == 300 * 20
    assert (grad_weight == 300).all() and (grad_embedding == 300).all()

    features, positions = torch.ones(1, 3, 100, 120, dtype=dtype), torch.arange(3000)[None]
    grad = torch.ones(1, 3000, 7, dtype=dtype)
    _, _, grad_weight, _ = run("cpu", features, positions, weight[:, :3], embedding, None, order, grad)
    assert (grad_weight == torch.tensor(3000, dtype=dtype)).all()
    # Sums of 150,000 and of -150,000 on the way, which float16 has no numbers for.
    grad[:, :1500], grad[:, 1500:] = 100, -100
    _, _, grad_weight, _ = run("cpu", features, positions, weight[:, :3], embedding, None, order, grad)
    assert not grad_weight.any()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_instruction_set_gives_the_same(dtype: torch.dtype, level: int, order: str) -> None:
    best = torch.ops.pixelbert_fast_native.use_cpu_level(2)
    if level > best:
        pytest.skip(f"this processor has levels up to {best}")
    features = whole_numbers((2, 67, 6, 8), dtype, "channels_last")
    weight, embedding = whole_numbers((165, 67), dtype, seed=1), whole_numbers((165,), dtype, seed=2)
    positions = torch.tensor([[0, 3, 5, 11], [2, 2, 7, -1]])
    arguments = (features, positions, weight, embedding, None, order, torch.ones(2, 4, 165, dtype=dtype))
    try:
        assert torch.ops.pixelbert_fast_native.use_cpu_level(level) == level
        results = run("cpu", *arguments)[:4]
    finally:
        torch.ops.pixelbert_fast_native.use_cpu_level(2)
    for found, plain in zip(results, run("reference", *arguments)[:4], strict=True):
        assert torch.equal(found, plain)


@pytest.fixture
def poisoned_memory():
    """New memory, that of C++ included, is filled with NaN while deterministic algorithms are asked for."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_every_element_is_written(layout: str, order: str, poisoned_memory: None) -> None:
    """All places, some twice, none; an unread image; odd sides: memory that starts as NaN holds none."""
    features = in_layout(map_values((3, 19, 7, 9)), layout)
    weight, _, embedding = projection(19, 6)
    every = torch.arange(12).expand(2, 12)
    for positions in (every, torch.full((2, 3), -1), torch.zeros(2, 0, dtype=int), every[:, :4] // 2):
        grad = torch.ones(*positions.shape, 6)
        out, grad_features, grad_weight, *_ = run(
            "cpu", features, positions, weight, embedding, torch.tensor([2, 0]), order, grad
        )
        assert out.isfinite().all() and grad_features.isfinite().all() and grad_weight.isfinite().all()
        assert (out != 0).any(2).equal(positions >= 0)
        # Each row sends the sum of the weight's rows, one number for each channel, to its window.
        rows = (positions >= 0).sum()
        torch.testing.assert_close(grad_features.sum(), weight.sum() * rows, rtol=1e-4, atol=1e-4)
        assert grad_features.stride() == features.stride()
        rest = grad_features[:, :, 6], grad_features[:, :, :, 8], grad_features[1]
        assert not any(part.any() for part in rest)


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_to_read_or_to_project_onto(order: str) -> None:
    for batch, channels, height, count, dimensions in [
        (2, 5, 1, 4, 3),
        (2, 5, 4, 0, 3),
        (0, 5, 4, 2, 3),
        (2, 5, 4, 2, 0),
        (2, 0, 4, 2, 3),
    ]:
        features = torch.randn(batch, channels, height, 8)
        positions = torch.full((batch, count), -1 if height == 1 else 2, dtype=torch.int32)
        weight, vector = torch.randn(dimensions, channels), torch.randn(dimensions)
        out, winners = cpu_backend.pixel_embed_forward(features, positions, weight, vector, None, order)
        assert out.shape == (batch, count, dimensions)
        assert winners.shape[2] == (dimensions if order == ORDERS[0] else channels)
        if height == 1:
            assert not out.any()
        elif channels == 0:
            assert torch.equal(out, vector.expand_as(out))
        grads = cpu_backend.pixel_embed_backward(
            out + 1, winners, features, positions, weight, None, order, True, True
        )
        assert grads[0].shape == features.shape and grads[1].shape == weight.shape
        if batch * count * dimensions == 0 or height == 1:
            assert not grads[0].any() and not grads[1].any()


@pytest.mark.parametrize("order", ORDERS)
def test_numbers_that_nobody_may_follow(order: str) -> None:
    """Beyond the checks, as in a compiled graph: NaN in that row, and no gradient to anywhere."""
    features = torch.randn(2, 5, 4, 4, requires_grad=True)
    weight = torch.randn(3, 5, requires_grad=True)
    positions = torch.tensor([[0, 4], [-2, 2**31 - 1], [-1, 0]], dtype=torch.int32)
    image_index = torch.tensor([0, 7, -1], dtype=torch.int32)
    vector = torch.zeros(3, requires_grad=True)
    out, _ = registered.pixel_embed(features, positions, weight, vector, image_index, order, "cpu")
    assert out.isnan().all(2).tolist() == [[False, True], [True, True], [False, True]]
    assert not out[2, 0].any()
    out.sum().backward()
    assert features.grad[0, :, :2, :2].any() and not features.grad[1].any()
    assert not features.grad[0, :, 2:].any() and not features.grad[0, :, :, 2:].any()
    assert weight.grad.isfinite().all() and vector.grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize("order", ORDERS)
def test_a_weight_of_any_strides(order: str) -> None:
    features, positions, _, image_index = gather_inputs((2, 11, 6, 8))
    plain, bias, embedding = projection(11, 13)
    whole = torch.full((26, 22), math.nan)
    whole[::2, ::2] = plain
    for weight in (whole[::2, ::2], plain.t().contiguous().t(), plain[:1].expand(13, 11)):
        assert_right(features, positions, weight, embedding, image_index, order, bias)


@pytest.mark.parametrize("order", ORDERS)
def test_only_the_gradients_that_are_wanted(order: str) -> None:
    features, positions, _, image_index = gather_inputs((2, 11, 6, 8))
    weight, _, embedding = projection(11, 13)
    grad = normal((5, 9, 13))
    every = run("cpu", features, positions, weight, embedding, image_index, order, grad)[1:4]
    for wanted in range(3):
        leaves = [features.detach(), weight.detach(), embedding.detach()]
        leaves[wanted].requires_grad_()
        ops.pixel_embed(
            leaves[0], positions, leaves[1], None, leaves[2], image_index=image_index, order=order
        ).backward(grad)
        assert torch.equal(leaves[wanted].grad, every[wanted])
        assert sum(leaf.grad is not None for leaf in leaves) == 1


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_however_often_and_however_many_threads(order: str) -> None:
    """Sums over readers have a fixed order; whole numbers keep the products, which are BLAS's, exact."""
    features = whole_numbers((4, 96, 12, 10), layout="channels_last")
    positions, image_index = random_places(9, 40, 30), torch.randint(0, 4, (9,))
    weight, embedding = whole_numbers((50, 96), seed=1), whole_numbers((50,), seed=2)
    fixed = normal((9, 40, 50))
    whole = whole_numbers((9, 40, 50), seed=3)
    threads = torch.get_num_threads()
    try:
        for grad, numbers in ((whole, (1, 2, 5)), (fixed, (threads, threads))):
            found = []
            for number in numbers:
                torch.set_num_threads(number)
                found.append(run("cpu", features, positions, weight, embedding, image_index, order, grad)[:4])
            for others in found[1:]:
                assert all(torch.equal(*pair) for pair in zip(found[0], others, strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients_by_differences(layout: str, order: str) -> None:
    features = in_layout(map_values((2, 5, 5, 4), torch.float64), layout).requires_grad_()
    leaves = [leaf.requires_grad_() for leaf in projection(5, 4, torch.float64)]
    positions, image_index = torch.tensor([[0, 3, 3], [1, -1, 2], [3, 0, 1]]), torch.tensor([1, 0, 1])
    assert torch.autograd.gradcheck(
        lambda f, w, b, e: ops.pixel_embed(
            f, positions, w, b, e, image_index=image_index, order=order, backend="cpu"
        ),
        (features, *leaves),
    )
