"""The C++ kernels compile by other compilers and for other processors, wherever such a compiler is found."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

from pixelbert_fast import _build_cuda

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path.relative_to(ROOT) for path in [*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/cpu/*.cpp")])


@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("compiler", ["aarch64-linux-gnu-g++", "clang++"])
def test_it_compiles(compiler: str, source: Path, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    flags = [flag for flag in _build_cuda.FLAGS if flag != "-O3"]
    includes = [f"-isystem{path}" for path in include_paths("cpu")]
    command = [compiler, *flags, "-Wall", "-Wno-psabi", "-Werror", "-fPIC", *includes]
    ran = subprocess.run(
        [*command, "-c", str(source), "-o", str(tmp_path / "object.o")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
