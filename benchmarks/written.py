"""How a time, a ratio, a share and a table are written in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = ""


def milliseconds(value: float) -> str:
    """Two digits or more, in plain figures: 0.00042, 0.918, 8.37, 93.9, 1,480."""
    if value >= 100:
        return f"{value:,.0f}"
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def ratio(value: float | None) -> str:
    """Times as fast: 0.55, 6.90, 13.0, 1,200."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio_with_quartiles(row: dict) -> str:
    """`3.67 (3.56 to 3.82)`, 1 of the reference itself; nothing for a row that is compared with none."""
    if row["role"] == "reference":
        return "1"
    if row.get("times_faster") is None:
        return NOTHING
    quartiles = row.get("ratio_quartiles")
    around = f" ({ratio(quartiles[0])} to {ratio(quartiles[1])})" if quartiles else ""
    return ratio(row["times_faster"]) + around


def rate(value: float | None, item: str | None = None) -> str:
    """Items a second, three digits: 0.763, 18.7, 1,640."""
    if value is None:
        return NOTHING
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{shown} {item}/s" if item else shown


def megabytes(value: float | None) -> str:
    return NOTHING if value is None else f"{value / 1e6:,.0f}" if value >= 1e7 else f"{value / 1e6:.2g}"


def share(value: float | str | None) -> str:
    """A share as per cent; below half of one it says so."""
    if not value:
        return NOTHING
    return "below 1 %" if value < 0.005 else f"{100 * value:.0f} %"


def plain(text: object) -> str:
    """Any text in one line, in which nothing is taken for a tag."""
    return " ".join(str(text).replace("<", "&lt;").split())


def cell(value: object) -> str:
    """Any text as one cell of a table, with its bars escaped."""
    return plain(value).replace("|", "\\|")


def table(heads: Sequence[str], lines: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a table; columns after the first that are empty throughout are left out."""
    kept = [
        place
        for place in range(len(heads))
        if place == 0 or any(str(line[place]) != NOTHING for line in lines)
    ]
    found = [
        "| " + " | ".join(cell(heads[place]) for place in kept) + " |",
        "|" + "---|" * len(kept),
    ]
    return found + ["| " + " | ".join(cell(line[place]) for place in kept) + " |" for line in lines]
