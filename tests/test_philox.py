"""Philox 4x32-10 in plain PyTorch against the published known answers."""

import pytest
import torch

from pixelbert_fast.ops.philox_reference import philox_4x32
from tests.philox_answers import KNOWN


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    words = philox_4x32(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert tuple(int(word) for word in words) == expected
