"""The rows of one script in Markdown, for its command line: the tables of a report's page, and its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import case_tables
import scaling_tables
import stored
import written
from ceilings import Ceilings
from rows import Row

Cells = Mapping[str, Callable[[dict[str, Any]], str]]


def show(
    rows: Iterable[Row],
    not_measured: Iterable[str] = (),
    *,
    ceilings: Ceilings | None = None,
    more: Cells | None = None,
) -> None:
    """Print the tables, and what was not measured.

    Args:
        ceilings: for the shares of them.
        more: columns of a second table of each case: a title, and what stands there for a row.
    """
    print(tables([row.as_dict(ceilings) for row in rows], more))
    for sentence in not_measured:
        print(f"\nNot measured: {sentence}")


def tables(rows: list[dict[str, Any]], more: Cells | None = None) -> str:
    """As a report's page has them; below each case a table of `more`."""
    lines: list[str] = []
    single = [row for row in rows if not row["at"]]
    for each in stored.cases_of(single).values():
        lines += ["", *case_tables.of_stage(each)]
        if more:
            cells = [[row["contestant"], *(cell(row) for cell in more.values())] for row in each]
            lines += ["", *written.table(["", *more], cells)]
    series = [row for row in rows if row["at"]]
    return "\n".join([*lines, *([""] if series else []), *scaling_tables.of_stage(series)][1:])
