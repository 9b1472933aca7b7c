"""The arithmetic of `scaling_plan.py`: from what was measured to the time of an update on so many GPUs.

An update of one GPU takes, one after the other,

compute     its FLOPs / the rate carried over from a measured step
exposed     what communication could not be hidden behind that
optimizer   bytes of weights, gradients and moments / the GPU's memory bandwidth
data        what decoding its images takes longer than all of these

and the pre-training as many times that as it has updates. FLOPs, memory and the bytes of communication are
`pixelbert plan`'s. Every time has a low and a high end.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from pixelbert_fast.training.peaks import known_peak
from pixelbert_fast.training.plan import Machine, plan
from pixelbert_fast.training.recipes import load_config

# The backward's share of a pass: what is trained counts once in the forward and twice in the backward.
BACKWARD = 2 / 3
# Bytes that an update reads and writes of a weight: weight, gradient and moments, two of AdamW and one of
# SGD; ours reads the gradient once more, to know whether it is finite.
ADAMW_BYTES, SGD_BYTES = 32, 24
# The least share of its data sheet's rate that a link or a memory is taken to reach, where none was measured.
LEAST_SHARE = 0.5


class Range(NamedTuple):
    """A figure at the low and at the high end of the projection; of a rate the least and the most."""

    low: float
    high: float


class Sheet(NamedTuple):
    """Of a GPU and the machine of eight that its maker builds of it, by their data sheets.

    Attributes:
        memory: GB.
        bandwidth: bytes a second of its memory.
        nvlink: bytes a second that it sends to the other seven.
        network: bytes a second that it sends to other machines.
        cores: of the machine's CPUs, an eighth.
        machine: whose data sheet it is.
    """

    memory: int
    bandwidth: float
    nvlink: float
    network: float
    cores: int
    machine: str


SHEETS = {
    "H200": Sheet(141, 4.8e12, 450e9, 50e9, 14, "DGX H200"),
    "H100": Sheet(80, 3.35e12, 450e9, 50e9, 14, "DGX H100"),
    "A100": Sheet(80, 2.039e12, 300e9, 25e9, 16, "DGX A100"),
}


def peak(gpu: str) -> float:
    """Dense bf16 FLOP/s of a GPU of `SHEETS`."""
    return known_peak(gpu, "bf16", tf32=True) * 1e12


class Conditions(NamedTuple):
    """What a projection takes as given, beside the recipe.

    Attributes:
        rate: FLOP/s of the model's own operations that a GPU gets done; low is the least.
        bandwidth: bytes a second of its memory that the optimiser gets.
        nvlink, network: bytes a second that a GPU sends within its machine, and out of it.
        cores: CPU cores beside each GPU.
        file, pixel: CPU seconds to decode an image, and to write one pixel of what the model reads.
        per_machine: GPUs.
        memory: GiB of a GPU.
    """

    rate: Range
    bandwidth: Range
    nvlink: Range
    network: Range
    cores: float
    file: float
    pixel: float
    per_machine: int = 8
    memory: float = 80.0


class Step(NamedTuple):
    """Of one update: seconds by part, and what it needs; see the module."""

    gpus: int
    stage: int
    images: int
    images_per_pass: int
    passes: int
    compute: Range
    exposed: Range
    optimizer: Range
    data: Range
    seconds: Range
    hours: Range
    cores: Range
    sent: int
    updates: int
    memory: dict[str, Any]


def carried_rate(share: float, width: int, balance: float, gpu: str) -> Range:
    """FLOP/s of a GPU, from the share of its own matrix rate that another machine's step reaches.

    At best the step is bound by products there and here, and the share is the same. At worst it is bound by
    memory there and here: then its rate goes as the bandwidths, so the share falls as the balance does.

    Args:
        share: of the other machine's matrix rate.
        width: bytes of a number in its step; here it is two.
        balance: its memory's bytes a second by its FLOP/s.
    """
    best = share * peak(gpu)
    here = SHEETS[gpu].bandwidth / peak(gpu)
    return Range(best * min(1.0, here / balance * width / 2), best)


def ring_seconds(size: float, gpus: int, per_machine: int, nvlink: float, network: float) -> float:
    """A reduce-scatter or a gather of `size` bytes: a ring in each machine, then rings through machines.

    In a machine of g a GPU sends (g - 1)/g of it; then its own g-th goes round the machines, by its own link.

    Raises:
        ValueError: `gpus` is more than a machine and not whole machines.
    """
    inside = min(gpus, per_machine)
    machines, rest = divmod(gpus, inside)
    if rest:
        raise ValueError(f"{gpus} GPUs are no whole machines of {per_machine}")
    within = (inside - 1) / inside * size / nvlink
    return within + (machines - 1) / machines * size / inside / network


def exposed(beside: float, after: float, window: float) -> Range:
    """Seconds of communication that a step waits for: hidden in `window` as far as it goes, or not at all."""
    return Range(after + max(beside - window, 0.0), beside + after)


def optimizer_bytes(parameters: dict[str, int], stage: int, gpus: int) -> float:
    """That a GPU's update reads and writes: SGD for the backbone, AdamW for the rest; a piece if divided."""
    backbone = parameters["backbone"]
    every = SGD_BYTES * backbone + ADAMW_BYTES * (parameters["trained"] - backbone)
    return every / (gpus if stage else 1)


@functools.cache
def planned(recipe: str, gpus: int, memory: float) -> dict[str, Any]:
    """`pixelbert plan` of a recipe and the published sets, in passes that an update has room for."""
    config = load_config(recipe)
    data, training = config.data, config.training
    # Sets that happen to be built here must not change the plan.
    sets = [one.model_copy(update={"directory": f"published/{one.directory}"}) for one in data.sets]
    data = data.model_copy(update={"sets": sets})
    images = training.pairs_per_step // (data.captions_per_image * gpus)
    a_pass = min(training.images_per_batch, images)
    training = training.model_copy(update={"images_per_batch": a_pass})
    config = config.model_copy(update={"data": data, "training": training})
    return plan(config, Machine(gpus=gpus, gpu_memory=memory))


def project(made: dict[str, Any], stage: int, given: Conditions) -> Step:
    """An update and the whole pre-training by a plan's counts under a ZeRO stage."""
    gpus, batch = made["machine"]["gpus"], made["batch"]
    passes, found = batch["accumulation"], made["memory"][str(stage)]
    images = batch["images_per_batch"] * passes
    flops = sum(made["flops_per_step"].values()) / gpus
    compute = Range(flops / given.rate.high, flops / given.rate.low)
    # How long communication can hide: in the last backward, in all of them, in all passes.
    window = {0: 0.0, 1: BACKWARD / passes, 2: BACKWARD, 3: 1.0}[stage] * compute.low
    ends = []
    for nvlink, network in zip(reversed(given.nvlink), reversed(given.network), strict=True):
        links = (gpus, given.per_machine, nvlink, network)
        sizes = found["collectives_per_step"]
        times = (ring_seconds(sizes["beside"], *links), ring_seconds(sizes["after"], *links))
        ends.append(exposed(*times, window))
    communication = Range(ends[0].low, ends[1].high)
    moved = optimizer_bytes(made["parameters"], stage, gpus)
    optimizer = Range(moved / given.bandwidth.high, moved / given.bandwidth.low)
    busy = Range(*map(sum, zip(compute, communication, optimizer, strict=True)))
    height, width = made["image"]["typical"]
    decoding = images * (given.file + given.pixel * height * width)
    data = Range(*(max(decoding / given.cores - one, 0.0) for one in busy))
    seconds = Range(*map(sum, zip(busy, data, strict=True)))
    return Step(
        gpus=gpus,
        stage=stage,
        images=images,
        images_per_pass=batch["images_per_batch"],
        passes=passes,
        compute=compute,
        exposed=communication,
        optimizer=optimizer,
        data=data,
        seconds=seconds,
        hours=Range(*(made["steps"] * one / 3600 for one in seconds)),
        cores=Range(decoding / busy.high, decoding / busy.low),
        sent=found["traffic_per_step"],
        updates=made["steps"],
        memory=found,
    )


def efficiency(one: Step, many: Step) -> Range:
    """Of `many.gpus` times the speed of one GPU, what is reached; at both ends of the projection."""
    shares = [
        alone / (many.gpus * together) for alone, together in zip(one.seconds, many.seconds, strict=True)
    ]
    return Range(min(shares), max(shares))
