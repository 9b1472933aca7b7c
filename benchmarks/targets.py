"""All targets in one table: what was asked, what was measured, and why what was missed was.

    python benchmarks/targets.py             prints the page
    python benchmarks/targets.py --write     writes benchmarks/targets.md

Ratios come from the newest stored report of a CPU; the other figures stand in pages under `docs/results/`,
each with the command that gives it, and must be found there word for word.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stored
from target_list import TARGETS, TOPICS, InPage, InReport, OnGpu, Target

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks" / "targets.md"
MET, MISSED, UNKNOWN = "met", "**not met**", "not measured"


class Judged(NamedTuple):
    """A target with what was found: the figure, whether that is enough, and the command that gives it."""

    target: Target
    figure: str
    verdict: str
    command: str


def judged(target: Target, report: dict[str, Any]) -> Judged:
    """Looks a target's figure up.

    Raises:
        ValueError: a page does not say what it should.
    """
    found = target.found
    if isinstance(found, OnGpu):
        return Judged(target, "", UNKNOWN, "`make gpu-report`")
    if isinstance(found, InPage):
        if found.says not in (ROOT / found.page).read_text(encoding="utf-8"):
            raise ValueError(f"{found.page} does not say {found.says!r}: change benchmarks/target_list.py")
        figure = f"[{found.shown or found.says}](../{found.page})"
        return Judged(target, figure, MET if found.met else MISSED, f"`{found.command}`")
    return _from_report(target, found, report)


def _from_report(target: Target, found: InReport, report: dict[str, Any]) -> Judged:
    cases = stored.cases_of(stored.rows_of(report, found.stage))
    rivals = (
        {row["contestant"]: row for row in case if row["times_faster"] is not None}
        for name, case in cases.items()
        if name.startswith(found.case)
    )
    rows = next((each for each in rivals if {found.who, found.than} <= set(each)), {})
    command = f"`{report['command']}`"
    if not rows:
        return Judged(target, "", UNKNOWN, command)
    own, other = (rows[who]["milliseconds"]["median"] for who in (found.who, found.than))
    # By the rows' own ratios where runs differ in how much they do.
    ratio = rows[found.who]["times_faster"] / rows[found.than]["times_faster"]
    figure = f"{ratio:.2f} ({own:.4g} ms for {other:.4g})" if _alike(rows, found) else f"{ratio:.2f}"
    return Judged(target, figure, MET if ratio >= found.at_least else MISSED, command)


def _alike(rows: dict[str, Any], found: InReport) -> bool:
    return rows[found.who]["items"] == rows[found.than]["items"]


def page(report: dict[str, Any]) -> str:
    """The table by topic, and then a line for each that was missed."""
    machine, stages = report["machine"], report["stages"]
    seconds = sum(stage["seconds"] for stage in stages.values())
    everything = [judged(target, report) for target in TARGETS]
    counts = {
        verdict: sum(one.verdict == verdict for one in everything) for verdict in (MET, MISSED, UNKNOWN)
    }
    run = (
        f"`{report['command']}` on {machine['device']}, torch {machine['torch']}, {report['date']},"
        f" revision {report['revision']} ([report](results/{report['name']}-{report['date']}.md))"
    )
    lines = [
        "# What was asked of speed and correctness, and what was reached",
        "",
        "Written by `python benchmarks/targets.py --write`. Ratios are of medians of contestants that took",
        "turns in one run:",
        f"{run}.",
        f"It took {seconds / 60:.1f} minutes; asked were at most 15. The other figures stand in the pages",
        "that they are linked to, with their commands; all on 2 cores of an Intel Xeon. Nothing was measured",
        "on a GPU.",
        "",
        f"{counts[MET]} met, {counts[MISSED]} not met, {counts[UNKNOWN]} not measured.",
    ]
    for topic in TOPICS:
        lines += ["", f"## {topic}", "", "| asked | measured | | command |", "|---|---|---|---|"]
        lines += [
            f"| {one.target.goal} | {one.figure} | {one.verdict} | {one.command} |"
            for one in everything
            if one.target.topic == topic
        ]
    missed = [one for one in everything if one.verdict == MISSED]
    if missed:
        lines += ["", "## Why some were not met", ""]
        reasons: dict[str, list[str]] = {}
        for one in missed:
            reasons.setdefault(one.target.why, []).append(one.target.goal)
        lines += [f"- {'; '.join(goals)}: {why}" for why, goals in reasons.items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", nargs="?", type=Path, help="of a CPU; the newest stored one by default")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    path = options.report or stored.newest("cpu")
    try:
        if path is None:
            raise stored.UserError(f"{stored.RESULTS} holds no report of a CPU: `make bench` makes one")
        found = page(stored.read(path))
    except stored.UserError as error:
        print(f"targets: {error}", file=sys.stderr)
        return 2
    if options.write:
        PAGE.write_text(found, encoding="utf-8")
    else:
        print(found, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
