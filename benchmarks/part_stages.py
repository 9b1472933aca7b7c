"""The stages that a CPU's suite and a GPU's have in common; with small sizes where it is to be quick."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from suite import Found

QUICK_OP = {"batch": 2, "channels": 64, "height": 13, "width": 18, "count": 20, "dimensions": 48}
QUICK_MODEL = {"preset": "tiny", "height": 64, "width": 64, "pixels": 4}
QUICK_SCORER = {
    "backbone_channels": 8,
    "backbone_depths": [1, 1, 1, 1],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1100,
    # So narrow a model's scores hardly differ by BERT's 0.02.
    "initializer_range": 0.2,
}

Run = Callable[[Found], None]
# Packages whose absence is a fault of this tree, and not of the machine.
OWN = ("pixelbert_fast", "tests")


def retrieval(**sizes: Any) -> Run:
    small = {"images": 2, "texts": 2, "height": 64, "width": 64, "sequences": 4, "forwards": 1}
    return _one("the matrix", "bench_retrieval", sizes, {**small, "overrides": QUICK_SCORER})


def decoding(**sizes: Any) -> Run:
    return _one("decoding", "bench_decoding", sizes, {"images": 16, "batch": 8})


def optimizer(**sizes: Any) -> Run:
    return _one("an update", "bench_optimizer", sizes, {"preset": "tiny"})


def engine(**sizes: Any) -> Run:
    return _one("DeepSpeed", "bench_engine", sizes, {"stages": (0,)})


def scaling(**sizes: Any) -> Run:
    """Each series by itself, so that what was measured is kept."""

    def run(found: Found) -> None:
        part = _part("bench_scaling", "the series", found)
        series = part.all_series(found.device) if part else []
        for each in series[:2] if found.quick else series:
            small = {"values": 2, "rounds": 5, "seconds": 0.1} if found.quick else {}
            found.attempt(each.name, part.contests, found.device, series=(each.name,), **(sizes | small))

    return run


def _one(what: str, name: str, sizes: dict[str, Any], small: dict[str, Any]) -> Run:
    def run(found: Found) -> None:
        part = _part(name, what, found)
        if part is None:
            return
        chosen = sizes | ({**small, "rounds": 5, "seconds": 1.0} if found.quick else {})
        found.attempt(what, part.contests, found.device, **chosen)

    return run


def _part(name: str, what: str, found: Found) -> ModuleType | None:
    """The module of a part; None, and a sentence in `found`, where a package that it needs is not installed.

    Imported by its stage alone: what one part needs, the others can do without.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OWN:
            raise
        found.not_measured.append(f"{what}: {package or error} is not installed")
        found.keep()
        return None
