"""Image files as they come: sizes the right way up, every reason to refuse one, and what a bomb may cost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelbert_fast.data import image_files
from pixelbert_fast.data.image_files import ImageFolder, Unusable, image_columns
from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.errors import UserError
from tests.official_files import declared_huge, picture, put

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_size_is_that_of_the_decoded_picture(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = picture(1, (40, 24), file_format, exif=exif)
    columns = image_columns(content)
    assert columns["image"] is content
    assert (columns["height"], columns["width"]) == to_rgb(content).shape[:2]


@pytest.mark.parametrize(
    ("file_format", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {})]
)
def test_what_is_cut_off_is_refused_as_the_decoder_would(file_format: str, options: dict) -> None:
    content = picture(1, (70, 50), file_format, **options)
    refused = 0
    for end in [*range(1, len(content), 97), *range(len(content) - 40, len(content) + 1)]:
        try:
            to_rgb(content[:end])
        except UserError:
            refused += 1
            with pytest.raises(Unusable):
                image_columns(content[:end])
        else:
            assert image_columns(content[:end])["height"] == 50
    assert refused > 20


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_corrupted_files_are_kept_where_they_can_be_decoded(file_format: str) -> None:
    rng = np.random.default_rng(3)
    whole = np.frombuffer(picture(1, (70, 50), file_format), np.uint8)
    for _ in range(60):
        content = whole.copy()
        content[rng.integers(0, min(len(content), 700), 4)] = rng.integers(0, 256, 4)
        if rng.random() < 0.2:
            content = content[: rng.integers(1, len(content))]
        try:
            expected = to_rgb(content.tobytes()).shape[:2]
        except UserError:
            with pytest.raises(Unusable):
                image_columns(content.tobytes())
        else:
            columns = image_columns(content.tobytes())
            assert (columns["height"], columns["width"]) == expected


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16"])
def test_images_of_every_mode_are_kept_as_they_came(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "1") else "a.png")
    Image.new(mode, (30, 20)).save(path)
    assert image_columns(path.read_bytes()) == {"image": path.read_bytes(), "height": 20, "width": 30}


def test_an_animation_is_measured_by_its_first_picture(tmp_path: Path) -> None:
    frames = [Image.new("L", (30, 20), value) for value in (0, 128, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert image_columns((tmp_path / "a.gif").read_bytes())["height"] == 20


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_BYTES", 1 << 20)
    with open(put(tmp_path / "a.jpg", picture(1)), "r+b") as file:
        file.truncate(1 << 34)  # sparse: it takes no room on the disk
    with pytest.raises(Unusable, match="larger than 1 MiB"):
        ImageFolder("set", tmp_path).read("a.jpg")


@pytest.mark.parametrize(
    "path",
    ["../a.jpg", "/etc/passwd", "x/../../a.jpg", "..", "link/a.jpg", "a_link.jpg", "there/../../a"],
)  # fmt: skip
def test_no_path_leaves_the_folder(tmp_path: Path, path: str) -> None:
    put(tmp_path / "images_too" / "a.jpg", picture(1))
    put(tmp_path / "images" / "there" / "a.jpg", picture(1))
    (tmp_path / "images" / "link").symlink_to(tmp_path / "images_too")
    (tmp_path / "images" / "a_link.jpg").symlink_to(tmp_path / "images_too" / "a.jpg")
    folder = ImageFolder("set", tmp_path / "images")
    with pytest.raises(Unusable, match="path of the image leaves the folder of images"):
        folder.read(path)


def test_links_inside_the_folder_and_to_the_folder_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.jpg", picture(1))
    (tmp_path / "images" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "link").symlink_to("images")
    assert ImageFolder("set", tmp_path / "link").read("./b.jpg")["image"] == picture(1)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "no image file is named"),
        ("a\0b.jpg", "no image file is named"),
        ("none.jpg", "is missing"),
        ("a.jpg/b.jpg", "is missing"),
        ("x" * 300, "cannot be read"),
        ("\ud800.jpg", "cannot be read"),
        ("loop", "cannot be read"),
        (".", "no image file is named"),
        ("folder", "not a file"),
        ("pipe", "not a file"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path: Path, path: str, said: str) -> None:
    put(tmp_path / "a.jpg", picture(1))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unusable, match=said):
        ImageFolder("set", tmp_path).read(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", picture(1)).chmod(0)
    with pytest.raises(Unusable, match="cannot be read"):
        ImageFolder("set", tmp_path).read("a.jpg")


def test_permission_is_a_reason_and_a_failing_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.jpg", picture(1))
    folder = ImageFolder("set", tmp_path)

    def fail(error: OSError):
        def opened(*_: object, **__: object) -> None:
            raise error

        return opened

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fail(PermissionError(13, "Permission denied")))
        with pytest.raises(Unusable, match="image file cannot be read"):
            folder.read("a.jpg")
        patched.setattr(Path, "open", fail(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output error"):
            folder.read("a.jpg")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=r"loop cannot be read"):
        ImageFolder("set", tmp_path / "loop")


_BOMBS = """
import resource, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from pixelbert_fast.data.image_files import Unusable, image_columns
from tests.official_files import picture
image_columns(picture(1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        image_columns(Path(path).read_bytes())
        raise SystemExit(path + " was taken")
    except Unusable as why:
        assert "pixels" in str(why), (path, why)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_declared_huge_image_costs_no_memory(tmp_path: Path) -> None:
    put(tmp_path / "a.png", declared_huge())
    jpeg = bytearray(picture(1))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = (30_000).to_bytes(2) * 2
    put(tmp_path / "b.jpg", bytes(jpeg))
    put(tmp_path / "c.ppm", b"P6 30000 30000 255\n" + b"x" * 1000)
    gif = bytearray(picture(1, file_format="GIF"))
    gif[6:10] = (30_000).to_bytes(2, "little") * 2
    put(tmp_path / "d.gif", bytes(gif))
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    result = subprocess.run(
        [sys.executable, "-c", _BOMBS.format(root=str(ROOT)), *files],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    # Decoded, one of them would take 2,700,000 KiB; plugins and buffers take a few thousand.
    assert int(result.stdout) < 50_000
