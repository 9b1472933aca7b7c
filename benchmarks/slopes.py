"""How cost grows with a size, of every series of a report: the slopes of its page, as data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import scaling_tables


def slopes(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every series and contestant among the rows of a report, in their order.

    Args:
        rows: dicts with ``case``, ``contestant``, ``at``, ``milliseconds`` (``median``), ``flops`` and
            ``bytes``; those without ``at`` are passed over.

    Returns:
        dicts with ``series`` (the case), ``contestant``, ``size`` (the name in ``at``), ``time_slope``,
        ``work_slope`` and ``work``: see `scaling_tables.Growth`. 1 is growth in proportion, 0 none. A series
        of a single size has no slope and is left out.
    """
    return [
        {
            "series": case,
            "contestant": growth.contestant,
            "size": size,
            "time_slope": growth.time,
            "work_slope": growth.work,
            "work": growth.of or None,
        }
        for (case, size), series in scaling_tables.series_of(list(rows)).items()
        for growth in scaling_tables.growths(series)
    ]
