"""Times whole models: a step of pre-training and the reading of one pair, reference against FastPixelBERT.

    python benchmarks/bench_model.py --threads 2                       every contest of a CPU
    python benchmarks/bench_model.py --device cuda                     those of a GPU
    python benchmarks/bench_model.py --contest step --dtype bfloat16   one of them

Both models have the same weights, batch and places, and take turns in one run. Their losses, logits and
gradients are compared first, and nothing is timed where they differ. Beside a step stand its parts, and its
convolutions and matrix products run alone: what no implementation can do without.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import case_tables
import ceilings
import contest
import model_contests as contests
import model_floors
import model_parts
import vilt_contest
from model_contests import Case
from rows import FLOOR, PART, PEER, REFERENCE, UNCOUNTED, Contest, Row, Work

from pixelbert_fast.model.regions import EAGER

CONTESTS = ("step", "latency", "peer latency", "peer step")
ROLES = {
    contests.REFERENCE: REFERENCE,
    contests.COMPILED: PEER,
    contests.AUTOTUNED: PEER,
    model_floors.CONVOLUTIONS_ALONE: FLOOR,
    model_floors.PRODUCTS_ALONE: FLOOR,
}


class Limits(NamedTuple):
    """How much is timed: modes of torch.compile to enter the rivals in, and when to stop."""

    modes: tuple[str, ...] = tuple(contests.MODES)
    rounds: int = 15
    seconds: float = 60.0


def cases(device: str) -> dict[str, Case]:
    """The step and the pair that the project set itself goals for."""
    if device == "cpu":
        step = Case()
        return {"step": step, "pair": replace(step, images=1, height=384, width=512, captions=1)}
    step = Case(device=device, images=16, height=800, width=1066, pixels=100)
    return {"step": step, "pair": replace(step, images=1, captions=1)}


def step(case: Case, limits: Limits) -> list[Row]:
    """Forward and backward of the pre-training loss, its parts, and its floors."""
    models, given = contests.pair(case), contests.batch(case)
    torch.compiler.reset()
    fast = models[contests.FAST]
    ways = {} if case.device == "cpu" else variants(fast, compiles=bool(limits.modes))
    contests.verify(case, models | dict.fromkeys(ways, fast), given, ways)
    runs = {who: contests.training_step(model, given) for who, model in models.items()}
    for mode in limits.modes:
        rival = contests.compiled(models[contests.REFERENCE], mode)
        contests.verify_loss(case, rival, models[contests.REFERENCE], given)
        runs[contests.MODES[mode]] = contests.training_step(rival, given, mode)
    runs |= {who: within(way, runs[contests.FAST]) for who, way in ways.items()}
    work = Work(flops=model_floors.floating_point_operations(runs[contests.FAST]))
    floors = model_floors.recorded(runs[contests.FAST])
    shared = Contest(
        "step",
        f"step: {case}, {case.captions} captions each",
        case.dtype,
        work=work,
        items=case.sequences,
        item="pairs",
        checked=contests.CHECKED_STEP[case.dtype == "float32"],
        roles=ROLES,
    )
    rows = [
        replace(row, work=Work(flops=model_floors.floating_point_operations(floors[row.contestant])))
        if row.contestant in floors
        else row
        for row in timed(shared, runs | floors, case, limits)
    ]
    for who, model in models.items():
        pieces = model_parts.parts(model, given)
        of = replace(shared, roles=dict.fromkeys(pieces, PART), whole=who, work=UNCOUNTED)
        rows += timed(of, pieces, case, limits._replace(seconds=limits.seconds / 4))
    return rows


def variants(fast: torch.nn.Module, *, compiles: bool) -> dict[str, contests.Way]:
    """Other ways of the same model: with activation checkpointing, and with compiled regions."""

    @contextmanager
    def checkpointed() -> Iterator[None]:
        fast.gradient_checkpointing_enable()
        yield
        fast.gradient_checkpointing_disable()

    @contextmanager
    def regions() -> Iterator[None]:
        fast.pixelbert.compile_regions()
        yield
        fast.pixelbert.regions = EAGER

    return {contests.CHECKPOINTED: checkpointed} | ({contests.REGIONS: regions} if compiles else {})


def within(way: contests.Way, run: Callable[[], None]) -> Callable[[], None]:
    def made() -> None:
        with way():
            run()

    return made


def latency(case: Case, limits: Limits) -> list[Row]:
    """Both models over one pair, and the fast one compiled for its shape."""
    models, given = contests.pair(case), contests.question(case)
    wide = contests.pair(replace(case, dtype="float32"))[contests.REFERENCE].pixelbert
    as_wide = {name: value.float() if value.is_floating_point() else value for name, value in given.items()}
    truth = contests.inference(wide, as_wide)()
    runs = {who: contests.inference(model.pixelbert, given) for who, model in models.items()}
    torch.compiler.reset()
    if limits.modes:
        for mode in limits.modes:
            rival = contests.compiled(models[contests.REFERENCE].pixelbert, mode)
            runs[contests.MODES[mode]] = contests.inference(rival, given, mode)
        ready = prepared(models[contests.FAST].pixelbert, case, given)
        runs[contests.PREPARED] = contests.inference(ready, given)
    contests.verify_inference(case, runs, truth)
    shared = Contest(
        "latency",
        f"one pair: {case}",
        case.dtype,
        work=Work(flops=model_floors.floating_point_operations(runs[contests.FAST])),
        items=1,
        item="pairs",
        checked=contests.CHECKED_PAIR[case.dtype == "float32"],
        roles=ROLES,
    )
    return timed(shared, runs, case, limits)


def prepared(fast: torch.nn.Module, case: Case, given: dict) -> Callable:
    from pixelbert_fast import InferenceShape

    words = given["input_ids"].shape[1]
    return fast.eval().compile_for_inference(
        [InferenceShape(images=1, height=case.height, width=case.width, sequences=1, words=words)]
    )


def peer_latency(case: Case, limits: Limits) -> list[Row]:
    """ViLT-B/32 and r50 over one pair, each at its own paper's size, and r50 at ViLT's too."""
    if case.preset != "tiny":
        case = replace(case, height=800, width=1066)
    small = replace(case, height=vilt_contest.PAPERS_SIZE[0], width=vilt_contest.PAPERS_SIZE[1])
    vilt, for_vilt = vilt_contest.reader(case.dtype, case.device, case.preset)
    fast = contests.pair(case)[contests.FAST].pixelbert
    runs = {vilt_contest.NAME: contests.inference(vilt, for_vilt)}
    torch.compiler.reset()
    for mode in limits.modes:
        rival = contests.compiled(vilt, mode)
        runs[f"{vilt_contest.NAME}, {contests.HOW[mode]}"] = contests.inference(rival, for_vilt, mode)
    for size in (small, case):
        runs[f"{contests.FAST}, {size.height} x {size.width}"] = contests.inference(
            fast, contests.question(size)
        )
        if limits.modes:
            ready = prepared(fast, size, contests.question(size))
            who = f"{contests.PREPARED}, {size.height} x {size.width}"
            runs[who] = contests.inference(ready, contests.question(size))
    return peers("latency", f"one pair, each model as in its paper: r50, {case.dtype}", runs, case, limits, 1)


def peer_step(case: Case, limits: Limits) -> list[Row]:
    """ViLT-B/32's masked words and r50's pre-training loss on as many pairs, forward and backward.

    On a GPU each has its own paper's size; on a CPU both have the images of `case`, which are smaller.
    """
    size = (case.height, case.width) if case.device == "cpu" else vilt_contest.PAPERS_SIZE
    model, given = contests.pair(case)[contests.FAST], contests.batch(case)
    vilt, for_vilt = vilt_contest.learner(case, size)
    runs = {vilt_contest.NAME: contests.training_step(vilt, for_vilt)}
    torch.compiler.reset()
    for mode in limits.modes:
        rival = contests.compiled(vilt, mode)
        runs[f"{vilt_contest.NAME}, {contests.HOW[mode]}"] = contests.training_step(rival, for_vilt, mode)
    runs[contests.FAST] = contests.training_step(model, given)
    sizes = f"ViLT at {size[0]} x {size[1]}" if size != (case.height, case.width) else "ViLT on the same"
    name = f"step beside a peer: {case}, {case.captions} captions each; {sizes}"
    return peers("step", name, runs, case, limits, case.sequences)


def peers(
    stage: str, name: str, runs: dict[str, Callable], case: Case, limits: Limits, pairs: int
) -> list[Row]:
    """Rows in which ViLT is what others are compared with; each has its own operations."""
    roles = {who: PEER for who in runs if who.startswith(vilt_contest.NAME)} | {vilt_contest.NAME: REFERENCE}
    # Another model: there is nothing that its results could be compared with.
    shared = Contest(stage, name, case.dtype, items=pairs, item="pairs", roles=roles)
    made = timed(shared, runs, case, limits)
    eager = {
        who: model_floors.floating_point_operations(run) for who, run in runs.items() if "compiled" not in who
    }
    return [replace(row, work=Work(flops=eager.get(row.contestant))) for row in made]


def timed(shared: Contest, runs: dict[str, Callable], case: Case, limits: Limits) -> list[Row]:
    timings = contest.take_turns(runs, case.device, rounds=limits.rounds, seconds=limits.seconds)
    graphs = [who for who in runs if contests.HOW["max-autotune"] in who or who.startswith(contests.PREPARED)]
    memory = contest.peak_memories(runs, case.device, graphs)
    return shared.rows(timings, memory=memory)


def run(name: str, case: Case, limits: Limits) -> list[Row]:
    """The rows of one contest of `CONTESTS`."""
    made = {"step": step, "latency": latency, "peer latency": peer_latency, "peer step": peer_step}
    return made[name](case, limits)


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
        "--mode",
        action="append",
        choices=["none", *contests.MODES],
        help="how rivals are compiled; both by default, none for not at all",
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60.0, help="a contest, at most")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(contest.described(contest.machine(options.device)), flush=True)
    roofs = ceilings.measure(options.device)
    modes = tuple(mode for mode in options.mode or contests.MODES if mode != "none")
    limits = Limits(modes, options.rounds, options.seconds)
    for dtype in options.dtype or ["float32", "bfloat16"]:
        for name in options.contest or CONTESTS:
            case = cases(options.device)["step" if name.endswith("step") else "pair"]
            case = replace(case, dtype=dtype, norm=options.norm, preset=options.preset)
            found = run(name, case, limits)
            print("", *case_tables.of_stage([row.as_dict(roofs) for row in found]), sep="\n", flush=True)


if __name__ == "__main__":
    main()
