"""How cost grows with a size: the slope of its logarithm by the size's, fitted by least squares.

1 is growth in proportion, 0 none. Where the slope of the time is above that of the work, time grows faster
than what has to be done.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def slopes(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of every series and contestant among the rows of a report, in their order.

    Args:
        rows: dicts with ``case``, ``contestant``, ``at``, ``milliseconds`` (``median``), ``flops`` and
            ``bytes``; those without ``at`` are passed over.

    Returns:
        dicts with ``series`` (the case), ``contestant``, ``size`` (the name in ``at``), ``time_slope``,
        ``work_slope`` (None where no work is counted) and ``work``: "flops" where those are counted, else
        "bytes", else None. A series of a single size has no slope and is left out.
    """
    series: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        for size in row.get("at") or {}:
            series.setdefault((row["case"], row["contestant"], size), []).append(row)
    found = []
    for (case, contestant, size), points in series.items():
        sizes = [point["at"][size] for point in points]
        if len(set(sizes)) < 2:
            continue
        work = next((name for name in ("flops", "bytes") if all(point.get(name) for point in points)), None)
        found.append(
            {
                "series": case,
                "contestant": contestant,
                "size": size,
                "time_slope": slope(sizes, [point["milliseconds"]["median"] for point in points]),
                "work_slope": None if work is None else slope(sizes, [point[work] for point in points]),
                "work": work,
            }
        )
    return found


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The least-squares slope of log cost by log size; sizes and costs are above 0."""
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    middle, level = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - middle) ** 2 for a in x)
    return sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True)) / spread


def table(found: Iterable[Mapping[str, Any]]) -> str:
    """Slopes as Markdown."""
    lines = ["| series | against | | slope of the time | of the work |", "|---|---|---|---|---|"]
    for line in found:
        work = "" if line["work_slope"] is None else f"{line['work_slope']:.2f} ({line['work']})"
        name = f"{line['series']} | {line['size']} | {line['contestant']}"
        lines.append(f"| {name} | {line['time_slope']:.2f} | {work} |")
    return "\n".join(lines)
