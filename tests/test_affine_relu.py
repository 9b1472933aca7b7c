"""The pass after a convolution whose norm is frozen: the C++ kernel against four operations of PyTorch."""

import pytest
import torch

from pixelbert_fast import FastPixelBERT
from pixelbert_fast.ops import backend as chosen_backend
from pixelbert_fast.ops import backends
from pixelbert_fast.ops.affine_relu import affine_relu_, affine_relu_reference, runs_natively, wide
from tests.small_models import config, images

pytestmark = pytest.mark.skipif(
    not runs_natively("cpu", torch.float32), reason="the C++ library is not built"
)

# Vectors hold 2 to 16 numbers: below one, between, many, and with a rest.
CHANNELS = (1, 3, 8, 24, 67, 256)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.fixture(params=[0, 1, 2], ids=["portable", "avx2", "avx512"])
def level(request):
    use = torch.ops.pixelbert_fast_native.use_cpu_level
    if use(request.param) != request.param:
        use(2)
        pytest.skip("this processor has no such instructions")
    yield
    use(2)


def given(channels, dtype, *, residual, scaled, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def map_():
        return normal(2, channels, 3, 5).to(dtype).contiguous(memory_format=torch.channels_last)

    vectors = [normal(channels).to(wide(dtype)) for _ in range(3)]
    return (
        map_(),
        vectors[0],
        vectors[1],
        map_() if residual else None,
        vectors[2] if residual and scaled else None,
    )


def tracked(values, scale, shift, residual, residual_scale):
    values = values.clone(memory_format=torch.preserve_format).requires_grad_()
    residual = None if residual is None else residual.clone().requires_grad_()
    return values, scale, shift, residual, residual_scale


def run(function, arguments, grad):
    values, *_, residual, _ = arguments = tracked(*arguments)
    fresh = values * 1  # what a convolution gives: no leaf, and nobody else's
    out = function(fresh, *arguments[1:])
    out.backward(grad)
    return out.detach(), values.grad, None if residual is None else residual.grad


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("residual", "scaled"), [(False, False), (True, False), (True, True)])
def test_values_and_gradients(level, channels, dtype, residual, scaled):
    arguments = given(channels, dtype, residual=residual, scaled=scaled)
    grad = given(channels, dtype, residual=False, scaled=False, seed=1)[0]
    with backends.watch() as ran:
        found = run(affine_relu_, arguments, grad)
    assert ran == [("affine_relu", "cpu"), ("affine_relu_backward", "cpu")]
    # In the wide type both sum three terms, perhaps in another order; then each rounds once.
    tolerance = 8 * torch.finfo(wide(dtype)).eps if dtype == wide(dtype) else torch.finfo(dtype).eps
    for ours, theirs in zip(found, run(affine_relu_reference, arguments, grad), strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=4 * tolerance)


def test_it_works_in_the_memory_it_is_given():
    values, *rest = given(24, torch.float32, residual=True, scaled=True)
    expected = affine_relu_reference(values, *rest)
    place = values.data_ptr()
    out = affine_relu_(values, *rest)
    assert out.data_ptr() == place
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("wants", [(True, False), (False, True)], ids=["values", "residual"])
def test_only_one_of_the_two_gradients_is_wanted(wants):
    values, scale, shift, residual, residual_scale = given(24, torch.float64, residual=True, scaled=True)
    results = []
    for function in (affine_relu_, affine_relu_reference):
        leaves = [
            each.clone().requires_grad_(want) for each, want in zip((values, residual), wants, strict=True)
        ]
        out = function(leaves[0] * 1, scale, shift, leaves[1], residual_scale)
        out.sum().backward()
        results.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*results, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_no_number_stays_none(level, dtype):
    values, scale, shift, *_ = given(67, dtype, residual=False, scaled=False)
    values[0, ::2, 1, 1] = torch.nan
    values[1, ::3, 2, 4] = torch.inf
    expected = affine_relu_reference(values, scale, shift)
    assert expected.isnan().any() and expected.isinf().any()
    out = affine_relu_(values, scale, shift)
    torch.testing.assert_close(out, expected, equal_nan=True, rtol=1e-2, atol=1e-2)


def test_a_gradient_in_another_layout_and_one_that_is_expanded():
    arguments = given(24, torch.float64, residual=True, scaled=False)
    for grad in (
        torch.randn(2, 24, 3, 5, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64).expand(2, 24, 3, 5),
    ):
        for ours, theirs in zip(
            run(affine_relu_, arguments, grad), run(affine_relu_reference, arguments, grad), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


def test_an_empty_batch():
    values, scale, shift, *_ = given(24, torch.float32, residual=False, scaled=False)
    assert affine_relu_(values[:0], scale, shift).shape == (0, 24, 3, 5)


def test_the_backbone_uses_it_unless_another_backend_is_asked_for():
    model = FastPixelBERT(config(norm="frozen")).train()
    for wish, expected in ((None, True), ("reference", False)):
        with chosen_backend(wish), backends.watch() as ran:
            out = model.run_backbone(images(), None)
            out.sum().backward()
        assert any(op == "affine_relu" for op, _ in ran) == expected
        assert any(op == "affine_relu_backward" for op, _ in ran) == expected


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (0, lambda x: x.contiguous()),
        (1, lambda x: x[:1]),
        (1, lambda x: x.double()),
        (2, lambda x: x.repeat(2)[::2]),
        (3, lambda x: x.double()),
        (3, lambda x: x[:1]),
        (4, lambda x: x.bfloat16()),
    ],
)
def test_what_the_kernel_would_misread_is_refused(place, wrong):
    arguments = list(given(24, torch.float32, residual=True, scaled=True))
    arguments[place] = wrong(arguments[place])
    with pytest.raises(ValueError, match=r"affine_relu_: a (map|vector) must be"):
        affine_relu_(*arguments)
