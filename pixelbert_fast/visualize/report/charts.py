"""Which curves a run's log makes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelbert_fast.visualize.curves import Series, line_chart
from pixelbert_fast.visualize.report.figures import main_figures
from pixelbert_fast.visualize.report.records import RunRecord

# What a record of training holds beside the task's own losses and accuracies.
_OTHERS = {
    "kind", "step", "epoch", "seconds", "gradient_norm", "gradient_norms", "lr", "memory", "tflops", "mfu",
    "pairs_per_second", "images_per_second", "data_wait", "step_seconds", "step_seconds_p95", "broken_images",
    "skipped_updates",
}  # fmt: skip
# Where the greatest is so many times the least, the least could not be read on a linear axis.
_WIDE = 30.0


@dataclass(frozen=True)
class _Chart:
    title: str
    y: str = ""
    log: bool | None = False
    """None: where the values span several powers of ten."""
    zero: bool = False


_CHARTS = {
    "loss": _Chart("Loss", log=None),
    "shares": _Chart("Accuracy while training", zero=True),
    "evaluated": _Chart("Evaluated on the way", zero=True),
    "lr": _Chart("Learning rate", log=True),
    "norm": _Chart("Gradient norm before clipping", log=True),
    "rate": _Chart("Throughput", "a second", zero=True),
    "time": _Chart("Seconds a step", "seconds", zero=True),
    "wait": _Chart("Share of time spent waiting for data", zero=True),
    "memory": _Chart("Memory", "MiB", zero=True),
    "mfu": _Chart("Share of the device's peak (MFU)", zero=True),
}


def run_charts(run: RunRecord) -> list[str]:
    """The curves of one run, as HTML figures; a quantity that was never recorded has none."""
    lines = quantities(run)
    found = []
    for kind, look in _CHARTS.items():
        series = [
            Series(name, *values, points=kind == "evaluated")
            for (own, name), values in lines.items()
            if own == kind
        ]
        if series:
            found.append(_drawn(look, look.title, series))
    return found


def compared_charts(runs: Sequence[RunRecord]) -> list[str]:
    """The same of several runs: a chart for each quantity, a line for each run that has it."""
    every = [quantities(run) for run in runs]
    keys = dict.fromkeys(key for kind in _CHARTS for one in every for key in one if key[0] == kind)
    found = []
    for key in keys:
        kind, name = key
        look = _CHARTS[kind]
        series = [
            Series(run.name, *one[key], points=kind == "evaluated", look=place)
            for place, (run, one) in enumerate(zip(runs, every, strict=True))
            if key in one
        ]
        title = look.title if name.lower() == look.title.lower() else f"{look.title}: {name}"
        found.append(_drawn(look, title, series))
    return found


def quantities(run: RunRecord) -> dict[tuple[str, str], tuple[list[float], list[float | None]]]:
    """(steps, values) of everything a run recorded, by (chart, name)."""
    found: dict[tuple[str, str], tuple[list[float], list[float | None]]] = {}
    shares = _shares(run.train)

    def add(kind: str, name: str, step: int, value: Any) -> None:
        if value is None or isinstance(value, int | float):
            steps, values = found.setdefault((kind, name), ([], []))
            steps.append(step)
            values.append(value)

    for record in run.train:
        step = record["step"]
        for name, value in record.items():
            if name not in _OTHERS:
                add("shares" if name in shares else "loss", _words(name), step, value)
        for kind, names in (("norm", "gradient_norms"), ("lr", "lr"), ("memory", "memory")):
            own = record.get(names)
            if kind == "norm" and "gradient_norm" in record:
                add("norm", "all", step, record["gradient_norm"])
            for name, value in own.items() if isinstance(own, Mapping) else ():
                add(kind, _words(name), step, value)
        for kind, name, said in (
            ("rate", "pairs_per_second", "pairs"),
            ("rate", "images_per_second", "images"),
            ("time", "step_seconds", "median"),
            ("time", "step_seconds_p95", "95 % take less"),
            ("wait", "data_wait", "waiting"),
            ("mfu", "mfu", "MFU"),
        ):
            if name in record:
                add(kind, said, step, record[name])
    for record in run.evaluations:
        for name, value in main_figures(run.task, record["metrics"]):
            add("evaluated", name, record["step"], value)
    last = run.figures()
    if run.evaluations and last is not None and last[0] > run.evaluations[-1]["step"]:
        for name, value in main_figures(run.task, last[1]):
            add("evaluated", name, last[0], value)
    # A quantity that this machine or recipe has not: the MFU of an unknown device.
    return {key: own for key, own in found.items() if any(value is not None for value in own[1])}


def _shares(records: Iterable[Mapping[str, Any]]) -> set[str]:
    """The task's own figures that are shares: in 0..1 throughout, and no loss."""
    found: dict[str, bool] = {}
    for record in records:
        for name, value in record.items():
            if name in _OTHERS or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            found[name] = found.get(name, True) and "loss" not in name and 0 <= value <= 1
    return {name for name, is_share in found.items() if is_share}


def _drawn(look: _Chart, title: str, series: Sequence[Series]) -> str:
    log = look.log
    if log is None:
        values = [y for one in series for y in one.ys if isinstance(y, int | float) and math.isfinite(y)]
        log = bool(values) and min(values) > 0 and max(values) > _WIDE * min(values)
    return line_chart(series, title=title, y=look.y, log=log, zero=look.zero)


def _words(name: str) -> str:
    return {"mlm_loss": "masked words (MLM)", "itm_loss": "matching (ITM)", "loss": "all"}.get(
        name, name.replace("_", " ").replace("itm ", "matching ").replace("mlm ", "masked words ")
    )
