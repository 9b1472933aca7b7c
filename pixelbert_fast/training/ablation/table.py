"""An ablation's table: as Markdown to read, as plain numbers, and as the series of a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pixelbert_fast.durations import duration
from pixelbert_fast.training.ablation.comparing import Spread, Values, difference, spread
from pixelbert_fast.training.ablation.readings import Reading, Verdict, judged
from pixelbert_fast.training.ablation.recipe import AblationConfig
from pixelbert_fast.training.provenance import differences


def document(
    config: AblationConfig,
    values: Values,
    made_by: dict[str, Any],
    runs_by: Sequence[Mapping[str, Any]] = (),
    spent: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything as plain numbers, JSON-able.

    Args:
        made_by: of this table.
        runs_by: of the runs, see `records.runs_made_by`.
        spent: on them, see `records.spent`.
    """
    rows = [
        {
            "name": row.name,
            "label": row.title,
            "figures": {
                name: {
                    **asdict(spread(values[row.name][name].values())),
                    "by_seed": {str(seed): value for seed, value in sorted(values[row.name][name].items())},
                    "paper": row.paper.get(name),
                }
                for name in config.figures
            },
        }
        for row in config.rows
    ]
    pairs = [
        {"better": one.name, "than": other.name, "figure": name, **asdict(found), "counts": bool(found.sign)}
        for name in config.figures
        for place, other in enumerate(config.rows)
        for one in config.rows[place + 1 :]
        if (found := difference(values, one.name, other.name, name)).mean is not None
    ]
    readings = [
        {"says": one.says, "verdict": one.verdict, "parts": [asdict(part) for part in one.parts]}
        for one in judged(config, values)
    ]
    return {
        "format": "pixelbert_fast ablation",
        "version": 1,
        "title": config.title,
        "seeds": list(config.seeds),
        "complete": _complete(config, values),
        "rows": rows,
        "differences": pairs,
        "readings": readings,
        "made_by": made_by,
        "runs_made_by": list(runs_by),
        "spent": dict(spent or {}),
        "config": config.model_dump(mode="json"),
    }


def markdown(
    config: AblationConfig,
    values: Values,
    runs_by: Sequence[Mapping[str, Any]] = (),
    spent: Mapping[str, Any] | None = None,
) -> str:
    """The table, what it took, which differences count, and what becomes of the readings.

    runs_by: see `records.runs_made_by`; runs of different versions are told of.
    spent: see `records.spent`.
    """
    names = list(config.figures)
    paper = any(row.paper for row in config.rows)
    heads = [f"{_label(config, name)}{' (paper)' if paper else ''}" for name in names]
    lines = [f"# {config.title}", ""]
    if not _complete(config, values):
        lines += ["Not finished: some rows have fewer seeds than the others, or none.", ""]
    lines += [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(names)}"]
    for row in config.rows:
        cells = []
        for name in names:
            told = _told(spread(values[row.name][name].values()), len(config.seeds))
            theirs = f" ({row.paper[name]:g})" if name in row.paper else " (-)" if paper else ""
            cells.append(told + theirs)
        lines.append(f"| {_cell(row.title)} | {' | '.join(cells)} |")
    lines += ["", *_notes(config, names), ""]
    if spent:
        lines += [_spent(spent), ""]
    if len(runs_by) > 1:
        lines += [_mixed(runs_by), ""]
    lines += _differences(config, values, names)
    readings = judged(config, values)
    if readings:
        lines += ["## What the figures say", "", *_summary(readings), ""]
        for number, one in enumerate(readings, start=1):
            lines.append(f"{number}. {one.says}: **{one.verdict}**.")
            lines += [f"   - {part.verdict}: {part.why}" for part in one.parts]
        lines += [
            "",
            "A part that says one row is better holds where the interval lies above zero, and does not where"
            " it lies below; near chance is judged by the interval of the mean. A reading holds where all its"
            " parts do, and does not where one does not.",
        ]
    return "\n".join(lines).rstrip() + "\n"


def chart_groups(config: AblationConfig, found: Values) -> list[dict[str, Any]]:
    """A group for each figure: its label, chance, and (row, values, paper's) in the order of the rows."""
    return [
        {
            "label": _label(config, name),
            "chance": figure.chance,
            "rows": [
                (
                    row.title,
                    [one for _, one in sorted(found[row.name][name].items())],
                    row.paper.get(name),
                )
                for row in config.rows
            ],
        }
        for name, figure in config.figures.items()
    ]


def _summary(readings: Sequence[Reading]) -> list[str]:
    said = []
    for verdict, words in _PLURAL.items():
        numbers = [str(n) for n, one in enumerate(readings, start=1) if one.verdict is verdict]
        said.append(f"{len(numbers)} {words}" + (f" ({', '.join(numbers)})" if numbers else ""))
    return [f"Of {len(readings)} readings {'; '.join(said)}."]


_PLURAL = {
    Verdict.HOLDS: "hold",
    Verdict.DOES_NOT: "do not hold",
    Verdict.UNTOLD: "cannot be told at this scale",
}


def _differences(config: AblationConfig, values: Values, names: Sequence[str]) -> list[str]:
    lines = ["## Which differences exceed the spread", ""]
    lines.append(
        "Row less row, seed by seed: mean and 95 % interval (Student's t), bold where that leaves out 0."
    )
    heads = " | ".join(_label(config, name) for name in names)
    lines += ["", f"| | {heads} |", f"|---|{'---|' * len(names)}"]
    for place, other in enumerate(config.rows):
        for one in config.rows[place + 1 :]:
            found = [difference(values, one.name, other.name, name) for name in names]
            cells = " | ".join(_interval(each) for each in found)
            lines.append(f"| {_cell(one.title)} less {_cell(other.title)} | {cells} |")
    return [*lines, ""]


def _notes(config: AblationConfig, names: Sequence[str]) -> list[str]:
    seeds = len(config.seeds)
    note = f"Mean ± standard deviation over {seeds} seed{'s' if seeds > 1 else ''}."
    if any(row.paper for row in config.rows):
        note += " In brackets the paper's, of other data and another scale: compare the order."
    known = {name: config.figures[name].chance for name in names}
    chances = [f"{_label(config, name)} {one:g}" for name, one in known.items() if one is not None]
    return [note + (f" Chance: {', '.join(chances)}." if chances else "")]


def _spent(found: Mapping[str, Any]) -> str:
    runs, steps = found["runs"], found["steps"]
    return (
        f"{runs:,} run{'' if runs == 1 else 's'} of {steps:,} steps together, which trained for"
        f" {duration(found['training_seconds'])}: the sum of their `training_seconds`, by the"
        " clock; evaluations on the way and pauses of a halted process count."
    )


def _mixed(runs_by: Sequence[Mapping[str, Any]]) -> str:
    most, *others = runs_by
    told = [f"{one['runs']} with {', '.join(differences(most, one))}" for one in others]
    told = [one.replace(", now ", " -> ") for one in told]
    return (
        f"**The runs are not of one version**: {most['runs']} are alike, {'; '.join(told)}. Rows that differ"
        " in it differ in more than the table says."
    )


def _complete(config: AblationConfig, values: Values) -> bool:
    """Whether every row has every seed of the figures whose stage it does not leave out."""
    counted = [
        len(values[row.name][name])
        for row in config.rows
        for name, figure in config.figures.items()
        if figure.stage not in row.leave_out
    ]
    return all(count == len(config.seeds) for count in counted)


def _told(found: Spread, seeds: int) -> str:
    if found.mean is None:
        return "-"
    around = "" if found.deviation is None else f" ± {found.deviation:.1f}"
    return f"{found.mean:.1f}{around}{f' [{found.count}]' if found.count < seeds else ''}"


def _interval(found: Spread) -> str:
    if found.mean is None:
        return "-"
    if found.low is None:
        return f"{found.mean:+.1f}"
    told = f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
    return f"**{told}**" if found.sign else told


def _label(config: AblationConfig, name: str) -> str:
    return _cell(config.figures[name].label or name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
