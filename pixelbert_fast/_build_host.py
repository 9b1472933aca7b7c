"""How `pixelbert_fast._host` is built: the headers of `csrc/` that host and device share, for Python.

It is built in a checkout only: a wheel of this package serves every Python from 3.11 on, and a module made
with pybind11 the one it was compiled for. ninja compiles it beside the library, and again only when its
source, a header that it includes, or a flag has changed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RunError

if TYPE_CHECKING:
    from ._build import Machine

NAME = "_host"
SOURCE = "csrc/host/module.cpp"
_FLAGS = ("-O2", "-std=c++17", "-fPIC", "-fvisibility=hidden")


def find_pybind11() -> tuple[str | None, str]:
    """Return where pybind11's headers are (None: nowhere) and whose: its package's, else torch's."""
    for package, name in (("pybind11", "pybind11"), ("torch", "torch's pybind11")):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations if spec else None) or ():
            if (Path(place) / "include" / "pybind11" / "pybind11.h").is_file():
                version = f" {importlib.metadata.version(package)}" if package == "pybind11" else ""
                return str(Path(place) / "include"), name + version
    return None, "none"


def find_python_headers() -> str | None:
    """Return the directory of this Python's `Python.h`, or None where it is not installed."""
    directory = sysconfig.get_path("include")
    return directory if (Path(directory) / "Python.h").is_file() else None


def library_name() -> str:
    """Return the file name under which this Python imports the module."""
    return NAME + sysconfig.get_config_var("EXT_SUFFIX")


def find_ninja() -> str | None:
    """Return ninja, which pip may have put beside a Python whose directory is not on the path."""
    return shutil.which("ninja") or shutil.which("ninja", path=sysconfig.get_path("scripts"))


def ninja_file(compiler: str, flags: list[str], source: Path, library: Path) -> str:
    """Return a ninja file that compiles `source`, links `library`, and follows the headers they include."""
    return "\n".join(
        [
            "ninja_required_version = 1.3",
            f"compiler = {_in_command(compiler)}",
            f"flags = {_in_command(*flags)}",
            "rule compile",
            "  command = $compiler $flags -MMD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "rule link",
            f"  command = $compiler {' '.join(_linking())} $in -o $out",
            f"build {source.stem}.o: compile {_as_path(source)}",
            f"build {_as_path(library)}: link {source.stem}.o",
            "",
        ]
    )


def flags_of(pybind11: str, python_headers: str) -> list[str]:
    """Return the compiler's flags; those that matter to a reader are compiled in as the module's record."""
    record = f'-DPIXELBERT_BUILD_FLAGS="{" ".join(_FLAGS)}"'
    return [*_FLAGS, f"-isystem{pybind11}", f"-isystem{python_headers}", record]


@contextmanager
def building(machine: Machine, record: dict[str, Any], directory: Path, *, optional: bool) -> Iterator[None]:
    """Compile the module while the block runs, into the package beside this file.

    Args:
        machine: what was found, with all that the module needs.
        record: the build record, corrected where compiling fails.
        directory: where objects stay from build to build.

    Raises:
        RunError: compiling failed, unless `optional`.
    """
    library = Path(__file__).resolve().parent / library_name()
    process = _start(machine, library, directory)
    try:
        yield
    except BaseException:
        process.terminate()
        process.communicate()
        raise
    printed, _ = process.communicate()
    if process.returncode == 0:
        return
    library.unlink(missing_ok=True)
    reason = "compiling failed; the compiler's messages are above"
    print(f"{printed}\npixelbert_fast: no host module, {reason}", flush=True)
    if not optional:
        raise RunError(f"the host module {machine.host_source} could not be built: {reason}")
    record["host"] = {"built": False, "reason": reason}


def _start(machine: Machine, library: Path, directory: Path) -> subprocess.Popen[str]:
    """Start ninja; without one, the compiler, which then compiles every time."""
    source = Path(machine.host_source).resolve()
    flags = flags_of(machine.pybind11, machine.python_headers)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "build.ninja").write_text(
        ninja_file(machine.compiler, flags, source, library), encoding="utf-8"
    )
    command = [machine.compiler, *flags, *_linking(), str(source), "-o", str(library)]
    if ninja := find_ninja():
        command = [ninja, "-C", str(directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _linking() -> list[str]:
    return ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]


def _in_command(*words: str) -> str:
    return shlex.join(words).replace("$", "$$")


def _as_path(path: Path) -> str:
    return re.sub(r"([$ :])", r"$\1", str(path))
