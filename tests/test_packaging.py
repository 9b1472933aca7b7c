"""What an installation holds, how a checkout finds its kernels, and what the build decides."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pixelbert_fast import _build, _build_commands, _build_cuda
from pixelbert_fast._build import Machine
from pixelbert_fast.errors import RunError, UserError

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ["pixelbert_fast", "kernels", "csrc", "setup.py", "pyproject.toml", "README.md", "LICENSE"]

# The smallest extension: a module with nothing in it.
SMALLEST_SOURCE = """
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr};
extern "C" PyObject* PyInit__C(void) { return PyModule_Create(&module); }
"""

EVERYTHING = Machine(
    cpp_sources=("csrc/a.cpp",),
    cuda_sources=("csrc/a.cu",),
    compiler="/bin/c++",
    nvcc="/bin/nvcc",
    torch="2.13.0",
    torch_cuda="13.0",
)


def machine_without(*missing: str, **changed: object) -> Machine:
    empty = {name: () if name.endswith("sources") else None for name in missing}
    return Machine(**{**vars(EVERYTHING), **empty, **changed})


def copy_tree(target: Path) -> Path:
    """A copy of what an installation is built from, without what earlier builds left in it."""
    left = shutil.ignore_patterns("__pycache__", "*.so", "_build_record.json")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=left)
        else:
            shutil.copy(ROOT / name, target / name)
    return target


def build_wheel(tree: Path, mode: str) -> tuple[Path | None, str]:
    """Build a wheel of `tree` as pip does; the wheel (None: it failed) and everything that was printed."""
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-build-isolation", "--no-deps"]
    command += ["--no-index", "--no-cache-dir"]
    result = subprocess.run(
        [*command, "--wheel-dir", str(tree / "wheels"), str(tree)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PIXELBERT_FAST_BUILD": mode, "MAX_JOBS": "1"},
    )
    wheels = list((tree / "wheels").glob("*.whl"))
    assert bool(wheels) == (result.returncode == 0), result.stdout
    return (wheels[0] if wheels else None), result.stdout


def record_in(wheel: Path) -> dict:
    with zipfile.ZipFile(wheel) as archive:
        return json.loads(archive.read("pixelbert_fast/_build_record.json"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = copy_tree(tmp_path_factory.mktemp("tree"))
    built, printed = build_wheel(tree, "skip")
    assert built is not None, printed
    assert printed.count("pixelbert_fast native code") == 1
    return built


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"pixelbert_fast"}
    package = {f"pixelbert_fast/{path.relative_to(ROOT / 'pixelbert_fast')}" for path in package_files()}
    kernels = {f"pixelbert_fast/{path.relative_to(ROOT)}" for path in (ROOT / "kernels").rglob("*.py")}
    assert "pixelbert_fast/kernels/support.py" in kernels
    assert names == package | kernels | {"pixelbert_fast/_build_record.json"}


def package_files() -> list[Path]:
    package = ROOT / "pixelbert_fast"
    pages = [*package.glob("visualize/*.css"), *package.glob("visualize/*.js")]
    models = [file for file in package.glob("pretrained/*/*") if file.suffix != ".pyc"]
    return [*package.rglob("*.py"), *package.glob("configs/*.yaml"), *pages, *models]


def test_the_wheel_carries_licence_version_and_command(wheel: Path) -> None:
    import pixelbert_fast

    with zipfile.ZipFile(wheel) as archive:
        told = [name for name in archive.namelist() if ".dist-info/" in name]
        text = {name.rpartition("/")[2]: archive.read(name).decode() for name in told}
    assert f"\nVersion: {pixelbert_fast.__version__}\n" in text["METADATA"]
    assert "\nLicense-Expression: Apache-2.0\n" in text["METADATA"]
    assert text["LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "pixelbert = pixelbert_fast.cli:entry_point" in text["entry_points.txt"]


def where_kernels_are(path: Path, cwd: Path) -> str:
    """The file of `pixelbert_fast.kernels.support`, seen without any installed package (-S) from `cwd`."""
    code = (
        f"import sys; sys.path.insert(0, {str(path)!r}); import pixelbert_fast.kernels.support;"
        " print(pixelbert_fast.kernels.support.__file__)"
    )
    result = subprocess.run([sys.executable, "-S", "-c", code], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("from_root", [True, False])
def test_a_checkout_finds_its_kernels_uninstalled(from_root: bool, tmp_path: Path) -> None:
    found = where_kernels_are(ROOT, ROOT if from_root else tmp_path)
    assert Path(found) == ROOT / "kernels" / "support.py"


@pytest.mark.parametrize("from_root", [True, False])
def test_an_installed_wheel_has_its_own_kernels(wheel: Path, from_root: bool, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    found = where_kernels_are(tmp_path, ROOT if from_root else tmp_path)
    assert Path(found) == tmp_path / "pixelbert_fast" / "kernels" / "support.py"


def test_the_installed_package_finds_its_kernels(tmp_path: Path) -> None:
    code = "import pixelbert_fast.kernels.support as s; print(s.why_not('meta'))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "not on 'meta'" in result.stdout


@pytest.mark.parametrize(
    ("mode", "machine", "cpu", "cuda", "reason"),
    [
        ("auto", EVERYTHING, True, True, ""),
        ("force", EVERYTHING, True, True, ""),
        ("skip", EVERYTHING, False, False, "PIXELBERT_FAST_BUILD=skip"),
        ("auto", machine_without("compiler"), False, False, "no C++ compiler"),
        ("auto", machine_without("torch", "torch_cuda"), False, False, "--no-build-isolation"),
        ("auto", machine_without("nvcc"), True, False, "no nvcc"),
        ("force", machine_without("nvcc"), True, False, "no nvcc"),
        ("auto", machine_without("torch_cuda"), True, False, "torch 2.13.0 has no CUDA"),
        ("force", machine_without("torch_cuda"), True, True, ""),
        ("force", machine_without("cuda_sources"), True, False, "no CUDA source"),
        ("force", machine_without("cpp_sources", "cuda_sources"), False, False, "no C++ source"),
        ("force", machine_without("cpp_sources", "cuda_sources", "compiler"), False, False, "no C++ source"),
    ],
)
def test_the_build_decides(mode: str, machine: Machine, cpu: bool, cuda: bool, reason: str) -> None:
    decision = _build.decide(mode, machine)
    assert (decision.cpu, decision.cuda) == (cpu, cuda)
    assert reason in f"{decision.cpu_reason}\n{decision.cuda_reason}"
    lines = _build.table(mode, machine, decision).splitlines()
    assert lines[0].split() == ["PIXELBERT_FAST_BUILD", mode]
    parts = {line[2:].partition(" part ")[0]: line.partition(" part ")[2].strip() for line in lines[-3:]}
    assert (parts["C++"].startswith("built: "), parts["CUDA"].startswith("built: ")) == (cpu, cuda)
    assert parts["host"].startswith("not built: ")
    record = json.loads(json.dumps(_build.record_of(mode, machine, decision)))
    assert (record["cpu"]["built"], record["cuda"]["built"]) == (cpu, cuda)


@pytest.mark.parametrize("missing", ["compiler", "torch"])
def test_force_fails_where_nothing_can_be_built(missing: str) -> None:
    with pytest.raises(RunError, match="PIXELBERT_FAST_BUILD=force"):
        _build.decide("force", machine_without(missing))


def test_the_machine_is_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    compiler = tmp_path / "my-c++"
    compiler.write_text("#!/bin/sh\n", encoding="utf-8")
    compiler.chmod(0o755)
    (tmp_path / "csrc" / "cpu").mkdir(parents=True)
    (tmp_path / "csrc" / "cpu" / "a.cpp").touch()
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    machine = _build.find_machine(tmp_path)
    assert machine.cpp_sources == ("csrc/cpu/a.cpp",)
    assert machine.cuda_sources == ()
    assert (machine.compiler, machine.architectures) == (str(compiler), "9.0")
    assert (machine.torch, machine.torch_cuda) == (torch.__version__, torch.version.cuda)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    assert _build.find_machine(tmp_path).architectures == "8.0;9.0+PTX"


def test_commands_that_build_nothing_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELBERT_FAST_BUILD", "sometimes")
    assert _build_commands.setup_arguments(ROOT, ["setup.py", "egg_info"]) == {}
    with pytest.raises(UserError, match="PIXELBERT_FAST_BUILD is 'sometimes'"):
        _build_commands.setup_arguments(ROOT, ["setup.py", "bdist_wheel"])


def test_architectures_become_flags_of_nvcc() -> None:
    assert _build_cuda.architecture_flags("8.0;9.0+PTX") == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    ]
    assert _build_cuda.architecture_flags("9.0a 12.0") == [
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_120,code=sm_120",
    ]


@pytest.mark.parametrize(("mode", "works"), [("auto", True), ("auto", False), ("force", False)])
def test_a_native_source_is_built_or_its_failure_recorded(mode: str, works: bool, tmp_path: Path) -> None:
    if _build.find_machine(ROOT).compiler is None:
        pytest.skip("no C++ compiler here")
    tree = copy_tree(tmp_path)
    for source in (tree / "csrc").rglob("*.c*"):
        source.unlink()
    (tree / "csrc" / "smallest.cpp").write_text(SMALLEST_SOURCE + ("" if works else "int broken( {"))
    built, printed = build_wheel(tree, mode)
    if mode == "force":
        assert built is None
        return
    assert built is not None, printed
    with zipfile.ZipFile(built) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
    assert libraries == (["pixelbert_fast/_C.abi3.so"] if works else [])
    record = record_in(built)
    assert record["cpu"]["built"] == works
    assert works or record["cpu"]["reason"].startswith("compiling failed")
