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


def report(*arguments: str, **changes: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "benchmarks/gpu_report.py", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | changes
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    folder = tmp_path_factory.mktemp("report")
    arguments = ["--device", "cpu", "--output", str(folder), "--skip", "build", "--skip", "tests"]
    ran = report(*arguments, "--patience", "4")  # others may be at work
    assert ran.returncode == 0, ran.stdout + ran.stderr
    files = sorted(folder.iterdir())
    assert [file.suffix for file in files] == [".json", ".md"]
    return json.loads(files[0].read_text()), files[1].read_text()


def test_every_case_is_checked_and_timed(rehearsed: tuple[dict, str]) -> None:
    found, _ = rehearsed
    assert list(found["stages"]) == ["selftest", "speed", "model", "search"]
    assert not any("failed" in stage for stage in found["stages"].values())
    rows = found["stages"]["speed"]["rows"]
    assert {row["contestant"] for row in rows} >= {
        "reference",
        "reference, compiled",
        "copy of as many bytes",
    }
    assert all(row["milliseconds"]["median"] > 0 for row in rows)
    assert len({row["case"] for row in rows}) == 8
    assert {line["op"] for line in found["stages"]["selftest"]["results"]} == {
        "sample_positions",
        "pool_gather",
        "pixel_embed",
    }


def test_the_page_names_the_machine_and_holds_every_row(rehearsed: tuple[dict, str]) -> None:
    found, page = rehearsed
    assert page.startswith(f"# The ops on {found['machine']['device']}\n")
    assert page.count("\n| reference |") == len(
        [
            row
            for stage in ("speed", "model")
            for row in found["stages"][stage]["rows"]
            if row["contestant"] == "reference"
        ]
    )


def test_the_model_is_checked_and_timed(rehearsed: tuple[dict, str]) -> None:
    found, page = rehearsed
    rows = found["stages"]["model"]["rows"]
    steps = {row["contestant"]: row for row in rows if row["case"].startswith("step")}
    assert {"reference", "FastPixelBERT", "the convolutions alone", "the matrix products alone"} <= set(steps)
    step = steps["FastPixelBERT"]
    assert step["pairs_per_second"] == pytest.approx(8e3 / step["milliseconds"]["median"], rel=1e-2)
    assert any(row["case"].startswith("one pair") for row in rows)
    assert page.count("\n| FastPixelBERT |") == sum(row["contestant"] == "FastPixelBERT" for row in rows)


def test_a_stage_that_fails_costs_the_others_nothing(tmp_path: Path) -> None:
    skipped = ("--skip", "build", "--skip", "tests", "--skip", "selftest")
    ran = report("--device", "cpu", "--output", str(tmp_path), *skipped, PIXELBERT_FAST_BACKEND="wrong")
    assert ran.returncode == 1
    (found,) = (json.loads(file.read_text()) for file in tmp_path.glob("*.json"))
    assert "PIXELBERT_FAST_BACKEND is 'wrong'" in found["stages"]["speed"]["failed"][0]
    assert "failed" not in found["stages"]["search"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    ran = report("--output", str(tmp_path))
    assert ran.returncode == 1 and "torch sees no GPU here" in ran.stderr
    assert not list(tmp_path.iterdir())
