"""Times the scores of all texts beside all images: pairs a second, and the hours that COCO's 5K would take.

    python benchmarks/bench_retrieval.py --threads 2              on a CPU
    python benchmarks/bench_retrieval.py --device cuda --images 64 --texts 256

Contestants, all with the same weights, taking turns in one run:

- "forward a pair": the reference model, a whole forward for each pair, the image's backbone in it;
- "cached, padded": the reference model on cached pixels, batches of pairs padded to their longest;
- "matrix": `score_matrix` in float32, in float32 by bfloat16 products where the CPU has AMX, in bfloat16.
  By those products it can pass what float32's own reach: its share of them may be above 1.

Their scores are compared first, and nothing is timed where float32's differ beyond rounding.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).resolve().parent))

import contest
import rows_table
from model_floors import floating_point_operations
from rows import PEER, REFERENCE, Contest, Row, Work, with_checks

from pixelbert_fast import PixelBertConfig, PixelBertForImageTextRetrieval
from pixelbert_fast.model.outputs import PixelEmbeddings
from pixelbert_fast.model.pair_scores import PairScorer
from pixelbert_fast.ops import split_linear
from pixelbert_fast.tasks.retrieval.scoring import HeldPixels, ScoringOptions, score_matrix

COCO_PAIRS = 5000 * 25_000
# Word pieces with [CLS] and [SEP]: COCO's captions have about 11 words, and half of them 12 to 14 pieces.
LENGTHS = (12, 13, 13, 14, 14, 16, 18, 20)
FIRST, CACHED, SPREAD = "forward a pair", "cached, padded", "spread of the scores"
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Case:
    """A model of r50's size, images of one size or two, texts of several lengths.

    Where `other` is None all images have one number of pixels, which spares "cached, padded" the padding of
    real ones; else every second one is so wide.
    """

    def __init__(
        self,
        images: int,
        texts: int,
        height: int,
        width: int,
        device: str,
        overrides: dict,
        other: int | None = None,
    ):
        torch.manual_seed(0)
        config = PixelBertConfig.preset("r50", **overrides)
        self.device = device
        self.reference = PixelBertForImageTextRetrieval(config, fast=False).eval().to(device)
        widths = [other if other and number % 2 else width for number in range(images)]
        self.pixel_values = [torch.randn(3, height, own, device=device) for own in widths]
        stream = np.random.default_rng(0)
        self.texts = [
            stream.integers(1000, config.vocab_size, size=LENGTHS[number % len(LENGTHS)])
            for number in range(texts)
        ]
        with torch.inference_mode():
            parts = [self.reference.pixelbert.embed_pixels(one[None]) for one in self.pixel_values]
        pad = torch.nn.utils.rnn.pad_sequence
        self.cached = PixelEmbeddings(
            pad([one.values[0] for one in parts], batch_first=True),
            pad([one.positions[0] for one in parts], batch_first=True, padding_value=-1),
            pad([one.mask[0] for one in parts], batch_first=True),
        )
        self.held = HeldPixels([one.values[0] for one in parts])
        reason = split_linear.why_not() if device == "cpu" else "it is not one."
        self.precisions = ("fp32", "bf16x2", "bf16") if reason is None else ("fp32", "bf16")
        self.not_measured = [] if reason is None else [f"matrix bf16x2 is for CPUs with AMX, and {reason}"]
        self.scorers = {name: PairScorer(self.reference, name) for name in self.precisions}

    @property
    def pairs(self) -> int:
        return len(self.texts) * len(self.pixel_values)

    @torch.inference_mode()
    def forward_a_pair(self, pairs: int | None = None) -> Tensor:
        """Scores of the first `pairs`, in the matrix's order."""
        found = []
        for number in range(self.pairs if pairs is None else pairs):
            text, image = divmod(number, len(self.pixel_values))
            ids = torch.from_numpy(self.texts[text])[None].to(self.device)
            found.append(self.reference(ids, None, self.pixel_values[image][None]).scores)
        return torch.cat(found)

    @torch.inference_mode()
    def cached_padded(self, sequences: int) -> Tensor:
        order = [(text, image) for text in range(len(self.texts)) for image in range(len(self.pixel_values))]
        found = []
        for start in range(0, len(order), sequences):
            part = order[start : start + sequences]
            longest = max(len(self.texts[text]) for text, _ in part)
            ids = torch.zeros(len(part), longest, dtype=torch.int64)
            mask = torch.zeros(len(part), longest, dtype=torch.int64)
            for line, (text, _) in enumerate(part):
                ids[line, : len(self.texts[text])] = torch.from_numpy(self.texts[text])
                mask[line, : len(self.texts[text])] = 1
            index = torch.tensor([image for _, image in part])
            given = (one.to(self.device) for one in (ids, mask))
            outputs = self.reference(*given, pixel_embeddings=self.cached, image_index=index.to(self.device))
            found.append(outputs.scores)
        return torch.cat(found)

    def matrix(self, precision: str) -> Tensor:
        options = ScoringOptions(precision=precision)
        return torch.from_numpy(score_matrix(self.scorers[precision], self.texts, self.held, options=options))


def verify(case: Case, sequences: int) -> dict[str, float]:
    """The greatest differences from a forward a pair, by contestant, and the spread of the scores.

    Raises:
        AssertionError: float32's are not within rounding: sums of some thousand terms, 12 layers deep.
    """
    few = min(case.pairs, len(case.pixel_values))
    exact = case.forward_a_pair(few).cpu()
    cached = case.cached_padded(sequences).cpu()
    found = {CACHED: float((cached[:few] - exact).abs().max())}
    apart = {}
    for name in case.precisions:
        apart[name] = case.matrix(name).flatten() - cached
        found[f"matrix {name}"] = float(apart[name].abs().max())
    spread = float(cached.std())
    # A hundred times the rounding that is allowed below: of scores that hardly differ nothing can be told.
    assert spread > 1e-3, f"the scores spread by {spread:.2g} only: nothing was timed"
    assert found[CACHED] < 1e-4 * spread + 1e-5, found
    assert found["matrix fp32"] < 1e-4 * spread + 1e-5, found
    # Factors are off by 2^-18 in place of 2^-24.
    assert found.get("matrix bf16x2", 0.0) < 1e-3 * spread, found
    # Factors of 8 bits, 12 layers deep: some tenths of the spread. Another pair's score is off by 1.4 of it.
    assert float(apart["bf16"].square().mean().sqrt()) < 0.5 * spread, found
    return {**found, SPREAD: spread}


def contests(
    device: str,
    *,
    images: int = 4,
    texts: int = 4,
    height: int = 800,
    width: int = 1066,
    sequences: int = 16,
    forwards: int = 2,
    rounds: int = 20,
    seconds: float = 60.0,
    overrides: Mapping[str, Any] = NOTHING,
    other_width: int | None = None,
    processor_time: bool = False,
) -> tuple[list[Row], list[str]]:
    """A row of each contestant, and why what is missing was not measured.

    The operations of a row are those of the matrix for as many pairs as its run scores: what a contestant
    does beyond them (an image's backbone once a pair, padding) is its own loss.

    Args:
        images, texts: all beside all.
        height, width: of the images in pixels; `other_width`: of every second one.
        sequences: of a batch of the cached, padded contestant.
        forwards: pairs of a run of the first contestant.
        rounds, seconds, processor_time: as for `contest.take_turns`.
        overrides: of the configuration of `r50`.

    Raises:
        AssertionError: the scores differ by more than they may; then nothing was timed.
    """
    case = Case(images, texts, height, width, device, dict(overrides), other_width)
    differences = verify(case, sequences)
    once = min(case.pairs, forwards)
    pairs = {FIRST: once, CACHED: case.pairs}
    runs: dict[str, Callable[[], object]] = {
        FIRST: lambda: case.forward_a_pair(once),
        CACHED: lambda: case.cached_padded(sequences),
    }
    for name in case.precisions:
        runs[f"matrix {name}"] = lambda name=name: case.matrix(name)
        pairs[f"matrix {name}"] = case.pairs
    timings = contest.take_turns(runs, device, rounds=rounds, seconds=seconds, processor_time=processor_time)
    sizes = f"{height} x {width}" + (f" and {other_width}" if other_width else "")
    changed = "".join(f", {name} {value}" for name, value in overrides.items())
    rows = Contest(
        "retrieval",
        f"{texts} texts beside {images} images of {sizes}: r50{changed}"
        + (", processor time" if processor_time else ""),
        "float32",
        item="pairs",
        roles={FIRST: REFERENCE, CACHED: PEER},
    ).rows(timings, memory={who: contest.peak_memory(run, device) for who, run in runs.items()}, items=pairs)
    with sdpa_kernel(SDPBackend.MATH):  # of a CPU's fused attention the counter sees nothing
        flops = floating_point_operations(runs["matrix fp32"])
    spread = differences.pop(SPREAD)
    checks = {
        who: f"scores within {each:.1g}, of a spread of {spread:.2g}" for who, each in differences.items()
    }
    rows = [
        replace(
            row,
            dtype="bfloat16" if row.contestant == "matrix bf16" else "float32",
            work=Work(flops=flops * pairs[row.contestant] // case.pairs),
        )
        for row in rows
    ]
    return with_checks(rows, checks), case.not_measured


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--texts", type=int, default=4)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1066)
    parser.add_argument(
        "--sequences", type=int, default=16, help="of a batch of the cached, padded contestant"
    )
    parser.add_argument("--forwards", type=int, default=2, help="pairs of a run of the first contestant")
    parser.add_argument("--other-width", type=int, help="of every second image")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--processor-time", action="store_true", help="what the threads worked, on a busy CPU"
    )
    parser.add_argument("--overrides", type=json.loads, default={}, help="of the model's configuration, JSON")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    given = {name: value for name, value in vars(options).items() if name not in ("device", "threads", "out")}
    rows, not_measured = contests(options.device, **given)
    machine = contest.machine(options.device)
    print(json.dumps(machine, indent=1))
    cached = next(row for row in rows if row.contestant == CACHED)
    beside = cached.items / cached.timing.median
    rows_table.show(
        rows,
        not_measured,
        more={
            "x cached, padded": lambda row: f"{row['per_second'] / beside / 1e3:.2f}",
            "COCO 5K, 125 M pairs": lambda row: f"{COCO_PAIRS / row['per_second'] / 3600:,.1f} h",
        },
    )
    if options.out:
        report = {"machine": machine, "rows": [row.as_dict() for row in rows], "not_measured": not_measured}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
