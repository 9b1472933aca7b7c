"""The installed package itself: what lies where, what imports, what the command says."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pixelbert_fast
from pixelbert_fast import cli

DISTRIBUTION = "pixelbert-fast"


def installed_files() -> list[str]:
    """The files that the installation names; none of a checkout's."""
    if (Path(pixelbert_fast.__file__).resolve().parent.parent / "setup.py").exists():
        pytest.skip("pixelbert_fast is imported from a source tree")
    files = importlib.metadata.files(DISTRIBUTION) or []
    return [file.as_posix() for file in files]


def test_nothing_lies_at_top_level_but_the_package() -> None:
    files = [name for name in installed_files() if not name.startswith("..")]  # ../../../bin/pixelbert
    tops = {name.partition("/")[0] for name in files}
    told = {name for name in tops if name.endswith(".dist-info")}
    assert tops - told == {"pixelbert_fast"}
    assert "pixelbert_fast/kernels/support.py" in files
    assert importlib.util.find_spec("kernels") is None


def test_the_version_is_the_distributions() -> None:
    assert importlib.metadata.version(DISTRIBUTION) == pixelbert_fast.__version__


def test_every_public_name_is_there() -> None:
    for name in pixelbert_fast.__all__:
        assert getattr(pixelbert_fast, name) is not None


def test_every_module_imports_without_an_extra() -> None:
    """Those of Triton kernels apart, which say what they need by importing it."""
    modules = [found.name for found in pkgutil.walk_packages(pixelbert_fast.__path__, "pixelbert_fast.")]
    assert len(modules) > 150
    assert "pixelbert_fast.training.deepspeed_engine" in modules
    native = ("pixelbert_fast._C", "pixelbert_fast._host")
    for name in modules:
        if not name.startswith(("pixelbert_fast.kernels.", *native)):
            importlib.import_module(name)
    importlib.import_module("pixelbert_fast.kernels.support")


def test_the_command_is_on_the_path_of_its_python() -> None:
    command = Path(sys.executable).parent / "pixelbert"
    if not command.exists():
        pytest.skip("this Python has no pixelbert command")
    result = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"pixelbert_fast {pixelbert_fast.__version__}\n")


@pytest.mark.parametrize(
    "words", [[], ["data", "build"], ["predict", "vqa"], ["train"], ["attend"], ["plan"]]
)
def test_help_is_shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = cli.main([*words, "--help"])
    except SystemExit as leaving:
        status = leaving.code
    assert status in (0, None)
    assert "--help" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [(["evaluat", "vqa"], "'evaluate'"), (["data", "build", "scenes"], "Missing option '--out'")],
)
def test_a_mistake_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("pixelbert: ") and said in told and told.count("\n") == 1


def test_the_environment_is_told_and_what_was_built_loads(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not [name for name, section in told.items() if "broken" in section]
    # A library that was built must load into this torch, whichever torch it was built with.
    assert (told["native"]["problem"] is None) == told["build"]["cpu"]["built"]
    chosen = "cpu" if told["build"]["cpu"]["built"] else "reference"
    for op in told["ops"].values():
        assert op[chosen]["chosen_on"] == ["cpu"]


def test_a_recipe_is_read_and_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipe", "demo"]) == 0
    assert "preset: tiny" in capsys.readouterr().out
    assert cli.main(["plan", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
