"""The rows of a report as tables: one for each case, and one for the parts of a step."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stored
import written
from stored import Row

FLOOR, PART = "floor", "part"


def of_stage(rows: list[Row]) -> list[str]:
    """A heading and a table for each case, its parts below it."""
    lines: list[str] = []
    for case, each in stored.cases_of(rows).items():
        whole = [row for row in each if row["role"] != PART]
        pieces = [row for row in each if row["role"] == PART]
        lines += ["", f"**{case}**"]
        if whole:
            lines += ["", *contestants(whole)]
        if pieces:
            lines += ["", "Its parts, each run by itself:", "", *parts(pieces, whole)]
    return lines[1:]


def contestants(rows: list[Row]) -> list[str]:
    """The table of one case."""
    items = {row.get("item") for row in rows if row.get("item")}
    heads = [
        "",
        "median ms",
        "quartiles",
        "p99",
        "times as fast as the reference (quartiles)",
        f"{items.pop()}/s" if len(items) == 1 else "items/s",
        "peak MB",
        "of a copy's bytes/s",
        "of a product's FLOP/s",
        "checked",
    ]
    return written.table(heads, [_line(row) for row in rows])


def _line(row: Row) -> list[str]:
    time = row["milliseconds"]
    low, high, p99 = (time.get(name) for name in ("low", "high", "p99"))
    spread = low is not None and high is not None
    # The work of a case is no floor's own: a copy has none of its FLOPs.
    shares = ("", "") if row["role"] == FLOOR else (row.get("of_copy"), row.get("of_matrix"))
    return [
        row["contestant"],
        written.milliseconds(time["median"]),
        f"{written.milliseconds(low)} to {written.milliseconds(high)}" if spread else "",
        "" if p99 is None else written.milliseconds(p99),
        written.ratio_with_quartiles(row),
        written.rate(row.get("per_second")),
        written.megabytes(row.get("peak_bytes")),
        *map(written.share, shares),
        row.get("checked") or "",
    ]


def by_whole(pieces: list[Row]) -> dict[str, dict[str, float]]:
    """Median milliseconds of the parts by whose step they are of and by their names."""
    found: dict[str, dict[str, float]] = {}
    for row in pieces:
        found.setdefault(row.get("whole") or "", {})[row["contestant"]] = row["milliseconds"]["median"]
    return found


def parts(pieces: list[Row], whole: list[Row]) -> list[str]:
    """Parts down, contestants across; the first contestant's time by each other's."""
    owners = by_whole(pieces)
    first, *others = owners
    names = list(dict.fromkeys(row["contestant"] for row in pieces))
    steps = {row["contestant"]: row["milliseconds"]["median"] for row in whole}
    heads = ["", f"{first}, ms"]
    for owner in others:
        heads += [f"{owner}, ms", f"{owner}: times as fast"]
    lines = [_part_line(name, [owners[owner].get(name) for owner in owners]) for name in names]
    sums = [sum(each.values()) if len(each) == len(names) else None for each in owners.values()]
    lines.append(_part_line("their sum", sums))
    if any(owner in steps for owner in owners):
        lines.append(_part_line("the whole, measured as one", [steps.get(owner) for owner in owners]))
    return written.table(heads, lines)


def _part_line(name: str, medians: list[float | None]) -> list[str]:
    first, *others = medians
    line = [name, "" if first is None else written.milliseconds(first)]
    for own in others:
        line.append("" if own is None else written.milliseconds(own))
        line.append("" if own is None or first is None else written.ratio(first / own))
    return line
