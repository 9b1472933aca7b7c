"""From a YAML recipe and `key.path=value` overrides to a checked `RunConfig`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pixelbert_fast.errors import UserError, nearest
from pixelbert_fast.training.config import RunConfig

DEFAULT_RECIPE = "demo"
_COMMAND_LINE = "the command line"


class _RecipeLoader(yaml.SafeLoader):
    """Safe YAML that reads 1e-4 as a number (YAML 1.1 wants 1.0e-4) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(f"the key {key.value!r} is given twice, line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("pixelbert_fast") / "configs"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def load_config(recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe and change it by overrides.

    Args:
        recipe: a YAML file, or the name of one that comes with the package; None: "demo".
        overrides: `key.path=value`, the value in YAML; later ones win.

    Raises:
        UserError: no such recipe, a key nothing knows (the nearest known one is named), a value that does not
            fit.
    """
    name, origin, text = _read(DEFAULT_RECIPE if recipe is None else recipe)
    tree = _parse(text, origin)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise UserError(f"{origin} must hold keys and values, but holds {_shown(tree)}")
    tree.setdefault("output", f"runs/{name}")
    tree.setdefault("training", {})
    overridden = [_override(tree, text) for text in overrides]
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(_sentence(error, origin, overridden)) from None


def _read(recipe: str | Path) -> tuple[str, str, str]:
    path = Path(recipe)
    if path.is_file():
        try:
            return path.stem, str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the recipe {path}: {error}") from None
    names = recipe_names()
    if str(recipe) in names:
        text = (resources.files("pixelbert_fast") / "configs" / f"{recipe}.yaml").read_text(encoding="utf-8")
        return str(recipe), f"{recipe}.yaml", text
    guess = nearest(path.stem, names)
    hint = f"did you mean {guess!r}?" if guess else f"recipes here: {', '.join(names)}"
    raise UserError(f"there is no recipe {str(recipe)!r}, neither a file nor one of the package's; {hint}")


def _parse(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_RecipeLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{origin} is not valid YAML: {reason}") from None


def _override(tree: dict[str, Any], text: str) -> str:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key or not all(key.split(".")):
        raise UserError(
            f"{text!r} on {_COMMAND_LINE} is not understood; an override is written key.path=value"
        )
    place = tree
    *sections, last = key.split(".")
    for section in sections:
        below = place.get(section)
        if below is None:
            below = place[section] = {}
        if not isinstance(below, dict):
            raise UserError(
                f"{key!r} on {_COMMAND_LINE} looks inside {section!r}, which holds {_shown(below)}"
            )
        place = below
    place[last] = _parse(value, f"{text!r} on {_COMMAND_LINE}")
    return key


def _sentence(error: ValidationError, origin: str, overridden: Iterable[str]) -> str:
    """The first thing wrong: its key, where that came from and the nearest right one, in one sentence."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    given = any(f"{key}.".startswith(f"{o}.") or o.startswith(f"{key}.") for o in overridden)
    where = _COMMAND_LINE if given else origin
    if first["type"] == "extra_forbidden":
        guess = _nearest_key(key)
        return f"unknown key {key!r} in {where}" + (f"; did you mean {guess!r}?" if guess else "")
    if first["type"] == "missing":
        return f"the key {key!r} is missing in {where}"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{where}: {reason}"
    return f"{key} = {_shown(first['input'])} in {where} is wrong: {reason[0].lower()}{reason[1:]}"


def _nearest_key(key: str) -> str | None:
    *sections, last = key.split(".")
    prefix = ".".join(sections)
    known = list(_keys(RunConfig))
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == prefix}
    guess = nearest(last, siblings)
    if guess:
        return siblings[guess]
    namesakes = [k for k in known if k.rpartition(".")[2] == last]
    return namesakes[0] if namesakes else nearest(key, known)


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _keys(part, f"{prefix}{name}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
