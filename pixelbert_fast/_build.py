"""What an installation builds of `csrc/`: the decision, its table, and the record left beside the extension.

`_build_commands` does what is decided here.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _build_host, environment
from .errors import RunError

RECORD = "_build_record.json"
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"


@dataclass(frozen=True)
class Machine:
    """What was found: sources, compilers, torch. A missing thing is None or empty."""

    cpp_sources: tuple[str, ...] = ()
    cuda_sources: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    host_source: str | None = None
    compiler: str | None = None
    nvcc: str | None = None
    torch: str | None = None
    torch_cuda: str | None = None
    architectures: str = DEFAULT_ARCHITECTURES
    pybind11: str | None = None
    pybind11_name: str = "none"
    python_headers: str | None = None


@dataclass(frozen=True)
class Decision:
    """Which parts are built, and the sentence that says why for each."""

    cpu: bool
    cpu_reason: str
    cuda: bool
    cuda_reason: str
    host: bool = False
    host_reason: str = ""


def find_machine(root: Path) -> Machine:
    """Look at the sources under `root` and at this machine; torch is imported only where needed."""
    sources = root / "csrc"
    host = root / _build_host.SOURCE
    cpp = tuple(sorted(str(path.relative_to(root)) for path in sources.rglob("*.cpp") if path != host))
    cuda = tuple(sorted(str(path.relative_to(root)) for path in sources.rglob("*.cu")))
    headers = tuple(sorted(str(path.relative_to(root)) for path in sources.rglob("*.h")))
    version, cuda_version = _torch_versions() if cpp or cuda else (None, None)
    pybind11, pybind11_name = _build_host.find_pybind11()
    return Machine(
        cpp_sources=cpp,
        cuda_sources=cuda,
        headers=headers,
        host_source=_build_host.SOURCE if host.is_file() else None,
        compiler=_first_program(os.environ.get("CXX"), "c++", "g++", "clang++"),
        nvcc=_first_program(
            *(f"{os.environ[home]}/bin/nvcc" for home in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(home)),
            "nvcc",
            "/usr/local/cuda/bin/nvcc",
        ),
        torch=version,
        torch_cuda=cuda_version,
        architectures=os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip() or DEFAULT_ARCHITECTURES,
        pybind11=pybind11,
        pybind11_name=pybind11_name,
        python_headers=_build_host.find_python_headers(),
    )


def decide(mode: str, machine: Machine, *, in_place: bool = False) -> Decision:
    """Decide which parts are built in `mode` (auto, force or skip); the host module only `in_place`.

    Raises:
        RunError: in mode force, when there are sources and they cannot be built here.
    """
    cpu, cpu_reason = _decide_cpu(mode, machine)
    if mode == "force" and machine.cpp_sources and not cpu:
        raise RunError(f"{environment.BUILD.name}=force, but the native code cannot be built: {cpu_reason}")
    cuda, cuda_reason = _decide_cuda(mode, machine, cpu)
    host, host_reason = _decide_host(machine, cpu, in_place)
    return Decision(cpu, cpu_reason, cuda, cuda_reason, host, host_reason)


def _decide_cpu(mode: str, machine: Machine) -> tuple[bool, str]:
    if not machine.cpp_sources:
        return False, "csrc/ holds no C++ source"
    if mode == "skip":
        return False, f"{environment.BUILD.name}=skip"
    if machine.compiler is None:
        return False, "no C++ compiler found; install one or name it in CXX"
    if machine.torch is None:
        return False, "torch cannot be imported by the build; install it first and pass --no-build-isolation"
    return True, f"{machine.compiler} and torch {machine.torch}"


def _decide_cuda(mode: str, machine: Machine, cpu: bool) -> tuple[bool, str]:
    if not machine.cuda_sources:
        return False, "csrc/ holds no CUDA source"
    if not cpu:
        return False, "the C++ part it belongs to is not built"
    if machine.nvcc is None:
        return False, "no nvcc found; install the CUDA toolkit or name it in CUDA_HOME"
    if machine.torch_cuda is None and mode != "force":
        return (
            False,
            f"torch {machine.torch} has no CUDA; {environment.BUILD.name}=force builds it all the same",
        )
    return True, f"{machine.nvcc} for {machine.architectures}"


def _decide_host(machine: Machine, cpu: bool, in_place: bool) -> tuple[bool, str]:
    if machine.host_source is None:
        return False, f"there is no {_build_host.SOURCE}"
    if not cpu:
        return False, "the C++ part it belongs to is not built"
    if not in_place:
        return False, "it serves one Python version and a wheel many; a checkout builds it for its tests"
    if machine.pybind11 is None:
        return False, "no headers of pybind11 found; `pip install pybind11` adds them"
    if machine.python_headers is None:
        return False, "Python's headers (Python.h) are not installed"
    return True, f"{machine.compiler} and {machine.pybind11_name}"


def table(mode: str, machine: Machine, decision: Decision) -> str:
    """Return the decision table, one line a fact and one line a part."""
    torch = "not needed" if not machine.cpp_sources else machine.torch or "not importable"
    if machine.torch:
        torch += f" (CUDA {machine.torch_cuda})" if machine.torch_cuda else " (no CUDA)"
    rows = [
        (environment.BUILD.name, mode),
        ("sources", f"{len(machine.cpp_sources)} C++, {len(machine.cuda_sources)} CUDA"),
        ("C++ compiler", machine.compiler or "none"),
        ("nvcc", machine.nvcc or "none"),
        ("torch", torch),
        ("TORCH_CUDA_ARCH_LIST", machine.architectures),
        ("pybind11", machine.pybind11_name),
        ("C++ part", f"{'built' if decision.cpu else 'not built'}: {decision.cpu_reason}"),
        ("CUDA part", f"{'built' if decision.cuda else 'not built'}: {decision.cuda_reason}"),
        ("host part", f"{'built' if decision.host else 'not built'}: {decision.host_reason}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def write_record(package: Path, record: dict[str, Any]) -> None:
    """Write the build record into the directory `package`."""
    package.mkdir(parents=True, exist_ok=True)
    (package / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_record(package: Path) -> dict[str, Any]:
    """Return the build record in the directory `package`.

    Raises:
        RunError: there is none, or none that can be read.
    """
    try:
        record = json.loads((package / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"there is no {RECORD} in {package}; an installation writes it") from None
    except (OSError, ValueError) as error:
        raise RunError(
            f"{package / RECORD} cannot be read ({error}); an installation writes it anew"
        ) from None
    if not isinstance(record, dict):
        raise RunError(f"{package / RECORD} holds no record; an installation writes it anew")
    return record


def why_not_built(package: Path, part: str) -> str:
    """Say why an installation's `part` (cpu, cuda or host) is not there, by the record in `package`."""
    try:
        told = read_record(package)[part]
        return "its file is gone" if told["built"] else told["reason"]
    except (RunError, KeyError, TypeError):
        return "no build has left a record"


def record_of(mode: str, machine: Machine, decision: Decision) -> dict[str, Any]:
    """Return what the build record says: what was built with what, and why not the rest."""
    return {
        "mode": mode,
        "python": platform.python_version(),
        "compiler": machine.compiler if decision.cpu else None,
        "nvcc": machine.nvcc if decision.cuda else None,
        "torch": machine.torch,
        "torch_cuda": machine.torch_cuda,
        "architectures": machine.architectures if decision.cuda else None,
        "cpu": {"built": decision.cpu, "reason": decision.cpu_reason},
        "cuda": {"built": decision.cuda, "reason": decision.cuda_reason},
        "host": {"built": decision.host, "reason": decision.host_reason},
    }


def _torch_versions() -> tuple[str | None, str | None]:
    try:
        import torch
    except Exception:  # a broken torch fails in many ways, and each means that nothing can be built with it
        return None, None
    return torch.__version__, torch.version.cuda


def _first_program(*candidates: str | None) -> str | None:
    for candidate in candidates:
        found = shutil.which(candidate) if candidate else None
        if found:
            return found
    return None
