"""Times the ops against the reference, eager and compiled, on a CPU or a GPU.

    python benchmarks/bench_ops.py --threads 2 --compile
    python benchmarks/bench_ops.py --device cuda --dtype bfloat16 --shape 64 2048 25 33 --per-image 4
    pytest benchmarks/bench_ops.py        small cases for pytest-benchmark, to compare two commits

Results are compared with the reference's first, and nothing is timed where they differ. Bytes a second are
the fewest bytes the pass can move, divided by its time; a copy in the same turns says what the machine moves.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import contest
import op_contests
from op_contests import Case

OPS = ("sample_positions", "pool_gather", "pixel_embed")


def passes(case: Case, *, compiled: bool) -> dict[str, tuple[op_contests.Work, dict[str, Callable]]]:
    """By pass: its least work, and its runs by contestant, all found equal to the reference."""
    values = op_contests.given(case)
    runs = op_contests.contestants(case, values, compiled=compiled)
    op_contests.verify(case, values, runs)

    def without_gradients(run: Callable) -> Callable:
        return torch.no_grad()(run)

    found = {"forward": {name: without_gradients(run) for name, run in runs.items()}}
    if values.leaves:
        found["forward + backward"] = {name: op_contests.training(run, values) for name, run in runs.items()}
    result = {}
    for name, each in found.items():
        backward = name != "forward"
        work = op_contests.least_work(case, values, backward=backward)
        result[name] = work, each | op_contests.floors(case, values, work, backward=backward)
    return result


def measure(case: Case, *, compiled: bool, rounds: int, seconds: float) -> list[dict]:
    """A row for each pass and contestant."""
    rows = []
    for name, (work, runs) in passes(case, compiled=compiled).items():
        timings = contest.take_turns(runs, case.device, rounds=rounds, seconds=seconds)
        reference = timings[op_contests.REFERENCE].median
        rows += [
            {
                "case": str(case),
                "pass": name,
                "contestant": contestant,
                "milliseconds": timing.as_dict(),
                "times_faster_than_reference": round(reference / timing.median, 3),
                "gigabytes_per_second": round(work.bytes / timing.median / 1e6, 2),
                "gigaflops_per_second": round(work.flops / timing.median / 1e6, 1),
            }
            for contestant, timing in timings.items()
        ]
    return rows


def table(rows: list[dict]) -> str:
    """The rows as Markdown, a table for each case and pass."""
    lines, title = [], None
    for row in rows:
        if title != (row["case"], row["pass"]):
            title = (row["case"], row["pass"])
            lines += ["", f"{row['case']}: {row['pass']}", ""]
            lines += ["| | median ms | 0.2 to 0.8 | times as fast as the reference | GB/s | GFLOP/s |"]
            lines += ["|---|---|---|---|---|---|"]
        time = row["milliseconds"]
        floor = row["contestant"] in (op_contests.COPY, op_contests.ALLOCATION, op_contests.PRODUCT)
        speed = "" if floor else f"{row['times_faster_than_reference']:.2f}"
        bytes_, flops = row["gigabytes_per_second"], row["gigaflops_per_second"]
        rate = f"{bytes_:.1f} | {flops:.0f}" if flops else f"{bytes_:.1f} |"
        lines.append(
            f"| {row['contestant']} | {time['median']:.3f} | {time['low']:.3f} to {time['high']:.3f} "
            f"| {speed} | {rate} |"
        )
    return "\n".join(lines[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--op", action="append", choices=OPS, help="only these; all by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16", "float64"])
    parser.add_argument("--layout", default="channels_last", choices=["channels_last", "contiguous"])
    parser.add_argument("--shape", type=int, nargs=4, default=[8, 2048, 24, 32], metavar=("B", "C", "H", "W"))
    parser.add_argument("--count", type=int, default=100, help="places a sequence")
    parser.add_argument("--per-image", type=int, default=1, help="sequences an image")
    parser.add_argument("--dimensions", type=int, default=768, help="of what pixel_embed projects to")
    parser.add_argument("--order", default="project_pool", choices=["project_pool", "pool_project"])
    parser.add_argument("--compile", action="store_true", help="time the reference under torch.compile too")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--seconds", type=float, default=20.0, help="a pass of one op, at most")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = contest.machine(options.device)
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    rows = []
    for op in options.op or OPS:
        case = Case(
            op,
            options.device,
            options.dtype,
            options.layout,
            *options.shape,
            options.count,
            options.per_image,
            options.dimensions,
            options.order,
        )
        found = measure(case, compiled=options.compile, rounds=options.rounds, seconds=options.seconds)
        print(f"\n{table(found)}", flush=True)
        rows += found
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


SMALL = {"batch": 4, "channels": 512, "height": 24, "width": 32, "dimensions": 256}


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("which", ["forward", "forward + backward"])
@pytest.mark.parametrize("op", OPS)
def test_op(benchmark, op: str, which: str, name: str) -> None:
    """One contestant; pytest-benchmark keeps and compares (--benchmark-save, --benchmark-compare)."""
    found = passes(Case(op, **SMALL), compiled=False)
    if which not in found or name not in found[which][1]:
        pytest.skip(f"no {which} of {op} on {name} here")
    benchmark.group = f"{op}: {which}"
    benchmark(found[which][1][name])


if __name__ == "__main__":
    main()
