"""The CUDA kernels on a GPU against the plain PyTorch twins; `test_cuda_emulation.py` runs them on a CPU."""

from __future__ import annotations

import math

import pytest
import torch

from pixelbert_fast import ops
from pixelbert_fast.ops import backends, cuda_backend, registered

REASON = cuda_backend.why_not("pool_gather", "cuda", torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# (B, C, H, W): whole vectors, odd sides; single elements; one window; one channel; several tiles; wide rows.
SHAPES = [(3, 64, 7, 5), (2, 37, 6, 8), (1, 8, 2, 3), (2, 1, 4, 5), (2, 136, 5, 16), (2, 2048, 25, 33)]
LAYOUTS = ["contiguous", "channels_last", "transposed", "sliced"]


def in_layout(values: torch.Tensor, layout: str) -> torch.Tensor:
    """`values` in a memory layout; the slice lies in a larger map filled with NaN."""
    if layout == "contiguous":
        return values.contiguous()
    if layout == "channels_last":
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return values.transpose(2, 3).contiguous().transpose(2, 3)
    batch, channels, height, width = values.shape
    size = (batch + 1, channels + 3, height + 2, width + 1)
    larger = torch.full(size, math.nan, dtype=values.dtype, device=values.device)
    inner = larger.contiguous(memory_format=torch.channels_last)[1:, 2:-1, 1:-1, :-1]
    inner.copy_(values)
    return inner


def case(shape: tuple[int, ...], dtype: torch.dtype, layout: str, device: str = "cuda"):
    """Ties, zeros of both signs, NaN and infinities; repeated places, -1, and images in no order."""
    generator = torch.Generator().manual_seed(sum(shape))
    drawn = torch.randint(-2, 3, shape, generator=generator).double()
    choice = torch.randint(0, 30, shape, generator=generator)
    for number, special in enumerate([math.nan, -math.nan, math.inf, -math.inf, 6e-8, -0.0, -0.0]):
        drawn = torch.where(choice == number, special, drawn)
    places = (shape[2] // 2) * (shape[3] // 2)
    positions = torch.randint(-1, places, (5, 9), generator=generator)
    image_index = torch.tensor([1, 0, 1, 0, 1]) % shape[0]
    embedding = torch.randn(shape[1], generator=generator, dtype=torch.float64).to(dtype)
    grad = torch.randn(5, 9, shape[1], generator=generator, dtype=torch.float64).to(dtype)
    features = in_layout(drawn.to(device, dtype), layout)
    return (features, *(tensor.to(device) for tensor in (positions, image_index, embedding, grad)))


def run(backend: str, features, positions, image_index, embedding, grad) -> list:
    """Output, and the gradients of features and embedding."""
    features = features.detach().requires_grad_()
    embedding = None if embedding is None else embedding.detach().requires_grad_()
    with backends.watch() as ran:
        out = ops.pool_gather(features, positions, embedding, image_index=image_index, backend=backend)
        out.backward(grad)
    assert {name for _, name in ran} == {backend}
    return [out.detach(), features.grad, None if embedding is None else embedding.grad]


@pytest.fixture
def poisoned_memory():
    """New memory is filled with NaN while deterministic algorithms are asked for."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3, device="cuda").isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def assert_same(arguments: tuple) -> None:
    # The twin runs on a CPU: on a GPU it adds up with atomics, which deterministic algorithms refuse.
    plain = run("reference", *(None if tensor is None else tensor.cpu() for tensor in arguments))
    fast = run("cuda", *arguments)
    torch.testing.assert_close(fast[0].cpu(), plain[0], rtol=0, atol=0, equal_nan=True)
    # A few gradients add up in float32 (float64) in another order, and are rounded to the dtype once.
    bound = 4 * torch.finfo(fast[0].dtype).eps
    torch.testing.assert_close(fast[1].cpu(), plain[1], rtol=bound, atol=bound)
    if fast[2] is not None:
        wide = torch.promote_types(fast[0].dtype, torch.float32)
        bound = max(45 * torch.finfo(wide).eps, 2 * torch.finfo(fast[2].dtype).eps)
        torch.testing.assert_close(fast[2].cpu(), plain[2], rtol=bound, atol=bound)
    assert torch.equal(fast[1], run("cuda", *arguments)[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(dtype: torch.dtype, layout: str, poisoned_memory: None) -> None:
    for shape in SHAPES:
        features, positions, image_index, embedding, grad = case(shape, dtype, layout)
        assert_same((features, positions, image_index, None, grad))
        assert_same((features, positions, image_index, embedding, grad))


def test_it_is_chosen_by_itself() -> None:
    with backends.watch() as ran:
        ops.pool_gather(torch.randn(1, 3, 4, 4, device="cuda"), torch.tensor([[0]], device="cuda"))
        ops.sample_positions(torch.tensor([[2, 2]], device="cuda"), (2, 2), 2, seed=1)
    assert ran == [("pool_gather", "cuda"), ("sample_positions", "cuda")]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_numbers_that_nobody_may_follow(layout: str) -> None:
    features = in_layout(torch.randn(2, 8, 4, 4, device="cuda"), layout).requires_grad_()
    positions = torch.tensor([[0, 4], [-2, 2**31 - 1], [-1, 1]], dtype=torch.int32, device="cuda")
    image_index = torch.tensor([0, 7, -1], dtype=torch.int32, device="cuda")
    out, _ = registered.pool_gather(features, positions, None, image_index, True, "cuda")
    assert out.isnan().all(2).tolist() == [[False, True], [True, True], [False, True]]
    assert (out[2, 0] == 0).all()
    out.sum().backward()
    assert features.grad.sum() == 8 and not features.grad[1].any()


def test_without_windows_or_places() -> None:
    for shape, positions in [
        ((2, 3, 1, 8), torch.full((2, 4), -1)),
        ((2, 3, 4, 4), torch.zeros(2, 0, dtype=torch.int64)),
        ((0, 3, 4, 4), torch.zeros(0, 5, dtype=torch.int64)),
    ]:
        features = torch.randn(shape, device="cuda", requires_grad=True)
        out = ops.pool_gather(features, positions.cuda(), backend="cuda")
        assert torch.equal(out.cpu(), torch.zeros(*positions.shape, 3))
        out.sum().backward()
        assert torch.equal(features.grad.cpu(), torch.zeros(shape))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients_by_differences(layout: str) -> None:
    features = in_layout(torch.randn(2, 5, 5, 4, dtype=torch.float64, device="cuda"), layout)
    positions = torch.tensor([[0, 3, 3], [1, -1, 2], [3, 0, 1]], device="cuda")
    image_index = torch.tensor([1, 0, 1], device="cuda")
    embedding = torch.randn(5, dtype=torch.float64, device="cuda", requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda f, e: ops.pool_gather(f, positions, e, image_index=image_index, backend="cuda"),
        (features.requires_grad_(), embedding),
    )


def sampling_case(device: str):
    generator = torch.Generator().manual_seed(4)
    valid = torch.stack([torch.randint(0, side + 1, (40,), generator=generator) for side in (25, 33)], dim=1)
    keys = torch.randint(-(2**62), 2**62, (40,), generator=generator)
    return valid.to(device), keys.to(device)


@pytest.mark.parametrize("count", [0, 1, 100, 825, 900])
def test_sample_positions_equals_the_reference(count: int) -> None:
    drawn = []
    for backend, device in (("cuda", "cuda"), ("reference", "cpu")):
        valid, keys = sampling_case(device)
        options = {"seed": 2**63 + 9, "keys": keys, "backend": backend}
        drawn.append(ops.sample_positions(valid, (25, 33), count, **options).cpu())
    assert torch.equal(*drawn)


def test_on_a_grid_larger_than_any_block() -> None:
    valid, keys = torch.tensor([[1100, 1000]]), torch.tensor([3])
    found = ops.sample_positions(valid.cuda(), (1100, 1000), 5000, seed=1, keys=keys.cuda(), backend="cuda")
    expected = ops.sample_positions(valid, (1100, 1000), 5000, seed=1, keys=keys, backend="reference")
    assert torch.equal(found.cpu(), expected)


def whole_step(features, positions, image_index, embedding, grad, valid, keys, seed):
    places = ops.sample_positions(valid, (25, 33), 50, seed=seed, keys=keys, backend="cuda")
    out = ops.pool_gather(features, positions, embedding, image_index=image_index, backend="cuda")
    (grad_features,) = torch.autograd.grad(out, features, grad)
    return places, out, grad_features


def test_on_the_callers_stream() -> None:
    arguments = case((2, 64, 25, 33), torch.bfloat16, "channels_last")
    expected = run("cuda", *arguments)
    stream = torch.cuda.Stream()
    # The stream first waits for what takes long: a kernel on another stream would read what is not yet there.
    features = torch.zeros_like(arguments[0])
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        features.copy_(arguments[0])
        found = run("cuda", features, *arguments[1:])
    stream.synchronize()
    assert torch.equal(found[0].nan_to_num(), expected[0].nan_to_num())
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_in_a_cuda_graph(layout: str) -> None:
    features, positions, image_index, embedding, grad = case((2, 64, 25, 33), torch.float32, layout)
    valid, keys = sampling_case("cuda")
    seed = torch.tensor(7, device="cuda")
    features.nan_to_num_().requires_grad_()
    arguments = (features, positions, image_index, embedding, grad, valid, keys, seed)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        whole_step(*arguments)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = whole_step(*arguments)
    with torch.no_grad():
        features.copy_(features.flip(1))
        positions.copy_(positions.flip(0))
        seed.fill_(8)
    graph.replay()
    torch.cuda.synchronize()
    for found, expected in zip(captured, whole_step(*arguments), strict=True):
        assert torch.equal(found, expected)


def test_nothing_waits_for_the_device() -> None:
    arguments = (*case((2, 64, 25, 33), torch.float32, "channels_last"), *sampling_case("cuda"))
    seed = torch.tensor(7, device="cuda")
    arguments[0].requires_grad_()
    whole_step(*arguments, seed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        whole_step(*arguments, seed)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU here")
def test_on_another_device_than_the_current_one() -> None:
    arguments = case((2, 64, 6, 8), torch.float32, "channels_last", "cuda:1")
    assert_same(arguments)
    assert torch.cuda.current_device() == 0
    valid, keys = sampling_case("cuda:1")
    drawn = ops.sample_positions(valid, (25, 33), 10, seed=1, keys=keys, backend="cuda")
    assert drawn.device == torch.device("cuda:1")
