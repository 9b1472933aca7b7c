"""Builds, checks and measures everything on a GPU: one command of at most eight minutes, with no network.

    make gpu-report                        or: python benchmarks/gpu_report.py [--output FOLDER]
    python benchmarks/gpu_report.py --device cpu --output DIR     the same on a CPU, small: a rehearsal

It uses the Python it is started with, which needs torch, triton, transformers, numpy and pytest. What needs
more (DALI, DeepSpeed) is measured where it is installed. One JSON file, a Markdown page and plots say what
came of each stage; the first ones are the most telling.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

try:
    import torch
except ImportError:
    sys.exit(f"gpu_report: {sys.executable} has no torch; name a Python that has: make gpu-report PYTHON=...")

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench_model
import bench_ops
import op_contests
import part_stages
import suite
from bench_model import Limits
from op_contests import Case
from suite import ROOT, Found, Stage

OUTCOMES = re.compile(r"\d+ (?:passed|failed|skipped|errors?|deselected)")
BOTH = ("default", "max-autotune")


def goal_cases(device: str) -> list[Case]:
    """The paper's shapes in pre-training: bfloat16, channels_last, 800 x 1066 images; the goals first."""
    sizes = part_stages.QUICK_OP if device == "cpu" else {"batch": 64, "height": 25, "width": 33}
    base = Case("pool_gather", device, "bfloat16", **sizes)
    embed = replace(base, op="pixel_embed")
    return [
        base,
        replace(base, per_image=4),
        embed,
        replace(embed, per_image=4),
        replace(embed, order="pool_project"),
        replace(base, op="sample_positions", per_image=4),
        replace(base, layout="contiguous"),
        replace(base, dtype="float32"),
    ]


def build(found: Found) -> None:
    """The native code, for this machine's GPU alone unless TORCH_CUDA_ARCH_LIST says otherwise."""
    environment = dict(os.environ)
    if found.device != "cpu" and torch.version.cuda and "TORCH_CUDA_ARCH_LIST" not in environment:
        environment["TORCH_CUDA_ARCH_LIST"] = ".".join(map(str, torch.cuda.get_device_capability()))
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if ran.returncode:
        found.failed += (ran.stderr or ran.stdout).strip().splitlines()[-8:]
    else:
        record = ROOT / "pixelbert_fast" / "_build_record.json"
        found.more["record"] = json.loads(record.read_text())


def selftest(found: Found) -> None:
    """Every backend against the reference on this device; see `pixelbert selftest`."""
    from pixelbert_fast.ops import selftest as checks

    results = checks.run(devices=[torch.device(found.device)], seconds=40.0)
    found.more["results"] = [
        {"op": one.op, "backend": one.backend, "status": one.status, "detail": one.detail} for one in results
    ]
    found.failed += [one.detail for one in results if one.status == checks.FAILED]


def tests(found: Found) -> None:
    """The tests that need a GPU; without one they are skipped."""
    files = ["tests/test_ops_cuda.py", "tests/test_model_cuda.py"]
    command = [sys.executable, "-m", "pytest", "-q", "--maxfail=12", *files]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = ran.stdout.strip().splitlines()
    found.more["outcome"] = ", ".join(OUTCOMES.findall(lines[-1])) if lines else "nothing ran"
    if ran.returncode:
        found.failed += lines[-30:]


def ops(found: Found) -> None:
    for number, case in enumerate(goal_cases(found.device)):
        compiled = BOTH if case.per_image == 1 and case.layout == "channels_last" else ()
        if found.quick and number:  # compiling takes longer than all the rest
            compiled = ()
        rounds, seconds = (5, 1.0) if found.quick else (50, 4.0)
        found.attempt(str(case), bench_ops.contests, case, compiled=compiled, rounds=rounds, seconds=seconds)


def step(found: Found) -> None:
    _models(
        found,
        ("step", "step", "frozen", ()),
        ("step", "step", "batch", ()),
        ("peer step", "step", "frozen", ()),
    )
    _models(found, ("step", "step", "frozen", ("default",)))


def latency(found: Found) -> None:
    # Tuning takes minutes where nothing is tuned yet: what needs less of it is measured and kept before.
    for modes in ((),) if found.quick else ((), ("default",), BOTH):
        _models(found, ("latency", "pair", "frozen", modes), ("peer latency", "pair", "frozen", modes))


def _models(found: Found, *contests: tuple[str, str, str, tuple[str, ...]]) -> None:
    for name, which, norm, modes in contests:
        case = replace(bench_model.cases(found.device)[which], norm=norm, dtype="bfloat16")
        # A latency's 0.99 quantile takes a hundred rounds, a step's median few.
        limits = Limits(modes, 120 if which == "pair" else 20, 8.0)
        if found.quick:
            case, limits = replace(case, dtype="float32", **part_stages.QUICK_MODEL), Limits((), 5, 1.0)
        found.attempt(f"{name}, {case}", bench_model.run, name, case, limits)


def search(found: Found) -> None:
    """Which Triton configurations are the fastest here, beside the stored defaults."""
    if found.device == "cpu":
        found.not_measured.append("interpreted kernels have no speed to search")
        return
    configurations = importlib.import_module("pixelbert_fast.kernels.configurations")
    with configurations.searching():
        for case in goal_cases(found.device):
            values = op_contests.given(case)
            run = op_contests.forward(case, values, "triton")
            op_contests.training(run, values)() if values.leaves else run()
    found.more["found"] = [
        {
            "kernel": kernel,
            "variant": variant,
            "sizes": list(sizes),
            "dtype": str(dtype),
            "fastest": str(best),
            "default": str(configurations.candidates(kernel, variant, sizes)[0]),
        }
        for (kernel, variant, sizes, dtype), best in configurations._found.items()
    ]


def goals(report: dict[str, Any]) -> None:
    """Adds what the project set itself for the ops on an H100, beside what was measured."""
    by_case: dict[str, dict[str, dict]] = {}
    for row in report["stages"].get("ops", {}).get("rows", []):
        by_case.setdefault(row["case"], {})[row["contestant"]] = row
    report["goals"] = []
    for case, each in by_case.items():
        ours = [row for row in each.values() if row["role"] == "ours"]
        if not ours or op_contests.COPY not in each:
            continue
        time = {who: row["milliseconds"]["median"] for who, row in each.items()}
        best = min(ours, key=lambda row: row["milliseconds"]["median"])
        own, copy = best["milliseconds"]["median"], time[op_contests.COPY]
        line = {
            "case": case,
            "best": best["contestant"],
            "of_copy_bandwidth": round(copy / own, 3),
            "times_eager": best["times_faster"],
        }
        if op_contests.COMPILED in each:
            line["times_compiled"] = round(time[op_contests.COMPILED] / own, 3)
        if op_contests.PRODUCT in each:
            line["times_its_floor"] = round(own / max(copy, time[op_contests.PRODUCT]), 3)
        report["goals"].append(line)


STAGES = {
    "build": Stage(120, build),
    "ceilings": Stage(20, suite.measure_ceilings),
    "selftest": Stage(60, selftest),
    "tests": Stage(90, tests),
    "ops": Stage(110, ops),
    "step": Stage(90, step),
    "latency": Stage(75, latency),
    "retrieval": Stage(
        45, part_stages.retrieval(images=16, texts=32, sequences=64, forwards=8, rounds=10, seconds=12.0)
    ),
    "optimizer": Stage(25, part_stages.optimizer(seconds=4.0)),
    "search": Stage(45, search),
    "scaling": Stage(60, part_stages.scaling(rounds=9, seconds=0.4)),
    "decoding": Stage(30, part_stages.decoding(images=256, rounds=7, seconds=15.0)),
    "engine": Stage(40, part_stages.engine(seconds=15.0)),
}
SUITE = suite.Suite(__file__, "make gpu-report", "cuda", STAGES, most_seconds=480, finish=goals)

if __name__ == "__main__":
    sys.exit(suite.main(SUITE, __doc__))
