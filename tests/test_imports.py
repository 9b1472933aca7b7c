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
OPTIONAL = {"triton", "deepspeed", "datasets", "nvidia", "tensorboard", "typer"}


def modules_after(statements: str) -> list[str]:
    """The modules in a fresh process at the repository root after `statements`, the first imported first."""
    code = f"{statements}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def libraries(modules: list[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def loaded_by(statements: str) -> set[str]:
    """The top-level modules in a fresh process at the repository root after `statements`."""
    return libraries(modules_after(statements))


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not loaded_by("import pixelbert_fast, pixelbert_fast.errors, pixelbert_fast.environment") & HEAVY


def test_the_command_line_starts_without_torch() -> None:
    loaded = loaded_by("import pixelbert_fast.cli")
    assert "typer" in loaded
    assert not loaded & (HEAVY - {"typer"})


def test_the_kernels_directory_imports_without_triton() -> None:
    assert not loaded_by("import pixelbert_fast.kernels.support") & HEAVY


def test_the_ops_need_nothing_but_torch() -> None:
    loaded = loaded_by("import pixelbert_fast\npixelbert_fast.ops.sample_positions")
    assert "torch" in loaded
    assert not loaded & (OPTIONAL | {"transformers"})


def test_using_the_model_adds_no_optional_library() -> None:
    """Transformers loads some where they are installed, triton for one; the model may add none to those."""
    ours = modules_after("import pixelbert_fast\npixelbert_fast.PixelBERT\npixelbert_fast.ops")
    shared = [name for name in ours if name.partition(".")[0] == "transformers"]
    assert "transformers.models.bert.modeling_bert" in shared
    theirs = modules_after(f"import importlib, torch\nfor name in {shared}: importlib.import_module(name)")
    added = libraries(ours) - libraries(theirs)
    assert "pixelbert_fast" in added
    assert not added & OPTIONAL


@pytest.mark.parametrize("order", ["before", "after"])
def test_transformers_still_works_from_the_repository_root(order: str) -> None:
    """`kernels/` lies on the path there, and must not pass for Hugging Face's package of that name."""
    ours, theirs = "import pixelbert_fast.kernels.support", "from transformers import BertModel"
    statements = [ours, theirs] if order == "before" else [theirs, ours]
    assert "transformers" in loaded_by("\n".join(statements))
