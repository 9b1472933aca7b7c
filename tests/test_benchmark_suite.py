"""The machinery of a suite: stages as processes, what is kept of those that fail, and making some again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import suite  # noqa: E402 - needs the path above
from contest import Timing  # noqa: E402
from rows import REFERENCE, Contest, Work  # noqa: E402

# A suite of its own: quick stages that do all that a stage can.
SCRIPT = """
import sys, time
sys.path.insert(0, {benchmarks!r})
import suite
from contest import Timing
from rows import REFERENCE, Contest, Work
from suite import Found, Stage


def rows(number):
    contest = Contest("good", f"case {{number}}", "float32", Work(1000, 2000), roles={{"a": REFERENCE}})
    return contest.rows({{"a": Timing.of([2.0] * 8), "b": Timing.of([1.0] * 8)}})


def ceilings(found):
    found.more["ceilings"] = {{
        "copy_gigabytes_per_second": 0.002,
        "matrix_gigaflops_per_second": {{"float32": 0.004}},
    }}


def good(found):
    found.attempt("the first", rows, 1)
    found.attempt("the second", lambda: (rows(2), ["a third needs more"]))


def bad(found):
    found.attempt("one", rows, 1)
    found.attempt("two", lambda: 1 / 0)


def hanging(found):
    found.attempt("one", rows, 1)
    time.sleep(60)


def dying(found):
    found.attempt("one", rows, 1)
    sys.exit(7)


STAGES = {{
    "ceilings": Stage(60, ceilings),
    "good": Stage(60, good),
    "bad": Stage(60, bad),
    "dying": Stage(60, dying),
    "hanging": Stage({hangs}, hanging),
}}
SUITE = suite.Suite(__file__, "make it", "cpu", STAGES, most_seconds=240)
sys.exit(suite.main(SUITE, "A suite."))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "made.py"
    path.write_text(SCRIPT.format(benchmarks=str(ROOT / "benchmarks"), hangs=20))
    return path


def run(script: Path, folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess, dict]:
    command = [sys.executable, str(script), "--output", str(folder), "--threads", "1", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    (found,) = folder.glob("*.json")
    return ran, json.loads(found.read_text())


@pytest.fixture(scope="module")
def whole(
    script: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess, dict, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return *run(script, folder), folder


def test_what_a_stage_had_found_is_kept_however_it_ends(whole: tuple) -> None:
    ran, report, _ = whole
    assert ran.returncode == 1, ran.stderr
    stages = report["stages"]
    assert list(stages) == ["ceilings", "good", "bad", "dying", "hanging"]
    assert all(len(stages[name]["rows"]) == 2 for name in ("bad", "dying", "hanging"))
    assert stages["bad"]["failed"] == ["two: ZeroDivisionError: division by zero"]
    assert stages["dying"]["failed"] == ["the process ended with 7"]
    assert stages["hanging"]["failed"] == ["stopped after 20 s"]
    assert "failed" not in stages["good"] and len(stages["good"]["rows"]) == 4
    assert stages["good"]["not_measured"] == ["a third needs more"]


def test_rows_get_their_shares_of_the_ceilings(whole: tuple) -> None:
    _, report, _ = whole
    slow, fast = report["stages"]["good"]["rows"][:2]
    # 1,000 bytes in 2 ms of 2 MB/s, 2,000 operations of 4 million a second.
    assert (slow["of_copy"], slow["of_matrix"]) == (0.25, 0.25)
    assert (fast["of_copy"], fast["times_faster"]) == (0.5, 2.0)


def test_nothing_else_is_left_and_the_report_says_what_made_it(whole: tuple) -> None:
    _, report, folder = whole
    names = {path.name for path in folder.iterdir()}
    stem = f"{report['name']}-{report['date']}"
    assert {f"{stem}.json", f"{stem}.md"} <= names
    assert all(name.startswith(stem) for name in names)
    assert report["command"] == "make it --threads 1" and report["name"].endswith("-1-thread")
    assert report["machine"]["threads"] == 1


def test_one_stage_can_be_made_again(script: Path, whole: tuple) -> None:
    _, before, folder = whole
    ran, after = run(script, folder, "--only", "good")
    assert ran.returncode == 1  # the others are still as they were
    assert list(after["stages"]) == list(before["stages"])
    assert after["stages"]["bad"] == before["stages"]["bad"]
    assert after["stages"]["good"]["rows"] == before["stages"]["good"]["rows"]


def test_no_stage_begins_when_its_time_is_over() -> None:
    found = suite.Found("cpu", quick=True, end=time.monotonic() - 1)
    found.attempt("this", lambda: pytest.fail("it began"))
    assert found.as_dict() == {"failed": ["no time was left for this"]}


def test_a_ratio_counts_what_a_run_goes_through() -> None:
    """One that does four times as many items in twice the time is twice as fast."""
    contest = Contest("s", "c", "float32", Work(None, 10), items=4, item="pairs", roles={"one": REFERENCE})
    timings = {"one": Timing.of([10.0] * 8), "four": Timing.of([20.0] * 8)}
    one, four = contest.rows(timings, items={"one": 1, "four": 4})
    assert (one.times_faster, four.times_faster) == (1.0, 2.0)
    assert four.ratio_quartiles == (2.0, 2.0) and four.block_ratios == (2.0,) * 4
    assert (one.as_dict()["per_second"], four.as_dict()["per_second"]) == (100.0, 200.0)
