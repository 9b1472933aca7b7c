"""The pages written from the code say what the code says, all of it, in words that a reader understands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from pixelbert_fast.training.ablation.recipe import AblationConfig
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.section import BelowOne, Count, Section, Share
from tests.scripts import ROOT, script

reference_pages = script(".ci/reference_pages.py")
config_reference = reference_pages.config_reference
CONFIGURATION = ROOT / "docs" / "configuration.md"


@pytest.fixture(scope="module")
def page() -> str:
    return config_reference.page()


def test_the_pages_are_what_the_code_says() -> None:
    differing = [file.name for file, text in reference_pages.pages().items() if file.read_text() != text]
    assert not differing, f"{', '.join(differing)} differ from the code; write them by `make pages`"


def test_a_page_that_differs_is_named_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference_pages, "ROOT", tmp_path)
    monkeypatch.setattr(reference_pages.config_reference, "page", lambda: "# Options\n")
    (tmp_path / "docs").mkdir()
    assert reference_pages.main([]) == 1
    assert reference_pages.main(["--write"]) == 0
    assert "docs/configuration.md written" in capsys.readouterr().out
    assert (tmp_path / "docs" / "configuration.md").read_text().endswith("# Options\n")
    assert reference_pages.main([]) == 0 and not capsys.readouterr().out


def keys(value: Any, above: str = "") -> Iterator[str]:
    """Of a tree of models by their own fields, every key."""
    for name, field in value.model_fields.items():
        yield above + name
        for kind, between in models_below(field.annotation):
            yield from keys(kind, f"{above}{name}{between}.")


def models_below(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    text = str(annotation)
    between = ".0" if "tuple[" in text else ".NAME" if "dict[" in text else ""
    found = [annotation, *getattr(annotation, "__args__", ())]
    found += [inner for one in found for inner in getattr(one, "__args__", ())]
    for kind in dict.fromkeys(one for one in found if isinstance(one, type)):
        if issubclass(kind, BaseModel):
            yield kind, between


@pytest.mark.parametrize("tree", [RunConfig, AblationConfig])
def test_every_option_of_every_section_has_a_line(tree: type[BaseModel], page: str) -> None:
    listed = re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)
    wanted = list(keys(tree))
    assert len(wanted) > 20 and not [key for key in wanted if key not in listed]


def test_every_line_is_whole_and_every_link_leads_somewhere(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert not [row for row in rows if any(not cell.strip() for cell in cells(row)[:3] + cells(row)[-1:])]
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    }
    linked = set(re.findall(r"\]\(#([\w-]+)\)", page))
    assert linked and linked <= headings


def cells(row: str) -> list[str]:
    return re.split(r"(?<!\\)\|", row)[1:-1]


@pytest.mark.parametrize(
    "line",
    [
        "| `data.mismatched_share` | number, 0 to 1 | `0.5` | how many of them are made not",
        "| `optimizer.transformer.momentum` | number, 0 to below 1 | `0.9` | SGD's, 0 to below 1. |",
        "| `training.steps` | integer, at least 1; or null | `null` | how long to train; give one. A step is",
        "| `training` | section | required | How long and how. [Its options](#training). |",
        "| `images` | integer | `10000` | in all splits together, at least 20. |",
        "| `backbone_channels` | integer, at least 1 | `64` | `24` |  | channels of the stem",
    ],
)
def test_lines_that_are_known(line: str, page: str) -> None:
    assert f"\n{line}" in page


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (Share, "number, 0 to 1"),
        (Count | None, "integer, at least 1; or null"),
        (BelowOne, "number, 0 to below 1"),
        (Annotated[float, Field(gt=0.0)], "number, above 0"),
        (Literal["a", "b"], "`a` or `b`"),
        (tuple[BelowOne, BelowOne], "list of 2, each number, 0 to below 1"),
        (Annotated[tuple[str, ...], Field(min_length=1)], "list, each text, at least 1 of them"),
        (dict[str, Any], "tree"),
        (dict[str, int] | None, "tree by name, each integer; or null"),
        (bool, "true or false"),
    ],
)
def test_types_and_bounds_in_words(annotation: Any, said: str) -> None:
    assert config_reference.typed(annotation) == said


def test_an_option_without_a_meaning_is_refused() -> None:
    class Silent(Section):
        """A section.

        Attributes:
            told: what it is.
        """

        told: int = 1
        untold: int = 2

    with pytest.raises(LookupError, match="Silent does not say what untold means"):
        config_reference._section(config_reference.Place("silent", Silent), heading="##")


def variables_read(tree: ast.AST) -> Iterator[str]:
    """The names that `os.environ` is asked for."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=place, attr="get"), args=[ast.Constant(name), *_]):
                pass
            case ast.Subscript(value=place, slice=ast.Constant(name), ctx=ast.Load()):
                pass
            case ast.Compare(left=ast.Constant(name), comparators=[place]):
                pass
            case _:
                continue
        if ast.unparse(place) == "os.environ":
            yield name


def test_the_variables_of_others_that_the_package_reads_are_listed() -> None:
    files = [*(ROOT / "pixelbert_fast").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]
    found = {name for file in files for name in variables_read(ast.parse(file.read_text("utf-8")))}
    assert {"RANK", "CXX"} <= found
    assert found <= reference_pages.READ.keys()
    assert not [name for name in reference_pages.READ if not any(name in f.read_text() for f in files)]
