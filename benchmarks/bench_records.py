"""Times opening a built set and reading random records, and says what memory that takes.

    python benchmarks/bench_records.py
    python benchmarks/bench_records.py --records 200000 --reads 50000 --folder DIR

Makes a set of small records (random bytes in place of images: nothing is decoded), opens it in a fresh
process, and reads random records through `StoredBytes`, as training does, and through `datasets`. What both
read is compared. Memory is what the process grows by while it reads: all of it (pages of mapped files
included, which the system can take back), and its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WAYS = ("stored_bytes", "datasets")
MOST_COMPARED = 2000


def make(directory: Path, records: int) -> None:
    """Write a built set of `records` records of 1.5 to 4.5 kB each."""
    from datasets import Dataset, disable_progress_bars

    from pixelbert_fast.data.records import BASE_COLUMNS, features_of, write_card

    disable_progress_bars()

    def rows() -> Iterator[dict]:
        random = np.random.default_rng(0)
        for row in range(records):
            image = random.bytes(int(random.integers(1500, 4500)))
            captions = [f"caption {number} of image {row}" for number in range(5)]
            yield {"key": str(row), "image": image, "height": 96, "width": 128, "captions": captions}

    with tempfile.TemporaryDirectory(dir=directory.parent) as cache:
        made = Dataset.from_generator(rows, features=features_of(BASE_COLUMNS), cache_dir=cache)
        made.save_to_disk(directory / "train")
    write_card(directory, {"counts": {"train": records}})


def reader(split, way: str) -> Callable[[int], bytes]:
    """What reads the image of a row."""
    if way == "stored_bytes":
        from pixelbert_fast.data.stored_bytes import StoredBytes

        return StoredBytes(split).__getitem__
    images = split.select_columns(["image"])
    return lambda row: images[row]["image"]


def memory() -> dict[str, float]:
    """This process's resident memory in MB: all, and without pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return {"all": int(values["VmRSS"]) / 1000, "own": int(values["RssAnon"]) / 1000}


def measure(directory: Path, way: str, reads: int) -> dict[str, float]:
    """Open the set and read it, in this process."""
    import datasets  # noqa: F401 - importing it is not opening a set

    from pixelbert_fast.data.records import open_set

    began = time.perf_counter()
    split = open_set(directory).split("train")
    read = reader(split, way)
    opened = time.perf_counter() - began
    rows = np.random.default_rng(1).integers(len(split), size=reads).tolist()
    before, began = memory(), time.perf_counter()
    count = sum(len(read(row)) for row in rows)
    seconds, after = time.perf_counter() - began, memory()
    other = reader(split, WAYS[1 - WAYS.index(way)])
    if any(read(row) != other(row) for row in rows[:MOST_COMPARED]):
        raise SystemExit(f"{way} reads other bytes than {WAYS[1 - WAYS.index(way)]}")
    return {
        "open_seconds": round(opened, 4),
        "microseconds_a_record": round(1e6 * seconds / reads, 2),
        "read_MB": round(count / 1e6, 1),
        "grown_MB": round(after["all"] - before["all"], 1),
        "grown_own_MB": round(after["own"] - before["own"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--reads", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, help="where the set is made; default: a temporary folder")
    parser.add_argument("--measure", nargs=2, metavar=("SET", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        directory, way = options.measure
        print(json.dumps(measure(Path(directory), way, options.reads)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        directory = Path(folder, "set")
        directory.mkdir()
        make(directory, options.records)
        for way in WAYS:
            command = [sys.executable, __file__, "--reads", str(options.reads)]
            done = subprocess.run(
                [*command, "--measure", str(directory), way], check=True, stdout=subprocess.PIPE, text=True
            )
            print(way, done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
