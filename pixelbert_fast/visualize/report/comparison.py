"""The report that compares several runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pixelbert_fast.durations import duration
from pixelbert_fast.visualize.curves import STYLES
from pixelbert_fast.visualize.markup import escaped
from pixelbert_fast.visualize.report.charts import compared_charts
from pixelbert_fast.visualize.report.document import Line, document, table
from pixelbert_fast.visualize.report.figures import Row, looked_up, percent, rows
from pixelbert_fast.visualize.report.records import RunRecord

_ABSENT = "\u2013"


def comparison_page(
    runs: Sequence[RunRecord],
    configs: Sequence[Mapping[str, Any]],
    guesses: Sequence[Mapping[str, Mapping[str, float]]],
) -> str:
    """One page of several runs: curves over each other, metrics and what differs in the configurations.

    Args:
        configs: each run's configuration with every default.
        guesses: of each run, as `page.Material.guesses`.
    """
    charts = compared_charts(runs)
    sections = [
        ("Runs", _runs(runs)),
        ("Curves", f'<div class="charts">{"".join(charts)}</div>' if charts else ""),
        ("Metrics", _metrics(runs, guesses)),
        ("What differs in the recipes", _differences(runs, configs)),
    ]
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    unfinished = [run.name for run in runs if run.metrics is None]
    head = f'<p class="faint">{len(runs)} runs compared; written {written}.</p>'
    if unfinished:
        names = ", ".join(unfinished)
        head += f'<div class="banner" role="status">{escaped(f"NOT FINISHED: {names}.")}</div>'
    if len(runs) > STYLES:
        note = f"Lines look alike from the {STYLES + 1}th run on; reading one out at the pointer names it."
        head += f'<p class="faint">{escaped(note)}</p>'
    return document(" and ".join([", ".join(run.name for run in runs[:-1]), runs[-1].name]), head, sections)


def _runs(runs: Sequence[RunRecord]) -> str:
    told = []
    for run in runs:
        metrics = run.metrics or {}
        seconds = metrics.get("training_seconds") or (run.train[-1].get("seconds") if run.train else None)
        told.append(
            Line(
                run.name,
                [
                    run.task,
                    "finished" if run.metrics is not None else "not finished",
                    f"{run.step:,}",
                    f"{metrics['pairs']:,}" if "pairs" in metrics else "",
                    duration(seconds) if seconds else "",
                    str(metrics.get("processes", "")),
                ],
            )
        )
    return table(["task", "state", "steps", "pairs", "training", "processes"], told)


def _metrics(runs: Sequence[RunRecord], guesses: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    parts = []
    figures = [(run.figures() or (0, {}))[1] for run in runs]
    for split in dict.fromkeys(split for own in figures for split in own):
        listed: dict[tuple[str, ...], Row] = {}
        for run, own, guess in zip(runs, figures, guesses, strict=True):
            inside = own.get(split)
            if isinstance(inside, Mapping):
                for row in rows(run.task, inside, guess.get(split)):
                    listed.setdefault(row.key, row)
        names = [run.name for run in runs]
        body = []
        for key, row in listed.items():
            chance = percent(row.chance) if row.chance is not None else ""
            values = [_value(own.get(split), key) for own in figures]
            body.append(Line(row.name, [*values, chance], row.part))
        if body:
            parts.append(f"<h3>{escaped(split)}</h3>{table([*names, 'by guessing'], body)}")
    return "\n".join(parts)


def _value(figures: Any, key: tuple[str, ...]) -> str:
    return percent(looked_up(figures, key)) if isinstance(figures, Mapping) else _ABSENT


def _differences(runs: Sequence[RunRecord], configs: Sequence[Mapping[str, Any]]) -> str:
    flat = [_flat(config) for config in configs]
    keys = sorted({key for own in flat for key in own})
    differing = [
        key for key in keys if key != "output" and len({repr(own.get(key, _ABSENT)) for own in flat}) > 1
    ]
    if not differing:
        return "<p>Nothing but the output folder.</p>"
    body = [Line(key, [_said(own.get(key, _ABSENT)) for own in flat]) for key in differing]
    return table([run.name for run in runs], body, numbers=False)


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{key}.")
        elif not isinstance(value, Mapping):
            found[key] = value
    return found


def _said(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
