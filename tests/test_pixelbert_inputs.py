"""What PixelBERT's forward takes and refuses: dtypes, shapes, values, empty requests."""

import pytest
import torch

from pixelbert_fast import PixelBERT
from tests.small_models import config, text


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PixelBERT(config()).eval()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "either pixel_values or pixel_embeddings"),
        ({"pixel_values": torch.zeros(1, 1, 96, 96)}, r"pixel_values must be \[B, 3, H, W\]"),
        ({"pixel_values": torch.zeros(1, 3, 96, 96)}, "image_index is needed"),
        (
            {"pixel_values": torch.zeros(2, 3, 8, 96)},
            "too small to give one pixel: each side needs at least 9 px",
        ),
        (
            {"pixel_values": torch.zeros(2, 3, 96, 96), "pixel_size": torch.tensor([[96, 5], [9, 9]])},
            "too small",
        ),
        (
            {"pixel_values": torch.zeros(2, 3, 96, 96), "pixel_size": torch.tensor([[97, 96], [9, 9]])},
            "lie within",
        ),
        (
            {"pixel_values": torch.zeros(2, 3, 96, 96), "attention_mask": torch.ones(2, 6)},
            "attention_mask must be",
        ),
        (
            {"pixel_values": torch.zeros(2, 3, 96, 96), "pixel_size": torch.full((2, 2), 90.5)},
            r"pixel_size must be an integer tensor \[2, 2\], got float32",
        ),
    ],
)
def test_wrong_inputs_are_named(model, inputs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        model(text(2), **inputs)


@pytest.mark.parametrize("computed_before", [False, True])
@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"image_index": [1, 0]}, TypeError, r"image_index must be an integer tensor \[2\], got list"),
        (
            {"image_index": torch.zeros(3, dtype=torch.long)},
            ValueError,
            r"image_index must be \[2\], got int64",
        ),
        ({"image_index": torch.tensor([-1, 0])}, IndexError, "image_index must lie in 0 .. 1"),
        ({"image_index": torch.tensor([0, 2])}, IndexError, "image_index must lie in 0 .. 1"),
        ({"positions": torch.zeros(2, 1)}, TypeError, r"positions must be an integer tensor \[2, K\]"),
        ({"positions": torch.zeros(3, 1, dtype=torch.long)}, ValueError, r"positions must be \[2, K\]"),
        ({"positions": torch.full((2, 1), 36)}, (ValueError, IndexError), "positions"),
        ({"positions": torch.full((2, 1), 2**32)}, (ValueError, IndexError), "positions"),
        ({"positions": torch.full((2, 1), -2)}, (ValueError, IndexError), "positions"),
        ({"positions": torch.tensor([[0], [35]])}, ValueError, "positions names a place"),  # in the padding
        ({"sample_keys": torch.zeros(2)}, TypeError, r"sample_keys must be an integer tensor \[2\]"),
    ],
)
def test_wrong_indices_are_named(model, computed_before, inputs, error, message):
    images, sizes = torch.randn(2, 3, 96, 96), torch.tensor([[96, 96], [50, 96]])
    read = {"pixel_values": images, "pixel_size": sizes}
    if computed_before:
        read = {"pixel_embeddings": model.embed_pixels(images, sizes)}
    with pytest.raises(error, match=message):
        model(text(2), **read, **inputs)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_indices_of_any_integer_dtype(model, dtype):
    """Sizes of 250 px lie near the end of uint8, in a batch beyond it: no arithmetic may overflow."""
    images, sizes = torch.randn(2, 3, 264, 264), torch.tensor([[250, 255], [90, 128]])
    inputs = {
        "pixel_size": sizes,
        "image_index": torch.tensor([1, 0]),
        "positions": torch.tensor([[0, 7], [1, 200]]),
        "sample_keys": torch.tensor([200, 3]),
    }
    expected = model(text(2), None, images, **inputs)
    narrow = {name: value.to(dtype) for name, value in inputs.items()}
    out = model(text(2).to(dtype), torch.ones(2, 7, dtype=dtype), images, **narrow)
    assert out.positions.dtype == torch.int32
    assert torch.equal(out.last_hidden_state, expected.last_hidden_state)


def test_empty_requests(model):
    images = torch.randn(2, 3, 96, 96)
    pixels = model.embed_pixels(images)
    nothing = torch.zeros(0, 7, dtype=torch.long)
    for read in ({"pixel_values": images}, {"pixel_embeddings": pixels}):
        out = model(nothing, **read, image_index=nothing[:, 0], output_attentions=True)
        assert out.last_hidden_state.shape == (0, 43, 32) and out.pooler_output.shape == (0, 32)
        out = model(text(2), **read, positions=torch.zeros(2, 0, dtype=torch.int32))
        assert out.last_hidden_state.shape == (2, 7, 32)
    assert model(nothing, None, images[:0]).last_hidden_state.shape == (0, 43, 32)
    with pytest.raises(ValueError, match=r"input_ids must hold \[CLS\]"):
        model(text(2)[:, :0], None, images)


def test_smallest_image_gives_one_pixel(model):
    assert model(text(1), None, torch.randn(1, 3, 9, 9)).positions.tolist() == [[0]]
