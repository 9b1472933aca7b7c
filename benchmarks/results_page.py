"""The page of a report for people, and the plots beside it.

python benchmarks/results_page.py benchmarks/results/NAME-DATE.json     writes the page and plots beside it
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import case_tables
import gpu_tables
import plots as drawn
import scaling_tables
import stored
import written
from stored import Report, UserError

TITLES = {
    "ceilings": "What the machine can do",
    "build": "The build",
    "selftest": "Every backend against the reference",
    "tests": "The tests that need a GPU",
    "ops": "The ops",
    "step": "A step of pre-training",
    "latency": "Latency of one pair",
    "retrieval": "Scoring pairs for retrieval",
    "decoding": "Decoding images",
    "optimizer": "The optimiser's update",
    "engine": "What DeepSpeed costs",
    "scaling": "How cost grows",
    "search": "The search for Triton configurations",
}
READING = """\
Contestants take turns in one run, after their results were compared. Times are medians and quartiles of
all rounds. "Times as fast" is the ratio of the medians, its quartiles those of the ratio within each round.
The bytes and FLOPs behind shares are the fewest that the work needs, counted from its shapes: a share tells
how near a time is to what a copy, or a matrix product of that dtype, reached on this machine in the same run.
Data that stays in a cache can be faster than a copy, and bf16x2, which stands for float32, than its products:
it makes them of bfloat16 ones. Peak MB is memory held beyond what was held before.
Contestants without a ratio are floors: what the machine takes for the least work alone."""
MOST_FAILURE = 600


def page(report: Report, plots: dict[str, str]) -> str:
    """A whole report as Markdown.

    Args:
        report: as stored; stages that are missing, failed or empty are said to be.
        plots: file names of `plots.draw`'s pictures, by the same names; empty: none is shown.
    """
    lines = [f"# Benchmarks on {report['machine']['device']}", "", *_head(report), "", *_stages(report)]
    lines += _listed("What failed", _failures(report))
    lines += _listed("Not measured", not_measured(report))
    if gpu_tables.goals(report):
        lines += ["", "## Goals", "", *gpu_tables.goals(report)]
    shown = [(name, file) for name, file in plots.items() if file]
    if shown:
        lines += ["", "## At a glance"]
        for name, file in shown:
            lines += ["", f"![{drawn.TITLES.get(name, name)}]({file})"]
    for name, stage in report["stages"].items():
        body = _body(name, stage)
        if body:
            title = TITLES.get(name, name[:1].upper() + name[1:])
            lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _head(report: Report) -> list[str]:
    revision = f", revision `{report['revision']}`" if report.get("revision") else ""
    lines = [f"{report['date']}{revision}, by `{report['command']}`: {stored.versions(report)}."]
    ceilings = report.get("ceilings") or {}
    told = []
    if ceilings.get("copy_gigabytes_per_second"):
        told.append(f"a copy reads and writes {ceilings['copy_gigabytes_per_second']:,g} GB/s")
    for dtype, value in (ceilings.get("matrix_gigaflops_per_second") or {}).items():
        told.append(f"products in {dtype} reach {value:,.0f} GFLOP/s")
    if told:
        lines += ["", f"Ceilings, measured in the same run: {'; '.join(told)}."]
    else:
        lines += ["", "Ceilings were not measured, so no row has a share of them."]
    return [*lines, "", READING]


def _stages(report: Report) -> list[str]:
    lines = []
    for name, stage in report["stages"].items():
        seconds = stage.get("seconds")
        lines.append([name, "" if seconds is None else f"{seconds:.0f}", _outcome(stage)])
    if not lines:
        return ["No stage was run."]
    return written.table(["stage", "seconds", "outcome"], lines)


def _outcome(stage: dict) -> str:
    rows = len(stage.get("rows") or [])
    told = [f"{rows} {'row' if rows == 1 else 'rows'}"] if rows else []
    told += [str(stage[name]) for name in ("outcome", "skipped") if stage.get(name)]
    if stage.get("failed"):
        told.append("**failed**, see below")
    if stage.get("not_measured"):
        told.append("not all measured, see below" if rows else "not measured, see below")
    return ", ".join(told) or "done"


def _failures(report: Report) -> list[str]:
    return [
        f"{name}: {written.plain(str(sentence)[:MOST_FAILURE])}"
        for name, stage in report["stages"].items()
        for sentence in stage.get("failed") or []
        if str(sentence).strip()
    ]


def not_measured(report: Report) -> list[str]:
    """What could not be measured on that machine and why: every sentence once, with its stages."""
    found: dict[str, list[str]] = {}
    for name, stage in report["stages"].items():
        skipped = [stage["skipped"]] if stage.get("skipped") else []
        for sentence in [*(stage.get("not_measured") or []), *skipped]:
            found.setdefault(written.plain(sentence), []).append(name)
    return [f"{', '.join(names)}: {sentence}" for sentence, names in found.items()]


def _listed(title: str, sentences: list[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {sentence}" for sentence in sentences)] if sentences else []


def _body(name: str, stage: dict) -> list[str]:
    lines = gpu_tables.STAGES[name](stage) if name in gpu_tables.STAGES else []
    rows = stage.get("rows") or []
    series = [row for row in rows if row.get("at")]
    for found in (
        case_tables.of_stage([row for row in rows if not row.get("at")]),
        scaling_tables.of_stage(series),
        [str(note) for note in stage.get("notes") or []],
    ):
        lines += ["", *found] if lines and found else found
    return lines


def write(report: Report, folder: Path) -> list[Path]:
    """Writes `NAME-DATE.md` and the plots `NAME-DATE-PLOT.svg` into a folder; their paths, the page first."""
    stem = f"{report['name']}-{report['date']}"
    pictures = drawn.draw(report)
    files = {name: f"{stem}-{name}.svg" for name in pictures}
    for name, file in files.items():
        (folder / file).write_text(pictures[name], encoding="utf-8")
    target = folder / f"{stem}.md"
    target.write_text(page(report, files), encoding="utf-8")
    return [target, *(folder / file for file in files.values())]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, metavar="REPORT", help="a .json of benchmarks/results")
    options = parser.parse_args(arguments)
    try:
        report = stored.read(options.report)
    except UserError as error:
        print(f"results_page: {error}", file=sys.stderr)
        return 2
    for path in write(report, options.report.parent):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
