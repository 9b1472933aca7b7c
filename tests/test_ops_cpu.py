"""The C++ kernels for CPUs against the plain PyTorch twins: same values, same winners, same gradients."""

from __future__ import annotations

import math

import pytest
import torch

from pixelbert_fast import ops
from pixelbert_fast.ops import backends, cpu_backend, registered
from tests.known_answers import PLACES
from tests.op_inputs import (
    DTYPES,
    KINDS,
    LAYOUTS,
    SHAPES,
    gather_inputs,
    in_layout,
    map_values,
    normal,
    ragged_draws,
    random_places,
)

REASON = cpu_backend.why_not_loaded()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def run(
    backend: str, features: torch.Tensor, positions: torch.Tensor, embedding, image_index, grad=None
) -> list:
    """Output and, given its gradient, the gradients of features and embedding."""
    features = features.detach().requires_grad_()
    embedding = None if embedding is None else embedding.detach().requires_grad_()
    with backends.watch() as ran:
        out = ops.pool_gather(features, positions, embedding, image_index=image_index, backend=backend)
        if grad is not None and out.requires_grad:
            out.backward(grad)
    assert {name for _, name in ran} == {backend}
    return [out.detach(), features.grad, None if embedding is None else embedding.grad]


def assert_same(features, positions, embedding=None, image_index=None) -> None:
    grad = normal((*positions.shape, features.shape[1]), features.dtype, seed=1)
    fast = run("cpu", features, positions, embedding, image_index, grad)
    plain = run("reference", features, positions, embedding, image_index, grad)
    torch.testing.assert_close(fast[0], plain[0], rtol=0, atol=0, equal_nan=True)
    # A few gradients add up in float32 (float64) in another order, and are rounded to the dtype once.
    bound = 4 * torch.finfo(features.dtype).eps
    torch.testing.assert_close(fast[1], plain[1], rtol=bound, atol=bound)
    if embedding is not None:
        bound = positions.numel() * torch.finfo(torch.promote_types(features.dtype, torch.float32)).eps
        bound = max(bound, 2 * torch.finfo(embedding.dtype).eps)
        torch.testing.assert_close(fast[2], plain[2], rtol=bound, atol=bound)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(dtype: torch.dtype, layout: str, kind: str) -> None:
    for shape in SHAPES:
        features, positions, embedding, image_index = gather_inputs(shape, dtype, layout, kind)
        assert_same(features, positions, None, image_index)
        assert_same(features, positions, embedding, image_index)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_gradient_of_several_megabytes(layout: str) -> None:
    features = in_layout(map_values((2, 640, 32, 34), torch.float32), layout)
    positions = random_places(2, 100, 16 * 17, lowest=0, dtype=torch.int64, seed=2)
    assert_same(features, positions, torch.linspace(-1, 1, 640))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_instruction_set_gives_the_same(level: int, dtype: torch.dtype) -> None:
    best = torch.ops.pixelbert_fast_native.use_cpu_level(2)
    if level > best:
        pytest.skip(f"this processor has levels up to {best}")
    try:
        assert torch.ops.pixelbert_fast_native.use_cpu_level(level) == level
        for kind in ("ties", "special"):
            features = in_layout(map_values((2, 165, 6, 8), dtype, kind), "channels_last")
            positions = torch.tensor([[0, 3, 5, 11], [2, 2, 7, -1]])
            assert_same(features, positions, torch.linspace(-1, 1, 165).to(dtype))
    finally:
        torch.ops.pixelbert_fast_native.use_cpu_level(2)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_every_element_of_the_gradient_is_written(layout: str, poisoned_memory: None) -> None:
    """All places, none, one image unread, odd sides: memory that starts as NaN holds none afterwards."""
    features = in_layout(map_values((3, 19, 7, 9), torch.float32), layout)
    for positions in (torch.arange(12).expand(2, 12), torch.full((2, 3), -1), torch.zeros(2, 0, dtype=int)):
        out, grad, _ = run(
            "cpu", features, positions, None, torch.tensor([2, 0]), torch.ones(*positions.shape, 19)
        )
        assert not out.isnan().any()
        assert not grad.isnan().any()
        assert grad.sum() == 19 * (positions >= 0).sum()
        assert grad.stride() == features.stride()
        assert not grad[:, :, 6].any() and not grad[:, :, :, 8].any() and not grad[1].any()


@pytest.fixture
def poisoned_memory():
    """New memory is filled with NaN while deterministic algorithms are asked for."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def test_the_gradient_of_nan_goes_to_the_last_one() -> None:
    nan = math.nan
    for layout in ("contiguous", "channels_last"):
        features = torch.tensor([nan, 1.0, nan, 9.0]).view(1, 1, 2, 2).expand(1, 70, 2, 2)
        _, grad, _ = run(
            "cpu", in_layout(features, layout), torch.tensor([[0]]), None, None, torch.ones(1, 1, 70)
        )
        assert grad[0, 69].tolist() == grad[0, 0].tolist() == [[0, 0], [1, 0]]


def test_repeated_places_add_up_in_float32() -> None:
    """300 readers of one window: a bfloat16 sum would stop growing at 256."""
    for layout in ("contiguous", "channels_last"):
        features = in_layout(torch.ones(1, 20, 2, 2, dtype=torch.bfloat16), layout)
        grad = torch.ones(3, 100, 20, dtype=torch.bfloat16)
        positions = torch.zeros(3, 100, dtype=torch.int64)
        _, grad, _ = run("cpu", features, positions, None, torch.zeros(3, dtype=torch.int64), grad)
        assert (grad[0, :, 0, 0] == 300).all() and grad.sum() == 300 * 20


def test_the_same_gradient_however_many_threads() -> None:
    features = in_layout(map_values((4, 96, 12, 10), torch.float32), "channels_last")
    generator = torch.Generator().manual_seed(0)
    positions = torch.randint(-1, 30, (9, 40), generator=generator)
    image_index = torch.randint(0, 4, (9,), generator=generator)
    grad = torch.randn(9, 40, 96, generator=generator)
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(run("cpu", features, positions, None, image_index, grad)[1])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_without_windows_or_places() -> None:
    for shape, positions in [
        ((2, 3, 1, 8), torch.full((2, 4), -1)),
        ((2, 3, 4, 4), torch.zeros(2, 0, dtype=torch.int64)),
        ((0, 3, 4, 4), torch.zeros(0, 5, dtype=torch.int64)),
    ]:
        assert_same(torch.randn(shape), positions)


def test_numbers_that_nobody_may_follow() -> None:
    """Beyond the checks, as in a compiled graph: NaN in that row, and no gradient to anywhere."""
    features = torch.randn(2, 5, 4, 4, requires_grad=True)
    positions = torch.tensor([[0, 4], [-2, 2**31 - 1]], dtype=torch.int32)
    image_index = torch.tensor([0, 7], dtype=torch.int32)
    out, _ = registered.pool_gather(features, positions, None, image_index, True, "cpu")
    assert out.isnan().all(2).tolist() == [[False, True], [True, True]]
    out.sum().backward()
    assert features.grad.sum() == 5 and not features.grad[1].any()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients_by_differences(layout: str) -> None:
    features = in_layout(map_values((2, 5, 5, 4), torch.float64), layout).requires_grad_()
    embedding = torch.randn(5, dtype=torch.float64, requires_grad=True)
    positions, image_index = torch.tensor([[0, 3, 3], [1, -1, 2], [3, 0, 1]]), torch.tensor([1, 0, 1])
    assert torch.autograd.gradcheck(
        lambda f, e: ops.pool_gather(f, positions, e, image_index=image_index, backend="cpu"),
        (features, embedding),
    )


def one_by_one(case: tuple) -> torch.Tensor:
    valid, grid, count, seed, key = case
    return ops.sample_positions(
        torch.tensor([valid]), grid, count, seed=seed, keys=torch.tensor([key]), backend="cpu"
    )


@pytest.mark.parametrize(("case", "places"), PLACES)
def test_known_places(case: tuple, places: list[int]) -> None:
    assert one_by_one(case)[0].tolist() == places


def test_sample_positions_equals_the_reference() -> None:
    for h, w, count in [(12, 16, 100), (1, 1, 1), (7, 30, 0), (25, 33, 825), (3, 3, 20), (0, 4, 2)]:
        valid, keys = ragged_draws(40, (h, w), seed=h)
        drawn = []
        for backend in ("cpu", "reference"):
            with backends.watch() as ran:
                drawn.append(
                    ops.sample_positions(valid, (h, w), count, seed=2**63 + 9, keys=keys, backend=backend)
                )
            assert ran == [("sample_positions", backend)]
        assert drawn[0].dtype == torch.int32 and torch.equal(*drawn)


def test_it_is_chosen_by_itself_and_refuses_with_a_reason() -> None:
    features = torch.randn(1, 3, 4, 4)
    with backends.watch() as ran:
        ops.pool_gather(features, torch.tensor([[0]]))
    assert ran == [("pool_gather", "cpu")]
    assert "on cuda" in cpu_backend.why_not("pool_gather", "cuda", torch.float32)


def test_a_missing_library_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_backend, "LIBRARIES", "_nothing.*")
    cpu_backend.why_not_loaded.cache_clear()
    try:
        with pytest.raises(
            ops.BackendError, match=r"was not built \(.+\); install again with PIXELBERT_FAST_BUILD=force"
        ):
            ops.pool_gather(torch.randn(1, 3, 4, 4), torch.tensor([[0]]), backend="cpu")
    finally:
        cpu_backend.why_not_loaded.cache_clear()
