"""Parts of a step and of what feeds and reads it, for pytest-benchmark, to compare two commits.

    pytest benchmarks/bench_parts.py --benchmark-save before
    pytest benchmarks/bench_parts.py --benchmark-compare --benchmark-compare-fail median:10%

All small: the preset `tiny` with 4 images of its own size. Each case is checked as in the script that it is
taken from, once for both of its contestants, and fails untimed where they differ.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench_decoding
import bench_optimizer
import bench_retrieval
import model_contests
import model_parts

STEP = model_contests.Case(preset="tiny", images=4, height=96, width=96, pixels=30)
# Three layers of 192 behind a ResNet-50.
SCORED = {"num_hidden_layers": 3, "hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
SEQUENCES = 16
JPEGS = 8

# Long enough for a steady median, short enough for all cases in half a minute.
pytestmark = pytest.mark.benchmark(max_time=0.5, min_rounds=5, warmup=True, warmup_iterations=2)


@cache
def step_parts() -> dict[str, dict[str, Callable[[], None]]]:
    """By contestant, a run of each part, of models whose whole steps agree."""
    models, given = model_contests.pair(STEP), model_contests.batch(STEP)
    model_contests.verify(STEP, models, given)
    return {who: model_parts.parts(model, given) for who, model in models.items()}


@cache
def updates() -> dict[str, Callable[[], object]]:
    with torch.no_grad():
        weights = bench_optimizer.Weights("tiny", 1.0, "cpu")
        entered = bench_optimizer.contestants(weights, clip=True)
        bench_optimizer.verify(weights, entered)
    return {name: torch.no_grad()(step) for name, (_, step) in entered.items()}


@cache
def scoring() -> dict[str, Callable[[], object]]:
    case = bench_retrieval.Case(4, 8, 128, 160, "cpu", {**SCORED, "vocab_size": 2000})
    bench_retrieval.verify(case, SEQUENCES)
    return {
        bench_retrieval.CACHED: lambda: case.cached_padded(SEQUENCES),
        "matrix fp32": lambda: case.matrix("fp32"),
    }


@cache
def decoding() -> dict[str, Callable[[], object]]:
    """Without a DataLoader's workers, which take longer to begin than all of this."""
    encoded = [bench_decoding.photo_like(seed) for seed in range(JPEGS)]
    ordinary = bench_decoding.OrdinaryImages(encoded)
    plain = bench_decoding.decoder("plain", "cpu", torch.get_num_threads())
    sizes = [bench_decoding.SIZE] * JPEGS
    runs = {
        "Pillow + NumPy": lambda: torch.stack([ordinary[place] for place in range(JPEGS)]),
        "plain": lambda: plain.decode(encoded, sizes).pixel_values,
    }
    bench_decoding.verify(encoded, {name: lambda run=run: iter([run()]) for name, run in runs.items()})
    return runs


@pytest.mark.parametrize("name", [model_contests.REFERENCE, model_contests.FAST])
@pytest.mark.parametrize("part", model_parts.PARTS)
def test_part_of_a_step(benchmark, part: str, name: str) -> None:
    """Forward and backward of one part; pytest-benchmark keeps and compares."""
    benchmark.group = f"part of a step: {part}"
    benchmark(step_parts()[name][part])


@pytest.mark.parametrize("name", [bench_optimizer.FIRST, "ours, fused"])
def test_update(benchmark, name: str) -> None:
    benchmark.group = "update with clipping"
    benchmark(updates()[name])


@pytest.mark.parametrize("name", [bench_retrieval.CACHED, "matrix fp32"])
def test_scores_of_pairs(benchmark, name: str) -> None:
    benchmark.group = "scores of 32 pairs"
    benchmark(scoring()[name])


@pytest.mark.parametrize("name", ["Pillow + NumPy", "plain"])
def test_decoding(benchmark, name: str) -> None:
    benchmark.group = f"decoding {JPEGS} JPEGs"
    benchmark(decoding()[name])
