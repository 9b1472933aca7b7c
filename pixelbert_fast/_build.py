"""What an installation builds of `csrc/`: the decision, its table, and the record left beside the extension.

setup.py imports this module; it needs setuptools, and torch only where there is something to build.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import environment
from .errors import RunError

RECORD = "_build_record.json"
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"
BUILDING_COMMANDS = frozenset({"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"})


@dataclass(frozen=True)
class Machine:
    """What was found: sources, compilers, torch. A missing thing is None or empty."""

    cpp_sources: tuple[str, ...] = ()
    cuda_sources: tuple[str, ...] = ()
    compiler: str | None = None
    nvcc: str | None = None
    torch: str | None = None
    torch_cuda: str | None = None
    architectures: str = DEFAULT_ARCHITECTURES


@dataclass(frozen=True)
class Decision:
    """Which parts are built, and the sentence that says why for each."""

    cpu: bool
    cpu_reason: str
    cuda: bool
    cuda_reason: str


def find_machine(root: Path) -> Machine:
    """Look at the sources under `root` and at this machine; torch is imported only where needed."""
    sources = root / "csrc"
    cpp = tuple(sorted(str(path.relative_to(root)) for path in sources.rglob("*.cpp")))
    cuda = tuple(sorted(str(path.relative_to(root)) for path in sources.rglob("*.cu")))
    version, cuda_version = _torch_versions() if cpp or cuda else (None, None)
    return Machine(
        cpp_sources=cpp,
        cuda_sources=cuda,
        compiler=_first_program(os.environ.get("CXX"), "c++", "g++", "clang++"),
        nvcc=_first_program(
            *(f"{os.environ[home]}/bin/nvcc" for home in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(home)),
            "nvcc",
            "/usr/local/cuda/bin/nvcc",
        ),
        torch=version,
        torch_cuda=cuda_version,
        architectures=os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip() or DEFAULT_ARCHITECTURES,
    )


def decide(mode: str, machine: Machine) -> Decision:
    """Decide which parts are built in `mode` (auto, force or skip).

    Raises:
        RunError: in mode force, when there are sources and they cannot be built here.
    """
    cpu, cpu_reason = _decide_cpu(mode, machine)
    if mode == "force" and machine.cpp_sources and not cpu:
        raise RunError(f"{environment.BUILD.name}=force, but the native code cannot be built: {cpu_reason}")
    cuda, cuda_reason = _decide_cuda(mode, machine, cpu)
    return Decision(cpu, cpu_reason, cuda, cuda_reason)


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
        ("C++ part", f"{'built' if decision.cpu else 'not built'}: {decision.cpu_reason}"),
        ("CUDA part", f"{'built' if decision.cuda else 'not built'}: {decision.cuda_reason}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def native_parts(root: Path, arguments: list[str]) -> dict[str, Any]:
    """Return the arguments of `setuptools.setup` that build `csrc/`, for the commands in `arguments`.

    Commands that build nothing (metadata, sdist) decide nothing, so that the table is printed once.
    """
    if not BUILDING_COMMANDS.intersection(arguments):
        return {}
    mode = environment.BUILD.read()
    machine = find_machine(root)
    decision = decide(mode, machine)
    print(f"pixelbert_fast native code\n{table(mode, machine, decision)}", flush=True)
    record = {
        "mode": mode,
        "compiler": machine.compiler,
        "nvcc": machine.nvcc if decision.cuda else None,
        "torch": machine.torch,
        "torch_cuda": machine.torch_cuda,
        "architectures": machine.architectures if decision.cuda else None,
        "cpu": {"built": decision.cpu, "reason": decision.cpu_reason},
        "cuda": {"built": decision.cuda, "reason": decision.cuda_reason},
    }
    parts: dict[str, Any] = {"cmdclass": {"build_py": _recording_build_py(record)}}
    if decision.cpu:
        parts["ext_modules"] = [_extension(machine, decision)]
        parts["cmdclass"]["build_ext"] = _recording_build_ext(record, required=mode == "force")
        parts["options"] = {"bdist_wheel": {"py_limited_api": "cp311"}}
    return parts


def _recording_build_py(record: dict[str, Any]) -> type:
    from setuptools.command.build_py import build_py

    class RecordingBuildPy(build_py):
        def run(self) -> None:
            super().run()
            in_place = self.editable_mode
            package = (
                self.get_package_dir("pixelbert_fast") if in_place else f"{self.build_lib}/pixelbert_fast"
            )
            write_record(Path(package), record)

    return RecordingBuildPy


def _recording_build_ext(record: dict[str, Any], *, required: bool) -> type:
    from torch.utils.cpp_extension import BuildExtension

    class RecordingBuildExt(BuildExtension):
        """Unless forced, a compiler that fails leaves a pure Python package and a record of why."""

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                if required:
                    raise
                first_line = (str(error) or type(error).__name__).splitlines()[0]
                reason = f"the compiler failed: {first_line}"
                print(f"pixelbert_fast: no native code, {reason}", flush=True)
                for part in ("cpu", "cuda"):
                    record[part] = {"built": False, "reason": reason}
                self.extensions.clear()
            library = Path(self.get_ext_fullpath("pixelbert_fast._C"))
            write_record(library.parent, record)

    return RecordingBuildExt


def write_record(package: Path, record: dict[str, Any]) -> None:
    """Write the build record into the directory `package`."""
    package.mkdir(parents=True, exist_ok=True)
    (package / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _extension(machine: Machine, decision: Decision) -> Any:
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    flags = {"cxx": ["-O3", "-std=c++17"]}
    if not decision.cuda:
        return CppExtension(
            "pixelbert_fast._C", list(machine.cpp_sources), extra_compile_args=flags, py_limited_api=True
        )
    os.environ["TORCH_CUDA_ARCH_LIST"] = machine.architectures
    flags["nvcc"] = ["-O3", "-std=c++17", "-DUSE_CUDA"]
    sources = [*machine.cpp_sources, *machine.cuda_sources]
    return CUDAExtension("pixelbert_fast._C", sources, extra_compile_args=flags, py_limited_api=True)


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
