"""Every source of one picture agrees; what is no picture, or too large a one, is refused in a sentence."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from pixelbert_fast.data.images import MAX_PIXELS, to_rgb
from pixelbert_fast.errors import UserError

torch.set_num_threads(1)


def encoded(image, file_format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def noise(*shape, high=256, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


class Unseekable(io.RawIOBase):
    """A binary stream such as a socket."""

    def __init__(self, content):
        self.stream = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.stream.readinto(buffer)


def test_all_sources_of_one_picture_agree(tmp_path):
    rgb = noise(5, 7, 3)
    content = encoded(Image.fromarray(rgb))
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    sources = {
        "PIL": Image.fromarray(rgb),
        "array": rgb,
        "channels first": np.moveaxis(rgb, -1, 0),
        "flipped view": rgb[::-1, ::-1][::-1, ::-1],
        "tensor": torch.from_numpy(rgb).permute(2, 0, 1),
        "tensor, channels last": torch.from_numpy(rgb),
        "float": rgb / 255,
        "float16 tensor": torch.from_numpy(rgb).permute(2, 0, 1).half() / 255,
        "tensor with gradient": (torch.from_numpy(rgb).permute(2, 0, 1) / 255).requires_grad_(),
        "int64": rgb.astype(np.int64),
        "uint16": rgb.astype(np.uint16) * 257,
        "big-endian uint16": (rgb.astype(np.uint16) * 257).astype(">u2"),
        "bytes": content,
        "bytearray": bytearray(content),
        "memoryview": memoryview(content),
        "path": path,
        "str": str(path),
        "file": io.BytesIO(content),
        "stream": Unseekable(content),
    }
    for name, source in sources.items():
        result = to_rgb(source)
        assert result.dtype == np.uint8, name
        assert result.flags.c_contiguous, name
        assert result.flags.writeable, name
        np.testing.assert_array_equal(result, rgb, err_msg=name)
    result = to_rgb(rgb)
    result[:] = 0
    assert rgb.any(), "the result must not be the caller's own memory"


def test_bfloat16_tensor():
    # bfloat16 holds 8 significant bits: the error of a value in 0..1 is at most 1/512, half a grey level.
    rgb = noise(4, 5, 3)
    result = to_rgb(torch.from_numpy(rgb).permute(2, 0, 1).to(torch.bfloat16) / 255)
    assert np.abs(result.astype(int) - rgb).max() <= 1


def test_tensors_without_plain_values_are_refused():
    for tensor in (torch.rand(3, 4, 5, device="meta"), torch.rand(4, 5).to_sparse()):
        with pytest.raises(UserError, match=r"^image tensor of shape \[.*4, 5\] cannot be read: "):
            to_rgb(tensor)
    assert to_rgb(torch.ones(3, 4, 5).to(torch.float8_e4m3fn)).min() == 255


def test_grey_arrays():
    grey = noise(4, 5)
    expected = np.repeat(grey[..., None], 3, axis=2)
    for array in (grey, grey[..., None], grey[None], torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        np.testing.assert_array_equal(to_rgb(array), expected)
    mask = np.array([[True, False]])
    assert to_rgb(mask).tolist() == [[[255] * 3, [0] * 3]]


def test_ambiguous_layout_follows_the_kind():
    cube = noise(3, 4, 3)
    np.testing.assert_array_equal(to_rgb(cube), cube)
    np.testing.assert_array_equal(to_rgb(torch.from_numpy(cube)), np.moveaxis(cube, 0, -1))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 60_000])  # below and above where Pillow itself refuses
def test_a_bomb_is_refused_before_it_is_decoded(side):
    # A header and not one pixel behind it: decoding would complain of something else.
    fields = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + fields
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(fields)) + chunk
    content += (
        struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", 0x35AF061E)
    )
    with pytest.raises(UserError, match=f"more than the {MAX_PIXELS:,} "):
        to_rgb(content)
    assert side**2 > MAX_PIXELS


def test_the_pixel_limit_is_exact_and_also_for_pil_images():
    content = encoded(Image.new("RGB", (10, 10)))
    assert to_rgb(content, max_pixels=100).shape == (10, 10, 3)
    for source in (content, Image.open(io.BytesIO(content))):
        with pytest.raises(UserError, match="10 x 10 pixels, more than the 99"):
            to_rgb(source, max_pixels=99)


@pytest.mark.parametrize(
    "url", ["https://example.org/a.png", "ftp://h/a", "data:image/png;base64,AAAA", "s3://b/k"]
)
def test_urls_are_refused(url):
    with pytest.raises(UserError, match="URL"):
        to_rgb(url)


def test_postscript_is_not_handed_to_another_program():
    with pytest.raises(UserError, match="not an image that can be read"):
        to_rgb(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "0 bytes is not an image"),
        (b"hello", "5 bytes is not an image"),
        (encoded(Image.fromarray(noise(64, 64, 3)))[:2000], "is broken"),
        (encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")[:1500], "is broken"),
        ("no/such/file.png", "missing"),
        (os.sep, "not a file"),
        ("x" * 5000, "cannot be read"),
        (io.StringIO("text"), "binary mode"),
        (None, "NoneType is not an image"),
        (3, "int is not an image"),
        (np.zeros((2, 3, 5), np.uint8), r"\[2, 3, 5\] is not one picture"),
        (np.zeros((1, 2, 3, 3), np.uint8), "not one picture"),
        (np.zeros((0, 3, 3), np.uint8), "no pixels"),
        (np.full((2, 2), 1.5), "outside 0..1"),
        (np.full((2, 2), np.nan), "outside 0..1"),
        (np.full((2, 2), -0.1), "outside 0..1"),
        (np.full((2, 2), 256), "outside 0..255"),
        (np.full((2, 2), -1), "outside 0..255"),
        (np.full((2, 2), 1j), "complex128"),
        (Image.new("RGB", (0, 5)), "no pixels"),
    ],
)
def test_bad_input_is_said_in_one_sentence(source, words):
    with pytest.raises(UserError, match=words) as caught:
        to_rgb(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_closed_image_is_a_user_error(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("RGB", (4, 4))))
    image = Image.open(path)
    image.close()
    with pytest.raises(UserError, match="broken"):
        to_rgb(image)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_any_corruption_of_a_file_gives_a_picture_or_a_user_error():
    rng = np.random.default_rng(1)
    pictures = 0
    for file_format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        content = np.frombuffer(encoded(Image.fromarray(noise(24, 24, 3)), file_format), dtype=np.uint8)
        for _ in range(60):
            broken = content.copy()
            broken[rng.integers(0, len(broken), 4)] = rng.integers(0, 256, 4)
            if rng.random() < 0.3:
                broken = broken[: rng.integers(1, len(broken) + 1)]
            try:
                result = to_rgb(broken.tobytes(), max_pixels=10**6)
            except UserError:
                continue
            pictures += 1
            assert result.ndim == 3
            assert result.dtype == np.uint8
    assert 0 < pictures < 360, "both outcomes must have been seen"
