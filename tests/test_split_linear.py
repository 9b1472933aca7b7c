"""Float32 maps by bfloat16 products: within the bound that the halves' roundings give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelbert_fast.ops import split_linear
from pixelbert_fast.ops.split_linear import ERROR, SplitLinear

usable = pytest.mark.skipif(split_linear.why_not() is not None, reason=str(split_linear.why_not()))


def linear_of(inner, columns, scale=1.0):
    torch.manual_seed(inner + columns)
    linear = nn.Linear(inner, columns)
    with torch.no_grad():
        linear.weight.normal_(std=scale)
    return linear


@usable
@pytest.mark.parametrize(("inner", "columns"), [(32, 32), (64, 96), (768, 3072), (3072, 768)])
@pytest.mark.parametrize("rows", [0, 1, 31, 33, 219, 300])
def test_every_sum_is_within_the_bound(inner, columns, rows):
    linear = linear_of(inner, columns)
    split = SplitLinear(linear)
    x = torch.randn(rows, inner, generator=torch.Generator().manual_seed(rows)) * 3
    found, exact = split(x), nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())
    assert found.shape == (rows, columns) and found.dtype == torch.float32
    sizes = nn.functional.linear(x.double().abs(), linear.weight.double().abs(), linear.bias.double().abs())
    # Three products a number, each added with a rounding of float32.
    bound = (ERROR + (3 * inner + 1) * 2.0**-24) * sizes
    assert ((found - exact).abs() <= bound).all()


@usable
def test_it_errs_far_less_than_bfloat16_and_tf32():
    linear = linear_of(768, 768, scale=768**-0.5)
    x = torch.randn(256, 768)
    exact = nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())
    error = (SplitLinear(linear)(x) - exact).abs().max()
    half = (
        nn.functional.linear(x.bfloat16(), linear.weight.bfloat16(), linear.bias.bfloat16()) - exact
    ).abs()
    # Numbers of 11 bits, as TensorFloat32 rounds its factors.
    cut = [
        (one.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32) for one in (x, linear.weight.detach())
    ]
    tf32 = (nn.functional.linear(cut[0].double(), cut[1].double(), linear.bias.double()) - exact).abs()
    assert error < half.max() / 100 and error < tf32.max() / 10


@usable
def test_rows_of_any_strides_batches_and_threads_give_the_same():
    split = SplitLinear(linear_of(64, 64))
    x = torch.randn(5, 130, 128)[..., ::2]
    whole = split(x)
    assert whole.shape == (5, 130, 64)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(split(x), whole)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(split(x[2, 7]), whole[2, 7])


@usable
def test_what_is_not_finite_shows():
    split = SplitLinear(linear_of(32, 32))
    x = torch.randn(3, 32)
    x[1, 5] = torch.nan
    x[2, 9] = torch.inf
    found = split(x)
    assert found[0].isfinite().all() and not found[1:].isfinite().any()


@usable
def test_the_wrong_sizes_and_dtypes_are_refused():
    for wrong in (nn.Linear(33, 32), nn.Linear(32, 32, bias=False), nn.Linear(32, 32).double()):
        with pytest.raises(ValueError, match="SplitLinear"):
            SplitLinear(wrong)
    split = SplitLinear(nn.Linear(32, 64))
    for rows in (torch.randn(2, 64), torch.randn(2, 32).double()):
        with pytest.raises(ValueError, match="rows must be"):
            split(rows)


def test_where_it_cannot_run_it_says_why(monkeypatch):
    monkeypatch.setattr(split_linear.cpu_backend, "why_not_loaded", lambda: "no library.")
    assert split_linear.why_not() == "no library."
