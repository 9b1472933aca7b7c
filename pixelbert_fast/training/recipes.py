"""From a YAML recipe and `key.path=value` overrides to a checked `RunConfig`, and back to YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pixelbert_fast.errors import UserError, nearest
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.recipe_files import BASE, Recipe, merged, parse, read_layers, recipe_names, shown

__all__ = ["DEFAULT_RECIPE", "as_yaml", "load_config", "recipe_names"]

DEFAULT_RECIPE = "demo"
_DEEPEST = 20
_COMMAND_LINE = "the command line"


def load_config(
    recipe: str | Path | None = None, overrides: Sequence[str] = (), *, given_in: str = _COMMAND_LINE
) -> RunConfig:
    """Read a recipe, with what it is based on, and change it by overrides.

    A recipe's key `base` names another one which it changes (see `recipe_files.merged`): a file, seen from
    the recipe's own folder or from here, or one of the package's.

    Args:
        recipe: a YAML file, or the name of one that comes with the package; None: "demo".
        overrides: `key.path=value`, the value in YAML; later ones win.
        given_in: where the overrides come from, for errors.

    Raises:
        UserError: no such recipe, recipes based on each other, a key nothing knows (the nearest known one is
            named), a value that does not fit.
    """
    layers = read_layers(DEFAULT_RECIPE if recipe is None else recipe)
    tree = merged(layers)
    if "rows" in tree and "stages" in tree:
        raise UserError(
            f"{layers[0].origin} is an ablation, which trains by several recipes; run it by"
            f" `pixelbert ablate --config {recipe}`"
        )
    tree.setdefault("output", f"runs/{layers[0].name}")
    tree.setdefault("training", {})
    overridden = [override(tree, text, given_in) for text in overrides]
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(_sentence(error, layers, overridden, given_in)) from None


def as_yaml(config: RunConfig) -> str:
    """The whole configuration as a recipe: `load_config` of it gives `config` again."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def override(tree: dict[str, Any], text: str, given_in: str = _COMMAND_LINE) -> str:
    """Lay `key.path=value` over `tree`, in place; returns the key. UserError where it is not written so."""
    on = f"on {given_in}" if given_in == _COMMAND_LINE else f"in {given_in}"
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key or not all(key.split(".")) or key.count(".") > _DEEPEST:
        raise UserError(f"{text!r} {on} is not understood; an override is written key.path=value")
    if key == BASE:
        raise UserError(f"{text!r} {on}: a base belongs in a recipe's file; name it with --config")
    place = tree
    *sections, last = key.split(".")
    for section in sections:
        below = place.get(section)
        if below is None:
            below = place[section] = {}
        if not isinstance(below, dict):
            raise UserError(f"{key!r} {on} looks inside {section!r}, which holds {shown(below)}")
        place = below
    place[last] = parse(value, f"{text!r} {on}")
    return key


def _sentence(
    error: ValidationError, layers: Sequence[Recipe], overridden: Sequence[str], given_in: str
) -> str:
    """The first thing wrong: its key, where that came from and the nearest right one, in one sentence."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    given = any(f"{key}.".startswith(f"{o}.") or o.startswith(f"{key}.") for o in overridden)
    where = given_in if given else _origin(first["loc"], layers)
    if first["type"] == "extra_forbidden":
        guess = _nearest_key(key)
        return f"unknown key {key!r} in {where}" + (f"; did you mean {guess!r}?" if guess else "")
    if first["type"] == "missing":
        return f"the key {key!r} is missing in {where}"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{where}: {reason}"
    return f"{key} = {shown(first['input'])} in {where} is wrong: {reason[0].lower()}{reason[1:]}"


def _origin(place: Sequence[str | int], layers: Sequence[Recipe]) -> str:
    """Which of the recipes says what is at `place`, or as much of it as any says."""
    for depth in range(len(place), 0, -1):
        for layer in layers:
            if _holds(layer.tree, place[:depth]):
                return layer.origin
    return layers[0].origin


def _holds(tree: Any, place: Sequence[str | int]) -> bool:
    for key in place:
        known = range(len(tree)) if isinstance(tree, list) else tree if isinstance(tree, dict) else ()
        if key not in known:
            return False
        tree = tree[key]
    return True


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
