"""The pass that resizes and normalises a picture: Pillow's pixels to the bit, on every instruction set."""

import platform
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from pixelbert_fast.data.decoders.normalising import Normalisation
from pixelbert_fast.environment import BACKEND
from pixelbert_fast.ops.resize_picture import (
    DTYPES,
    resize_picture_,
    resize_picture_reference,
    runs_natively,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISATION = Normalisation(MEAN, STD)
TORCH = Normalisation(MEAN, STD, native=False)

# Where a compiler fuses operations, a weight's last bit may differ, and a value that lies between two. Before
# version 13 Pillow never took columns first, and what is rounded between the two directions is another.
EXACT = platform.machine() in ("x86_64", "AMD64") and int(PIL.__version__.partition(".")[0]) >= 13
LEVELS_OFF = 0 if EXACT else 1

SIZES = [
    ((480, 640), (384, 512)),
    ((60, 80), (100, 133)),  # up
    ((300, 200), (31, 20)),  # many taps
    ((97, 61), (13, 59)),  # columns first: they shrink by more
    ((97, 61), (61, 43)),  # as many pixels more as is the limit: rows first
    ((98, 61), (61, 43)),  # one beyond it
    ((70, 45), (70, 31)),  # along rows alone
    ((70, 45), (31, 45)),  # along columns alone
    ((33, 47), (33, 47)),
    ((1, 1), (5, 7)),
    ((5, 7), (1, 1)),
    ((9, 1), (4, 3)),
    ((2, 3), (3, 2)),
    ((1, 300), (3, 17)),
    ((700, 2), (10, 1)),
]


@pytest.fixture(params=[0, 1, 2], ids=["portable", "avx2", "avx512"])
def level(request):
    if not runs_natively():
        pytest.skip("the C++ library is not built")
    use = torch.ops.pixelbert_fast_native.use_cpu_level
    if use(request.param) != request.param:
        use(2)
        pytest.skip("this processor has no such instructions")
    yield
    use(2)


def pictures(height, width, seed=0):
    """Noise, and black and white at random, where rounding shows most."""
    draw = np.random.default_rng((seed, height, width))
    yield torch.from_numpy(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
    yield torch.from_numpy(draw.integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255))


def by_pillow(picture, size):
    resized = Image.fromarray(picture.numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized))


def resized(picture, size, dtype=torch.uint8):
    """In memory of its own length: what is read or written beyond it is seen by the sanitizers."""
    out = torch.full((*size, 3), 77, dtype=dtype)
    return resize_picture_(out, picture, NORMALISATION.scale, NORMALISATION.shift)


def levels_apart(one, other):
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize(("source", "size"), SIZES, ids=str)
def test_the_picture_is_pillows(level, source, size):
    for picture in pictures(*source):
        assert levels_apart(resized(picture, size), by_pillow(picture, size)) <= LEVELS_OFF


def test_any_sizes(level):
    draw = np.random.default_rng(1)
    for seed in range(60):
        height, width, *size = draw.integers(1, 120, 4).tolist()
        for picture in pictures(height, width, seed):
            apart = levels_apart(resized(picture, tuple(size)), by_pillow(picture, tuple(size)))
            assert apart <= LEVELS_OFF, (height, width, size)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.uint8], ids=str)
# The last two are written past the caches, the last of all in rows that begin anywhere in a vector.
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 57), (384, 512), (301, 403)], ids=str)
def test_normalised_as_pytorch_does(level, dtype, size):
    for picture in pictures(48, 64):
        right = torch.empty(*size, 3, dtype=dtype)
        TORCH.into(right, resized(picture, size))
        assert torch.equal(resized(picture, size, dtype), right)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_is_written_beside_a_smaller_picture(level, dtype):
    picture = next(pictures(48, 64))
    batch = torch.full((3, 50, 70, 3), 77, dtype=dtype)
    resize_picture_(batch[1, :31, :45], picture, NORMALISATION.scale, NORMALISATION.shift)
    assert torch.equal(batch[1, :31, :45], resized(picture, (31, 45), dtype))
    batch[1, :31, :45] = 77
    assert (batch == 77).all()


def test_threads_do_not_meet(level):
    given = [next(pictures(90 + seed, 120, seed)) for seed in range(8)]
    right = [resized(picture, (300, 401), torch.float32) for picture in given]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda picture: resized(picture, (300, 401), torch.float32), given * 4)
        assert all(torch.equal(*pair) for pair in zip(found, right * 4, strict=True))


@pytest.mark.parametrize(("source", "size"), SIZES, ids=str)
def test_the_reference_is_near(source, size):
    for picture in pictures(*source):
        # 16-bit weights move a sum by less than a level, and each of the two directions rounds.
        assert levels_apart(resize_picture_reference(picture, size), by_pillow(picture, size)) <= 2


def test_a_normalisation_resizes_by_either(monkeypatch):
    picture, out = next(pictures(48, 64)), torch.empty(31, 45, 3)
    monkeypatch.setenv(BACKEND.name, "reference")
    assert not runs_natively()
    Normalisation(MEAN, STD).into(out, picture)
    right = torch.empty(31, 45, 3)
    TORCH.into(right, resize_picture_reference(picture, (31, 45)))
    assert torch.equal(out, right)


def test_the_backend_of_a_gpu_does_not_keep_the_decoder_from_it(monkeypatch):
    monkeypatch.delenv(BACKEND.name, raising=False)
    can = runs_natively()
    monkeypatch.setenv(BACKEND.name, "triton")
    assert runs_natively() == can


WHOLE = {
    "out": torch.empty(4, 5, 3),
    "picture": torch.zeros(6, 7, 3, dtype=torch.uint8),
    "scale": torch.ones(3),
    "shift": torch.zeros(3),
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"out": torch.empty(4, 5, 4)},
        {"out": torch.empty(4, 5, 3, dtype=torch.float64)},
        {"out": torch.empty(4, 3, 5).transpose(1, 2)},
        {"out": torch.empty(0, 5, 3)},
        {"out": torch.empty(4, 5, 3, device="meta")},
        {"picture": torch.zeros(6, 7, 3)},
        {"picture": torch.zeros(6, 7, dtype=torch.uint8)},
        {"picture": torch.zeros(6, 14, 3, dtype=torch.uint8)[:, ::2]},
        {"picture": torch.zeros(6, 0, 3, dtype=torch.uint8)},
        {"scale": torch.ones(4)},
        {"shift": torch.zeros(3, dtype=torch.float64)},
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="resize_picture_: "):
        resize_picture_(**{**WHOLE, **wrong})
