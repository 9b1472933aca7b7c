"""`sample_positions` on Triton, interpreted on a CPU; `test_triton_interpreter.py` runs this file."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from pixelbert_fast.kernels.sample_positions import philox_first_word
from pixelbert_fast.ops import triton_backend
from pixelbert_fast.ops.sample_positions_reference import sample_positions_reference
from tests.known_answers import PHILOX, PLACES


@triton.jit
def first_word_kernel(words, out):
    row = tl.program_id(0)
    words += 6 * row
    drawn = philox_first_word(
        tl.load(words).to(tl.uint32),
        tl.load(words + 1).to(tl.uint32),
        tl.load(words + 2).to(tl.uint32),
        tl.load(words + 3).to(tl.uint32),
        tl.load(words + 4).to(tl.uint32),
        tl.load(words + 5).to(tl.uint32),
    )
    tl.store(out + row, drawn.to(tl.int64))


def test_published_answers_of_philox() -> None:
    words = torch.tensor([[*counter, *key] for counter, key, _ in PHILOX])
    out = torch.full((len(PHILOX),), -1)
    first_word_kernel[(len(PHILOX),)](words, out)
    assert out.tolist() == [expected[0] for _, _, expected in PHILOX]


@pytest.mark.parametrize(("case", "places"), PLACES)
def test_known_places(case: tuple, places: list[int]) -> None:
    valid, grid, count, seed, key = case
    valid = torch.tensor([valid], dtype=torch.int32)
    out = triton_backend.sample_positions(valid, grid, count, torch.tensor(seed), torch.tensor([key]))
    assert out.tolist() == [places]


@pytest.mark.parametrize("grid", [(1, 1), (12, 17), (40, 60)])
def test_equals_the_reference(grid: tuple[int, int]) -> None:
    sides = torch.tensor(grid)
    valid = torch.stack([sides, sides // 2, (sides + 1) // 2, sides * 0, sides.clamp(max=3)]).int()
    keys = torch.tensor([0, -5, 2**40 + 5, 7, -(2**63)])
    for count in (7, grid[0] * grid[1], grid[0] * grid[1] + 40):
        for seed in (12345678901234567, -1):
            out = triton_backend.sample_positions(valid, grid, count, torch.tensor(seed), keys)
            assert torch.equal(out, sample_positions_reference(valid, grid, count, seed=seed, keys=keys))
    out = triton_backend.sample_positions(valid, grid, 4, torch.tensor(3), None)
    assert torch.equal(out, sample_positions_reference(valid, grid, 4, seed=3))


def test_nothing_to_draw() -> None:
    valid, seed, key = torch.tensor([[2, 3]]).int(), torch.tensor(-1), torch.tensor([1099511627779])
    assert triton_backend.sample_positions(valid, (5, 9), 0, seed, key).shape == (1, 0)
    assert triton_backend.sample_positions(valid * 0, (0, 0), 3, seed, key).tolist() == [[-1, -1, -1]]
    assert triton_backend.sample_positions(valid[:0], (5, 9), 3, seed, key[:0]).shape == (0, 3)
