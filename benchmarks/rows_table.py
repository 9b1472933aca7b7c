"""The rows of one script as Markdown tables, for its own command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any

from ceilings import Ceilings
from rows import FLOOR, Row

NAME = ""
Cells = Mapping[str, Callable[[dict[str, Any]], str]]


def show(
    rows: Iterable[Row],
    not_measured: Iterable[str] = (),
    *,
    ceilings: Ceilings | None = None,
    more: Cells | None = None,
) -> None:
    """Print a table for each case, and what was not measured.

    Args:
        ceilings: for the shares of them.
        more: further columns: a title, and what stands there for a row.
    """
    print(tables([row.as_dict(ceilings) for row in rows], more))
    for sentence in not_measured:
        print(f"\nNot measured: {sentence}")


def tables(rows: Iterable[dict[str, Any]], more: Cells | None = None) -> str:
    """The rows of a report as Markdown: a table for each case, without the columns that would be empty."""
    found = []
    for case, group in groupby(rows, lambda row: row["case"]):
        lines = [_cells(row) | {title: cell(row) for title, cell in (more or {}).items()} for row in group]
        titles = [title for title in dict.fromkeys(title for line in lines for title in line)
                  if title == NAME or any(line.get(title) for line in lines)]  # fmt: skip
        table = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        table += [f"| {' | '.join(line.get(title, '') for title in titles)} |" for line in lines]
        found.append("\n".join([f"{case[0].upper()}{case[1:]}", "", *table]))
    return "\n\n".join(found)


def _name(row: dict[str, Any]) -> str:
    sizes = ", ".join(f"{name} = {value:g}" for name, value in (row["at"] or {}).items())
    return f"{row['contestant']}, {sizes}" if sizes else row["contestant"]


def _cells(row: dict[str, Any]) -> dict[str, str]:
    time = row["milliseconds"]
    faster, quartiles = row["times_faster"], row["ratio_quartiles"]
    rate = row["per_second"]
    return {
        NAME: _name(row),
        "median ms": f"{time['median']:.4g}",
        "quartiles": f"{time['low']:.4g} to {time['high']:.4g}",
        "times as fast": "" if faster is None else f"{faster:.2f} ({quartiles[0]:.2f} to {quartiles[1]:.2f})",
        **({} if rate is None else {f"{row['item'] or 'items'}/s": f"{rate:.3g}"}),
        "peak MB": "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
        "of a copy": _share(row["of_copy"]),
        "of a product": "" if row["role"] == FLOOR else _share(row["of_matrix"]),
        "runs": str(time["runs"]),
        "checked": row["checked"] or "",
    }


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"
