"""Every mode and orientation must end as the RGB that a person would see."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.errors import UserError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def encoded(image, file_format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def two_by_three():
    """Every pixel different, so that any wrong turn shows."""
    return np.array([[RED, GREEN, BLUE], [WHITE, BLACK, (255, 255, 0)]], dtype=np.uint8)


def noise(*shape, high=256, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def png(depth, colour, rows, transparent=None):
    """A PNG by hand, for kinds that Pillow does not write."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width = len(rows), rows[0][0]
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    if transparent is not None:
        body += chunk(b"tRNS", transparent)
    body += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for _, row in rows)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def test_alpha_is_laid_over_white():
    rgba = np.array([[(*RED, 255), (*RED, 0), (*BLACK, 128), (*BLUE, 51)]], dtype=np.uint8)
    # 255 - 128 = 127 left of white; 20 % of blue leaves 80 % of white's red and green: 204.
    expected = [[RED, WHITE, (127, 127, 127), (204, 204, 255)]]
    for source in (rgba, rgba / 255, torch.from_numpy(rgba).permute(2, 0, 1), Image.fromarray(rgba)):
        assert to_rgb(source).tolist() == [list(map(list, expected[0]))]


def test_pil_modes_of_one_grey_picture():
    grey = noise(6, 9)
    expected = np.repeat(grey[..., None], 3, axis=2)
    picture = Image.fromarray(grey)
    for mode in ("L", "LA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr", "HSV", "P", "PA", "I", "F"):
        converted = picture.convert("RGBA").convert(mode) if mode == "RGBa" else picture
        if mode in ("YCbCr", "HSV"):
            converted = picture.convert("RGB")
        result = to_rgb(converted.convert(mode))
        # The way into YCbCr rounds; the others hold a grey level exactly.
        np.testing.assert_allclose(result, expected, atol=1 if mode == "YCbCr" else 0, rtol=0, err_msg=mode)


def test_binary_picture():
    black_and_white = Image.fromarray(np.array([[0, 255, 0]], dtype=np.uint8)).convert("1")
    assert to_rgb(black_and_white).tolist() == [[[0] * 3, [255] * 3, [0] * 3]]
    assert to_rgb(encoded(black_and_white)).tolist() == [[[0] * 3, [255] * 3, [0] * 3]]


def test_premultiplied_grey_with_alpha():
    # La: 64 of 255 grey already times an alpha of 128 / 255 -> 128 unmultiplied, over white again 64 + 127.
    premultiplied = Image.new("LA", (1, 1), (128, 128)).convert("La")
    assert np.abs(to_rgb(premultiplied).astype(int) - 191).max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_sixteen_bits_keep_their_highlights(mode):
    # Pillow's own conversion saturates everything above 255.
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=">u2" if mode.endswith("B") else "<u2")
    image = Image.frombytes(mode, (5, 1), values.tobytes())
    assert to_rgb(image)[0, :, 0].tolist() == [0, 1, 1, 128, 255]


def test_sixteen_bit_files():
    values = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    expected = [0, 1, 100, 255]
    picture = Image.fromarray(values)
    for file_format in ("PNG", "TIFF", "PPM"):
        assert to_rgb(encoded(picture, file_format))[0, :, 0].tolist() == expected, file_format
    dark = b"P5\n2 1\n65535\n" + np.array([200, 100], dtype=">u2").tobytes()
    assert to_rgb(dark)[0, :, 0].tolist() == [1, 0], "a dark 16-bit PGM is dark"
    colour = png(16, 2, [(2, struct.pack(">6H", 65535, 25700, 0, 0, 0, 65535))])
    assert to_rgb(colour).tolist() == [[[255, 100, 0], [0, 0, 255]]]


def test_integer_and_float_modes_choose_their_range():
    def image(values, dtype):
        return Image.fromarray(np.array([values], dtype=dtype))

    assert to_rgb(image([0, 128, 255], np.int32))[0, :, 0].tolist() == [0, 128, 255]
    assert to_rgb(image([0, 25700, 65535], np.int32))[0, :, 0].tolist() == [0, 100, 255]
    assert to_rgb(image([0, 0.5, 1], np.float32))[0, :, 0].tolist() == [0, 128, 255]
    assert to_rgb(image([0, 99.6, 255], np.float32))[0, :, 0].tolist() == [0, 100, 255]
    for values, dtype in (
        ([-1, 5], np.int32),
        ([0, 70000], np.int32),
        ([0, 256], np.float32),
        ([0, np.nan], np.float32),
    ):
        with pytest.raises(UserError, match="outside"):
            to_rgb(image(values, dtype))


def test_palettes_and_their_transparency():
    palette = Image.new("P", (3, 1))
    palette.putpalette([*RED, *GREEN, *BLUE])
    palette.putdata([0, 1, 2])
    assert to_rgb(encoded(palette)).tolist() == [[list(RED), list(GREEN), list(BLUE)]]
    one = encoded(palette, transparency=1)
    assert to_rgb(one).tolist() == [[list(RED), list(WHITE), list(BLUE)]]
    each = encoded(palette, transparency=bytes([255, 0, 51]))
    assert to_rgb(each).tolist() == [[list(RED), list(WHITE), [204, 204, 255]]]
    with_alpha = Image.new("P", (1, 1))
    with_alpha.putpalette([0, 0, 255, 51], "RGBA")
    assert to_rgb(with_alpha).tolist() == [[[204, 204, 255]]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(8, 0, [(3, bytes([0, 100, 200]))], struct.pack(">H", 100)), [0, 255, 200]),
        (png(4, 0, [(2, bytes([0x5F]))], struct.pack(">H", 5)), [255, 255]),
        (png(4, 0, [(2, bytes([0x5A]))], struct.pack(">H", 10)), [85, 255]),
        (png(2, 0, [(4, bytes([0b00011011]))], struct.pack(">H", 1)), [0, 255, 170, 255]),
        (png(1, 0, [(2, bytes([0b01000000]))], struct.pack(">H", 0)), [255, 255]),
        (png(16, 0, [(3, struct.pack(">3H", 0, 4000, 4001))], struct.pack(">H", 4000)), [0, 255, 16]),
    ],
)
def test_a_grey_level_that_means_transparent(content, expected):
    assert to_rgb(content)[0, :, 0].tolist() == expected


def test_a_colour_that_means_transparent():
    eight = png(8, 2, [(2, bytes([10, 20, 30, 10, 20, 31]))], struct.pack(">3H", 10, 20, 30))
    assert to_rgb(eight).tolist() == [[list(WHITE), [10, 20, 31]]]
    sixteen = struct.pack(">6H", 2570, 5140, 7710, 65535, 0, 0)
    content = png(16, 2, [(2, sixteen)], struct.pack(">3H", 2570, 5140, 7710))
    assert to_rgb(content).tolist() == [[list(WHITE), list(RED)]]


def test_cmyk():
    # 255 ink is none of the complement: C = 255 leaves no red.
    inks = np.array([[(0, 255, 255, 0), (255, 255, 0, 0), (0, 0, 0, 255), (0, 0, 0, 0)]], dtype=np.uint8)
    picture = Image.frombytes("CMYK", (4, 1), inks.tobytes())
    assert to_rgb(picture).tolist() == [[list(RED), list(BLUE), list(BLACK), list(WHITE)]]


def test_adobe_cmyk_jpeg_is_not_a_negative():
    # Adobe stores inks inverted; the file says so by its APP14 segment. Read plainly it would come out dark.
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    content = encoded(red, "JPEG", quality=95)
    assert b"Adobe" in content
    assert np.abs(to_rgb(content).astype(int) - RED).max() <= 8
    white = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG", quality=95)
    assert to_rgb(white).min() >= 250


def test_lab():
    # L = 53.2, a = 80.1, b = 67.2 is sRGB red under D65; with LittleCMS's D50 white: 54.3, 80.8, 69.9.
    lab = Image.frombytes("LAB", (3, 1), bytes([138, 81, 70, 255, 0, 0, 0, 0, 0]))
    result = to_rgb(lab)[0].astype(int)
    assert np.abs(result[0] - RED).max() <= 6  # a step of a or b is up to 6 grey levels here
    assert np.abs(result[1] - WHITE).max() <= 1
    assert np.abs(result[2] - BLACK).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation, file_format):
    upright = two_by_three()
    # How each orientation's stored picture arises from the upright one (EXIF 2.3, tag 274: which side of the
    # scene the 0th row and 0th column are).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif, **options)
    np.testing.assert_array_equal(to_rgb(content), upright)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(to_rgb(image), upright)


def test_orientation_keeps_transparency():
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putdata([0, 1])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = to_rgb(encoded(palette, transparency=1, exif=exif))
    assert turned.tolist() == [[list(RED)], [list(WHITE)]]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_cost_the_picture():
    content = encoded(Image.fromarray(noise(8, 8, 3)), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert to_rgb(content).shape == (8, 8, 3)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(file_format):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if file_format == "WEBP" else {}
    content = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(to_rgb(content), np.broadcast_to(np.uint8(RED), (4, 4, 3)))


def test_a_frame_that_the_caller_chose_stays():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(content)) as image:
        image.seek(1)
        assert to_rgb(image)[0, 0].tolist() == list(GREEN)
