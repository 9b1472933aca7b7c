"""How cost grows with each size: batch, image, captions an image, sampled pixels, text, sequences.

    python benchmarks/bench_scaling.py --threads 2
    python benchmarks/bench_scaling.py --device cuda --series "step against captions"

A series varies one size and keeps the others; at each value the reference and ours are compared, then timed
in turns. The slopes of time and of counted work are printed below.

On a CPU the training step is the preset `tiny`'s, with images of its own size: what is trained on such
machines. A step of `r50` takes half a second an image there, and sees an image in squares of 64 pixels, so
that no image small enough has places for K to vary. The reading of pairs, without gradients, is the whole
`r50`'s. On a GPU both are, at the paper's sizes. Where there is little to compute, time is what calling
every operator takes, and does not grow with the work.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import contest
import rows_table
from rows import REFERENCE, Contest, Row
from scaling_series import Series, all_series


def contests(
    device: str,
    *,
    series: tuple[str, ...] = (),
    values: int | None = None,
    rounds: int = 15,
    seconds: float = 1.0,
    limit: float = 600.0,
) -> tuple[list[Row], list[str]]:
    """A row of each contestant at each size of each series; and which series there was no time for.

    Args:
        series: names or parts of names; only series that have one of them, all by default.
        values: how many of a series' sizes, the smallest first; all by default.
        rounds, seconds: of each size, as for `contest.take_turns` (at least five rounds).
        limit: no further series is begun after so many seconds.

    Raises:
        AssertionError: results differ by more than they may; nothing was timed of that size.
    """
    rows: list[Row] = []
    not_measured = []
    began = time.monotonic()
    offered = all_series(device)
    names = {each.name for each in offered}
    for each in offered:
        # A whole name is that series alone, though it be a part of another's.
        fits = [part == each.name if part in names else part in each.name for part in series]
        if series and not any(fits):
            continue
        if time.monotonic() - began > limit:
            not_measured.append(f"{each.name}: {limit:g} seconds were over")
            continue
        for value in each.values[:values]:
            rows += _of_a_size(each, value, device, rounds, seconds)
    return rows, not_measured


def _of_a_size(series: Series, value: int, device: str, rounds: int, seconds: float) -> list[Row]:
    point = series.point(value)
    point.verify()
    timings = contest.take_turns(point.runs, device, rounds=rounds, seconds=seconds)
    found = Contest(
        "scaling",
        series.name,
        series.dtype,
        point.work(),
        items=point.items,
        item=series.item,
        checked=series.checked,
        at={series.size: point.size},
        roles={series.reference: REFERENCE},
    ).rows(timings)
    del point
    gc.collect()  # a model's modules refer to each other
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--series", action="append", default=[], help="only those with this in their name")
    parser.add_argument("--values", type=int, help="how many sizes of each, the smallest first")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="a size, at most (but five rounds)")
    parser.add_argument("--limit", type=float, default=600.0, help="no further series after so many seconds")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows, not_measured = contests(
        options.device,
        series=tuple(options.series),
        values=options.values,
        rounds=options.rounds,
        seconds=options.seconds,
        limit=options.limit,
    )
    print(contest.described(contest.machine(options.device)), end="\n\n")
    rows_table.show(rows, not_measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
