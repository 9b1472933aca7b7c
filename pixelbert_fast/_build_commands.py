"""The build commands that setup.py hands to setuptools: they compile what `_build` decided and record it.

Needs setuptools, and torch only where there is something to compile.
"""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from . import _build, _build_cuda, _build_host, environment

_NAME = "pixelbert_fast._C"
_COMMANDS = frozenset({"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"})
_WARNINGS = ["-Wno-psabi"]  # vectors are passed only to functions that are always inlined


def setup_arguments(root: Path, arguments: list[str]) -> dict[str, Any]:
    """Return the arguments of `setuptools.setup` that build `csrc/`, for the commands in `arguments`.

    Commands that build nothing (metadata, sdist) decide nothing, so that the table is printed once.
    """
    if not _COMMANDS.intersection(arguments):
        return {}
    mode = environment.BUILD.read()
    machine = _build.find_machine(root)
    decision = _build.decide(mode, machine, in_place=_builds_in_place(arguments))
    print(f"pixelbert_fast native code\n{_build.table(mode, machine, decision)}", flush=True)
    record = _build.record_of(mode, machine, decision)
    if not decision.cpu:
        return {"cmdclass": {"build_py": _build_py(record)}}
    record["flags"] = [*_build_cuda.FLAGS, *_WARNINGS]
    _put_ninja_on_the_path()
    return {
        "cmdclass": {"build_py": _build_py(record), "build_ext": _build_ext(record, machine, decision, mode)},
        "ext_modules": [_extension(machine, optional=mode != "force")],
        "options": {"bdist_wheel": {"py_limited_api": "cp311"}},
    }


def _builds_in_place(arguments: list[str]) -> bool:
    return not {"develop", "editable_wheel"}.isdisjoint(arguments) or (
        "build_ext" in arguments and not {"--inplace", "-i"}.isdisjoint(arguments)
    )


def _put_ninja_on_the_path() -> None:
    """torch looks for ninja on the path only, where a Python that is called by its own path has none."""
    ninja = _build_host.find_ninja()
    if ninja and shutil.which("ninja") is None:
        os.environ["PATH"] = f"{Path(ninja).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _build_py(record: dict[str, Any]) -> type:
    from setuptools.command.build_py import build_py

    class RecordingBuildPy(build_py):
        def run(self) -> None:
            super().run()
            in_source = self.get_package_dir("pixelbert_fast")
            package = in_source if self.editable_mode else f"{self.build_lib}/pixelbert_fast"
            _build.write_record(Path(package), record)

    return RecordingBuildPy


def _build_ext(record: dict[str, Any], machine: _build.Machine, decision: _build.Decision, mode: str) -> type:
    from torch.utils.cpp_extension import BuildExtension

    class RecordingBuildExt(BuildExtension):
        """Unless forced, a compiler that fails leaves a package without native code and a record of why."""

        def build_extensions(self) -> None:
            (extension,) = self.extensions
            host: Any = nullcontext()
            if decision.host:
                directory = Path(self.build_temp, "host").absolute()
                host = _build_host.building(machine, record, directory, optional=extension.optional)
            try:
                with host:
                    super().build_extensions()
            except Exception as error:
                if not extension.optional:
                    raise
                reason = f"compiling failed: {(str(error) or type(error).__name__).splitlines()[0]}"
                print(f"pixelbert_fast: no native code, {reason}", flush=True)
                for part in ("cpu", "cuda", "host"):
                    record[part] = {"built": False, "reason": reason}
            package = Path(self.build_lib, self.get_ext_filename(_NAME)).parent
            if decision.cuda and record["cpu"]["built"]:
                self.build_cuda(package / _build_cuda.LIBRARY)
            _build.write_record(package, record)

        def build_cuda(self, library: Path) -> None:
            try:
                _build_cuda.build(machine, Path(self.build_temp, "cuda"), library)
            except Exception as error:
                if mode == "force":
                    raise
                library.unlink(missing_ok=True)
                reason = f"compiling failed: {(str(error) or type(error).__name__).splitlines()[0]}"
                print(f"pixelbert_fast: no CUDA part, {reason}", flush=True)
                record["cuda"] = {"built": False, "reason": reason}

        def copy_extensions_to_source(self) -> None:
            super().copy_extensions_to_source()
            package = Path(self.get_finalized_command("build_py").get_package_dir("pixelbert_fast"))
            if not record["cpu"]["built"]:  # one from an earlier build would not be what the record says
                (package / Path(self.get_ext_filename(_NAME)).name).unlink(missing_ok=True)
            (package / _build_cuda.LIBRARY).unlink(missing_ok=True)
            if record["cuda"]["built"]:
                built = Path(self.build_lib, self.get_ext_filename(_NAME)).with_name(_build_cuda.LIBRARY)
                shutil.copy2(built, package)
            if not record["host"]["built"]:
                (package / _build_host.library_name()).unlink(missing_ok=True)
            _build.write_record(package, record)

    return RecordingBuildExt


def _extension(machine: _build.Machine, *, optional: bool) -> Any:
    from torch.utils.cpp_extension import CppExtension

    return CppExtension(
        _NAME,
        list(machine.cpp_sources),
        extra_compile_args={"cxx": [*_build_cuda.FLAGS, *_WARNINGS]},
        depends=list(machine.headers),
        py_limited_api=True,
        optional=optional,
    )
