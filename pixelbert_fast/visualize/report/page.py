"""The report of one run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pixelbert_fast.durations import duration
from pixelbert_fast.tasks.examples import Group
from pixelbert_fast.visualize.markup import escaped
from pixelbert_fast.visualize.report.cards import example_cards
from pixelbert_fast.visualize.report.charts import run_charts
from pixelbert_fast.visualize.report.document import Line, document, pairs_table, table
from pixelbert_fast.visualize.report.figures import Row, looked_up, percent, rows
from pixelbert_fast.visualize.report.pictures import Album
from pixelbert_fast.visualize.report.records import RunRecord

_MOST_EVENTS = 40
_MOST_TILES = 8


@dataclass(frozen=True)
class Material:
    """What a report shows beside the run's own folder.

    Attributes:
        recipe: the configuration as YAML, without what has its default; whole: with it.
        sets: of `set_counts`.
        guesses: what guessing gives, by split and figure (see `figures.rows`).
        twin: a run that differs in being shown no pixels, or None.
        groups: examples; where there are none, `no_examples` says why.
    """

    recipe: str = ""
    whole: str = ""
    sets: Sequence[tuple[str, dict[str, dict[str, int]], str]] = ()
    guesses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    twin: RunRecord | None = None
    groups: Sequence[Group] = ()
    no_examples: str = ""


def report_page(run: RunRecord, material: Material) -> str:
    """One self-contained HTML page; every text in it is escaped."""
    album = Album()
    text_only = bool((run.config.get("start") or {}).get("text_only"))
    cards = example_cards(material.groups, album, text_only=text_only)
    if not cards and material.no_examples:
        cards = f'<p class="faint">{escaped(material.no_examples)}</p>'
    charts = run_charts(run)
    sections = [
        ("Curves", f'<div class="charts">{"".join(charts)}</div>' if charts else ""),
        ("Metrics", metric_tables(run.task, run.figures(), material.guesses, material.twin)),
        ("Examples", cards),
        ("Events", _events(run)),
        ("Data", counts_table(material.sets)),
        ("Recipe", _recipe(material)),
        ("Versions and machine", pairs_table(_made_by(run))),
    ]
    return document(run.name, _head(run, material), sections, album.style())


def metric_tables(
    task: str,
    figures: tuple[int, Mapping[str, Any]] | None,
    guesses: Mapping[str, Mapping[str, float]],
    twin: RunRecord | None = None,
) -> str:
    """A table for each split of (step, metrics by split)."""
    if figures is None:
        return ""
    known = (twin.figures() if twin else None) or (0, {})
    parts = []
    for split, own in figures[1].items():
        found = rows(task, own, guesses.get(split)) if isinstance(own, Mapping) else []
        if found:
            parts.append(f"<h3>{escaped(split)}</h3>")
            parts.append(_table(found, known[1].get(split) or {}, twin.name if twin else ""))
    return "\n".join(parts)


def counts_table(sets: Sequence[tuple[str, dict[str, dict[str, int]], str]]) -> str:
    """How many images and texts each set has, by split."""
    parts = []
    for directory, counted, problem in sets:
        parts.append(f"<h3>{escaped(directory)}</h3>")
        if problem:
            parts.append(f'<p class="faint">{escaped(problem)}</p>')
            continue
        splits = list(dict.fromkeys(split for own in counted.values() for split in own))
        lines = [
            Line(what, [f"{own[split]:,}" if split in own else "" for split in splits])
            for what, own in counted.items()
        ]
        parts.append(table(splits, lines))
    return "\n".join(parts)


def made_by_rows(about: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Names and values of `versions`, `revision` and `machine`, as far as they are known."""
    found: list[tuple[str, object]] = list((about.get("versions") or {}).items())
    if about.get("revision"):
        found.append(("source revision", about["revision"]))
    for name, value in (about.get("machine") or {}).items():
        if name == "memory_gb":
            found.append(("memory", f"{value} GB"))
        elif isinstance(value, list):
            found.append((name, ", ".join(map(str, value)) or "none"))
        else:
            found.append((name, value))
    return found


def tiles(task: str, figures: Mapping[str, Any] | None, guesses: Mapping[str, Mapping[str, float]]) -> str:
    """The figures to see first, of metrics by split."""
    shown = []
    for split, own in (figures or {}).items():
        found = rows(task, own, guesses.get(split)) if isinstance(own, Mapping) else []
        shown += [_tile(split, row) for row in found if not row.part]
    return f'<div class="tiles">{"".join(shown[:_MOST_TILES])}</div>' if shown else ""


def _head(run: RunRecord, material: Material) -> str:
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    about = f"A run of the task {run.task} in {run.path}; written {written}."
    parts = [f'<p class="faint">{escaped(about)}</p>']
    if run.metrics is None:
        parts.append(f'<div class="banner" role="status">{escaped(_unfinished(run))}</div>')
    else:
        parts.append(f"<p>{escaped(_finished(run.metrics))}</p>")
    if run.unread:
        lines = "1 line" if run.unread == 1 else f"{run.unread} lines"
        parts.append(f'<p class="faint">{lines} of log.jsonl could not be read and is left out.</p>')
    parts.append(tiles(run.task, (run.figures() or (0, None))[1], material.guesses))
    return "\n".join(parts)


def _finished(metrics: Mapping[str, Any]) -> str:
    processes = metrics.get("processes") or 1
    words = [
        f"Finished: {metrics.get('steps', 0):,} steps, {metrics.get('pairs', 0):,} pairs",
        f"{duration(metrics.get('training_seconds') or 0)} of training",
    ]
    if metrics.get("start_seconds"):
        words.append(f"{duration(metrics['start_seconds'])} for what it starts from")
    words.append("1 process" if processes == 1 else f"{processes} processes")
    for name, what in (("skipped_updates", "updates left out"), ("broken_images", "broken images replaced")):
        if metrics.get(name):
            words.append(f"{metrics[name]:,} {what}")
    return ", ".join(words) + "."


def _unfinished(run: RunRecord) -> str:
    if not run.train:
        return "NOT FINISHED. Nothing is logged yet: the run is starting, or ended before its first record."
    last = run.train[-1]
    training = run.config.get("training") or {}
    asked = f" of {training['epochs']:g} epochs" if training.get("epochs") else ""
    asked = f" of {training['steps']:,} steps" if training.get("steps") else asked
    at = (
        f"step {last['step']:,}"
        if training.get("steps")
        else f"epoch {last.get('epoch', 0):.2f} (step {last['step']:,})"
    )
    try:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime((run.path / "log.jsonl").stat().st_mtime))
    except OSError:
        when = "an unknown time"
    return (
        f"NOT FINISHED. This run has reached {at}{asked}, and last wrote at {when}: it is still going on, or "
        "was stopped. The same training command goes on from its last saved state."
    )


def _tile(split: str, row: Row) -> str:
    notes = [f"{split}: {row.name}"]
    if row.chance is not None:
        notes.append(f"by guessing {percent(row.chance)}")
    if row.beside is not None:
        notes.append(f"beside a wrong image {percent(row.beside)}")
    said = "".join(f"<span>{escaped(note)}</span>" for note in notes)
    return f'<div class="tile"><b>{percent(row.value)}</b>{said}</div>'


def _table(found: Sequence[Row], twin: Mapping[str, Any], twin_name: str) -> str:
    columns = [
        ("this run", lambda row: percent(row.value), True),
        ("of", lambda row: f"{row.of:,}" if row.of else "", any(row.of for row in found)),
        ("by guessing", lambda row: _known(row.chance), any(row.chance is not None for row in found)),
        (
            "beside a wrong image",
            lambda row: _known(row.beside),
            any(row.beside is not None for row in found),
        ),
        (f"without pixels ({twin_name})", lambda row: _known(looked_up(twin, row.key)), bool(twin)),
    ]
    shown = [(name, told) for name, told, wanted in columns if wanted]
    lines = [Line(row.name, [told(row) for _, told in shown], row.part) for row in found]
    return table([name for name, _ in shown], lines)


def _known(share: float | None) -> str:
    return "" if share is None else percent(share)


def _events(run: RunRecord) -> str:
    told = []
    for one in run.events[:_MOST_EVENTS]:
        rest = {name: value for name, value in one.items() if name not in ("kind", "step")}
        said = ", ".join(f"{name} {value}" for name, value in rest.items())
        told.append((f"step {one['step']:,}: {str(one.get('kind', '?')).replace('_', ' ')}", said))
    if len(run.events) > _MOST_EVENTS:
        told.append(("and", f"{len(run.events) - _MOST_EVENTS} more in log.jsonl"))
    return pairs_table(told)


def _recipe(material: Material) -> str:
    if not material.recipe:
        return ""
    whole = ""
    if material.whole and material.whole != material.recipe:
        whole = (
            f"<details><summary>With every default</summary><pre>{escaped(material.whole)}</pre></details>"
        )
    return f"<p class=faint>What differs from the defaults.</p><pre>{escaped(material.recipe)}</pre>{whole}"


def _made_by(run: RunRecord) -> list[tuple[str, object]]:
    found = made_by_rows({**run.about, "versions": run.versions})
    if run.metrics is not None:
        found.append(("processes", run.metrics.get("processes", 1)))
    return found
