"""`make zero-equality`: ZeRO 0, 1, 2 and 3 in one and two processes against plain PyTorch, as a table.

A small FastPixelBERT for pre-training takes 20 updates, on the same batches whoever reads them. The plain run
adds up in each update what the processes read. Writes docs/results/training-zero.md; ends with status 1 where
a difference is larger than the table's bounds.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import torch  # noqa: E402

from tests.engine_cases import build, deepspeed_engine, plain_engine, relative, train, whole  # noqa: E402

REPORT = ROOT / "docs" / "results" / "training-zero.md"
STEPS = 20
STAGES = (0, 1, 2, 3)
WORLDS = (1, 2)
# (precision, norm, offload). fp32 has one bound; half precision twice what it makes by itself: how far
# the plain run in it is from the plain run in fp32.
CASES = [
    ("bf16", "frozen", False),
    ("fp16", "frozen", False),
    ("fp32", "frozen", False),
    ("fp32", "frozen", True),
    ("fp32", "batch", False),
]
BOUND = 1e-5
# So low that no update of fp16 overflows and is skipped, which no run in fp32 would do.
FIRST_SCALE = 2.0**8


TEXT = """# ZeRO against plain PyTorch

`make zero-equality`: {steps} updates of a small FastPixelBERT for pre-training (SGD and AdamW, clipping
at 1; one update in five has no masked word), on the same batches. The plain run is one process that adds
up what the processes of the other run read. Shown is the largest difference over all updates (losses),
of all numbers of the final weights and of batch norm's running statistics (those of the first process),
each relative to the largest number in its tensor or to 0.01. Left out are the keys' biases, whose
gradient is rounding alone. The bound of bf16 and fp16 is twice what the precision makes by itself: how
far the plain run in it is from the plain run in fp32.

Trained batch norm: every process normalises by its own batch, and so does the plain run batch by batch;
losses and weights are the same. Running statistics, which only evaluation reads, are not: a process
moves them by the batches that it has seen, the plain run by all. So each process keeps its own, the
first one's are evaluated and saved, and a run that goes on in another number of processes gives them to
all. `norm="sync"` takes one batch over all processes, on GPUs.

2 cores of an Intel Xeon with AVX-512, gloo, torch {torch}, DeepSpeed {deepspeed}, 2026-11-23.
"""


def name_of(case: tuple, world: int, stage: int | str) -> str:
    precision, norm, offload = case
    return f"{precision}-{norm}{'-offload' if offload else ''}-{world}-{stage}"


def main() -> int:
    if len(sys.argv) == 2:
        return in_a_process(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        for world in WORLDS:
            launch(world, folder)
        runs = [(case, world, stage) for case in CASES for world in WORLDS for stage in STAGES]
        rows = [compared(Path(folder), *run) for run in runs if run[2] or not run[0][2]]
    bad = [row for row in rows if not row["good"]]
    text = report(rows)
    REPORT.write_text(text, encoding="utf-8")
    print(text)
    for row in bad:
        print(f"zero-equality: beyond the bounds: {row}", file=sys.stderr)
    return 1 if bad else 0


def launch(world: int, folder: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": world, "LOCAL_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, folder],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                **{key: str(value) for key, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()},
            },
        )
        for rank in range(world)
    ]
    statuses = [process.wait() for process in processes]
    if any(statuses):
        raise SystemExit(f"a process of {world} failed")


def in_a_process(folder: Path) -> int:
    """One of the processes: every case under every stage, and by the first the plain runs as well."""
    from pixelbert_fast.training import deepspeed_engine as engines

    torch.set_num_threads(1)
    ranks = engines.join()
    for case in CASES:
        precision, norm, offload = case
        if ranks.first:
            engine = plain_engine(build(norm), ranks.world, precision=precision)
            if precision == "fp16":
                # It halves each of two losses, the processes do not: so gradients are rounded alike.
                engine._scale.cur_scale = FIRST_SCALE * ranks.world
            losses = train(engine, range(STEPS), range(ranks.world))
            torch.save((losses, whole(engine)), folder / name_of(case, ranks.world, "plain"))
        for stage in STAGES:
            if offload and not stage:
                continue
            given = {"precision": precision, "zero_stage": stage, "offload_optimizer": offload}
            engine = deepspeed_engine(build(norm), ranks, **given)
            if precision == "fp16":
                engine._scale.cur_scale = FIRST_SCALE
            losses = train(engine, range(STEPS), [ranks.rank])
            losses = [ranks.mean([loss])[0] for loss in losses]
            weights = whole(engine)
            if ranks.first:
                torch.save((losses, weights), folder / name_of(case, ranks.world, stage))
            engine.close()
    engines.leave()
    return 0


def compared(folder: Path, case: tuple, world: int, stage: int) -> dict:
    run = torch.load(folder / name_of(case, world, stage), weights_only=True)
    plain = torch.load(folder / name_of((*case[:2], False), world, "plain"), weights_only=True)
    found = differences(run, plain)
    bounds = [BOUND, BOUND]
    if case[0] != "fp32":
        wide = torch.load(folder / name_of(("fp32", "frozen", False), world, "plain"), weights_only=True)
        bounds = [2 * one for one in differences(plain, wide)[:2]]
    good = all(one <= bound for one, bound in zip(found[:2], bounds, strict=True))
    return {"case": case, "world": world, "stage": stage, "found": found, "bounds": bounds, "good": good}


def differences(run: tuple, plain: tuple) -> list[float]:
    """Of losses, weights and batch-norm statistics."""
    statistics = {name: value for name, value in plain[1].items() if "running_" in name}
    weights = {name: value for name, value in plain[1].items() if name not in statistics}
    losses = max(abs(a - b) / abs(b) for a, b in zip(run[0], plain[0], strict=True))
    return [losses, relative(run[1], weights), relative(run[1], statistics)]


def report(rows: list[dict]) -> str:
    import deepspeed

    lines = [
        TEXT.format(steps=STEPS, torch=torch.__version__, deepspeed=deepspeed.__version__),
        "| precision | norms | offload | processes | ZeRO | losses | bound | weights | bound | statistics |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        precision, norm, offload = row["case"]
        (losses, weights, statistics), bounds = row["found"], row["bounds"]
        cells = [precision, "trained" if norm == "batch" else norm, "CPU" if offload else "-"]
        cells += [row["world"], row["stage"], f"{losses:.1e}", f"{bounds[0]:.0e}"]
        cells += [f"{weights:.1e}", f"{bounds[1]:.0e}", f"{statistics:.1e}" if norm == "batch" else "-"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
