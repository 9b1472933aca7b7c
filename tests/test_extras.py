"""What pyproject.toml asks for: everything that is imported, and a sentence where an extra is missing."""

from __future__ import annotations

import ast
import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pixelbert_fast.data.decoders import dali
from pixelbert_fast.errors import UserError
from pixelbert_fast.training import deepspeed_engine
from pixelbert_fast.training.logs import RunLog

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Where the module's name is not the distribution's.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "nvidia": "nvidia-dali-cuda130"}
# The build's own, and what a user brings who asks for it by `logging.wandb`.
OTHERS = {"pixelbert_fast", "setuptools", "wandb"}


def names(requirements: list[str]) -> set[str]:
    return {Requirement(requirement).name for requirement in requirements}


def imported() -> set[str]:
    """The distributions that the package imports anywhere, late imports included."""
    found = set()
    for path in [*(ROOT / "pixelbert_fast").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.partition(".")[0])
    return {DISTRIBUTIONS.get(name, name) for name in found - sys.stdlib_module_names - OTHERS}


def test_everything_imported_is_a_dependency_or_in_an_extra() -> None:
    users = names(PROJECT["dependencies"]).union(
        *(names(EXTRAS[one]) for one in ("train", "dali", "kernels"))
    )
    assert imported() <= users
    assert names(PROJECT["dependencies"]) <= imported()  # and nothing is asked for in vain


def test_every_dependency_has_a_lower_bound_and_no_other() -> None:
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert [bound.operator for bound in requirement.specifier] == [">="], str(requirement)


def test_the_demo_installs_what_training_needs() -> None:
    (demo,) = map(Requirement, EXTRAS["demo"])
    assert (demo.name, demo.extras) == (PROJECT["name"], {"train"})
    # `make demo` starts DeepSpeed's launcher, which needs huggingface_hub without saying so.
    assert {"deepspeed", "huggingface_hub", "tensorboard", "simplejpeg"} == names(EXTRAS["train"])


def test_without_deepspeed_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UserError, match=r"the package's extra `train` brings it") as told:
        deepspeed_engine.import_deepspeed()
    assert "\n" not in str(told.value)


def test_without_tensorboard_a_run_goes_on_and_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = RunLog(tmp_path, writes=True)
    log.write("train", 1, {"loss": 2.0})
    log.close()
    assert (tmp_path / "log.jsonl").read_text(encoding="utf-8").count("\n") == 1
    said = capsys.readouterr().err
    assert "extra `train`" in said and said.count("\n") == 1


def test_without_dali_or_triton_the_reason_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from pixelbert_fast.kernels.support import why_not

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "extra `kernels`" in why_not("cpu")
    assert "extra `dali`" in dali._why_not_installed.__wrapped__()
