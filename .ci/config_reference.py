"""docs/configuration.md as text: every option of the configuration, read from the models that check it.

Meanings stand in the models' docstrings, bounds and defaults in their fields; nothing is said here twice.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pixelbert_fast.data import catalogue
from pixelbert_fast.model.config import CHOICES, COUNTS, PRESETS, PixelBertConfig
from pixelbert_fast.training.ablation.recipe import NAME_PATTERN, AblationConfig
from pixelbert_fast.training.config import RunConfig

INTRODUCTION = """\
# Configuration reference

Every option of a recipe, with its type and bounds, its default and what it means.

A recipe is a YAML file that holds what differs from the defaults; `base: NAME_OR_FILE` in it names the recipe
that it changes. On a command line an option is its whole key: `training.epochs=2`, `data.build.images=500`,
`start.bert=null`. An unknown key, a wrong type and a value out of its bounds are errors that say which.
`pixelbert recipe RECIPE` prints a recipe with every option that it has. "null" is YAML's word for none; a 0
in a key stands for each entry of a list, NAME for each name that you give.
"""
ABLATIONS = """\
## Ablations

A file for `pixelbert ablate --config FILE` ([guide](ablation.md)) has a tree of its own.
"""
MODEL = """\
## The model's fields

What `model.overrides` may hold, as in `model.overrides.sampled_pixels=50`: the arguments of
`PixelBertConfig`. `r50` has the defaults; the other presets change what stands in their columns.
"""
SETS = """\
## Options of the data sets

What `data.build` may hold beside `name`; the same words are options of `pixelbert data build NAME`.
"""
WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path"}
PATTERNS = {NAME_PATTERN: "letters, digits, `-` and `_`"}


class Place(NamedTuple):
    """Where a section stands in the tree: its key, and what comes before the names of its options."""

    key: str
    model: type[BaseModel]


def page() -> str:
    """The page."""
    parts = [INTRODUCTION, "## The whole tree\n", *_section(Place("", RunConfig), heading=None)]
    for place in places(RunConfig):
        parts += _section(place, heading="##" if place.key in RunConfig.model_fields else "###")
    parts += [SETS, *_builders(), MODEL, _model_table(), ABLATIONS]
    parts += _section(Place("", AblationConfig), heading=None)
    for place in places(AblationConfig):
        parts += _section(place, heading="###")
    return "\n".join(parts)


def places(model: type[BaseModel], above: str = "") -> Iterator[Place]:
    """The sections below `model`, each before those that it holds."""
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            key = f"{above}{name}{_repeated(field.annotation)}"
            yield Place(key, inner)
            yield from places(inner, f"{key}.")


def meanings(kind: type, title: str) -> dict[str, str]:
    """What the list under `title` in a class's docstring says of each name.

    The classes it inherits from count too, and one of its module that it refers to ("Args: as of `Scenes`").
    """
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        text = inspect.cleandoc(one.__dict__.get("__doc__") or "")
        if other := re.search(rf"{title}: as of `(\w+)`", text):
            found |= meanings(getattr(sys.modules[kind.__module__], other[1]), title)
        listed = text.partition(f"{title}:\n")[2]
        listed = re.split(r"^\S", listed, maxsplit=1, flags=re.MULTILINE)[0]
        for names, text in re.findall(r"^ {4}(\w[\w, ]*):\s(.*(?:\n {8}.*)*)", listed, re.MULTILINE):
            found |= dict.fromkeys(re.split(r",\s*", names), " ".join(text.split()))
    return found


def typed(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type and its bounds in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return typed(inner[0], [*metadata, *inner[1:]])
    bounds = _bounds(metadata)
    if origin in (Union, types.UnionType):
        words = ["null" if one is type(None) else typed(one) for one in inner]
        return ("; or " if any("," in one for one in words) else " or ").join(words) + bounds
    if origin is Literal:
        return _any_of([f"`{one}`" for one in inner])
    if origin is tuple and inner[-1] is not ...:
        return f"list of {len(inner)}, each {typed(inner[0])}{bounds}"
    if origin is not None and issubclass(origin, Sequence):
        return f"list, each {typed(inner[0])}{bounds}"
    if origin is not None and issubclass(origin, Mapping):
        return "tree" if inner[1] is Any else f"tree by name, each {typed(inner[1])}{bounds}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return WORDS[annotation] + bounds


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for part in get_args(annotation) for one in _models_in(part)]


def _repeated(annotation: Any) -> str:
    """What stands between the key of a section and its options where there are several such sections."""
    for part in (annotation, *get_args(annotation)):
        origin = get_origin(part)
        if origin is tuple:
            return ".0"
        if origin is dict:
            return ".NAME"
    return ""


def _section(place: Place, heading: str | None) -> list[str]:
    model, about = place.model, ""
    if heading is not None:
        first = inspect.cleandoc(model.__doc__ or "").partition("Attributes:")[0].strip()
        about = f"{heading} `{place.key}`\n\n{_text(first)}\n"
    above = f"{place.key}." if place.key else ""
    rows = []
    known = meanings(model, "Attributes")
    for name, field in model.model_fields.items():
        inner = _models_in(field.annotation)
        below = [one for one in places(model) if one.key.split(".")[0] == name]
        if name not in known:
            raise LookupError(f"the docstring of {model.__name__} does not say what {name} means")
        said = known[name]
        if inner and said in ("the sections.", "the sections of these tasks."):
            said = inspect.cleandoc(inner[0].__doc__ or "").partition("\n")[0]
        if inner:
            said += f" [Its options](#{_anchor(above + below[0].key)})."
        rows.append((f"`{above}{name}`", typed(field.annotation, field.metadata), _default(field), said))
    table = _table(("option", "type", "default", "meaning"), rows) if rows else ""
    return [part for part in (about, table) if part]


def _builders() -> list[str]:
    parts = []
    for name, listed in catalogue.BUILDERS.items():
        builder = catalogue.builder_class(name)
        known, rows = meanings(builder, "Args"), []
        for option, parameter in inspect.signature(builder, eval_str=True).parameters.items():
            if option not in known:
                raise LookupError(f"the docstring of {builder.__name__} does not say what {option} means")
            bare = parameter.annotation is inspect.Parameter.empty
            needed = parameter.default is inspect.Parameter.empty
            kind = "text" if bare else typed(parameter.annotation)
            default = "required" if needed else _value(None if parameter.default == () else parameter.default)
            rows.append((f"`{option}`", kind, default, known[option]))
        parts += [
            f"### `{name}`\n\n{listed.line[0].upper()}{listed.line[1:]}.\n",
            _table(("option", "type", "default", "meaning"), rows),
        ]
    return parts


def _model_table() -> str:
    known, hints = meanings(PixelBertConfig, "Args"), get_type_hints(PixelBertConfig.__init__)
    parameters = {
        name: one
        for name, one in inspect.signature(PixelBertConfig).parameters.items()
        if one.kind is not inspect.Parameter.VAR_KEYWORD
    }
    presets = {
        name: changes
        for name, changes in PRESETS.items()
        if any(value != parameters[field].default for field, value in changes.items())
    }
    rows = []
    for name, parameter in parameters.items():
        if name not in known:
            raise LookupError(f"the docstring of PixelBertConfig does not say what {name} means")
        kind = typed(hints[name])
        if name in CHOICES:
            kind = _any_of([f"`{one}`" for one in CHOICES[name]])
        elif name in COUNTS:
            kind += ", at least 1"
        changed = [_value(changes[name]) if name in changes else "" for changes in presets.values()]
        rows.append((f"`{name}`", kind, _value(parameter.default), *changed, known[name]))
    return _table(("field", "type", "default", *(f"`{name}`" for name in presets), "meaning"), rows)


def _bounds(metadata: Sequence[Any]) -> str:
    """`, 0 to 1` and the like."""
    limits: dict[str, Any] = {}
    for one in metadata:
        for bound in one.metadata if isinstance(one, FieldInfo) else [one]:
            for name in ("ge", "gt", "le", "lt", "min_length", "pattern"):
                if getattr(bound, name, None) is not None:
                    limits[name] = getattr(bound, name)
    words = [
        f"at least {limits['ge']:g}" if "ge" in limits else None,
        f"above {limits['gt']:g}" if "gt" in limits else None,
        f"at most {limits['le']:g}" if "le" in limits else None,
        f"below {_number(limits['lt'])}" if "lt" in limits else None,
        f"at least {limits['min_length']} of them" if "min_length" in limits else None,
        f"of {PATTERNS[limits['pattern']]}" if "pattern" in limits else None,
    ]
    if {"ge", "le"} <= limits.keys():
        words = [f"{limits['ge']:g} to {limits['le']:g}", words[4]]
    elif {"ge", "lt"} <= limits.keys():
        words = [f"{limits['ge']:g} to below {_number(limits['lt'])}", words[4]]
    given = " and ".join(one for one in words if one)
    return f", {given}" if given else ""


def _number(value: float) -> str:
    return "2³¹" if value == 2**31 else f"{value:g}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "its options'" if isinstance(value, BaseModel) else _value(value)


def _value(value: Any) -> str:
    """As YAML takes it."""
    return f"`{json.dumps(value)}`"


def _any_of(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _text(text: str) -> str:
    """A docstring's words, for readers who know YAML's null and not Python's None."""
    return re.sub(r"\bNone\b", "null", text)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(_text(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _anchor(heading: str) -> str:
    """As GitHub names a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
