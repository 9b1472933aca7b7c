"""The sdist, and a wheel of it in an environment without torch, as build isolation makes one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import setuptools

from tests.test_packaging import ROOT, SHIPPED, copy_tree, package_files

PACKED = [*SHIPPED, "MANIFEST.in"]


def hook(tree: Path, name: str, out: Path, mode: str = "auto") -> tuple[Path | None, str]:
    """Run a build back end's hook where only setuptools can be imported; what it made, and what was said.

    `-S` takes this environment's packages away, and links give setuptools back: what isolation holds.
    """
    alone = out / "isolated"
    alone.mkdir(parents=True, exist_ok=True)
    place = Path(setuptools.__file__).parent.parent
    for part in (place / "setuptools", place / "_distutils_hack", *place.glob("setuptools-*.dist-info")):
        if not (alone / part.name).exists():
            (alone / part.name).symlink_to(part)
    code = (
        f"import sys; sys.path.insert(0, {str(alone)!r})\n"
        "from setuptools import build_meta\n"
        f"print('made', build_meta.build_{name}({str(out)!r}))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tree,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment | {"PIXELBERT_FAST_BUILD": mode},
    )
    made = ran.stdout.rstrip().rpartition("made ")[2]
    return (out / made if ran.returncode == 0 else None), ran.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = copy_tree(tmp_path_factory.mktemp("tree"))
    shutil.copy(ROOT / "MANIFEST.in", tree)
    shutil.copytree(ROOT / "tests" / "installed", tree / "tests" / "installed")
    (tree / "tests" / "test_left_out.py").touch()
    (tree / "pixelbert_fast" / "_build_record.json").write_text("{}", encoding="utf-8")  # of an earlier build
    made, said = hook(tree, "sdist", tmp_path_factory.mktemp("sdist"))
    assert made is not None, said
    return made


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, filter="data")
    (root,) = directory.iterdir()
    return root


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    made, said = hook(unpacked, "wheel", tmp_path_factory.mktemp("wheel"))
    assert made is not None, said
    return made, said


def test_the_sdist_holds_what_is_built_from_and_the_installed_tests(unpacked: Path) -> None:
    files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.*") if path.is_file()}
    package = {path.relative_to(ROOT).as_posix() for path in package_files()}
    tests = {f"tests/installed/{path.name}" for path in (ROOT / "tests" / "installed").glob("*.py")}
    kernels = {f"kernels/{path.name}" for path in (ROOT / "kernels").glob("*.py")}
    named = {"setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "setup.cfg"}
    told = {name for name in files if name.startswith("pixelbert_fast.egg-info/")}
    assert files - told == sources | package | tests | kernels | named


def test_without_torch_the_wheel_is_pure_and_says_why(wheel: tuple[Path, str]) -> None:
    path, said = wheel
    assert path.name.endswith("-py3-none-any.whl")
    assert "C++ part  " in said and "--no-build-isolation" in said
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        record = json.loads(archive.read("pixelbert_fast/_build_record.json"))
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"pixelbert_fast"}
    assert "pixelbert_fast/kernels/support.py" in names
    assert not [name for name in names if name.endswith((".so", ".cpp", ".cu")) or "installed" in name]
    assert record["torch"] is None and not record["cpu"]["built"] and not record["cuda"]["built"]
    assert "torch cannot be imported by the build" in record["cpu"]["reason"]


def test_force_without_torch_fails_and_says_what_to_do(unpacked: Path, tmp_path: Path) -> None:
    made, said = hook(unpacked, "wheel", tmp_path, mode="force")
    assert made is None
    assert "PIXELBERT_FAST_BUILD=force, but the native code cannot be built" in said
    assert "pass --no-build-isolation" in said


def test_the_package_without_native_code_tells_it_and_computes(
    wheel: tuple[Path, str], tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel[0]) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import json, torch\n"
        "from pixelbert_fast import environment_report, ops\n"
        "places = ops.sample_positions(torch.tensor([[2, 3]]), (2, 3), 4, seed=1)\n"
        "print(json.dumps([environment_report.report(), places.tolist()]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    told, ((*places,),) = json.loads(ran.stdout)
    assert len(set(places)) == 4 and set(places) <= set(range(6))
    assert told["native"]["library"] is None and "--no-build-isolation" in told["native"]["problem"]
    assert "torch cannot be imported by the build" in told["build"]["cpu"]["reason"]
    for op in told["ops"].values():
        assert op["reference"]["chosen_on"] == ["cpu"] and op["cpu"]["usable_on"] == []
