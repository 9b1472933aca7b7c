"""Philox 4x32-10 in plain PyTorch against the published known answers."""

import pytest
import torch

from pixelbert_fast.ops.philox_reference import philox_4x32
from tests.known_answers import PHILOX


@pytest.mark.parametrize(("counter", "key", "expected"), PHILOX)
def test_known_answers(counter, key, expected):
    words = philox_4x32(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert tuple(int(word) for word in words) == expected
