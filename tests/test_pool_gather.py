"""`pool_gather` and `pixel_embed`: against a loop over windows; gradients, ties, NaN, bad arguments."""

import pytest
import torch
import torch.nn.functional as F

from pixelbert_fast.ops import pixel_embed, pool_gather
from tests.op_inputs import DTYPES, SMALL_SHAPES, gather_inputs, projection


def by_window(features, positions, embedding, image_index):
    """The definition, window by window."""
    width = features.shape[3] // 2
    out = torch.zeros(*positions.shape, features.shape[1], dtype=features.dtype)
    for s, row in enumerate(positions.tolist()):
        for k, place in enumerate(row):
            if place >= 0:
                y, x = 2 * (place // width), 2 * (place % width)
                window = features[image_index[s], :, y : y + 2, x : x + 2]
                out[s, k] = window.flatten(1).amax(1) + (0 if embedding is None else embedding)
    return out


@pytest.mark.parametrize("shape", SMALL_SHAPES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_definition(shape, layout, dtype):
    features, positions, embedding, image_index = gather_inputs(shape, dtype, layout)
    only_selected = pool_gather(features, positions, image_index=image_index)
    assert only_selected.dtype == dtype
    assert torch.equal(only_selected, by_window(features, positions, None, image_index))
    # One addition in the dtype itself and one in float32 rounded once agree exactly: the sum of two
    # numbers is rounded correctly either way.
    out = pool_gather(features, positions, embedding, image_index=image_index)
    assert torch.equal(out, by_window(features, positions, embedding, image_index))


def test_gradients():
    features, positions, embedding, image_index = gather_inputs((3, 4, 5, 6), torch.float64)
    features.requires_grad_(), embedding.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, e: pool_gather(f, positions, e, image_index=image_index), (features, embedding)
    )


def test_repeated_places_add_up_in_float32():
    """300 readers of one window: a bfloat16 sum would stop growing at 256."""
    features = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]], dtype=torch.bfloat16, requires_grad=True)
    pool_gather(features, torch.zeros(1, 300, dtype=torch.int32)).sum().backward()
    assert features.grad[0, 0, 0, 0] == 300


def test_ties_and_nan_follow_max_pool2d():
    nan = torch.nan
    features = torch.tensor([[[[2.0, 2.0, nan, 1.0], [2.0, 1.0, nan, 9.0]]]], requires_grad=True)
    out = pool_gather(features, torch.tensor([[0, 1]]))
    assert out[0, 0, 0] == 2 and out[0, 1, 0].isnan()
    out.sum().backward()
    assert features.grad.tolist() == [[[[1, 0, 0, 0], [0, 0, 1, 0]]]]


def test_without_windows_or_places():
    empty = pool_gather(torch.randn(2, 3, 1, 8), torch.full((2, 4), -1))
    assert torch.equal(empty, torch.zeros(2, 4, 3))
    assert pool_gather(torch.randn(2, 3, 4, 4), torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0, 3)
    assert pool_gather(torch.randn(0, 3, 4, 4), torch.zeros(0, 2, dtype=torch.int64)).shape == (0, 2, 3)


@pytest.mark.parametrize("order", ["project_pool", "pool_project"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_pixel_embed_equals_the_papers_chain(order, with_bias):
    features, positions, _, image_index = gather_inputs((3, 6, 7, 8), torch.float64)
    weight, bias, embedding = projection(6, 5, torch.float64)
    bias = bias if with_bias else None
    out = pixel_embed(features, positions, weight, bias, embedding, image_index=image_index, order=order)
    if order == "project_pool":
        grid = F.max_pool2d(F.conv2d(features, weight[:, :, None, None], bias), 2)
    else:
        grid = F.conv2d(F.max_pool2d(features, 2), weight[:, :, None, None], bias)
    pixels = (grid + embedding[:, None, None]).flatten(2).transpose(1, 2)[image_index]
    expected = pixels.gather(1, positions.long().clamp(min=0)[..., None].expand(-1, -1, 5))
    expected[positions == -1] = 0
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)  # sums of 6 float64 products


@pytest.mark.parametrize("order", ["project_pool", "pool_project"])
def test_pixel_embed_gradients(order):
    features, positions, _, image_index = gather_inputs((2, 3, 4, 5), torch.float64)
    leaves = [features, *projection(3, 4, torch.float64)]
    for leaf in leaves:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, w, b, e: pixel_embed(f, positions, w, b, e, image_index=image_index, order=order), leaves
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.randn(3, 4, 4)}, ValueError, r"features must be \[B, C, H, W\]"),
        (
            {"features": torch.ones(2, 3, 4, 4, dtype=torch.int64)},
            TypeError,
            "features must be one of float32",
        ),
        ({"positions": torch.zeros(2, 1)}, TypeError, "positions must be one of int32"),
        ({"positions": torch.zeros(3, 1, dtype=torch.int64)}, ValueError, "a row for each of the 2 images"),
        ({"positions": torch.full((2, 1), 4)}, IndexError, "positions must lie in -1 .. 3"),
        ({"embedding": torch.zeros(4)}, ValueError, r"embedding must be \[3\]"),
        ({"image_index": [0, 1]}, TypeError, r"image_index must be a tensor \[S\], got list"),
        ({"image_index": torch.tensor([0])}, ValueError, "image_index must have one entry"),
        ({"image_index": torch.tensor([0, 2])}, IndexError, "image_index must lie in 0 .. 1"),
        ({"backend": "cuda "}, ValueError, "backend must be one of"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    arguments = {
        "features": torch.randn(2, 3, 4, 4),
        "positions": torch.zeros(2, 1, dtype=torch.int64),
    } | change
    with pytest.raises(error, match=message):
        pool_gather(**arguments)


def test_pixel_embed_names_wrong_arguments():
    features, positions = torch.randn(2, 3, 4, 4), torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"weight must be \[D, 3\]"):
        pixel_embed(features, positions, torch.randn(5, 4), None, torch.randn(5))
    with pytest.raises(TypeError, match="weight must be of the dtype of features, float32"):
        pixel_embed(features, positions, torch.randn(5, 3, dtype=torch.float64), None, torch.randn(5))
    with torch.autocast("cpu", torch.bfloat16):  # which casts either
        pixel_embed(features.bfloat16(), positions, torch.randn(5, 3), None, torch.randn(5))
    with pytest.raises(ValueError, match=r"bias must be \[5\]"):
        pixel_embed(features, positions, torch.randn(5, 3), torch.randn(3), torch.randn(5))
    with pytest.raises(ValueError, match="order must be one of"):
        pixel_embed(features, positions, torch.randn(5, 3), None, torch.randn(5), order="both")
