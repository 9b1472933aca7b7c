"""Times the ops against the reference, eager and compiled, on a CPU or a GPU.

    python benchmarks/bench_ops.py --threads 2 --compile
    python benchmarks/bench_ops.py --device cuda --dtype bfloat16 --shape 64 2048 25 33 --per-image 4
    pytest benchmarks/bench_ops.py        small cases for pytest-benchmark, to compare two commits

Results are compared with the reference's first, and nothing is timed where they differ. Bytes and
operations are the fewest that the pass can do with; a copy of as many bytes in the same turns is their floor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import case_tables
import ceilings
import contest
import op_contests
from op_contests import Case
from rows import FLOOR, PEER, REFERENCE, Contest, Row, Work

OPS = ("sample_positions", "pool_gather", "pixel_embed")
ROLES = {
    op_contests.REFERENCE: REFERENCE,
    op_contests.COMPILED: PEER,
    op_contests.AUTOTUNED: PEER,
    op_contests.COPY: FLOOR,
    op_contests.ALLOCATION: FLOOR,
    op_contests.PRODUCT: FLOOR,
}
SELECTED = "bit-equal to the reference"
SUMMED = "error against float64 at most twice the reference's"


def passes(case: Case, *, compiled: tuple[str, ...]) -> dict[str, tuple[Work, dict[str, Callable]]]:
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


def contests(
    case: Case,
    *,
    compiled: tuple[str, ...] = (),
    rounds: int = 41,
    seconds: float = 20.0,
    memory: bool = True,
) -> list[Row]:
    """A row for each pass and contestant; `compiled`: modes of torch.compile to time the reference under."""
    found = []
    for name, (work, runs) in passes(case, compiled=compiled).items():
        timings = contest.take_turns(runs, case.device, rounds=rounds, seconds=seconds)
        held = contest.peak_memories(runs, case.device, [op_contests.AUTOTUNED]) if memory else None
        selects = case.op != "pixel_embed" and name == "forward"
        shared = Contest(
            "ops",
            f"{case}: {name}",
            case.dtype,
            work=work,
            checked=SELECTED if selects else SUMMED,
            roles=ROLES,
        )
        found += shared.rows(timings, memory=held)
    return found


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
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(contest.described(contest.machine(options.device)), flush=True)
    roofs = ceilings.measure(options.device)
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
        modes = tuple(op_contests.MODES) if options.compile else ()
        found = contests(case, compiled=modes, rounds=options.rounds, seconds=options.seconds)
        print("", *case_tables.of_stage([row.as_dict(roofs) for row in found]), sep="\n", flush=True)


SMALL = {"batch": 4, "channels": 512, "height": 24, "width": 32, "dimensions": 256}


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("which", ["forward", "forward + backward"])
@pytest.mark.parametrize("op", OPS)
def test_op(benchmark, op: str, which: str, name: str) -> None:
    """One contestant; pytest-benchmark keeps and compares (--benchmark-save, --benchmark-compare)."""
    found = passes(Case(op, **SMALL), compiled=())
    if which not in found or name not in found[which][1]:
        pytest.skip(f"no {which} of {op} on {name} here")
    benchmark.group = f"{op}: {which}"
    benchmark(found[which][1][name])


if __name__ == "__main__":
    main()
