"""The directions of the code, drawn from its imports: docs/images/architecture.svg.

python .ci/directions.py            says whether the picture differs from the code, and exits with 1 if so
python .ci/directions.py --write    draws it
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import directions_picture
import floors

PICTURE = floors.ROOT / "docs" / "images" / "architecture.svg"
NATIVE = "csrc"
FLOORS = {**floors.FLOORS, NATIVE: floors.FLOORS["kernels"]}
# What is no package has no docstring to say what it is.
ABOUT = {
    "top": "What is started: the pixelbert command, and train.py for DeepSpeed's launcher.",
    "kernels": "Triton kernels, one file an op.",
    NATIVE: "C++ and CUDA kernels, loaded by the ops where they were built.",
    "ground": "What everything stands on",
}
# The libraries that a part is about, as they call themselves.
LIBRARIES = {
    "torch": "PyTorch",
    "transformers": "transformers",
    "triton": "Triton",
    "deepspeed": "DeepSpeed",
    "datasets": "datasets",
    "nvidia.dali": "DALI",
    "PIL": "Pillow",
    "pydantic": "pydantic",
    "typer": "typer",
    "tensorboard": "TensorBoard",
    "torch.utils.tensorboard": "TensorBoard",
    "wandb": "wandb",
}


def read() -> tuple[list[directions_picture.Part], set[tuple[str, str]]]:
    """The parts of the house as its files are now, and which imports from which.

    What only a type checker imports, and what is imported late, counts too: it is a dependence.
    """
    inside: dict[str, set[str]] = {name: set() for name in FLOORS}
    libraries: dict[str, set[str]] = {name: set() for name in FLOORS}
    about, imports = dict(ABOUT), set()
    for module, path in floors.modules():
        source, part = path.read_text(encoding="utf-8"), floors.part_of(module)
        is_package = path.name == "__init__.py"
        if module == part:
            about[part] = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        if part in ("ground", "top"):
            inside[part].add(module)
        elif is_package and module != part:
            inside[part].add(module.split(".")[1])
        imports |= {(part, there) for _, _, there in floors.crossings(source, module, is_package=is_package)}
        if "load_library(" in source:
            imports.add((part, NATIVE))
        for _, name in floors.imports_of(source, module, is_package=is_package):
            libraries[part] |= {LIBRARIES[one] for one in LIBRARIES if f"{name}.".startswith(f"{one}.")}
    inside[NATIVE] = {path.name for path in (floors.ROOT / NATIVE).iterdir() if path.is_dir()}
    parts = [
        directions_picture.Part(
            name,
            floor,
            about[name],
            tuple(sorted(one for one in inside[name] if not one.startswith("_"))),
            tuple(sorted(libraries[name], key=str.lower)),
        )
        for name, floor in FLOORS.items()
    ]
    return parts, imports


def picture() -> str:
    """The picture of the house as it is now."""
    return directions_picture.draw(*read())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="draw it")
    write = parser.parse_args(arguments).write
    drawn = picture()
    if PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == drawn:
        return 0
    if write:
        PICTURE.write_text(drawn, encoding="utf-8")
    print(f"{PICTURE.name} {'drawn' if write else 'differs from the code; make pages'}")
    return 0 if write else 1


if __name__ == "__main__":
    sys.exit(main())
