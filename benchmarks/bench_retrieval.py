"""Times the scores of all texts beside all images: pairs a second, and the hours that COCO's 5K would take.

    python benchmarks/bench_retrieval.py --threads 2              on a CPU
    python benchmarks/bench_retrieval.py --device cuda --images 64 --texts 256

Contestants, all with the same weights, taking turns in one run:

- "forward a pair": the reference model, a whole forward for each pair, the image's backbone in it;
- "cached, padded": the reference model on cached pixels, batches of pairs padded to their longest;
- "matrix": `score_matrix` in float32, in float32 by bfloat16 products where the CPU has AMX, in bfloat16.

Their scores are compared first, and nothing is timed where float32's differ beyond rounding.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))

import contest

from pixelbert_fast import PixelBertConfig, PixelBertForImageTextRetrieval
from pixelbert_fast.model.outputs import PixelEmbeddings
from pixelbert_fast.model.pair_scores import PairScorer
from pixelbert_fast.ops import split_linear
from pixelbert_fast.tasks.retrieval.scoring import HeldPixels, ScoringOptions, score_matrix

COCO_PAIRS = 5000 * 25_000
# Word pieces with [CLS] and [SEP]: COCO's captions have about 11 words, and half of them 12 to 14 pieces.
LENGTHS = (12, 13, 13, 14, 14, 16, 18, 20)


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
        can = device == "cpu" and split_linear.why_not() is None
        self.precisions = ("fp32", "bf16x2", "bf16") if can else ("fp32", "bf16")
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
    """The greatest differences from a forward a pair.

    Raises:
        AssertionError: float32's are not within rounding: sums of some thousand terms, 12 layers deep.
    """
    few = min(case.pairs, len(case.pixel_values))
    exact = case.forward_a_pair(few).cpu()
    cached = case.cached_padded(sequences).cpu()
    found = {"cached, padded": float((cached[:few] - exact).abs().max())}
    for name in case.precisions:
        found[f"matrix {name}"] = float((case.matrix(name).flatten() - cached).abs().max())
    spread = float(cached.std())
    assert found["cached, padded"] < 1e-4 * spread + 1e-5, found
    assert found["matrix fp32"] < 1e-4 * spread + 1e-5, found
    # Factors are off by 2^-18 in place of 2^-24.
    assert found.get("matrix bf16x2", 0.0) < 1e-3 * spread, found
    return {**found, "spread of the scores": spread}


def measure(case: Case, options: argparse.Namespace) -> dict:
    """Pairs a second of each contestant."""
    once = min(case.pairs, options.forwards)
    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "forward a pair": (once, lambda: case.forward_a_pair(once)),
        "cached, padded": (case.pairs, lambda: case.cached_padded(options.sequences)),
    }
    for name in case.precisions:
        runs[f"matrix {name}"] = (case.pairs, lambda name=name: case.matrix(name))
    timings = contest.take_turns(
        {name: run for name, (_, run) in runs.items()},
        options.device,
        rounds=options.rounds,
        seconds=options.seconds,
        processor_time=options.processor_time,
    )
    rows = {}
    for name, (pairs, _) in runs.items():
        each = timings[name]
        rate = 1e3 * pairs / each.median
        rows[name] = {
            "pairs_per_second": rate,
            "slow": 1e3 * pairs / each.high,
            "fast": 1e3 * pairs / each.low,
            "coco_5k_hours": COCO_PAIRS / rate / 3600,
            "runs": each.runs,
        }
    return rows


def table(rows: dict) -> str:
    """A line a contestant, in Markdown."""
    first, second = (rows[name]["pairs_per_second"] for name in ("forward a pair", "cached, padded"))
    lines = [
        "| | pairs/s (0.2 .. 0.8) | x forward a pair | x cached, padded | COCO 5K, 125 M pairs |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        rate = row["pairs_per_second"]
        lines.append(
            f"| {name} | {rate:.3g} ({row['slow']:.3g} .. {row['fast']:.3g}) | {rate / first:.2f} "
            f"| {rate / second:.2f} | {row['coco_5k_hours']:,.1f} h |"
        )
    return "\n".join(lines)


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
    sizes = options.images, options.texts, options.height, options.width
    case = Case(*sizes, options.device, options.overrides, options.other_width)
    differences = verify(case, options.sequences)
    rows = measure(case, options)
    report = {"machine": contest.machine(options.device), "pairs": case.pairs, "rows": rows}
    report |= {"pixels": case.held.counts.tolist(), "differences": differences}
    print(
        json.dumps({name: report[name] for name in ("machine", "pairs", "pixels", "differences")}, indent=1)
    )
    print(table(rows))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
