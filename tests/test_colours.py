"""Colours converted strip by strip: the same ones, in bounded memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelbert_fast.data import colours
from pixelbert_fast.data.images import to_rgb
from tests.mutated_images import WHOLE_KINDS, mutated, picture

ROOT = Path(__file__).resolve().parent.parent
MODES = (
    "1",
    "L",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "LA",
    "La",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "I",
    "F",
    "I;16",
)


@pytest.mark.parametrize("strip", [1, 60, 500])
@pytest.mark.parametrize("kind", WHOLE_KINDS)
def test_files_in_strips_are_as_they_are_in_one(monkeypatch, kind, strip):
    content = mutated(kind, 6)
    whole = to_rgb(content)
    monkeypatch.setattr(colours, "_STRIP", strip)
    np.testing.assert_array_equal(to_rgb(content), whole)


def of_mode(mode):
    rgb = Image.fromarray(picture(2))
    if mode in ("I", "F", "I;16"):
        return rgb.convert("L").convert(mode if mode != "I;16" else "I").convert(mode)
    if mode == "LAB":
        return Image.merge("LAB", rgb.split())
    rgb.putalpha(Image.fromarray(picture(3)[..., 0]))
    if mode in ("LA", "La"):
        return rgb.convert("LA") if mode == "LA" else rgb.convert("LA").convert("La")
    if mode in ("RGBA", "RGBa"):
        return rgb.convert(mode)
    if mode == "PA":
        return rgb.convert("RGB").quantize(16).convert("PA")
    return rgb.convert("RGB").quantize(16) if mode == "P" else rgb.convert("RGB").convert(mode)


@pytest.mark.parametrize("mode", MODES)
def test_modes_in_strips_are_as_they_are_in_one(monkeypatch, mode):
    image = of_mode(mode)
    assert image.mode == mode
    whole = to_rgb(image)
    monkeypatch.setattr(colours, "_STRIP", 130)
    np.testing.assert_array_equal(to_rgb(image), whole)


@pytest.mark.parametrize("transparent", [3, bytes([255, 0, 7] + [255] * 13)])
def test_transparent_colours_in_strips(monkeypatch, transparent):
    image = Image.fromarray(picture(4)).quantize(16)
    image.info["transparency"] = transparent
    whole = to_rgb(image)
    assert not np.array_equal(whole, to_rgb(Image.fromarray(picture(4)).quantize(16)))
    monkeypatch.setattr(colours, "_STRIP", 130)
    np.testing.assert_array_equal(to_rgb(image), whole)


_MEMORY = """
import io, resource
from PIL import Image
from pixelbert_fast.data.images import to_rgb
stream = io.BytesIO()
Image.new("RGBA", (64, 64)).save(stream, "PNG")
to_rgb(stream.getvalue())
stream = io.BytesIO()
with Image.new("RGBA", (4000, 4000)) as image:
    image.save(stream, "PNG")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert to_rgb(stream.getvalue()).shape == (4000, 4000, 3)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 4000**2)
"""


def test_a_small_file_of_many_pixels_takes_little_more_than_they_do():
    ran = subprocess.run([sys.executable, "-c", _MEMORY], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    # Bytes a pixel: 3 of the result, and strips; the 4 of the decoded picture take the place of the first
    # one. In one piece it would be 21.
    assert float(ran.stdout) < 8
