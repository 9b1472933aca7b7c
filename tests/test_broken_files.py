"""Mutated files through a build and through runs, in a process of its own, whose memory is watched."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("count", [112, pytest.param(1000, marks=pytest.mark.slow)])
def test_nothing_stops_and_the_counts_match(count):
    command = [sys.executable, "-m", "tests.broken_images", "--count", str(count)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert f"| all | {count} |" in ran.stdout
