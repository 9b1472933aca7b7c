"""Write docs/results/coverage.md: what `make coverage` found that the tests run, by folder and file.

    python -m coverage json -o coverage.json && python .ci/coverage_page.py coverage.json

No threshold is set on it: it shows where to look, and a line that a test runs is not a line that it checks.
"""

from __future__ import annotations

import datetime
import json
import platform
import sys
import textwrap
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "coverage.md"
COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")
LEAST = 15
"""How many of the least covered files are named."""


def main(report: str) -> int:
    found = json.loads(Path(report).read_text(encoding="utf-8"))
    PAGE.write_text(page(found["files"]), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


def page(files: dict[str, dict]) -> str:
    """The page of coverage.py's JSON: `files` by path, each with its `summary`."""
    folders: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTS, 0))
    for path, one in files.items():
        for name in COUNTS:
            folders[folder(path)][name] += one["summary"][name]
            folders["all"][name] += one["summary"][name]
    everything = folders.pop("all")
    missing = sorted(files.items(), key=lambda item: (-unseen(item[1]["summary"]), item[0]))
    return "\n".join(
        [
            "# What of the package the tests run",
            "",
            textwrap.fill(about(), width=120),
            "",
            *table([("everything", everything), *sorted(folders.items())]),
            "",
            "## Where most lines are not run",
            "",
            *table([(path, one["summary"]) for path, one in missing[:LEAST] if unseen(one["summary"])]),
            "",
        ]
    )


def about() -> str:
    return (
        "`make coverage`: the quick tests of `make test`, the processes that they start too, by coverage.py"
        f" {version('coverage')}; Python {platform.python_version()}, torch {version('torch')},"
        f" {datetime.date.today()}. No threshold is set on it: it shows where to look, and a line that a test"
        " runs is not a line that it checks. Triton kernels count where the interpreter runs them; C++ and"
        " CUDA are not counted, nor what slow tests alone run."
    )


def folder(path: str) -> str:
    """`pixelbert_fast/model` of `pixelbert_fast/model/x.py`, and of what lies deeper."""
    parts = Path(path).parts
    return "/".join(parts[: min(2, len(parts) - 1)])


def unseen(counts: dict[str, int]) -> int:
    return counts["num_statements"] - counts["covered_lines"]


def table(rows: list[tuple[str, dict[str, int]]]) -> list[str]:
    lines = ["| where | lines | run | branches | taken |", "|---|---|---|---|---|"]
    for name, counts in rows:
        lines.append(
            f"| {name} | {counts['num_statements']:,} | {share(counts, 'covered_lines', 'num_statements')} "
            f"| {counts['num_branches']:,} | {share(counts, 'covered_branches', 'num_branches')} |"
        )
    return lines


def share(counts: dict[str, int], part: str, whole: str) -> str:
    return f"{100 * counts[part] / counts[whole]:.1f} %" if counts[whole] else "-"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
