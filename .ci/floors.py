"""Which part of the house a module belongs to, on which floor that lies, and what a module imports.

`tests/test_layout.py` enforces the directions, `.ci/directions.py` draws them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pixelbert_fast"

# Ground floor first; a part imports only itself and parts on lower floors. Parts of one floor never meet.
FLOORS = {
    "ground": 0,
    "kernels": 1,
    "ops": 2,
    "model": 3,
    "data": 3,
    "tasks": 4,
    "training": 5,
    "visualize": 5,
    "commands": 6,
    "top": 7,
}
GROUND_MODULES = {
    "",
    "errors",
    "environment",
    "batch",
    "_source_tree",
    "_build",
    "_build_commands",
    "_build_cuda",
    "_build_host",
    "_host",
    "machine",
    "durations",
    "pretrained",
}
TOP_MODULES = {"cli", "train", "environment_report"}


def python_files(*directories: str) -> list[Path]:
    return [path for name in directories for path in sorted((ROOT / name).rglob("*.py"))]


def module_name(path: Path) -> str:
    """`ops/functional.py` of the package becomes `ops.functional`, `__init__.py` of the package ``."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part of the house that a module of the package (named without the package) belongs to."""
    first = module.partition(".")[0]
    if first in GROUND_MODULES:
        return "ground"
    return "top" if first in TOP_MODULES else first


def modules() -> Iterator[tuple[str, Path]]:
    """The modules that have a floor, each with its file: the package's but `__init__`, and the kernels."""
    for path in python_files("pixelbert_fast"):
        if path != PACKAGE / "__init__.py":
            yield module_name(path), path
    for path in python_files("kernels"):
        yield f"kernels.{path.stem}", path


@cache
def imports_of(source: str, module: str, *, is_package: bool) -> list[tuple[int, str]]:
    """Every imported module with its line, late imports included, relative ones made absolute."""
    package = module if is_package else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = f"pixelbert_fast.{package}".rstrip(".").split(".")
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            if base == "pixelbert_fast":  # from pixelbert_fast import ops: a module or a public name
                found += [(node.lineno, f"pixelbert_fast.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, base))
    return found


def crossings(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str, str]]:
    """The imports of a module of the package from other parts: line, what is imported, and that part."""
    here = part_of(module)
    for line, imported in imports_of(source, module, is_package=is_package):
        inside = imported.removeprefix("pixelbert_fast.")
        if inside != imported and part_of(inside) not in (here, "__version__"):
            yield line, imported, part_of(inside)
