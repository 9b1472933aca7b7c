"""Compares two reports of benchmarks, and ends with 1 where something became slower than noise explains.

    python benchmarks/compare_results.py A.json B.json
    python benchmarks/compare_results.py A.json B.json --more-of-a A2.json A3.json

A is before, B after. Judged are the rows of this project's own contestants, by how many times as fast as
the reference of the same run they are: a reference that became faster looks like one of ours that became
slower. `--absolute` judges milliseconds, of one machine only. How noise is estimated says
benchmarks/judging.py. A row of ours that B lacks, or a stage that failed in B only, counts as a regression.
Exit status: 0 nothing regressed, 1 something did, 2 the reports cannot be compared.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import judging
import stored
import written
from judging import Key, Measure, Verdict
from stored import Report, UserError


def like(one: Report, other: Report) -> bool:
    """Whether both were measured on such machines that times can be compared."""
    return all(one["machine"].get(name) == other["machine"].get(name) for name in ("device", "threads"))


def failed_since(before: Report, after: Report) -> list[str]:
    """Stages that failed in `after` and not in `before`, with their sentences."""
    return [
        f"{name}: {'; '.join(' '.join(str(each).split())[:200] for each in stage['failed'])}"
        for name, stage in after["stages"].items()
        if stage.get("failed") and not before["stages"].get(name, {}).get("failed")
    ]


def not_run(before: Report, after: Report) -> list[str]:
    """Stages without rows of `before` that `after` does not have at all."""
    return [
        name
        for name, stage in before["stages"].items()
        if name not in after["stages"] and not stage.get("rows")
    ]


def vanished(before: Report, after: Report, measure: Measure) -> list[Key]:
    """Rows of ours whose figure `after` lacks."""
    first, second = judging.ours(before), judging.ours(after)
    return [
        key
        for key, row in first.items()
        if measure.value(row) is not None and (key not in second or measure.value(second[key]) is None)
    ]


def unjudged(before: Report, after: Report, measure: Measure) -> int:
    """How many rows of ours are in both and have a figure in neither."""
    first, second = judging.ours(before), judging.ours(after)
    return sum(
        key in second and measure.value(row) is None and measure.value(second[key]) is None
        for key, row in first.items()
    )


def named(key: Key) -> str:
    """A row in words."""
    stage, case, contestant, at = key
    place = "".join(f", {name} {value:g}" for name, value in at)
    said = case if case.startswith(stage) else f"{stage}: {case}"
    return f"{said}{place}: {contestant}"


def told(verdicts: list[Verdict], *, absolute: bool) -> list[str]:
    """The rows that changed, the worst first."""
    changed = sorted((one for one in verdicts if one.word != "unchanged"), key=lambda one: one.change)
    if not changed:
        return []
    shown = written.milliseconds if absolute else written.ratio
    unit = "ms" if absolute else "times as fast"
    lines = [
        [
            one.word,
            named(one.key),
            shown(one.before),
            shown(one.after),
            _percent(one.change),
            f"±{_percent(one.noise)[1:]}",
        ]
        for one in changed
    ]
    return ["", *written.table(["", "row", f"A, {unit}", f"B, {unit}", "speed", "noise"], lines)]


def _percent(log: float) -> str:
    return f"{100 * math.expm1(log):+.1f} %"


def compare(
    before: Report, after: Report, more: Sequence[Report], *, absolute: bool, least: float
) -> tuple[str, bool]:
    """The table, and whether anything regressed.

    Raises:
        UserError: the reports have no row of ours in common, or are of unlike machines where that matters.
    """
    for other in more:
        if not like(before, other):
            raise UserError(
                "a report of --more-of-a is of another machine than A: their spread would not be noise"
            )
    if absolute and not like(before, after):
        machines = " and ".join(_machine(report) for report in (before, after))
        raise UserError(f"milliseconds of unlike machines tell nothing ({machines}): leave --absolute out")
    measure = judging.TIME if absolute else judging.RATIO
    verdicts = judging.judge(before, after, more, measure, least)
    if not verdicts:
        raise UserError("A and B have no row of ours in common that could be compared: see their stages")
    gone = vanished(before, after, measure)
    new = vanished(after, before, measure)
    failed, missing = failed_since(before, after), not_run(before, after)
    count = {
        word: sum(one.word == word for one in verdicts) for word in ("unchanged", "improved", "regressed")
    }
    lines = [f"A: {_title(before)}", f"B: {_title(after)}"]
    if not like(before, after):
        lines.append("These are unlike machines: a ratio may differ for that alone.")
    lines.append("")
    lines.append(
        f"{count['unchanged']} unchanged, {count['improved']} improved, {count['regressed']} regressed, "
        f"{len(gone)} only in A, {len(new)} only in B"
    )
    blank = unjudged(before, after, measure)
    if blank:
        lines.append(f"{blank} without a ratio in either, not judged: their cases have no reference")
    if not more and not any(measure.variance(row) for row in judging.ours(before).values()):
        lines.append(f"No row says how much it wavers: every change above {100 * least:g} % counts")
    lines += told(verdicts, absolute=absolute)
    for title, each in (
        ("Only in A, a regression", [named(key) for key in gone]),
        ("Failed in B and not in A, a regression", failed),
        ("Only in B", [named(key) for key in new]),
        ("Stages of A that B did not run", missing),
    ):
        lines += ["", f"{title}:", *(f"- {line}" for line in each)] if each else []
    return "\n".join(lines), bool(count["regressed"] or gone or failed)


def _machine(report: Report) -> str:
    device, threads = str(report["machine"]["device"]), report["machine"].get("threads")
    return device if "threads" in device or threads is None else f"{device}, {threads} threads"


def _title(report: Report) -> str:
    return f"{_machine(report)}, {report['date']}, revision {report.get('revision')}"


def part(text: str) -> float:
    """A part such as 0.05."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no part: 0.05 means 5 %")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", type=Path, metavar="A", help="the report of before")
    parser.add_argument("b", type=Path, metavar="B", help="the report of after")
    parser.add_argument(
        "--more-of-a",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="further runs of A's state, on its machine: how much whole runs differ",
    )
    parser.add_argument("--absolute", action="store_true", help="judge milliseconds")
    parser.add_argument(
        "--least", type=part, default=judging.LEAST, help="a smaller change never counts (0.05)"
    )
    options = parser.parse_args(arguments)
    try:
        for path in options.more_of_a:
            if path.resolve() in (options.a.resolve(), options.b.resolve()):
                raise UserError(f"{path} is A or B itself: --more-of-a takes further runs of A's state")
        before, after, *more = (stored.read(path) for path in (options.a, options.b, *options.more_of_a))
        text, regressed = compare(before, after, more, absolute=options.absolute, least=options.least)
    except UserError as error:
        print(f"compare_results: {error}", file=sys.stderr)
        return 2
    print(text)
    return 1 if regressed else 0


if __name__ == "__main__":
    sys.exit(main())
