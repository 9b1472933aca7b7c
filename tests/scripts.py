"""Scripts that lie outside the package, as modules for a test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def script(place: str) -> ModuleType:
    """The file at `place` in the repository, run as a module; it may import its neighbours."""
    path = ROOT / place
    known = sys.modules.get(f"scripts.{path.stem}")
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(f"scripts.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    before = list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module
