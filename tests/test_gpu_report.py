"""The report of the ops on a GPU, rehearsed on a CPU: its stages, its files, and what it says of failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu_report  # noqa: E402 - needs the path above

# The first two need a GPU; of the others tests/test_benchmark_contests.py runs what they run.
LEFT_OUT = ("build", "tests", "retrieval", "optimizer", "scaling", "decoding", "engine")


def report(*arguments: str, **changes: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "benchmarks/gpu_report.py", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | changes
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    folder = tmp_path_factory.mktemp("report")
    # Of two threads each waits for the other wherever something else is at work.
    arguments = ["--device", "cpu", "--threads", "1", "--output", str(folder)]
    arguments += [word for stage in LEFT_OUT for word in ("--skip", stage)]
    ran = report(*arguments, "--patience", "4")  # others may be at work
    assert ran.returncode == 0, ran.stdout + ran.stderr
    stems = {file.suffix: file for file in folder.iterdir()}
    assert set(stems) == {".svg", ".json", ".md"}
    return json.loads(stems[".json"].read_text()), stems[".md"].read_text()


def test_every_case_is_checked_and_timed(rehearsed: tuple[dict, str]) -> None:
    found, _ = rehearsed
    rows = found["stages"]["ops"]["rows"]
    assert {row["contestant"] for row in rows} >= {
        "reference",
        "reference, compiled",
        "reference, compiled with max-autotune",
        "copy of as many bytes",
    }
    assert all(row["milliseconds"]["median"] > 0 for row in rows)
    # Seven cases of ops that learn, both ways, and one of positions.
    assert len({row["case"] for row in rows}) == 15
    assert {line["op"] for line in found["stages"]["selftest"]["results"]} == {
        "sample_positions",
        "pool_gather",
        "pixel_embed",
    }


def test_every_stage_says_what_it_found(rehearsed: tuple[dict, str]) -> None:
    found, _ = rehearsed
    stages = found["stages"]
    assert set(stages) == set(gpu_report.STAGES) - set(LEFT_OUT)
    assert not any("failed" in stage for stage in stages.values())
    assert stages["search"]["not_measured"] == ["interpreted kernels have no speed to search"]
    for name in ("ops", "step", "latency"):
        for row in stages[name]["rows"]:
            assert row["stage"] == name
            # Whoever competes was found right, but for the reference itself and for another model.
            compared = row["role"] == "ours" and "each model as in" not in row["case"]
            assert not compared or row["checked"] or "beside a peer" in row["case"]


def test_shares_are_of_the_ceilings_of_the_same_run(rehearsed: tuple[dict, str]) -> None:
    found, _ = rehearsed
    copy = found["ceilings"]["copy_gigabytes_per_second"] * 1e9
    shares = 0
    for row in found["stages"]["ops"]["rows"]:
        if row["bytes"]:
            rate = row["bytes"] / row["milliseconds"]["median"] * 1e3
            assert row["of_copy"] == pytest.approx(rate / copy, rel=2e-3)
            shares += 1
    assert shares > 20


def test_the_goals_are_judged(rehearsed: tuple[dict, str]) -> None:
    found, page = rehearsed
    assert {goal["case"] for goal in found["goals"]} <= {r["case"] for r in found["stages"]["ops"]["rows"]}
    assert any("times_compiled" in goal for goal in found["goals"])
    assert any("times_its_floor" in goal for goal in found["goals"])
    assert "## Goals" in page and page.startswith(f"# Benchmarks on {found['machine']['device']}\n")


def test_the_model_is_checked_and_timed(rehearsed: tuple[dict, str]) -> None:
    found, _ = rehearsed
    rows = [row for row in found["stages"]["step"]["rows"] if row["case"].startswith("step: ")]
    steps = {row["contestant"]: row for row in rows if row["role"] != "part"}
    assert {"reference", "FastPixelBERT", "the convolutions alone", "the matrix products alone"} <= set(steps)
    step = steps["FastPixelBERT"]
    assert step["per_second"] == pytest.approx(8e3 / step["milliseconds"]["median"], rel=1e-2)
    assert step["flops"] > steps["the convolutions alone"]["flops"] > 0
    parts = {(row["whole"], row["contestant"]) for row in rows if row["role"] == "part"}
    assert len(parts) == 8


def test_a_stage_that_fails_costs_the_others_nothing(tmp_path: Path) -> None:
    chosen = ("--only", "ops", "--only", "search")
    ran = report("--device", "cpu", "--output", str(tmp_path), *chosen, PIXELBERT_FAST_BACKEND="wrong")
    assert ran.returncode == 1
    (found,) = (json.loads(file.read_text()) for file in tmp_path.glob("*.json"))
    assert "PIXELBERT_FAST_BACKEND is 'wrong'" in found["stages"]["ops"]["failed"][0]
    assert "failed" not in found["stages"]["search"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    ran = report("--output", str(tmp_path))
    assert ran.returncode == 1 and "torch sees no GPU here" in ran.stderr
    assert not list(tmp_path.iterdir())


def test_a_package_that_one_part_needs_costs_that_part_alone() -> None:
    """A machine has torch, triton, transformers, numpy and pytest; what else there is it may lack."""
    code = """
import sys, time
for package in ("PIL", "simplejpeg", "deepspeed", "datasets", "nvidia", "scipy", "pytest_benchmark"):
    sys.modules[package] = None
sys.path.insert(0, "benchmarks")
import gpu_report
found = gpu_report.Found("cpu", True, time.monotonic() + 60)
gpu_report.STAGES["decoding"].run(found)
print(found.as_dict())
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    last = ran.stdout.strip().splitlines()[-1]
    assert last == str({"not_measured": ["decoding: PIL is not installed"]})
