"""The one record of every figure: who computed what, how long it took, and how that was checked.

A contest is timed by `contest.take_turns`, and `Contest.rows` makes a row of each contestant: its times, its
ratio to the reference of the same run, and its shares of what the machine itself can do.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

from ceilings import Ceilings
from contest import Timing

# Of what a contestant is in its case.
REFERENCE, OURS, PEER, FLOOR, PART = "reference", "ours", "peer", "floor", "part"
# Consecutive parts of a run, whose ratios tell how much the machine itself wavers.
BLOCKS = 4


class Work(NamedTuple):
    """The fewest bytes that some work can move, and the operations it needs; None: not counted."""

    bytes: int | None = None
    flops: int | None = None


UNCOUNTED = Work()


@dataclass(frozen=True)
class Row:
    """One contestant of one case.

    Attributes:
        stage: the part of the suite.
        case: everything that the time depends on but who computes it: shapes, dtype, pass.
        role: REFERENCE, whom the others of the case are compared with; OURS; PEER; FLOOR, what the machine
            takes for the least work; PART, a share of the contestant `whole`.
        work: counted from the shapes; the same for all rivals of a case.
        items, item: how many of what a run goes through, for a rate.
        peak_bytes: held at the peak beyond what was held before.
        checked: how the result was found right before it was timed; None for floors, parts and the reference.
        at: in a series, the size that varies and its value; `case` then names the series without it.
        times_faster: the reference's median by this one's.
        ratio_quartiles: of the same, within each round.
        block_ratios: of the same, in consecutive parts of the run.
    """

    stage: str
    case: str
    contestant: str
    role: str
    dtype: str
    timing: Timing
    work: Work = UNCOUNTED
    items: float | None = None
    item: str | None = None
    peak_bytes: int | None = None
    checked: str | None = None
    whole: str | None = None
    at: dict[str, float] | None = None
    times_faster: float | None = None
    ratio_quartiles: tuple[float, float] | None = None
    block_ratios: tuple[float, ...] | None = None

    def as_dict(self, ceilings: Ceilings | None = None) -> dict[str, Any]:
        """The row of a report; with `ceilings`, with its shares of them."""
        seconds = self.timing.median / 1e3
        found = {
            "stage": self.stage,
            "case": self.case,
            "contestant": self.contestant,
            "role": self.role,
            "dtype": self.dtype,
            "milliseconds": self.timing.as_dict(),
            "times_faster": _rounded(self.times_faster),
            "ratio_quartiles": _rounded(self.ratio_quartiles),
            "block_ratios": _rounded(self.block_ratios),
            "items": self.items,
            "item": self.item,
            "per_second": None if self.items is None else _rounded(self.items / seconds),
            "peak_bytes": self.peak_bytes,
            "bytes": self.work.bytes,
            "flops": self.work.flops,
            "of_copy": None,
            "of_matrix": None,
            "checked": self.checked,
            "whole": self.whole,
            "at": self.at,
        }
        return found if ceilings is None else with_shares(found, ceilings)


@dataclass(frozen=True)
class Contest:
    """What the rows of one case have in common; see :class:`Row`."""

    stage: str
    case: str
    dtype: str
    work: Work = UNCOUNTED
    items: float | None = None
    item: str | None = None
    checked: str | None = None
    at: dict[str, float] | None = None
    # By contestant, where it is not OURS: another role, or how that one was checked.
    roles: Mapping[str, str] = field(default_factory=dict)
    whole: str | None = None

    def rows(
        self,
        timings: Mapping[str, Timing],
        *,
        memory: Mapping[str, int | None] | None = None,
        items: Mapping[str, float] | None = None,
    ) -> list[Row]:
        """A row for each of `timings`, of one run that took turns.

        Args:
            memory: bytes at the peak by contestant.
            items: by contestant, where they are not as many for all.
        """
        reference = next((who for who in timings if self.roles.get(who) == REFERENCE), None)
        made = []
        for who, timing in timings.items():
            role = self.roles.get(who, OURS)
            rival = role in (REFERENCE, OURS, PEER)
            each = (items or {}).get(who, self.items)
            row = Row(
                self.stage,
                self.case,
                who,
                role,
                self.dtype,
                timing,
                self.work if rival else UNCOUNTED,
                each if rival else None,
                self.item if rival else None,
                (memory or {}).get(who),
                self.checked if rival and role != REFERENCE else None,
                self.whole,
                self.at,
            )
            if rival and reference is not None:
                share = each / (items or {}).get(reference, self.items) if each else 1.0
                row = _compared(row, timings[reference], share)
            made.append(row)
        return made


def with_shares(row: dict[str, Any], ceilings: Ceilings) -> dict[str, Any]:
    """The row of a report with its shares of the machine's ceilings; a part's work is not counted."""
    seconds = row["milliseconds"]["median"] / 1e3
    return row | {
        "of_copy": _rounded(ceilings.share_of_copy(row["bytes"], seconds)),
        "of_matrix": _rounded(ceilings.share_of_matrix(row["flops"], seconds, row["dtype"])),
    }


def with_checks(rows: Iterable[Row], found: Mapping[str, str]) -> list[Row]:
    """`rows` with how each of `found` was found right, where they were not all found so alike."""
    return [replace(row, checked=found.get(row.contestant, row.checked)) for row in rows]


def _compared(row: Row, reference: Timing, share: float) -> Row:
    """`row` with its ratios; `share`: how much of the reference's work a run of it does."""
    own = row.timing
    ratios = [share * theirs / mine for theirs, mine in zip(reference.samples, own.samples, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive")
    blocks = None
    if len(ratios) >= 2 * BLOCKS:
        ends = [len(ratios) * number // BLOCKS for number in range(BLOCKS + 1)]
        blocks = tuple(
            share
            * statistics.median(reference.samples[first:last])
            / statistics.median(own.samples[first:last])
            for first, last in pairwise(ends)
        )
    return replace(
        row,
        times_faster=share * reference.median / own.median,
        ratio_quartiles=(quartiles[0], quartiles[2]),
        block_ratios=blocks,
    )


def _rounded(value: Any) -> Any:
    """Four digits of each number: more than any of them is good for."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return [_rounded(each) for each in value]
    return float(f"{value:.4g}")
