"""Compile `csrc/**/*.cu` into a library of its own, with nvcc and a linker, through ninja where there is one.

A library of its own, because it needs symbols that only a torch with CUDA has: beside a torch without, the
C++ part still loads, and this one is never asked for. It has its own CUDA runtime in it (static), so that any
nvcc serves any torch. nvcc is called from here, because torch's own helper refuses where torch has no CUDA,
and sources that keep to the stable ABI need only its headers.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ._build import Machine

LIBRARY = "_C_cuda.abi3.so"
# The oldest torch whose stable interface the sources use; the built library runs on it and on later ones.
TORCH_TARGET = "0x020b000000000000"
FLAGS = ["-O3", "-std=c++17", f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"]


def build(machine: Machine, directory: Path, library: Path) -> None:
    """Compile and link `library`; objects are kept in `directory`, and what is up to date stays.

    Raises:
        subprocess.CalledProcessError: nvcc or the linker failed; they have printed why.
    """
    from torch.utils.cpp_extension import is_ninja_available

    directory.mkdir(parents=True, exist_ok=True)
    library.parent.mkdir(parents=True, exist_ok=True)
    objects = {source: directory.resolve() / f"{Path(source).stem}.o" for source in machine.cuda_sources}
    compile_ = compile_command(machine)
    link = link_command(machine, list(objects.values()), library)
    if is_ninja_available():
        script = directory / "build.ninja"
        script.write_text(ninja_script(compile_, link, objects, library, directory), encoding="utf-8")
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS", "").isdigit() else []
        subprocess.run(["ninja", "-f", script, *jobs], check=True)
        return
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        commands = [[*compile_, "-c", source, "-o", str(made)] for source, made in objects.items()]
        list(pool.map(_run, commands))
    _run(link)


def compile_command(machine: Machine) -> list[str]:
    """nvcc and its flags; `-c source -o object` is left to add."""
    from torch.utils.cpp_extension import include_paths

    includes = [f"-isystem={path}" for path in include_paths("cpu")]
    host = ["-Xcompiler", "-fPIC", *(["-ccbin", machine.compiler] if machine.compiler else [])]
    return [machine.nvcc, *FLAGS, "-DUSE_CUDA", *host, *includes, *architecture_flags(machine.architectures)]


def link_command(machine: Machine, objects: list[Path], library: Path) -> list[str]:
    """The linker's command.

    libtorch.so is named although nothing of it is used: in a torch with CUDA it brings libtorch_cuda.so,
    which cannot be named where this is built beside a torch without.
    """
    from torch.utils.cpp_extension import library_paths

    places = [*library_paths("cpu"), *toolkit_libraries(machine.nvcc)]
    return [
        machine.compiler,
        "-shared",
        *map(str, objects),
        *(f"-L{place}" for place in places),
        "-Wl,--no-as-needed,-lc10,-ltorch_cpu,-ltorch,--as-needed",
        *("-lcudart_static", "-ldl", "-lrt", "-lpthread"),
        "-Wl,--exclude-libs,libcudart_static.a",
        *("-o", str(library)),
    ]


def toolkit_libraries(nvcc: str) -> list[Path]:
    """Where the toolkit of `nvcc` keeps its libraries: nvcc is asked, which may be a script elsewhere."""
    printed = subprocess.run([nvcc, "-dryrun", "-x", "cu", "-E", os.devnull], capture_output=True, text=True)
    top_line = re.search(r"^#\$ TOP=(.*)$", printed.stderr, re.M)
    top = Path(top_line[1].strip()) if top_line else Path(nvcc).resolve().parent.parent
    candidates = [top / "lib64", top / "lib", *top.glob("targets/*/lib")]
    return [path for path in candidates if (path / "libcudart_static.a").is_file()]


def ninja_script(
    compile_: list[str], link: list[str], objects: dict[str, Path], library: Path, directory: Path
) -> str:
    """A build of the objects and the library; nvcc says which headers each source includes."""
    root = Path.cwd()
    lines = [
        "ninja_required_version = 1.3",
        f"builddir = {_path(directory.resolve())}",
        "rule compile",
        f"  command = {_quoted(compile_)} -MD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = {_quoted(link)}",
    ]
    lines += [f"build {_path(made)}: compile {_path(root / source)}" for source, made in objects.items()]
    lines.append(f"build {_path(library.resolve())}: link {' '.join(map(_path, objects.values()))}")
    return "\n".join(lines) + "\n"


def architecture_flags(architectures: str) -> list[str]:
    """Turn TORCH_CUDA_ARCH_LIST, such as `8.0;9.0+PTX`, into nvcc's flags."""
    flags = []
    for architecture in architectures.replace(" ", ";").split(";"):
        if not architecture:
            continue
        number = architecture.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if architecture.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


def _quoted(command: list[str]) -> str:
    return shlex.join(map(str, command)).replace("$", "$$")


def _path(path: Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
