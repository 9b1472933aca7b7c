"""How fast a state is written and read, with its hash and without: `python benchmarks/bench_state.py`."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pixelbert_fast.training.durable import content_of, save_tensors


def plain(value: object, path: Path) -> None:
    """What is done without reading back and comparing."""
    with open(path, "wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where; default: as tempfile chooses")
    given = parser.parse_args()
    value = [torch.randn(1 << 24) for _ in range(max(given.megabytes // 64, 1))]
    megabytes = sum(tensor.nbytes for tensor in value) / 1e6
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "shared.pt"
        works: dict[str, Callable[[], object]] = {
            "torch.save to the disk": lambda: plain(value, path),
            "hashed, to the disk, read back, compared": lambda: save_tensors(value, path),
            "size and hash": lambda: content_of(path),
            "torch.load": lambda: torch.load(path, weights_only=True),
        }
        taken: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(given.rounds):  # in turns, so that a busy disk is nobody's alone
            for name, work in works.items():
                taken[name].append(seconds(work))
    print(f"{megabytes:.0f} MB, median of {given.rounds}")
    for name, times in taken.items():
        print(f"{megabytes / statistics.median(times):8.0f} MB/s  {name}")


if __name__ == "__main__":
    main()
