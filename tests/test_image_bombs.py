"""Image bombs: refused by their headers in one sentence; what is decoded takes a bounded share of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from pixelbert_fast.data import image_bounds
from pixelbert_fast.data.decoders.normalising import Normalisation
from pixelbert_fast.data.decoders.plain import PlainDecoder
from pixelbert_fast.data.image_files import Unusable, image_columns
from pixelbert_fast.data.images import read_header, to_rgb
from pixelbert_fast.errors import UserError
from tests.image_bombs import bombs, progressive, tiff
from tests.mutated_images import encoded, is_broken, mutated

ROOT = Path(__file__).resolve().parents[1]
BOMBS = bombs()

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_one_sentence(name: str, tmp_path: Path, monkeypatch) -> None:
    def decoded(*_):
        raise AssertionError("a bomb was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    content, said = BOMBS[name]
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (to_rgb, read_header, lambda _: to_rgb(tmp_path / "a.jpg")):
        with pytest.raises(UserError, match=said) as caught:
            read(content)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
    with pytest.raises(Unusable) as dropped:
        image_columns(content)
    assert str(dropped.value) not in ("image is truncated or broken", "")


def test_bombs_among_images_are_counted_as_broken() -> None:
    decoder = PlainDecoder(Normalisation((0.5,) * 3, (0.5,) * 3), threads=2)
    contents = [mutated("jpeg", 1), *(content for content, _ in BOMBS.values()), mutated("webp", 2)]
    batch = decoder.decode(contents, [(32, 48)] * len(contents))
    assert [place for place, _ in batch.broken] == list(range(1, len(contents) - 1))
    decoder.close()


def test_what_is_as_large_as_allowed_is_decoded(monkeypatch) -> None:
    monkeypatch.setattr(image_bounds, "MAX_PIXELS_IN_PYTHON", 16)
    plain = b"P2\n4 4\n255\n" + b"7 " * 16
    assert to_rgb(plain).shape == (4, 4, 3)
    with pytest.raises(UserError, match="4 x 5 pixels, more than the 16"):
        to_rgb(b"P2\n4 5\n255\n" + b"7 " * 20)
    assert to_rgb(progressive(scans=64)).shape == (16, 16, 3)
    assert to_rgb(encoded(Image.new("RGB", (32, 32)), "TIFF", compression="tiff_lzw")).shape == (32, 32, 3)


def test_a_preview_in_a_jpeg_is_no_scan() -> None:
    jpeg = mutated("progressive jpeg", 3)
    attached = b"\xff\xef" + (2 + 600).to_bytes(2) + b"\xff\xda" * 300
    assert np.array_equal(to_rgb(jpeg[:2] + attached + jpeg[2:]), to_rgb(jpeg))
    assert np.array_equal(to_rgb(jpeg + b"\xff\xda" * 300), to_rgb(jpeg)), "nor is what follows the end"


def test_the_bound_is_of_memory(monkeypatch) -> None:
    """With less memory allowed, kinds that need more a pixel are refused first."""
    side = 64
    files = {
        "jpeg": encoded(Image.new("RGB", (side, side))),
        "progressive": encoded(Image.new("RGB", (side, side)), progressive=True),
        "webp": encoded(Image.new("RGB", (side, side)), "WEBP"),
    }
    # A JPEG takes 7 bytes a pixel, of coefficients 10, and a WebP 16.
    for room, refused in ((16, []), (15, ["webp"]), (10, ["webp"]), (9, ["progressive", "webp"])):
        monkeypatch.setattr(image_bounds, "MAX_MEMORY", image_bounds._BESIDE + room * side**2)
        assert [name for name, content in files.items() if is_broken(content)] == refused, room


_MEMORY = """
import sys
import numpy as np
from PIL import Image
from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.data.image_bounds import most_pixels, opened, MAX_MEMORY
from pixelbert_fast.errors import UserError
from tests.image_bombs import bombs
from tests.mutated_images import encoded

def highest():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

SIDE = 2400
rgb = lambda side: Image.new("RGB", (side, side), (200, 30, 40))
exif = Image.Exif()
exif[0x0112] = 6
kinds = {
    "jpeg turned": lambda side: encoded(rgb(side), exif=exif),
    "progressive": lambda side: encoded(rgb(side), progressive=True, subsampling=0),
    "png": lambda side: encoded(rgb(side).convert("RGBA"), "PNG"),
    "tiff": lambda side: encoded(
        Image.fromarray(np.zeros((side, side), np.float32)), "TIFF", compression="tiff_lzw"
    ),
    "webp": lambda side: encoded(rgb(side), "WEBP", lossless=True, method=0),
}
files = []
for name, make in kinds.items():
    to_rgb(make(16))
    files.append((name, make(SIDE)))
all_bombs = bombs()
before = highest()
for content, _ in all_bombs.values():
    try:
        to_rgb(content)
        sys.exit("a bomb was decoded")
    except UserError:
        pass
print("bombs", highest() - before)
for name, content in files:
    # Written anew, the highest is that of what follows.
    open("/proc/self/clear_refs", "w").write("5")
    before = highest()
    to_rgb(content)
    share = SIDE**2 / most_pixels(opened(content), content)
    print(name, highest() - before - share * MAX_MEMORY)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the highest memory")
def test_memory_stays_within_the_bound() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _MEMORY], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    over = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in ran.stdout.splitlines()}
    assert len(over) == 6
    assert over.pop("bombs") < 32 * 2**20, "what is refused takes next to nothing"
    # Strips of a conversion cost the same however large the picture is.
    assert max(over.values()) < 48 * 2**20, over


def test_a_large_file_is_not_opened(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(image_bounds, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="is larger than 0 MiB"):
        to_rgb(encoded(Image.new("RGB", (64, 64))))
    assert image_bounds.closed_to(tiff(16)[:60]) is None, "cut off within its tags"
