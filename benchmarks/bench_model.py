"""Times whole models: a step of pre-training and the reading of one pair, reference against FastPixelBERT.

    python benchmarks/bench_model.py --threads 2                       every contest of a CPU
    python benchmarks/bench_model.py --device cuda                     those of a GPU
    python benchmarks/bench_model.py --contest train --dtype bfloat16  one of them

Both models have the same weights, batch and places, and take turns in one run. Their losses, logits and
gradients are compared first, and nothing is timed where they differ. Beside a step stand its parts, and its
convolutions and matrix products run alone: what no implementation can do without.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import contest
import model_contests as contests
import model_floors
import model_parts
import model_tables
from model_contests import Case

from pixelbert_fast.model.regions import EAGER

CONTESTS = ("train", "infer", "peer")


def cases(device: str) -> dict[str, Case]:
    """The step and the pair that the project set itself goals for."""
    if device == "cpu":
        step = Case()
        return {"train": step, "infer": replace(step, images=1, height=384, width=512, captions=1)}
    step = Case(device=device, images=16, height=800, width=1066, pixels=100)
    return {"train": step, "infer": replace(step, images=1, captions=1)}


def of_a_report(device: str) -> list[tuple[str, Case, argparse.Namespace]]:
    """What `gpu_report` asks for, the most telling first; on a CPU the same in small, as a rehearsal."""
    quick = argparse.Namespace(compile=False, rounds=20, seconds=8.0)
    full = argparse.Namespace(compile=True, rounds=20, seconds=8.0)
    step, pair = cases(device).values()
    if device == "cpu":
        small = {"preset": "tiny", "height": 64, "width": 64, "pixels": 4}
        quick.rounds, full = 5, quick
        return [("train", replace(step, **small), quick), ("infer", replace(pair, **small), quick)]
    step, pair = (replace(case, dtype="bfloat16") for case in (step, pair))
    return [
        ("train", step, quick),
        ("infer", pair, full),
        ("train", replace(step, norm="batch"), quick),
        ("peer", pair, full),
        ("train", step, full),
    ]


def row(
    case: str,
    who: str,
    timing: contest.Timing,
    of: contest.Timing,
    memory: int | None,
    flops: int,
    pairs: int,
) -> dict:
    """One line of the report; `of` is the contestant that others are compared with."""
    return {
        "case": case,
        "contestant": who,
        "milliseconds": timing.as_dict(),
        "times_faster": round(of.median / timing.median, 3),
        "peak_megabytes": None if memory is None else round(memory / 1e6),
        "gigaflops_per_second": round(flops / timing.median / 1e6, 1),
        "pairs_per_second": round(1e3 * pairs / timing.median, 3),
    }


def compiled(model: torch.nn.Module) -> torch.nn.Module:
    torch.compiler.reset()
    return torch.compile(model, dynamic=False)


def train(case: Case, options: argparse.Namespace) -> list[dict]:
    """Forward and backward of the pre-training loss, its parts, and its floors."""
    models, given = contests.pair(case), contests.batch(case)
    contests.verify(case, models, given)
    runs = {who: contests.training_step(model, given) for who, model in models.items()}
    if options.compile:
        runs[contests.COMPILED] = contests.training_step(compiled(models[contests.REFERENCE]), given)
    if case.device != "cpu":
        runs |= variants(models[contests.FAST], given, compiles=options.compile)
    flops = model_floors.floating_point_operations(runs[contests.FAST])
    floors = model_floors.recorded(runs[contests.FAST])
    rows = compared(f"step: {case}", runs | floors, case, options, flops, case.sequences)
    for who, model in models.items():
        pieces = model_parts.parts(model, given)
        rows += compared(f"parts of the step, {who}: {case}", pieces, case, options)
    return rows


def variants(fast: torch.nn.Module, given: dict, *, compiles: bool) -> dict[str, Callable]:
    """The same model with activation checkpointing, and with compiled regions."""
    step = contests.training_step(fast, given)

    def checkpointed() -> None:
        fast.gradient_checkpointing_enable()
        step()
        fast.gradient_checkpointing_disable()

    def regions() -> None:
        fast.pixelbert.compile_regions()
        step()
        fast.pixelbert.regions = EAGER

    return {contests.CHECKPOINTED: checkpointed} | ({contests.REGIONS: regions} if compiles else {})


def infer(case: Case, options: argparse.Namespace) -> list[dict]:
    """Both models over one pair, and the fast one compiled for its shape."""
    models, given = contests.pair(case), contests.question(case)
    wide = contests.pair(replace(case, dtype="float32"))[contests.REFERENCE].pixelbert
    as_wide = {name: value.float() if value.is_floating_point() else value for name, value in given.items()}
    truth = contests.inference(wide, as_wide)()
    readers: dict[str, Callable] = {who: model.pixelbert for who, model in models.items()}
    if options.compile:
        readers[contests.COMPILED] = compiled(models[contests.REFERENCE].pixelbert)
        readers[contests.PREPARED] = prepared(models[contests.FAST].pixelbert, case, given)
    runs = {who: contests.inference(reader, given) for who, reader in readers.items()}
    contests.verify_inference(case, runs, truth)
    flops = model_floors.floating_point_operations(runs[contests.FAST])
    return compared(f"one pair: {case}", runs, case, options, flops, 1)


def prepared(fast: torch.nn.Module, case: Case, given: dict) -> Callable:
    from pixelbert_fast import InferenceShape

    words = given["input_ids"].shape[1]
    return fast.eval().compile_for_inference(
        [InferenceShape(images=1, height=case.height, width=case.width, sequences=1, words=words)]
    )


def peer(case: Case, options: argparse.Namespace) -> list[dict]:
    """ViLT-B/32 and r50 over one pair, each at its own paper's size."""
    case = replace(case, height=800, width=1066)
    fast, given = contests.pair(case)[contests.FAST].pixelbert, contests.question(case)
    vilt, for_vilt = contests.vilt(case.dtype, case.device)
    runs = {
        "ViltModel (ViLT-B/32), 384 x 512": contests.inference(vilt, for_vilt),
        "FastPixelBERT r50, 800 x 1066": contests.inference(fast, given),
        "FastPixelBERT r50, 384 x 512": contests.inference(
            fast, contests.question(replace(case, height=384, width=512))
        ),
    }
    if options.compile:
        runs["ViltModel, compiled"] = contests.inference(compiled(vilt), for_vilt)
    return compared(f"one pair, beside a peer: {case.dtype}", runs, case, options)


def run(name: str, case: Case, options: argparse.Namespace) -> list[dict]:
    """The rows of one contest of `CONTESTS`."""
    return {"train": train, "infer": infer, "peer": peer}[name](case, options)


def compared(
    name: str,
    runs: dict[str, Callable],
    case: Case,
    options: argparse.Namespace,
    flops: int = 0,
    pairs: int = 0,
) -> list[dict]:
    """A row for each of `runs`.

    Args:
        flops: what the work needs, done without what changes nothing: the same for all, so a rate of it.
        pairs: how many are read.
    """
    timings = contest.take_turns(runs, case.device, rounds=options.rounds, seconds=options.seconds)
    first = next(iter(timings.values()))
    memory = {who: contest.peak_memory(run, case.device) for who, run in runs.items()}
    return [row(name, who, timing, first, memory[who], flops, pairs) for who, timing in timings.items()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contest", action="append", choices=CONTESTS, help="only these; all by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", action="append", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--norm", default="frozen", choices=["frozen", "batch"])
    parser.add_argument("--preset", default="r50")
    parser.add_argument(
        "--no-compile", dest="compile", action="store_false", help="nothing under torch.compile"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60.0, help="a contest, at most")
    parser.add_argument("--report", type=Path, help="write this .json, and the tables beside it as .md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = contest.machine(options.device)
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    rows = []
    for dtype in options.dtype or ["float32", "bfloat16"]:
        for name in options.contest or CONTESTS:
            case = cases(options.device)["train" if name == "train" else "infer"]
            case = replace(case, dtype=dtype, norm=options.norm, preset=options.preset)
            found = run(name, case, options)
            print(f"\n{model_tables.tables(found)}", flush=True)
            rows += found
    command = " ".join(["python benchmarks/bench_model.py", *sys.argv[1:]])
    report = {"machine": machine, "command": command, "rows": rows}
    if options.report:
        options.report.write_text(json.dumps(report, indent=1) + "\n")
        options.report.with_suffix(".md").write_text(model_tables.page(report))


if __name__ == "__main__":
    main()
