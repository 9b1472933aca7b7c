"""Every Triton kernel compiles for NVIDIA and AMD GPUs where there is none, and spills no register."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
ROOT = Path(__file__).resolve().parent.parent
TARGETS = ["sm_80", "sm_90", "sm_100", "gfx942"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """A row for each kernel and target, by a process in which triton was not imported as an interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, "benchmarks/kernels_static.py", "--defaults"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("target", TARGETS)
def test_defaults_fit_and_spill_nothing(compiled: list[dict], target: str) -> None:
    rows = [row for row in compiled if row["target"] == target]
    kernels = {(row["kernel"], row["variant"]) for row in rows}
    assert len(kernels) == len(rows) and {kernel for kernel, _ in kernels} == {
        "sample_positions",
        "pool_gather_forward",
        "pool_gather_backward",
        "project_pool",
        "pool_project",
    }
    assert not [row for row in rows if row["spills"]]
    assert not [row for row in rows if row["shared"] > row["most_shared"]]
