"""Why the cost of `pool_gather` grows faster than the bytes it must move: causes, taken away or seen alone.

    python benchmarks/growth_causes.py --threads 2 --write

The series of `bench_scaling` whose page flags such a growth, measured twice, each time in a process of its
own: as the C library's allocator comes, and with one that keeps what it was given (`MALLOC_MMAP_THRESHOLD_`
and `MALLOC_TRIM_THRESHOLD_` of glibc, which is what makes memory new). New memory is told by the page
faults of a call. In the same turns: a copy of as many bytes, whose own growth is that of caches, and the
gradient's new zeros. Beside the fewest bytes (a window that several sequences read counts once) stand those
of every sequence by itself. Writes docs/results/scaling.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

import contest  # noqa: E402 - needs the path above
import op_contests  # noqa: E402
import torch  # noqa: E402
import written  # noqa: E402
from op_contests import Case  # noqa: E402
from scaling_tables import slope  # noqa: E402

PAGE = ROOT / "docs" / "results" / "scaling.md"
# The case of `scaling_series`, and what varies of it.
CASE = Case("pool_gather", batch=4)
SERIES = {"batch": ("batch", (2, 4, 8, 16)), "captions": ("per_image", (1, 2, 4, 8))}
# No memory goes back to the system, and none is mapped for one use.
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
ALLOCATORS = {"as it comes": {}, "memory kept": KEPT}
CALLS = 5
HEAD = """\
# Why some costs grow faster than work

The scaling series of the benchmark suite print the slope of log time over log size beside that of the
fewest bytes, and flag where time grows faster. `pool_gather` is flagged against the number of images and
against captions an image. Three causes, each seen by itself below:

- **Memory that is new.** Maps and gradients of some tens of MB are taken from the system and given back at
  every call, so each of their pages is mapped and zeroed anew: the page faults (one of a large page counts
  as one and clears 2 MB). Large batches pay that and small ones do not. With an allocator that keeps its
  memory (the columns "memory kept": glibc's `MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` raised)
  the faults are gone; against the batch, forward and backward, the slope of `cpu` is then nearly that of
  its bytes, and that of the reference falls.
- **Caches.** Small sizes fit the processor's caches, large ones do not: a copy of as many bytes, in the
  same turns, grows faster than its bytes by at least as much as the reference does with memory kept. What
  grows as a copy grows is bound by memory.
- **Windows read more than once.** The fewest bytes count a window once, however many sequences read it;
  against captions they grow more slowly than the number of rows, while a gather reads each row's window for
  itself (mostly from a cache), and its gradient adds each row's for itself. Counted so ("every"), time
  forward grows more slowly than the bytes.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="a size, at most (but five rounds)")
    parser.add_argument("--write", action="store_true", help="the page too")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    torch.set_num_threads(told.threads)
    if told.child:
        json.dump(measured(told.rounds, told.seconds), sys.stdout)
        return 0
    found = {name: asked(told, changes) for name, changes in ALLOCATORS.items()}
    text = "\n".join(tables(found))
    print(text)
    if told.write:
        command = f"python benchmarks/growth_causes.py --threads {told.threads} --write"
        PAGE.write_text(page(text, command), encoding="utf-8")
    return 0


def asked(told: argparse.Namespace, changes: dict[str, str]) -> list[dict[str, Any]]:
    """What a process of its own measures under an allocator."""
    command = [sys.executable, __file__, "--child", "--threads", str(told.threads)]
    command += ["--rounds", str(told.rounds), "--seconds", str(told.seconds)]
    ran = subprocess.run(command, env=os.environ | changes, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(ran.stdout)


def measured(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Of each series, size and contestant: milliseconds, page faults a call, bytes counted in two ways."""
    lines = []
    for size, (field, values) in SERIES.items():
        for backward in (False, True):
            for value in values:
                lines += of_a_size(replace(CASE, **{field: value}), size, value, backward, rounds, seconds)
    return lines


def of_a_size(
    case: Case, size: str, value: int, backward: bool, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    given = op_contests.given(case)
    plain = op_contests.contestants(case, given, compiled=())
    op_contests.verify(case, given, plain)
    around = (lambda run: op_contests.training(run, given)) if backward else torch.no_grad()
    runs = {name: around(run) for name, run in plain.items()}
    work = op_contests.least_work(case, given, backward=backward)
    runs |= op_contests.floors(case, given, work, backward=backward)
    timings = contest.take_turns(runs, "cpu", rounds=rounds, seconds=seconds)
    new, fewest = faults(runs), work.bytes
    every = fewest + read_again(case, given)
    return [
        {
            "series": f"{size}, {'forward + backward' if backward else 'forward'}",
            "size": value,
            "contestant": who,
            "milliseconds": timings[who].median,
            "faults": new[who],
            "fewest": fewest,
            "every": every,
        }
        for who in runs
    ]


def read_again(case: Case, given: op_contests.Given) -> int:
    """Bytes of the windows that a sequence reads after another has read them."""
    first = torch.arange(case.batch).repeat_interleave(case.per_image) * math.prod(case.grid)
    distinct = (first[:, None] + given.positions).unique().numel()
    return (given.positions.numel() - distinct) * 4 * case.channels * given.grad.element_size()


def faults(runs: dict[str, Any]) -> dict[str, float]:
    """Pages that were new to this process, a call; in turns, as they are timed."""
    found = dict.fromkeys(runs, 0.0)
    for _ in range(CALLS):
        for who, run in runs.items():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            run()
            found[who] += (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / CALLS
    return found


def tables(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Of each series a table, and the slopes under it."""
    lines = []
    base, kept = found.values()
    for series in dict.fromkeys(line["series"] for line in base):
        here = [(one, other) for one, other in zip(base, kept, strict=True) if one["series"] == series]
        heads = ["", "ms", "page faults a call", "ms, memory kept", "page faults", "MB, fewest", "MB, every"]
        rows = [
            [
                f"{one['contestant']}, {one['size']}",
                *(x for run in (one, other) for x in (milliseconds(run), f"{run['faults']:,.0f}")),
                f"{one['fewest'] / 1e6:.1f}",
                f"{one['every'] / 1e6:.1f}",
            ]
            for one, other in here
        ]
        slopes = [
            [f"{who}: slope", *slopes_of([pair for pair in here if pair[0]["contestant"] == who])]
            for who in dict.fromkeys(one["contestant"] for one, _ in here)
        ]
        lines += [f"**pool_gather against {series}**", "", *written.table(heads, rows + slopes), ""]
    return lines


def slopes_of(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """The cells under a table's columns."""
    sizes = [one["size"] for one, _ in pairs]

    def cell(values: list[float]) -> str:
        found = slope(sizes, values)
        return "" if found is None else f"{found:.2f}"

    times = [cell([pair[which]["milliseconds"] for pair in pairs]) for which in (0, 1)]
    counted = [cell([one[name] for one, _ in pairs]) for name in ("fewest", "every")]
    return [times[0], "", times[1], "", *counted]


def milliseconds(line: dict[str, Any]) -> str:
    return written.milliseconds(line["milliseconds"])


def page(text: str, command: str) -> str:
    machine = contest.described(contest.machine("cpu"))
    return f"{HEAD}\n`{command}`: {machine}; {datetime.date.today()}.\n\n{text}"


if __name__ == "__main__":
    sys.exit(main())
