"""Measures everything on a CPU, in at most fifteen minutes on two cores: `make bench`.

    make bench                                     or: python benchmarks/bench.py [--output FOLDER]
    python benchmarks/bench.py --only ops          one stage again, into today's file
    python benchmarks/bench.py --quick --output D  does everything work? Its figures mean nothing

Whatever is compared takes turns in one run, and is found right first. One JSON file, a Markdown page and
plots a machine and date, in `benchmarks/results/`. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench_model
import bench_ops
import part_stages
import suite
from bench_model import Limits
from op_contests import Case
from suite import Found, Stage

DEFAULT, BOTH = ("default",), ("default", "max-autotune")


def ops(found: Found) -> None:
    sizes = part_stages.QUICK_OP if found.quick else {}
    rounds, seconds = (5, 1.0) if found.quick else (41, 4.0)
    gather, embed = Case("pool_gather", **sizes), Case("pixel_embed", **sizes)
    for case, modes in (
        (gather, BOTH),
        (embed, BOTH),
        (Case("sample_positions", **sizes), ()),
        (replace(gather, dtype="bfloat16"), DEFAULT),
        (replace(embed, dtype="bfloat16"), DEFAULT),
        (replace(embed, order="pool_project"), ()),
        (replace(gather, per_image=4), ()),
        (replace(gather, layout="contiguous"), ()),
    ):
        modes = () if found.quick else modes
        found.attempt(str(case), bench_ops.contests, case, compiled=modes, rounds=rounds, seconds=seconds)


def step(found: Found) -> None:
    _models(found, "step", "step", "peer step", 28.0)


def latency(found: Found) -> None:
    _models(found, "pair", "latency", "peer latency", 15.0)


def _models(found: Found, which: str, own: str, peer: str, seconds: float) -> None:
    """Own models beside the reference, compiled and not; then beside a peer, neither of them compiled.

    Compiling takes longer than all that is timed.
    """
    case, modes, rounds = bench_model.cases("cpu")[which], DEFAULT, 15
    if found.quick:
        case, modes, rounds, seconds = replace(case, **part_stages.QUICK_MODEL), (), 5, 1.0
    for name, compiled, share in ((own, modes, 1.0), (peer, (), 0.4)):
        for dtype in ("float32", "bfloat16"):
            each = replace(case, dtype=dtype)
            limits = Limits(compiled, rounds, share * seconds)
            found.attempt(f"{name}, {each}", bench_model.run, name, each, limits)
    found.not_measured.append(
        "in this suite, for the minutes of compiling, the reference compiled with max-autotune and ViLT-B/32"
        " compiled: docs/results/model-speed.md has them, by"
        f" python benchmarks/bench_model.py --contest '{own}' --contest '{peer}'"
    )


STAGES = {
    "ceilings": Stage(30, suite.measure_ceilings),
    "ops": Stage(160, ops),
    "step": Stage(420, step),
    "latency": Stage(240, latency),
    "retrieval": Stage(100, part_stages.retrieval(texts=2, sequences=8, forwards=1, rounds=8, seconds=40.0)),
    "decoding": Stage(60, part_stages.decoding(images=256, rounds=9, seconds=25.0)),
    "optimizer": Stage(70, part_stages.optimizer(share=0.34, seconds=8.0)),
    "engine": Stage(70, part_stages.engine(rounds=25, seconds=40.0)),
    "scaling": Stage(170, part_stages.scaling(rounds=9, seconds=0.7)),
}
SUITE = suite.Suite(__file__, "make bench", "cpu", STAGES, most_seconds=900)

if __name__ == "__main__":
    sys.exit(suite.main(SUITE, __doc__))
