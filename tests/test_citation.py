"""How to cite the software: a file that reference managers read, of this version."""

from __future__ import annotations

import yaml

import pixelbert_fast
from tests.scripts import ROOT

# Of the schema of version 1.2.0: what a file must have, and what ours may have besides.
REQUIRED = {"cff-version", "message", "title", "authors"}
KNOWN = REQUIRED | {"type", "abstract", "version", "license", "keywords", "references"}
REFERENCE_KNOWN = {"type", "title", "authors", "year", "journal", "url", "identifiers"}


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited.keys() >= REQUIRED and cited.keys() <= KNOWN
    assert (cited["cff-version"], cited["type"]) == ("1.2.0", "software")
    assert cited["version"] == pixelbert_fast.__version__
    assert f'license = "{cited["license"]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(set(author) == {"name"} for author in cited["authors"])
    (paper,) = cited["references"]
    assert paper.keys() >= {"type", "title", "authors"} and paper.keys() <= REFERENCE_KNOWN
    assert [author["family-names"] for author in paper["authors"]] == ["Huang", "Zeng", "Liu", "Fu", "Fu"]
    assert (paper["year"], paper["url"]) == (2020, "https://arxiv.org/abs/2004.00849")
    assert all(one["type"] in {"doi", "url", "swh", "other"} for one in paper["identifiers"])
