"""Whether this machine can compile: said right where it can, and in a sentence where it cannot."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixelbert_fast.model.compilation import can_compile, compiles_or_warns

ROOT = Path(__file__).resolve().parent.parent

# Where no compiler is said to be, Inductor must fail too, or a machine that could compile would not.
ASK = """
import logging
logging.basicConfig(level=logging.WARNING, format="%(message)s")
import torch
from pixelbert_fast.model.compilation import can_compile, compiles_or_warns

print(can_compile("cpu"))
print(compiles_or_warns("cpu", "the model"), compiles_or_warns("cpu", "the model"))
try:
    torch.compile(lambda x: x.sin() + 1)(torch.ones(64))
    print("Inductor compiled")
except Exception as error:
    print("Inductor failed")
"""


def ask(tmp_path: Path, **environment: str) -> tuple[list[str], list[str]]:
    """What `ASK` prints with these variables, and what it warns of."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    for name in ("CXX", "TORCH_COMPILE_DISABLE"):
        variables.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=variables | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    warned = [line for line in done.stderr.splitlines() if line.startswith("the model runs without")]
    return done.stdout.splitlines(), warned


def broken_compiler(directory: Path) -> Path:
    """A compiler that tells its version and can do nothing else, as one without its headers."""
    program = directory / "broken-c++"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no headers" >&2\nexit 1\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return program


@pytest.mark.parametrize("hidden", ["cxx", "path", "headers"])
def test_a_machine_without_a_compiler_is_told_in_a_sentence(hidden: str, tmp_path: Path) -> None:
    environment = {
        "cxx": {"CXX": str(tmp_path / "no-such-compiler")},
        "path": {"PATH": str(tmp_path)},
        "headers": {"CXX": str(broken_compiler(tmp_path))},
    }[hidden]
    printed, warned = ask(tmp_path, **environment)
    assert "C++ compiler" in printed[0]
    assert printed[1:] == ["False False", "Inductor failed"]
    assert len(warned) == 1


def test_switched_off_is_a_reason(tmp_path: Path) -> None:
    printed, _ = ask(tmp_path, TORCH_COMPILE_DISABLE="1")
    assert "switched off" in printed[0]


def test_devices() -> None:
    assert can_compile(torch.device("cpu")) == can_compile("cpu")
    assert "meta" in can_compile("meta")
    assert not compiles_or_warns("meta", "nothing")
    if not torch.cuda.is_available():
        assert can_compile("cuda:0") == "torch sees no GPU"
