"""Kernels of the `cpu` backend made wrong, each in a way that a real one could be."""

from __future__ import annotations

import pytest
import torch

from pixelbert_fast.ops import cpu_backend


def break_kernel(monkeypatch: pytest.MonkeyPatch, function: str, wrong) -> None:
    right = getattr(cpu_backend, function)
    monkeypatch.setattr(cpu_backend, function, lambda *arguments: wrong(*arguments, right=right))


def another_winner(*arguments, right):
    out, winners = right(*arguments)
    return out, (winners + 1) % 4


def one_rounding_off(*arguments, right):
    out, winners = right(*arguments)
    return out * (1 + torch.finfo(out.dtype).eps), winners


def last_channel_unwritten(*arguments, right):
    whole, winners = right(*arguments)
    out = torch.empty_like(whole)
    out[..., :-1] = whole[..., :-1]
    return out, winners


def wider(*arguments, right):
    out, winners = right(*arguments)
    return out.double(), winners


def right_with_gradients_only(*arguments, right):
    out, winners = right(*arguments)
    return (out if winners.numel() else out + 1), winners


def without_embedding(features, positions, embedding, image_index, save_winners, right):
    return right(features, positions, None, image_index, save_winners)


def sums_of_sixteen_bits(grad, winners, positions, image_index, shape, channels_last, right):
    """Repeated places added up one after another in the dtype, as an atomic addition would."""
    out = torch.zeros_like(right(grad, winners, positions, image_index, shape, channels_last))
    for column in range(positions.shape[1]):
        one = slice(column, column + 1)
        for row in range(positions.shape[0]):
            image = torch.tensor([row if image_index is None else image_index[row]], dtype=torch.int32)
            here = (slice(row, row + 1), one)
            out += right(grad[here], winners[here].contiguous(), positions[here], image, shape, channels_last)
    return out


def raising(*_, right):
    raise RuntimeError("no kernel image\nis available")


def a_neighbour(valid_grid, grid, count, seed, keys, right):
    places = right(valid_grid, grid, count, seed, keys)
    places[places > 0] -= 1
    return places
