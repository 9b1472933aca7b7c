"""`sample_positions`: known answers and the contract."""

import pytest
import torch

from pixelbert_fast.ops import sample_positions
from pixelbert_fast.ops.philox_reference import philox_4x32
from tests.known_answers import PLACES


def one_by_one(valid, grid, count, seed, key):
    """The definition, place by place in Python integers."""
    words = []
    for row in range(valid[0]):
        for column in range(valid[1]):
            counter = [torch.tensor(v) for v in (row, column, key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF)]
            seeds = [torch.tensor(v) for v in (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)]
            words.append((int(philox_4x32(tuple(counter), tuple(seeds))[0]), row * grid[1] + column))
    chosen = sorted(place for _, place in sorted(words)[:count])
    return chosen + [-1] * (count - len(chosen))


@pytest.mark.parametrize(("valid", "grid", "count", "seed", "key"), [case[0] for case in PLACES])
def test_matches_the_definition_place_by_place(valid, grid, count, seed, key):
    drawn = sample_positions(torch.tensor([valid]), grid, count, seed=seed, keys=torch.tensor([key]))
    assert drawn.dtype == torch.int32
    assert drawn[0].tolist() == one_by_one(valid, grid, count, seed, key)


@pytest.mark.parametrize(("case", "places"), PLACES)
def test_known_answers(case, places):
    valid, grid, count, seed, key = case
    drawn = sample_positions(torch.tensor([valid]), grid, count, seed=seed, keys=torch.tensor([key]))
    assert drawn[0].tolist() == places


def test_padding_and_neighbours_change_nothing():
    valid = torch.tensor([[4, 7], [9, 3]], dtype=torch.int32)
    keys = torch.tensor([12, 2**40 + 5])
    alone = sample_positions(valid[1:], (9, 3), 11, seed=3, keys=keys[1:])[0]
    padded = sample_positions(valid, (12, 20), 11, seed=3, keys=keys)[1]
    assert [(p // 3, p % 3) for p in alone.tolist()] == [(p // 20, p % 20) for p in padded.tolist()]


def test_fewer_valid_places_than_asked_for():
    drawn = sample_positions(torch.tensor([[2, 2], [0, 5]]), (3, 5), 6, seed=0)
    assert drawn.tolist() == [[0, 1, 5, 6, -1, -1], [-1] * 6]


def test_empty_requests():
    assert sample_positions(torch.zeros(0, 2, dtype=torch.int32), (3, 3), 4, seed=0).shape == (0, 4)
    assert sample_positions(torch.tensor([[3, 3]]), (3, 3), 0, seed=0).shape == (1, 0)


def test_default_keys_and_tensor_seed():
    valid = torch.tensor([[6, 6]] * 3)
    assert torch.equal(
        sample_positions(valid, (6, 6), 5, seed=9),
        sample_positions(valid, (6, 6), 5, seed=torch.tensor(9), keys=torch.arange(3, dtype=torch.int16)),
    )
    assert torch.equal(
        sample_positions(valid, (6, 6), 5, seed=-1), sample_positions(valid, (6, 6), 5, seed=2**64 - 1)
    )
    assert not torch.equal(
        sample_positions(valid, (6, 6), 5, seed=9), sample_positions(valid, (6, 6), 5, seed=9 + 2**32)
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[3, 3]], (3, 3), 2), TypeError, "valid_grid must be a tensor"),
        ((torch.ones(1, 2), (3, 3), 2), TypeError, "valid_grid must be one of int32"),
        ((torch.ones(2, dtype=torch.int32), (3, 3), 2), ValueError, r"valid_grid must be \[N, 2\]"),
        ((torch.ones(1, 3, dtype=torch.int32), (3, 3), 2), ValueError, "rows, columns"),
        ((torch.tensor([[4, 3]]), (3, 3), 2), IndexError, "valid_grid rows must lie in 0 .. 3"),
        ((torch.tensor([[3, 3]]), (3, -1), 2), ValueError, "grid must be"),
        ((torch.tensor([[3, 3]]), 3, 2), ValueError, "grid must be two integers"),
        ((torch.tensor([[3, 3]]), (3, 3), -1), ValueError, "count must be"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        sample_positions(*arguments, seed=0)


def test_wrong_seed_keys_and_backend_are_named():
    valid = torch.tensor([[3, 3]])
    with pytest.raises(TypeError, match="seed must be"):
        sample_positions(valid, (3, 3), 2, seed=1.5)
    with pytest.raises(ValueError, match="keys must have one entry"):
        sample_positions(valid, (3, 3), 2, seed=0, keys=torch.arange(2))
    with pytest.raises(ValueError, match="backend must be one of reference"):
        sample_positions(valid, (3, 3), 2, seed=0, backend="tpu")


@pytest.mark.parametrize("backend", ["reference", None])
def test_compiled_to_machine_code_it_draws_the_same(backend):
    """Inductor's own C++ of the reference's 64-bit arithmetic gives other words: it must not be traced."""
    valid = torch.tensor([[12, 16], [12, 16], [7, 9]])

    def draw():
        return sample_positions(valid, (12, 16), 20, seed=1, backend=backend) + 1

    assert torch.equal(torch.compile(draw, fullgraph=True)(), draw())
