"""Stored reports of benchmarks: reading one, with a sentence for what is wrong, and finding the newest."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pixelbert_fast.errors import UserError  # noqa: E402 - needs the path above

RESULTS = ROOT / "benchmarks" / "results"
NEEDED = ("machine", "name", "date", "command", "stages")
OF_A_ROW = ("case", "contestant", "role", "milliseconds")

Report = dict[str, Any]
Row = dict[str, Any]


def read(path: Path) -> Report:
    """The report in a file.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; benchmarks/results holds those that are stored") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    try:
        report = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is no JSON (line {error.lineno}: {error.msg}); name the .json of a report"
        ) from None
    wrong = what_is_wrong(report)
    if wrong:
        raise UserError(f"{path} is no report of `make bench` or `make gpu-report`: {wrong}")
    return report


def what_is_wrong(report: object) -> str | None:
    """Why something is no report, or None where it is one."""
    if not isinstance(report, dict):
        return "it is no object with names"
    missing = [name for name in NEEDED if name not in report]
    if missing:
        return f"it has no {missing[0]!r}"
    if not isinstance(report["machine"], dict) or "device" not in report["machine"]:
        return "its machine has no device"
    if not isinstance(report["stages"], dict):
        return "its stages are no object with names"
    for name, stage in report["stages"].items():
        rows = stage.get("rows", []) if isinstance(stage, dict) else None
        if not isinstance(rows, list):
            return f"its stage {name!r} is no stage"
        for row in rows:
            lacking = [field for field in OF_A_ROW if not isinstance(row, dict) or field not in row]
            if lacking:
                return f"a row of its stage {name!r} has no {lacking[0]!r}"
            if not isinstance(row["milliseconds"], dict) or "median" not in row["milliseconds"]:
                return f"a row of its stage {name!r} has no median"
    return None


def kind(report: Report) -> str:
    """ "gpu" or "cpu"; which one it was measured on."""
    return "gpu" if "cuda" in report["machine"] else "cpu"


def partial(report: Report) -> bool:
    """Whether none should quote it: made small (`--quick`, a GPU's on a CPU), or of some stages alone."""
    command = report["command"]
    small = "--quick" in command or (kind(report) == "cpu" and "gpu" in command)
    return small or "--only" in command or "--skip" in command


def newest(which: str, folder: Path = RESULTS) -> Path | None:
    """The newest report of a kind in a folder, by its date; other files are passed over."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            report = read(path)
        except UserError:
            continue
        if kind(report) == which and not partial(report):
            found.append((report["date"], path.name, path))
    return max(found)[2] if found else None


def rows_of(report: Report, stage: str) -> list[Row]:
    """The rows of a stage; none where it was not run."""
    return report["stages"].get(stage, {}).get("rows", [])


def cases_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by case, in the order of the report."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["case"], []).append(row)
    return found


def versions(report: Report) -> str:
    """Threads and versions in one line."""
    return ", ".join(f"{name} {value}" for name, value in report["machine"].items() if name != "device")
