"""Make `pixelbert_fast.kernels` importable from a checkout.

A wheel carries the Triton kernels inside the package. In a checkout they lie beside it, in `kernels/`, and
neither an uninstalled package nor an editable install finds them there.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path


def register_kernels(package: str, package_path: list[str]) -> None:
    """Register the checkout's `kernels/` as `<package>.kernels`, unless an installed one is there."""
    name = f"{package}.kernels"
    if name in sys.modules or PathFinder.find_spec(name, package_path) is not None:
        return
    checkout = Path(package_path[0]).resolve().parent
    directory = checkout / "kernels"
    if not directory.is_dir() or not (checkout / "setup.py").is_file():
        return
    spec = ModuleSpec(name, loader=None, is_package=True)
    spec.submodule_search_locations = [str(directory)]
    sys.modules[name] = module_from_spec(spec)
    sys.modules[package].kernels = sys.modules[name]
