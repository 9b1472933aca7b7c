"""The CUDA sources where there is no GPU: they compile, spill nothing and register what Python calls.

And what is said where the backend cannot run, or its library cannot be built.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from setuptools import Distribution

from pixelbert_fast import _build, _build_commands, _build_cuda, ops
from pixelbert_fast.ops import cpu_backend, cuda_backend
from tests.test_packaging import SMALLEST_SOURCE, build_wheel, copy_tree, record_in

ROOT = Path(__file__).resolve().parent.parent
MACHINE = _build.find_machine(ROOT)
FLOAT = torch.float32


@pytest.mark.skipif(MACHINE.nvcc is None, reason="no nvcc here")
def test_every_kernel_compiles_without_warnings_and_spills_nothing() -> None:
    command = [sys.executable, "benchmarks/cuda_static.py", "--json", "sm_90"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(ran.stdout)
    assert {row["source"] for row in rows} == {Path(source).name for source in MACHINE.cuda_sources}
    kernels = {(row["kernel"], row["work"], row["elements"]) for row in rows}
    assert len(kernels) == len(rows) == 30
    assert not [row for row in rows if row["spills"] or row["stack"]]
    assert not [row for row in rows if row["shared"] > 48 << 10]  # what a block has without asking for more


@pytest.mark.skipif(cuda_backend.library_path() is None, reason="the CUDA part was not built here")
@pytest.mark.skipif(cpu_backend.why_not_loaded() is not None, reason="the C++ part was not built here")
def test_the_library_registers_its_kernels() -> None:
    """Loaded lazily, so that a torch without CUDA does, too; in a process of its own."""
    code = """
import ctypes, os, torch
from pixelbert_fast.ops import cpu_backend, cuda_backend
from tests.test_packaging import SMALLEST_SOURCE, build_wheel, copy_tree, record_in
assert cpu_backend.why_not_loaded() is None
ctypes.CDLL(str(cuda_backend.library_path()), mode=os.RTLD_LAZY)
for op in ("pool_gather_forward", "pool_gather_backward", "sample_positions"):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pixelbert_fast_native::{op}", "CUDA"), op
if not torch.cuda.is_available():
    print(cuda_backend.why_not_started(0))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    if not torch.cuda.is_available():  # whatever the driver is, kernels do not run without a GPU
        assert ran.stdout.startswith("its kernels do not run on cuda:0: ")
        assert "TORCH_CUDA_ARCH_LIST" in ran.stdout


def test_why_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    why_not = cuda_backend.why_not
    assert why_not("pool_gather", "cpu", FLOAT) == "it takes CUDA tensors, and these are on cpu."
    assert "no kernel of its own" in why_not("pixel_embed", "cuda", FLOAT)
    assert "no kernel for torch.int32" in why_not("pool_gather", "cuda", torch.int32)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "ROCm" in why_not("pool_gather", "cuda", FLOAT)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why_not("pool_gather", "cuda", FLOAT) == "torch sees no GPU on this machine."
    with pytest.raises(ops.BackendError, match="'cuda' cannot run: it takes CUDA tensors"):
        ops.pool_gather(torch.randn(1, 3, 4, 4), torch.tensor([[0]]), backend="cuda")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(cuda_backend, "PACKAGE", tmp_path)
    monkeypatch.setattr(cuda_backend, "why_not_loaded", cuda_backend.why_not_loaded.__wrapped__)
    assert "not built (no build has left a record)" in why_not("sample_positions", "cuda", FLOAT)
    machine = _build.Machine(cpp_sources=("a.cpp",), cuda_sources=("a.cu",), compiler="/c++", torch="2.13.0")
    decision = _build.decide("auto", machine)
    _build.write_record(tmp_path, _build.record_of("auto", _build.Machine(), decision))
    assert "not built (no nvcc found; install" in why_not("sample_positions", "cuda", FLOAT)
    (tmp_path / "_C_cuda.abi3.so").write_bytes(b"not a library")
    if cpu_backend.why_not_loaded() is None:
        assert f"does not load into torch {torch.__version__}" in why_not("pool_gather", "cuda", FLOAT)


@pytest.mark.skipif(
    MACHINE.nvcc is None or MACHINE.compiler is None, reason="no nvcc or no C++ compiler here"
)
@pytest.mark.parametrize("works", [True, False])
def test_force_builds_a_second_library_or_fails(works: bool, tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    for source in (tree / "csrc").rglob("*.c*"):
        source.unlink()
    (tree / "csrc" / "smallest.cpp").write_text(SMALLEST_SOURCE)
    (tree / "csrc" / "smallest.cu").write_text(
        "__global__ void nothing() {}" if works else "__global__ void broken( {"
    )
    built, printed = build_wheel(tree, "force")
    if not works:
        assert built is None and "smallest.cu" in printed
        return
    assert built is not None, printed
    with zipfile.ZipFile(built) as archive:
        libraries = {name for name in archive.namelist() if name.endswith(".so")}
    assert libraries == {"pixelbert_fast/_C.abi3.so", f"pixelbert_fast/{_build_cuda.LIBRARY}"}
    assert record_in(built)["cuda"]["built"]


@pytest.mark.parametrize("mode", ["auto", "force"])
def test_a_cuda_part_that_fails_leaves_the_cpu_part_and_a_record(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_):
        raise RuntimeError("nvcc knows no such GPU")

    monkeypatch.setattr(_build_cuda, "build", fail)
    machine = _build.Machine(("a.cpp",), ("a.cu",), (), "/c++", "/nvcc", "2.13.0", "13.0")
    decision = _build.decide(mode, machine)
    record = _build.record_of(mode, machine, decision)
    command = _build_commands._build_ext(record, machine, decision, mode)(Distribution())
    command.build_temp = str(tmp_path)
    if mode == "force":
        with pytest.raises(RuntimeError, match="no such GPU"):
            command.build_cuda(tmp_path / _build_cuda.LIBRARY)
        return
    command.build_cuda(tmp_path / _build_cuda.LIBRARY)
    assert record["cpu"]["built"]
    assert record["cuda"] == {"built": False, "reason": "compiling failed: nvcc knows no such GPU"}


@pytest.mark.skipif(
    MACHINE.nvcc is None or MACHINE.compiler is None, reason="no nvcc or no C++ compiler here"
)
def test_it_builds_without_ninja(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils import cpp_extension

    monkeypatch.setattr(cpp_extension, "is_ninja_available", lambda: False)
    source = tmp_path / "smallest.cu"
    source.write_text("__global__ void nothing() {}")
    machine = replace(MACHINE, cuda_sources=(str(source),), architectures="9.0")
    _build_cuda.build(machine, tmp_path / "objects", tmp_path / _build_cuda.LIBRARY)
    assert (tmp_path / _build_cuda.LIBRARY).is_file()
