"""The machinery of a suite: stages as processes, what is kept of those that fail, and making some again."""

from __future__ import annotations

import json
import signal
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


def test_a_fuller_contest_of_a_case_takes_its_place() -> None:
    """Else a case would have two references, and its rows could not be told apart."""

    def rows(case: str, *names: str) -> list:
        return Contest("s", case, "float32", roles={"a": REFERENCE}).rows(
            {name: Timing.of([1.0] * 8) for name in names}
        )

    found = suite.Found("cpu", quick=True, end=time.monotonic() + 60)
    for case, names in (("one", "ab"), ("two", "ab"), ("one", "abc")):
        found.attempt(case, rows, case, *names)
    assert [(row.case, row.contestant) for row in found.rows] == [
        *(("one", name) for name in "abc"),
        *(("two", name) for name in "ab"),
    ]


def test_a_report_tells_which_code_measured_which_stage(script: Path, whole: tuple, tmp_path: Path) -> None:
    _, _, folder = whole
    (stored,) = folder.glob("*.json")
    before = json.loads(stored.read_text())
    for stage in before["stages"].values():
        stage.pop("revision")
    (tmp_path / stored.name).write_text(json.dumps(before | {"revision": "old"}))
    _, after = run(script, tmp_path, "--only", "good")
    now = after["stages"]["good"]["revision"]
    assert now == suite.revision()
    assert after["revision"] == f"old (ceilings, bad, dying, hanging); {now} (good)" or now == "old"


@pytest.mark.parametrize("change", ["machine", "quick"])
def test_stages_of_unlike_runs_are_not_mixed(script: Path, whole: tuple, tmp_path: Path, change: str) -> None:
    _, _, folder = whole
    (stored,) = folder.glob("*.json")
    before = json.loads(stored.read_text())
    if change == "machine":
        before["machine"]["torch"] = "1.0"
    else:
        before["command"] += " --quick"
    (tmp_path / stored.name).write_text(json.dumps(before))
    ran, after = run(script, tmp_path, "--only", "good")
    assert ran.returncode == 2 and "torch" in ran.stderr + "torch" * (change == "quick")
    assert "cannot be kept beside new ones" in ran.stderr and "Traceback" not in ran.stderr
    assert after == before


def test_what_cannot_be_drawn_costs_no_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no such colour")

    monkeypatch.setattr(suite.results_page, "write", broken)
    made = suite.Suite("s.py", "make it", "cpu", {}, 1.0)
    target = tmp_path / "report.json"
    assert not suite._write(made, {"ceilings": None, "stages": {"one": {}}}, target)
    assert json.loads(target.read_text())["stages"] == {"one": {}}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_neither_its_stage_nor_scratch(
    script: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, str(script), "--output", str(tmp_path), "--threads", "1", "--only", "hanging"]

    def heed() -> None:
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # a shell lets what it starts in the background ignore it

    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=heed
    ) as process:
        until = time.monotonic() + 60
        while not list(tmp_path.glob(".*.json")) and time.monotonic() < until:
            time.sleep(0.05)
        scratch = list(tmp_path.glob(".*.json"))
        process.send_signal(number)
        process.communicate(timeout=60)
    assert scratch and process.returncode not in (0, 1)
    assert not list(tmp_path.iterdir())
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(scratch[0]) not in lines
