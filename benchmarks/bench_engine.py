"""What DeepSpeed costs beside the plain loop: whole updates in one process, taking turns.

    python benchmarks/bench_engine.py
    python benchmarks/bench_engine.py --models tiny --rounds 40

Each contestant has its own copy of a FastPixelBERT for pre-training and makes one update a round (forward,
backward, clipping, both algorithms); the order turns with the rounds. An overhead is the median over the
rounds of its CPU time relative to the plain engine's in the same round, with the quantiles 0.2 and 0.8. Their
losses must agree, or nothing is reported. Writes docs/results/training-engine.md.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.contest import Timing  # noqa: E402
from pixelbert_fast import PixelBertConfig, PixelBertForPreTraining  # noqa: E402
from tests.engine_cases import deepspeed_engine, plain_engine  # noqa: E402

REPORT = ROOT / "docs" / "results" / "training-engine.md"
# By name: images, side in pixels, captions an image, pieces a caption.
MODELS = {"tiny": (16, 96, 4, 24), "r50 with 6 layers of 384": (2, 256, 4, 24)}
# So that five copies fit into the memory of a small machine.
SMALLER = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "vocab_size": 8000,
}
STAGES = (0, 1, 2, 3)
WARM = 3
# Losses of float32 runs that add in different orders, after so few updates.
SAME = 1e-5


def build(name: str) -> PixelBertForPreTraining:
    torch.manual_seed(0)
    preset, *smaller = name.split(" with ")
    options = {"norm": "frozen", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = PixelBertConfig.preset(preset, **options, **(SMALLER if smaller else {}))
    return PixelBertForPreTraining(config).train()


def batch(preset: str) -> dict:
    images, side, captions, pieces = MODELS[preset]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (images * captions, pieces), generator=generator)
    labels = torch.full_like(ids, -100)
    labels[:, 2:5] = ids[:, 2:5]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(images, 3, side, side, generator=generator),
        "pixel_size": torch.full((images, 2), side),
        "image_index": torch.arange(images).repeat_interleave(captions),
        "labels": labels,
        "matched": torch.randint(0, 2, (images * captions,), generator=generator),
        "seed": 1,
    }


def update(engine, inputs: dict) -> torch.Tensor:
    loss = engine.model(**inputs).loss
    engine.backward(loss)
    assert engine.step()
    return loss.detach()


def measured(preset: str, ranks, rounds: int, seconds: float) -> list[dict]:
    inputs = batch(preset)
    engines = {"plain": plain_engine(build(preset), 1)}
    for stage in STAGES:
        engines[f"ZeRO {stage}"] = deepspeed_engine(build(preset), ranks, zero_stage=stage)
    names = list(engines)
    times: dict[str, list[float]] = {name: [] for name in names}
    losses: dict[str, list[float]] = {name: [] for name in names}
    began = time.monotonic()
    for number in range(rounds + WARM):
        if len(times["plain"]) >= 10 and time.monotonic() - began > seconds:
            break
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            gc.collect()
            # Of this process alone: other work on the machine counts for none of them.
            start = time.process_time()
            loss = update(engines[name], inputs)
            if number >= WARM:
                times[name].append(1e3 * (time.process_time() - start))
            else:
                losses[name].append(float(loss))
    rows = []
    for name in names:
        pairs = zip(losses[name], losses["plain"], strict=True)
        difference = max(abs(mine - plain) / plain for mine, plain in pairs)
        if difference > SAME:
            raise SystemExit(f"{preset}, {name}: losses differ by {difference:.1e}; nothing is reported")
        over = [100 * (mine / plain - 1) for mine, plain in zip(times[name], times["plain"], strict=True)]
        low, *_, high = statistics.quantiles(over, n=5, method="inclusive")
        row = {"model": preset, "engine": name, "time": Timing.of(times[name]), "difference": difference}
        rows.append({**row, "overhead": statistics.median(over), "low": low, "high": high})
        print(row_text(rows[-1]), flush=True)
    for name in names:
        engines[name].close()
    return rows


def row_text(row: dict) -> str:
    timing = row["time"]
    shown = "-"
    if row["engine"] != "plain":
        shown = f"{row['overhead']:+.1f} % ({row['low']:+.1f} to {row['high']:+.1f})"
    median = f"{timing.median:.1f} ({timing.low:.1f} to {timing.high:.1f})"
    cells = [row["model"], row["engine"], median, shown, str(timing.runs), f"{row['difference']:.0e}"]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=240.0, help="no further round after that long")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    from pixelbert_fast.training import deepspeed_engine as engines

    deepspeed = engines.import_deepspeed()
    ranks = engines.join()
    rows = [
        row
        for preset in arguments.models
        for row in measured(preset, ranks, arguments.rounds, arguments.seconds)
    ]
    engines.leave()
    sizes = "; ".join(
        f'"{preset}": {images} images of {side} x {side}, {captions} captions each'
        for preset, (images, side, captions, _) in MODELS.items()
    )
    lines = [
        "# What DeepSpeed costs beside the plain loop",
        "",
        f"`make bench-engine`: whole updates in one process of {arguments.threads} thread(s), taking turns,",
        "fp32, frozen batch norm, with clipping. CPU time, so that other work on the machine does not count.",
        "In brackets the quantiles 0.2 and 0.8. An overhead is the median over rounds of the time relative",
        "to the plain engine's in the same round.",
        f"{sizes}.",
        "",
        f"2 cores of an Intel Xeon with AVX-512, torch {torch.__version__},"
        f" DeepSpeed {deepspeed.__version__}, 2026-11-23.",
        "",
        "| model | engine | ms an update | overhead | rounds | losses differ by |",
        "|---|---|---|---|---|---|",
        *map(row_text, rows),
        "",
        "ZeRO 3 puts hooks on every module: Python runs at each, and FastPixelBERT then calls the modules",
        "where it otherwise works in a convolution's own memory, or shares one gradient between the two uses",
        "of the word embeddings. Use it only where weights do not fit. None of it was measured on a GPU.",
        "",
    ]
    REPORT.write_text("\n".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
