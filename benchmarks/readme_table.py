"""The README's table of performance, from stored reports.

python benchmarks/readme_table.py              prints it, of the newest report of a CPU and of a GPU
python benchmarks/readme_table.py --write      puts it between the markers of the README
python benchmarks/readme_table.py REPORT...    of these
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import headlines
import results_page
import stored
import written
from stored import ROOT, Report, UserError

README = ROOT / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
HEADS = [
    "what",
    "shapes and dtype",
    "compared with",
    "ours",
    "times as fast (quartiles)",
    "the others: times as fast",
]
WIDTH = 118


def block(reports: Sequence[tuple[Path, Report]]) -> str:
    """What stands between the markers, they included: a table for each report, and what was not measured.

    Args:
        reports: each with its file.
    """
    lines = [
        BEGIN,
        *_wrapped("Written by `python benchmarks/readme_table.py --write` from the stored reports."),
    ]
    missing: list[str] = []
    kinds = [stored.kind(report) for _, report in reports]
    for path, report in reports:
        table, without = _table(report)
        lines += ["", *_wrapped(_above(path, report)), "", *table]
        missing += _missing(report, without, _where(report, kinds))
    if "gpu" not in kinds:
        missing.append("Anything on a GPU: no report of one is stored; `make gpu-report` makes one.")
    if missing:
        lines += ["", "Not measured:", ""]
        lines += [line for sentence in dict.fromkeys(missing) for line in _wrapped(sentence, bullet=True)]
    return "\n".join([*lines, END])


def _wrapped(text: str, *, bullet: bool = False) -> list[str]:
    first, later = ("- ", "  ") if bullet else ("", "")
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _above(path: Path, report: Report) -> str:
    """What all lines of a table share."""
    inside = path.resolve().is_relative_to(ROOT)
    where = path.resolve().relative_to(ROOT).as_posix() if inside else path.name
    page = where.removesuffix(".json") + ".md"
    revision = f", revision `{report['revision']}`" if report.get("revision") else ""
    return (
        f"**{report['machine']['device']}**: {stored.versions(report)}; `{report['command']}`, "
        f"{report['date']}{revision}. Median times of contestants that took turns, after their results "
        "were compared; in brackets the quartiles of the ratio within rounds. "
        f"All of it, with plots: [{page}]({page})."
    )


def _table(report: Report) -> tuple[list[str], list[str]]:
    """The table, and the headlines that the report has no rows for."""
    made, without = [], []
    for headline in headlines.HEADLINES:
        cases = headlines.found(report, headline)
        for rows in cases:
            made += headlines.lines(headline, rows)
        if not cases:
            without.append(headline.title)
    return (written.table(HEADS, made) if made else ["No case of it was measured."]), without


def _where(report: Report, kinds: list[str]) -> str:
    """What tells a report from the others."""
    kind = stored.kind(report)
    if len(kinds) == 1:
        return ""
    return f"{kind.upper() if kinds.count(kind) == 1 else report['machine']['device']}, "


def _missing(report: Report, without: list[str], where: str) -> list[str]:
    listed = [f"{where}{'; '.join(without)}."] if without else []
    return listed + [where + sentence for sentence in results_page.not_measured(report)]


def newest() -> list[Path]:
    """The newest stored reports, a CPU's first.

    Raises:
        UserError: none is stored.
    """
    paths = [path for path in (stored.newest("cpu"), stored.newest("gpu")) if path is not None]
    if not paths:
        raise UserError(f"{stored.RESULTS} holds no report: `make bench` makes one")
    return paths


def of_files(paths: Sequence[Path]) -> str:
    """The block of reports in files."""
    return block([(path, stored.read(path)) for path in paths])


def within(text: str) -> str:
    """What stands between the markers of a text, they included.

    Raises:
        UserError: a marker is missing, stands there twice, or they are in the wrong order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(
            f"README.md needs one line {BEGIN} and below it one line {END}, where the table is to stand"
        )
    return text[text.index(BEGIN) : text.index(END) + len(END)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", type=Path, nargs="*", metavar="REPORT", help="stored .json files")
    parser.add_argument("--write", action="store_true", help="into README.md")
    options = parser.parse_args(arguments)
    try:
        table = of_files(options.reports or newest())
        if not options.write:
            print(table)
            return 0
        text = README.read_text(encoding="utf-8")
        README.write_text(text.replace(within(text), table), encoding="utf-8")
    except UserError as error:
        print(f"readme_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
