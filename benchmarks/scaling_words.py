"""The words and tables of `scaling_plan.md`; its figures come from `scaling_model.py`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from scaling_inputs import DECODED, RESIZING_SECONDS, Inputs
from scaling_model import ADAMW_BYTES, LEAST_SHARE, SGD_BYTES, SHEETS, Conditions, Range, Step, peak

LEAST = f"{100 * LEAST_SHARE:.0f} %"
# Of the JPEGs of 640 x 480 that decoding was timed on, docs/results/data.md.
BYTES_AN_IMAGE = 83e3
LIMITS = (
    "- **Communication** depends on the network far more than on the stage: the table of networks below."
    " With a port of 400 Gb/s for each GPU the stages are nearly alike; where machines share one of"
    " 100 Gb/s, a large part of an update on 64 GPUs is waiting. ZeRO 0 sends the least (stage 3 as"
    " little where an update is one pass) but hides nothing of it.",
    "- **The passes get small.** 4,096 pairs are 16 images a GPU on 64 GPUs: one pass, a quarter of the"
    " recipe's. Its kernels are less well filled, and what starts them weighs more. The projection takes"
    " every FLOP to be as fast as in the row that it was carried from, and says nothing of this.",
    "- **Memory** limits the size of a pass alone: every stage fits. The batch is the paper's, so more"
    " GPUs mean fewer and smaller passes, and past 1,024 GPUs there is no image left for each.",
)

COMMUNICATION = f"""## Communication

Volumes, in units of the weights in float32, through one-way collectives (a reduce-scatter or a gather; an
all-reduce is both). The paper of ZeRO (arXiv 1910.02054, section 7) has 2 for plain data parallelism and
stages 1 and 2, and 3 for stage 3; where passes are added up, stage 2 reduces in each, and stage 3 gathers
and reduces in each. DeepSpeed 0.19.8 as this package sets it up sends something else, counted call by call
in two processes (`pytest -m slow tests/test_traffic.py`): stages 1 and 2 reduce gradients to all and not to
their owners alone (its `use_multi_rank_bucket_allreduce`; false gives the paper's volume by many small
reduces, which on a GPU were not timed), and stage 3 gathers once a pass, since the weights are smaller than
what it keeps for the backward. ZeRO 0 reduces after the last backward: nothing hides it. Stages 1 and 2
hide what they reduce only with `training.overlap_comm: true`, stage 3 by default; the low ends take it as
hidden as far as the backward lasts (stage 3: the pass), at the rates of the data sheets, the high ends as
not hidden at all, at {LEAST} of those rates. A GPU sends (n - 1)/n of a volume; it is timed as
rings within machines of eight and rings of eighths through machines."""

LEFT_OUT = """## What is left out

- Kernel launches, Python, and the latency of collectives (stage 3 makes one for each few weights).
- Copies into and out of ZeRO's buckets: in one process on a CPU, updates of two images take 33 to 54 % more
  by them (docs/results/training-engine.md); larger passes make it less.
- Waiting for the slowest GPU: batches of other shapes at the same time, another host's load.
- Evaluation every five epochs, checkpoints every half hour, reading files, the copy of pixels to the GPU.
- A GPU's own decoder (DALI), which would take decoding off the cores.
- Texts are as long as they may be, 40 word pieces; images have the shape of a 640 x 480 photograph."""


def span(values: Range, scale: float = 1.0) -> str:
    """Both ends to three digits, one number where they look alike."""
    low, high = (_three(scale * value) for value in values)
    return low if low == high else f"{low} to {high}"


def percent(values: Range) -> str:
    low, high = (f"{100 * value:.1f}" for value in values)
    return f"{low} %" if low == high else f"{low} to {high} %"


def _three(value: float) -> str:
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.01 else "< 0.01"


def wrapped(text: str, width: int = 120) -> str:
    """Lines of at most that length, but for tables and where one word is longer."""
    lines = []
    for line in text.splitlines():
        if len(line) <= width or line.startswith("|"):
            lines.append(line)
            continue
        # A figure and its per cent sign stay together.
        found = textwrap.wrap(
            line.replace(" %", "\0%"),
            width,
            subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += [one.replace("\0%", " %") for one in found]
    return "\n".join(lines) + "\n"


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def opening(name: str, report: Mapping[str, Any], inputs: Inputs, gpu: str) -> str:
    if inputs.measured:
        said = f"The step was measured on one {gpu}; more GPUs are a projection from it, which nothing"
        " was measured of."
    else:
        said = (
            "**No GPU was measured: the times below are a projection from counted FLOPs at a stated"
            f" share of the {gpu}'s peak, which was carried over from a step measured on another machine"
            " by an assumption. Take them for the bounds of what to expect, and for nothing that was"
            " seen.** Nor were more than two processes, or NCCL."
        )
    return f"""# Pixel-BERT's pre-training on 1, 8 and 64 GPUs: a projection

{said}

`python benchmarks/scaling_plan.py --write` makes this page from `results/{name}`
({report["machine"]["device"]}, {report["date"]}, revision {report.get("revision", "not told")},
`{report.get("command", "not told")}`), for machines of eight {gpu}s. The recipes are `pretrain_r50_80gb`
and `pretrain_x152_80gb`: the paper's 4,096 pairs an update and 40 epochs (it had 64 V100; its time is not
told), bf16, frozen norms, in passes of at most 64 images. The paper's epochs are 5.98 M texts, 239 M pairs
in all; ours come to some 243 M, since the last showing of an image is not always full."""


def decoding(step: Step, given: Conditions) -> str:
    eaten = Range(step.images / step.seconds.high, step.images / step.seconds.low)
    files = Range(*(step.gpus * BYTES_AN_IMAGE * one / 1e9 for one in eaten))
    said = (
        f"A GPU eats {span(eaten)} images/s, which keep {span(step.cores)} CPU cores at work (of"
        f" {given.cores:g} beside it; GPUs that share fewer wait for them): "
    )
    if step.data.high > 0:
        said += "it limits an update at both ends"
    elif step.data.low > 0:
        share = step.data.low / step.seconds.low
        said += f"at the low end it makes up {100 * share:.0f} % of an update"
    else:
        said += "it limits nothing"
    return f"{said}. All {step.gpus} read {span(files)} GB/s of files."


def assumptions(inputs: Inputs, given: Mapping[str, Conditions], gpu: str, name: str) -> str:
    sheet, own = SHEETS[gpu], given["r50"]
    chosen = "" if own.network.high == sheet.network else ", as given"
    inside = "" if own.nvlink.high == sheet.nvlink else ", as given"
    beside = "" if own.cores == sheet.cores else ", as given"
    rule = (
        "the case of the report carried to the recipe's shapes by FLOPs alone"
        if inputs.measured
        else "ASSUMED: at the higher rate the step is bound by products on both machines, so its share"
        " of the rate is the same; at the lower it is bound by memory on both, so the share falls"
        " as bytes a second fall against FLOP/s. The CPU's share is of a rate that it was seen to"
        " reach, the GPU's of its data sheet, which no product reaches: that flatters both ends"
    )
    height, width = DECODED
    rows = [
        ("rate of r50's step", f"{_tera(own.rate)} TFLOP/s", f"`results/{name}`: {inputs.rate_by['r50']}"),
        ("rate of x152's step", f"{_tera(given['x152'].rate)} TFLOP/s", inputs.rate_by["x152"]),
        ("how that was carried over", "", rule),
        (
            "peak",
            f"{peak(gpu) / 1e12:g} TFLOP/s",
            f"data sheet of the {gpu} (SXM): dense bf16 (training/peaks.py)",
        ),
        (
            "FLOPs",
            "counted",
            "`pixelbert plan`; equal to FlopCounterMode's (docs/results/training-recipes.md)",
        ),
        ("memory", f"{own.memory:g} GB", f"data sheet of the {gpu}, taken as GiB, as `--gpu-memory` does"),
        (
            "optimiser",
            f"{ADAMW_BYTES} bytes a weight by AdamW, {SGD_BYTES} by SGD",
            "counted: weight, gradient and moments read and written, the gradient read twice; at"
            f" {sheet.bandwidth / 1e12:g} TB/s by the data sheet, {inputs.optimizer_by}",
        ),
        (
            "links in a machine",
            f"{own.nvlink.high / 1e9:g} GB/s each way and GPU{inside}",
            f"data sheet of the {gpu}: NVLink, half of the two ways' sum; {LEAST} of it at the"
            " high end, assumed",
        ),
        (
            "network",
            f"{own.network.high / 1e9:g} GB/s each way and GPU{chosen}",
            f"data sheet of the {sheet.machine}: one InfiniBand port for each GPU; {LEAST} of"
            " it at the high end, assumed",
        ),
        (
            "cores",
            f"{own.cores:g} a GPU{beside}",
            f"data sheet of the {sheet.machine}, an eighth of its cores",
        ),
        (
            "decoding",
            f"{1e3 * own.file:.2f} ms an image and {1e9 * own.pixel:.2g} ns a pixel written",
            f"measured, {inputs.decoding_by}, to {width} x {height}; {1e3 * RESIZING_SECONDS:g} ms of it"
            " resize (docs/results/data.md), which is taken to grow with the pixels. A core of another"
            " machine is taken to be as fast",
        ),
        (
            "backward",
            "two thirds of a pass",
            "counted: what is trained counts three times, once in the forward",
        ),
        (
            "sets",
            "as published",
            "113,287 images of COCO and 108,077 of Visual Genome (training/plan_epochs.py)",
        ),
    ]
    return "## What it rests on\n\n" + table(("what", "value", "from where"), rows)


def _tera(rate: Range) -> str:
    return span(rate, 1e-12)


def replaced(measured: bool) -> str:
    first = (
        "- `make gpu-report` on another machine: give its file by `--results`."
        if measured
        else "- `make gpu-report`: its whole step in bf16 takes the place of the share of peak, of both"
        " ends and of the assumption behind them; this script then takes that report by itself."
    )
    return f"""## What a measurement would replace

{first}
- A step at 16 images beside one at 64: what a small pass costs.
- Eight GPUs of one machine under each stage, and two machines: exposed communication, in place of rings by
  data sheets.
- `python benchmarks/bench_decoding.py` on the cores beside the GPU, and DALI on it.
- `python benchmarks/bench_optimizer.py` on the GPU."""
