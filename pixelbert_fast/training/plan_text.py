"""A plan as a table of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from pixelbert_fast.training.plan_memory import GIB, STAGES

WIDTH = 100
_INDENT = 18
_SOURCES = {"built": "built", "published": "not built; published counts", "unknown": "not built"}


def table(plan: dict[str, Any]) -> str:
    """The plan that `plan.plan` made, in words and figures."""
    return "\n\n".join("\n".join(part) for part in (_model(plan), _batch(plan), _memory(plan), _length(plan)))


def _model(plan: dict[str, Any]) -> Iterable[str]:
    norm = "frozen norm" if plan["norm"] == "frozen" else f"trained norm ({plan['norm']})"
    frozen = f", first {plan['frozen_stages']} stages frozen" if plan["frozen_stages"] else ""
    by = plan["architecture_by"]
    what = f"{plan['task']}, {by}: {plan['backbone']}, {norm}{frozen}, {plan['precision']}"
    yield from _row("run", what)
    for part, source in plan["starts_from"].items():
        yield from _row(
            f"start.{part.removesuffix('_recipe')}", f"recipe {source}" if "recipe" in part else source
        )
    if plan["task"] == "pretrain":
        vocabulary = plan["vocabulary"]
        yield from _row("vocabulary", f"{vocabulary['size']:,} word pieces ({vocabulary['known_by']})")
    if plan["answers"]:
        yield from _row("answers", f"{plan['answers']['size']:,} ({plan['answers']['known_by']})")
    yield ""
    parameters, flops = plan["parameters"], plan["flops_per_step"]
    parts = [part for part in flops if parameters.get(part) or flops[part]]
    rows = [(part, _millions(parameters.get(part, 0)), _flops(flops[part])) for part in parts]
    rows.append(("all", _millions(parameters["all"]), _flops(sum(flops.values()))))
    yield from _columns(("part", "parameters", "FLOPs a step"), rows)
    if parameters["trained"] != parameters["all"]:
        yield f"trained: {_millions(parameters['trained'])}"
    sequence, size = plan["sequence"], "{} x {}".format(*plan["image"]["typical"])
    texts = f", texts of {sequence['text_length']} word pieces (the longest) with {sequence['pixels']} pixels"
    yield from _wrapped(
        f"FLOPs are of the forward and backward, a multiply-add as two, for {size} images"
        f"{texts if sequence['text_length'] else ''}."
    )


def _batch(plan: dict[str, Any]) -> Iterable[str]:
    batch, gpus = plan["batch"], plan["machine"]["gpus"]
    texts, passes = batch["captions_per_image"], batch["accumulation"]
    a_process = f"{batch['images_per_batch']} images" + (f" x {texts} texts" if texts else "")
    if plan["task"] == "nlvr2":
        a_process = f"{batch['pairs_per_pass'] // gpus} statements, each about two images,"
    if plan["task"] == "retrieval":
        a_process = f"{batch['images_per_batch']} images, each with its text,"
    product = f"{_gpus(gpus)} x {a_process} x {passes} pass{'es' * (passes > 1)}"
    given = (
        "" if batch["pairs_per_step_given"] else " (it grows with the GPUs: training.pairs_per_step is null)"
    )
    yield from _row("a step", f"{product} = {batch['pairs_per_step']:,} pairs{given}")
    if plan["task"] == "retrieval":
        wrong, learnt = batch["captions_per_image"] - 1, batch["learnt_per_image"] - 1
        yield from _row("beside each pair", f"{wrong} wrong texts are read, and {learnt} of them learnt from")
    yield from _row("FLOPs a pair", _flops(plan["flops_per_pair"]))


def _memory(plan: dict[str, Any]) -> Iterable[str]:
    stages = [plan["memory"][str(stage)] for stage in STAGES]
    of_the_run = max(one["total"] - one["parts"]["reserve"] for one in stages)
    unit, size_of_unit, digits = ("GiB", GIB, 2) if of_the_run >= GIB else ("MiB", GIB // 1024, 0)
    size = "{} x {}".format(*plan["image"]["largest"])
    gpus, memory = plan["machine"]["gpus"], plan["machine"]["gpu_memory"]
    images = plan["batch"]["images_per_batch"]
    where = f"{_gpus(gpus)} of {memory:g} GiB, batches of {images} images of {size}"
    yield f"{unit} of each GPU by ZeRO stage: {where}"
    head = ["", *(f"stage {stage}{' *' * (stage == plan['zero_stage'])}" for stage in STAGES)]
    rows = [
        (part, *(f"{one['parts'][part] / size_of_unit:,.{digits}f}" for one in stages))
        for part in stages[0]["parts"]
    ]
    rows.append(("all", *(f"{one['total'] / size_of_unit:,.{digits}f}" for one in stages)))
    rows.append(("fits", *("yes" if one["fits"] else "NO" for one in stages)))
    rows.append(("images_per_batch at most", *(str(one["most_images"]) for one in stages)))
    rows.append(("sent a step, GB", *(f"{one['traffic_per_step'] / 1e9:.2f}" for one in stages)))
    yield from _columns(head, rows)
    yield "* training.zero_stage. Arithmetic (training/plan_memory.py), not measured on a GPU."


def _length(plan: dict[str, Any]) -> Iterable[str]:
    space = max([_INDENT, *(len(one["directory"]) + 2 for one in plan["sets"])])
    for one in plan["sets"]:
        size = f"{one['images']:,} images, {one['texts']:,} texts" if one["images"] else "size unknown"
        yield from _row(
            one["directory"], f"{size} ({_SOURCES[one['source']]}), weight {one['weight']:g}", space
        )
    an_epoch, total, rate = plan["steps_per_epoch"], plan["steps"], plan["rate"]
    about = "about " * any(one["source"] == "published" for one in plan["sets"])
    said = "unknown until the data is built" if an_epoch is None else f"{about}{an_epoch:,.0f}"
    yield from _row("steps an epoch", said, space)
    if total is not None:
        epochs = f" ({plan['epochs']:g} epochs)" if plan["epochs"] else ""
        yield from _row("steps", f"{total:,}{epochs}, {plan['pairs'] / 1e6:,.1f} M pairs", space)
    yield from _row("hours", _hours(plan["hours"], rate, plan["rate_by"]), space)


def _hours(hours: float | None, rate: float | None, by: str | None) -> str:
    if rate is None:
        return "not measured (give --rate PAIRS_PER_SECOND, or --tflops PEAK --mfu SHARE)"
    if hours is None:
        return f"unknown, as the steps are; {rate:,.0f} pairs/s ({by})"
    days = f" ({hours / 24:,.1f} days)" if hours >= 48 else ""
    return f"{hours:,.1f}{days} at {rate:,.0f} pairs/s ({by})"


def _row(name: str, value: str, space: int = _INDENT) -> Iterable[str]:
    space = max(space, len(name) + 2)
    lines = textwrap.wrap(value, WIDTH - space, break_long_words=False) or [""]
    yield f"{name:<{space}}{lines[0]}"
    for line in lines[1:]:
        yield " " * space + line


def _wrapped(text: str) -> Iterable[str]:
    return textwrap.wrap(text, WIDTH)


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    every = [head, *rows]
    widths = [max(len(row[column]) for row in every) for column in range(len(head))]
    for row in every:
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{cell:>{width + 2}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "".join(cells).rstrip()


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count > 1)}"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M"


def _flops(count: float) -> str:
    for size, name in ((1e18, "E"), (1e15, "P"), (1e12, "T")):
        if count >= size:
            return f"{count / size:,.2f} {name}FLOP"
    return f"{count / 1e9:,.2f} GFLOP"
