"""`make matrix`: which combinations it tries, what the oldest versions are, and the page."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that writes its page into `tmp_path`."""
    spec = importlib.util.spec_from_file_location("matrix", ROOT / ".ci" / "matrix.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "matrix", module)  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PAGE", tmp_path / "matrix.md")
    return module


def test_the_oldest_python_gets_both_ends_and_later_ones_the_newest(matrix: ModuleType) -> None:
    found = [one.key for one in matrix.standard({11: "/a", 13: "/b"})]
    assert found == [("3.11", "oldest"), ("3.11", "newest"), ("3.13", "newest")]
    assert [one.key for one in matrix.standard({12: "/a"})] == [("3.12", "newest")]


def test_this_python_is_found_and_is_claimed(matrix: ModuleType) -> None:
    assert PROJECT["requires-python"] == f">=3.{matrix.OLDEST_PYTHON}"
    tried = range(matrix.OLDEST_PYTHON, matrix.NEWEST_PYTHON + 1)
    claimed = [one.rpartition("3.")[2] for one in PROJECT["classifiers"] if "Python :: 3." in one]
    assert claimed and set(map(int, claimed)) <= set(tried)
    for minor, python in matrix.interpreters().items():
        assert minor in tried and matrix.answer(python, matrix.VERSION) == f"3.{minor}"


def test_the_oldest_versions_are_the_bounds(matrix: ModuleType) -> None:
    pins = matrix.lowest(PROJECT)
    assert "torch==2.11" in pins and "transformers==5.0" in pins
    assert len(pins) == len(PROJECT["dependencies"])
    with pytest.raises(matrix.MatrixError, match=r"numpy<3 has no lower bound"):
        matrix.lowest({"dependencies": ["numpy<3"]})


@pytest.mark.parametrize("word", ["3.12", "2.7:oldest", "3.x:newest", "3.12:middle"])
def test_a_wrong_combination_is_a_sentence(
    word: str, matrix: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert matrix.main([word]) == 2
    assert capsys.readouterr().err == (
        f"matrix: {word!r} is no combination; write it as 3.12:newest or 3.11:oldest\n"
    )


def test_a_python_that_is_not_here_is_a_sentence(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(matrix, "interpreters", lambda: {11: sys.executable})
    assert matrix.main(["3.14:newest"]) == 2
    assert "no Python 3.14 on the path" in capsys.readouterr().err


def test_the_page_keeps_the_rows_that_were_not_run(matrix: ModuleType) -> None:
    def row(python: str, end: str, outcome: str) -> list[str]:
        return [python, end, "2.11.0", "5.0.0", "numpy 2.0.0", outcome, "80 s", "60 s", "May 2026"]

    first = row("3.13", "newest", "3 passed"), row("3.11", "newest", "3 passed"), row("3.11", "oldest", "x")
    for one in (*first, row("3.11", "oldest", "FAILED: 1 failed")):
        matrix.write_row(one)
    rows = matrix.rows_of(matrix.PAGE)
    assert [(one[0], one[1], one[5]) for one in rows] == [
        ("3.11", "oldest", "FAILED: 1 failed"),
        ("3.11", "newest", "3 passed"),
        ("3.13", "newest", "3 passed"),
    ]
    assert rows[1:] == [first[1], first[0]]
    assert "Not tried, for want of an interpreter: Python 3.12, 3.14." in matrix.PAGE.read_text(
        encoding="utf-8"
    )


def test_the_tests_see_nothing_of_the_checkout(matrix: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PIXELBERT_FAST_BACKEND"):
        monkeypatch.setenv(name, str(ROOT))
    given = matrix.surroundings("/elsewhere")
    assert str(ROOT) not in (given.get("PYTHONPATH"), given.get("PIXELBERT_FAST_BACKEND"))
    assert given["XDG_CACHE_HOME"].startswith("/elsewhere")
