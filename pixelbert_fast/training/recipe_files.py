"""Recipes as files: found by path or name, read as YAML, and laid over the recipe that each is based on."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pixelbert_fast.errors import UserError, nearest

_ABLATION = "ablation_"
BASE = "base"
"""The key that names the recipe which a recipe changes."""


_DEEPEST, _MOST = 50, 100_000
"""Of a recipe; a few aliases of aliases can stand for any number of values, and one for itself."""


class Recipe(NamedTuple):
    """A recipe as it was written. `folder`: where its file lies, None for the package's own."""

    name: str
    origin: str
    folder: Path | None
    tree: dict[str, Any]


class _RecipeLoader(yaml.SafeLoader):
    """Safe YAML that reads 1e-4 as a number (YAML 1.1 wants 1.0e-4) and refuses a key given twice."""

    _merged = 0

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a list or section is no key, line {key.start_mark.line + 1}")
            if key.value in seen:
                raise yaml.YAMLError(f"the key {key.value!r} is given twice, line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """PyYAML's, which writes out every section merged by `<<`, but no more than a recipe may hold."""
        into = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
        each = [one for value in into for one in (value.value if value.id == "sequence" else [value])]
        sections = [one for one in each if isinstance(one, yaml.MappingNode)]
        for one in {id(one): one for one in sections}.values():
            self.flatten_mapping(one)
        self._merged += sum(len(one.value) for one in sections)
        if self._merged > _MOST:
            raise yaml.YAMLError(f"the sections that << merges hold more than {_MOST:,} values")
        super().flatten_mapping(node)


_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def recipe_names() -> list[str]:
    """The recipes that come with the package and that one can train by."""
    return [name for name in _names() if not name.startswith(_ABLATION)]


def ablation_names() -> list[str]:
    """The ablations that come with the package: they say which recipes to train by, and how often."""
    return [name for name in _names() if name.startswith(_ABLATION)]


def _names() -> list[str]:
    folder = resources.files("pixelbert_fast") / "configs"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def read_layers(recipe: str | Path) -> list[Recipe]:
    """The recipe, what it is based on, what that is based on, and so on: the one that changes nothing last.

    Raises:
        UserError: a recipe that is not there, is no recipe, or is based on itself in the end.
    """
    layers: list[Recipe] = []
    wanted, folder = recipe, None
    while wanted is not None:
        found = _recipe(wanted, folder, layers[-1].origin if layers else None)
        if any(_same(found, layer) for layer in layers):
            way = " -> ".join([*(layer.origin for layer in layers), found.origin])
            raise UserError(
                f"the recipe {layers[0].origin} is based on itself: {way}; change one of their bases"
            )
        layers.append(found)
        wanted, folder = found.tree.get(BASE), found.folder
        if wanted is not None and not isinstance(wanted, str):
            raise UserError(f"base in {found.origin} must be a recipe's name or file, not {shown(wanted)}")
    return layers


def merged(layers: list[Recipe]) -> dict[str, Any]:
    """One tree of all `layers`: sections are merged, everything else is replaced by the first that has it.

    `output` is inherited from none, or two recipes would write to one folder. A `build` of another data set
    than its base's replaces it whole: the options are not the same.
    """
    tree: dict[str, Any] = {}
    for layer in reversed(layers):
        tree.pop("output", None)
        tree = _laid_over(tree, layer.tree)
    tree.pop(BASE, None)
    return tree


def _same(one: Recipe, other: Recipe) -> bool:
    if one.folder is None or other.folder is None:
        return one.folder == other.folder and one.name == other.name
    return Path(one.origin).resolve() == Path(other.origin).resolve()


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        there = below.get(key)
        both = isinstance(value, dict) and isinstance(there, dict)
        other = both and key == "build" and value.get("name", there.get("name")) != there.get("name")
        result[key] = _laid_over(there, value) if both and not other else value
    return result


def _recipe(wanted: str | Path, folder: Path | None, based: str | None) -> Recipe:
    """based: the recipe, in `folder`, whose base `wanted` is."""
    path = Path(wanted)
    if folder is not None and not path.is_absolute() and (folder / path).is_file():
        path = folder / path
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the recipe {path}: {error}") from None
        return Recipe(path.stem, str(path), path.parent, _tree(text, str(path)))
    names = recipe_names()
    if str(wanted) in _names():
        text = (resources.files("pixelbert_fast") / "configs" / f"{wanted}.yaml").read_text(encoding="utf-8")
        return Recipe(str(wanted), f"{wanted}.yaml", None, _tree(text, f"{wanted}.yaml"))
    guess = nearest(path.stem, names)
    hint = f"did you mean {guess!r}?" if guess else f"recipes here: {', '.join(names)}"
    asked = f", the base of {based}" if based else ""
    raise UserError(
        f"there is no recipe {str(wanted)!r}{asked}, neither a file nor one of the package's; {hint}"
    )


def _tree(text: str, origin: str) -> dict[str, Any]:
    tree = parse(text, origin)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{origin} must hold keys and values, but holds {shown(tree)}")
    return tree


def parse(text: str, origin: str) -> Any:
    """What YAML says; UserError naming `origin` where it is none."""
    try:
        tree = yaml.load(text, Loader=_RecipeLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from None
    except Exception as error:  # of values that their tag does not fit, PyYAML raises nearly everything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{origin} has a value in it that YAML cannot read: {reason}") from None
    _check_extent(tree, origin)
    return tree


def _check_extent(tree: Any, origin: str) -> None:
    """Raises UserError for what goes too deep, or is too much with every alias written out."""
    left, found = [(tree, 0)], 0
    while left:
        node, depth = left.pop()
        found += 1
        if depth > _DEEPEST or found > _MOST:
            raise UserError(
                f"{origin} is no recipe: its sections are more than {_DEEPEST} deep or hold more"
                f" than {_MOST:,} values"
            )
        below = [*node, *node.values()] if isinstance(node, dict) else node
        if isinstance(below, (list, tuple, set)):
            left += [(one, depth + 1) for one in below]


def shown(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
