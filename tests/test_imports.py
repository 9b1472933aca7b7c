"""What importing the package costs, and what it must not break. Each import has a process to itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {
    "torch",
    "transformers",
    "triton",
    "deepspeed",
    "datasets",
    "nvidia",
    "tensorboard",
    "numpy",
    "typer",
}


def loaded_by(statements: str) -> set[str]:
    """The top-level modules in a fresh process at the repository root after `statements`."""
    code = f"{statements}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in json.loads(result.stdout.splitlines()[-1])}


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not loaded_by("import pixelbert_fast, pixelbert_fast.errors, pixelbert_fast.environment") & HEAVY


def test_the_command_line_starts_without_torch() -> None:
    loaded = loaded_by("import pixelbert_fast.cli")
    assert "typer" in loaded
    assert not loaded & (HEAVY - {"typer"})


def test_the_kernels_directory_imports_without_triton() -> None:
    assert not loaded_by("import pixelbert_fast.kernels.support") & HEAVY


def test_using_the_model_needs_no_optional_library() -> None:
    loaded = loaded_by("import pixelbert_fast\npixelbert_fast.PixelBERT\npixelbert_fast.ops")
    assert "torch" in loaded
    assert not loaded & {"triton", "deepspeed", "datasets", "nvidia", "tensorboard", "typer"}


@pytest.mark.parametrize("order", ["before", "after"])
def test_transformers_still_works_from_the_repository_root(order: str) -> None:
    """`kernels/` lies on the path there, and must not pass for Hugging Face's package of that name."""
    ours, theirs = "import pixelbert_fast.kernels.support", "from transformers import BertModel"
    statements = [ours, theirs] if order == "before" else [theirs, ours]
    assert "transformers" in loaded_by("\n".join(statements))
