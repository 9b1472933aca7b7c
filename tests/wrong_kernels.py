"""Kernels of the `cpu` backend made wrong, each in a way that a real one could be."""

from __future__ import annotations

import pytest
import torch

from pixelbert_fast.ops import cpu_backend


def break_kernel(monkeypatch: pytest.MonkeyPatch, function: str, wrong) -> None:
    right = getattr(cpu_backend, function)
    monkeypatch.setattr(cpu_backend, function, lambda *arguments: wrong(*arguments, right=right))


def another_winner(features, positions, embedding, image_index, right):
    out, winners = right(features, positions, embedding, image_index)
    return out, (winners + 1) % 4


def one_rounding_off(features, positions, embedding, image_index, right):
    out, winners = right(features, positions, embedding, image_index)
    return out * (1 + torch.finfo(out.dtype).eps), winners


def last_channel_unwritten(features, positions, embedding, image_index, right):
    whole, winners = right(features, positions, embedding, image_index)
    out = torch.empty_like(whole)
    out[..., :-1] = whole[..., :-1]
    return out, winners


def wider(features, positions, embedding, image_index, right):
    out, winners = right(features, positions, embedding, image_index)
    return out.double(), winners


def without_embedding(features, positions, embedding, image_index, right):
    return right(features, positions, None, image_index)


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
