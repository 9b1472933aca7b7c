"""Times the decoders against the ordinary way: Pillow and NumPy in the workers of a PyTorch DataLoader.

    python benchmarks/bench_decoding.py --threads 2
    python benchmarks/bench_decoding.py --json decoding.json

640 x 480 JPEGs, made here, to a short side of 384, in normalised float32 batches, from memory to memory (the
device's, where it is a GPU). All contestants have the same cores: as many as threads, or workers of the
DataLoader. Their batches are compared with the image processor's first, and nothing is timed where they
differ by more than the stated tolerance. What each takes of the cores, its workers' share included, is a case
of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent))

import contest
import rows_table
from rows import REFERENCE, Contest, Row, with_checks

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pixelbert_fast import machine
from pixelbert_fast.data.decoders import choice
from pixelbert_fast.data.decoders.contract import TOLERANCE, Decoder, Tolerance, decode_ahead
from pixelbert_fast.data.decoders.normalising import Normalisation
from pixelbert_fast.data.processor import PixelBertImageProcessor

ORDINARY = "Pillow + NumPy in a DataLoader"
HEIGHT, WIDTH, SHORT_SIDE = 480, 640, 384
SIZE = (SHORT_SIDE, SHORT_SIDE * WIDTH // HEIGHT)
PROCESSOR = PixelBertImageProcessor(SHORT_SIDE, 640)
MEAN, STD = (np.array(values, dtype=np.float32) for values in (PROCESSOR.image_mean, PROCESSOR.image_std))


def photo_like(seed: int) -> bytes:
    """A JPEG of quality 90 with the weight of a photograph: slow colours, edges, fine grain."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.full((HEIGHT, WIDTH, 3), 128.0)
    for channel in range(3):
        for _ in range(6):
            slope = draw.normal(0, 0.02, 2)
            wave = np.sin(slope[0] * x + slope[1] * y + draw.uniform(0, 6))
            picture[..., channel] += draw.uniform(10, 30) * wave
    for _ in range(12):  # edges
        top, left = draw.integers(0, HEIGHT), draw.integers(0, WIDTH)
        picture[top : top + draw.integers(20, 200), left : left + draw.integers(20, 200)] += draw.normal(
            0, 25, 3
        )
    picture += np.kron(draw.normal(0, 7, (HEIGHT // 4, WIDTH // 4, 3)), np.ones((4, 4, 1)))
    picture += draw.normal(0, 3.5, (HEIGHT, WIDTH, 1))
    stream = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


class OrdinaryImages(Dataset):
    """One image an item, float32 ``[3, H, W]``, as it is usually written."""

    def __init__(self, encoded: list[bytes]) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, place: int) -> Tensor:
        image = Image.open(io.BytesIO(self.encoded[place])).convert("RGB")
        image = image.resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR)
        values = (np.asarray(image, dtype=np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(values.transpose(2, 0, 1).copy())


def contestants(
    encoded: list[bytes], batch: int, threads: int, device: str = "cpu"
) -> dict[str, Callable[[], Iterator[Tensor]]]:
    """By name, the ordinary way first: what gives all images once, in batches of pixel values."""
    # Workers that stay: their start is not timed. Spawned: a fork beside a decoder's threads can hang.
    loader = DataLoader(
        OrdinaryImages(encoded),
        batch,
        num_workers=threads,
        persistent_workers=True,
        multiprocessing_context="spawn",
        timeout=120,
    )
    runs: dict[str, Callable[[], Iterator[Tensor]]] = {
        ORDINARY: lambda: (values.to(device) for values in loader)
    }
    for name in choice.DECODERS:
        if choice.why_not(name, torch.device(device).type) is None:
            made = decoder(name, device, threads)
            runs[name] = lambda made=made: _decoded(made, encoded, batch, device)
    return runs


def decoder(name: str, device: str, threads: int) -> Decoder:
    """With the normalisation of `PROCESSOR`."""
    return choice.make_decoder(
        Normalisation(PROCESSOR.image_mean, PROCESSOR.image_std), name, device, threads
    )


def _decoded(decoder: Decoder, encoded: list[bytes], batch: int, device: str) -> Iterator[Tensor]:
    parts = [encoded[start : start + batch] for start in range(0, len(encoded), batch)]
    with decode_ahead(decoder, ((part, [SIZE] * len(part)) for part in parts)) as batches:
        for decoded in batches:
            assert not decoded.broken
            yield decoded.pixel_values.to(device)


def verify(encoded: list[bytes], runs: dict[str, Callable[[], Iterator[Tensor]]]) -> dict[str, Tolerance]:
    """How far each contestant is from the image processor; raises AssertionError where that is too far."""
    found = {}
    levels = 255 * torch.tensor(PROCESSOR.image_std).view(3, 1, 1)
    for name, run in runs.items():
        most, mean, images = 0.0, 0.0, 0
        for values in run():
            for image in values:
                apart = ((image.cpu() - PROCESSOR.pixels(encoded[images])) * levels).abs()
                most, mean, images = max(most, float(apart.max())), mean + float(apart.mean()), images + 1
        assert images == len(encoded), f"{name} gave {images} of {len(encoded)} images"
        found[name] = Tolerance(round(most, 3), round(mean / images, 4))
        # Of the ordinary way only the arithmetic's order may differ: a thousandth of a level.
        allowed = TOLERANCE.get(name, Tolerance(1e-3, 1e-3))
        assert found[name].most <= allowed.most + 1e-3 and found[name].mean <= allowed.mean, (
            name,
            found[name],
        )
    return found


def consumed(run: Callable[[], Iterator[Tensor]], cpu: list[float]) -> Callable[[], None]:
    """Reads a value of every batch; what that took of the cores goes into `cpu`."""

    def consume() -> None:
        before = cpu_seconds()
        for values in run():
            values[0, 0, 0, 0].item()
        cpu.append(cpu_seconds() - before)

    return consume


def cpu_seconds() -> float:
    """What this process and its workers have computed so far; NaN where the system does not tell."""
    total = time.process_time()
    for worker in multiprocessing.active_children():
        try:
            fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return math.nan
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def contests(
    device: str,
    *,
    images: int = 512,
    batch: int = 32,
    threads: int | None = None,
    rounds: int = 9,
    seconds: float = 300.0,
) -> tuple[list[Row], list[str]]:
    """A row of each contestant by the clock and one by what it took of the cores; why one was not measured.

    Args:
        device: where the batches are wanted.
        images: of a round, at most 64 different ones.
        batch: images of a batch.
        threads: of the decoders, and workers of the DataLoader; None: as many as torch has.
        rounds, seconds: as for `contest.take_turns`.

    Raises:
        AssertionError: a contestant's batches are too far from the image processor's; nothing was timed.
    """
    threads = threads or torch.get_num_threads()
    distinct = [photo_like(seed) for seed in range(min(images, 64))]
    encoded = [distinct[place % len(distinct)] for place in range(images)]
    runs = contestants(encoded, batch, threads, device)
    differences = verify(encoded, runs)
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    # By the clock on a GPU too: each run ends with a value read from there.
    timings = contest.take_turns(
        {name: consumed(run, cpu[name]) for name, run in runs.items()}, "cpu", rounds=rounds, seconds=seconds
    )
    kilobytes = sum(map(len, distinct)) / len(distinct) / 1e3
    case = Contest(
        "decoding",
        f"{images} JPEGs of {WIDTH} x {HEIGHT} and {kilobytes:.0f} kB to {SIZE[1]} x {SIZE[0]}, batches of "
        f"{batch} in memory of the {torch.device(device).type}, {threads} threads or workers",
        "float32",
        items=images,
        item="images",
        roles={ORDINARY: REFERENCE},
    )
    rows = case.rows(timings)
    if not any(math.isnan(each) for took in cpu.values() for each in took):
        # Without the two rounds that do not count.
        worked = {name: contest.Timing.of([1e3 * each for each in took[2:]]) for name, took in cpu.items()}
        rows += replace(case, case=f"{case.case}: processor time").rows(worked)
    checks = {name: _levels(apart) for name, apart in differences.items() if name != ORDINARY}
    kind = torch.device(device).type
    not_measured = [
        f"the decoder {name} on {kind}: {choice.why_not(name, kind)}"
        for name in choice.DECODERS
        if name not in runs
    ]
    return with_checks(rows, checks), not_measured


def _levels(apart: Tolerance) -> str:
    return f"within {apart.most:.2g} grey levels, {apart.mean:.2g} in the mean"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("torch", "pillow", "numpy", "simplejpeg", "nvidia-dali-cuda130"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=512, help="a round")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the report there as well")
    options = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    torch.set_num_threads(options.threads)
    rows, not_measured = contests(
        options.device,
        images=options.images,
        batch=options.batch,
        threads=options.threads,
        rounds=options.rounds,
    )
    about = {
        "machine": machine.processor_name(),
        "versions": _versions(),
        "automatic": choice.automatic("cpu"),
    }
    print(json.dumps(about, indent=1))
    rows_table.show(rows, not_measured, more={"ms an image": _milliseconds_an_image})
    if options.json:
        report = {**about, "rows": [row.as_dict() for row in rows], "not_measured": not_measured}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _milliseconds_an_image(row: dict) -> str:
    return f"{row['milliseconds']['median'] / row['items']:.2f}"


if __name__ == "__main__":
    sys.exit(main())
