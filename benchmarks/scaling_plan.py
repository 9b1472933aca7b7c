"""Projects the paper's pre-training on 1, 8 and 64 GPUs under each ZeRO stage, from measured parts.

    python benchmarks/scaling_plan.py                 # the page, printed
    python benchmarks/scaling_plan.py --write         # into benchmarks/scaling_plan.md
    python benchmarks/scaling_plan.py --results benchmarks/results/NAME.json --gpu A100 --network-gbs 12.5

The arithmetic is in `scaling_model.py`, what is read of a stored report in `scaling_inputs.py`; FLOPs, memory
and bytes sent are those of `pixelbert plan`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

import scaling_inputs  # noqa: E402
import scaling_words  # noqa: E402
import stored  # noqa: E402
from scaling_inputs import Inputs  # noqa: E402
from scaling_model import (  # noqa: E402
    LEAST_SHARE,
    SHEETS,
    Conditions,
    Range,
    Step,
    efficiency,
    planned,
    project,
)
from scaling_words import percent, span, table  # noqa: E402

from pixelbert_fast.errors import UserError  # noqa: E402

PAGE = HERE / "scaling_plan.md"
COUNTS = (1, 8, 64)
STAGES = (0, 1, 2, 3)
RECIPES = {"r50": "pretrain_r50_80gb", "x152": "pretrain_x152_80gb"}
SMALL_GPU = 24.0
# Bytes a second and GPU to other machines, of what clusters have beside one link of 400 Gb/s for each GPU.
NETWORKS = {
    "400 Gb/s a GPU": 50e9,
    "400 Gb/s a machine of 8": 6.25e9,
    "100 Gb/s a machine": 1.5625e9,
    "10 Gb/s a machine": 0.15625e9,
}


def conditions(inputs: Inputs, preset: str, options: argparse.Namespace) -> Conditions:
    sheet = SHEETS[options.gpu]
    nvlink = options.nvlink_gbs * 1e9 if options.nvlink_gbs else sheet.nvlink
    network = options.network_gbs * 1e9 if options.network_gbs else sheet.network
    return Conditions(
        rate=inputs.rate[preset],
        bandwidth=Range(*(share * sheet.bandwidth for share in inputs.optimizer)),
        nvlink=Range(LEAST_SHARE * nvlink, nvlink),
        network=Range(LEAST_SHARE * network, network),
        cores=options.cores or sheet.cores,
        file=inputs.file,
        pixel=inputs.pixel,
        memory=float(sheet.memory),
    )


def steps_of(preset: str, given: Conditions) -> list[Step]:
    """By number of GPUs, and within by stage."""
    plans = [planned(RECIPES[preset], gpus, given.memory) for gpus in COUNTS]
    return [project(made, stage, given) for made in plans for stage in STAGES]


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    path = options.results or scaling_inputs.newest()
    if path is None:
        raise SystemExit(
            "benchmarks/results has no report of the suite; run make bench, or give --results FILE"
        )
    try:
        text = page(path, options)
    except UserError as error:
        raise SystemExit(str(error)) from None
    if options.write:
        PAGE.write_text(text, encoding="utf-8")
        print(f"wrote {PAGE}")
    else:
        print(text, end="")
    return 0


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, help="a report (default: the newest of a GPU, else of a CPU)")
    parser.add_argument("--gpu", choices=list(SHEETS), help="default: the report's, else H100")
    parser.add_argument("--nvlink-gbs", type=float, help="GB/s that a GPU sends within its machine")
    parser.add_argument("--network-gbs", type=float, help="GB/s that a GPU sends to other machines")
    parser.add_argument("--cores", type=float, help="CPU cores beside each GPU")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args(arguments)
    for name in ("nvlink_gbs", "network_gbs", "cores"):
        if (value := getattr(options, name)) is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0, and is {value:g}")
    return options


def page(path: Path, options: argparse.Namespace) -> str:
    """The page of a report.

    Raises:
        UserError: it is none of the suite's, or has no step of ours.
    """
    report = stored.read(path)
    options = argparse.Namespace(**vars(options))
    options.gpu = options.gpu or scaling_inputs.gpu_of(report) or scaling_inputs.DEFAULT_GPU
    inputs = scaling_inputs.read(report, options.gpu)
    given = {preset: conditions(inputs, preset, options) for preset in RECIPES}
    found = {preset: steps_of(preset, given[preset]) for preset in RECIPES}
    parts = [
        scaling_words.opening(path.name, report, inputs, options.gpu),
        *(part for preset in RECIPES for part in _times(preset, found[preset], given[preset])),
        _limits(found, given),
        *_memory(found, given),
        _communication(found["r50"]),
        _networks(given["r50"]),
        scaling_words.assumptions(inputs, given, options.gpu, path.name),
        scaling_words.LEFT_OUT,
        scaling_words.replaced(inputs.measured),
    ]
    return scaling_words.wrapped("\n\n".join(parts))


def _times(preset: str, steps: list[Step], given: Conditions) -> Iterator[str]:
    made = planned(RECIPES[preset], 1, given.memory)
    flops = sum(made["flops_per_step"].values())
    height, width = made["image"]["typical"]
    yield f"## {preset}, images of {height} x {width}"
    yield (
        f"{steps[0].updates:,} updates of 4,096 pairs (1,024 images with four texts each),"
        f" {flops / 1e12:,.0f} TFLOP an update, {steps[0].updates * flops / 1e18:.1f} EFLOP in all."
        " Milliseconds of an update, at the low and the high end of the projection; what decoding adds"
        f" with {given.cores:g} CPU cores a GPU; efficiency: of GPUs times the speed of one GPU."
    )
    alone = {step.stage: step for step in steps if step.gpus == 1}
    head = (
        "GPUs", "ZeRO", "images a pass x passes", "hours in all", "update", "compute",
        "exposed communication", "optimiser", "data", "GB sent", "efficiency", "beside compute, most on",
    )  # fmt: skip
    yield table(
        head,
        [
            (
                step.gpus,
                step.stage,
                f"{step.images_per_pass} x {step.passes}",
                span(step.hours),
                *(
                    span(step_part, 1e3)
                    for step_part in (step.seconds, step.compute, step.exposed, step.optimizer, step.data)
                ),
                f"{step.sent / 1e9:.2f}",
                percent(efficiency(alone[step.stage], step)),
                _most(step),
            )
            for step in steps
        ],
    )


def _most(step: Step) -> str:
    """What takes most of an update beside compute, and its share of it at both ends."""
    parts = {"communication": step.exposed, "optimiser": step.optimizer, "data": step.data}
    shares = {
        name: Range(*sorted(one / all_ for one, all_ in zip(part, step.seconds, strict=True)))
        for name, part in parts.items()
    }
    name = max(shares, key=lambda name: shares[name].high)
    return f"{name}, {percent(shares[name])}"


def _limits(found: dict[str, list[Step]], given: dict[str, Conditions]) -> str:
    lines = ["## What limits it", ""]
    for preset, steps in found.items():
        step = next(one for one in steps if one.gpus == COUNTS[-1] and one.stage == 0)
        parts = zip(step.compute, step.seconds, strict=True)
        compute = Range(*sorted(one / all_ for one, all_ in parts))
        waits = Range(*sorted(one / all_ for one, all_ in zip(step.exposed, step.seconds, strict=True)))
        lines += [
            f"- **{preset}, the step itself.** On {step.gpus} GPUs under ZeRO 0 compute takes"
            f" {percent(compute)} of an update, communication {percent(waits)}. What the rate of the step"
            f" may be differs by a factor of {given[preset].rate.high / given[preset].rate.low:.1f}.",
            f"- **{preset}, decoding.** {scaling_words.decoding(step, given[preset])}",
        ]
    return "\n".join([*lines, *scaling_words.LIMITS])


def _memory(found: dict[str, list[Step]], given: dict[str, Conditions]) -> Iterator[str]:
    yield "## Memory of a GPU"
    yield (
        "GiB by part, images as large as the recipe lets them be (`pixelbert plan`,"
        " `training/plan_memory.py`; beside the peak on a CPU it is up to 13 % low in fp32 and 31 % in"
        " bf16, docs/results/training-recipes.md). The most images of one pass that fit into"
        f" {given['r50'].memory:g} and {SMALL_GPU:g} GiB stand last. No stage is needed to make the model"
        " fit; what fills the memory is activations, which no stage divides."
    )
    for preset, steps in found.items():
        small = {gpus: planned(RECIPES[preset], gpus, SMALL_GPU)["memory"] for gpus in COUNTS}
        parts = list(steps[0].memory["parts"])
        large = f"most images, {given[preset].memory:g} GiB"
        yield table(
            (f"{preset}: GPUs", "ZeRO", "images", *parts, "all", large, f"{SMALL_GPU:g} GiB"),
            [
                (
                    step.gpus,
                    step.stage,
                    step.images_per_pass,
                    *(f"{step.memory['parts'][part] / 2**30:.2f}" for part in parts),
                    f"{step.memory['total'] / 2**30:.1f}",
                    step.memory["most_images"],
                    small[step.gpus][str(step.stage)]["most_images"],
                )
                for step in steps
            ],
        )


def _communication(steps: list[Step]) -> str:
    weights = steps[0].memory["collectives_per_step"]["after"] / 2
    rows = []
    for step in steps:
        if step.gpus == COUNTS[1]:
            sizes, passes = step.memory["collectives_per_step"], step.passes
            paper = {0: 2, 1: 2, 2: passes + 1, 3: 3 * passes}[step.stage]
            volume = [f"{sizes[part] / weights:.3g}" for part in ("beside", "after")]
            rows.append((step.stage, passes, paper, *volume, f"{step.sent / 1e9:.2f}"))
    head = ("ZeRO", "passes", "by ZeRO's paper", "while it computes", "after", f"GB sent, {COUNTS[1]} GPUs")
    return scaling_words.COMMUNICATION + "\n\n" + table(head, rows)


def _networks(given: Conditions) -> str:
    made = planned(RECIPES["r50"], COUNTS[-1], given.memory)
    single = planned(RECIPES["r50"], 1, given.memory)
    rows = []
    for name, network in NETWORKS.items():
        slower = given._replace(network=Range(LEAST_SHARE * network, network))
        for stage in (0, 3):
            step = project(made, stage, slower)
            gain = percent(efficiency(project(single, stage, slower), step))
            rows.append((name, stage, span(step.exposed, 1e3), gain, span(step.hours)))
    head = ("network", "ZeRO", "exposed, ms", "efficiency", "hours")
    return f"r50 on {COUNTS[-1]} GPUs by the network between machines:\n\n" + table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
