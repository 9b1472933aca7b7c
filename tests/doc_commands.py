"""Whether a command of the documentation is one that exists: its options, names, files, targets, extras."""

from __future__ import annotations

import ast
import inspect
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import typer

from pixelbert_fast import cli, environment
from pixelbert_fast.commands.ablate import _only
from pixelbert_fast.data import catalogue
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks import checkpoint_evaluation
from pixelbert_fast.training import cli as training
from pixelbert_fast.training.ablation.plan import Plan
from pixelbert_fast.training.ablation.recipe import load_ablation
from pixelbert_fast.training.deepspeed_engine import import_deepspeed
from pixelbert_fast.training.recipe_files import ablation_names
from pixelbert_fast.training.recipes import load_config
from tests.doc_blocks import Command
from tests.scripts import ROOT, script

# Programs that are not ours: nothing about them can be wrong that this repository decides.
FOREIGN = {"apt-get", "cat", "cut", "dpkg-deb", "head", "kill", "scontrol", "sed", "unzip"}
SHELL = {"cd", "source"}
# Words that stand for the reader's own, and what is put in their place.
PLACEHOLDERS = {
    "RECIPE": "demo",
    "RUN": "runs/demo",
    "DIR": "exported",
    "LEFT": "left.jpg",
    "RIGHT": "right.jpg",
    "S": "1",
    "T": "2",
}


class Wrong(Exception):
    """A command that the documentation should not have: why."""


def filled(words: Sequence[str]) -> list[str]:
    """The words without what is optional ("[--config RECIPE]"); placeholders and variables have a value."""
    kept: list[str] = []
    depth = 0
    for word in words:
        depth += word.startswith("[")
        if not depth:
            key, equals, value = word.rpartition("=")
            kept.append(f"{key}{equals}{PLACEHOLDERS.get(value, re.sub(r'^[$][A-Z_]+$', '0', value))}")
        depth -= depth > 0 and word.endswith("]")
    return kept


def check(command: Command) -> None:
    """Raises Wrong, or the error that the command itself would end with, for one that cannot be right."""
    for variable in command.variables:
        _check_variable(*variable.split("=", 1))
    words = filled(command.words)
    if not words or words[0] in FOREIGN | SHELL:
        return
    name, rest = Path(words[0]).name if words[0].startswith(".venv/bin/") else words[0], words[1:]
    checks: dict[str, Callable[[list[str]], None]] = {
        "pixelbert": _check_pixelbert,
        "python": _check_python,
        "python3": _check_python,
        "pytest": _check_paths,
        "make": _check_make,
        "pip": _check_pip,
        "deepspeed": _check_deepspeed,
    }
    if name in checks:
        checks[name](rest)
    elif "/" in name:
        _check_paths([name])
    else:
        raise Wrong(f"{name} is no program that the documentation's tests know")


def parsed(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Which command of `pixelbert` the words call, as "data build", and its parameters; runs nothing.

    Raises what the command line raises for a wrong one.
    """
    return _parsed(tuple(words))


@cache
def _parsed(words: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    app = typer.main.get_command(cli.app)
    called: list[tuple[str, dict[str, Any]]] = []
    for path, command in _leaves(app):
        # By the command's own parser, but what it would do.
        command.callback = _recorder(called, path)
    app.main(args=list(words), prog_name="pixelbert", standalone_mode=False)
    ((path, parameters),) = called
    return path, parameters


def _leaves(group: Any, above: str = "") -> Any:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def _recorder(called: list, path: str) -> Callable[..., None]:
    def record(*arguments: Any, **parameters: Any) -> None:
        called.append((path, parameters))

    return record


def kind(command: Command) -> str:
    """What tables call it: "pixelbert data build scenes", "python benchmarks/bench.py", "make"."""
    words = filled(command.words)
    if words[:1] == ["pixelbert"] and words[1:2] != ["train"]:
        path, given = parsed(words[1:])
        return f"pixelbert {path} {given['name']}" if path == "data build" else f"pixelbert {path}"
    two = words[:1] in (["pixelbert"], ["python"], ["python3"])
    return " ".join(words[: 3 if words[1:2] == ["-m"] else 2 if two else 1])


def _check_pixelbert(words: list[str]) -> None:
    if words[:1] == ["train"]:
        return _check_training(words[1:])
    path, given = parsed(words)
    if path in ("plan", "recipe") and given["config"] is not None:
        load_config(given["config"], given["overrides"] or ())
    elif path == "ablate":
        plan = Plan(load_ablation(given["config"], given["overrides"] or ()))
        plan.chosen(_only(given["only"] or []))
    elif path == "data build":
        _check_build(given)
    elif path == "evaluate":
        checkpoint_evaluation(given["task"])
    return None


def _check_build(given: dict[str, Any]) -> None:
    name = given["name"]
    known = inspect.signature(catalogue.builder_class(name)).parameters
    words = {
        option: value for option, value in given.items() if value and option not in ("name", "out", "workers")
    }
    options = catalogue.options_from_words(name, words)
    if unknown := options.keys() - known.keys():
        raise Wrong(f"the data set {name} takes no {', '.join(sorted(unknown))}")
    needed = {option for option, one in known.items() if one.default is inspect.Parameter.empty}
    if missing := needed - options.keys():
        raise Wrong(f"the data set {name} needs {', '.join(sorted(missing))}")


def _check_training(words: list[str]) -> None:
    given = training._parse(words)
    if given.config in ablation_names():
        raise Wrong(f"{given.config} is an ablation")
    load_config(given.config, given.overrides)


def _check_python(words: list[str]) -> None:
    if words[:2] == ["-m", "pytest"]:
        return _check_paths(words[2:])
    if words[:2] in (["-m", "venv"], ["-m", "build"]):
        return None
    if words[:2] == ["-m", "pip"]:
        return _check_pip(words[2:])
    if words[:1] == ["-m"]:
        place, rest = f"{words[1].replace('.', '/')}.py", words[2:]
    else:
        place, rest = words[0], words[1:]
    if not (ROOT / place).is_file():
        raise Wrong(f"there is no script {place}")
    if place == "pixelbert_fast/train.py":
        return _check_training(rest)
    options = [word.partition("=")[0] for word in rest if word.startswith("-")]
    if unknown := [option for option in options if option not in script_options(place)]:
        raise Wrong(f"{place} has no option {', '.join(unknown)}")
    return None


@cache
def script_options(place: str) -> set[str]:
    """The options that a script's parser is given, read from its source."""
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / place).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
    ]
    return {str(one.value) for call in calls for one in call.args if isinstance(one, ast.Constant)} | {
        "--help"
    }


def _check_paths(words: list[str]) -> None:
    for word in words:
        if not word.startswith("-") and "/" in word and not (ROOT / word.partition("::")[0]).exists():
            raise Wrong(f"there is no {word}")


def _check_make(words: list[str]) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, equals, _ = word.partition("=")
        if not equals and not re.search(rf"^{re.escape(name)}:", text, re.MULTILINE):
            raise Wrong(f"the Makefile has no target {name}")
        if equals and f"$({name})" not in text and name != "CC":
            raise Wrong(f"the Makefile reads no variable {name}")


def _check_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        name, bracket, extras = word.rstrip("]").partition("[")
        if bracket and name in (".", "-e .", project["name"], project["name"].replace("-", "_")):
            unknown = set(extras.split(",")) - project["optional-dependencies"].keys()
            if unknown:
                raise Wrong(f"there is no extra {', '.join(sorted(unknown))}")


def _check_deepspeed(words: list[str]) -> None:
    """By the launcher's own parser; where it is not installed, from the script on."""
    try:
        with patch.dict(os.environ):  # it names the accelerator there, for the processes of a run
            import_deepspeed()
            from deepspeed.launcher.runner import parse_args
    except UserError:
        place = next(number for number, word in enumerate(words) if word.endswith(".py"))
        return _check_python(words[place:])
    try:
        given = parse_args(words)
    except SystemExit:
        raise Wrong("the launcher of DeepSpeed does not take it") from None
    return _check_python([given.user_script, *given.user_args])


def _check_variable(name: str, value: str) -> None:
    own = {variable.name: variable for variable in environment.VARIABLES}
    if name in own and own[name].choices and value not in own[name].choices:
        raise Wrong(f"{name} does not take {value}")
    known = {*own, *script(".ci/reference_pages.py").READ, "DS_ACCELERATOR", "PYTHON", "MASTER"}
    if name not in known:
        raise Wrong(f"nothing reads the variable {name}")


MISTAKES = (Wrong, UserError, cli._UsageError)
"""What `check` raises for a command that is wrong."""
