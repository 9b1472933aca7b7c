"""The CUDA sources compile where there is no GPU, spill nothing, and register what Python calls; and what is said
where the backend cannot run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixelbert_fast import _build, ops
from pixelbert_fast.ops import cpu_backend, cuda_backend

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
    decision = _build.decide("auto", _build.Machine(("a.cpp",), ("a.cu",), (), "/c++", None, "2.13.0"))
    _build.write_record(tmp_path, _build.record_of("auto", _build.Machine(), decision))
    assert "not built (no nvcc found; install" in why_not("sample_positions", "cuda", FLOAT)
    (tmp_path / "_C_cuda.abi3.so").write_bytes(b"not a library")
    if cpu_backend.why_not_loaded() is None:
        assert f"does not load into torch {torch.__version__}" in why_not("pool_gather", "cuda", FLOAT)
