"""The CUDA kernels, run by a CPU with every access checked, against the plain PyTorch twins."""

from __future__ import annotations

import math

import pytest
import torch

from pixelbert_fast.ops.philox_reference import philox_4x32
from pixelbert_fast.ops.pool_gather_reference import pool_gather_reference
from pixelbert_fast.ops.sample_positions_reference import sample_positions_reference, signed_64
from tests import emulated_cuda as cuda

pytestmark = pytest.mark.skipif(cuda.COMPILER is None, reason="no C++ compiler here")

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# (B, C, H, W): whole vectors, odd sides; single elements; one window; one channel; several tiles; wide rows.
SHAPES = [(3, 64, 7, 5), (2, 37, 6, 8), (1, 8, 2, 3), (2, 1, 4, 5), (2, 136, 5, 16), (1, 24, 9, 24)]
LAYOUTS = ["contiguous", "channels_last", "transposed", "sliced", "aligned_slice"]
PAIRS, TILES = "tiles of pairs", "tiles, vectors in"


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory):
    return cuda.compiled(tmp_path_factory.mktemp("emulation"))


def in_layout(values: torch.Tensor, layout: str) -> torch.Tensor:
    """`values` in a memory layout; the slices lie in a larger map filled with NaN."""
    if layout == "contiguous":
        return values.contiguous()
    if layout == "channels_last":
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return values.transpose(2, 3).contiguous().transpose(2, 3)
    batch, channels, height, width = values.shape
    before, after = (1, 2) if layout == "sliced" else (8, 8 - channels % 8)
    larger = torch.full((batch + 1, before + channels + after, height + 2, width + 1), math.nan)
    larger = larger.to(values.dtype).contiguous(memory_format=torch.channels_last)
    inner = larger[1:, before : before + channels, 1:-1, :-1]
    inner.copy_(values)
    return inner


def case(shape: tuple[int, ...], dtype: torch.dtype, layout: str, special: bool):
    """Features, positions of five sequences with repeats and -1, image_index in no order, embedding."""
    generator = torch.Generator().manual_seed(sum(shape))
    drawn = torch.randint(-2, 3, shape, generator=generator).double()  # ties are frequent
    drawn = torch.where(torch.rand(shape, generator=generator) < 0.3, -0.0, drawn)
    if special:
        choice = torch.randint(0, 9, shape, generator=generator)
        for number, value in enumerate([math.nan, -math.nan, math.inf, -math.inf, 6e-8]):
            drawn = torch.where(choice == number, value, drawn)
    places = (shape[2] // 2) * (shape[3] // 2)
    positions = torch.randint(-1, places, (5, 9), generator=generator)
    image_index = torch.tensor([1, 0, 1, 0, 1]) % shape[0]  # of three images one that nobody reads
    embedding = torch.randn(shape[1], generator=generator, dtype=torch.float64).to(dtype)
    return in_layout(drawn.to(dtype), layout), positions, image_index, embedding


def reference(features, positions, image_index, embedding, grad):
    features = features.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = pool_gather_reference(features, positions, embedding, image_index=image_index)
    out.backward(grad)
    return out.detach(), features.grad


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pool_gather_equals_the_reference(kernels, dtype: torch.dtype, layout: str) -> None:
    for shape in SHAPES:
        for special in (False, True):
            features, positions, image_index, embedding = case(shape, dtype, layout, special)
            grad = torch.randn(5, 9, shape[1], dtype=torch.float64).to(dtype)
            for vector in (None, embedding):
                expected, expected_grad = reference(features, positions, image_index, vector, grad)
                out, winners, _ = cuda.pool_gather_forward(kernels, features, positions, vector, image_index)
                torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
            again, _, _ = cuda.pool_gather_forward(
                kernels, features, positions, vector, image_index, save_winners=False
            )
            torch.testing.assert_close(again, out, rtol=0, atol=0, equal_nan=True)
            for channels_last in (False, True):
                found, _ = cuda.pool_gather_backward(
                    kernels, grad, winners, positions, image_index, shape, channels_last
                )
                # Some gradients add up in float32 (float64), in another order, and are rounded once.
                bound = 4 * torch.finfo(dtype).eps
                torch.testing.assert_close(found, expected_grad, rtol=bound, atol=bound)


@pytest.mark.parametrize(
    ("shape", "dtype", "layout", "forward", "backward"),
    [
        ((2, 64, 6, 8), torch.bfloat16, "channels_last", "rows by 8", "rows by 8"),
        ((2, 64, 6, 8), torch.float32, "channels_last", "rows by 4", "rows by 4"),
        ((2, 64, 6, 8), torch.float64, "aligned_slice", "rows by 2", "rows by 2"),
        ((2, 64, 6, 8), torch.float16, "sliced", "rows by 1", "rows by 8"),
        ((2, 61, 6, 8), torch.bfloat16, "channels_last", "rows by 1", "rows by 1"),
        ((2, 61, 6, 8), torch.bfloat16, "contiguous", PAIRS, "tiles, vectors out"),
        ((2, 64, 6, 8), torch.float16, "contiguous", f"{PAIRS}, vectors out", f"{TILES}, vectors out"),
        ((2, 64, 7, 9), torch.float32, "contiguous", "tiles, vectors out", TILES),
        ((2, 61, 7, 9), torch.float32, "transposed", "tiles", "tiles"),
        ((2, 1, 6, 8), torch.float32, "contiguous", "rows by 1", "rows by 1"),
    ],
)  # fmt: skip
def test_wide_accesses_where_strides_allow_them(kernels, shape, dtype, layout, forward, backward) -> None:
    features, positions, image_index, embedding = case(shape, dtype, layout, False)
    out, winners, ran = cuda.pool_gather_forward(kernels, features, positions, embedding, image_index)
    assert ran == [forward]
    channels_last = features.stride(1) == 1
    _, ran = cuda.pool_gather_backward(kernels, out, winners, positions, image_index, shape, channels_last)
    assert ran == ["readers", backward]


def test_addresses_between_vectors_are_read_by_single_elements(kernels) -> None:
    """Strides of whole vectors, and a map, an embedding, an output or a gradient that begins between two."""
    features, positions, _, embedding = case((5, 64, 6, 8), torch.float32, "channels_last", False)
    expected, winners, ran = cuda.pool_gather_forward(kernels, features, positions, embedding)
    assert ran == ["rows by 4"]
    memory = torch.full((features.numel() + 1,), math.nan)
    moved = torch.as_strided(memory, features.shape, features.stride(), 1).copy_(features)
    vector = torch.cat([torch.zeros(1), embedding])[1:]
    out = torch.full((expected.numel() + 1,), math.nan)[1:].view(expected.shape)
    for options in ({"features": moved}, {"embedding": vector}, {"out": out}):
        arguments = {"features": features, "embedding": embedding, "out": None} | options
        found, _, ran = cuda.pool_gather_forward(kernels, positions=positions, **arguments)
        assert ran == ["rows by 1"] and torch.equal(found, expected)
    shifted = torch.cat([torch.zeros(1), expected.flatten()])[1:].view(expected.shape)
    for channels_last, kernel, narrow in (
        (True, "rows by 4", "rows by 1"),
        (False, f"{TILES}, vectors out", "tiles, vectors out"),
    ):
        arguments = (winners, positions, None, features.shape, channels_last)
        found, ran = cuda.pool_gather_backward(kernels, expected, *arguments)
        again, ran_shifted = cuda.pool_gather_backward(kernels, shifted, *arguments)
        assert (ran[1], ran_shifted[1]) == (kernel, narrow) and torch.equal(found, again)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_gradient_of_nan_goes_to_the_last_one(kernels, layout: str) -> None:
    features = torch.tensor([math.nan, 1.0, math.nan, 9.0]).view(1, 1, 2, 2).repeat(1, 72, 1, 1)
    features = in_layout(features, layout)
    _, winners, _ = cuda.pool_gather_forward(kernels, features, torch.tensor([[0]]))
    assert (winners == 2).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_repeated_places_add_up_in_row_order(kernels, dtype: torch.dtype) -> None:
    """300 readers: a bfloat16 sum would stop at 256. And sums that only the order of the rows gives."""
    positions, image_index = torch.zeros(3, 100, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    winners = torch.full((3, 100, 24), 3, dtype=torch.uint8)
    rows = torch.randn(300, 24, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(dtype)
    wide = rows.to(torch.promote_types(dtype, torch.float32))
    ordered = torch.zeros_like(wide[0])
    for row in wide:
        ordered = ordered + row
    for channels_last in (False, True):
        grad = torch.ones(3, 100, 24, dtype=dtype)
        arguments = (winners, positions, image_index, (1, 24, 2, 2), channels_last)
        found, _ = cuda.pool_gather_backward(kernels, grad, *arguments)
        assert (found[0, :, 1, 1] == 300).all() and found.sum(dtype=torch.float64) == 300 * 24
        found, _ = cuda.pool_gather_backward(kernels, rows.view(3, 100, 24), *arguments)
        assert torch.equal(found[0, :, 1, 1], ordered.to(dtype))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_numbers_that_nobody_may_follow(kernels, layout: str) -> None:
    """NaN in that row, zeros for -1, no gradient to anywhere, and no access out of bounds."""
    features = in_layout(torch.randn(2, 8, 4, 4), layout)
    positions = torch.tensor([[0, 4, -1], [-2, 2**31 - 1, 3], [1, -1, -(2**31)], [2, 1, 0]])
    image_index = torch.tensor([0, 7, -1, 2**31 - 1])
    out, winners, _ = cuda.pool_gather_forward(kernels, features, positions, torch.ones(8), image_index)
    inside = torch.tensor([[True, False, False]] + 3 * [[False] * 3])
    assert torch.equal(out.isnan().all(2), ~inside & (positions != -1))
    assert torch.equal((out == 0).all(2), positions == -1)
    grad, _ = cuda.pool_gather_backward(
        kernels, torch.ones_like(out), winners, positions, image_index, (2, 8, 4, 4), layout != "contiguous"
    )
    assert grad.sum() == 8 and not grad[1].any()


def test_without_windows_or_places(kernels) -> None:
    for shape, positions in [
        ((2, 8, 1, 8), torch.tensor([[-1, 0], [-1, -1]])),
        ((2, 3, 4, 4), torch.zeros(2, 0, dtype=torch.int64)),
        ((0, 3, 4, 4), torch.zeros(0, 5, dtype=torch.int64)),
        ((2, 3, 1, 0), torch.full((2, 2), -1)),
    ]:
        features, vector = torch.randn(shape), torch.ones(shape[1])
        out, winners, _ = cuda.pool_gather_forward(kernels, features, positions, vector)
        expected = torch.where(positions == -1, 0.0, math.nan)[..., None].expand(out.shape)
        torch.testing.assert_close(out, expected, equal_nan=True)
        for channels_last in (False, True):
            grad, _ = cuda.pool_gather_backward(
                kernels, torch.ones_like(out), winners, positions, None, shape, channels_last
            )
            assert torch.equal(grad, torch.zeros(shape))


def test_division_by_multiplication(kernels) -> None:
    generator = torch.Generator().manual_seed(5)
    divisors = [*range(1, 70), 2**31 - 1, 2**31, 2**31 + 1, 2**33 - 1, 10**15 + 37, 2**61 + 3]
    for divisor in divisors:
        numbers = torch.randint(0, 2**63 - 1, (20,), generator=generator).tolist()
        numbers += [0, 1, 2**32 - 1, 2**32, 2**62, 2**63 - 1]
        multiples = [number // divisor * divisor for number in numbers]
        for number in [*numbers, *multiples, *(multiple - 1 for multiple in multiples if multiple)]:
            assert kernels.divided(number, divisor) == number // divisor
    assert kernels.divided(7, 0) == 7  # of a grid without columns, which nobody divides by


def test_sample_positions_equals_the_reference(kernels) -> None:
    generator = torch.Generator().manual_seed(4)
    sizes = [(12, 16, 100), (1, 1, 1), (7, 30, 0), (25, 33, 825), (3, 3, 20), (0, 4, 2), (40, 60, 300)]
    for h, w, count in sizes:
        valid = torch.stack([torch.randint(0, side + 2, (9,), generator=generator) for side in (h, w)], dim=1)
        valid[0] = torch.tensor([h, w])
        keys = torch.randint(-(2**62), 2**62, (9,), generator=generator)
        seed = 2**63 + 9
        out = cuda.sample_positions(kernels, valid, (h, w), count, signed_64(seed), keys)
        expected = sample_positions_reference(
            valid.clamp(max=torch.tensor([h, w])), (h, w), count, seed=seed, keys=keys
        )
        assert torch.equal(out, expected)


# As in tests/test_sample_positions.py: every backend must give these for ever.
@pytest.mark.parametrize(
    ("valid", "grid", "count", "seed", "key", "places"),
    [
        ((3, 4), (3, 4), 5, 0, 0, [0, 2, 8, 9, 10]),
        ((6, 6), (6, 6), 8, 1234567890123, 7, [7, 9, 18, 21, 27, 29, 32, 34]),
        ((2, 3), (5, 9), 4, -1, 1099511627779, [1, 2, 10, 11]),
        ((2, 2), (4, 4), 6, 3, 1, [0, 1, 4, 5, -1, -1]),
    ],
)
def test_known_places(kernels, valid, grid, count, seed, key, places) -> None:
    drawn = cuda.sample_positions(kernels, torch.tensor([valid]), grid, count, seed, torch.tensor([key]))
    assert drawn[0].tolist() == places


def test_equal_words_go_to_the_lowest_places(kernels) -> None:
    """Among 65,536 words two are often equal: draw as many as take in the first of them, then both."""
    side = 256
    place = torch.arange(side * side)
    found = 0
    for key in range(6):
        counter = (place // side, place % side, torch.tensor(key), torch.tensor(0))
        words = philox_4x32(counter, (torch.tensor(11), torch.tensor(0)))[0]
        ordered, _ = words.sort()
        twins = (ordered[1:] == ordered[:-1]).nonzero().flatten()[:1].tolist()
        for below in twins:
            found += 1
            for count in (below + 1, below + 2):
                valid, keys = torch.tensor([[side, side]]), torch.tensor([key])
                out = cuda.sample_positions(kernels, valid, (side, side), count, 11, keys)
                expected = sample_positions_reference(valid, (side, side), count, seed=11, keys=keys)
                assert torch.equal(out, expected)
    assert found
