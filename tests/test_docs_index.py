"""The index of the documentation lists every page, and what code says of pages is true of them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def links_of(page: Path) -> set[Path]:
    """The files that a page links to."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    return {(page.parent / link).resolve() for link in links if "://" not in link}


def test_the_index_lists_every_page() -> None:
    pages = {*DOCS.glob("*.md"), *(DOCS / "results").glob("*.md")} - {DOCS / "README.md"}
    listed = links_of(DOCS / "README.md")
    assert DOCS / "guide-vqa.md" in listed
    assert not sorted(page.relative_to(ROOT).as_posix() for page in pages - listed)


def test_pages_that_code_and_recipes_name_are_there() -> None:
    files = [ROOT / "Makefile", *(ROOT / ".ci").glob("*.py")]
    for ending in ("*.py", "*.yaml"):
        files += (ROOT / "pixelbert_fast").rglob(ending)
    named = {
        (file.relative_to(ROOT).as_posix(), page)
        for file in files
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", file.read_text(encoding="utf-8"))
    }
    assert ("pixelbert_fast/configs/vqa_r50.yaml", "docs/guide-vqa.md") in named
    assert not sorted(f"{file} names {page}" for file, page in named if not (ROOT / page).exists())
