"""Checkpoints of others -> names, tensors and configuration, from a file, a folder, memory or the hub.

Nothing in a file is ever run: safetensors, or `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError

Source = str | PathLike | Mapping[str, Tensor] | nn.Module

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".pth.tar", ".ckpt")

# Under what training scripts put the state dict beside epoch and optimiser.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


@dataclass(frozen=True)
class Checkpoint:
    """What was read."""

    name: str
    """What to call it in a message."""
    tensors: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    """`config.json` beside the weights, or the module's configuration; empty where there is none."""


def read_checkpoint(source: Source) -> Checkpoint:
    """Read a file, a directory as transformers writes it, a state dict, a module, or fetch a hub name.

    A string is a hub name only where no such path exists and it does not look like one. State dicts may lie
    inside the dictionary of a training script. Raises UserError when nothing can be read, or when a pickle
    holds more than tensors.
    """
    if isinstance(source, nn.Module):
        config = getattr(source, "config", None)
        config = config.to_dict() if hasattr(config, "to_dict") else {}
        return Checkpoint(f"the given {type(source).__name__}", dict(source.state_dict()), config)
    if isinstance(source, Mapping):
        return Checkpoint("the given state dict", _tensors(source, "the given state dict"))
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_directory(path)
    if path.is_file():
        return Checkpoint(str(path), _read_file(path))
    name = str(source)
    if (
        isinstance(source, str)
        and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name)
        and not name.endswith(_SUFFIXES)
    ):
        return _read_directory(_fetched(name))
    raise UserError(
        f"weights {name} are missing: give a checkpoint file, a directory with one, or a hub name"
    )


def check_shards(source: Any = None, subfolder: str | None = None) -> None:
    """Of a folder that transformers is to open: the files that its index lists lie in it.

    transformers joins the names to the folder as they are. Nothing is said of anything but a folder. Raises
    UserError.
    """
    if not isinstance(source, (str, PathLike)):
        return
    directory = Path(source, subfolder or "")
    for index in directory.glob("*.index.json"):
        for name in _listed(index):
            if not isinstance(name, str) or name == ".." or Path(name).name != name:
                raise UserError(f"{index} names {name!r}, which is no file of that folder: mend it")


def _read_directory(directory: Path) -> Checkpoint:
    present = [directory / name for name in WEIGHT_FILES if (directory / name).is_file()]
    if not present:
        raise UserError(f"{directory} holds no weights: expected one of {', '.join(WEIGHT_FILES)}")
    config = _read_json(directory / "config.json") if (directory / "config.json").is_file() else {}
    tensors: dict[str, Tensor] = {}
    for file in _shards(present[0]) if present[0].suffix == ".json" else present[:1]:
        tensors.update(_read_file(file))
    return Checkpoint(str(directory), tensors, config)


def _shards(index: Path) -> list[Path]:
    names = _listed(index)
    if not names or not all(isinstance(name, str) and Path(name).name for name in names):
        raise UserError(f"{index} does not say in its weight_map which file has which weight: give it whole")
    return [index.parent / Path(name).name for name in sorted(set(names))]


def _listed(index: Path) -> list[Any]:
    """The files that an index says the weights lie in."""
    weights = _read_json(index).get("weight_map")
    return list(weights.values()) if isinstance(weights, Mapping) else []


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} does not hold a JSON object: it is not a transformers file")
    return content


def _read_file(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"weights {file} hold more than tensors (or are broken) and are not loaded, since unpickling "
            "could run code: save the state dict alone, best as safetensors"
        ) from error
    except Exception as error:  # zip, pickle and safetensors readers raise nearly everything on a broken file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"weights {file} cannot be read: {reason}") from error
    return _tensors(content, f"weights {file}")


def _tensors(content: Any, name: str) -> dict[str, Tensor]:
    """The state dict in `content`, which may keep it beside epoch, optimiser and the like."""
    while isinstance(content, Mapping):
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        content = next((content[key] for key in _WRAPPERS if key in content), None)
    raise UserError(
        f"{name} hold no state dict: expected names with tensors, maybe under {', '.join(_WRAPPERS)}"
    )


def _fetched(name: str) -> Path:
    """The local folder of a model on the hub, by transformers' own cache and settings."""
    from transformers.utils import hub

    def fetch(file: str) -> str | None:
        return hub.cached_file(name, file, _raise_exceptions_for_missing_entries=False)

    try:
        fetch("config.json")
        for file in WEIGHT_FILES:
            path = fetch(file)
            if path is None:
                continue
            if file.endswith(".json"):
                for shard in _shards(Path(path)):
                    fetch(shard.name)
            return Path(path).parent
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{name} is no local path, and could not be had from the hub: {reason}") from error
    raise UserError(f"{name} on the hub holds no weights: expected one of {', '.join(WEIGHT_FILES)}")
