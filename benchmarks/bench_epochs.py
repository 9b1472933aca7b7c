"""Times planning an epoch: sizes, which captions beside which image, and the list of batches.

    python benchmarks/bench_epochs.py
    python benchmarks/bench_epochs.py --images 113287 --captions 567000 --samples 10000000

The captions are made up, as many and as many an image as COCO's, and so are the sizes, COCO's commonest ones
and a tail of others; no image is read. `samples` is the number for the list of batches alone. The plan is
checked before it is timed: every image once, every batch of one group.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pixelbert_fast.data import mixing  # noqa: E402
from pixelbert_fast.data.batch_list import Batching, list_batches  # noqa: E402
from pixelbert_fast.data.captions import CaptionTexts  # noqa: E402
from pixelbert_fast.data.sizes import plan_sizes  # noqa: E402
from pixelbert_fast.tasks.pretraining.matching import Matcher  # noqa: E402

COMMON = [(480, 640), (640, 480), (427, 640), (426, 640), (640, 427), (375, 500), (640, 640), (612, 612)]
PER_IMAGE, PER_BATCH = 4, 16
TOKENS = PER_BATCH * PER_IMAGE * 20


def made_up(images: int, captions: int) -> tuple[CaptionTexts, np.ndarray]:
    """As many texts, no two alike, spread evenly, and as many sizes `[images, 2]`."""
    random = np.random.default_rng(0)
    starts = np.linspace(0, captions, images + 1).astype(np.int32)
    texts = pyarrow.array([f"caption number {number}" for number in range(captions)])
    sizes = np.array(COMMON)[random.integers(len(COMMON), size=images)]
    rare = random.random(images) < 0.2
    sizes[rare, 0] = random.integers(200, 641, rare.sum())
    return CaptionTexts(pyarrow.ListArray.from_arrays(pyarrow.array(starts), texts)), sizes


def timed(work: Callable) -> tuple[float, float]:
    """(seconds, the most memory in MB that it took on top), each of a run of its own."""
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(seconds, 3), round(peak / 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=113_287)
    parser.add_argument("--captions", type=int, default=567_000)
    parser.add_argument("--samples", type=int, default=10_000_000)
    options = parser.parse_args()
    texts, sizes = made_up(options.images, options.captions)

    def report(what: str, work: Callable) -> None:
        seconds, megabytes = timed(work)
        print(json.dumps({"what": what, "seconds": seconds, "MB": megabytes}), flush=True)

    def size_plan():
        return plan_sizes(*sizes.T, 800, 1333, 32, fewest=PER_BATCH)

    def captions(kind: str):
        per_showing = PER_IMAGE // 2
        by_part = kind == "captions"
        parts = -(-texts.counts // per_showing) if by_part else np.ones_like(texts.counts)
        shown = mixing.showings(parts, 1.0, 0, 3)
        draw = mixing.captions_by_part if by_part else mixing.captions_by_turn
        own = draw(texts.counts, shown, per_showing, 0)
        return shown.row, matcher.mismatched(shown.row, own, per_showing, 0, 3)

    def batches(samples: int, tokens: int | None):
        group = np.resize(plan.group, samples)
        longest = np.resize(lengths, samples)
        areas = np.repeat(plan.buckets.astype(np.int64).prod(axis=1), 2)
        batching = Batching(pixels=PER_BATCH * int(areas.max()), tokens=tokens)
        return list_batches(group, areas, PER_BATCH, batching, 0, 3, longest, PER_IMAGE)

    plan, matcher = size_plan(), Matcher(texts)
    lengths = np.random.default_rng(1).integers(8, 25, options.images)
    listed = batches(options.images, None)
    whole = np.array_equal(np.sort(listed.samples), np.arange(options.images))
    if not whole or any(len(set(plan.group[listed[number]])) > 1 for number in range(len(listed))):
        raise SystemExit("the list of batches is wrong")
    report(f"sizes of {options.images} images", size_plan)
    report(f"an epoch of images: captions of {options.images} images", lambda: captions("images"))
    report(f"an epoch of captions: all {options.captions}", lambda: captions("captions"))
    for samples in (options.images, options.samples):
        report(f"batches of {samples} samples", lambda samples=samples: batches(samples, None))
        report(f"the same within {TOKENS} tokens", lambda samples=samples: batches(samples, TOKENS))


if __name__ == "__main__":
    main()
