"""The ops on a CPU, by every backend that the installation has there."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pixelbert_fast import ops
from pixelbert_fast.ops import backends

CPU_BACKENDS = ("reference", "cpu")


@pytest.fixture(params=CPU_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    reason = backends.why_not(request.param, "pool_gather", "cpu", torch.float32)
    if reason is not None:
        pytest.skip(reason)
    return request.param


def drawn(backend: str) -> torch.Tensor:
    return ops.sample_positions(torch.tensor([[4, 5], [3, 2]]), (4, 5), 7, seed=11, backend=backend)


def test_places_are_drawn_in_order_without_repetition(backend: str) -> None:
    places = drawn(backend)
    assert places.dtype == torch.int32 and places.shape == (2, 7)
    whole, small = places.tolist()
    assert sorted(set(whole)) == whole and whole[0] >= 0 and whole[-1] < 20
    assert small == [0, 1, 5, 6, 10, 11, -1]
    assert torch.equal(places, drawn("reference"))


def test_pool_gather_is_max_pooling_at_the_places(backend: str) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 16, 8, 11).to(memory_format=torch.channels_last).requires_grad_()
    vector = torch.randn(16)
    places = torch.tensor([[0, 3, 19], [7, 7, -1]], dtype=torch.int32)
    found = ops.pool_gather(features, places, vector, backend=backend)
    pooled = F.max_pool2d(features, 2).flatten(2).transpose(1, 2)
    expected = torch.stack([pooled[row][places[row].long()] for row in range(2)]) + vector
    assert torch.equal(found[:, :2], expected[:, :2]) and not found[1, 2].any()
    weights = torch.randn_like(found)
    weights[1, 2] = 0
    (grad,) = torch.autograd.grad((found * weights).sum(), features)
    (right,) = torch.autograd.grad((expected * weights).sum(), features)
    torch.testing.assert_close(grad, right)


@pytest.mark.parametrize("order", ["project_pool", "pool_project"])
def test_pixel_embed_projects_and_pools(order: str, backend: str) -> None:
    torch.manual_seed(1)
    features = torch.randn(1, 24, 6, 8).to(memory_format=torch.channels_last)
    weight, bias, vector = torch.randn(12, 24), torch.randn(12), torch.randn(12)
    places = torch.arange(12, dtype=torch.int32)[None]
    found = ops.pixel_embed(features, places, weight, bias, vector, order=order, backend=backend)
    if order == "project_pool":
        pooled = F.max_pool2d(F.conv2d(features, weight[:, :, None, None], bias), 2)
    else:
        pooled = F.conv2d(F.max_pool2d(features, 2), weight[:, :, None, None], bias)
    expected = pooled.flatten(2).transpose(1, 2) + vector
    # 24 products are added up in another order.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
