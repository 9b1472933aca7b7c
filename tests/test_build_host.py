"""How the host module is built: where, with whose headers, and again only when something it reads changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pixelbert_fast import _build, _build_commands, _build_host
from pixelbert_fast._build import Machine
from pixelbert_fast.errors import RunError

ROOT = Path(__file__).resolve().parent.parent
FOUND = Machine(
    cpp_sources=("csrc/a.cpp",),
    host_source="csrc/host/module.cpp",
    compiler="/bin/c++",
    torch="2.13.0",
    pybind11="/include",
    pybind11_name="pybind11 3.1.0",
    python_headers="/python",
)
needs_compiler = pytest.mark.skipif(
    _build.find_machine(ROOT).compiler is None or _build_host.find_ninja() is None,
    reason="no C++ compiler or no ninja here",
)


@pytest.mark.parametrize(
    ("mode", "in_place", "change", "reason"),
    [
        ("auto", True, {}, None),
        ("force", True, {}, None),
        ("skip", True, {}, "the C++ part it belongs to is not built"),
        ("auto", False, {}, "it serves one Python version and a wheel many"),
        ("force", False, {}, "it serves one Python version and a wheel many"),
        ("auto", True, {"host_source": None}, "there is no csrc/host/module.cpp"),
        ("auto", True, {"pybind11": None}, "`pip install pybind11` adds them"),
        ("force", True, {"pybind11": None}, "`pip install pybind11` adds them"),
        ("auto", True, {"python_headers": None}, "Python.h"),
    ],
)
def test_the_build_decides(mode: str, in_place: bool, change: dict, reason: str | None) -> None:
    machine = Machine(**{**vars(FOUND), **change})
    decision = _build.decide(mode, machine, in_place=in_place)
    assert decision.host == (reason is None)
    assert (reason or "/bin/c++ and pybind11 3.1.0") in decision.host_reason
    record = _build.record_of(mode, machine, decision)
    assert record["host"] == {"built": decision.host, "reason": decision.host_reason}
    assert _build.table(mode, machine, decision).splitlines()[-1].split()[:2] == ["host", "part"]


@pytest.mark.parametrize(
    ("arguments", "in_place"),
    [
        (["setup.py", "build_ext", "--inplace"], True),
        (["setup.py", "build_ext", "-i"], True),
        (["setup.py", "editable_wheel"], True),
        (["setup.py", "build_ext"], False),
        (["setup.py", "bdist_wheel"], False),
    ],
)
def test_only_a_checkout_has_it(
    arguments: list[str], in_place: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_build, "find_machine", lambda root: FOUND)
    monkeypatch.setenv("PIXELBERT_FAST_BUILD", "auto")
    _build_commands.setup_arguments(ROOT, arguments)
    assert ("host part             built: " in capsys.readouterr().out) == in_place


def test_the_headers_are_pybind11s_or_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    directory, name = _build_host.find_pybind11()
    assert directory is not None and (Path(directory) / "pybind11" / "stl.h").is_file()

    real = importlib.util.find_spec
    missing = {"pybind11"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else real(name))
    directory, name = _build_host.find_pybind11()
    assert name == "torch's pybind11" and (Path(directory or "") / "pybind11" / "stl.h").is_file()
    missing.add("torch")
    assert _build_host.find_pybind11() == (None, "none")


def test_the_name_is_one_that_this_python_imports() -> None:
    assert _build_host.library_name() == "_host" + sysconfig.get_config_var("EXT_SUFFIX")
    assert ".abi3." not in _build_host.library_name()


def ninja(directory: Path) -> str:
    result = subprocess.run(
        [str(_build_host.find_ninja()), "-C", str(directory)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@needs_compiler
def test_ninja_compiles_again_only_what_changed(tmp_path: Path) -> None:
    """Also in a directory whose name needs quoting twice, for ninja and for the shell."""
    tree = tmp_path / "a $place here"
    tree.mkdir()
    (tree / "used.h").write_text("#define NUMBER 3\n")
    (tree / "other.h").write_text("#define NUMBER 4\n")
    (tree / "module.cpp").write_text('#include "used.h"\nint number() { return NUMBER; }\n')
    compiler = _build.find_machine(ROOT).compiler
    written = _build_host.ninja_file(compiler, ["-fPIC"], tree / "module.cpp", tree / "module.so")
    (tree / "build.ninja").write_text(written)
    assert "[2/2]" in ninja(tree)
    assert (tree / "module.so").is_file()
    assert "no work to do" in ninja(tree)
    os.utime(tree / "other.h")
    assert "no work to do" in ninja(tree)
    os.utime(tree / "used.h")
    assert "[2/2]" in ninja(tree)
    changed = _build_host.ninja_file(
        compiler, ["-fPIC", "-DMORE=$1"], tree / "module.cpp", tree / "module.so"
    )
    (tree / "build.ninja").write_text(changed)
    assert "[2/2]" in ninja(tree)


SETUP = """
import sys
from pathlib import Path
from setuptools import setup
sys.path.insert(0, {root!r})
from pixelbert_fast import _build_commands
setup(name="small", packages=["pixelbert_fast"], **_build_commands.setup_arguments(Path.cwd(), sys.argv))
"""


@needs_compiler
def test_the_library_compiles_again_only_what_changed(tmp_path: Path) -> None:
    sources = tmp_path / "csrc"
    sources.mkdir()
    (tmp_path / "pixelbert_fast").mkdir()
    (tmp_path / "setup.py").write_text(SETUP.format(root=str(ROOT)))
    for name in ("first", "second"):
        (sources / f"{name}.h").write_text(f"inline int number_of_{name}() {{ return 1; }}\n")
        (sources / f"{name}.cpp").write_text(
            f'#include "{name}.h"\nint {name}() {{ return number_of_{name}(); }}\n'
        )

    def build() -> dict[str, int]:
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        environment = os.environ | {"PIXELBERT_FAST_BUILD": "force", "MAX_JOBS": "1"}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        assert (tmp_path / "pixelbert_fast" / "_C.abi3.so").is_file()
        return {path.stem: path.stat().st_mtime_ns for path in tmp_path.glob("build/temp*/**/*.o")}

    before = build()
    assert set(before) == {"first", "second"}
    os.utime(sources / "second.h")
    after = build()
    assert after["first"] == before["first"]
    assert after["second"] > before["second"]


def fake_machine(tmp_path: Path, script: str) -> Machine:
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    source = tmp_path / "module.cpp"
    source.touch()
    return Machine(**{**vars(FOUND), "compiler": str(compiler), "host_source": str(source)})


@needs_compiler
@pytest.mark.parametrize("with_ninja", [True, False])
def test_it_is_built_into_the_package(
    with_ninja: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_build_host, "__file__", str(tmp_path / "_build_host.py"))
    if not with_ninja:
        monkeypatch.setattr(_build_host, "find_ninja", lambda: None)
    source = tmp_path / "module.cpp"
    source.write_text("const char* flags() { return PIXELBERT_BUILD_FLAGS; }\n")
    compiler = _build.find_machine(ROOT).compiler
    machine = Machine(**{**vars(FOUND), "compiler": compiler, "host_source": str(source)})
    with _build_host.building(machine, {}, tmp_path / "objects", optional=False):
        pass
    assert b"-O2 -std=c++17" in (tmp_path / _build_host.library_name()).read_bytes()


def test_ninja_is_found_beside_a_python_that_is_not_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ninja = tmp_path / "scripts" / "ninja"
    ninja.parent.mkdir()
    ninja.write_text("#!/bin/sh\n")
    ninja.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(ninja.parent))
    assert _build_host.find_ninja() == str(ninja)
    _build_commands._put_ninja_on_the_path()
    assert os.environ["PATH"].split(os.pathsep) == [str(ninja.parent), str(tmp_path)]


def test_a_failure_is_recorded_or_with_force_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_build_host, "__file__", str(tmp_path / "_build_host.py"))
    machine = fake_machine(tmp_path, "echo no room >&2; exit 1")
    (tmp_path / _build_host.library_name()).touch()  # of an earlier build
    record: dict = {"host": {"built": True, "reason": ""}}
    with _build_host.building(machine, record, tmp_path / "objects", optional=True):
        pass
    assert json.dumps(record["host"]).startswith('{"built": false, "reason": "compiling failed')
    assert "no room" in capsys.readouterr().out
    assert not (tmp_path / _build_host.library_name()).exists()
    with (
        pytest.raises(RunError, match=r"host module .* could not be built"),
        _build_host.building(machine, record, tmp_path / "objects", optional=False),
    ):
        pass


def test_what_fails_beside_it_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_build_host, "__file__", str(tmp_path / "_build_host.py"))
    monkeypatch.setattr(_build_host, "find_ninja", lambda: None)
    machine = fake_machine(tmp_path, "exec sleep 600")
    with (
        pytest.raises(OSError, match="beside"),
        _build_host.building(machine, {}, tmp_path / "objects", optional=True),
    ):
        raise OSError("beside")
