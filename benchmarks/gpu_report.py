"""Builds, checks and measures ops and models on a GPU: one command of at most eight minutes, with no network.

    make gpu-report                        or: python benchmarks/gpu_report.py [--output benchmarks/results]
    python benchmarks/gpu_report.py --device cpu --output DIR     the same on a CPU, small: a rehearsal

It uses the Python it is started with, which needs torch, triton, transformers, numpy and pytest. Each stage
is a process of its own with a time limit, so that one that fails or hangs costs the others nothing. One JSON
and one Markdown file say what came of each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

try:
    import torch
except ImportError:
    sys.exit(f"gpu_report: {sys.executable} has no torch; name a Python that has: make gpu-report PYTHON=...")

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench_model
import bench_ops
import contest
import model_tables
import op_contests
from op_contests import Case

ROOT = Path(__file__).resolve().parent.parent
MOST_SECONDS = 480.0
# Seconds that a stage may take, whatever is left for it.
STAGES = {"build": 120.0, "selftest": 60.0, "tests": 90.0, "speed": 110.0, "model": 150.0, "search": 45.0}
SMALL = {"batch": 2, "channels": 64, "height": 13, "width": 18, "count": 20, "dimensions": 48}
OUTCOMES = re.compile(r"\d+ (?:passed|failed|skipped|errors?|deselected)")


def goal_cases(device: str) -> list[Case]:
    """The paper's shapes in pre-training: bfloat16, channels_last, 800 x 1066 images; the goals first."""
    sizes = SMALL if device == "cpu" else {"batch": 64, "height": 25, "width": 33}
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


def stage_build(device: str) -> dict:
    """The native code, for this machine's GPU alone unless TORCH_CUDA_ARCH_LIST says otherwise."""
    environment = dict(os.environ)
    if device != "cpu" and torch.version.cuda and "TORCH_CUDA_ARCH_LIST" not in environment:
        environment["TORCH_CUDA_ARCH_LIST"] = ".".join(map(str, torch.cuda.get_device_capability()))
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if ran.returncode:
        return {"failed": (ran.stderr or ran.stdout).strip().splitlines()[-8:]}
    record = ROOT / "pixelbert_fast" / "_build_record.json"
    return {"record": json.loads(record.read_text())}


def stage_selftest(device: str) -> dict:
    """Every backend against the reference on this device; see `pixelbert selftest`."""
    from pixelbert_fast.ops import selftest

    results = selftest.run(devices=[torch.device(device)], seconds=STAGES["selftest"] - 20)
    lines = [
        {"op": one.op, "backend": one.backend, "status": one.status, "detail": one.detail} for one in results
    ]
    return {"results": lines} | (
        {"failed": [line["detail"] for line in lines if line["status"] == selftest.FAILED]}
        if any(line["status"] == selftest.FAILED for line in lines)
        else {}
    )


def stage_tests(device: str) -> dict:
    """The tests that need a GPU; without one they are skipped."""
    files = ["tests/test_ops_cuda.py", "tests/test_model_cuda.py"]
    command = [sys.executable, "-m", "pytest", "-q", "--maxfail=12", *files]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = ran.stdout.strip().splitlines()
    outcome = ", ".join(OUTCOMES.findall(lines[-1])) if lines else "nothing ran"
    return {"outcome": outcome} | ({"failed": lines[-30:]} if ran.returncode else {})


def stage_speed(device: str, keep: Callable[[dict], None]) -> dict:
    """Every case that there is time for, in the order of `goal_cases`; what is there is kept at once."""
    end = time.monotonic() + STAGES["speed"] - 15
    rows, failed = [], []
    for case in goal_cases(device):
        if time.monotonic() > end:
            failed.append(f"no time was left for {case}")
            continue
        compiled = case.per_image == 1 and case.layout == "channels_last"
        try:
            rows += bench_ops.measure(case, compiled=compiled, rounds=50, seconds=4.0)
        except Exception as error:
            failed.append(f"{case}: {type(error).__name__}: {str(error).splitlines()[0]}")
        keep({"rows": rows} | ({"failed": failed} if failed else {}))
    return {"rows": rows} | ({"failed": failed} if failed else {})


def stage_model(device: str, keep: Callable[[dict], None]) -> dict:
    """The model's step and latency, the dearest last; what is there is kept at once."""
    rows, failed = [], []
    for name, case, options in bench_model.of_a_report(device):
        try:
            rows += bench_model.run(name, case, options)
        except Exception as error:
            failed.append(f"{name}, {case}: {type(error).__name__}: {str(error).splitlines()[0]}")
        keep({"rows": rows} | ({"failed": failed} if failed else {}))
    return {"rows": rows} | ({"failed": failed} if failed else {})


def stage_search(device: str) -> dict:
    """Which Triton configurations are the fastest here, beside the stored defaults."""
    if device == "cpu":
        return {"skipped": "interpreted kernels have no speed to search"}
    from pixelbert_fast.kernels import configurations

    with configurations.searching():
        for case in goal_cases(device):
            values = op_contests.given(case)
            run = op_contests.forward(case, values, "triton")
            op_contests.training(run, values)() if values.leaves else run()
    found = [
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
    return {"found": found}


def goals(rows: list[dict]) -> list[dict]:
    """What the project set itself for an H100, beside what was measured; empty without the contestants."""
    by_case: dict[tuple[str, str], dict[str, dict]] = {}
    for row in rows:
        by_case.setdefault((row["case"], row["pass"]), {})[row["contestant"]] = row
    found = []
    for (case, name), each in by_case.items():
        ours = [row for who, row in each.items() if who in ("cuda", "triton", "cpu")]
        if not ours or op_contests.COPY not in each:
            continue
        best = min(ours, key=lambda row: row["milliseconds"]["median"])
        copy = each[op_contests.COPY]["milliseconds"]["median"]
        line = {
            "case": case,
            "pass": name,
            "best": best["contestant"],
            "of_copy_bandwidth": round(copy / best["milliseconds"]["median"], 3),
            "times_eager": best["times_faster_than_reference"],
        }
        if op_contests.COMPILED in each:
            compiled = each[op_contests.COMPILED]["milliseconds"]["median"]
            line["times_compiled"] = round(compiled / best["milliseconds"]["median"], 3)
        if op_contests.PRODUCT in each:
            floor = max(copy, each[op_contests.PRODUCT]["milliseconds"]["median"])
            line["times_its_floor"] = round(best["milliseconds"]["median"] / floor, 3)
        found.append(line)
    return found


def markdown(report: dict) -> str:
    """The report for people."""
    machine, stages = report["machine"], report["stages"]
    lines = [f"# The ops on {machine['device']}", "", f"By `{report['command']}`. "]
    lines[-1] += ", ".join(f"{name} {value}" for name, value in machine.items() if name != "device") + "."
    lines += ["", "| stage | seconds | outcome |", "|---|---|---|"]
    for name, stage in stages.items():
        outcome = "; ".join(map(str, stage["failed"])) if "failed" in stage else stage.get("outcome", "done")
        outcome = stage.get("skipped", outcome).replace("|", "\\|")
        lines.append(f"| {name} | {stage['seconds']:.0f} | {outcome[:600]} |")
    checked = stages.get("selftest", {}).get("results", [])
    if checked:
        lines += ["", "| op | backend | selftest |", "|---|---|---|"]
        lines += [f"| {one['op']} | {one['backend']} | {one['status']}: {one['detail']} |" for one in checked]
    if report["goals"]:
        names = ("of_copy_bandwidth", "times_eager", "times_compiled", "times_its_floor")
        title = "| case | pass | best | of copy bandwidth | times eager | times compiled | times its floor |"
        lines += ["", title, "|---|---|---|---|---|---|---|"]
        for goal in report["goals"]:
            figures = " | ".join(str(goal.get(name, "")) for name in names)
            lines.append(f"| {goal['case']} | {goal['pass']} | {goal['best']} | {figures} |")
    rows = stages.get("speed", {}).get("rows", [])
    lines += ["", bench_ops.table(rows)] if rows else []
    rows = stages.get("model", {}).get("rows", [])
    lines += ["", model_tables.tables(rows)] if rows else []
    found = stages.get("search", {}).get("found", [])
    if found:
        lines += [
            "",
            "| Triton kernel | variant | sizes | fastest here | stored default |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {one['kernel']} | {one['variant']} {one['dtype']} | {one['sizes']} | {one['fastest']} "
            f"| {one['default']} |"
            for one in found
        ]
    return "\n".join(lines) + "\n"


def run_stage(name: str, device: str, seconds: float, scratch: Path, patience: float = 1.0) -> dict:
    """One stage in a process of its own; what it had kept when its time was up is not lost."""
    scratch.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--device", device, "--stage", name, "--output", str(scratch)]
    command += ["--patience", str(patience)]
    start = time.monotonic()
    problem = None
    with subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr, start_new_session=True) as process:
        try:
            if process.wait(timeout=seconds):
                problem = f"the process ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            problem = f"stopped after {seconds:.0f} s"
        except BaseException:
            os.killpg(process.pid, 9)
            raise
    result = json.loads(scratch.read_text()) if scratch.exists() else {}
    scratch.unlink(missing_ok=True)
    if problem:
        result["failed"] = [*result.get("failed", []), problem]
    return result | {"seconds": round(time.monotonic() - start, 1)}


def keep_in(path: Path) -> Callable[[dict], None]:
    """Writes what a stage has found so far, whole or not at all."""

    def keep(result: dict) -> None:
        beside = path.with_name(path.name + ".part")
        beside.write_text(json.dumps(result))
        beside.replace(path)

    return keep


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="a folder")
    parser.add_argument("--skip", action="append", default=[], choices=STAGES, help="leave a stage out")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument(
        "--patience", type=float, default=1.0, help="multiplies every limit, on a machine that is busy"
    )
    options = parser.parse_args()
    for name in STAGES:
        STAGES[name] *= options.patience
    if options.stage:
        keep = keep_in(options.output)
        stage = {name: globals()[f"stage_{name}"] for name in STAGES}[options.stage]
        keeps = options.stage in ("speed", "model")
        keep(stage(options.device, keep) if keeps else stage(options.device))
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_report: torch sees no GPU here; --device cpu rehearses the report on a CPU")
    options.output.mkdir(parents=True, exist_ok=True)
    machine = contest.machine(options.device)
    slug = re.sub(r"[^a-z0-9]+", "-", str(machine["device"]).lower()).strip("-")
    end = time.monotonic() + MOST_SECONDS * options.patience - 10
    report = {"machine": machine, "command": "python benchmarks/gpu_report.py", "stages": {}, "goals": []}
    if options.device == "cpu":
        report["command"] += " --device cpu"
    for name, most in STAGES.items():
        if name in options.skip:
            continue
        seconds = min(most, end - time.monotonic())
        print(f"gpu_report: {name}, at most {seconds:.0f} s", flush=True)
        scratch = options.output / f".{slug}-{name}.json"
        report["stages"][name] = run_stage(name, options.device, max(seconds, 1.0), scratch, options.patience)
        report["goals"] = goals(report["stages"].get("speed", {}).get("rows", []))
        target = options.output / f"ops-{slug}"
        target.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        target.with_suffix(".md").write_text(markdown(report))
    print(f"gpu_report: {target.with_suffix('.md')}")
    sys.exit(any("failed" in stage for stage in report["stages"].values()))


if __name__ == "__main__":
    main()
