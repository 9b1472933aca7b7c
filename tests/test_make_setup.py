"""`make setup`: which torch it takes, and when it has nothing to do. No test installs anything."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
NOT_FOUND = "ERROR: No matching distribution found for torch==2.13.0+cpu"


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, at work on a copy of the checkout's own files in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("make_setup", ROOT / ".ci" / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("pyproject.toml", "setup.py", "Makefile"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "csrc").mkdir()
    venv = tmp_path / ".venv"
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", venv)
    monkeypatch.setattr(module, "VENV_PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(module, "STAMP", venv / "stamp")
    monkeypatch.setattr(module, "BUILD_RECORD", tmp_path / "_build_record.json")
    monkeypatch.delenv("PIXELBERT_FAST_TORCH_INDEX", raising=False)
    monkeypatch.delenv("PIXELBERT_FAST_BUILD", raising=False)
    return module


class Machine:
    """Answers the commands that installing torch runs, and keeps those of pip."""

    def __init__(self, *, gpu: bool, cpu_build: bool, output: str = NOT_FOUND) -> None:
        self.gpu, self.cpu_build, self.output = gpu, cpu_build, output
        self.asked: list[list[str]] = []
        self.installed = ""

    def run(self, command: list[str], **options: object) -> SimpleNamespace:
        if command[0] == "nvidia-smi":
            return self.answer(0, "GPU 0: NVIDIA H100") if self.gpu else self.answer(9, "no driver")
        if "-c" in command:
            return self.answer(0 if self.installed else 1, self.installed)
        self.asked.append(command[command.index("--no-input") + 1 :])
        wanted = command[-1].removeprefix("torch==")
        if wanted.endswith("+cpu") and not self.cpu_build:
            return self.answer(1, self.output)
        self.installed = wanted
        return self.answer(0, "")

    def answer(self, status: int, text: str) -> SimpleNamespace:
        return SimpleNamespace(returncode=status, stdout=text)


def install(
    setup: ModuleType, machine: Machine, monkeypatch: pytest.MonkeyPatch, platform: str = "linux"
) -> str:
    monkeypatch.setattr(setup.subprocess, "run", machine.run)
    monkeypatch.setattr(setup.sys, "platform", platform)
    try:
        return setup.install_torch()
    finally:
        monkeypatch.undo()


def test_without_a_gpu_the_cpu_build_comes_first(setup, monkeypatch, capsys) -> None:
    machine = Machine(gpu=False, cpu_build=True)
    assert install(setup, machine, monkeypatch) == "2.13.0+cpu"
    assert machine.asked == [["torch==2.13.0+cpu"]]


def test_where_no_cpu_build_can_be_had_one_line_says_so(setup, monkeypatch, capsys) -> None:
    machine = Machine(gpu=False, cpu_build=False)
    assert install(setup, machine, monkeypatch) == "2.13.0"
    assert machine.asked == [["torch==2.13.0+cpu"], ["torch==2.13.0"]]
    said = [line for line in capsys.readouterr().out.splitlines() if "no CPU build" in line]
    assert len(said) == 1 and "PIXELBERT_FAST_TORCH_INDEX" in said[0]


def test_another_failure_of_pip_is_not_taken_for_that(setup, monkeypatch, capsys) -> None:
    machine = Machine(gpu=False, cpu_build=False, output="ERROR: no space left on device")
    with pytest.raises(setup.SetupError):
        install(setup, machine, monkeypatch)
    assert machine.asked == [["torch==2.13.0+cpu"]]
    assert "no space left" in capsys.readouterr().err


@pytest.mark.parametrize(("gpu", "platform"), [(True, "linux"), (False, "darwin")])
def test_with_a_gpu_or_on_macos_the_plain_build_is_taken(gpu, platform, setup, monkeypatch) -> None:
    machine = Machine(gpu=gpu, cpu_build=True)
    assert install(setup, machine, monkeypatch, platform) == "2.13.0"
    assert machine.asked == [["torch==2.13.0"]]


def test_the_index_of_the_variable_is_handed_to_pip(setup, monkeypatch) -> None:
    monkeypatch.setenv("PIXELBERT_FAST_TORCH_INDEX", "https://example.org/cpu")
    machine = Machine(gpu=False, cpu_build=True)
    install(setup, machine, monkeypatch)
    assert machine.asked == [["--index-url", "https://example.org/cpu", "torch==2.13.0+cpu"]]


def test_a_torch_that_is_there_stays(setup, monkeypatch) -> None:
    machine = Machine(gpu=False, cpu_build=True)
    machine.installed = "2.13.0+cu130"
    assert install(setup, machine, monkeypatch) == "2.13.0+cu130"
    assert machine.asked == []


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "setup.py", "Makefile", "csrc/new.cu", "csrc/deep/new.cpp"]
)
def test_a_change_makes_the_environment_stale(name: str, setup) -> None:
    before = setup.fingerprint()
    assert setup.fingerprint() == before
    changed = setup.ROOT / name
    changed.parent.mkdir(exist_ok=True)
    with changed.open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert setup.fingerprint() != before


def test_nothing_is_done_when_nothing_changed(setup, monkeypatch) -> None:
    setup.VENV_PYTHON.parent.mkdir(parents=True)
    setup.VENV_PYTHON.touch()
    setup.STAMP.write_text(setup.fingerprint(), encoding="utf-8")
    setup.BUILD_RECORD.touch()

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(setup.subprocess, "run", refuse)
    assert setup.main() == 0
    setup.BUILD_RECORD.unlink()  # as `make clean` does
    with pytest.raises(AssertionError, match="a process was started"):
        setup.main()
    setup.BUILD_RECORD.touch()
    setup.STAMP.write_text("of another day", encoding="utf-8")
    with pytest.raises(AssertionError, match="a process was started"):
        setup.main()


def test_an_environment_of_another_python_is_made_again_and_one_of_this_is_kept(setup, monkeypatch) -> None:
    kept = setup.VENV / "kept"
    made: list[list[str]] = []

    def answer(version: str):
        def run(command: list[str], **options: object) -> SimpleNamespace:
            if "-m" in command:
                made.append(command)
            return SimpleNamespace(returncode=0, stdout=version)

        return run

    kept.mkdir(parents=True)
    monkeypatch.setattr(setup.subprocess, "run", answer(f"{sys.version_info.major}.{sys.version_info.minor}"))
    setup.make_venv()
    assert kept.is_dir() and not made
    monkeypatch.setattr(setup.subprocess, "run", answer("3.8"))
    setup.make_venv()
    assert not kept.exists() and len(made) == 1


@pytest.mark.parametrize(
    ("platform", "machine", "wheel"),
    [
        ("linux", "x86_64", True),
        ("linux", "aarch64", True),
        ("linux", "ppc64le", False),
        ("darwin", "arm64", False),
        ("win32", "AMD64", False),
    ],
)
def test_triton_comes_with_it_where_there_is_a_wheel(setup, platform: str, machine: str, wheel: bool) -> None:
    """Without it CI would pass over every test of a Triton kernel and say nothing."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (triton,) = map(Requirement, extras["optional-dependencies"]["kernels"])
    assert triton.name == "triton" and "kernels" in setup.EXTRAS.split(",")
    assert triton.marker.evaluate({"sys_platform": platform, "platform_machine": machine}) == wheel


def test_make_says_which_python_is_missing() -> None:
    result = subprocess.run(["make", "setup", "PYTHON="], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert "No Python >= 3.11 found" in result.stderr
