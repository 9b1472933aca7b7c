"""The house rules that no reader checks by eye: who imports whom, what lies where, how long files are."""

from __future__ import annotations

import ast
import re
import sys

import pytest

from tests.doc_blocks import pages
from tests.scripts import ROOT, script

floors = script(".ci/floors.py")
FLOORS, PACKAGE = floors.FLOORS, floors.PACKAGE
imports_of, part_of, python_files = floors.imports_of, floors.part_of, floors.python_files

# Where a library may be imported: path prefixes inside the repository.
ONLY_IN = {
    "triton": ("kernels/", "pixelbert_fast/ops/triton_backend.py"),
    "deepspeed": ("pixelbert_fast/training/deepspeed_engine.py",),
    "nvidia": ("pixelbert_fast/data/decoders/dali.py",),
    "simplejpeg": ("pixelbert_fast/data/decoders/plain.py",),
    "typer": ("pixelbert_fast/cli.py", "pixelbert_fast/commands/", "pixelbert_fast/training/"),
    "tqdm": ("pixelbert_fast/cli.py", "pixelbert_fast/training/"),
    "tensorboard": ("pixelbert_fast/training/",),
    "torch.utils.tensorboard": ("pixelbert_fast/training/",),
    "wandb": ("pixelbert_fast/training/logs.py",),
    "matplotlib": ("pixelbert_fast/visualize/",),
    "torchvision": (),
    "timm": (),
}

# A module of this name beside train.py hides one that torch or transformers imports, because a script's
# directory comes first on the path. Python's own names are forbidden as well.
FORBIDDEN_NAMES = {
    "token", "tokenizers", "huggingface_hub", "kernels", "triton", "datasets", "evaluate", "deepspeed",
}  # fmt: skip
VAGUE_NAMES = {"utils", "util", "common", "misc", "helpers", "tools"}
MOST_LINES = 350


def wrong_directions(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """The imports of a module of the package that go up, sideways, or through a public name."""
    here, wrong = part_of(module), []
    for line, imported, there in floors.crossings(source, module, is_package=is_package):
        if there not in FLOORS:
            wrong.append(f"{module}:{line} imports {imported}, which has no floor")
        elif FLOORS[there] >= FLOORS[here]:
            wrong.append(f"{module}:{line} ({here}) imports {imported} ({there})")
    return wrong


def wrong_libraries(source: str, place: str) -> list[str]:
    """The libraries that the file at `place` (in the repository) imports and may not."""
    wrong = []
    for line, imported in imports_of(source, "", is_package=True):
        for library, places in ONLY_IN.items():
            if (imported == library or imported.startswith(f"{library}.")) and not place.startswith(places):
                wrong.append(f"{place}:{line} imports {imported}")
    return wrong


@pytest.mark.parametrize(
    ("source", "module", "count"),
    [
        ("from ..data import records", "model.backbone", 1),
        ("from pixelbert_fast.model import config", "data.records", 1),
        ("def f():\n    import pixelbert_fast.training.loop", "tasks.objects.task", 1),
        ("from pixelbert_fast import PixelBERT", "tasks.pretraining", 1),
        ("from ..cli import main", "training.run", 1),
        ("from ..ops import pool_gather", "model.pixelbert", 0),
        ("from pixelbert_fast import ops", "model.pixelbert", 0),
        ("from .backbone import ResNet", "model.pixelbert", 0),
        ("from ..errors import UserError", "data.records", 0),
        ("from .training.cli import main", "train", 0),
        ("from pixelbert_fast import kernels", "environment", 1),
    ],
)
def test_the_checker_sees_wrong_directions(source: str, module: str, count: int) -> None:
    assert len(wrong_directions(source, module)) == count


@pytest.mark.parametrize(
    ("source", "place", "count"),
    [
        ("import triton.language as tl", "kernels/pool_gather.py", 0),
        ("def f():\n    import triton", "pixelbert_fast/ops/functional.py", 1),
        ("from deepspeed import comm", "pixelbert_fast/training/loop.py", 1),
        ("from nvidia.dali import fn", "pixelbert_fast/data/images.py", 1),
        ("import tqdm", "pixelbert_fast/data/build.py", 1),
        ("import tritonish", "pixelbert_fast/data/build.py", 0),
    ],
)
def test_the_checker_sees_libraries_out_of_place(source: str, place: str, count: int) -> None:
    assert len(wrong_libraries(source, place)) == count


def test_imports_go_down_only() -> None:
    wrong = []
    for module, path in floors.modules():
        source = path.read_text(encoding="utf-8")
        wrong += wrong_directions(source, module, is_package=path.name == "__init__.py")
    assert not wrong, "\n".join(wrong)


def test_the_package_itself_imports_next_to_nothing() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {node.module for node in at_import} == {"__future__", "importlib", "typing", "_source_tree"}


def test_libraries_stay_where_they_belong() -> None:
    wrong = []
    for path in python_files("pixelbert_fast", "kernels"):
        wrong += wrong_libraries(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    assert not wrong, "\n".join(wrong)


def test_no_module_beside_train_hides_a_library() -> None:
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert "errors" in names
    assert not names & (FORBIDDEN_NAMES | sys.stdlib_module_names)


def test_kernels_is_not_a_regular_package() -> None:
    """With an `__init__.py` it would hide Hugging Face's `kernels` from transformers."""
    assert (ROOT / "kernels" / "support.py").is_file()
    assert not list((ROOT / "kernels").rglob("__init__.py"))


def test_every_directory_of_the_package_is_one() -> None:
    """`find_packages` leaves out a directory without `__init__.py`, and with it its modules."""
    directories = {path.parent for path in python_files("pixelbert_fast")}
    assert not [str(directory) for directory in directories if not (directory / "__init__.py").is_file()]


def test_names_say_what_is_inside() -> None:
    files = python_files("pixelbert_fast", "kernels", "tests")
    assert not [str(path) for path in files if VAGUE_NAMES & {path.stem, path.parent.name}]


def test_files_are_short() -> None:
    files = [*python_files("pixelbert_fast", "kernels", "tests", ".ci"), *(ROOT / "csrc").rglob("*.c*")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    too_long = [f"{path.relative_to(ROOT)}: {lines}" for path, lines in lengths.items() if lines > MOST_LINES]
    assert not too_long, "\n".join(too_long)


def variables_in(text: str) -> set[str]:
    return set(re.findall(r"\bPIXELBERT_FAST_[A-Z][A-Z_]*[A-Z]\b", text))


def test_environment_variables_are_declared_in_one_module_and_documented() -> None:
    from pixelbert_fast.environment import VARIABLES

    declared = {variable.name for variable in VARIABLES}
    texts = [path.read_text(encoding="utf-8") for path in python_files("pixelbert_fast", "kernels", ".ci")]
    texts.append((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert set().union(*map(variables_in, texts)) == declared
    named = {page: variables_in(page.read_text(encoding="utf-8")) for page in pages()}
    assert declared <= named[ROOT / "docs" / "environment.md"]
    assert not {str(page): names - declared for page, names in named.items() if names - declared}


def test_environment_variables_are_read_in_one_module() -> None:
    wrong = []
    for path in python_files("pixelbert_fast", "kernels"):
        if path == PACKAGE / "environment.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in variables_in(str(node.value)):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} names {node.value}")
    assert not wrong, "\n".join(wrong)
