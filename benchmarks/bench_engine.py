"""What DeepSpeed costs beside the plain loop: whole updates in one process, taking turns.

    python benchmarks/bench_engine.py
    python benchmarks/bench_engine.py --models tiny --rounds 40

Each contestant has its own copy of a FastPixelBERT for pre-training and makes one update a round (forward,
backward, clipping, both algorithms); the order turns with the rounds. An overhead is the median over the
rounds of its CPU time relative to the plain engine's in the same round, with the quartiles. Their first
losses must agree, or nothing is timed. Writes docs/results/training-engine.md.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

import contest  # noqa: E402 - needs the path above
import rows_table  # noqa: E402
from rows import REFERENCE, Contest, Row, with_checks  # noqa: E402

from pixelbert_fast import PixelBertConfig, PixelBertForPreTraining  # noqa: E402
from pixelbert_fast.errors import UserError  # noqa: E402
from pixelbert_fast.training.plain_engine import PlainEngine  # noqa: E402
from tests.engine_cases import CLIP, deepspeed_engine, optimizer_of  # noqa: E402

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
PLAIN = "plain"
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


def batch(name: str, device: str) -> dict:
    images, side, captions, pieces = MODELS[name]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (images * captions, pieces), generator=generator)
    labels = torch.full_like(ids, -100)
    labels[:, 2:5] = ids[:, 2:5]
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(images, 3, side, side, generator=generator),
        "pixel_size": torch.full((images, 2), side),
        "image_index": torch.arange(images).repeat_interleave(captions),
        "labels": labels,
        "matched": torch.randint(0, 2, (images * captions,), generator=generator),
    }
    return {key: value.to(device) for key, value in inputs.items()} | {"seed": 1}


def plain_engine(model: PixelBertForPreTraining, device: str) -> PlainEngine:
    return PlainEngine(model, optimizer_of(model), device=torch.device(device), clip_norm=CLIP)


def zero_engine(model: PixelBertForPreTraining, ranks, stage: int):
    """DeepSpeed's, on the device that it takes by itself: the GPU where there is one."""
    return deepspeed_engine(model, ranks, zero_stage=stage)


def update(engine, inputs: dict) -> torch.Tensor:
    loss = engine.model(**inputs).loss
    engine.backward(loss)
    assert engine.step()
    return loss.detach()


def verify(engines: dict, inputs: dict) -> dict[str, float]:
    """Some updates of each; by engine, how far its losses are from the plain one's, as a share of them.

    Raises:
        AssertionError: one is farther than rounding explains.
    """
    losses = {name: [float(update(engine, inputs)) for _ in range(WARM)] for name, engine in engines.items()}
    found = {}
    for name, own in losses.items():
        pairs = zip(own, losses[PLAIN], strict=True)
        found[name] = max(abs(mine - plain) / plain for mine, plain in pairs)
        # Not "more than": a loss that is NaN is not near.
        assert found[name] <= SAME, f"{name}: losses differ by {found[name]:.1e}; nothing was timed"
    return found


def take_turns(
    engines: dict, inputs: dict, clock: Callable[[], float], rounds: int, seconds: float
) -> dict[str, contest.Timing]:
    """As `contest.take_turns`, in an order that turns, and each on a clean heap: engines leave cycles."""
    names = list(engines)
    times: dict[str, list[float]] = {name: [] for name in names}
    began = time.monotonic()
    for number in range(rounds):
        if number >= 5 and time.monotonic() - began > seconds:
            break
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            gc.collect()
            start = clock()
            update(engines[name], inputs)
            times[name].append(1e3 * (clock() - start))
    return {name: contest.Timing.of(each) for name, each in times.items()}


def contests(
    device: str,
    *,
    models: Sequence[str] = ("tiny",),
    stages: Sequence[int] = STAGES,
    rounds: int = 20,
    seconds: float = 30.0,
    processor_time: bool = False,
) -> tuple[list[Row], list[str]]:
    """A row of the plain engine and one of each ZeRO stage, for each model; why they were not measured.

    Args:
        models: of `MODELS`.
        stages: of ZeRO.
        rounds, seconds: as for `contest.take_turns`, for each model.
        processor_time: what this process has worked, on a CPU: other work there counts for none of them.

    Raises:
        AssertionError: losses differ by more than rounding; then nothing was timed.
    """
    from pixelbert_fast.training import deepspeed_engine as engines

    kind = torch.device(device).type
    if kind == "cpu" and torch.cuda.is_available():
        return [], ["DeepSpeed beside the plain loop on the CPU: with a GPU there it takes that"]
    try:
        engines.import_deepspeed()
    except UserError as error:
        return [], [f"DeepSpeed beside the plain loop: {error}"]
    ranks = engines.join()
    try:
        return [
            row
            for name in models
            for row in _of_a_model(name, device, ranks, stages, rounds, seconds, processor_time)
        ], []
    finally:
        engines.leave()


def _of_a_model(
    name: str, device: str, ranks, stages: Sequence[int], rounds: int, seconds: float, processor_time: bool
) -> list[Row]:
    inputs = batch(name, device)
    engines = {PLAIN: plain_engine(build(name), device)}
    for stage in stages:
        engines[f"ZeRO {stage}"] = zero_engine(build(name), ranks, stage)
    apart = verify(engines, inputs)
    clock = time.process_time if processor_time else _wall_clock(device)
    timings = take_turns(engines, inputs, clock, rounds, seconds)
    memory = {
        who: contest.peak_memory(lambda engine=engine: update(engine, inputs), device)
        for who, engine in engines.items()
    }
    for engine in engines.values():
        engine.close()
    images, side, captions, _ = MODELS[name]
    case = Contest(
        "engine",
        f"an update in one process: {name}, frozen norm, float32, {images} images of {side} x {side}, "
        f"{captions} captions each{', processor time' if processor_time else ''}",
        "float32",
        items=images * captions,
        item="pairs",
        roles={PLAIN: REFERENCE},
    )
    del apart[PLAIN]
    checks = {who: f"losses within {each:.1g} of the plain engine's" for who, each in apart.items()}
    return with_checks(case.rows(timings, memory=memory), checks)


def _wall_clock(device: str) -> Callable[[], float]:
    if torch.device(device).type == "cpu":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def overheads(rows: Sequence[Row]) -> dict[tuple[str, str], tuple[float, float, float]]:
    """By case and engine: median and quartiles of the per cent that it takes above the plain one's round."""
    plain = {row.case: row.timing.samples for row in rows if row.role == REFERENCE}
    found = {}
    for row in rows:
        pairs = zip(row.timing.samples, plain[row.case], strict=True)
        over = [100 * (mine / theirs - 1) for mine, theirs in pairs]
        low, median, high = statistics.quantiles(over, n=4, method="inclusive")
        found[row.case, row.contestant] = median, low, high
    return found


def page(rows: Sequence[Row], deepspeed: str) -> str:
    """The report of `REPORT`."""
    machine, over = contest.machine("cpu"), overheads(rows)

    def overhead(row: dict) -> str:
        median, low, high = over[row["case"], row["contestant"]]
        return "" if row["role"] == REFERENCE else f"{median:+.1f} % ({low:+.1f} to {high:+.1f})"

    return f"""# What DeepSpeed costs beside the plain loop

`make bench-engine`: whole updates taking turns, with clipping. CPU time, so that other work on the machine does not count.
In brackets the quartiles. An overhead is the median over rounds of the time relative to the plain engine's in the same round.

{machine["device"]}, torch {machine["torch"]}, DeepSpeed {deepspeed}, {datetime.date.today().isoformat()}.

{rows_table.tables([row.as_dict() for row in rows], {"overhead": overhead})}

In one process ZeRO has nothing to divide, and what 1 and 2 cost here is copying: gradients into
and out of buckets, weights back from where they are updated. It grows with the weights and not
with the batch, of which the larger model has two images; use zero_stage 0 in one process.

ZeRO 3 puts hooks on every module: Python runs at each, and FastPixelBERT then calls the modules
where it otherwise works in a convolution's own memory, or shares one gradient between the two uses
of the word embeddings. Use it only where weights do not fit. None of it was measured on a GPU.
"""  # noqa: E501 - as wide as its neighbours


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=240.0, help="no further round after that long")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", type=Path, default=REPORT, help="the page that is written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows, not_measured = contests(
        "cpu", models=options.models, rounds=options.rounds, seconds=options.seconds, processor_time=True
    )
    if not_measured:
        print("\n".join(not_measured), file=sys.stderr)
        return 1
    from pixelbert_fast.training import deepspeed_engine as engines

    text = page(rows, engines.import_deepspeed().__version__)
    print(text)
    options.report.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
