"""What decoding the largest picture of each kind takes: memory beside the file, and time.

    python benchmarks/bench_image_memory.py

Each is as large as `data.image_bounds` lets its kind be, and decoded by `to_rgb` in a process of its own:
what that process came to hold at most, less what it held with the file read. The last is a small file of
as many scans as are allowed. Needs 3 GB of memory and some minutes.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

import written  # noqa: E402 - needs the path above
from PIL import Image  # noqa: E402

from pixelbert_fast.data import image_bounds, images  # noqa: E402
from tests import image_bombs  # noqa: E402
from tests.mutated_images import encoded  # noqa: E402

SMALL = 64


def saved(mode: str, colour: object, **options: object) -> Callable[[int], bytes]:
    return lambda side: encoded(Image.new(mode, (side, side), colour), **options)


KINDS: dict[str, Callable[[int], bytes]] = {
    "JPEG": saved("RGB", (9, 99, 0), file_format="JPEG", subsampling=0),
    "progressive JPEG, 4:4:4": saved("RGB", (9, 99, 0), file_format="JPEG", subsampling=0, progressive=True),
    "PNG": saved("RGB", (9, 99, 0), file_format="PNG", compress_level=1),
    "WebP": saved("RGB", (9, 99, 0), file_format="WEBP", lossless=True, method=0),
    "TIFF of floats": saved("F", 0.5, file_format="TIFF", compression="tiff_lzw"),
    "TIFF of 16 bits": saved("I;16", 9, file_format="TIFF", compression="tiff_lzw"),
    f"JPEG of {image_bounds.MAX_SCANS} scans": lambda side: image_bombs.progressive(
        side, image_bounds.MAX_SCANS
    ),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=KINDS, help="this kind")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.child:
        print(*decoded(told.child.read_bytes()))
        return 0
    lines = []
    for name in told.only or KINDS:
        side = largest(KINDS[name])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "picture")
            file.write_bytes(KINDS[name](side))
            size = file.stat().st_size
            command = [sys.executable, __file__, "--child", str(file)]
            ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        mebibytes, seconds, outcome = ran.stdout.split(maxsplit=2)
        lines.append([name, f"{side:,} x {side:,}", f"{size:,}", mebibytes, seconds, outcome.strip()])
    heads = ["kind", "pixels", "bytes of the file", "MiB at most", "seconds", "outcome"]
    print("\n".join(written.table(heads, lines)))
    return 0


def largest(make: Callable[[int], bytes]) -> int:
    """The side of the largest square of a kind."""
    small = make(SMALL)
    with image_bounds.opened(small) as image:
        return math.isqrt(image_bounds.most_pixels(image, small))


def decoded(content: bytes) -> tuple[int, str, str]:
    """MiB that decoding added to the most this process ever held, seconds, and what came of it."""
    images.to_rgb(encoded(Image.new("RGB", (SMALL, SMALL)), "PNG"))  # imports what decoding imports
    before, start = most_held(), time.perf_counter()
    try:
        images.to_rgb(content)
        outcome = "decoded"
    except Exception as error:
        outcome = str(error)
    return (most_held() - before) >> 20, f"{time.perf_counter() - start:.1f}", outcome


def most_held() -> int:
    """Bytes; of this program alone, where getrusage's figure goes on from the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(main())
