"""The table of targets: every figure is found where it is said to stand, and judged by its bound."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import results_page  # noqa: E402 - needs the path above
import stored  # noqa: E402
import target_list  # noqa: E402
import targets  # noqa: E402
from target_list import InPage, InReport, Target  # noqa: E402

STORED = sorted(stored.RESULTS.glob("*.json"))


def report(times: float) -> dict:
    """In which `ours` is so many times as fast as the reference."""
    rows = [
        {
            "case": f"op {size}: forward",
            "contestant": who,
            "role": role,
            "milliseconds": {"median": median},
            "times_faster": 10.0 / median,
            "items": None,
            "at": None,
        }
        for size in ("small", "large")
        for who, role, median in (("reference", "reference", 10.0), ("ours", "ours", 10.0 / times))
    ]
    return {"command": "make bench", "stages": {"ops": {"seconds": 1.0, "rows": rows}}}


@pytest.mark.parametrize(("times", "verdict"), [(2.0, targets.MET), (1.99, targets.MISSED)])
def test_a_ratio_is_judged_by_its_bound(times: float, verdict: str) -> None:
    target = Target("The ops", "twice", InReport("ops", "op large", "ours", "reference", 2.0))
    judged = targets.judged(target, report(times))
    assert judged.verdict == verdict
    assert judged.figure.startswith(f"{times:.2f} (")


@pytest.mark.parametrize(
    "missing", [("ops", "op huge", "ours"), ("ops", "op", "theirs"), ("step", "", "ours")]
)
def test_what_no_report_has_is_not_measured(missing: tuple[str, str, str]) -> None:
    target = Target("The ops", "twice", InReport(*missing, "reference", 2.0))
    assert targets.judged(target, report(3.0)).verdict == targets.UNKNOWN


def test_a_figure_that_its_page_does_not_have_is_refused() -> None:
    target = Target(
        "Tasks", "all", InPage("docs/results/tasks.md", "101 % of everything", True, "no command")
    )
    with pytest.raises(ValueError, match="does not say '101 % of everything'"):
        targets.judged(target, report(1.0))


@pytest.mark.parametrize("target", target_list.TARGETS, ids=lambda target: target.goal)
def test_every_target_is_found_where_it_should_stand(target: Target) -> None:
    assert target.topic in target_list.TOPICS
    path = stored.newest("cpu")
    judged = targets.judged(target, stored.read(path) if path else report(1.0))
    assert judged.verdict != targets.MISSED or judged.target.why, "a target that was missed has its reason"


def test_the_stored_table_is_that_of_the_stored_report() -> None:
    path = stored.newest("cpu")
    assert path is not None
    assert targets.PAGE.read_text(encoding="utf-8") == targets.page(stored.read(path)), (
        "python benchmarks/targets.py --write"
    )


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_report_has_the_page_and_plots_that_follow_from_it(path: Path, tmp_path: Path) -> None:
    for made in results_page.write(stored.read(path), tmp_path):
        assert made.read_text(encoding="utf-8") == (path.parent / made.name).read_text(encoding="utf-8"), (
            f"python benchmarks/results_page.py {path.relative_to(ROOT)}"
        )
