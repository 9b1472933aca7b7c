"""A run's configuration for people: without what has its default."""

from __future__ import annotations

from typing import Any

from pixelbert_fast.training.config import RunConfig


def folded(described: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A configuration as a run's `run.json` has it: without what has its default, and with every default.

    Both keep options that this version has not.
    """
    defaults = RunConfig.model_validate({"training": {"epochs": 1}}).model_dump(mode="json")
    defaults["training"]["epochs"] = None  # a length has to be given
    return _different(described, defaults), _laid_over(defaults, described)


def _different(tree: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in tree.items():
        below = defaults.get(key)
        if key in defaults and value == below:
            continue
        sections = isinstance(value, dict) and isinstance(below, dict)
        found[key] = _different(value, below) if sections else value
    return {key: value for key, value in found.items() if value != {} or key not in defaults}


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        there = below.get(key)
        sections = isinstance(value, dict) and isinstance(there, dict)
        result[key] = _laid_over(there, value) if sections else value
    return result
