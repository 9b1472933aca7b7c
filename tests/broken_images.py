"""Mutated files through the build of a set and through runs over it, as a script and for its test.

``make broken-images`` does it with 1,000 files and writes docs/results/broken-images.md. Nothing may stop,
what is built and what is dropped must add up to what was given, a run over what was built must meet no broken
image, and a run over the files as they are exactly those that the build drops.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import platform
import resource
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from PIL import Image

from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.decoders.choice import choose
from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.data.records import write_card
from pixelbert_fast.training.cli import main as train
from tests import mutated_images
from tests.mutated_images import HEIGHT, WHOLE_KINDS, WIDTH, encoded, is_broken, mutated, picture, png_header

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "docs" / "results" / "broken-images.md"
MOST_MEMORY = 256 << 20
"""Bytes above that of a build and a run over whole images: a picture of 30,000 x 30,000 takes 2,700 MB, and
the rows of a set are held by 64 MiB at a time."""
BATCH = 10
_WORDS = ("one", "two", "three", "four", "five", "six", "seven")


def _narrow(seed: int, height: int, width: int) -> bytes:
    return encoded(Image.fromarray(picture(seed, height, width)))


def _deep_png(seed: int) -> bytes:
    """An RGB PNG of 16 bits a sample, which Pillow reads and does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    rows = (picture(seed).astype(">u2") * 257).reshape(HEIGHT, -1)
    content = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def _animated_webp(seed: int) -> bytes:
    frames = [Image.fromarray(picture(seed + number)) for number in range(3)]
    return encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def _huge_gif(seed: int) -> bytes:
    content = bytearray(mutated("animated gif", seed))
    content[6:10] = struct.pack("<HH", 30_000, 30_000)
    return bytes(content)


_MORE = {
    "narrow jpeg": lambda seed: _narrow(seed, 2, 700),
    "upright narrow jpeg": lambda seed: _narrow(seed, 700, 3),
    "one pixel": lambda seed: encoded(Image.fromarray(picture(seed, 1, 1)), "PNG"),
    "16-bit rgb png": _deep_png,
    "animated webp": _animated_webp,
    "huge gif": _huge_gif,
    "png just above the limit": lambda seed: png_header(9_460, 9_460),
    "archive": lambda seed: zlib.compress(picture(seed).tobytes()),
}
KINDS = (*mutated_images.KINDS, *_MORE)


def files(count: int) -> list[tuple[str, bytes]]:
    """(kind, bytes) of `count` files, every kind as often as any other."""
    kinds = [KINDS[number % len(KINDS)] for number in range(count)]
    makers = [_MORE.get(kind) for kind in kinds]
    return [
        (kind, maker(number) if maker else mutated(kind, number))
        for number, (kind, maker) in enumerate(zip(kinds, makers, strict=True))
    ]


def captions(number: int) -> list[str]:
    """Two, different for neighbours, so that false ones are found."""
    return [f"number {number}", f"{_WORDS[number % 7]} and {_WORDS[number // 7 % 7]}"]


def build(folder: Path, given: list[tuple[str, bytes]]) -> tuple[dict[str, int], dict[str, str]]:
    """Build `folder`/set of `given`, with 8 whole images for val: (records by split, why by key)."""
    rows = []
    for number, (_, content) in enumerate(given + [("jpeg", mutated("jpeg", seed)) for seed in range(8)]):
        path = folder / "images" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        split = "train" if number < len(given) else "val"
        rows.append({"image": path.name, "caption": captions(number), "split": split})
    annotations = folder / "captions.jsonl"
    annotations.write_text("".join(json.dumps(row) + "\n" for row in rows))
    builder = make_builder("captions", images=folder / "images", annotations=[annotations])
    report = build_set(builder, folder / "set", workers=1, block=100)
    return report.counts, {one["key"]: one["why"] for one in report.dropped}


def put_unchecked(folder: Path, given: list[tuple[str, bytes]]) -> None:
    """`folder`/unchecked: the files as a set whose images were damaged after it was built."""
    rows = []
    for number, (_, content) in enumerate(given):
        height, width = (HEIGHT, WIDTH) if is_broken(content) else to_rgb(content).shape[:2]
        key, spoken = f"{number:04d}.jpg", captions(number)
        rows.append({"key": key, "image": content, "height": height, "width": width, "captions": spoken})
    whole = [{**rows[0], "key": f"val{seed}", "image": mutated("jpeg", seed)} for seed in range(8)]
    whole = [{**row, "height": HEIGHT, "width": WIDTH} for row in whole]
    splits = {"train": Dataset.from_list(rows), "val": Dataset.from_list(whole)}
    DatasetDict(splits).save_to_disk(folder / "unchecked")
    write_card(folder / "unchecked", {"name": "mutated", "counts": {"train": len(rows), "val": 8}})


@contextmanager
def told_broken():
    """The keys of the images that are told to be broken meanwhile."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage().split("'")[1])
    logger = logging.getLogger("pixelbert_fast.data.broken")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def run(folder: Path, built: str, *, batching: bool, broken_limit: float) -> tuple[dict, list[str]]:
    """Train one epoch over `folder`/`built`; (metrics.json, the keys that were told)."""
    recipe = folder / f"{built}.yaml"
    recipe.write_text(
        f"""
data:
  directory: {folder / built}
  short_side: 32
  long_side: 64
  captions_per_image: 2
  broken_limit: {broken_limit}
  {"batching: {buckets: 6}" if batching else ""}
model: {{overrides: {{backbone_channels: 8, hidden_size: 32, num_hidden_layers: 1, intermediate_size: 32}}}}
training: {{images_per_batch: {BATCH}, epochs: 1}}
evaluation: {{splits: [val], images: null}}
"""
    )
    output = folder / f"run-{built}-{batching}"
    with told_broken() as keys, redirect_stdout(io.StringIO()):
        status = train(["--config", str(recipe), f"output={output}"])
    if status != 0:
        raise AssertionError(f"the run over {built} ended with status {status}")
    return json.loads((output / "metrics.json").read_text()), keys


def peak() -> int:
    """The most memory this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def passed_through(folder: Path, count: int) -> dict:
    """Everything with `count` files; what came of it. Raises AssertionError where something is wrong."""
    warm = folder / "warm"
    whole = [(kind, mutated(kind, seed)) for seed, kind in enumerate(WHOLE_KINDS * 2)]
    build(warm, whole)
    run(warm, "set", batching=False, broken_limit=0)
    before = peak()

    given = files(count)
    broken = {f"{number:04d}.jpg" for number, (_, content) in enumerate(given) if is_broken(content)}
    assert count / 4 < len(broken) < 3 * count / 4, "both kinds are there"
    counts, dropped = build(folder, given)
    assert counts == {"train": count - len(dropped), "val": 8, "test": 0}
    assert set(dropped) == broken, sorted(set(dropped) ^ broken)
    put_unchecked(folder, given)
    shown = {}
    for batching in (False, True):
        metrics, told = run(folder, "set", batching=batching, broken_limit=0)
        assert not told and metrics["broken_images"] == 0, told
        metrics, told = run(folder, "unchecked", batching=batching, broken_limit=0.75)
        assert sorted(told) == sorted(broken), sorted(set(told) ^ broken)
        assert metrics["broken_images"] == len(broken)
        shown[batching] = set(told)
    assert shown[True] == shown[False]
    grown = peak() - before
    assert grown < MOST_MEMORY, f"{grown >> 20} MiB more than whole images took"
    kinds: dict[str, Counter] = {kind: Counter() for kind in KINDS}
    for number, (kind, _) in enumerate(given):
        key = f"{number:04d}.jpg"
        kinds[kind]["files"] += 1
        kinds[kind]["built"] += key not in dropped
        kinds[kind]["replaced"] += key in shown[False]
        if key in dropped:
            kinds[kind][f"for: {dropped[key]}"] += 1
    return {"count": count, "built": counts["train"], "grown": grown, "kinds": kinds}


def table(outcome: dict) -> list[str]:
    """The outcome by kind of file."""
    lines = [
        "| files | given | built | dropped by the build, for | replaced in a run over all |",
        "|---|---:|---:|---|---:|",
    ]
    for kind, counted in outcome["kinds"].items():
        why = [f"{name[5:]} ({times})" for name, times in counted.items() if name.startswith("for: ")]
        replaced = counted["replaced"] or ""
        lines.append(f"| {kind} | {counted['files']} | {counted['built']} | {', '.join(why)} | {replaced} |")
    total = outcome["count"] - outcome["built"]
    return [*lines, f"| all | {outcome['count']} | {outcome['built']} | {total} | {total} |"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--report", action="store_true", help=f"write {REPORT.relative_to(ROOT)}")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="broken-images-"))
    start = time.monotonic()
    try:
        outcome = passed_through(folder, options.count)
    finally:
        shutil.rmtree(folder)
    lines = [
        f"{options.count:,} files by `make broken-images`, all named .jpg, every kind as often as any other:"
        " through the builder",
        "`captions`, then through one epoch of pre-training over what was built and one over all of them as",
        "they are, each without and with `data.batching`. Nothing stopped; what was built and what was",
        "dropped adds up to what was given; the run over what was built met no broken image, the other",
        f"one exactly those that the build drops. Memory grew by {outcome['grown'] / 2**20:.0f} MiB over that"
        " of whole images",
        f"(the bound is {MOST_MEMORY >> 20} MiB; one picture of 30,000 x 30,000 takes 2,700 MB).",
        "",
        *table(outcome),
        "",
        f"Decoder {choose()}; Python {platform.python_version()}, torch {torch.__version__}, Pillow"
        f" {Image.__version__}, NumPy {np.__version__}; {time.monotonic() - start:.0f} s.",
    ]
    print("\n".join(lines))
    if options.report:
        REPORT.write_text("\n".join(["# Broken images", "", *lines]) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
